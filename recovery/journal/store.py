"""The memory of every recovery: append-only events, and the leases that give the right to act.

Two stores stand behind this one interface: a SQLite file (one machine, the default) and a Postgres
database (many workers). What must be atomic is one call here. If the journal cannot be written,
nothing is done: every method raises rather than go on without it.
"""

import os
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from recovery.errors import BadInput, ExitCode, RecoveryError
from recovery.journal.events import FORMAT, Event, Kind
from recovery.secrecy.redaction import contains_secret, redact_value
from recovery.values import canonical

LEASE_SECONDS_MAX = 30.0
LEASE_SECONDS = 15.0


class JournalUnavailable(RecoveryError):
    """The journal cannot be read or written, so nothing is done. Fields: journal, what was seen."""

    exit_code = ExitCode.FAILED

    def __init__(self, journal: str, seen: str) -> None:
        super().__init__(journal, seen)
        self.journal, self.seen = journal, seen

    def __str__(self) -> str:
        """Which journal, what was seen, what to do."""
        return (
            f"the journal {self.journal} cannot be used: {self.seen}. Nothing is done without it: "
            "see that it can be reached and written to (RECOVER_JOURNAL names it), then resume."
        )


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to act on a target. `deadline` is on this machine's boot-time clock."""

    target: str
    recovery_id: str
    epoch: int
    seconds: float
    deadline: float


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a target's lease, as the store sees it now."""

    target: str
    recovery_id: str
    epoch: int
    owner: str
    seconds_left: float


class LeaseLost(Exception):
    """The epoch of a write is old, or its lease ran out. Turned into `Fenced` by the attempt."""


def boot_clock() -> float:
    """Seconds since boot, suspended time included: a clock that nobody sets."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Journal(ABC):
    """One store of events and leases. Instances are safe to share between threads."""

    url: str
    identity: str  # tells it from other journals: epochs of two of them say nothing of each other

    @abstractmethod
    def append(  # noqa: PLR0913 (an event has this many parts)
        self,
        recovery_id: str,
        kind: Kind,
        body: Mapping[str, Any],
        *,
        step: str = "",
        attempt: int = 0,
        lease: Lease | None = None,
        needs_live_lease: bool = False,
    ) -> Event:
        """Write one event behind the last one of its recovery; on disk when this returns.

        A look (what was read, and what was seen) may reach the disk with the next event only.

        Args:
            recovery_id: whose journal; its first event must be `opened`.
            kind: what happened.
            body: plain values; secrets are masked as they are written.
            step: the key of the step it is about.
            attempt: the number of the attempt that writes.
            lease: the writer's right to act; without one it is a person who writes.
            needs_live_lease: refuse also when the lease ran out and nobody took it yet. Intents
                need that; an outcome may still be told as long as nobody else has acted.

        Raises:
            LeaseLost: the epoch is old (or the lease ran out, where it must be live).
            JournalUnavailable: it could not be written.
        """

    @abstractmethod
    def events(self, recovery_id: str) -> list[Event]:
        """All events of one recovery in order; none where it does not exist."""

    @abstractmethod
    def head(self, recovery_id: str) -> tuple[int, str]:
        """The last `seq` and hash that were written; `(0, FIRST_HASH)` where there are none."""

    @abstractmethod
    def recovery_ids(self, starting_with: str = "", limit: int = 1000, flow: str = "") -> list[str]:
        """Ids of recoveries, those written to last first; of one flow, or of all."""

    @abstractmethod
    def acted_since(self, target: str, epoch: int) -> list[str]:
        """Ids of recoveries of a target that began an act or a step back there, latest first.

        Args:
            target: the name of what they repair.
            epoch: what was begun under a later one counts, however many recoveries there are.
        """

    @abstractmethod
    def heads(self, limit: int = 1000) -> dict[str, int]:
        """The last `seq` of each recovery, those written to last first."""

    @abstractmethod
    def take_lease(
        self, target: str, recovery_id: str, owner: str, seconds: float, *, by_force: bool = False
    ) -> Lease | Holder:
        """Take the right to act on a target, raising its epoch; or say who holds it.

        Args:
            target: the name of what is repaired.
            recovery_id: who wants it. A live lease of the same recovery counts as held, too.
            owner: host and process, for people.
            seconds: until it runs out, unless renewed.
            by_force: a person's order to take it over while it is live.
        """

    @abstractmethod
    def renew_lease(self, lease: Lease) -> Lease:
        """Push a live lease's end away.

        Raises:
            LeaseLost: it ran out or was taken over.
        """

    @abstractmethod
    def release_lease(self, lease: Lease) -> None:
        """End a lease now; nothing happens when it is no longer ours."""

    @abstractmethod
    def withdraw(self, target: str, recovery_id: str, epoch: int) -> bool:
        """Take the right to act from a recovery that has not acted; false where it has.

        Nothing gets in between the look and the taking: an attempt that runs either has its first
        intent on record before, and is left alone, or can write none afterwards.

        Args:
            target: the name of what it repairs.
            recovery_id: whose right it is.
            epoch: the latest that was known; an attempt with a later one keeps its lease, and
                nothing is taken while it lives.
        """

    @abstractmethod
    def holder(self, target: str) -> Holder | None:
        """Who holds a live lease on the target, if anybody."""

    @abstractmethod
    def close(self) -> None:
        """Close the connection; the journal is not used afterwards."""


def opened_by(flow: str) -> str:
    """What the first event of a recovery holds as text where it is one of this flow."""
    return canonical({"flow": flow})[1:-1] if flow else ""


def opened_on(target: str) -> str:
    """What the first event of a recovery holds as text where it is one of this target."""
    return canonical({"target": target})[1:-1]


def stored_text(body: Mapping[str, Any]) -> str:
    """Write a body as it is stored and hashed: canonical JSON with every known secret masked."""
    text = canonical(body)
    return canonical(redact_value(dict(body))) if contains_secret(text) else text


def lease_seconds() -> float:
    """How long a lease lives without renewal: RECOVER_LEASE_SECONDS, 15 by default, 30 at most."""
    text = os.environ.get("RECOVER_LEASE_SECONDS", str(LEASE_SECONDS))
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= LEASE_SECONDS_MAX:
        raise BadInput(
            "RECOVER_LEASE_SECONDS",
            f"{text!r} is not a number of seconds above 0 and up to {LEASE_SECONDS_MAX:.0f}",
            "Set it to such a number or unset it",
        )
    return seconds


def check_format(url: str, found: int) -> None:
    """Refuse a journal that a newer release has written."""
    if found > FORMAT:
        raise BadInput(
            "RECOVER_JOURNAL",
            f"{url} has format {found}; this release reads up to {FORMAT}",
            "Use the release that wrote it, or a newer one; it was not touched",
        )

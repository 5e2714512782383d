"""Holding a target's lease for as long as an attempt lives, and knowing when it is lost."""

import logging
import os
import socket
import threading
from collections.abc import Callable
from contextlib import suppress

from recovery.errors import Fenced, TargetTaken
from recovery.journal.store import Holder, Journal, JournalUnavailable, Lease, LeaseLost, boot_clock

RENEWALS_PER_LEASE = 3
POLL_SECONDS = 0.1
logger = logging.getLogger("recovery")


def this_worker() -> str:
    """Name this process for people: host and process id."""
    return f"{socket.gethostname()}:{os.getpid()}"


def take_lease(  # noqa: PLR0913 (the three of a lease, and how to wait)
    journal: Journal,
    target: str,
    recovery_id: str,
    seconds: float,
    *,
    take_over: bool = False,
    waiting: Callable[[Holder], None] = lambda _holder: None,
    is_part: bool = False,
) -> Lease:
    """Take the lease, waiting for an older attempt of the same recovery to run out.

    A lease is never stolen: what its holder has sent may still be taking effect. Only a person may
    order that (`take_over`).

    Raises:
        TargetTaken: another recovery holds it, or an attempt of this one is alive and renews it.
    """
    first_seen: Holder | None = None
    deadline = 0.0
    slack = max(2 * POLL_SECONDS, seconds / RENEWALS_PER_LEASE / 2)  # less than a renewal gives
    while True:
        answer = journal.take_lease(target, recovery_id, this_worker(), seconds, by_force=take_over)
        if isinstance(answer, Lease):
            return answer
        if answer.recovery_id != recovery_id:
            raise TargetTaken(target, answer.recovery_id, answer.seconds_left, is_part)
        if first_seen is None:
            first_seen = answer
            deadline = boot_clock() + answer.seconds_left
            waiting(answer)
        is_renewed = boot_clock() + answer.seconds_left > deadline + slack
        if is_renewed or answer.epoch != first_seen.epoch:
            raise TargetTaken(target, recovery_id, answer.seconds_left, is_part, is_own=True)
        threading.Event().wait(min(POLL_SECONDS, max(0.01, answer.seconds_left)))


class LeaseKeeper:
    """Renews a lease from a thread of its own until it is released or lost.

    The leases of the target's parts are held with it: losing one is losing all.
    """

    def __init__(self, journal: Journal, lease: Lease, *parts: Lease) -> None:
        self._held = (lease, *parts)
        self._journal = journal
        self._lost_because = ""
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)
        self._thread.start()

    @property
    def lease(self) -> Lease:
        """The lease of the target."""
        return self._held[0]

    @property
    def epochs(self) -> dict[str, int]:
        """The epoch of the target and of each part, by name."""
        return {lease.target: lease.epoch for lease in self._held}

    def check(self) -> None:
        """Raise where the right to act is gone; asks only this machine's clock, so it is cheap.

        Raises:
            Fenced: the lease ran out (a paused process finds that when it wakes) or was taken.
        """
        if self._lost_because:
            raise Fenced(self.lease.target, self.lease.epoch, self._lost_because)
        for lease in self._held:
            if boot_clock() >= lease.deadline:
                raise Fenced(lease.target, lease.epoch, "it ran out before it was renewed")

    def release(self) -> None:
        """Stop renewing and let others take it now."""
        self._is_over.set()
        self._thread.join(timeout=self.lease.seconds)
        for lease in self._held:
            with suppress(JournalUnavailable):  # it then runs out by itself
                self._journal.release_lease(lease)

    def let_run_out(self) -> None:
        """Stop renewing and release nothing: what was sent to the target may still take effect."""
        self._is_over.set()
        self._thread.join(timeout=self.lease.seconds)

    def _renew(self) -> None:
        while not self._is_over.wait(self.lease.seconds / RENEWALS_PER_LEASE):
            try:
                self._held = tuple(self._journal.renew_lease(lease) for lease in self._held)
            except LeaseLost as lost:
                self._lost_because = str(lost)
                return
            except JournalUnavailable as error:
                logger.warning("the lease was not renewed: %s", error)

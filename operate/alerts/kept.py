"""One alert as it is remembered, and what a database must be able to do to remember it."""

import json
import re
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Protocol, Self

from operate.alerts.payload import Alert, written


class State(StrEnum):
    """Where an alert stands."""

    WAITING = "waiting"
    RESERVED = "reserved"
    STARTED = "started"
    JOINED = "joined"
    ENDED = "ended"
    CANCELLED = "cancelled"
    RESOLVED = "resolved"
    NEEDS_PERSON = "needs-person"
    NOT_ROUTED = "not-routed"


ASKS_PERSON = "asks-person"
STANDS = (*State, ASKS_PERSON)
STANDS_SQL = (
    f"case when state = '{State.STARTED}' and run_state = 'PAUSED' "
    f"then '{ASKS_PERSON}' else state end"
)
WELL = ("Recovered", "Planned", "Completed", "Undone")
NEITHER = ("Cancelled", "Deleted")
CANCELLING = "CANCELLING"
RELEASED = re.compile(r"(?:^|; )released by (.+)$", re.DOTALL)
WITHOUT_RUN = (State.CANCELLED, State.RESOLVED, State.NOT_ROUTED)


class Database(Protocol):
    """What a store must be able to do; SQL is that which SQLite and Postgres share."""

    url: str

    def writing(self) -> AbstractContextManager[None]:
        """One transaction that no other writer gets into; on disk when it is left."""

    def execute(self, sql: str, **values: object) -> int:
        """Change rows; return how many. Names stand in the SQL as `:name`."""

    def read(self, sql: str, **values: object) -> list[dict[str, Any]]:
        """Return rows by the names of their columns."""

    def is_alone(self) -> bool:
        """Whether this process is the one of all receivers that starts runs, from now on."""

    def close(self) -> None:
        """Close it; it is not used afterwards."""


@dataclass(frozen=True)
class Kept:
    """One alert as it is remembered. Moments are seconds since 1970, 0 where there was none.

    Attributes:
        ended_at: when its run ended, the last time; a run that has ended and goes on was begun
            again by a person.
    """

    seq: int
    fingerprint: str
    starts_at: str
    labels: Mapping[str, str]
    is_firing: bool
    state: State
    reason: str
    route: str
    flow: str
    work: str
    deployment: str
    parameters: Mapping[str, Any]
    severity: str
    generation: int
    flow_run_id: str
    run_state: str
    outcome: str
    repeats: int
    received_at: float
    seen_at: float
    not_before: float
    reserved_at: float
    started_at: float
    resolved_at: float
    ended_at: float
    released_at: float

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Self:
        """Read it from its row."""
        plain = dict(row)
        plain["labels"] = json.loads(plain["labels"])
        plain["parameters"] = json.loads(plain["parameters"])
        plain["is_firing"] = bool(plain["is_firing"])
        plain["state"] = State(plain["state"])
        return cls(**plain)

    @property
    def alert(self) -> Alert:
        """The alert as it was read."""
        return Alert(self.fingerprint, self.starts_at, self.is_firing, self.labels)

    @property
    def began_at(self) -> str:
        """When the episode began; not after it was heard of, whatever its sender's clock says."""
        return min(self.starts_at, written(datetime.fromtimestamp(self.received_at, UTC)))

    @property
    def stands(self) -> str:
        """Where it stands, as it is shown: a run that waits for an answer asks a person."""
        is_asking = self.state is State.STARTED and self.run_state == "PAUSED"
        return ASKS_PERSON if is_asking else str(self.state)

    @property
    def released_by(self) -> str:
        """Who let it go on that was held or left to a person; empty where nobody has."""
        told = RELEASED.search(self.reason) if self.released_at else None
        return told[1] if told else ""

    def because(self, reason: str) -> str:
        """A reason as it is kept: with who has released the alert, which is not forgotten."""
        return f"{reason}; released by {self.released_by}" if self.released_by else reason

    @property
    def idempotency_key(self) -> str:
        """What Prefect knows its run by: the same however often it is sent."""
        again = f":{self.generation}" if self.generation > 1 else ""
        return f"am:{self.fingerprint}:{self.starts_at}{again}"


COLUMNS = ", ".join(Kept.__dataclass_fields__)

"""Questions to which nobody gave an answer in time: whoever asked has ended, and is to be told."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from operate.orphans.proof import has_told
from recovery.evidence.status import Reading, readable_events
from recovery.journal.events import Kind
from recovery.notices.notice import Occasion


@dataclass(frozen=True, slots=True)
class OpenQuestion:
    """A question for which a suspended run waits.

    Attributes:
        n: the attempt that asked.
        until: when its run stops waiting, in UTC as ISO 8601.
        goes_back: it was about the way back.
        written_at: when a watch wrote down that nobody had answered; empty before.
    """

    recovery_id: str
    flow: str
    target: str
    n: int
    flow_run_id: str
    key: str
    plan_hash: str
    until: str
    goes_back: bool
    written_at: str = ""

    def is_over(self, now: datetime | None = None) -> bool:
        """Whether its run waits no more."""
        return datetime.fromisoformat(self.until) <= (now or datetime.now(UTC))

    @property
    def body(self) -> dict[str, Any]:
        """What is journaled of it, so that it is told once."""
        return {"attempt": self.n, "key": self.key, "hash": self.plan_hash, "until": self.until}

    @property
    def text(self) -> str:
        """What a person is told."""
        what = "the way back" if self.goes_back else f"plan {self.plan_hash}"
        until = self.until.replace("T", " ").partition("+")[0]
        return (
            f"recovery {self.recovery_id}: nobody answered whether {what} of {self.flow} on "
            f"{self.target} may go ahead, and the run stopped waiting at {until} UTC. Nothing more "
            f"is done; to ask anew: `{self.next}`"
        )

    @property
    def next(self) -> str:
        """What a person types to have it asked anew."""
        if self.goes_back:
            return f"recover undo {self.recovery_id} --by NAME --worker"
        return f"recover resume {self.recovery_id}"

    def as_row(self) -> Mapping[str, Any]:
        """Facts for programs."""
        return {
            "recovery": self.recovery_id,
            "flow": self.flow,
            "target": self.target,
            "attempt": self.n,
            "run": self.flow_run_id,
            "occasion": Occasion.FAILED,
            "until": self.until,
            "next": self.next,
        }


def open_question_of(reading: Reading) -> OpenQuestion | None:
    """What the latest attempt ended with to ask, if nobody has answered or heard of that."""
    history = reading.history
    asked = history.consents.open_question()
    if asked is None or not asked.until or history.abandoned_by:
        return None
    if history.consents.rejection_of(asked) is not None:
        return None
    asking, written_at = 0, ""
    events = readable_events(reading)
    if has_told(events, Kind.UNANSWERED, Occasion.FAILED, "key", asked.key):
        return None
    for event in events:
        if event.seq == asked.seq:
            asking = event.attempt
        elif event.seq > asked.seq and event.kind == Kind.ATTEMPT_STARTED:
            return None  # somebody has taken it up
        elif event.kind == Kind.UNANSWERED and event.body.get("key") == asked.key:
            written_at = written_at or event.at
    return OpenQuestion(
        recovery_id=history.recovery_id,
        flow=history.flow,
        target=history.target,
        n=asking,
        flow_run_id=asked.flow_run_id,
        key=asked.key,
        plan_hash=asked.plan_hash,
        until=asked.until,
        goes_back=asked.goes_back,
        written_at=written_at,
    )

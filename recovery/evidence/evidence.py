"""What the journal holds of one recovery, arranged for people: steps, spans of time, commands.

Report, timeline and bundle are drawn from this and from nothing else. All text in it is redacted
once more (a value may have become known as secret after it was written) and free of characters that
a terminal or a browser would act on.
"""

import re
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from recovery.journal.history import LOST
from recovery.secrecy.redaction import redact_value

UNDO_PREFIX = "undo "
_ESCAPE_SEQUENCES = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_].*?(?:\x07|\x1b\\)|[ -/]*[0-~])|\x9b[0-?]*[ -/]*[@-~]",
    re.DOTALL,
)
# Control characters, marks that turn the direction of text around, halves of pairs.
_UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\ufffe\uffff]"
)


class Shown(StrEnum):
    """How a step, or a stretch of work on it, came out; the words the UI uses for it."""

    COMPLETED = "Completed"
    ALREADY_SO = "Already so"
    RECONCILED = "Reconciled"
    RESTORED = "Restored"
    REUSED = "Reused"
    RESOLVED = "Resolved"
    VERIFIED = "Verified"
    DECIDED = "Decided"
    PASSED = "Passed"
    LOOKED = "Looked"
    RUNNING = "Running"
    FAILED = "Failed"
    REFUSED = "Refused"
    IN_DOUBT = "In doubt"
    STALE = "Stale"
    ABANDONED = "Abandoned"
    UNDONE = "Undone"
    UNDO_FAILED = "Undo failed"
    APPROVED = "Approved"
    REJECTED = "Rejected"
    DISREGARDED = "Disregarded"
    TAKEN_OVER = "Taken over"


SHOWN_BY_HOW = {
    "already-so": Shown.ALREADY_SO,
    "reconciled": Shown.RECONCILED,
    "reused": Shown.REUSED,
}
_STATES = {
    "intended": Shown.RUNNING,
    "in-doubt": Shown.IN_DOUBT,
    "stale": Shown.STALE,
    "undone": Shown.UNDONE,
    "already-so": Shown.ALREADY_SO,
}
_VERDICTS = {"verified": Shown.VERIFIED, "passed": Shown.PASSED, "refused": Shown.REFUSED}
LOUD = frozenset(
    {Shown.REFUSED, Shown.STALE, Shown.IN_DOUBT, Shown.FAILED, Shown.UNDO_FAILED, Shown.RUNNING}
)


@dataclass(frozen=True, slots=True)
class Exchange:
    """A command that was sent, and its answer. `at` is when the answer was written down."""

    at: datetime
    attempt: int
    step: str
    target: str
    command: str
    answer: str
    is_change: bool
    seconds: float
    exit_code: str
    error: str

    @property
    def started(self) -> datetime:
        """When it was sent."""
        return self.at - timedelta(seconds=self.seconds)


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of time spent on one step in one attempt; by a person where `attempt` is 0."""

    attempt: int
    key: str
    kind: str
    shown: Shown
    started: datetime
    ended: datetime
    note: str = ""

    @property
    def seconds(self) -> float:
        """How long it took."""
        return max(0.0, (self.ended - self.started).total_seconds())


@dataclass(slots=True)
class AttemptStory:
    """One attempt. `ended` is when it was last heard of where it was lost or is at work."""

    n: int
    flow_run_id: str
    epoch: int
    worker: str
    release: str
    goes: str
    ordered_by: str
    started: datetime
    ended: datetime
    ended_as: str = ""
    error: str = ""
    spans: list[Span] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """How long it worked."""
        return max(0.0, (self.ended - self.started).total_seconds())


@dataclass(frozen=True, slots=True)
class Gap:
    """The time behind an attempt in which nobody worked; `kind` is lost or waiting."""

    after: int
    kind: str
    started: datetime
    ended: datetime
    spans: tuple[Span, ...]

    @property
    def seconds(self) -> float:
        """How long it was."""
        return max(0.0, (self.ended - self.started).total_seconds())


@dataclass(slots=True)
class StepStory:
    """One step from its first event to its last.

    `restored_in` are the attempts that passed it over, `commands` what it was last about to send.
    """

    key: str
    kind: str
    target: str
    danger: str
    shown: Shown
    attempt: int
    started_at: str
    ended_at: str
    error: str
    verdict: str = ""
    result: Any = None
    restored_in: list[int] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)
    exchanges: list[Exchange] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """How long the work on it took in the attempt that is named.

        Where a later one asks whether it is still so, it asks for many at once: those times say
        nothing of one step.
        """
        return sum(span.seconds for span in self.spans if span.attempt == self.attempt)


@dataclass(frozen=True, slots=True)
class Evidence:
    """A recovery, told whole.

    Attributes:
        status: what `recover status --json` prints.
        attempts: the runs that worked on it.
        gaps: the times between them.
        steps: every step, in the order they were first come to.
        people: what persons said: approvals, resolutions, take-overs.
        plan: the latest plan that was journaled.
        flaws: where the journal is not the chain that was written.
        told_at: the moment of its last event.
        requested_by: who asked for it, a person or an alert; empty: not known.
    """

    status: dict[str, Any]
    attempts: list[AttemptStory]
    gaps: list[Gap]
    steps: list[StepStory]
    people: list[Span]
    plan: dict[str, Any]
    flaws: list[str]
    told_at: datetime
    requested_by: str = ""

    @property
    def working_seconds(self) -> float:
        """Time in which an attempt was at work."""
        return sum(attempt.seconds for attempt in self.attempts)

    def gap_seconds(self, kind: str) -> float:
        """Time in which none was, waiting for somebody or lost."""
        return sum(gap.seconds for gap in self.gaps if gap.kind == kind)

    @property
    def steps_done(self) -> int:
        """How many of the recorded steps are where they should be."""
        return sum(row["state"] in {"done", "already-so", "undone"} for row in self.status["steps"])

    def spoke_against(self) -> list[Span]:
        """Every refusal, staleness, failure and doubt, in order."""
        spans = [span for attempt in self.attempts for span in attempt.spans]
        done = {(span.attempt, span.key) for span in spans if span.shown is Shown.COMPLETED}
        loud = [
            replace(span, note=f"{span.note}, so it was done anew in attempt {span.attempt}")
            if span.shown is Shown.STALE and (span.attempt, span.key) in done
            else span
            for span in spans
            if span.shown in LOUD - {Shown.RUNNING}
        ]
        return sorted(loud, key=lambda span: span.ended)

    def way_back(self) -> list[Span]:
        """Every step back, in order."""
        spans = [span for attempt in self.attempts for span in attempt.spans]
        return sorted((span for span in spans if span.kind == "undo"), key=lambda span: span.ended)

    @property
    def headline(self) -> str:
        """Where it stands, in one sentence."""
        last = self.attempts[-1] if self.attempts else None
        state = self.status["state"]
        if state == "called-off":
            return "It was called off before anything was changed."
        if last is None:
            return "It was opened; no attempt has begun."
        if last.ended_as == LOST:
            return (
                f"Attempt {last.n} was lost: it was last heard of at {clock(last.ended)} "
                "and nobody works on it now."
            )
        if state == "running":
            return f"Attempt {last.n} is at work since {clock(last.started)}."
        words = {
            "recovered": "ended with the target recovered",
            "undone": "went back: what was done is undone",
            "refused": "was refused",
            "needs-person": "stopped: a person is needed",
        }
        ended = words.get(last.ended_as, "failed")
        text = f"Attempt {last.n} {ended} ({clock(last.ended)})."
        by = self.status["abandoned_by"]
        return f"{text} {by} has since abandoned it." if by else text


def shown_of(row: dict[str, Any]) -> Shown:
    """How a step of a status came out."""
    shown = SHOWN_BY_HOW.get(row["how"], Shown.COMPLETED)
    if row["undo"] == "failed":
        shown = Shown.UNDO_FAILED
    elif row["state"] in _STATES:
        shown = _STATES[row["state"]]
    elif row["verdict"] in _VERDICTS and row["kind"] != "act":
        shown = _VERDICTS[row["verdict"]]
    elif row["state"] == "failed":
        shown = Shown.FAILED
    elif row["verdict"].startswith("resolved as done"):
        shown = Shown.RESOLVED
    elif row["kind"] == "decision":
        shown = Shown.DECIDED if row["attempt"] else Shown.REUSED
    return shown


def clock(moment: datetime) -> str:
    """A moment for people: date, time and UTC."""
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def harmless(value: Any) -> Any:
    """A plain value with all text in it redacted and harmless to look at."""
    # Again at the end: what was taken out may have stood in the middle of a secret.
    return redact_value(_legible(redact_value(value)))


def _legible(value: Any) -> Any:
    if isinstance(value, str):
        return legible_text(value)
    if isinstance(value, dict):
        return {legible_text(str(name)): _legible(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_legible(item) for item in value]
    return value


def legible_text(text: str) -> str:
    """Text without terminal sequences; what else cannot be printed is spelled out."""
    text = _ESCAPE_SEQUENCES.sub("", text).replace("\r\n", "\n").replace("\r", "\n")
    return _UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)

"""What a journal amounts to: the state of a recovery, its attempts and its steps, told from events.

The same reading serves a resume (what is done, what is in doubt), the status, the report and the
bundle. It is made from events alone; nothing else remembers anything.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from recovery.journal.consents import Approval, Consents
from recovery.journal.events import Event, Kind
from recovery.journal.prefect_worker import worker_told


class StepState(StrEnum):
    """Where a step stands."""

    INTENDED = "intended"
    DONE = "done"
    ALREADY_SO = "already-so"
    FAILED = "failed"
    IN_DOUBT = "in-doubt"
    STALE = "stale"
    UNDONE = "undone"
    PASSED = "passed"
    REFUSED = "refused"


class RecoveryState(StrEnum):
    """Where a recovery stands."""

    RUNNING = "running"
    RECOVERED = "recovered"
    FAILED = "failed"
    NEEDS_PERSON = "needs-person"
    REFUSED = "refused"
    UNDONE = "undone"
    CALLED_OFF = "called-off"  # before it changed anything: what called for it is over


LOST = "lost"
ABANDONED = "abandoned"


@dataclass
class StepRecord:
    """One step as the journal tells it. `seq` numbers are those of its latest events."""

    key: str
    kind: str
    target: str
    state: StepState
    attempt: int
    danger: str = "read"
    started_at: str = ""
    ended_at: str = ""
    verdict: str = ""
    result: Any = None
    arguments: dict[str, Any] = field(default_factory=dict)
    arguments_hash: str = ""
    error: str = ""
    resolved_as: str = ""
    intended_seq: int = 0
    ended_seq: int = 0
    undo_state: str = ""
    undone_by: str = ""  # fingerprint of the step back; an older release did not keep it
    has_way_back: bool = True  # an older release did not say
    taken_over_from: str = ""  # of a fork: the recovery that did it

    @property
    def is_done(self) -> bool:
        """Whether its effect is recorded as being there."""
        return self.state in {StepState.DONE, StepState.ALREADY_SO}


@dataclass
class AttemptRecord:
    """One run that worked on the recovery. `has_undone`: it has begun a step back."""

    n: int
    flow_run_id: str
    epoch: int
    worker: str
    started_at: str
    ended_at: str = ""
    ended_as: str = ""
    error: str = ""
    result: Any = None
    prefect_worker: str = ""
    started_seq: int = 0
    goes_back: bool = False
    has_undone: bool = False

    @property
    def worker_told(self) -> str:
        """Its process, with the worker of Prefect that took the run where there was one."""
        return worker_told(self.worker, self.prefect_worker)


@dataclass
class History:
    """A recovery as its events tell it."""

    recovery_id: str
    flow: str
    target: str
    parameters: dict[str, Any]
    opened_at: str
    runbook: str = ""
    danger: str = "change"
    release: str = ""
    flow_run_id: str = ""
    forked_from: dict[str, Any] = field(default_factory=dict)
    drill: dict[str, Any] = field(default_factory=dict)
    attempts: list[AttemptRecord] = field(default_factory=list)
    steps: dict[str, StepRecord] = field(default_factory=dict)
    decisions: dict[str, dict[str, Any]] = field(default_factory=dict)
    seen: dict[str, dict[str, Any]] = field(default_factory=dict)
    plan: dict[str, Any] = field(default_factory=dict)
    plans: dict[str, dict[str, Any]] = field(default_factory=dict)
    consents: Consents = field(default_factory=Consents)
    requested_by: str = ""
    last_act_seq: int = 0
    abandoned_by: str = ""
    called_off: str = ""
    last_seq: int = 0
    is_undone: bool = False
    goes_back: bool = False

    @property
    def identities(self) -> tuple[str, ...]:
        """Its id and those of the recoveries it was forked from: they make no input another."""
        return (self.recovery_id, *self.forked_from.get("lineage", ()))

    @property
    def last_n(self) -> int:
        """The number of its latest attempt; 0 before the first."""
        return self.attempts[-1].n if self.attempts else 0

    @property
    def approvals(self) -> list[Approval]:
        """All consents that were given to plans of this recovery."""
        return self.consents.approvals

    @property
    def last_forward(self) -> AttemptRecord | None:
        """The latest attempt that went forward: what it came to is what a way back is about."""
        return next((one for one in reversed(self.attempts) if not one.goes_back), None)

    def state(self, *, is_leased: bool) -> RecoveryState:
        """Where it stands; `is_leased` says whether a live attempt holds its target now."""
        if self.called_off and not is_leased:
            return RecoveryState.CALLED_OFF
        if not self.attempts:
            return RecoveryState.FAILED
        last = self.attempts[-1]
        if not last.ended_as:
            return RecoveryState.RUNNING if is_leased else RecoveryState.FAILED
        return RecoveryState(last.ended_as)

    def steps_to_undo(self) -> list[str]:
        """Keys of acts whose effect is or may be there because of us, last first."""
        mine = [step for step in self.begun() if step.state is not StepState.UNDONE]
        return [step.key for step in reversed(mine)]

    @property
    def can_go_back(self) -> bool:
        """Whether an act is left that may have a way back."""
        return any(self.steps[key].has_way_back for key in self.steps_to_undo())

    def begun(self) -> list[StepRecord]:
        """Acts that were begun, in that order, whether they are undone by now or not.

        The order is that of the journal: a walk comes to the targets of a step in any order.
        """
        mine = [
            step
            for step in self.steps.values()
            if step.kind == "act" and step.intended_seq and step.state is not StepState.ALREADY_SO
        ]
        return sorted(mine, key=lambda step: step.intended_seq)


def read_history(events: Iterable[Event]) -> History | None:
    """Tell a recovery from its events; `None` where there are none."""
    history: History | None = None
    for event in events:
        body = event.body
        if history is None:
            history = History(
                recovery_id=event.recovery_id,
                flow=body.get("flow", ""),
                target=body.get("target", ""),
                parameters=body.get("parameters", {}),
                opened_at=event.at,
                runbook=body.get("runbook", ""),
                danger=body.get("danger", "change"),
                release=body.get("release", ""),
                flow_run_id=body.get("flow_run_id", ""),
                forked_from=body.get("forked_from", {}),
                requested_by=body.get("requested_by", ""),
                drill=body.get("drill") or {},
            )
        history.last_seq = event.seq
        _FOLD.get(event.kind, _ignore)(history, event, body)
    return history


def _ignore(history: History, event: Event, body: dict[str, Any]) -> None:
    pass


def _attempt_started(history: History, event: Event, body: dict[str, Any]) -> None:
    _close_attempt(history, event, LOST)
    history.called_off = ""
    for step in history.steps.values():
        if step.state is StepState.INTENDED:
            step.state = StepState.IN_DOUBT
    history.attempts.append(
        AttemptRecord(
            n=event.attempt,
            flow_run_id=body.get("flow_run_id", ""),
            epoch=event.epoch,
            worker=body.get("worker", ""),
            started_at=event.at,
            prefect_worker=body.get("prefect_worker", ""),
            started_seq=event.seq,
            goes_back=body.get("goes") == "back",
        )
    )


def _close_attempt(history: History, event: Event, ended_as: str, error: str = "") -> None:
    if history.attempts and not history.attempts[-1].ended_as:
        last = history.attempts[-1]
        last.ended_at, last.ended_as, last.error = event.at, ended_as, error


def _attempt_ended(history: History, event: Event, body: dict[str, Any]) -> None:
    history.called_off = ""  # what was called off can write no end
    _close_attempt(history, event, body.get("as", ""), body.get("error", ""))
    if history.attempts:
        history.attempts[-1].result = body.get("result")
    history.is_undone = body.get("as") == RecoveryState.UNDONE


def _intended(history: History, event: Event, body: dict[str, Any]) -> None:
    history.called_off = ""
    history.last_act_seq = event.seq
    history.steps[event.step] = StepRecord(
        key=event.step,
        kind=body.get("kind", "act"),
        target=body.get("target", ""),
        danger=body.get("danger", "change"),
        state=StepState.INTENDED,
        attempt=event.attempt,
        started_at=event.at,
        arguments=body.get("arguments", {}),
        arguments_hash=body.get("arguments_hash", ""),
        intended_seq=event.seq,
        has_way_back=body.get("has_way_back", True),
        result=_known_result(history, event.step),
    )


def _known_result(history: History, key: str) -> Any:
    known = history.steps.get(key)
    return known.result if known else None


def _done(history: History, event: Event, body: dict[str, Any]) -> None:
    history.last_act_seq = event.seq
    how = body.get("how", "acted")
    step = history.steps.get(event.step)
    if step is None or how == "already-so":
        step = StepRecord(
            key=event.step,
            kind=body.get("kind", "act"),
            target=body.get("target", ""),
            danger=body.get("danger", "change"),
            state=StepState.DONE,
            attempt=event.attempt,
            started_at=body.get("started_at", event.at),
            arguments=body.get("arguments", {}),
            arguments_hash=body.get("arguments_hash", ""),
            has_way_back=body.get("has_way_back", True),
            taken_over_from=body.get("reused_from", ""),
        )
        history.steps[event.step] = step
    step.state = StepState.ALREADY_SO if how == "already-so" else StepState.DONE
    step.verdict = body.get("verdict", step.verdict)
    step.result, step.ended_at, step.ended_seq = body.get("result"), event.at, event.seq
    step.attempt, step.error, step.resolved_as = event.attempt or step.attempt, "", ""


def _failed(history: History, event: Event, body: dict[str, Any]) -> None:
    step = history.steps.get(event.step)
    if step is None or step.kind != "act":
        step = StepRecord(
            key=event.step,
            kind=body.get("kind", ""),
            target=body.get("target", ""),
            state=StepState.FAILED,
            attempt=event.attempt,
            started_at=body.get("started_at", event.at),
        )
        history.steps[event.step] = step
    step.state, step.error, step.ended_at = StepState.FAILED, body.get("error", ""), event.at
    step.ended_seq, step.attempt = event.seq, event.attempt


def _verdict(history: History, event: Event, body: dict[str, Any]) -> None:
    verdict = body.get("verdict", "")
    step = history.steps.get(event.step)
    if step is None or "kind" in body:  # found in doubt before this recovery ever did it
        step = StepRecord(
            key=event.step,
            kind=body.get("kind", "act"),
            target=body.get("target", ""),
            danger=body.get("danger", "change"),
            state=StepState.IN_DOUBT,
            attempt=event.attempt,
            started_at=body.get("started_at", event.at),
            arguments=body.get("arguments", {}),
            arguments_hash=body.get("arguments_hash", ""),
            has_way_back=body.get("has_way_back", True),
            taken_over_from="" if event.attempt else history.forked_from.get("recovery", ""),
        )
        history.steps[event.step] = step
    step.verdict = verdict
    if verdict in {"unknown", "half-done"}:
        step.state = StepState.IN_DOUBT


def _stale(history: History, event: Event, body: dict[str, Any]) -> None:
    if step := history.steps.get(event.step):
        step.state, step.verdict = StepState.STALE, body.get("verdict", "")


def _looked(history: History, event: Event, body: dict[str, Any]) -> None:
    history.steps[event.step] = StepRecord(
        key=event.step,
        kind=body.get("kind", "probe"),
        target=body.get("target", ""),
        state=StepState.REFUSED if event.kind == Kind.REFUSED else StepState.PASSED,
        attempt=event.attempt,
        started_at=body.get("started_at", event.at),
        ended_at=event.at,
        ended_seq=event.seq,
        result=body.get("result"),
        error=body.get("reason", ""),
    )


def _saw(history: History, event: Event, body: dict[str, Any]) -> None:
    history.seen[event.step] = body


def _decided(history: History, event: Event, body: dict[str, Any]) -> None:
    history.decisions[event.step] = body
    history.steps[event.step] = StepRecord(
        key=event.step,
        kind="decision",
        target=body.get("target", ""),
        state=StepState.DONE,
        attempt=event.attempt,
        started_at=body.get("started_at", event.at),
        ended_at=event.at,
        ended_seq=event.seq,
        result=body.get("value"),
        arguments=body.get("arguments", {}),
        arguments_hash=body.get("arguments_hash", ""),
    )


def _resolved(history: History, event: Event, body: dict[str, Any]) -> None:
    how = body.get("as", "")
    if how == "abandon":
        history.abandoned_by = body.get("by", "")
    if step := history.steps.get(event.step):
        step.resolved_as, step.verdict = how, f"resolved as {how} by {body.get('by', '')}"
        if how == "done":
            step.state, step.ended_at, step.ended_seq = StepState.DONE, event.at, event.seq


def _undo_intended(history: History, event: Event, _body: dict[str, Any]) -> None:
    history.goes_back, history.called_off = True, ""
    if history.attempts:
        history.attempts[-1].has_undone = True
    if step := history.steps.get(event.step):
        step.undo_state = "intended"


def _undone(history: History, event: Event, body: dict[str, Any]) -> None:
    if step := history.steps.get(event.step):
        step.undone_by = body.get("back", "")
        step.state, step.undo_state, step.ended_at = StepState.UNDONE, "done", event.at


def _undo_failed(history: History, event: Event, body: dict[str, Any]) -> None:
    if step := history.steps.get(event.step):
        step.undo_state, step.error = "failed", body.get("error", "")


def _planned(history: History, _event: Event, body: dict[str, Any]) -> None:
    history.plan = body
    history.plans[body.get("hash", "")] = body


def _said(history: History, event: Event, body: dict[str, Any]) -> None:
    history.consents.hear(event, body)
    is_of_last = body.get("attempt", history.last_n) == history.last_n  # one began meanwhile
    if body.get("called_off") and is_of_last:
        history.called_off = body.get("why", "")
    if history.called_off:  # it asks anew once it is begun again
        history.consents.void_all()


_FOLD: dict[str, Callable[[History, Event, dict[str, Any]], None]] = {
    Kind.ATTEMPT_STARTED: _attempt_started,
    Kind.ATTEMPT_ENDED: _attempt_ended,
    Kind.PLANNED: _planned,
    Kind.ASKED: _said,
    Kind.APPROVED: _said,
    Kind.REJECTED: _said,
    Kind.DISREGARDED: _said,
    Kind.SAW: _saw,
    Kind.PASSED: _looked,
    Kind.REFUSED: _looked,
    Kind.VERIFIED: _looked,
    Kind.DECIDED: _decided,
    Kind.INTENDED: _intended,
    Kind.DONE: _done,
    Kind.FAILED: _failed,
    Kind.VERDICT: _verdict,
    Kind.STALE: _stale,
    Kind.RESOLVED: _resolved,
    Kind.UNDO_INTENDED: _undo_intended,
    Kind.UNDONE: _undone,
    Kind.UNDO_FAILED: _undo_failed,
}

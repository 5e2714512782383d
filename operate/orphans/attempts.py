"""What the journal says of attempts: which ended and how, which are at work, which are orphans.

An orphan is an attempt that has not ended and no longer holds its target: its process is gone, or
was cut off from the journal for so long that it may do nothing more. One that was called off lost
its target to that, and is none: nobody wants it any more.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from operate.orphans.proof import has_told
from operate.orphans.unanswered import OpenQuestion, open_question_of
from recovery.errors import BadInput
from recovery.evidence.status import Reading, read_recovery, readable_events
from recovery.journal.events import Event, Kind
from recovery.journal.history import LOST, History, StepState, read_history
from recovery.journal.store import Holder, Journal
from recovery.notices.notice import Occasion

RECOVERIES_MAX = 1000


@dataclass(frozen=True, slots=True)
class KnownAttempt:
    """An attempt as the journal tells it.

    Attributes:
        run_state_id: the state in which Prefect showed its run when it began; empty where unknown.
        ended_as: as what; `lost` where a later one took over, empty while it has not ended.
        error: what it ended with, and `error_type` the class of that.
        ended_at: when, in UTC as ISO 8601; empty while it has not ended.
        asks: whether its run waits, or is about to wait, for the answer to a question.
        called_off: why nothing is wanted of it any more; empty where it was not called off.
    """

    recovery_id: str
    n: int
    flow_run_id: str
    run_state_id: str
    ended_as: str
    error: str
    error_type: str
    ended_at: str = ""
    asks: bool = False
    called_off: str = ""

    @property
    def key(self) -> tuple[str, int]:
        """What tells it from every other one."""
        return self.recovery_id, self.n


@dataclass(frozen=True, slots=True)
class Orphan:
    """An attempt whose worker is gone.

    Attributes:
        n: its number; 0 where the recovery was opened and its first attempt never began.
        was_in: the step it was last heard of in.
        in_doubt: acts that it began and of whose outcome nothing is known.
        goes_back: whether it was on its way back.
        found_at: when a watch first wrote down that it is gone; empty before.
        ordered: numbers of the attempts after which a watch has resumed the recovery.
        holder: the other recovery that holds the target now, if any.
        is_told: whether a notice of it has reached somebody, which the journal proves.
    """

    recovery_id: str
    flow: str
    target: str
    n: int
    flow_run_id: str
    run_state_id: str
    worker: str
    last_heard_at: str
    was_in: str
    in_doubt: tuple[str, ...]
    goes_back: bool
    is_approved: bool
    found_at: str
    ordered: frozenset[int]
    holder: Holder | None
    parameters: dict[str, Any]
    is_told: bool = False

    @property
    def key(self) -> tuple[str, int]:
        """What tells it from every other one."""
        return self.recovery_id, self.n


@dataclass(frozen=True, slots=True)
class _Known:
    recovery_id: str
    seq: int
    attempts: tuple[KnownAttempt, ...]
    target: str
    is_open: bool
    question: OpenQuestion | None


class AttemptReader:
    """Reads the journal again and again; what has not been written to since is not read anew."""

    def __init__(self) -> None:
        self._known: dict[str, _Known] = {}

    def read(self, journal: Journal) -> tuple[list[KnownAttempt], list[Orphan]]:
        """Return every attempt of the recoveries written to last, and the orphans among them.

        Raises:
            JournalUnavailable: it cannot be read.
        """
        heads = journal.heads(RECOVERIES_MAX)
        self._known = {each: known for each, known in self._known.items() if each in heads}
        orphans = []
        for recovery_id, seq in heads.items():
            known = self._known.get(recovery_id)
            if known is not None and known.seq == seq and self._is_settled(journal, known):
                continue
            found = self._read_one(journal, recovery_id)
            if found is not None:
                orphans.append(found)
        attempts = [each for known in self._known.values() for each in known.attempts]
        return attempts, orphans

    def unanswered(self) -> list[OpenQuestion]:
        """Return questions of what was read last whose time is over, and nobody has heard of."""
        asked = [known.question for known in self._known.values() if known.question is not None]
        return [question for question in asked if question.is_over()]

    def _is_settled(self, journal: Journal, known: _Known) -> bool:
        """Whether it has ended, or still is at work: asked of the lease alone, which is cheap."""
        if not known.is_open:
            return True
        holder = journal.holder(known.target)
        return holder is not None and holder.recovery_id == known.recovery_id

    def _read_one(self, journal: Journal, recovery_id: str) -> Orphan | None:
        try:
            reading = read_recovery(journal, recovery_id)
        except BadInput:  # its events are gone; `recover journal verify` names that
            return None
        history = reading.history
        last = history.attempts[-1] if history.attempts else None
        is_given_up = bool(history.abandoned_by or history.called_off)
        is_open = (last is None or not last.ended_as) and not is_given_up
        attempts = tuple(_attempts_of(reading))
        self._known[recovery_id] = _Known(
            recovery_id,
            reading.head[0],
            attempts,
            history.target,
            is_open,
            None if is_open else open_question_of(reading),
        )
        return _orphan_of(reading) if is_open and not reading.is_leased else None


def _attempts_of(reading: Reading) -> Iterator[KnownAttempt]:
    started = _bodies(reading, Kind.ATTEMPT_STARTED)
    ended = _bodies(reading, Kind.ATTEMPT_ENDED)
    history = reading.history
    called_off = history.called_off
    if not history.attempts:  # opened, and about to begin its first, or it never will
        yield KnownAttempt(
            history.recovery_id, 0, history.flow_run_id, "", "", "", "", called_off=called_off
        )
    for attempt in history.attempts:
        yield KnownAttempt(
            recovery_id=history.recovery_id,
            n=attempt.n,
            flow_run_id=attempt.flow_run_id,
            run_state_id=started.get(attempt.n, {}).get("run_state_id", ""),
            ended_as=attempt.ended_as,
            error=attempt.error,
            error_type=ended.get(attempt.n, {}).get("error_type", ""),
            ended_at=attempt.ended_at,
            asks=_asks(history, attempt.flow_run_id),
            called_off=called_off if attempt is history.attempts[-1] else "",
        )


def _asks(history: History, flow_run_id: str) -> bool:
    asked = history.consents.open_question(flow_run_id)
    return asked is not None and bool(asked.until)


def _bodies(reading: Reading, kind: Kind) -> dict[int, dict[str, Any]]:
    return {event.attempt: event.body for event in readable_events(reading) if event.kind == kind}


def _orphan_of(reading: Reading) -> Orphan:
    history = reading.history
    last = history.attempts[-1] if history.attempts else None
    n = last.n if last else 0
    mine = [event for event in readable_events(reading) if event.attempt == n]
    started = _bodies(reading, Kind.ATTEMPT_STARTED).get(n, {})
    return Orphan(
        recovery_id=history.recovery_id,
        flow=history.flow,
        target=history.target,
        n=n,
        flow_run_id=last.flow_run_id if last else history.flow_run_id,
        run_state_id=started.get("run_state_id", ""),
        worker=last.worker if last else "",
        last_heard_at=mine[-1].at if mine else history.opened_at,
        was_in=next((event.step for event in reversed(mine) if event.step), ""),
        in_doubt=_in_doubt(reading),
        goes_back=reading.goes_back,
        is_approved=_is_approved(history),
        found_at=_found_at(reading, n),
        ordered=frozenset(_orders(reading)),
        holder=reading.holder,
        parameters=history.parameters,
        is_told=has_told(readable_events(reading), Kind.ORPHANED, Occasion.LOST, "attempt", n),
    )


def _in_doubt(reading: Reading) -> tuple[str, ...]:
    steps = reading.history.steps.values()
    back = [step.key for step in steps if step.undo_state == "intended"]
    ahead = [
        step.key
        for step in steps
        if reading.state_of(step) is StepState.IN_DOUBT and not step.resolved_as
    ]
    return tuple(back or ahead)


def _is_approved(history: History) -> bool:
    """Whether a consent to the very plan still stands; to go ahead without one is none.

    It keeps the watch from a run that would only ask: the resumed attempt looks for itself.
    """
    now, planned = datetime.now(UTC), history.plan.get("hash", "")
    return any(
        given.how == "approved"
        and given.plan_hash == planned
        and datetime.fromisoformat(given.until) > now
        for given in history.approvals
    )


def _found_at(reading: Reading, n: int) -> str:
    found = [event for event in _watched(reading, Kind.ORPHANED) if event.body.get("attempt") == n]
    return found[0].at if found else ""


def _orders(reading: Reading) -> Iterator[int]:
    for event in _watched(reading, Kind.RESUME_ORDERED):
        yield int(event.body.get("attempt", 0))


def _watched(reading: Reading, kind: Kind) -> list[Event]:
    return [event for event in readable_events(reading) if event.kind == kind]


def is_first(journal: Journal, written: Event) -> bool:
    """Whether no other watch wrote the same of an attempt before: only the first one tells."""
    return not any(
        event.kind == written.kind
        and event.body.get("attempt") == written.body.get("attempt")
        and event.seq < written.seq
        for event in journal.events(written.recovery_id)
    )


def has_later_attempt(journal: Journal, orphan: Orphan) -> bool:
    """Whether an attempt has begun since the orphan was read."""
    history = read_history(journal.events(orphan.recovery_id))
    return history is not None and bool(history.attempts) and history.attempts[-1].n > orphan.n


def newest_by_run(attempts: list[KnownAttempt]) -> dict[str, KnownAttempt]:
    """The latest attempt of each flow run: a run that was retried has several."""
    newest: dict[str, KnownAttempt] = {}
    for attempt in attempts:
        known = newest.get(attempt.flow_run_id)
        if known is None or attempt.n > known.n:
            newest[attempt.flow_run_id] = attempt
    return newest


def has_ended(attempt: KnownAttempt) -> bool:
    """Whether the attempt itself wrote how it ended; a lost one did not."""
    return attempt.ended_as not in {"", LOST}

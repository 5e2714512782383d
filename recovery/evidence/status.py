"""Where recoveries stand, as `recover status` prints it, and whether their journal is intact."""

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from recovery.approval.approvers import count_of
from recovery.errors import BadInput
from recovery.evidence.found import found_in
from recovery.journal.events import Event, Kind, flaws
from recovery.journal.history import (
    LOST,
    AttemptRecord,
    History,
    RecoveryState,
    StepRecord,
    StepState,
    read_history,
)
from recovery.journal.store import Holder, Journal
from recovery.left_to_person import left_to_person
from recovery.secrecy.redaction import redact_value
from recovery.taken_over import taken_over, where_to_go_back

READINGS_MAX = 20
RECOVERIES_MAX = 1_000_000
STEPS_NAMED_MAX = 5
NO_FORK: dict[str, Any] = {"from_step": "", "changed": {}, "reused": [], "redone": []}
SETTLED = {StepState.DONE, StepState.ALREADY_SO, StepState.UNDONE}
# Looks end as passed or refused; the states people are shown know only done and failed for that.
# A guard that passed did all it is there for, one that refused stopped the recovery.
SHOWN_STATES = {StepState.PASSED: StepState.DONE, StepState.REFUSED: StepState.FAILED}


@dataclass(frozen=True, slots=True)
class Reading:
    """What the journal says of one recovery at one moment.

    Attributes:
        events: all of them, in order, as they are stored.
        head: the last `seq` and hash that the store remembers to have written.
        history: what the events amount to.
        holder: who holds the target's lease, be it this recovery or another one.
        taken_over: what a fork took over and is still there, as the recovery that did it has it.
    """

    events: tuple[Event, ...]
    head: tuple[int, str]
    history: History
    holder: Holder | None
    taken_over: tuple[StepRecord, ...] = ()

    @property
    def is_leased(self) -> bool:
        """Whether an attempt of this recovery holds its target now."""
        return self.holder is not None and self.holder.recovery_id == self.history.recovery_id

    @property
    def live_attempt(self) -> int:
        """The number of the attempt that is at work now; 0 where there is none."""
        last = self.history.attempts[-1] if self.history.attempts else None
        if last is None or last.ended_as or not self.is_leased or self.holder is None:
            return 0
        return last.n if self.holder.epoch == last.epoch else 0

    @property
    def state(self) -> RecoveryState:
        """Where the recovery stands."""
        if not self.history.attempts and self.is_leased:
            return RecoveryState.RUNNING  # opened, and about to begin
        return self.history.state(is_leased=self.is_leased)

    @property
    def flaws(self) -> list[str]:
        """Every place where the journal is not the chain that was written."""
        return flaws(self.events, *self.head)

    @property
    def goes_back(self) -> bool:
        """Whether it is on the way back, and not at its end."""
        if self.history.goes_back:  # once a step back has begun, only going on with it is left
            return not self.history.is_undone
        started = [event for event in self.events if event.kind == Kind.ATTEMPT_STARTED]
        return bool(started) and _readable(started[-1]).body.get("goes") == "back"

    def state_of(self, step: StepRecord) -> StepState:
        """Where a step stands: intended while nobody works on it means in doubt."""
        if step.state is StepState.INTENDED and step.attempt != self.live_attempt:
            return StepState.IN_DOUBT
        return step.state

    def last_heard_at(self, n: int) -> str:
        """When an attempt last wrote to the journal."""
        return next((event.at for event in reversed(self.events) if event.attempt == n), "")

    def end_of(self, attempt: AttemptRecord) -> tuple[str, str]:
        """When and as what an attempt ended; a lost one when it was last heard of.

        Both are empty while it is at work.
        """
        if attempt.ended_as and attempt.ended_as != LOST:
            return attempt.ended_at, attempt.ended_as
        if attempt.n == self.live_attempt:
            return "", ""
        return self.last_heard_at(attempt.n), LOST


def read_recovery(journal: Journal, recovery_id: str) -> Reading:
    """Read one recovery whole, while it may be at work.

    Raises:
        BadInput: there is no such recovery.
    """
    reading = _read_once(journal, recovery_id)
    for _ in range(READINGS_MAX):
        if journal.head(recovery_id) == reading.head:
            break  # nothing was written while the lease was looked at, so the two belong together
        reading = _read_once(journal, recovery_id)
    return reading


def _read_once(journal: Journal, recovery_id: str) -> Reading:
    events, head = _settled(journal, recovery_id)
    history = read_history(map(_readable, events))
    if history is None:
        raise BadInput(
            "recovery",
            f"no recovery {recovery_id} in {journal.url}",
            "See `recover status` for the ids",
        )
    holder = journal.holder(history.target) if history.target else None
    return Reading(tuple(events), head, history, holder, tuple(taken_over(journal, history)))


def _settled(journal: Journal, recovery_id: str) -> tuple[list[Event], tuple[int, str]]:
    """The events and the head that belongs to them: a recovery at work writes in between."""
    head = journal.head(recovery_id)
    events = journal.events(recovery_id)
    for _ in range(READINGS_MAX):
        before, head = head, journal.head(recovery_id)
        if head == before:
            break
        events = journal.events(recovery_id)
    return events, head


def status_of(journal: Journal, recovery_id: str) -> dict[str, Any]:
    """Tell where one recovery stands, as `recover status ID --json` prints it.

    Steps that only look have states of their own in the journal; here a guard that passed and a
    verification that held are `done`, a guard that refused is `failed`, and `verdict` says which.
    An act that is intended while no attempt is at work is `in-doubt`. An attempt that never ended
    and does not hold its lease ended as `lost`, when it was last heard of. `found` tells what the
    steps returned, `result` what came of it at the end.

    Raises:
        BadInput: there is no such recovery.
    """
    return as_status(read_recovery(journal, recovery_id))


def as_status(reading: Reading) -> dict[str, Any]:
    """Tell where a recovery stands from a reading of it; see `status_of`."""
    history = reading.history
    how = _how_done(reading.events)
    last = history.attempts[-1] if history.attempts else None
    error = last.error if last and reading.state is not RecoveryState.CALLED_OFF else ""
    status: dict[str, Any] = {
        "id": history.recovery_id,
        "flow": history.flow,
        "target": history.target,
        "state": str(reading.state),
        "attempts": [_attempt(reading, attempt) for attempt in history.attempts],
        "steps": [_step(reading, step, how) for step in history.steps.values()],
        "runbook": history.runbook,
        "parameters": history.parameters,
        "opened_at": history.opened_at,
        "ended_at": _ended_at(reading),
        "found": found_in(readable_events(reading)),
        "result": _result_of(reading),
        "error": error,
        "next": next_for(reading),
        "danger": history.danger,
        "release": history.release,
        "plan_hash": history.plan.get("hash", ""),
        "approvals": [
            {
                "hash": approval.plan_hash,
                "by": approval.by,
                "until": approval.until,
                "how": approval.how,
                "reason": approval.reason,
            }
            for approval in history.approvals
        ],
        "forked_from": {**NO_FORK, **history.forked_from} if history.forked_from else None,
        "abandoned_by": history.abandoned_by,
        "journal": {"events": reading.head[0], "head": reading.head[1]},
    }
    clean: dict[str, Any] = redact_value(status)
    return clean


def all_statuses(journal: Journal, limit: int = 100) -> list[dict[str, Any]]:
    """Tell in short where the recoveries stand that were written to last, latest first."""
    rows = []
    for recovery_id in journal.recovery_ids(limit=limit):
        try:
            reading = read_recovery(journal, recovery_id)
        except BadInput:  # its events are gone; `recover journal verify` names that
            continue
        history = reading.history
        states = [reading.state_of(step) for step in history.steps.values()]
        row = {
            "id": recovery_id,
            "flow": history.flow,
            "target": history.target,
            "state": str(reading.state),
            "opened_at": history.opened_at,
            "ended_at": _ended_at(reading),
            "attempts": len(history.attempts),
            "steps_done": sum(SHOWN_STATES.get(state, state) in SETTLED for state in states),
            "steps": len(states),
        }
        rows.append(redact_value(row))
    return rows


def verify_journal(journal: Journal, recovery_id: str | None = None) -> dict[str, list[str]]:
    """Name every changed, missing or re-ordered event, by recovery; an empty list means intact.

    Args:
        journal: which one.
        recovery_id: only this recovery; `None` means all of them.

    Raises:
        BadInput: there is no such recovery.
    """
    ids = [recovery_id] if recovery_id else journal.recovery_ids(limit=RECOVERIES_MAX)
    found = {}
    for each in ids:
        events, head = _settled(journal, each)
        found[each] = flaws(events, *head)
        if recovery_id and not events and not head[0]:
            raise BadInput(
                "recovery", f"no recovery {each} in {journal.url}", "See `recover status`"
            )
    return found


def next_for(reading: Reading) -> str:
    """Say in one line what the operator should do next."""
    history, recovery_id = reading.history, reading.history.recovery_id
    settled = {
        RecoveryState.RUNNING: f"wait: an attempt is at work; see `recover status {recovery_id}`",
        RecoveryState.UNDONE: f"nothing: it was undone; `recover run {history.flow}` starts anew",
        RecoveryState.RECOVERED: _next_after_recovery(history),
    }
    if reading.state in settled:
        return settled[reading.state]
    if history.abandoned_by:
        return (
            f"{history.abandoned_by} has abandoned it: go back with "
            f"`recover undo {recovery_id} --by NAME`, or start a new one"
        )
    if reading.state is RecoveryState.CALLED_OFF:
        return (
            f"nothing: it was called off before it changed anything ({history.called_off}); "
            f"*Retry* of its run, or `recover resume {recovery_id}`, asks anew"
        )
    if reading.holder is not None and not reading.is_leased:
        return (
            f"wait for recovery {reading.holder.recovery_id}, which holds {history.target}; "
            f"then `recover resume {recovery_id}`"
        )
    if reading.state is RecoveryState.NEEDS_PERSON:
        return _next_for_person(reading)
    return _next_after_failure(reading)


def _next_after_recovery(history: History) -> str:
    left = left_to_person(history.attempts[-1].result) if history.attempts else []
    if not left:
        return "nothing: it is recovered"
    runbook = f" ({history.runbook})" if history.runbook else ""
    return f"this is left to a person{runbook}: {'; then '.join(left)}"


def _next_after_failure(reading: Reading) -> str:
    history, recovery_id = reading.history, reading.history.recovery_id
    resume = f"`recover resume {recovery_id}`"
    if reading.goes_back:
        failed = [step.key for step in history.steps.values() if step.undo_state == "failed"]
        why = "" if history.goes_back else " --reason TEXT"  # who began it has given one
        undo = f"`recover undo {recovery_id} --by NAME{why}`"
        text = f"mend what stopped the way back, then {undo} again"
        text += f" (half changed: {', '.join(failed[:STEPS_NAMED_MAX])})" if failed else ""
        text = text if failed or history.can_go_back else _next_of_others(reading)
    elif not history.attempts:
        text = f"{resume}: nothing was begun yet"
    elif reading.end_of(history.attempts[-1])[1] == LOST:
        text = f"{resume}: its last attempt was lost; what is done stays done"
    elif reading.state is RecoveryState.REFUSED:
        text = f"settle the reason it was refused for, then {resume}"
    else:
        text = f"mend what the error names, then {resume}"
    return text


def _next_of_others(reading: Reading) -> str:
    """What is to follow where nothing is left of a way back, or only what a fork took over."""
    history, where = reading.history, where_to_go_back(reading.taken_over)
    ends = f"`recover undo {history.recovery_id} --by NAME` ends this one"
    ends = ends if history.goes_back else ""
    if where:
        return "; then ".join(filter(None, [f"{where} takes back what it took over", ends]))
    nothing = f"nothing is to be undone; see `recover report {history.recovery_id}` for what it did"
    return f"nothing is left to take back: {ends}" if ends else nothing


def _next_for_person(reading: Reading) -> str:
    history, recovery_id = reading.history, reading.history.recovery_id
    if reading.goes_back:
        return _next_after_question(history) or _next_after_failure(reading)
    for step in history.steps.values():
        state = reading.state_of(step)
        if state in {StepState.IN_DOUBT, StepState.STALE} and not step.resolved_as:
            return (
                f"look at {step.target or history.target}, then `recover resolve {recovery_id} "
                f"{shlex.quote(step.key)} --as done|redo|abandon --by NAME --reason TEXT` "
                f"and `recover resume {recovery_id}`"
            )
    if following := _next_after_question(history):
        return following
    plan_hash = history.plan.get("hash", "")
    if plan_hash and not any(approval.plan_hash == plan_hash for approval in history.approvals):
        return (
            f"look at the plan in `recover report {recovery_id}`, then "
            f"`recover resume {recovery_id} --approve {plan_hash} --by NAME`"
        )
    return f"do what the error says, then `recover resume {recovery_id}`"


def _next_after_question(history: History) -> str:
    """What a question calls for that the last attempt ended with; empty where it asked none."""
    asked, recovery_id = history.consents.open_question(), history.recovery_id
    is_of_last = asked is not None and asked.seq > history.attempts[-1].started_seq
    if asked is None or not is_of_last or not (asked.until or asked.goes_back):
        return ""
    again = f"`{asked.order(recovery_id)}`"
    if not count_of(history, asked, asked.plan_hash).missing:
        if not asked.until:
            return f"it is approved: {again} goes on"
        return f"it is approved and goes on by itself; where its run waits no more, {again}"
    if asked.is_over:
        return f"nobody answered in time: {again} asks anew"
    read = f"read what is asked (`recover approve {recovery_id}`), then"
    answer = f"`{asked.command(recovery_id)}`"
    if not asked.until:
        return f"{read} {answer}, and {again} again"
    return f"{read} answer in the UI or {answer}"


def _readable(event: Event) -> Event:
    """The event, without its body where somebody made that unreadable; the chain tells of it."""
    try:
        is_read = isinstance(json.loads(event.body_text), dict)
    except ValueError:
        is_read = False
    return event if is_read else replace(event, body_text="{}")


def readable_events(reading: Reading) -> list[Event]:
    """The events of a reading with bodies that can be read."""
    return [_readable(event) for event in reading.events]


def _how_done(events: Sequence[Event]) -> dict[str, str]:
    """How each step came to be done: acted, already-so, reconciled or reused, by key."""
    return {
        event.step: _readable(event).body.get("how", "")
        for event in events
        if event.kind == Kind.DONE
    }


def _result_of(reading: Reading) -> Any:
    """What the recovery came to; after the way back, the keys of the acts that were undone."""
    is_at_end = reading.state in {RecoveryState.RECOVERED, RecoveryState.UNDONE}
    return reading.history.attempts[-1].result if is_at_end else None


def _ended_at(reading: Reading) -> str | None:
    history = reading.history
    return (reading.end_of(history.attempts[-1])[0] or None) if history.attempts else None


def _attempt(reading: Reading, attempt: AttemptRecord) -> dict[str, Any]:
    ended_at, ended_as = reading.end_of(attempt)
    return {
        "n": attempt.n,
        "flow_run_id": attempt.flow_run_id,
        "epoch": attempt.epoch,
        "started_at": attempt.started_at,
        "ended_at": ended_at or None,
        "ended_as": ended_as or None,
        "worker": attempt.worker_told,
        "error": attempt.error,
    }


def _step(reading: Reading, step: StepRecord, how: dict[str, str]) -> dict[str, Any]:
    state = reading.state_of(step)
    verdict = step.verdict
    if state in SHOWN_STATES:
        verdict = "verified" if step.kind == "verify" else str(state)
    return {
        "key": step.key,
        "kind": step.kind,
        "target": step.target,
        "state": str(SHOWN_STATES.get(state, state)),
        "attempt": step.attempt,
        "started_at": step.started_at or None,
        "ended_at": step.ended_at or None,
        "verdict": verdict,
        "how": how.get(step.key, "") if step.is_done else "",
        "error": step.error,
        "danger": step.danger,
        "undo": step.undo_state,
    }

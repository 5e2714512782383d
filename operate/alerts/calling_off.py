"""A resolved alert: what has not acted is called off, what has or a person has in hand is left."""

from collections.abc import Iterable
from enum import Enum

from operate.alerts.kept import Kept
from operate.alerts.prefect_runs import Standing
from recovery.journal.events import Event, Kind
from recovery.journal.history import History, RecoveryState, read_history
from recovery.journal.opening import open_journal
from recovery.journal.store import Journal
from recovery.run import recovery_id_of

MAY_STILL_OPEN = ("RUNNING", "CANCELLING")  # its journal; a run that is cancelled has a process yet
ACTS = (Kind.INTENDED, Kind.UNDO_INTENDED)


class Found(Enum):
    """How far the recovery of a run has come whose alert is resolved."""

    CALLED_OFF = "it has not acted, and cannot from now on"
    ACTED = "it has acted"
    TAKEN_UP = "another run has taken it up, as a person has it do"
    UNSETTLED = "it has yet to begin an attempt, or has just begun one: to be looked at again"


def call_off(kept: Kept, standing: Standing) -> Found:
    """Take the right to act from the recovery of a run, unless it has used it.

    An attempt that begins meanwhile loses nothing, and one whose journal is still to be opened is
    looked at again later. A walk that only plans changes nothing anyway.

    Raises:
        JournalUnavailable: the journal cannot be asked.
    """
    if kept.parameters.get("plan_only"):
        return Found.CALLED_OFF
    journal = open_journal()
    try:
        return _call_off(journal, kept.flow_run_id, standing)
    finally:
        journal.close()


def _call_off(journal: Journal, flow_run_id: str, standing: Standing) -> Found:
    recovery_id = recovery_id_of(flow_run_id)
    events = journal.events(recovery_id)
    history = read_history(events)
    if history is None:
        may_begin = standing.type in MAY_STILL_OPEN
        return Found.UNSETTLED if may_begin else Found.CALLED_OFF
    if _is_taken_up(history, flow_run_id):
        return Found.TAKEN_UP
    epoch = max(event.epoch for event in events)
    if journal.withdraw(history.target, recovery_id, epoch):
        _note_called_off(journal, _as_withdrawn(journal, history, epoch), flow_run_id)
        return Found.CALLED_OFF
    events = journal.events(recovery_id)
    now = read_history(events)
    if now is not None and _is_taken_up(now, flow_run_id):
        return Found.TAKEN_UP
    return Found.ACTED if _has_acted(events) else Found.UNSETTLED


def _as_withdrawn(journal: Journal, history: History, epoch: int) -> History:
    """With the attempt that got in before its right was taken, without one that began since."""
    now = read_history(journal.events(history.recovery_id))
    if now is None or not now.attempts or now.attempts[-1].epoch > epoch:
        return history
    return now


def _is_taken_up(history: History, flow_run_id: str) -> bool:
    return bool(history.attempts) and history.attempts[-1].flow_run_id != flow_run_id


def _has_acted(events: Iterable[Event]) -> bool:
    return any(event.kind in ACTS for event in events)


def _note_called_off(journal: Journal, history: History, flow_run_id: str) -> None:
    """Write down that nothing is wanted any more; what the run asked is taken back with that.

    It names the latest attempt that was known: of one that has begun since, it says nothing.
    """
    if history.called_off or _has_an_answer(history):
        return
    asked = history.consents.open_question(flow_run_id)
    about = {"key": asked.key, "hash": asked.plan_hash} if asked is not None else {}
    why = "its alert was resolved, and its run is cancelled"
    said = {"by": "the receiver of alerts", "why": why, "attempt": history.last_n}
    journal.append(history.recovery_id, Kind.DISREGARDED, {**about, **said, "called_off": True})


def _has_an_answer(history: History) -> bool:
    """Whether its last attempt has come to one by itself: that is what is told of it."""
    last = history.attempts[-1].ended_as if history.attempts else ""
    return last in {RecoveryState.RECOVERED, RecoveryState.REFUSED}

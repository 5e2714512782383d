"""A resolved alert: what has not acted is called off, what has is left alone."""

from operate.alerts.kept import Kept
from operate.alerts.prefect_runs import Standing
from recovery.journal.events import Kind
from recovery.journal.history import History, RecoveryState, read_history
from recovery.journal.opening import open_journal
from recovery.journal.store import Journal
from recovery.run import recovery_id_of


def _note_called_off(journal: Journal, recovery_id: str, flow_run_id: str) -> None:
    """Write down that nothing is wanted any more; what the run asked is taken back with that."""
    history = read_history(journal.events(recovery_id))
    if history is None or history.called_off or _has_an_answer(history):
        return
    asked = history.consents.open_question(flow_run_id)
    about = {"key": asked.key, "hash": asked.plan_hash} if asked is not None else {}
    why = "its alert was resolved, and its run is cancelled"
    body = {**about, "by": "the receiver of alerts", "why": why, "called_off": True}
    journal.append(recovery_id, Kind.DISREGARDED, body)


def _has_an_answer(history: History) -> bool:
    """Whether its last attempt has come to one by itself: that is what is told of it."""
    last = history.attempts[-1].ended_as if history.attempts else ""
    return last in {RecoveryState.RECOVERED, RecoveryState.REFUSED}


def is_called_off(kept: Kept, standing: Standing) -> bool:
    """Whether a run may be cancelled: it has not acted, and from now on cannot.

    A recovery that runs loses its right to act first, unless it has used it; one whose journal is
    still to be opened is looked at again later. A walk that only plans changes nothing anyway.

    Raises:
        JournalUnavailable: the journal cannot be asked.
    """
    if kept.parameters.get("plan_only"):
        return True
    journal = open_journal()
    try:
        recovery_id = recovery_id_of(kept.flow_run_id)
        events = journal.events(recovery_id)
        if not events:
            return standing.type != "RUNNING"
        if not journal.withdraw(events[0].body.get("target", ""), recovery_id):
            return False
        _note_called_off(journal, recovery_id, kept.flow_run_id)
        return True
    finally:
        journal.close()


def has_acted(kept: Kept) -> bool:
    """Whether a run that was cancelled before it had opened its journal has acted all the same.

    Where it has not, it cannot from now on.

    Raises:
        JournalUnavailable: the journal cannot be asked.
    """
    return not is_called_off(kept, Standing("CANCELLING", "Cancelling", is_final=False))

"""A resolved alert: what has not acted is called off, what has is left alone."""

from operate.alerts.kept import Kept
from operate.alerts.prefect_runs import Standing
from recovery.journal.events import Kind
from recovery.journal.history import read_history
from recovery.journal.opening import open_journal
from recovery.journal.store import Journal
from recovery.run import recovery_id_of


def _take_back_question(journal: Journal, recovery_id: str, flow_run_id: str) -> None:
    history = read_history(journal.events(recovery_id))
    asked = history.consents.open_question(flow_run_id) if history is not None else None
    if asked is not None:
        body = {"key": asked.key, "hash": asked.plan_hash, "by": "the receiver of alerts"}
        why = "its alert was resolved, and its run is cancelled"
        journal.append(recovery_id, Kind.DISREGARDED, {**body, "why": why})


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
        _take_back_question(journal, recovery_id, kept.flow_run_id)
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

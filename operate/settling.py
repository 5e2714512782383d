"""Settling a step in doubt: what a person found out by looking, written to the journal."""

from datetime import datetime

from operate.orders import unknown_step
from operate.settlement import Settlement
from recovery.errors import BadInput, Refused
from recovery.journal.events import Kind
from recovery.journal.history import History, StepState, read_history
from recovery.journal.lease import this_worker
from recovery.journal.store import Holder, Journal, Lease, lease_seconds

UNSETTLED = {StepState.INTENDED, StepState.IN_DOUBT, StepState.STALE, StepState.FAILED}


def settle(  # noqa: PLR0913 (a decision has this many parts)
    journal: Journal, recovery_id: str, step: str, how: Settlement, *, by: str, reason: str
) -> None:
    """Write down what a person decided about a step; nothing at the target is touched.

    The lease is held meanwhile, so that no attempt begins on what it has read before.

    Raises:
        BadInput: there is no such step, it needs no settling, or name or reason are empty.
        Refused: an attempt of the recovery is running.
    """
    for field, text in (("--by", by), ("--reason", reason)):
        if not text.strip():
            raise BadInput(field, "it is empty", "The journal keeps who decided and why: say it")
    target = _history_of(journal, recovery_id).target
    lease = journal.take_lease(target, recovery_id, this_worker(), lease_seconds())
    if isinstance(lease, Holder) and lease.recovery_id == recovery_id:
        raise Refused(
            target,
            f"an attempt of recovery {recovery_id} is running or just stopped ({lease.owner}; "
            f"its lease lasts another {lease.seconds_left:.0f} s)",
            "Wait for its end or stop it, then settle the step",
        )
    try:
        _refuse_unless_open(_history_of(journal, recovery_id), step, how)
        body = {"as": str(how), "by": by, "reason": reason}
        journal.append(recovery_id, Kind.RESOLVED, body, step=step)
    finally:
        if isinstance(lease, Lease):
            journal.release_lease(lease)


def _history_of(journal: Journal, recovery_id: str) -> History:
    history = read_history(journal.events(recovery_id))
    if history is None:
        raise BadInput("ID", f"no recovery {recovery_id}", "See `recover status` for the ids")
    return history


def _refuse_unless_open(history: History, step: str, how: Settlement) -> None:
    record = history.steps.get(step)
    if record is None:
        raise unknown_step(history, step, "STEP")
    if how is Settlement.ABANDON:
        is_open = record.state in {*UNSETTLED, StepState.REFUSED}
    else:
        is_open = record.kind == "act" and record.state in UNSETTLED  # looks are just taken again
    if not is_open:
        since = f" since {_moment(record.ended_at)}" if record.ended_at else ""
        raise BadInput(
            "STEP",
            f"{step} ({record.kind}) is {record.state}{since}",
            f"Only acts in doubt, stale or failed are settled; see `recover status "
            f"{history.recovery_id}`",
        )


def _moment(at: str) -> str:
    return datetime.fromisoformat(at).isoformat(sep=" ", timespec="seconds")

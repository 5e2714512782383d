"""A take-over: a person's order to take the target from an attempt that is known to be gone.

What it would be refused for behind the lease is asked before: whoever holds the target loses it by
the very taking, in the middle of an act where it is at work after all.
"""

from dataclasses import replace

from recovery.errors import Refused, TargetTaken
from recovery.journal.events import Kind
from recovery.journal.history import History, RecoveryState, read_history
from recovery.journal.store import Holder, Lease
from recovery.overtaken import refuse_overtaken
from recovery.run import Run
from recovery.values import to_plain
from recovery.way_back_planning import WayBackPlanWalk, plan_way_back


def is_take_over_ordered(run: Run) -> bool:
    """Whether a person orders it, and not a retry of the run in which a person did."""
    if not run.options.take_over_by or not run.recovery_id:
        return bool(run.options.take_over_by)
    return not any(
        event.kind == Kind.TAKEN_OVER and event.body.get("flow_run_id") == run.flow_run_id
        for event in run.journal.events(run.recovery_id)
    )


def may_lose(run: Run, recovery_id: str) -> set[str]:
    """The recoveries that a take-over takes from: this one, and who holds the target."""
    holder = run.journal.holder(run.target)
    return {recovery_id} if holder is None else {recovery_id, holder.recovery_id}


def refuse_vain_take_over(run: Run, recovery_id: str) -> None:
    """Refuse a take-over that would come to nothing, before anybody loses a lease by it.

    A form asks for a reason only behind the lease, which is too late here; one that was given with
    consent to this way back is enough.

    Raises:
        RecoveryError: the way back that was consented to cannot be planned now.
        TargetTaken: a part is held by a recovery that loses nothing.
        NeedsPerson: a later recovery has acted on the target, and no reason is given.
        Refused: there is nothing left to do for which the target would be needed.
    """
    losers = may_lose(run, recovery_id)
    for part in run.parts:
        found = run.journal.holder(part)
        if found is not None and found.recovery_id not in losers:
            raise TargetTaken(part, found.recovery_id, found.seconds_left, is_part=True)
    holder = run.journal.holder(run.target)
    history = read_history(run.journal.events(recovery_id))
    if holder is None or history is None:
        return
    if holder.recovery_id != recovery_id:
        _refuse_needless(run, history, holder)
    if not _has_consent_for_a_reason(run, history):
        refuse_overtaken(replace(run, form=None), None, history)


def _has_consent_for_a_reason(run: Run, history: History) -> bool:
    is_asked = run.form is not None and bool(run.options.undo_by)
    if not (is_asked and history.approvals):
        return False
    plan_hash = plan_way_back(run, history).hash
    return any(given.reason for given in history.consents.standing(plan_hash))


def _refuse_needless(run: Run, history: History, holder: Holder) -> None:
    last = history.attempts[-1].ended_as if history.attempts else ""
    wanted = RecoveryState.UNDONE if run.options.undo_by else RecoveryState.RECOVERED
    if last == wanted:
        raise Refused(
            run.target,
            f"recovery {history.recovery_id} is {last}, and recovery {holder.recovery_id} holds "
            "the target: there is nothing to take it over for",
            f"See `recover status {holder.recovery_id}`",
        )
    if run.options.undo_by:
        walk = WayBackPlanWalk(run.target, run.stage, history=history)
        walk.refuse_if_nothing_to_undo((), walk.not_come_to())


def note_take_over(run: Run, lease: Lease) -> None:
    """Write down who ordered it, and from whom it took, before anything else is looked at.

    Raises:
        LeaseLost: another one has it by now.
        JournalUnavailable: it could not be written.
    """
    body = {
        "by": run.options.take_over_by,
        "flow_run_id": run.flow_run_id,
        "from": [to_plain(holder) for holder in run.taken_from],
    }
    run.journal.append(lease.recovery_id, Kind.TAKEN_OVER, body, lease=lease)

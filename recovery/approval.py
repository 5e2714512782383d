"""Consent to a plan: given to its hash, by name, for a time; void when the plan changes."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from recovery.attempt import Attempt
from recovery.errors import NeedsPerson, Refused
from recovery.journal.events import Kind
from recovery.journal.history import Approval
from recovery.plan import Plan, commands_by_key
from recovery.run import Run, this_user
from recovery.stage import PlainStage
from recovery.values import shortly
from recovery.verdict import Danger

TOLD_MAX = 10
APPROVAL_LASTS = timedelta(hours=24)


def new_approval(plan_hash: str, by: str, how: str, reason: str = "") -> Approval:
    """Consent to a plan from now on."""
    until = (datetime.now(UTC) + APPROVAL_LASTS).isoformat(timespec="seconds")
    return Approval(plan_hash, by, until, how, reason)


def valid_approval(approvals: Sequence[Approval], plan_hash: str) -> Approval | None:
    """The latest consent to this very plan that has not run out."""
    now = datetime.now(UTC)
    for approval in reversed(approvals):
        if approval.plan_hash == plan_hash and datetime.fromisoformat(approval.until) > now:
            return approval
    return None


def refuse_other_hash(plan: Plan, wanted: str, journaled: Mapping[str, Any] | None) -> None:
    """Refuse a consent that was given to another plan than the one that would be carried out.

    Args:
        plan: what would be carried out now.
        wanted: the hash that was consented to.
        journaled: the plan of that hash, where this recovery has it on record.

    Raises:
        NeedsPerson: the plan changed since it was approved, or another one was meant.
    """
    if wanted == plan.hash:
        return
    difference = ""
    if journaled is not None:
        before, now = commands_by_key(dict(journaled)), commands_by_key(plan.as_plain())
        told = [
            f"{key} was {shortly(before.get(key))}, is now {shortly(now.get(key))}"
            for key in {**before, **now}
            if before.get(key) != now.get(key)
        ]
        more = f" and {len(told) - TOLD_MAX} more" if len(told) > TOLD_MAX else ""
        difference = f" (changed: {'; '.join(told[:TOLD_MAX])}{more})"
    raise NeedsPerson(
        plan.target,
        f"plan {wanted} was approved, but what would be done now is plan {plan.hash}{difference}",
        f"Look at `recover plan {plan.flow}` again and approve that hash",
    )


def settle_approval(run: Run, attempt: Attempt) -> None:
    """Find the consent this attempt acts on; a destructive recovery without one ends here.

    Raises:
        Refused: the plan itself says that something speaks against it.
        NeedsPerson: nobody has approved the plan, or another one was approved.
    """
    if run.recovery.danger is not Danger.DESTRUCTIVE and not run.options.approve:
        return
    history = attempt.history
    approval = valid_approval(history.approvals, history.plan.get("hash", ""))
    wanted = "" if _was_given(run, attempt) else run.options.approve
    is_begun = bool(history.last_act_seq)
    planned = history.plan
    if approval is None or wanted not in {"", approval.plan_hash}:
        approval = None
        planned = history.plans.get(wanted, {}) if is_begun else {}
    if not planned or not is_begun:  # nothing was done yet: what is consented to must be so now
        planned = _plan_anew(run, attempt, wanted or (approval.plan_hash if approval else ""))
    if approval is None and not any(commands_by_key(planned).values()):
        attempt.approved = commands_by_key(planned)  # nothing to do: no consent, and no command
        return
    if approval is None:
        approval = _note_approval(run, attempt, planned["hash"])
    attempt.may_destroy, attempt.consent = True, approval
    attempt.approved = commands_by_key(planned) if approval.how == "approved" else None


def _was_given(run: Run, attempt: Attempt) -> bool:
    """Whether this very run gave its consent before: a run that is retried repeats no answer."""
    return any(given.flow_run_id == run.flow_run_id for given in attempt.history.approvals)


def _note_approval(run: Run, attempt: Attempt, plan_hash: str) -> Approval:
    if _was_given(run, attempt):
        raise NeedsPerson(
            attempt.target,
            "the consent to its plan has run out, and a retry does not renew it",
            f"Look at the plan again, then `recover resume {attempt.history.recovery_id} "
            f"--approve {plan_hash} --by NAME`",
        )
    approval = new_approval(
        plan_hash,
        run.options.approved_by or this_user(),
        "break-glass" if run.options.break_glass else "approved",
        run.options.break_glass,
    )
    body = {
        "hash": approval.plan_hash,
        "by": approval.by,
        "until": approval.until,
        "how": approval.how,
        "reason": approval.reason,
        "flow_run_id": run.flow_run_id,
    }
    attempt.write(Kind.APPROVED, body)
    return approval


def _plan_anew(run: Run, attempt: Attempt, wanted: str) -> dict[str, Any]:
    history = attempt.history
    plan, _ = run.make_plan(PlainStage(), history.identities, history.decisions)
    planned = plan.as_plain()
    attempt.write(Kind.PLANNED, planned)
    if plan.refusals:
        told = [text.removeprefix(f"refused on {plan.target}: ") for text in plan.refusals]
        raise Refused(plan.target, "; ".join(told), "Nothing was changed")
    if wanted:
        refuse_other_hash(plan, wanted, history.plans.get(wanted))
    elif not run.options.break_glass and not plan.is_empty:
        raise NeedsPerson(
            plan.target,
            f"this recovery is destructive and nobody has approved its plan {plan.hash}",
            f"Look at the plan (`recover plan {plan.flow}` with the same parameters), then "
            f"`recover resume {history.recovery_id} --approve {plan.hash} --by NAME`; "
            "in the UI, a new run with `resume` and `approve`",
        )
    return planned

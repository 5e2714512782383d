"""Consent to a plan: given to its hash, by name, for a time; void when the plan changes."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from recovery.attempt import Attempt
from recovery.errors import NeedsPerson, Refused
from recovery.events import Kind
from recovery.history import Approval
from recovery.plan import Plan, commands_by_key
from recovery.run import Run, this_user
from recovery.stage import PlainStage
from recovery.verdict import Danger

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


def refuse_other_hash(plan: Plan, wanted: str, journaled: Mapping[str, Any]) -> None:
    """Refuse a consent that was given to another plan than the one that would be carried out.

    Raises:
        NeedsPerson: the plan changed since it was approved, or another one was meant.
    """
    if wanted == plan.hash:
        return
    difference = ""
    if journaled.get("hash") == wanted:
        before, now = commands_by_key(dict(journaled)), commands_by_key(plan.as_plain())
        changed = [key for key in {**before, **now} if before.get(key) != now.get(key)]
        difference = f" (changed: {', '.join(changed[:10])})"
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
    wanted = run.options.approve
    if run.recovery.danger is not Danger.DESTRUCTIVE and not wanted:
        return
    planned = attempt.history.plan
    approval = valid_approval(attempt.history.approvals, planned.get("hash", ""))
    if approval is None or (wanted and wanted != approval.plan_hash):
        if not wanted or wanted != planned.get("hash"):
            planned = _plan_anew(run, attempt)
        approval = new_approval(
            planned["hash"],
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
        }
        attempt.write(Kind.APPROVED, body)
    attempt.may_destroy = True
    attempt.approved = commands_by_key(planned) if approval.how == "approved" else None


def _plan_anew(run: Run, attempt: Attempt) -> dict[str, Any]:
    journaled = attempt.history.plan
    plan, _ = run.make_plan(PlainStage(), attempt.history.recovery_id, attempt.history.decisions)
    planned = plan.as_plain()
    attempt.write(Kind.PLANNED, planned)
    if plan.refusals:
        raise Refused(plan.target, "; ".join(plan.refusals), "Nothing was changed")
    if run.options.approve:
        refuse_other_hash(plan, run.options.approve, journaled)
    elif not run.options.break_glass:
        raise NeedsPerson(
            plan.target,
            f"this recovery is destructive and nobody has approved its plan {plan.hash}",
            f"Look at it with `recover plan {plan.flow}`, then give --approve {plan.hash}",
        )
    return planned

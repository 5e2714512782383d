"""Consent to a plan: given to its hash, by name, for a time; void when the plan changes."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from recovery.errors import NeedsPerson
from recovery.history import Approval
from recovery.plan import Plan, commands_by_key

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

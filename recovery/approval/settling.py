"""Consent to a plan: given to its hash, by name, for a time; void when the plan changes."""

from collections.abc import Mapping
from typing import Any

from recovery.approval.approvers import ANYONE, approvers, asked_under
from recovery.approval.seeking import Seeking, changed
from recovery.attempt import Attempt
from recovery.errors import Refused
from recovery.journal.consents import BREAK_GLASS
from recovery.journal.events import Kind
from recovery.plan import commands_by_key
from recovery.run import Run, this_user
from recovery.stage import PlainStage
from recovery.values import shortly

TOLD_MAX = 10


def settle_approval(run: Run, attempt: Attempt) -> None:
    """Find the consent this attempt acts on; a recovery that needs one and has none ends here.

    Raises:
        BadInput: the file of approvers is malformed.
        Refused: the plan itself says that something speaks against it, or a person said no.
        NeedsPerson: its plan is not approved yet, or another one was.
    """
    policy = approvers()
    rule = asked_under(
        policy.rule_for(run.recovery.name, run.recovery.danger), attempt.history.consents
    )
    if rule is None and not run.options.approve:
        return
    seeking = Seeking(run, attempt, policy, rule or ANYONE)
    planned = _planned(seeking, attempt)
    plan_hash = planned["hash"]
    asked = seeking.pending
    before = attempt.history.plans.get(asked.plan_hash) if asked else None
    seeking.hear_answer(plan_hash, difference(before, planned))
    commands = commands_by_key(dict(planned))
    if not any(commands.values()) and seeking.consent(plan_hash) is None:
        attempt.approved = commands  # nothing to do: no consent, and no command
        return
    _hear_order(seeking, planned)
    consent = seeking.consent(plan_hash)
    if consent is None:
        _ask(seeking, planned)
        return
    seeking.refuse_if_rejected()
    attempt.may_destroy, attempt.consent = True, consent
    attempt.approved = commands if consent.how == "approved" else None


def difference(before: Mapping[str, Any] | None, now: Mapping[str, Any]) -> str:
    """What differs between two plans, for a person; empty where the former is not known."""
    if before is None:
        return ""
    was, is_now = commands_by_key(dict(before)), commands_by_key(dict(now))
    told = [
        f"{key} was {shortly(was.get(key))}, is now {shortly(is_now.get(key))}"
        for key in {**was, **is_now}
        if was.get(key) != is_now.get(key)
    ]
    more = f" and {len(told) - TOLD_MAX} more" if len(told) > TOLD_MAX else ""
    return f" (changed: {'; '.join(told[:TOLD_MAX])}{more})"


def _planned(seeking: Seeking, attempt: Attempt) -> Mapping[str, Any]:
    """The plan that consent is needed for: made anew unless what is done makes it another one."""
    history, wanted = attempt.history, _ordered(seeking)
    if history.last_act_seq and seeking.pending is None:
        if wanted in history.plans:
            return history.plans[wanted]
        if not wanted and history.plan and seeking.consent(history.plan["hash"]) is not None:
            return history.plan
    run = seeking.run
    plan, _ = run.make_plan(PlainStage(), history.identities, history.decisions)
    planned = plan.as_plain()
    attempt.write(Kind.PLANNED, planned)
    if plan.refusals:
        told = [text.removeprefix(f"refused on {plan.target}: ") for text in plan.reasons]
        raise Refused(
            plan.target, "; ".join(one.removesuffix(".") for one in told), "Nothing was changed"
        )
    return planned


def _was_given(seeking: Seeking) -> bool:
    """Whether this very run gave its consent before: a run that is retried repeats no answer."""
    return any(
        given.flow_run_id == seeking.run.flow_run_id and not given.through
        for given in seeking.walk.history.approvals
    )


def _ordered(seeking: Seeking) -> str:
    """The hash that the order of this run consents to, unless it has done so before."""
    return "" if _was_given(seeking) else seeking.run.options.approve


def _hear_order(seeking: Seeking, planned: Mapping[str, Any]) -> None:
    options, plan_hash, history = seeking.run.options, planned["hash"], seeking.walk.history
    by = options.approved_by or this_user()
    wanted = _ordered(seeking)
    if wanted == plan_hash:
        seeking.approve(plan_hash, by, "approved", "")
    elif wanted:
        was = history.plans.get(wanted)
        seeking.wanting.append(changed(wanted, plan_hash, difference(was, planned)))
    elif options.break_glass and not _was_given(seeking):
        seeking.approve(plan_hash, by, BREAK_GLASS, options.break_glass)
    elif _was_given(seeking) and not history.consents.standing(plan_hash):
        seeking.wanting.append("the consent to its plan has run out, and a retry does not renew it")


def _ask(seeking: Seeking, planned: Mapping[str, Any]) -> None:
    plan_hash, recovery_id = planned["hash"], seeking.walk.history.recovery_id
    kind = seeking.run.recovery.danger
    seeking.ask(
        planned,
        f"this recovery is {kind} and nobody has approved its plan {plan_hash}",
        f"Look at the plan (`recover plan {seeking.run.recovery.name}` with the same parameters), "
        f"then `recover resume {recovery_id} --approve {plan_hash} --by NAME`; "
        "in the UI, a new run with `resume`, `approve` and `approved_by`",
    )

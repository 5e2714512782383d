"""Consent to going back: ordered by name from a terminal, asked for where a worker is to do it."""

from recovery.approval.approvers import ANYONE, Approvers, Rule, approvers, asked_under
from recovery.approval.seeking import Seeking
from recovery.journal.consents import BREAK_GLASS
from recovery.run import Run
from recovery.verdict import Danger
from recovery.way_back import WayBack
from recovery.way_back_planning import planned_way_back


def settle_way_back(run: Run, walk: WayBack) -> None:
    """Find the consent to the way back; where it needs one and has none, the attempt ends here.

    To go back takes from users what works now, so on a worker it is asked for like what is
    destructive, whatever the recovery is declared. Who orders it from a terminal consents to it by
    that, and is one of the persons that the rule wants; why is kept with it. A reason to go ahead
    without consent is recorded with the attempt.

    Raises:
        BadInput: the file of approvers is malformed.
        Refused: a person said no.
        NeedsPerson: it is not approved yet.
    """
    if run.options.break_glass:
        seeking = Seeking(run, walk, Approvers(), ANYONE, goes_back=True)
        plan_hash = planned_way_back(run, walk).hash
        if not any(
            one.how == BREAK_GLASS and one.flow_run_id == run.flow_run_id
            for one in walk.history.consents.standing(plan_hash)
        ):
            by = run.options.undo_by
            seeking.approve(plan_hash, by, BREAK_GLASS, run.options.break_glass)
        return
    policy = approvers()
    is_asked = run.form is not None
    danger = Danger.DESTRUCTIVE if is_asked else run.recovery.danger
    rule = asked_under(
        policy.rule_for(run.recovery.name, danger), walk.history.consents, goes_back=True
    )
    reason = run.options.undo_reason
    if rule is None and not reason:
        return
    seeking = Seeking(run, walk, policy, rule or ANYONE, goes_back=True)
    planned = planned_way_back(run, walk)
    if not planned.steps:
        return  # the way back itself says so
    plan_hash = planned.hash
    if is_asked:
        seeking.hear_answer(plan_hash, "")
    else:
        is_enough = rule is None or _needs_nobody_else(rule)
        if (reason or not is_enough) and not any(
            given.flow_run_id == run.flow_run_id
            for given in walk.history.consents.standing(plan_hash)
        ):
            seeking.approve(plan_hash, run.options.undo_by, "approved", reason)
        if is_enough:
            return
    if seeking.consent(plan_hash) is not None:
        seeking.refuse_if_rejected()
        return
    why = " --reason TEXT" if planned.wants_reason else ""
    ordered = f"{run.options.undo_by} orders the way back" + (f": {reason}" if reason else "")
    recovery_id = walk.history.recovery_id
    seeking.ask(
        planned.as_plain(),
        "; ".join([ordered, *planned.wants_reason]),
        f"`recover approve {recovery_id} --plan {plan_hash} --by NAME --reason TEXT`, then "
        f"`recover undo {recovery_id} --by NAME{why}` again",
    )


def _needs_nobody_else(rule: Rule) -> bool:
    return not rule.of and rule.needs == 1 and rule.requester_suffices

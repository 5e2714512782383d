"""Planning the way back: the recorded walk, without a lease, a journal to write to, or consent."""

from dataclasses import dataclass

from recovery.errors import Refused, TargetTaken
from recovery.inputs import price_of_undo
from recovery.journal.history import History, StepRecord, StepState
from recovery.overtaken import later_acts, why_not_back
from recovery.plan import PlannedStep
from recovery.recorded_walk import RecordedWalk
from recovery.run import Run
from recovery.secrecy.redaction import redact
from recovery.values import to_plain
from recovery.verdict import Danger
from recovery.walk import Fence, StepCall
from recovery.way_back_plan import ActLeft, WayBackPlan, Why
from recovery.words import FIELD_CHARS_MAX, told


@dataclass
class WayBackPlanWalk(RecordedWalk):
    """Finds the steps back, and walks none of them."""

    @property
    def fence(self) -> Fence:
        """See Walk. It has no epoch: nothing is changed under it."""
        return Fence(self.history.recovery_id, 0, self.target)


def plan_way_back(run: Run, history: History) -> WayBackPlan:
    """Find out what going back on a recovery would do now, and what speaks against it.

    Raises:
        RecoveryError: the walk to where the recovery ended fails, as it would for the way back.
    """
    walk = WayBackPlanWalk(run.target, run.stage, history=history)
    walk.collect(run.walk)
    plan = planned_way_back(run, walk)
    try:
        walk.refuse_if_nothing_to_undo(plan.steps, walk.not_come_to())
    except Refused as refused:
        plan.refusals.append(redact(str(refused)))
    plan.refusals += _taken(run)
    if price := price_of_undo(history):
        plan.wants_reason.append(price)
    plan.wants_reason += [why_not_back(later, history) for later in later_acts(run, history)]
    return plan


def planned_way_back(run: Run, walk: RecordedWalk) -> WayBackPlan:
    """Tell the way back as a plan, once the walk has come to where the recovery ended."""
    records, left = walk.history.steps, walk.not_come_to()
    still_there = set(map(walk.begun_at, left))
    stays = dict.fromkeys(left, Why.NOT_COME_TO)
    steps, taken_back = [], set()
    for back in walk.backs():
        down = walk.kept_down(back, still_there)
        stays |= dict.fromkeys((act.key for act in down), Why.KEPT_DOWN)
        taken_back |= {act.key for act in back.undoes}
        if not down:
            steps.append(_step_back(back))
    has_none = [key for key in walk.history.steps_to_undo() if key not in {*stays, *taken_back}]
    stays |= dict.fromkeys(has_none, Why.NO_WAY_BACK)
    undone = [step.key for step in records.values() if step.state is StepState.UNDONE]
    return WayBackPlan(
        run.recovery.name,
        run.target,
        run.plain,
        steps=steps,
        recovery_id=walk.history.recovery_id,
        begun=walk.begun,
        stays=[
            _act_left(records[key], stays[key])
            for key in sorted(stays, key=walk.begun_at, reverse=True)
        ],
        undone=sorted(undone, key=walk.begun_at, reverse=True),
        cut_short=redact(walk.cut_short),
    )


def _act_left(record: StepRecord, why: Why) -> ActLeft:
    is_open = record.state is StepState.INTENDED  # the next attempt will call it that
    return ActLeft(
        record.key, record.target, str(StepState.IN_DOUBT if is_open else record.state), why
    )


def _step_back(back: StepCall) -> PlannedStep:
    """A step back, destructive whatever it does: it takes from users what works now."""
    arguments = told(to_plain(back.arguments), FIELD_CHARS_MAX)
    return PlannedStep(
        f"undo {', '.join(act.key for act in back.undoes)}",
        "act",
        back.target,
        str(Danger.DESTRUCTIVE),
        commands=(f"{back.step.name}: {arguments}",),
    )


def _taken(run: Run) -> list[str]:
    """Who holds the target or a part of it now, so that nobody could go back: each once."""
    found: dict[str, str] = {}
    for target in (run.target, *run.parts):
        holder = run.journal.holder(target)
        if holder is None:
            continue
        refused: Refused = TargetTaken(
            target, holder.recovery_id, holder.seconds_left, is_part=target != run.target
        )
        if holder.recovery_id == run.recovery_id:
            refused = Refused(
                target,
                f"an attempt of this recovery is at work (lease for another "
                f"{holder.seconds_left:.0f} s), and this plan may change",
                f"See `recover status {run.recovery_id}`, and make it again after its end",
            )
        found.setdefault(holder.recovery_id, str(refused))
    return list(found.values())

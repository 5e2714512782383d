"""Planning the way back: the recorded walk, without a lease, a journal to write to, or consent."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from recovery.errors import Refused, TargetTaken
from recovery.inputs import price_of_undo
from recovery.journal.history import History, RecoveryState, StepRecord, StepState
from recovery.overtaken import Later, later_acts, why_not_back
from recovery.plan import PlannedStep
from recovery.recorded_walk import RecordedWalk, fingerprint_of
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
        others = walk.taken_over(run.journal)
        walk.refuse_if_nothing_to_undo(plan.steps, walk.not_come_to(), others)
    except Refused as refused:
        plan.refusals.append(redact(str(refused)))
    plan.refusals += _taken(run)
    if history.goes_back:  # whoever began it gave the reason
        later = later_acts(run, history) if history.can_go_back else []
        plan.wants_reason = [why_not_back(one, history) for one in later]
    return plan


def planned_way_back(run: Run, walk: RecordedWalk) -> WayBackPlan:
    """Tell the way back as a plan, once the walk has come to where the recovery ended."""
    history = walk.history
    records, left = history.steps, walk.not_come_to()
    later = later_acts(run, history, since_forward=True)
    still_there = set(map(walk.begun_at, left))
    backs, held = walk.to_walk(left)
    stays = dict.fromkeys(left, Why.NOT_COME_TO) | dict.fromkeys(held, Why.STOOD_ON)
    steps: list[PlannedStep] = []
    taken_back: dict[str, str] = {}
    for back in backs:
        down = walk.kept_down(back, still_there)
        stays |= dict.fromkeys((act.key for act in down), Why.KEPT_DOWN)
        taken_back |= {act.key: fingerprint_of(back) for act in back.undoes}
        if not down:
            steps.append(_step_back(back))
    has_none = [key for key in history.steps_to_undo() if key not in {*stays, *taken_back}]
    stays |= dict.fromkeys(has_none, Why.NO_WAY_BACK)
    others = [_act_taken_over(one) for one in walk.taken_over(run.journal)]
    undone = [step.key for step in records.values() if step.state is StepState.UNDONE]
    return WayBackPlan(
        run.recovery.name,
        run.target,
        run.plain,
        steps=steps,
        recovery_id=history.recovery_id,
        acts=[
            *([one.key, str(one.why), one.done_by] for one in others),
            *_acts(history, taken_back | stays),
        ],
        as_of=_as_of(history, later),
        stays=[
            _act_left(records[key], stays[key])
            for key in sorted(stays, key=walk.begun_at, reverse=True)
        ]
        + others,
        undone=sorted(undone, key=walk.begun_at, reverse=True),
        cut_short=redact(walk.cut_short),
        wants_reason=[
            *filter(None, [price_of_undo(history)]),
            *(why_not_back(one, history) for one in later),
        ],
    )


def _acts(history: History, becomes: Mapping[str, str]) -> list[list[str]]:
    return [
        [record.key, str(becomes.get(record.key, record.undone_by))] for record in history.begun()
    ]


def _as_of(history: History, later: Sequence[Later]) -> list[Any]:
    """What consent depends on beside the acts; one more act of a flow that was told is as told."""
    last = history.last_forward
    ended = [last.n, last.ended_as == RecoveryState.RECOVERED] if last else []
    changed_by = sorted({one.flow for one in later if not one.went_back})
    return [ended, changed_by, sorted(one.recovery_id for one in later if one.went_back)]


def _act_left(record: StepRecord, why: Why, done_by: str = "") -> ActLeft:
    is_open = record.state is StepState.INTENDED  # the next attempt will call it that
    state = StepState.IN_DOUBT if is_open else record.state
    return ActLeft(record.key, record.target, str(state), why, done_by)


def _act_taken_over(record: StepRecord) -> ActLeft:
    if not record.has_way_back:
        return _act_left(record, Why.NO_WAY_BACK)
    return _act_left(record, Why.TAKEN_OVER, record.taken_over_from)


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

"""Recoveries that others have overtaken: what they remember of the target is no longer so.

A recovery goes on with what it decided and saved when it began. Where a later one of the same
target has acted since, that may be undone, or done over, without a word.
"""

from dataclasses import dataclass

from recovery.errors import NeedsPerson
from recovery.journal.events import Event, Kind
from recovery.journal.history import History, read_history
from recovery.journal.store import Lease
from recovery.run import Run
from recovery.walk import step_logger


@dataclass(frozen=True)
class Later:
    """Another recovery of the same target, and when it last began an act, or a step back, there."""

    recovery_id: str
    flow: str
    acted_at: str
    went_back: bool = False

    def __str__(self) -> str:
        """Which recovery has done what when."""
        what = "was taken back since" if self.went_back else "has changed it since"
        return f"recovery {self.recovery_id} ({self.flow}) {what}, at {self.acted_at}"


def refuse_overtaken(run: Run, lease: Lease | None, history: History) -> None:
    """Ask for a reason before a recovery goes on, or back, over a later one of its target.

    On the way forward only one of the same flow counts: another one may well have mended the very
    obstacle, and is told of. The way back would put back what was there before either.

    Raises:
        NeedsPerson: there is one, and no reason is given.
    """
    is_forward = not run.options.undo_by
    if not (is_forward or history.can_go_back):
        return  # nothing is put back any more
    reason = run.options.break_glass or run.options.undo_reason
    asks_itself = not is_forward and run.form is not None  # for the reason, with consent
    for later in later_acts(run, history, lease):
        if reason or asks_itself or (is_forward and later.flow != history.flow):
            step_logger().warning("%s: %s", history.target, later)
            continue
        recovery_id = history.recovery_id
        again = f"`recover undo {recovery_id} --by NAME{as_ordered(run)} --reason TEXT`"
        if is_forward:
            again = (
                f"`recover resume {recovery_id} --by NAME{as_ordered(run)} --break-glass REASON`"
            )
        raise NeedsPerson(
            history.target,
            f"{later}; {recovery_id} would go on with what it decided before that"
            if is_forward
            else why_not_back(later, history),
            f"Start a new one; or, where it is meant, {again}"
            if is_forward
            else f"Where it is meant: {again}",
        )


def as_ordered(run: Run) -> str:
    """What a command that orders the same once more is to have: the take-over, if it was one."""
    return " --take-over" if run.options.take_over_by else ""


def why_not_back(later: Later, history: History) -> str:
    """Why going back on a recovery that was overtaken wants a reason."""
    what = "what was before that" if later.went_back else "what was before both"
    return f"{later}; going back on {history.recovery_id} puts back {what}"


def later_acts(
    run: Run, history: History, lease: Lease | None = None, *, since_forward: bool = False
) -> list[Later]:
    """The recoveries that have acted on the target since the last attempt of this one began.

    Those that began later and were undone have left nothing; one that began before and was undone
    since has put back what was there before both. Epochs tell what was later: the target's rises
    with each lease, whatever the clocks of the workers say. An attempt to go back that did no step
    back, as one that only asked, is not counted as one.

    Args:
        run: the run that goes on with it.
        history: what it goes on with.
        lease: what it holds for that, if anything.
        since_forward: count no attempt that went back, whatever it did.
    """
    mine = [
        one
        for one in history.attempts
        if not one.goes_back or (one.has_undone and not since_forward)
    ]
    if not mine or not (history.last_act_seq or history.decisions):
        return []
    last = mine[-1]
    others = history.attempts[history.attempts.index(last) + 1 :]
    if lease is not None and lease.epoch == last.epoch + len(others) + 1:
        return []  # all leases between were its own
    found = [
        _later(run.journal.events(recovery_id), last.epoch, history.target)
        for recovery_id in run.journal.acted_since(history.target, last.epoch)
        if recovery_id != history.recovery_id
    ]
    return [later for later in found if later is not None]


def _later(events: list[Event], epoch: int, target: str) -> Later | None:
    acted = [event for event in events if event.kind in {Kind.INTENDED, Kind.UNDO_INTENDED}]
    last = next((event for event in reversed(acted) if event.epoch > epoch), None)
    try:
        history = read_history(events) if last is not None else None
    except ValueError:  # somebody changed it: `recover journal verify` tells
        return None
    if last is None or history is None or history.target != target:
        return None
    if _has_left_nothing(history) and all(event.epoch > epoch for event in acted):
        return None
    moment = last.moment.isoformat(sep=" ", timespec="seconds")
    return Later(history.recovery_id, history.flow, moment, last.kind == Kind.UNDO_INTENDED)


def _has_left_nothing(history: History) -> bool:
    """Whether all that it did is undone; what a fork took over may keep it from its end."""
    return history.is_undone or (history.goes_back and not history.can_go_back)

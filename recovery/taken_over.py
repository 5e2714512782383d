"""What a fork took over as done: its own way back leaves that to the recovery that did it."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import cache

from recovery.journal.history import History, StepRecord, read_history
from recovery.journal.store import Journal


def taken_over(journal: Journal, history: History) -> list[StepRecord]:
    """The acts that a fork took over and that are still there, those it took over last first.

    Each is as the recovery that did it has it, and says which one that is.
    """

    @cache
    def known(recovery_id: str) -> History | None:
        try:
            return read_history(journal.events(recovery_id))
        except ValueError:  # somebody changed it: `recover journal verify` tells
            return None

    steps = [one for one in history.steps.values() if one.kind == "act" and one.taken_over_from]
    found = [_as_left(step, known) for step in reversed(steps)]
    return [one for one in found if one is not None]


def where_to_go_back(steps: Iterable[StepRecord]) -> str:
    """How that is taken back which a fork took over; empty where none of it has a way back.

    The recovery that did it may have been completed, which wants a reason.
    """
    ids = dict.fromkeys(step.taken_over_from for step in steps if step.has_way_back)
    return ", ".join(f"`recover undo {recovery_id} --by NAME --reason TEXT`" for recovery_id in ids)


def _as_left(step: StepRecord, known: Callable[[str], History | None]) -> StepRecord | None:
    """The act as its recovery has it; `None` where that has taken it back, or never did it."""
    record = step
    while record.taken_over_from:
        done_by = record.taken_over_from
        owner = known(done_by)
        if owner is None:
            return record  # nothing tells that it was taken back
        if step.key not in owner.steps:
            return None
        record = owner.steps[step.key]
        if step.key in owner.steps_to_undo():
            return replace(record, taken_over_from=done_by)
    return None

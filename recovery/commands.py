"""The gate every command passes: what blocks call around anything they send to a target.

A block wraps what it sends in `reading(...)` or `changing(...)`. The running step, if there is one,
then checks it (a change is made only inside an act or an undo, only while the lease is held, and
only if it stands in the step's plan), logs it and keeps it as evidence. Outside of a recovery both
do nothing, so that blocks can be used and tested as plain code.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Protocol

LINES_HEARD_MAX = 200


@dataclass
class Call:
    """One command on its way: the block fills in the answer."""

    command: str
    target: str
    is_change: bool
    answer: str = ""
    exit_code: int | None = None
    started: float = field(default_factory=time.monotonic)
    seconds: float = 0.0
    gate: "Gate | None" = field(default=None, repr=False, compare=False)
    lines_heard: int = 0

    def heard(self, line: str) -> None:
        """Pass on a line that came while the command still runs: the first ones, up to a bound."""
        self.lines_heard += 1
        if self.gate is not None and self.lines_heard <= LINES_HEARD_MAX:
            is_last = self.lines_heard == LINES_HEARD_MAX
            self.gate.heard(self, "(what follows is not shown here)" if is_last else line)


class Gate(Protocol):
    """What a running step does with the commands of its blocks."""

    def before(self, call: Call) -> None:
        """Raise where the call must not be made."""

    def heard(self, call: Call, line: str) -> None:
        """Show a line of its output, which is told whole in the answer."""

    def after(self, call: Call, error: BaseException | None) -> None:
        """Keep what came of it."""


current_gate: ContextVar[Gate | None] = ContextVar("current_gate", default=None)


@contextmanager
def reading(command: str, target: str) -> Iterator[Call]:
    """Send something that changes nothing; set `answer` (and `exit_code`) on what is yielded."""
    with _passing(Call(command, target, is_change=False)) as call:
        yield call


@contextmanager
def changing(command: str, target: str) -> Iterator[Call]:
    """Send something that changes the target; `command` is its exact text, as the plan shows it."""
    with _passing(Call(command, target, is_change=True)) as call:
        yield call


@contextmanager
def _passing(call: Call) -> Iterator[Call]:
    gate = current_gate.get()
    if gate is not None:
        gate.before(call)
        call.gate = gate
    error: BaseException | None = None
    try:
        yield call
    except BaseException as raised:
        error = raised
        raise
    finally:
        call.seconds = time.monotonic() - call.started
        if gate is not None:
            gate.after(call, error)

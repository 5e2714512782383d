"""What a block sees of a recovery that runs: its gate and its fence, without journal or flow."""

import contextlib
from collections.abc import Iterator, Mapping

from recovery.commands import Call
from recovery.walk import Fence, Gate, Outcome, StepCall, Walk, gated


class BareWalk(Walk):
    """A walk of one attempt that takes no steps."""

    def __init__(self, fence: Fence) -> None:
        super().__init__(fence.target, None)
        self._fence = fence

    @property
    def fence(self) -> Fence:
        return self._fence

    def carry_out(self, call: StepCall) -> Outcome:
        raise AssertionError("no steps are taken here")


class RecordingGate(Gate):
    """A gate that keeps what passes it. `sent` are the calls, `lines` what was heard meanwhile."""

    def __init__(self, walk: Walk) -> None:
        super().__init__(walk, None, may_change=True)
        self.sent: list[Call] = []
        self.lines: list[str] = []
        self.errors: list[str] = []

    def before(self, command: Call) -> None:
        self.sent.append(command)

    def heard(self, command: Call, line: str) -> None:
        self.lines.append(line)

    def after(self, command: Call, error: BaseException | None) -> None:
        if error is not None:
            self.errors.append(repr(error) + str(error))


@contextlib.contextmanager
def attempt(
    epoch: int,
    recovery: str = "0123abcd",
    target: str = "db",
    journal: str = "j1",
    parts: Mapping[str, int] | None = None,
) -> Iterator[RecordingGate]:
    """Have blocks take what is done within as the work of this attempt."""
    gate = RecordingGate(BareWalk(Fence(recovery, epoch, target, parts or {}, journal)))
    with gated(gate):
        yield gate

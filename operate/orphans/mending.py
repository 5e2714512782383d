"""Which state a run should be shown in, by what the journal says of its attempt.

The journal is right. The server may have been away when an attempt ended, and nobody tells it of a
worker that was killed with its process: such a run stays `Running` for ever, or is `Crashed` while
its recovery is recovered.
"""

from dataclasses import dataclass

from prefect.client.schemas.objects import State, StateType
from prefect.states import Cancelled, Completed, Crashed, Failed

from operate.orphans.attempts import KnownAttempt, Orphan, has_ended
from operate.orphans.pace import Pace
from operate.orphans.runs import SeenRun
from operate.orphans.wording import crash_message, prefix_of
from recovery import errors
from recovery.errors import RecoveryError
from recovery.journal.history import LOST, RecoveryState
from recovery.words import LINE_CHARS_MAX, cut

GOES_ON = {StateType.RUNNING, StateType.CANCELLING}
WENT_WELL = {RecoveryState.RECOVERED, RecoveryState.UNDONE}


@dataclass(frozen=True, slots=True)
class Shown:
    """A run beside what the journal says of its latest attempt.

    Attributes:
        run: as the server shows it.
        attempt: its latest attempt.
        orphan: that attempt, where it is an orphan.
        seconds: for how long the run has been seen in this very state, and its attempt ended where
            it has.
    """

    run: SeenRun
    attempt: KnownAttempt
    orphan: Orphan | None
    seconds: float

    @property
    def is_certain(self) -> bool:
        """Whether nobody has started the run again since the attempt began."""
        if self.run.state_type is StateType.CANCELLING:
            return True  # only what runs is cancelled
        return bool(self.attempt.run_state_id) and self.run.state_id == self.attempt.run_state_id

    @property
    def is_about_to_wait(self) -> bool:
        """Whether its process suspends the run next: whoever forces a state on it prevents that."""
        return has_ended(self.attempt) and self.attempt.asks


def due_state(shown: Shown, pace: Pace) -> State[None] | None:
    """Return the state that a run should be shown in instead; `None` where it is right, or may be.

    A run that was started again since its attempt began may be about to begin another one.

    Args:
        shown: the run and its attempt.
        pace: how long a process may take to tell the server of its end, or to begin.
    """
    run, attempt = shown.run, shown.attempt
    is_soon = shown.is_certain and not shown.is_about_to_wait
    is_late = shown.seconds >= (pace.settle if is_soon else pace.begin)
    if has_ended(attempt):
        is_wrong = run.state_type in GOES_ON and is_late
        is_wrong = is_wrong or run.state_type is StateType.CRASHED
        return state_of(attempt) if is_wrong else None
    if attempt.called_off:
        is_wrong = run.state_type is StateType.CRASHED or (run.state_type in GOES_ON and is_late)
        return _called_off(attempt) if is_wrong else None
    is_gone = shown.orphan is not None or attempt.ended_as == LOST
    if not is_gone:
        return None
    if run.state_type is StateType.CRASHED:
        is_told = run.message.startswith(prefix_of(attempt.recovery_id))
        return None if is_told or shown.orphan is None else _gone(shown)
    is_gone = run.state_type is StateType.RUNNING and shown.is_certain
    is_gone = is_gone or (run.state_type in GOES_ON and is_late)  # a worker may end what it cancels
    return _gone(shown) if is_gone else None


def _called_off(attempt: KnownAttempt) -> State[None]:
    why = f"it was called off before it changed anything: {attempt.called_off}"
    return Cancelled(message=f"{prefix_of(attempt.recovery_id)}{why}")


def _gone(shown: Shown) -> State[None]:
    if shown.orphan is not None:
        message = crash_message(shown.orphan)
    else:
        message = (
            f"{prefix_of(shown.attempt.recovery_id)}the worker of attempt {shown.attempt.n} is "
            f"gone, and a later attempt went on: `recover status {shown.attempt.recovery_id}`"
        )
    if shown.run.state_type is StateType.CANCELLING:
        return Cancelled(message=message)
    return Crashed(message=message)


def state_of(attempt: KnownAttempt) -> State[None]:
    """Return the state that the run of an attempt that has ended is to be shown in."""
    text = cut(attempt.error, LINE_CHARS_MAX) or attempt.ended_as
    message = f"{prefix_of(attempt.recovery_id)}{text} (told by the orphan watch)"
    if attempt.ended_as in WENT_WELL:
        return Completed(name=attempt.ended_as.capitalize(), message=message)
    cause = getattr(errors, attempt.error_type, None)
    if isinstance(cause, type) and issubclass(cause, RecoveryError):
        return Failed(name=cause.state, message=message)
    return Failed(name=attempt.ended_as.replace("-", " ").capitalize(), message=message)

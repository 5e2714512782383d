"""Runs that are not ended and on which nobody is at work, as far as can be told from outside."""

from dataclasses import dataclass

from prefect.client.schemas.objects import State, StateType
from prefect.states import Cancelled, Crashed

from operate.orphans.attempts import KnownAttempt
from operate.orphans.pace import Pace
from operate.orphans.runs import SeenRun


@dataclass(frozen=True, slots=True)
class Waiting:
    """A run that waits for something that may not come.

    Attributes:
        kind: for what, in one word.
        why: what was seen, and what to do.
        state: the state that it is to be shown in from now on, if another.
    """

    kind: str
    why: str
    state: State[None] | None = None


def waiting_since(
    run: SeenRun, attempt: KnownAttempt | None, seconds: float, pace: Pace
) -> Waiting | None:
    """Say what a run waits for in vain; `None` where there is nothing to say.

    Args:
        run: one that has not ended.
        attempt: its latest attempt, if it has had any.
        seconds: for how long it has been seen in this state.
        pace: how long is how long.
    """
    if seconds < pace.taken:
        return None
    if run.state_type is StateType.SCHEDULED:
        why = f"it has waited {seconds:.0f} s for a worker: see that one of its work pool runs"
        return Waiting("worker", why)
    if run.state_type is StateType.CANCELLING:
        return _not_ended(attempt, seconds, pace)
    if seconds < pace.begin or run.is_plan:
        return None
    return _not_begun(run, attempt, seconds)


def _not_ended(attempt: KnownAttempt | None, seconds: float, pace: Pace) -> Waiting | None:
    if attempt is None and seconds >= pace.begin:
        why = f"it has been cancelling for {seconds:.0f} s, and the journal has no attempt of it"
        return Waiting("end", why, Cancelled(message=why))
    if attempt is None or attempt.ended_as:
        return None
    why = (
        f"it has been cancelling for {seconds:.0f} s, and attempt {attempt.n} of recovery "
        f"{attempt.recovery_id} is still at work: its worker is gone. End the process by hand"
    )
    return Waiting("end", why)


def _not_begun(run: SeenRun, attempt: KnownAttempt | None, seconds: float) -> Waiting | None:
    if run.state_type is StateType.PENDING:
        why = (
            f"a worker took it {seconds:.0f} s ago, and it never began: the worker is gone, or "
            "could not start it. Nothing was done; *Retry* starts it"
        )
        return Waiting("begin", why, Crashed(message=why))
    if attempt is None or attempt.run_state_id not in {"", run.state_id}:
        why = (
            f"it has run for {seconds:.0f} s and the journal has no attempt of it: its process is "
            "gone, or its worker writes another journal (RECOVER_JOURNAL). If it is gone, "
            "*Cancel* ends it"
        )
        return Waiting("attempt", why)
    return None

"""Where steps are carried out: as Prefect tasks that the UI shows, or plainly in this process.

A step is a Prefect task without cache, persisted result or transaction: what Prefect shows of it is
a projection of the journal, never our memory. The plain stage serves where no Prefect server is
configured: a recovery tool must not need the thing that may be broken.
"""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import accumulate
from typing import Any

from prefect import State, Task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import TaskRun
from prefect.exceptions import Abort
from prefect.states import Completed, Failed

from recovery.errors import BadInput, Fenced, RecoveryError, Refused
from recovery.secrecy.redaction import redact
from recovery.secrecy.secret import scrub
from recovery.steps import Step
from recovery.walk import StepCall, Turn, logger, step_logger
from recovery.words import LINE_CHARS_MAX, cut

RETRY_DELAYS_SECONDS = (1.0, 5.0, 15.0, 25.0, 30.0)
PATIENCE_SECONDS = 80.0


def retry_delays_seconds() -> tuple[float, ...]:
    """How long a step waits before each time it asks again where nobody answered.

    Together they last no longer than RECOVER_PATIENCE_SECONDS: 80 by default, so that an API or a
    host that is away for a minute is waited for.

    Raises:
        BadInput: that is no number of seconds.
    """
    text = os.environ.get("RECOVER_PATIENCE_SECONDS", str(PATIENCE_SECONDS))
    try:
        patience = float(text)
    except ValueError:
        patience = -1.0
    if not 0 <= patience < float("inf"):
        raise BadInput(
            "RECOVER_PATIENCE_SECONDS",
            f"{text!r} is no number of seconds",
            "Give how long a step is to wait for who does not answer: 80 by default, 0 for not",
        )
    delays = RETRY_DELAYS_SECONDS
    return tuple(
        d for d, so_far in zip(delays, accumulate(delays), strict=True) if so_far <= patience
    )


class PrefectStage:
    """Each step is a Prefect task run named by the step's key, with its own log and retries."""

    def put_on(self, call: StepCall) -> Any:
        """See Stage."""
        try:
            state: Any = _task_of(call.step, retry_delays_seconds())(call, return_state=True)
        except Abort:
            raise call.fenced or Fenced(call.target, 0, "Prefect ended the step") from None
        if call.turn is not None:
            raise call.turn
        if call.outcome is not None:
            return call.outcome.result
        if call.error is not None:
            raise call.error
        return state.result()  # Prefect itself kept it from running: its own error says why


@dataclass(frozen=True)
class PlainStage:
    """Steps as plain calls, retried in the same way."""

    retry_delays_seconds: Sequence[float] = field(default_factory=retry_delays_seconds)

    def put_on(self, call: StepCall) -> Any:
        """See Stage."""
        for delay_seconds in (*self.retry_delays_seconds, None):
            try:
                outcome = call.carry_out()
            except Exception as error:  # noqa: BLE001 (told by the caller, whatever it is)
                call.error = scrubbed(error)
                if delay_seconds is None or not is_unanswered(call.error):
                    raise call.error from None
                seen = shortly_told(call.error)
                logger.warning("%s: %s; asked again in %.0f s", call.key, seen, delay_seconds)
                time.sleep(delay_seconds)
            else:
                logger.info("%s: %s. %s", call.key, outcome.shown_as, outcome.message)
                return outcome.result
        raise AssertionError  # the last try returned or raised


def is_unanswered(error: object) -> bool:
    """Whether asking again may help: nobody answered. A tool that said no is not asked again."""
    return isinstance(error, RecoveryError) and error.is_retried


def shortly_told(error: Exception) -> str:
    """Which target gave no answer and what was seen: the whole error is told if it stays so."""
    target, seen = getattr(error, "target", ""), getattr(error, "seen", "")
    return cut(f"{target}: {seen}" if seen else str(error), LINE_CHARS_MAX)


def scrubbed(error: Exception) -> Exception:
    """Take secrets out of an error before anything shows or stores it."""
    clean = scrub(error)
    return clean if isinstance(clean, Exception) else error


@lru_cache(maxsize=1024)
def _task_of(step: Step[Any, Any], delays_seconds: tuple[float, ...]) -> Task[Any, Any]:
    """Make the Prefect task of a step.

    It has no tags: for each, Prefect asks the server for a slot of the tag's concurrency limit,
    which costs ten milliseconds and makes a step fail while the server is away.
    """
    return Task(
        _carry_out,
        name=step.name,
        description=step.__doc__,
        task_run_name="{call}",
        cache_policy=NO_CACHE,
        persist_result=False,
        retries=len(delays_seconds),
        retry_delay_seconds=list(delays_seconds),
        retry_condition_fn=_may_retry,
        log_prints=False,
    )


def _carry_out(call: StepCall) -> State[Any]:
    try:
        outcome = call.carry_out()
    except Fenced as fenced:
        call.fenced = fenced
        raise Abort(str(fenced)) from None
    except Turn as turn:
        call.turn = turn
        return Completed(name="Set aside", message=str(turn))
    except Exception as error:  # noqa: BLE001 (kept in the call and raised from it)
        call.error = scrubbed(error)
        if is_unanswered(call.error):
            raise call.error from None  # so that Prefect asks again
        step_logger().error("%s", call.error)
        name = call.error.state if isinstance(call.error, RecoveryError) else "Failed"
        if isinstance(call.error, Refused):
            name = "Refused"
        return Failed(name=name, message=redact(str(call.error)))
    # Prefect itself logs the state with its message; a line of ours would cost as much as the step.
    return Completed(name=outcome.shown_as, message=redact(outcome.message))


def _may_retry(task: Task[Any, Any], run: TaskRun, state: State[Any]) -> bool:
    del task, run
    return is_unanswered(state.result(raise_on_failure=False))

"""Starting, resuming, forking and undoing a recovery: everything around the walk."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from recovery.approval import settle_approval
from recovery.attempt import Attempt, StaleSteps
from recovery.errors import BadInput, Fenced, NeedsPerson, RecoveryError
from recovery.events import Kind
from recovery.forking import fork
from recovery.history import History, RecoveryState, read_history
from recovery.inputs import (
    known_recovery,
    refuse_changed,
    refuse_secrets,
    refuse_unfit,
    take_recorded,
)
from recovery.journal import Holder, Journal, LeaseLost, lease_seconds, open_journal
from recovery.lease import LeaseKeeper, take_lease, this_worker
from recovery.run import Ended, Options, Recovery, Run, find_recovery, recovery_id_of, release
from recovery.stage import scrubbed
from recovery.values import to_plain
from recovery.walk import Stage, step_logger
from recovery.way_back import EndOfRecord, WayBack

STARTS_OVER_MAX = 20


def launch(
    recovery: Recovery,
    parameters: Mapping[str, Any],
    options: Options,
    stage: Stage,
    flow_run_id: str,
) -> Ended:
    """Run a recovery with the journal that the environment names.

    Errors that end it on purpose are told in what is returned.

    Raises:
        Fenced: the lease was lost; nothing may be said about the newer attempt.
    """
    journal: Journal | None = None
    try:
        journal = open_journal()
        return _launch(Run(recovery, dict(parameters), options, stage, flow_run_id, journal))
    except RecoveryError as error:
        return Ended(options.resume, state_after(error), error=scrubbed(error))
    finally:
        if journal is not None:
            journal.close()


def _launch(run: Run) -> Ended:
    refuse_secrets(run)
    if run.options.plan_only:
        plan, _ = run.make_plan(run.stage)
        return Ended("", None, plan=plan, message=f"plan {plan.hash}: {len(plan.steps)} steps")
    if run.options.resume and run.options.fork:
        return _under_lease(run, fork(run))
    if run.options.resume:
        recovery_id = find_recovery(run.journal, run.options.resume)
        take_recorded(run, known_recovery(run, recovery_id))
        return _under_lease(run, recovery_id)
    if run.options.undo_by:
        raise BadInput("undo_by", "it does not say which recovery", "Name one with resume=ID")
    recovery_id = recovery_id_of(run.flow_run_id)
    history = read_history(run.journal.events(recovery_id))
    if history is not None:  # this flow run is being retried
        refuse_unfit(run, history)
        refuse_changed(history, run.plain)
    return _under_lease(run, recovery_id)


def _under_lease(run: Run, recovery_id: str) -> Ended:
    lease = take_lease(
        run.journal,
        run.target,
        recovery_id,
        lease_seconds(),
        take_over=bool(run.options.take_over_by),
        waiting=_tell_waiting,
    )
    keeper = LeaseKeeper(run.journal, lease)
    try:
        history = _history_of(run, recovery_id)
        if _is_recovered(run, history):
            return Ended(recovery_id, RecoveryState.RECOVERED, message="it was recovered before")
        return _attempt(run, keeper, history)
    except LeaseLost as lost:
        raise Fenced(lease.target, lease.epoch, str(lost)) from None
    finally:
        keeper.release()


def _history_of(run: Run, recovery_id: str) -> History:
    history = read_history(run.journal.events(recovery_id))
    if history is None:
        run.open(recovery_id)
        history = read_history(run.journal.events(recovery_id))
    if history is None:
        raise AssertionError  # it was just opened
    return history


def _is_recovered(run: Run, history: History) -> bool:
    return (
        not run.options.undo_by
        and bool(history.attempts)
        and history.attempts[-1].ended_as == RecoveryState.RECOVERED
    )


def _attempt(run: Run, keeper: LeaseKeeper, history: History) -> Ended:
    kind = WayBack if run.options.undo_by else Attempt
    attempt = kind(
        keeper.lease.target,
        run.stage,
        journal=run.journal,
        keeper=keeper,
        history=history,
        n=(history.attempts[-1].n if history.attempts else 0) + 1,
        danger=run.recovery.danger,
    )
    _begin(run, attempt)
    ended = Ended(history.recovery_id, RecoveryState.FAILED)
    try:
        if isinstance(attempt, WayBack):
            ended.result = _go_back(run, attempt)
            ended.state = RecoveryState.UNDONE
        else:
            ended.result = _go_forward(run, attempt)
            ended.state = RecoveryState.RECOVERED
    except (
        Exception
    ) as error:  # the one place where an attempt ends; programming errors fail it too
        ended.error = scrubbed(error)
        ended.state = state_after(ended.error)
    finally:
        attempt.close()
    body = {"as": str(ended.state), "result": to_plain(ended.result)}
    if ended.error is not None:
        body |= {"error": str(ended.error), "error_type": type(ended.error).__name__}
    attempt.write(Kind.ATTEMPT_ENDED, body)
    return ended


def _begin(run: Run, attempt: Attempt) -> None:
    body = {
        "flow_run_id": run.flow_run_id,
        "worker": this_worker(),
        "release": release(),
        "goes": "back" if run.options.undo_by else "forward",
        "ordered_by": run.options.undo_by,
    }
    attempt.write(Kind.ATTEMPT_STARTED, body, is_intent=True)
    if run.options.take_over_by:
        attempt.write(Kind.TAKEN_OVER, {"by": run.options.take_over_by})
    attempt.start_over()


def _go_forward(run: Run, attempt: Attempt) -> Any:
    settle_approval(run, attempt)
    for _ in range(STARTS_OVER_MAX):
        try:
            return _walk_settled(run, attempt)
        except StaleSteps:
            attempt.start_over()
    raise NeedsPerson(
        attempt.target,
        f"done steps keep becoming undone ({STARTS_OVER_MAX} times in this attempt)",
        "Somebody or something works against this recovery: find out who before resuming",
    )


def _walk_settled(run: Run, attempt: Attempt) -> Any:
    try:
        result = run.walk(attempt)
    except Exception:
        attempt.settle_passed_over()  # a step that is no longer so explains more than the error
        raise
    attempt.settle_passed_over()
    return result


def _go_back(run: Run, attempt: WayBack) -> list[str]:
    with suppress(EndOfRecord):
        run.walk(attempt)
    return attempt.go_back()


def state_after(error: Exception | None) -> RecoveryState:
    """Where a recovery stands after an attempt that ended with this error."""
    state = getattr(error, "state", "Failed")
    return {
        "Refused": RecoveryState.REFUSED,
        "Needs person": RecoveryState.NEEDS_PERSON,
        "Half done": RecoveryState.NEEDS_PERSON,
    }.get(state, RecoveryState.FAILED)


def _tell_waiting(holder: Holder) -> None:
    step_logger().warning(
        "waiting up to %.0f s for the lease of %s (%s) to run out",
        holder.seconds_left,
        holder.target,
        holder.owner,
    )

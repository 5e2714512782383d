"""Starting, resuming, forking and undoing a recovery: everything around the walk."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from recovery.approval.question import Form
from recovery.approval.settling import settle_approval
from recovery.approval.way_back_consent import settle_way_back
from recovery.attempt import Attempt
from recovery.errors import Fenced, NeedsPerson, RecoveryError, Refused, TargetTaken
from recovery.forking import complete_fork, fork
from recovery.inputs import (
    intact_history,
    known_recovery,
    refuse_nameless,
    refuse_odd_options,
    refuse_retry_with_others,
    refuse_secrets,
    refuse_unfit,
    take_recorded,
)
from recovery.journal.events import Kind
from recovery.journal.history import History, RecoveryState, read_history
from recovery.journal.lease import LeaseKeeper, take_lease, this_worker
from recovery.journal.opening import find_recovery, open_journal
from recovery.journal.prefect_worker import this_prefect_worker
from recovery.journal.store import (
    Holder,
    Journal,
    JournalUnavailable,
    Lease,
    LeaseLost,
    lease_seconds,
)
from recovery.notices.ending import tell_end
from recovery.overtaken import refuse_overtaken
from recovery.plan import Plan
from recovery.run import Ended, Options, Recovery, Run, recovery_id_of, release
from recovery.stage import scrubbed
from recovery.taking_over import (
    is_take_over_ordered,
    may_lose,
    note_take_over,
    refuse_vain_take_over,
)
from recovery.values import to_plain
from recovery.walk import Stage, StaleSteps, step_logger
from recovery.way_back import WayBack
from recovery.way_back_planning import plan_way_back

STARTS_OVER_MAX = 20


def launch(  # noqa: PLR0913, PLR0917 (what makes a run, how it can ask, and where it is shown)
    recovery: Recovery,
    parameters: Mapping[str, Any],
    options: Options,
    stage: Stage,
    flow_run_id: str,
    form: Form | None = None,
    *,
    run_state_id: str = "",
) -> Ended:
    """Run a recovery with the journal that the environment names, and tell whom it concerns.

    Errors that end it on purpose are told in what is returned, as is a question to a person: with
    a form, the caller asks it and ends the process. `run_state_id` is that of the state in which
    Prefect shows the run: one that is started again has another.

    Raises:
        Fenced: the lease was lost; nothing may be said about the newer attempt.
    """
    journal: Journal | None = None
    run: Run | None = None
    try:
        refuse_odd_options(options)
        journal = open_journal()
        run = Run(recovery, dict(parameters), options, stage, flow_run_id, journal, form=form)
        run.run_state_id = run_state_id
        if form is not None:
            refuse_nameless(options)
        ended = _launch(run)
        ended.question = run.question
    except RecoveryError as error:
        recovery_id = run.recovery_id if run else ""
        if isinstance(error, TargetTaken) and options.if_taken and not recovery_id:
            ended = Ended("", None, message=f"skipped: {error.reason}")
        else:
            ended = Ended(recovery_id or options.resume, state_after(error), error=scrubbed(error))
    try:
        if run is not None:
            tell_end(run, ended)
        return ended
    finally:
        if journal is not None:
            journal.close()


def _launch(run: Run) -> Ended:
    refuse_secrets(run)
    options = run.options
    if options.resume and not options.fork:
        run.recovery_id = find_recovery(run.journal, options.resume)
        take_recorded(run, known_recovery(run, run.recovery_id))
    elif not options.plan_only:
        _know_retry(run)
    if options.plan_only:
        return _plan(run)
    return _under_lease(run, run.recovery_id or recovery_id_of(run.flow_run_id))


def _know_retry(run: Run) -> None:
    """See whether this flow run began its recovery before and is being retried."""
    recovery_id = recovery_id_of(run.flow_run_id)
    history = intact_history(run, recovery_id)
    if history is None:
        return
    if history.flow_run_id != run.flow_run_id:
        raise Refused(
            run.target,
            f"the id of this run ends like that of recovery {recovery_id}, which is another one",
            "Start it once more: the next run has another id",
        )
    run.recovery_id = recovery_id
    refuse_unfit(run, history)
    refuse_retry_with_others(run, history)
    run.plain = dict(history.parameters)  # as its plan was made of, without what is added since


def _plan(run: Run) -> Ended:
    known = read_history(run.journal.events(run.recovery_id)) if run.recovery_id else None
    if known is not None and run.options.undo_by:
        plan: Plan = plan_way_back(run, known)
    else:
        plan, _ = run.make_plan(
            run.stage,
            known.identities if known else (),
            known.decisions if known else {},
        )
    message = f"plan {plan.hash}: {len(plan.steps)} steps"
    return Ended(run.recovery_id, None, plan=plan, message=message)


def _under_lease(run: Run, recovery_id: str) -> Ended:
    try:
        keeper = _take_leases(run, recovery_id)
    except TargetTaken as taken:
        if taken.is_own and _is_at_work(run, recovery_id):
            why = "another process of this flow run is at work on it, and tells how it ends"
            raise Fenced(taken.target, 0, why) from taken
        raise
    lease = keeper.lease
    try:
        history = _history_of(run, lease, recovery_id)
        is_recovered = _is_recovered(run, history)
        if is_take_over_ordered(run) and (run.taken_from or not is_recovered):
            note_take_over(run, lease)
        if is_recovered:
            message = "it was recovered before"
            ended = Ended(recovery_id, RecoveryState.RECOVERED, message=message)
        else:
            refuse_overtaken(run, lease, history)
            ended = _attempt(run, keeper, history)
    except LeaseLost as lost:
        keeper.let_run_out()
        raise Fenced(lease.target, lease.epoch, str(lost)) from None
    except Exception:
        keeper.release()
        raise
    except BaseException:  # fenced or interrupted: what was sent may still be taking effect
        keeper.let_run_out()
        raise
    keeper.release()
    return ended


def _is_at_work(run: Run, recovery_id: str) -> bool:
    """Whether the latest attempt is of this very flow run, which Prefect has started twice.

    A worker that reports a crash a second time takes the retry for crashed that came in between;
    retried once more, two processes have one run.
    """
    history = read_history(run.journal.events(recovery_id))
    if history is None or not history.attempts:
        return False
    return history.attempts[-1].flow_run_id == run.flow_run_id


def _take_leases(run: Run, recovery_id: str) -> LeaseKeeper:
    """Take the lease of the target and of each of its parts, or none of them.

    A take-over is from who holds the target, and from this recovery: not of a part that another
    recovery is at work on.
    """
    taken: list[Lease] = []
    is_ordered = is_take_over_ordered(run)
    if is_ordered:
        refuse_vain_take_over(run, recovery_id)
    losers = may_lose(run, recovery_id)
    try:
        for target in (run.target, *run.parts):
            is_part = target != run.target
            found = run.journal.holder(target)
            is_to_lose = found is not None and found.recovery_id in losers
            lease = take_lease(
                run.journal,
                target,
                recovery_id,
                lease_seconds(),
                take_over=is_ordered and (is_to_lose or not is_part),
                waiting=_tell_waiting,
                is_part=is_part,
            )
            taken.append(lease)
            run.taken_from += [found] if is_ordered and found is not None else []
    except BaseException:
        for lease in taken:
            with suppress(JournalUnavailable):  # it then runs out by itself
                run.journal.release_lease(lease)
        raise
    return LeaseKeeper(run.journal, *taken)


def _history_of(run: Run, lease: Lease, recovery_id: str) -> History:
    if not run.journal.events(recovery_id):
        if run.options.fork:
            fork(run, lease, recovery_id)
        else:
            run.open(recovery_id, lease)
    run.recovery_id = recovery_id
    history = _opened(run, recovery_id)
    if history.forked_from and not history.attempts:
        complete_fork(run, lease, history)
        history = _opened(run, recovery_id)
    return history


def _opened(run: Run, recovery_id: str) -> History:
    history = read_history(run.journal.events(recovery_id))
    if history is None:
        raise AssertionError  # its first event was written
    return history


def _is_recovered(run: Run, history: History) -> bool:
    return (
        not run.options.undo_by
        and bool(history.attempts)
        and history.attempts[-1].ended_as == RecoveryState.RECOVERED
    )


def _attempt(run: Run, keeper: LeaseKeeper, history: History) -> Ended:
    attempt = _begin(run, keeper, history)
    ended = Ended(history.recovery_id, RecoveryState.FAILED)
    body: dict[str, Any] = {"result": None}
    try:
        if isinstance(attempt, WayBack):
            ended.result = _go_back(run, attempt)
            ended.state = RecoveryState.UNDONE
        else:
            ended.result = _go_forward(run, attempt)
            ended.state = RecoveryState.RECOVERED
        body["result"] = to_plain(ended.result)
    except Exception as error:  # noqa: BLE001 (here an attempt ends; mistakes in code fail it too)
        ended.error = scrubbed(error)
        ended.state = state_after(ended.error)
        ended.result = None
    finally:
        if isinstance(attempt, Attempt):
            attempt.close()
    body["as"] = str(ended.state)
    if ended.error is not None:
        body |= {"error": str(ended.error), "error_type": type(ended.error).__name__}
    attempt.write(Kind.ATTEMPT_ENDED, body)
    return ended


def _begin(run: Run, keeper: LeaseKeeper, history: History) -> Attempt | WayBack:
    kind = WayBack if run.options.undo_by else Attempt
    attempt = kind(
        keeper.lease.target,
        run.stage,
        journal=run.journal,
        keeper=keeper,
        history=history,
        n=(history.attempts[-1].n if history.attempts else 0) + 1,
    )
    body = {
        "flow_run_id": run.flow_run_id,
        "run_state_id": run.run_state_id,
        "worker": this_worker(),
        "prefect_worker": this_prefect_worker(),
        "release": release(),
        "goes": "back" if run.options.undo_by else "forward",
        "ordered_by": run.options.undo_by,
        "because": run.options.break_glass or run.options.undo_reason,
    }
    attempt.write(Kind.ATTEMPT_STARTED, body, is_intent=True)
    if isinstance(attempt, Attempt):
        attempt.danger = run.recovery.danger
    attempt.start_over()
    return attempt


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
    except JournalUnavailable:
        raise
    except Exception:
        attempt.settle_passed_over()  # a step that is no longer so explains more than the error
        raise
    attempt.finish()
    return result


def _go_back(run: Run, attempt: WayBack) -> list[str]:
    attempt.collect(run.walk)
    settle_way_back(run, attempt)
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

"""Telling people how an attempt ended: recovered, asked for approval, failed, needs a person."""

from recovery.errors import RecoveryError
from recovery.journal.history import RecoveryState
from recovery.notices.notice import Notice, Occasion
from recovery.notices.sending import notify, wait_until_sent
from recovery.run import Ended, Run
from recovery.secrecy.redaction import redact
from recovery.words import told

OCCASIONS = {
    RecoveryState.RECOVERED: Occasion.RECOVERED,
    RecoveryState.UNDONE: Occasion.UNDONE,
    RecoveryState.REFUSED: Occasion.REFUSED,
    RecoveryState.NEEDS_PERSON: Occasion.NEEDS_PERSON,
    RecoveryState.FAILED: Occasion.FAILED,
}


def tell_end(run: Run, ended: Ended) -> None:
    """Tell whom it concerns how a run ended, and give all that is on its way until a deadline.

    The lease is free by now: nobody waits for this but the process that ends. A plan is nobody's
    concern but that of who made it, and so is a mistake in what was typed at a terminal.
    """
    occasion = OCCASIONS.get(ended.state) if ended.state is not None else None
    is_theirs = ended.recovery_id or run.form is not None
    if occasion is not None and is_theirs and not run.options.plan_only:
        notify(_notice(run, ended, occasion), run.journal)
    wait_until_sent()


def _notice(run: Run, ended: Ended, occasion: Occasion) -> Notice:
    recovery_id = ended.recovery_id
    if run.question is not None:
        occasion = Occasion.APPROVAL_ASKED
        following = run.question.command
    elif ended.error is None:
        following = f"recover report {recovery_id}"
    elif occasion is Occasion.FAILED:
        following = f"{run.order(recovery_id)}, once the cause is mended"
    else:
        following = f"recover status {recovery_id}"
    return Notice(
        occasion,
        redact(str(ended.error)) if ended.error is not None else _came_to(ended),
        run.recovery.name,
        _target_of(run),
        recovery_id,
        following if recovery_id else "recover list",
        run.flow_run_id if run.form is not None else "",
    )


def _came_to(ended: Ended) -> str:
    if ended.message:
        return ended.message
    result = told(ended.result)
    return f"{ended.state}: {result}" if result else str(ended.state)


def _target_of(run: Run) -> str:
    try:
        return run.target
    except (RecoveryError, KeyError, TypeError):  # what was wrong with the run may be just that
        return ""

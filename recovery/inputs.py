"""The parameters of a run held against those a recovery was begun with."""

import re
from collections.abc import Mapping
from typing import Any

from recovery.errors import BadInput, NeedsPerson, Refused
from recovery.journal.events import flaws
from recovery.journal.history import History, RecoveryState, read_history
from recovery.overtaken import as_ordered, later_acts
from recovery.run import Options, Run
from recovery.secrecy.redaction import contains_secret
from recovery.values import from_plain, shortly, to_plain
from recovery.verdict import Danger

PASSWORD_IN_URL = re.compile(
    r"://[^/@\s:\[]*:(?!\d{1,5}[/?#,;'\"\])])[^@\s?]+@|[?&](password|passwd|pwd|sslpassword)=",
    re.IGNORECASE,
)


def refuse_odd_options(options: Options) -> None:
    """Refuse options that make no sense together, rather than to leave one out of account.

    Raises:
        BadInput: some do not.
    """
    forms = (
        ("fork", options.fork and not options.resume, "it does not say of which recovery"),
        ("from_step", options.from_step and not options.fork, "only a fork begins at a step"),
        ("undo_by", options.undo_by and not options.resume, "it does not say which recovery"),
        ("undo_reason", options.undo_reason and not options.undo_by, "only going back wants it"),
        ("undo_by", options.undo_by and options.fork, "a fork has done nothing to undo yet"),
        ("if_taken", options.if_taken not in {"", "skip"}, "it is neither empty nor `skip`"),
        ("if_taken", options.if_taken and options.resume, "only a new recovery can be skipped"),
        ("break_glass", options.break_glass and options.approve, "it is for when there is no plan"),
    )
    for name, is_odd, why in forms:
        if is_odd:
            raise BadInput(name, why, "Leave it out, or name the recovery with resume=ID")


def refuse_nameless(options: Options) -> None:
    """Refuse a consent in a form that nobody gives: the account of a worker is no person.

    Raises:
        BadInput: `approve` or `break_glass` is filled in, and `approved_by` is not.
    """
    given = "approve" if options.approve else "break_glass" if options.break_glass else ""
    who = options.approved_by or options.undo_by
    if given and not who.strip():
        raise BadInput(
            "approved_by",
            f"`{given}` is given by name, and none is given",
            "Fill in approved_by; nothing was touched",
        )


def refuse_secrets(run: Run) -> None:
    """Refuse parameters that hold a secret: they are stored, so that anyone can resume.

    Raises:
        BadInput: one does.
    """
    refuse_passwords(run.plain)
    for name, value in run.plain.items():
        if contains_secret(str(value)):
            raise BadInput(
                name,
                "it contains a secret value, which would have to be stored to resume",
                "Pass secrets by reference: a file or a block",
            )


def known_recovery(run: Run, recovery_id: str) -> History:
    """Read a recovery that this run means to go on with.

    Raises:
        BadInput: there is none, or it is of another flow.
        Refused: it was abandoned or undone.
    """
    history = intact_history(run, recovery_id)
    if history is None:
        raise BadInput("resume", f"no recovery {recovery_id}", "See `recover status`")
    refuse_unfit(run, history)
    return history


def intact_history(run: Run, recovery_id: str) -> History | None:
    """Read a recovery, where there is one, that nobody but its own attempts has written.

    Raises:
        NeedsPerson: its journal was changed.
    """
    before, events = run.journal.head(recovery_id), run.journal.events(recovery_id)
    if not events:
        return None
    is_still = run.journal.head(recovery_id) == before  # an attempt that lives writes meanwhile
    if broken := flaws(events, *(before if is_still else (events[-1].seq, events[-1].hash))):
        raise NeedsPerson(
            f"recovery {recovery_id}",
            f"its journal is not what was written: {broken[0]}",
            "Nothing is done on the strength of it: find out who changed it "
            "(`recover journal verify`), look at the target, and start anew",
        )
    return read_history(events)


def refuse_unfit(run: Run, history: History) -> None:
    """Refuse to go on with a recovery that is not this flow's, or that has come to an end."""
    if history.flow != run.recovery.name:
        raise BadInput(
            "resume",
            f"recovery {history.recovery_id} is a {history.flow}, not a {run.recovery.name}",
            f"Resume it with `recover resume {history.recovery_id}`",
        )
    if run.options.undo_by:
        refuse_undo_of_what_is_used(run, history)
        return
    if history.goes_back and not history.is_undone:
        raise Refused(
            history.target,
            f"recovery {history.recovery_id} is on its way back, and never goes both ways",
            f"Finish that with `recover undo {history.recovery_id} --by NAME`, then begin anew",
        )
    if history.abandoned_by:
        raise Refused(
            history.target,
            f"recovery {history.recovery_id} was abandoned by {history.abandoned_by}",
            "Start a new one, or undo it",
        )
    if history.is_undone:
        raise Refused(
            history.target, f"recovery {history.recovery_id} was undone", "Start a new one"
        )


def refuse_passwords(plain: Mapping[str, Any]) -> None:
    """Refuse a URL with a password in it, before anything stores it.

    Raises:
        BadInput: there is one; its value is not shown.
    """
    for name, value in plain.items():
        if PASSWORD_IN_URL.search(str(value)):
            raise BadInput(
                name,
                "there is a password in the URL, and parameters are stored and shown",
                "Name a file or an environment variable of the worker instead (password_file=...)",
            )


def refuse_undo_of_what_is_used(run: Run, history: History) -> None:
    """Ask for a reason before a repaired target is put back: people have used it since.

    A form asks for it itself, and a plan tells that it will be asked for.

    Raises:
        NeedsPerson: it was recovered, and no reason is given.
    """
    price = "" if history.goes_back else price_of_undo(history)  # who began it gave the reason
    reason = run.options.undo_reason or run.options.break_glass
    if price and not (reason or run.options.plan_only or run.form is not None):
        since = "".join(f"; {later}" for later in later_acts(run, history))
        raise NeedsPerson(
            history.target,
            f"{price}{since}",
            f"If that is meant: `recover undo {history.recovery_id} --by NAME{as_ordered(run)} "
            "--reason TEXT`",
        )


def price_of_undo(history: History) -> str:
    """What it costs to go back on a recovery that was completed; empty where it was not."""
    last = history.last_forward
    if last is None or last.ended_as != RecoveryState.RECOVERED:
        return ""
    price = (
        "destroys what was written to it since"
        if history.danger == Danger.DESTRUCTIVE
        else "takes from its users what works now"
    )
    return f"it was recovered at {last.ended_at}, and going back {price}"


def take_recorded(run: Run, history: History) -> None:
    """Go on with the recorded parameters, and the defaults of those that a later release added.

    A value that was given and is neither the recorded one nor the form's default is a change.

    Raises:
        BadInput: something was changed, or cannot be known; it is named.
    """
    given = {name: value for name, value in run.plain.items() if not _is_default(run, name)}
    refuse_changed(history, given)
    run.parameters = {name: _recorded(run, history, name) for name in run.recovery.parameters}
    run.plain = dict(history.parameters)


def refuse_retry_with_others(run: Run, history: History) -> None:
    """Refuse a retried run whose parameters are not those that it began with.

    Raises:
        BadInput: they are not; what differs is named.
    """
    given = {
        name: value
        for name, value in run.plain.items()
        if name in history.parameters or not _is_default(run, name)  # a later release added it
    }
    refuse_changed(history, given)


def _is_default(run: Run, name: str) -> bool:
    default = run.recovery.parameters[name][1]
    return default is not ... and run.plain[name] == to_plain(default)


def _recorded(run: Run, history: History, name: str) -> Any:
    annotation, default = run.recovery.parameters[name]
    if name in history.parameters:
        return from_plain(annotation, history.parameters[name])
    if default is ...:
        raise BadInput(
            name,
            f"recovery {history.recovery_id} was begun by a release "
            f"({history.release or 'unknown'}) that had no such parameter",
            "Go on with it by that release",
        )
    return default


def refuse_changed(history: History, given: Mapping[str, Any]) -> None:
    """Name what differs from the inputs the recovery was begun with.

    Raises:
        BadInput: something does.
    """
    changed = [name for name, value in given.items() if history.parameters.get(name) != value]
    if not changed:
        return
    told = [
        f"{name} was {shortly(history.parameters.get(name))}, is now {shortly(given[name])}"
        for name in changed
    ]
    raise BadInput(
        ", ".join(changed),
        f"the inputs of recovery {history.recovery_id} changed: {'; '.join(told)}",
        "Resume with what they were, or fork: "
        f"`recover resume {history.recovery_id} --set NAME=VALUE`",
    )

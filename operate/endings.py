"""How a command ends: what it prints last, the one line an error becomes, and the exit code."""

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import typer

from operate.progress import Progress
from operate.remedies import without_resume
from recovery.secrecy.redaction import redact, redact_value

if TYPE_CHECKING:
    from rich.console import Console

    from recovery.journal.history import History
    from recovery.journal.store import Journal
    from recovery.run import Ended

INTERRUPTED = 130
BAD_INPUT = 2
FAILED = 3
REFUSED = FENCED = 5
SETTINGS = ("RECOVER_", "PREFECT_")
SETTLED = {"recovered", "undone"}
KINDS = {2: "bad input", 3: "failed", 4: "needs a person", 5: "refused", INTERRUPTED: "interrupted"}


@dataclass
class Answer:
    """What a command answers with.

    `next_command` is what to type after an error, `again` what to do where nothing can be resumed,
    `after_interrupt` what to type after Ctrl-C, with the id of the recovery put in.
    A command that goes back and is refused is told in its sentence alone.
    """

    as_json: bool
    debug: bool
    next_command: str = ""
    again: str = ""
    after_interrupt: str = "recover resume {id}"
    progress: Progress = field(default_factory=Progress)
    goes_back: bool = False
    _is_given: bool = False
    _events_before: int = 0

    def give(self, plain: object, show: "Callable[[Console], None]") -> None:
        """Print the answer: its JSON, or what `show` makes of it for people."""
        self._is_given = True
        if self.as_json:
            print_json(plain)
        else:
            from operate.screens import on_stdout  # noqa: PLC0415 (rich, where it is needed)

            show(on_stdout())

    @contextmanager
    def journal(self) -> "Iterator[Journal]":
        """Open the journal for the command."""
        from recovery.journal.opening import open_journal  # noqa: PLC0415 (imports Prefect)

        journal = open_journal()
        try:
            yield journal
        finally:
            journal.close()

    def find(self, journal: "Journal", wanted: str) -> str:
        """Return the id of the one recovery that begins like this.

        Raises:
            BadInput: there is none, or several.
        """
        from recovery.journal.opening import find_recovery  # noqa: PLC0415 (imports Prefect)

        self.next_command, before = "recover status", self.next_command
        self.progress.recovery_id = find_recovery(journal, wanted, "ID")
        self.next_command = before
        return self.progress.recovery_id

    def known(self, wanted: str) -> "History":
        """Read the one recovery whose id begins like this.

        Raises:
            BadInput: there is none, or several.
        """
        from recovery.evidence.status import read_recovery  # noqa: PLC0415 (imports Prefect)

        with self.journal() as journal:
            history = read_recovery(journal, self.find(journal, wanted)).history
        self._events_before = history.last_seq
        return history

    def follows_worker(self) -> None:
        """Note that a worker does it, which Ctrl-C here does not stop."""
        self.after_interrupt = "recover status {id}"

    def end(self, ended: "Ended") -> None:
        """End a run, a resume or an undo with the status of the recovery.

        Raises:
            typer.Exit: always.
        """
        self.progress.recovery_id = ended.recovery_id
        if ended.error is not None:
            raise ended.error
        self._tell_status(None)
        raise typer.Exit(0)

    def end_plan(self, ended: "Ended", *, is_full: bool = False) -> None:
        """End with the plan that was made.

        Raises:
            typer.Exit: it would be refused.
        """
        if ended.plan is None:
            raise ended.error or AssertionError
        from operate.screens import show_plan  # noqa: PLC0415 (rich, where it is needed)

        plain = ended.plan.as_plain()
        plain["refusals"] = [without_resume(text) for text in plain["refusals"]]
        self.give(plain, lambda console: show_plan(console, plain, is_full=is_full))
        if plain["refusals"]:
            raise typer.Exit(REFUSED)

    def fail(self, error: BaseException) -> int:
        """Tell of an error in one line, with what to type next; return the exit code."""
        if self.debug and not isinstance(error, KeyboardInterrupt):
            self._print_traceback(error)
        code = exit_code_of(error)
        status = self._tell_status(error)
        kind = KINDS.get(code, "failed")
        line = text_of(error) if status else without_resume(text_of(error))
        line = line if line.startswith(kind) else f"{kind}: {line}"
        self.progress.note(line, "bold red")
        if following := self._next(error, status):
            self.progress.note(f"next: {following}", "bold")
        return code

    def _tell_status(self, error: BaseException | None) -> dict[str, Any] | None:
        """Print the status of the recovery, if there is one, and the error where it is JSON."""
        status = self._status()
        if self._is_given:
            return status
        if self.as_json:
            document = dict(status or {})
            if error is not None:
                told = as_document(error)
                document["error"] = (
                    told if status else {name: without_resume(text) for name, text in told.items()}
                )
            print_json(document)
        elif status is not None and not (error is not None and self._is_untouched(error, status)):
            from operate.screens import on_stdout, show_summary  # noqa: PLC0415 (rich, if needed)

            told_below = {} if error is None else {"error": "", "next": ""}
            show_summary(on_stdout(), {**status, **told_below})
        return status

    def _is_untouched(self, error: BaseException, status: Mapping[str, Any]) -> bool:
        """Whether the command came to nothing: the recovery stands where it stood before."""
        code = exit_code_of(error)
        is_refused = code == BAD_INPUT or (self.goes_back and code == REFUSED)
        return is_refused or status["journal"]["events"] == self._events_before

    def _status(self) -> dict[str, Any] | None:
        if not self.progress.recovery_id:
            return None
        from recovery.errors import RecoveryError  # noqa: PLC0415 (imports Prefect)
        from recovery.evidence.status import status_of  # noqa: PLC0415
        from recovery.journal.opening import open_journal  # noqa: PLC0415

        try:
            journal = open_journal()
        except RecoveryError:
            return None
        try:
            return status_of(journal, self.progress.recovery_id)
        except RecoveryError:
            return None  # it came to no recovery, or the journal cannot be read: the error says so
        finally:
            journal.close()

    def _next(self, error: BaseException, status: Mapping[str, Any] | None) -> str:
        from recovery.errors import BadInput  # noqa: PLC0415 (imports Prefect)
        from recovery.journal.store import JournalUnavailable  # noqa: PLC0415

        if isinstance(error, KeyboardInterrupt):
            return "" if status is None else f"`{self.after_interrupt.format(id=status['id'])}`"
        if self.next_command:
            return f"`{self.next_command}`"
        if isinstance(error, BadInput | JournalUnavailable):
            return _after_bad_input(getattr(error, "field", "RECOVER_JOURNAL"), status)
        if holder := getattr(error, "holder", ""):
            return f"`recover status {holder}`"
        is_settled = status is not None and (self.goes_back or status["state"] in SETTLED)
        if status is None or (is_settled and self._is_untouched(error, status)):
            return self.again  # where it is settled, the error itself says what to do
        return str(status["next"])

    def _print_traceback(self, error: BaseException) -> None:
        import traceback  # noqa: PLC0415 (only ever for --debug)

        sys.stderr.write(redact("".join(traceback.format_exception(error))))


@contextmanager
def answering(
    *, as_json: bool, debug: bool, next_command: str = "", again: str = ""
) -> Iterator[Answer]:
    """Run a command to its end: every error becomes one line and an exit code.

    Raises:
        typer.Exit: it did not end well.
    """
    os.environ.setdefault("DO_NOT_TRACK", "1")  # else Prefect reports its use, and says so here
    answer = Answer(as_json, debug, next_command, again)
    try:
        yield answer
    except (typer.Exit, typer.TyperException, BrokenPipeError, SystemExit):
        raise
    except BaseException as error:  # noqa: BLE001 (also the fenced, whom no Exception catches)
        code = answer.fail(error)
    else:
        return
    raise typer.Exit(code)


def exit_code_of(error: BaseException | None) -> int:
    """Return what the command ends with after this error, or after none."""
    if error is None:
        return 0
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    from recovery.errors import Fenced, RecoveryError  # noqa: PLC0415 (imports Prefect)

    if isinstance(error, Fenced):
        return FENCED
    return int(error.exit_code) if isinstance(error, RecoveryError) else FAILED


def as_document(error: BaseException) -> dict[str, str]:
    """Write an error as `--json` prints it."""
    document = {"type": getattr(error, "kind", type(error).__name__), "message": text_of(error)}
    for name in ("field", "target", "remedy"):
        if (value := getattr(error, name, "")) and isinstance(value, str):
            document[name] = redact(value)
    return document


def _after_bad_input(field: str, status: Mapping[str, Any] | None) -> str:
    if field == "--by":
        return ""  # its remedy is all there is to do
    if field.startswith(SETTINGS):
        return "`recover doctor`"
    return f"`recover status {status['id']}`" if status is not None else "`recover list`"


def text_of(error: BaseException) -> str:
    """Write an error in one line."""
    if isinstance(error, KeyboardInterrupt):
        return "stopped by Ctrl-C"
    text = " ".join(redact(str(error)).split())
    if getattr(error, "exit_code", None) is None and not hasattr(error, "epoch"):
        return f"{type(error).__name__}: {text or 'no message'} (--debug shows where)"
    return text


def print_json(plain: object) -> None:
    """Print JSON on standard output: in one line, unless a person reads it."""
    indent = 2 if sys.stdout.isatty() else None
    text = json.dumps(redact_value(plain), ensure_ascii=False, indent=indent, default=str)
    sys.stdout.write(text + "\n")
    sys.stdout.flush()

"""What a run is doing, told on standard error: a line for each step as it ends.

On a terminal a spinner with the running step and its time stands below the lines.
"""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from recovery.secrecy.redaction import redact

if TYPE_CHECKING:
    from recovery.walk import Stage, StepCall

STYLES = {
    "Done": "green",
    "Already so": "green",
    "Reconciled": "green",
    "Verified": "green",
    "Undone": "green",
    "Restored": "dim",
    "Reused": "dim",
    "Passed": "dim",
    "Looked": "dim",
    "Decided": "dim",
    "Planned": "dim",
    "No longer so": "yellow",
    "Needs person": "bold yellow",
    "Refused": "bold red",
    "Failed": "bold red",
    "Half done": "bold red",
}
WIDTH = max(map(len, STYLES))
KINDS = {"probe": "Looked", "decision": "Decided", "undo": "Undone"}


@dataclass
class Progress:
    """Tells of one run. `recovery_id` is that of the recovery as soon as it is known."""

    recovery_id: str = ""
    console: Console = field(default_factory=lambda: Console(stderr=True, highlight=False))
    _running: dict[str, float] = field(default_factory=dict)
    _doing: str = ""
    _since: float = field(default_factory=time.monotonic)
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def began(self, key: str) -> None:
        """A step began."""
        with self._lock:
            self._running[key] = time.monotonic()

    def ended(self, key: str, shown_as: str, seconds: float | None = None) -> float:
        """A step ended; `shown_as` is its outcome in a word or two. Return how long it took."""
        with self._lock:
            started = self._running.pop(key, None)
            if seconds is None:
                seconds = time.monotonic() - started if started is not None else 0.0
            line = Text(f"{shown_as:{WIDTH}}", STYLES.get(shown_as, ""))
            line.append(f"  {seconds:8.2f} s  ", "dim")
            line.append(redact(key))
            self._print(line)
            return seconds

    def note(self, text: str, style: str = "") -> None:
        """Tell something else, in one line."""
        self._print(Text(redact(text), style))

    def doing(self, what: str) -> None:
        """Name what is waited for while no step runs."""
        self._doing = what

    @contextmanager
    def shown(self, doing: str) -> Iterator[None]:
        """Keep the spinner turning meanwhile, where there is a terminal to show it on."""
        self._doing, self._since = doing, time.monotonic()
        with _warnings_told(self):
            if not self.console.is_terminal or self.console.is_dumb_terminal:
                yield
                return
            with Live(
                console=self.console,
                get_renderable=self._spinner,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            ):
                yield

    def _print(self, line: Text) -> None:
        with self._lock:
            self.console.print(line, soft_wrap=True)

    def _spinner(self) -> Spinner:
        with self._lock:
            running = dict(self._running)
        now = time.monotonic()
        what = ", ".join(f"{redact(key)} ({now - at:.0f} s)" for key, at in running.items())
        return _spinning(f"{now - self._since:.0f} s  {what or self._doing}")


@dataclass
class ToldStage:
    """A stage whose steps are told of as they begin and end.

    Attributes:
        stage: where they are carried out.
        progress: who tells.
        kinds: tell only of these kinds of steps; nothing means all.
    """

    stage: "Stage"
    progress: Progress
    kinds: frozenset[str] = frozenset()

    def put_on(self, call: "StepCall") -> Any:
        """See Stage."""
        if self.kinds and call.step.kind not in self.kinds:
            return self.stage.put_on(call)
        self.progress.began(call.key)
        shown_as = "Stopped"
        try:
            result = self.stage.put_on(call)
        except Exception as error:
            shown_as = getattr(error, "state", "Failed")
            raise
        else:
            shown_as = _shown_as(call)
        finally:
            seconds = self.progress.ended(call.key, shown_as)
            for act in call.undoes[1:]:  # one step back may be that of several acts
                self.progress.ended(f"undo {act.key}", shown_as, seconds)
        return result


def _shown_as(call: "StepCall") -> str:
    outcome = call.outcome.shown_as if call.outcome is not None else "Completed"
    return KINDS.get(str(call.step.kind), "Done") if outcome == "Completed" else outcome


class _Told(logging.Handler):
    """Prints what the engine warns about between the lines of the steps."""

    def __init__(self, progress: Progress) -> None:
        super().__init__(logging.WARNING)
        self._progress = progress

    def emit(self, record: logging.LogRecord) -> None:
        self._progress.note(" ".join(record.getMessage().split()), "yellow")


@contextmanager
def _warnings_told(progress: Progress) -> Iterator[None]:
    log, handler = logging.getLogger("recovery"), _Told(progress)
    was_propagated = log.propagate
    log.addHandler(handler)
    log.propagate = False
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.propagate = was_propagated


_SPINNER = Spinner("dots")


def _spinning(text: str) -> Spinner:
    _SPINNER.update(text=Text(text, no_wrap=True, overflow="ellipsis"))
    return _SPINNER

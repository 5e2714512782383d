"""One process of the stack, kept running: started, watched, started again, and ended."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

import httpx

from operate.stack.processes import Process

BOUND = Path(__file__).with_name("bound.py")
DELAY_SECONDS, DELAY_MAX_SECONDS = 1.0, 30.0
RESTARTS_MAX = 6
COUNTED_FOR_SECONDS = 600.0
LOG_MAX_BYTES = 20_000_000


class Health(StrEnum):
    """How a process stands."""

    STARTING = "starting"
    UP = "up"
    SILENT = "silent"
    WAITS = "to be started again"
    GIVEN_UP = "given up"
    ENDED = "ended"


class Child:
    """A process of the stack. It is started again when it dies, later each time.

    It runs in a session of its own, so that a Ctrl-C at the terminal is for the supervisor alone,
    and is asked to end by the kernel should the supervisor be killed.
    """

    def __init__(self, process: Process, environment: Mapping[str, str], logs: Path) -> None:
        self.process = process
        self.log = logs / f"{process.name}.log"
        self.health = Health.STARTING
        self.said = ""
        self._environment = dict(environment)
        self._running: subprocess.Popen[bytes] | None = None
        self._deaths: deque[float] = deque()
        self._not_before = 0.0
        self._started_at = datetime.now(UTC)

    @property
    def pid(self) -> int | None:
        """Its process id, where it runs."""
        return self._running.pid if self._running is not None else None

    @property
    def restarts(self) -> int:
        """How often it died lately."""
        return len(self._deaths)

    @property
    def dies_often(self) -> bool:
        """Whether starting it again does not seem to help."""
        return len(self._deaths) > RESTARTS_MAX

    def start(self) -> None:
        """Start it; its output goes to the end of its log."""
        self._started_at = datetime.now(UTC)
        with self.log.open("ab") as log:
            self._running = subprocess.Popen(  # noqa: S603 (its arguments are our own)
                [sys.executable, "-I", "-S", str(BOUND), str(os.getpid()), *self.process.command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment,
                start_new_session=True,
            )
        self.health, self.said = Health.STARTING, ""

    def look(self) -> None:
        """See whether it runs, and start it again where that is due."""
        if self._running is not None:
            code = self._running.poll()
            if code is None:
                self._turn_log()
                return
            self._running = None
            self._note_death(code)
        if self.health is Health.WAITS and time.monotonic() >= self._not_before:
            self.start()

    def ask(self) -> None:
        """Ask it whether it does its work."""
        if self._running is None:
            return
        try:
            answers = self.process.answers(self._started_at)
        except (httpx.HTTPError, ValueError, KeyError, TypeError):
            answers = False
        if answers:
            self.health = Health.UP
        elif self.health is Health.UP:
            self.health = Health.SILENT

    def terminate(self) -> None:
        """Ask it to end."""
        self.health = Health.ENDED
        if self._running is not None:
            self._running.terminate()

    def has_ended(self) -> bool:
        """Whether it runs no more."""
        return self._running is None or self._running.poll() is not None

    @property
    def exit_code(self) -> int | None:
        """What it ended with; nothing while it runs."""
        return self._running.returncode if self._running is not None else None

    def kill(self) -> None:
        """End it, and what is in its session with it, without asking."""
        if self._running is not None and self._running.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._running.pid, signal.SIGKILL)
            self._running.wait()

    def last_words(self) -> str:
        """Return the last line of its log that says something."""
        try:
            lines = self.log.read_text(errors="replace").splitlines()
        except OSError:
            return ""
        return next((line.strip() for line in reversed(lines) if line.strip()), "")

    def _turn_log(self) -> None:
        """Put aside what its log holds once that is much; what it writes meanwhile may be lost."""
        with contextlib.suppress(OSError):  # it has written nothing yet, or there is no room
            if self.log.stat().st_size > LOG_MAX_BYTES:
                shutil.copyfile(self.log, self.log.with_suffix(".log.1"))
                os.truncate(self.log, 0)  # it goes on at the end, wherever that is

    def _note_death(self, code: int) -> None:
        now = time.monotonic()
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
        self._deaths.append(now)
        while self._deaths[0] < now - COUNTED_FOR_SECONDS:
            self._deaths.popleft()
        if self.dies_often:
            how += f", {len(self._deaths)} times within ten minutes"
        if self.dies_often and self.process.is_vital:
            self.health, self.said = Health.GIVEN_UP, how
            return
        delay = min(DELAY_SECONDS * 2 ** (len(self._deaths) - 1), DELAY_MAX_SECONDS)
        self.health = Health.WAITS
        self.said = f"{how}; again in {delay:g} s"
        self._not_before = now + delay

"""A stack that runs on after its command has ended, and its end."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from operate.stack.claim import is_claimed, read_told
from operate.stack.place import Place
from recovery.errors import NotVerified

UP_WITHIN_SECONDS = 600.0
DOWN_WITHIN_SECONDS = 120.0
POLL_SECONDS = 0.2


@dataclass
class Said:
    """What a program writes into a file, read line by line as it comes."""

    log: Path
    _read: int = 0

    def more(self) -> list[str]:
        """The lines that were ended since the last look."""
        with self.log.open("rb") as written:
            written.seek(self._read)
            ended, mark, _ = written.read().rpartition(b"\n")
        self._read += len(ended) + len(mark)
        return [line for line in ended.decode(errors="replace").splitlines() if line]


def bring_up_detached(place: Place, note: Callable[[str], None]) -> dict[str, Any]:
    """Start a stack in the background and wait until all of it is up; return what it says.

    Meanwhile it `note`s what the stack says of its start, a line each.

    Raises:
        NotVerified: it ended before; names its log.
    """
    log = place.logs / "up.log"
    command = [sys.executable, "-m", "operate.cli", "up", "--home", str(place.home)]
    command += ["--port", str(place.port), "--alerts-port", str(place.alerts_port)]
    command += ["--deployments", str(place.deployments)]
    with log.open("wb") as written:
        running = subprocess.Popen(  # noqa: S603 (its arguments are our own)
            command,
            stdin=subprocess.DEVNULL,
            stdout=written,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    deadline = time.monotonic() + UP_WITHIN_SECONDS
    said = Said(log)
    while time.monotonic() < deadline:
        lines = said.more()  # before it is asked whether all is up: then it prints its table
        told = read_told(place.home)
        if told.get("up") and told.get("pid") == running.pid:
            return told
        if running.poll() is not None:
            lines = [line for line in log.read_text(errors="replace").splitlines() if line]
            seen = next((line for line in reversed(lines) if "next:" not in line), "nothing")
            seen = seen.removeprefix("failed: ").rstrip(".")
            raise NotVerified("the stack", "it to be up", seen, f"See also {log}")
        for line in lines:
            note(line)
        time.sleep(POLL_SECONDS)
    raise NotVerified("the stack", "it to be up", "it is still starting", f"See {log}")


def take_down(place: Place) -> dict[str, Any]:
    """Stop the stack of a folder and wait for its end; return what it was, nothing if none ran.

    Raises:
        NotVerified: it does not end.
    """
    told = read_told(place.home)
    if not is_claimed(place.home) or not told:
        return {}
    os.kill(int(told["pid"]), signal.SIGTERM)
    deadline = time.monotonic() + DOWN_WITHIN_SECONDS
    while is_claimed(place.home):
        if time.monotonic() > deadline:
            raise NotVerified(
                f"process {told['pid']}", "its end", "it runs", "Look at it, then kill it"
            )
        time.sleep(POLL_SECONDS)
    return told

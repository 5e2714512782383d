"""One stack in one folder: who runs it, and where, for whoever asks a second time."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from recovery.errors import RecoveryError, Refused

TOLD_IN, LOCKED_BY = "up.json", "up.lock"


class UpAlready(Refused):
    """A stack runs in this folder already; `told` is what it says of itself."""

    def __init__(self, home: str, seen: str, remedy: str, told: dict[str, Any]) -> None:
        RecoveryError.__init__(self, home, seen, remedy, told)
        self.target, self.reason, self.remedy, self.told = home, seen, remedy, told


def up_already(home: Path) -> UpAlready:
    """Say where the stack of this folder runs."""
    told = read_told(home)
    where = told.get("ui", "it is just starting")
    return UpAlready(
        f"the stack in {home}",
        f"it runs already, as process {told.get('pid')}: {where}" if told else where,
        "Use it, or stop it with `recover down`",
        told,
    )


@contextmanager
def claimed(home: Path) -> Iterator[None]:
    """Hold the folder until the end of the block, or of this process.

    Raises:
        UpAlready: somebody else holds it.
    """
    with (home / LOCKED_BY).open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise up_already(home) from None
        try:
            yield
        finally:
            (home / TOLD_IN).unlink(missing_ok=True)


def is_claimed(home: Path) -> bool:
    """Whether a stack runs in this folder."""
    try:
        with (home / LOCKED_BY).open("r") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def tell(home: Path, told: dict[str, Any]) -> None:
    """Write down where it runs and how it stands; readers see the old or the new, never half."""
    draft = home / f"{TOLD_IN}.{os.getpid()}"
    draft.write_text(json.dumps(told))
    draft.replace(home / TOLD_IN)


def read_told(home: Path) -> dict[str, Any]:
    """Read what the stack in this folder says of itself; nothing where it has said nothing yet."""
    try:
        read: dict[str, Any] = json.loads((home / TOLD_IN).read_text())
    except (OSError, ValueError):
        return {}
    return read

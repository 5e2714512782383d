"""What processes of ours have left behind: taken over, found, and ended."""

import contextlib
import ctypes
import os
import signal
import time
from collections.abc import Collection, Iterator
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36
POLL_SECONDS = 0.05


def take_over_orphans() -> None:
    """Become the parent of every process whose parent, started by us, has ended."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def descendants() -> list[int]:
    """Return the process ids of all that descends from this process and still runs."""
    children: dict[int, list[int]] = {}
    for pid, parent, state in _processes():
        if state != "Z":
            children.setdefault(parent, []).append(pid)
    found: list[int] = []
    waiting = [os.getpid()]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def end_descendants(within_seconds: float) -> int:
    """Ask all that is left to end, kill what has not after this time; return how many there were.

    Reaps them as well, so nothing of them stays in the table of processes.
    """
    there_were = set(descendants())
    for pid in there_were:
        _send(pid, signal.SIGTERM)
    deadline = time.monotonic() + within_seconds
    while left := descendants():
        there_were |= set(left)
        if time.monotonic() > deadline:
            for pid in left:
                _send(pid, signal.SIGKILL)
        reap()
        time.sleep(POLL_SECONDS)
    reap()
    return len(there_were)


def reap(but: Collection[int] = ()) -> None:
    """Take note of the end of every child that has ended, but for those another one waits for."""
    for pid in _ended_children():
        if pid not in but:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)


def _ended_children() -> list[int]:
    return [pid for pid, parent, state in _processes() if state == "Z" and parent == os.getpid()]


def _processes() -> Iterator[tuple[int, int, str]]:
    """Every process on this machine: its id, that of its parent, and its state."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, ValueError):
                state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
                yield int(entry.name), int(parent), state


def _send(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)

"""What processes of ours have left behind: taken over, found, and ended.

What is to outlive its worker is left alone: a command that was cut in half could not be redone.
"""

import contextlib
import ctypes
import os
import signal
import time
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from blocks.local.detached_scripts import MARK

PR_SET_CHILD_SUBREAPER = 36
POLL_SECONDS = 0.05


def take_over_orphans() -> None:
    """Become the parent of every process whose parent, started by us, has ended."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def descendants() -> list[int]:
    """Return the process ids of all that descends from this process and is to end with it."""
    children = _children()
    environments = {pid: _environment(pid) for pid in _below(children, set())}
    outliving = {pid for pid, environment in environments.items() if _name_in(environment)}
    if outliving:  # ssh writes its title over its environment: this may be a connection of theirs
        outliving |= {pid for pid, environment in environments.items() if not any(environment)}
    return _below(children, outliving)


def outliving() -> list[str]:
    """Return the names of the commands below this process that outlive their worker."""
    return sorted({_name_in(_environment(pid)) for pid in _below(_children(), set())} - {""})


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


def _children() -> dict[int, list[int]]:
    children: dict[int, list[int]] = {}
    for pid, parent, state in _processes():
        if state != "Z":
            children.setdefault(parent, []).append(pid)
    return children


def _below(children: Mapping[int, list[int]], but: Collection[int]) -> list[int]:
    """All that descends from this process, but for these and what descends from them."""
    found: list[int] = []
    waiting = [os.getpid()]
    while waiting:
        below = [pid for pid in children.get(waiting.pop(), []) if pid not in but]
        found += below
        waiting += below
    return found


def _environment(pid: int) -> list[str]:
    """What it was started with; one text where that cannot be read, which names nothing."""
    try:
        return Path(f"/proc/{pid}/environ").read_text(errors="replace").split("\0")
    except OSError:
        return ["unreadable"]


def _name_in(environment: list[str]) -> str:
    named = (text.removeprefix(f"{MARK}=") for text in environment if text.startswith(f"{MARK}="))
    return next(named, "")


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

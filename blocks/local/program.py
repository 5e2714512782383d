"""Programs run on the worker itself: up to a deadline, and never left behind.

A program whose worker was killed is killed by the kernel: nobody would fence it any more.
"""

import ctypes
import os
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import IO

from recovery.secrecy.redaction import redacted_tail

TAIL_CHARACTERS = 2000
PIPE_BYTES = 1 << 16
PR_SET_PDEATHSIG = 1
NAMES_PASSED_ON = ("PATH", "TMPDIR", "LANG", "LC_ALL")


@dataclass(frozen=True)
class Ended:
    """How a program ended, and the end of what it printed about it."""

    code: int
    errors: str


def run_program(  # noqa: PLR0913 (what a process is started with)
    argv: Sequence[str],
    *,
    within_seconds: float,
    environment: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
    stdin: IO[bytes] | Iterable[bytes] | None = None,
    stdout: IO[bytes] | Callable[[bytes], object] | None = None,
) -> Ended:
    """Run a program to its end.

    Args:
        argv: the program and its arguments.
        within_seconds: how long it may take; it is killed then.
        environment: variables on top of those few that are passed on.
        pass_fds: descriptors it may read.
        stdin: a file, or what is written to it piece by piece; `None`: nothing.
        stdout: a file, or what takes its output piece by piece; `None`: nobody reads it.

    Raises:
        TimeoutError: it did not end in time.
        ValueError: it would be fed and read piece by piece.
    """
    feeds = stdin is not None and not hasattr(stdin, "fileno")
    if feeds and callable(stdout):
        raise ValueError("fed and read by one thread it could stand still: give a file for stdout")
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(  # noqa: S603 (a program of our own choice)
            list(argv),
            stdin=subprocess.PIPE if feeds else stdin or subprocess.DEVNULL,  # type: ignore[arg-type]  # a file, as was just asked
            stdout=subprocess.PIPE if callable(stdout) else stdout or subprocess.DEVNULL,
            stderr=errors,
            env=passed_on(environment or {}),
            pass_fds=tuple(pass_fds),
            start_new_session=True,
            preexec_fn=_die_with_parent,  # noqa: PLW1509 (no other thread matters to it)
        )
        late = threading.Event()

        def end_it() -> None:
            late.set()
            _kill(process)

        timer = threading.Timer(within_seconds, end_it)
        timer.daemon = True
        timer.start()
        try:
            if feeds:
                _feed(process, stdin or ())
            if callable(stdout) and process.stdout is not None:
                while piece := process.stdout.read1(PIPE_BYTES):  # type: ignore[attr-defined]  # a buffered reader has it
                    stdout(piece)
            code = process.wait()
        finally:
            timer.cancel()
            _kill(process)
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with suppress(BrokenPipeError):
                        pipe.close()
        if late.is_set():
            raise TimeoutError
        errors.seek(0)
        return Ended(code, redacted_tail(errors.read().decode(errors="replace"), TAIL_CHARACTERS))


def passed_on(more: Mapping[str, str]) -> dict[str, str]:
    """The environment of a program: nothing of the worker's but what it needs, and these."""
    return {name: os.environ[name] for name in NAMES_PASSED_ON if name in os.environ} | dict(more)


def memory_file(content: bytes) -> IO[bytes]:
    """A file in memory that only this process may read: a kill leaves no password on disk."""
    file = open(os.memfd_create("options"), "r+b")  # noqa: PTH123, SIM115 (no path; the caller closes it)
    os.fchmod(file.fileno(), 0o600)  # the programs pass over what others may write
    file.write(content)
    file.flush()
    return file


def _feed(process: "subprocess.Popen[bytes]", pieces: Iterable[bytes]) -> None:
    if process.stdin is None:
        return
    with suppress(BrokenPipeError):  # it ended before it had read all; its exit code says why
        for piece in pieces:
            process.stdin.write(piece)
        process.stdin.close()


def _kill(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _die_with_parent() -> None:
    """Let the kernel kill a program whose worker was killed: nobody would fence it."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)

"""A command for a host, what came of it, and what is made of its exit code."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import BinaryIO

from blocks.ssh.deadline import Deadline
from blocks.ssh.sudo import refusal_of
from recovery.errors import CommandFailed, UnreadableOutput
from recovery.secrecy.redaction import redacted_head
from recovery.secrecy.secret import Secret

TAIL_LINES = 20
NOT_RUNNABLE, NOT_FOUND = 126, 127


@dataclass(frozen=True)
class Sudo:
    """How sudo is spoken to: with which password, if any, and whether it was found never to ask."""

    password: Secret | None = None
    never_asks: bool = False


@dataclass(frozen=True)
class Order:
    """What is to be run where, and on which terms.

    Attributes:
        command: its exact text, as plans and errors show it.
        target: the host, in messages.
        deadline: for all of it.
        is_change: whether it changes the host.
        sent: what is really sent, where that is more than the command: a guard around it.
        stdin: what it reads.
        sudo: set where it goes through sudo.
        output_max_bytes: how much of each stream is kept.
        sink: takes all of its standard output, which is then not kept.
        heard: is told each line while it runs.
    """

    command: str
    target: str
    deadline: Deadline
    is_change: bool
    sent: str = ""
    stdin: bytes | None = field(default=None, repr=False)
    sudo: Sudo | None = None
    output_max_bytes: int = 1_000_000
    sink: BinaryIO | None = None
    heard: Callable[[str], None] | None = None


@dataclass(frozen=True)
class Answer:
    """What a command printed and how it ended."""

    command: str
    target: str
    exit_code: int
    stdout: str
    stderr: str
    left_out_bytes: int = 0  # of the middle of an output over its bound; its place is marked
    is_left_open: bool = False  # something it started still holds its output open
    is_through_sudo: bool = False
    times_asked: int = 0  # by sudo, for the password

    def whole(self) -> str:
        """All of what it printed, for a parser.

        Raises:
            UnreadableOutput: the middle was left out because it printed too much.
        """
        if self.left_out_bytes:
            raise UnreadableOutput(
                self.command,
                f"({self.left_out_bytes} bytes left out) {redacted_head(self.stdout, 200)}",
            )
        return self.stdout

    def __str__(self) -> str:
        """Both streams, for the evidence."""
        note = "\n[something it started still holds its output open]" if self.is_left_open else ""
        return self.stdout + self.stderr + note


class BoundedOutput:
    """The head and the tail of a stream, never more than the bound.

    Where the middle is left out, so is the line that is broken at each side of it: half of a
    secret would not be known as one.
    """

    def __init__(self, max_bytes: int) -> None:
        self._half = max(1, max_bytes // 2)
        self._head = bytearray()
        self._tail = bytearray()
        self.seen_bytes = 0

    def add(self, chunk: bytes) -> None:
        """Take in what came next."""
        self.seen_bytes += len(chunk)
        room = self._half - len(self._head)
        self._head += chunk[:room]
        self._tail += chunk[room:]
        if len(self._tail) > 4 * self._half:
            del self._tail[: -self._half]

    @property
    def left_out_bytes(self) -> int:
        """How much of the middle is gone."""
        return self.seen_bytes - sum(map(len, self._kept()))

    def _kept(self) -> tuple[bytes, bytes]:
        head, tail = bytes(self._head), bytes(self._tail)
        if self.seen_bytes <= 2 * self._half:
            return head, tail
        begins, line_end, _ = head.rpartition(b"\n")
        return begins + line_end, tail[-self._half :].partition(b"\n")[2]

    def __str__(self) -> str:
        """What was kept; the gap is marked with its size."""
        head, tail = self._kept()
        if not self.left_out_bytes:
            return (head + tail).decode(errors="replace")
        gap = f"[… {self.left_out_bytes} bytes left out …]\n"
        return head.decode(errors="replace") + gap + tail.decode(errors="replace")


def require_exit_code(answer: Answer, accept: tuple[int, ...]) -> Answer:
    """Return the answer if its exit code is one of these.

    Raises:
        SudoRefused: sudo said no, whatever exit codes are accepted of the command itself.
        CommandFailed: it is another one; carries the last lines and what to do.
    """
    if answer.is_through_sudo:
        refused = refusal_of(
            answer.target,
            answer.command,
            answer.exit_code,
            answer.stdout,
            answer.stderr,
            times_asked=answer.times_asked,
        )
        if refused is not None:
            raise refused
    if answer.exit_code in accept:
        return answer
    raise CommandFailed(
        answer.target, answer.command, answer.exit_code, last_lines(answer), _remedy(answer)
    )


def last_lines(answer: Answer) -> str:
    """The last lines of each stream that holds any."""
    streams = (answer.stdout, answer.stderr)
    return "\n".join("\n".join(s.strip().splitlines()[-TAIL_LINES:]) for s in streams if s.strip())


def _remedy(answer: Answer) -> str:
    if answer.exit_code == NOT_FOUND:
        return "Install what is missing there or put it on the PATH of this user, then resume"
    if answer.exit_code == NOT_RUNNABLE:
        return "Check who may execute it there, then resume"
    return ""

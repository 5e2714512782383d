"""One command on an open SSH connection: a deadline, bounded output, and what came of it."""

import contextlib
import select
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

import paramiko

from blocks.ssh_connection import AnswerLost, Deadline
from recovery.errors import CommandFailed, Unreachable, UnreadableOutput
from recovery.secrecy.secret import Secret

CHUNK_BYTES = 65536
NO_EXIT_CODE = -1  # what paramiko says when the server sent none
LEFT_OPEN_SECONDS = 2.0  # silence after the exit code before an open output is given up
GLANCE_SECONDS = 0.2  # an exit code wakes nobody: it is looked for this often
TAIL_LINES = 20
NOT_RUNNABLE, NOT_FOUND = 126, 127


@dataclass(frozen=True)
class Order:
    """What is to be run where, and on which terms."""

    command: str
    target: str
    deadline: Deadline
    is_change: bool
    stdin: Secret | None = None
    output_max_bytes: int = 1_000_000


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

    def whole(self) -> str:
        """All of what it printed, for a parser.

        Raises:
            UnreadableOutput: the middle was left out because it printed too much.
        """
        if self.left_out_bytes:
            raise UnreadableOutput(
                self.command, f"({self.left_out_bytes} bytes left out) {self.stdout[:200]}"
            )
        return self.stdout

    def __str__(self) -> str:
        """Both streams, for the evidence."""
        note = "\n[something it started still holds its output open]" if self.is_left_open else ""
        return self.stdout + self.stderr + note


class BoundedOutput:
    """The head and the tail of a stream, never more than the bound."""

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
        return max(0, self.seen_bytes - 2 * self._half)

    def __str__(self) -> str:
        """What was kept; the gap is marked with its size."""
        head = bytes(self._head)
        tail = bytes(self._tail[-self._half :])
        if not self.left_out_bytes:
            return (head + tail).decode(errors="replace")
        gap = f"\n[… {self.left_out_bytes} bytes left out …]\n"
        return head.decode(errors="replace") + gap + tail.decode(errors="replace")


def run_command(transport: paramiko.Transport, order: Order) -> Answer:
    """Run a command and return how it ended, whatever its exit code.

    Raises:
        Unreachable: it was not sent.
        AnswerLost: it was sent, but how it ended is not known.
        CommandFailed: the server would not run it, or a signal ended it.
    """
    channel = open_channel(transport, order.target, order.command, order.deadline)
    try:
        with closed_at(order.deadline, channel):
            try:
                channel.exec_command(order.command)
            except (paramiko.SSHException, OSError, EOFError) as error:
                if order.deadline.is_over or not transport.is_active():
                    raise _lost(order, error) from error
                raise CommandFailed(
                    order.target,
                    order.command,
                    "none",
                    f"the server would not run it: {error}",
                    "Check what its sshd_config and authorized_keys restrict for this user",
                ) from error
        return _Running(transport, channel, order).answer()
    finally:
        close_channel(channel)


def open_channel(
    transport: paramiko.Transport, target: str, asked: str, deadline: Deadline
) -> paramiko.Channel:
    """Return a new channel on the connection; nothing is sent on it yet."""
    try:
        return transport.open_session(timeout=max(0.01, deadline.seconds_left))
    except (paramiko.SSHException, OSError, EOFError) as error:
        raise Unreachable(
            target,
            asked,
            f"the connection took no further command: {str(error) or type(error).__name__}",
            "Check that the host answers and what MaxSessions of its sshd_config is, then resume",
        ) from error


def close_channel(channel: paramiko.Channel) -> None:
    """Close the channel; one whose connection is gone is closed already."""
    with contextlib.suppress(paramiko.SSHException, OSError, EOFError):
        channel.close()


@contextlib.contextmanager
def closed_at(deadline: Deadline, channel: paramiko.Channel) -> Iterator[None]:
    """Close the channel at the deadline, which wakes whatever paramiko waits for without one."""
    alarm = threading.Timer(
        deadline.seconds_left + 0.01, close_channel, [channel]
    )  # so that it is over then
    alarm.daemon = True
    alarm.start()
    try:
        yield
    finally:
        alarm.cancel()


def require_exit_code(answer: Answer, accept: tuple[int, ...]) -> Answer:
    """Return the answer if its exit code is one of these.

    Raises:
        CommandFailed: it is another one; carries the last lines and what to do.
    """
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
    if answer.stderr.startswith("sudo:"):
        return (
            "Let this user run exactly this command without a password (NOPASSWD in sudoers), or "
            "log in as root, then resume"
        )
    if answer.exit_code == NOT_FOUND:
        return "Install what is missing there or put it on the PATH of this user, then resume"
    if answer.exit_code == NOT_RUNNABLE:
        return "Check who may execute it there, then resume"
    return ""


def _lost(order: Order, why: object) -> AnswerLost:
    if order.deadline.is_over:
        why = f"no end of it within {order.deadline.within_seconds:.3g} s"
    return AnswerLost(order.target, order.command, str(why) or "the connection was lost")


class _Running:
    """A command that has been sent: feeds it, drains it, waits for its end."""

    def __init__(
        self, transport: paramiko.Transport, channel: paramiko.Channel, order: Order
    ) -> None:
        self._transport, self._channel, self._order = transport, channel, order
        self._pending = memoryview(order.stdin.reveal().encode() if order.stdin else b"")
        self._has_sent_all = False
        self._stdout = BoundedOutput(order.output_max_bytes)
        self._stderr = BoundedOutput(order.output_max_bytes)
        self._poll = select.poll()  # not select(): descriptors may be over 1023
        self._poll.register(channel.fileno(), select.POLLIN)

    def answer(self) -> Answer:
        is_left_open = False
        ended: float | None = None  # when the exit code was seen, or the last output after it
        while not (self._channel.eof_received or self._channel.closed):
            self._feed()
            if self._drain():
                ended = ended and time.monotonic()
            elif self._channel.exit_status_ready():
                ended = ended or time.monotonic()
                if time.monotonic() - ended >= LEFT_OPEN_SECONDS or self._order.deadline.is_over:
                    is_left_open = True
                    break
            if self._order.deadline.is_over:
                raise _lost(self._order, "")
            self._poll.poll(1000 * min(GLANCE_SECONDS, self._order.deadline.seconds_left))
        while self._drain():
            if self._order.deadline.is_over:
                raise _lost(self._order, "")
        exit_code = self._exit_code()
        if is_left_open and not self._order.is_change:
            raise AnswerLost(
                self._order.target,
                self._order.command,
                f"it ended with exit code {exit_code}, but something it started holds its output "
                "open, so that the output may not be all",
            )
        return Answer(
            self._order.command,
            self._order.target,
            exit_code,
            str(self._stdout),
            str(self._stderr),
            self._stdout.left_out_bytes + self._stderr.left_out_bytes,
            is_left_open,
        )

    def _feed(self) -> None:
        """Write as much of the input as is taken without waiting, then end it."""
        with contextlib.suppress(OSError):  # it did not care to read: its exit code tells the rest
            while self._pending and self._channel.send_ready():
                self._pending = self._pending[self._channel.send(bytes(self._pending)) :]
            if not self._pending and not self._has_sent_all:
                self._has_sent_all = True
                self._channel.shutdown_write()

    def _drain(self) -> bool:
        """Take what has come; whether there was any."""
        has_any = False
        if self._channel.recv_ready():
            self._stdout.add(self._channel.recv(CHUNK_BYTES))
            has_any = True
        if self._channel.recv_stderr_ready():
            self._stderr.add(self._channel.recv_stderr(CHUNK_BYTES))
            has_any = True
        return has_any

    def _exit_code(self) -> int:
        """The exit code; it comes before the channel closes, but may come after the output ends."""
        if not self._channel.status_event.wait(self._order.deadline.seconds_left):
            raise _lost(self._order, "")
        exit_code = self._channel.recv_exit_status()
        if exit_code != NO_EXIT_CODE:
            return exit_code
        # Either a signal ended it, or the connection died, which the transport notices in a moment.
        self._transport.join(0.5)
        if not self._transport.is_active():
            raise _lost(self._order, "the connection was lost in mid-command")
        raise CommandFailed(
            self._order.target,
            self._order.command,
            "none",
            f"it was ended by a signal {str(self._stderr).strip()}",
            "Find out who ended it (out of memory? a restart?), then resume",
        )

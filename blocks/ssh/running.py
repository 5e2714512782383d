"""One command on an open SSH connection: fed, drained and heard until it ends, in time."""

import contextlib
import select
import time
from contextlib import AbstractContextManager
from functools import partial

import paramiko
from paramiko.common import cMSG_CHANNEL_REQUEST
from paramiko.message import Message

from blocks.ssh.command import Answer, BoundedOutput, Order
from blocks.ssh.connection import Connection
from blocks.ssh.deadline import Deadline, called_at
from blocks.ssh.heard import Lines
from blocks.ssh.sudo import Prompts
from recovery.errors import AnswerLost, CommandFailed

CHUNK_BYTES = 65536
NO_EXIT_CODE = -1  # what paramiko says when the server sent none
LEFT_OPEN_SECONDS = 2.0  # silence after the exit code before an open output is given up
GLANCE_SECONDS = 0.2  # an exit code wakes nobody: it is looked for this often
FEEDING_SECONDS = 0.005  # nor does room for more of what the command reads
PROMPT_SECONDS = 10.0  # sudo that has not asked by then will not


def run_command(connection: Connection, channel: paramiko.Channel, order: Order) -> Answer:
    """Run a command on a channel that is open and return how it ended, whatever its exit code.

    A command that changes nothing loses its output at the deadline and is told to end. One that
    changes something is left to end by itself: half of it could be worse than all of it.

    Raises:
        AnswerLost: it was sent, but how it ended is not known.
        CommandFailed: the server would not run it, or a signal ended it.
    """
    try:
        with closed_at(order.deadline, channel):
            try:
                channel.exec_command(order.sent or order.command)
            except (paramiko.SSHException, OSError, EOFError) as error:
                if order.deadline.is_over or not connection.is_active():
                    raise _lost(order, connection.lost_because or error) from error
                raise CommandFailed(
                    order.target,
                    order.command,
                    "none",
                    f"the server would not run it: {error}",
                    "Check what its sshd_config and authorized_keys restrict for this user",
                ) from error
        return _Running(connection, channel, order).answer()
    finally:
        close_channel(channel)


def close_channel(channel: paramiko.Channel) -> None:
    """Close the channel; one whose connection is gone is closed already."""
    with contextlib.suppress(paramiko.SSHException, OSError, EOFError):
        channel.close()


def closed_at(deadline: Deadline, channel: paramiko.Channel) -> AbstractContextManager[None]:
    """Close the channel at the deadline, which wakes whatever paramiko waits for without one."""
    return called_at(deadline, partial(close_channel, channel))


def _lost(order: Order, why: object) -> AnswerLost:
    if order.deadline.is_over:
        why = f"no end of it within {order.deadline}"
    return AnswerLost(order.target, order.command, str(why) or "the connection was lost")


class _Running:
    """A command that has been sent: feeds it, drains it, waits for its end."""

    def __init__(self, connection: Connection, channel: paramiko.Channel, order: Order) -> None:
        self._connection, self._channel, self._order = connection, channel, order
        self._pending = memoryview(order.stdin or b"")
        self._has_sent_all = False
        self._stdout = BoundedOutput(order.output_max_bytes)
        self._stderr = BoundedOutput(order.output_max_bytes)
        self._prompts = Prompts()
        self._has_answered = order.sudo is None or order.sudo.password is None
        self._asked_until = time.monotonic() + PROMPT_SECONDS
        if order.sudo is not None and order.sudo.never_asks:
            self._asked_until = 0.0
        self._lines = Lines(order.heard, is_at_once=order.is_change)
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
            self._stop_at_deadline()
            wait = FEEDING_SECONDS if self._pending and self._has_answered else GLANCE_SECONDS
            self._poll.poll(1000 * min(wait, self._order.deadline.seconds_left))
        while self._drain():
            self._stop_at_deadline()
        exit_code = self._exit_code()
        self._stderr.add(self._prompts.rest())
        self._lines.end()
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
            is_through_sudo=self._order.sudo is not None,
            times_asked=self._prompts.seen,
        )

    def _stop_at_deadline(self) -> None:
        if not self._order.deadline.is_over:
            return
        if not self._order.is_change:
            self._ask_to_end()
        raise _lost(self._order, "")

    def _ask_to_end(self) -> None:
        """Have sshd end it (OpenSSH 7.9 and later, where the login is not root)."""
        if self._connection.clear_to_send.is_set():
            request = Message()
            request.add_byte(cMSG_CHANNEL_REQUEST)
            request.add_int(self._channel.remote_chanid)
            request.add_string("signal")
            request.add_boolean(False)  # noqa: FBT003 (no answer is wanted)
            request.add_string("TERM")
            with contextlib.suppress(paramiko.SSHException, OSError, EOFError):
                self._connection.packetizer.send_message(request)

    def _feed(self) -> None:
        """Write as much of the input as is taken without waiting, then end it."""
        if not self._has_answered and not self._answer_sudo():
            return
        with contextlib.suppress(OSError):  # it did not care to read: its exit code tells the rest
            while self._pending and self._channel.send_ready():
                sent = self._channel.send(bytes(self._pending[:CHUNK_BYTES]))
                self._pending = self._pending[sent:]
            if not self._pending and not self._has_sent_all:
                self._has_sent_all = True
                self._channel.shutdown_write()

    def _answer_sudo(self) -> bool:
        """Give sudo the password once it asks; whether it has it, or will not ask."""
        sudo = self._order.sudo
        if sudo is None or sudo.password is None:
            return True
        if self._prompts.seen:
            self._pending = memoryview(
                sudo.password.reveal().encode() + b"\n" + bytes(self._pending)
            )
        elif time.monotonic() < self._asked_until:
            return False
        self._has_answered = True
        return True

    def _drain(self) -> bool:
        """Take what has come; whether there was any."""
        has_any = False
        if self._channel.recv_ready():
            chunk = self._channel.recv(CHUNK_BYTES)
            if self._order.sink is None:
                self._stdout.add(chunk)
                self._lines.add("stdout", chunk)
            else:
                self._order.sink.write(chunk)
            has_any = True
        if self._channel.recv_stderr_ready():
            chunk = self._channel.recv_stderr(CHUNK_BYTES)
            if self._order.sudo is not None:
                chunk = self._prompts.without(chunk)
            self._stderr.add(chunk)
            self._lines.add("stderr", chunk)
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
        self._connection.join(0.5)
        if not self._connection.is_active():
            why = "the connection was lost in mid-command"
            because = self._connection.lost_because
            raise _lost(self._order, f"{why}: {because}" if because else why)
        raise CommandFailed(
            self._order.target,
            self._order.command,
            "none",
            f"it was ended by a signal {str(self._stderr).strip()}",
            "Find out who ended it (out of memory? a restart?), then resume",
        )

"""What paramiko reads from and writes to in place of a socket: it notices a peer that is gone.

Below is a TCP connection, or a channel through a jump host. TCP alone is not enough: a host behind
a jump host, or one that is frozen while its kernel still acknowledges, would never be missed.
"""

import contextlib
import errno
import os
import socket
import threading
import time

import paramiko
from paramiko.common import cMSG_GLOBAL_REQUEST
from paramiko.message import Message

CHUNK_BYTES = 1 << 16
TICK_SECONDS = 1.0  # paramiko looks for what else there is to do at least this often
UNANSWERED_MAX = 3  # that many questions in a row without a sign of life: the peer is gone
BLOCKED_SECONDS = 60.0  # nothing at all is taken from us for so long


class Wire:
    """A socket-like object for `paramiko.Transport`, with larger reads and a pulse."""

    def __init__(self, below: socket.socket | paramiko.Channel, keepalive_seconds: float) -> None:
        self._below = below
        self._keepalive_seconds = keepalive_seconds
        self._transport: paramiko.Transport | None = None
        self._buffer, self._read = b"", 0
        self._due = 0.0
        self._unanswered = 0
        self._heard = threading.Event()
        self._closing = threading.Lock()
        self._closed = False  # paramiko looks for this name
        self.lost_because = ""
        self._process = os.getpid()
        tick = min(TICK_SECONDS, keepalive_seconds / 2) if keepalive_seconds else TICK_SECONDS
        below.settimeout(tick)

    def watch(self, transport: paramiko.Transport) -> None:
        """Ask for a sign of life from now on, whenever none has come for a while."""
        if self._keepalive_seconds:
            self._due = time.monotonic() + self._keepalive_seconds
            self._transport = transport

    def hears(self, transport: paramiko.Transport, seconds: float) -> bool:
        """Whether the peer gives a sign of life by then."""
        self._heard.clear()
        return _ask(transport) and self._heard.wait(seconds) and not self._closed

    def settimeout(self, seconds: float) -> None:
        """Keep our own: paramiko would wake ten times a second."""

    def recv(self, size: int) -> bytes:
        """Return up to `size` bytes.

        Raises:
            TimeoutError: nothing yet; paramiko asks again.
            ConnectionAbortedError: the peer is gone.
        """
        if self._read >= len(self._buffer):
            self._buffer, self._read = self._receive(), 0
        chunk = self._buffer[self._read : self._read + size]
        self._read += len(chunk)
        return chunk

    def send(self, data: bytes) -> int:
        """Write what is taken of it.

        Raises:
            ConnectionAbortedError: nothing was taken for a long time.
        """
        blocked_until = time.monotonic() + BLOCKED_SECONDS
        while True:
            try:
                return self._below.send(data)
            except TimeoutError:
                if self._closed or time.monotonic() >= blocked_until:
                    raise self._aborted("it takes nothing any more") from None

    def close(self) -> None:
        """Close what is below, and wake who waits for it."""
        with self._closing:
            if self._closed:
                return
            self._closed = True
        self._heard.set()
        if os.getpid() == self._process:  # else it is that of the parent, who goes on using it
            with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
                self._below.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            self._below.close()

    def _receive(self) -> bytes:
        try:
            chunk = self._below.recv(CHUNK_BYTES)
        except TimeoutError as error:
            if error.errno is not None:  # ETIMEDOUT, from the kernel: it gave the connection up
                raise self._aborted("the network gave it up") from error
            self._miss()
            raise
        self._heard.set()
        self._unanswered = 0
        self._due = time.monotonic() + self._keepalive_seconds
        return chunk

    def _miss(self) -> None:
        """Ask for a sign of life where one is due; give up after several in vain.

        Counted, not timed: a worker that was itself paused asks again before it gives up.
        """
        transport = self._transport
        if transport is None or time.monotonic() < self._due:
            return
        if self._unanswered >= UNANSWERED_MAX:
            waited = (UNANSWERED_MAX + 1) * self._keepalive_seconds
            raise self._aborted(f"no sign of life for {waited:g} s")
        _ask(transport)
        self._unanswered += 1
        self._due = time.monotonic() + self._keepalive_seconds

    def _aborted(self, why: str) -> ConnectionAbortedError:
        self.lost_because = why
        return ConnectionAbortedError(errno.ECONNABORTED, why)


def _ask(transport: paramiko.Transport) -> bool:
    """Send a question that is answered at once, whatever the answer is; whether it was sent."""
    if not transport.clear_to_send.is_set():
        return True  # in the middle of an exchange of keys, which is a sign of life itself
    question = Message()
    question.add_byte(cMSG_GLOBAL_REQUEST)
    question.add_string("keepalive@openssh.com")
    question.add_boolean(True)  # noqa: FBT003 (an answer is wanted; any will do)
    try:
        transport.packetizer.send_message(question)
    except (OSError, EOFError, paramiko.SSHException):
        return False
    return True

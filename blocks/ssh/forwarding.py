"""A local unix socket that leads through an SSH connection to an address as the host sees it."""

import contextlib
import shutil
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import paramiko

from blocks.ssh.connection import Via, open_tcp
from blocks.ssh.deadline import Deadline
from recovery.errors import RecoveryError

CHUNK_BYTES = 1 << 16
WAITING_MAX = 64
FOLDER_CHARS_MAX = 60  # the path of a unix socket has 107 at most


@contextlib.contextmanager
def forward(via: Via, place: tuple[str, int], within_seconds: float) -> Iterator[Path]:
    """Lead a unix socket in a private folder to an address behind a connection.

    The first channel is opened at once, so that what forbids it is an error here and not one of
    whoever connects. What later connections fail with is raised at the end if the block failed too.

    Raises:
        Refused: sshd forbids forwarding.
        Unreachable: nothing listens there, or the host gives no answer.
    """
    forwarding = _Forwarding(via, place, within_seconds)
    base = tempfile.gettempdir()
    is_long = len(base) > FOLDER_CHARS_MAX
    folder = Path(tempfile.mkdtemp(prefix="recover-", dir="/tmp" if is_long else base))  # noqa: S108
    try:
        path = folder / f".s.PGSQL.{place[1]}"
        forwarding.listen(path)
        yield path
    except Exception as error:
        if forwarding.failure is not None and not isinstance(error, RecoveryError):
            raise forwarding.failure from error
        raise
    finally:
        forwarding.close()
        shutil.rmtree(folder, ignore_errors=True)


class _Forwarding:
    """Accepts on the socket and pumps each connection through a channel of its own."""

    def __init__(self, via: Via, place: tuple[str, int], within_seconds: float) -> None:
        self._via, self._place, self._within_seconds = via, place, within_seconds
        self._spare: paramiko.Channel | None = self._channel()
        self._listener = socket.socket(socket.AF_UNIX)
        self._open: set[socket.socket | paramiko.Channel] = set()
        self._lock = threading.Lock()
        self._is_over = False
        self.failure: RecoveryError | None = None

    def listen(self, path: Path) -> None:
        """Accept connections from now on."""
        self._listener.bind(str(path))
        self._listener.listen(WAITING_MAX)
        threading.Thread(target=self._accept, daemon=True, name="ssh-forward").start()

    def close(self) -> None:
        """End the listening and every connection."""
        with self._lock:
            self._is_over = True
            ending = [*self._open, *([self._spare] if self._spare else [])]
        for end in (self._listener, *ending):
            _end(end)

    def _channel(self) -> paramiko.Channel:
        return open_tcp(self._via, self._place, Deadline(self._within_seconds))

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # it was closed
            while True:
                connection, _ = self._listener.accept()
                name = "ssh-forwarded"
                threading.Thread(
                    target=self._serve, args=(connection,), daemon=True, name=name
                ).start()

    def _serve(self, connection: socket.socket) -> None:
        with self._lock:
            channel, self._spare = self._spare, None
        try:
            if channel is None or channel.closed or channel.eof_received:
                channel = self._channel()
        except RecoveryError as error:
            self.failure = error
            _end(connection)
            return
        with self._lock:
            self._open |= set() if self._is_over else {connection, channel}
        if self._is_over:
            _end(connection)
        try:
            _pump(connection, channel)
        finally:
            with self._lock:
                self._open -= {connection, channel}
            _end(channel)
            _end(connection)


def _end(end: socket.socket | paramiko.Channel) -> None:
    with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
        if isinstance(end, socket.socket):
            end.shutdown(socket.SHUT_RDWR)  # wakes who waits for it, which closing does not
    with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
        end.close()


def _pump(connection: socket.socket, channel: paramiko.Channel) -> None:
    """Carry bytes both ways until both have ended, or one of them breaks."""
    there = threading.Thread(
        target=_carry, args=(connection, channel), daemon=True, name="ssh-forward-there"
    )
    there.start()
    _carry(channel, connection)
    there.join()


def _carry(
    source: socket.socket | paramiko.Channel, sink: socket.socket | paramiko.Channel
) -> None:
    try:
        while chunk := source.recv(CHUNK_BYTES):
            sink.sendall(chunk)
        sink.shutdown(socket.SHUT_WR)
    except (OSError, EOFError, paramiko.SSHException):  # one side broke: so must the other
        _end(source)
        _end(sink)

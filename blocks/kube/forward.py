"""A local unix socket that leads to a port of a pod, for clients of databases that run in pods."""

import contextlib
import select
import shutil
import socket
import ssl
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from websocket import WebSocketException

from blocks.kube.exec import Place
from blocks.kube.path import with_query
from blocks.kube.session import KubernetesSession
from blocks.kube.stream import CHUNK_BYTES, V4, PodStream, StreamOrder, open_stream
from recovery.commands import reading
from recovery.errors import CommandFailed, RecoveryError, Unreachable

DATA, ERRORS = 0, 1
PORT_BYTES = 2  # each channel begins with the number of its port
WAITING_MAX = 16
FOLDER_CHARS_MAX = 60  # the path of a unix socket has 107 at most
SETTLE_SECONDS = 0.5
NOBODY_LISTENS = "See the log of the container, and which port it listens on"


@contextlib.contextmanager
def forward_to_pod(
    session: KubernetesSession, place: Place, port: int, *, within_seconds: float
) -> Iterator[Path]:
    """Lead a unix socket in a private folder to a port of a pod until the end of the block.

    It is named as clients of PostgreSQL look for it; others take its whole path. One connection is
    opened at once and closed, so that what forbids it is an error here. What later ones fail with
    is raised at the end if the block failed too.

    Raises:
        ClusterForbidden: the account may not; the remedy holds the rule for `pods/portforward`.
        ClusterNotFound, ClusterRejected: there is no such pod, or it does not run.
        CommandFailed: nothing listens there.
        Unreachable: no answer.
    """
    forwarding = _Forwarding(session, place, port, time.monotonic() + within_seconds)
    base = tempfile.gettempdir()
    is_long = len(base) > FOLDER_CHARS_MAX
    folder = Path(tempfile.mkdtemp(prefix="recover-", dir="/tmp" if is_long else base))  # noqa: S108
    try:
        with reading(forwarding.command, session.label) as call:
            forwarding.refuse_if_nobody_listens()
            call.answer = "it listens"
        path = folder / f".s.PGSQL.{port}"
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
    """Accepts on the socket and pumps each connection through a stream of its own."""

    def __init__(self, session: KubernetesSession, place: Place, port: int, ends: float) -> None:
        self._session, self._port, self._ends = session, port, ends
        self._path = with_query(f"{place.pod_path}/portforward", ports=port)
        self.command = f"PORT-FORWARD {place.namespace}/{place.pod} {port}"
        self._listener = socket.socket(socket.AF_UNIX)
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self.failure: RecoveryError | None = None

    def refuse_if_nobody_listens(self) -> None:
        """Open a stream: what is wrong with the port comes on its second channel, soon."""
        with self._stream() as stream:
            stream.ends = min(stream.ends, time.monotonic() + SETTLE_SECONDS)
            with contextlib.suppress(Unreachable):  # silence is what a port that listens may do
                if (received := _received(stream)) is not None:
                    self._refuse_error(*received)

    def listen(self, path: Path) -> None:
        """Accept connections from now on."""
        self._listener.bind(str(path))
        self._listener.listen(WAITING_MAX)
        threading.Thread(target=self._accept, daemon=True, name="pod-forward").start()

    def close(self) -> None:
        """End the listening and every connection."""
        with self._lock:
            ending = [self._listener, *self._open]
        for one in ending:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _stream(self) -> contextlib.AbstractContextManager[PodStream]:
        left = max(0.1, self._ends - time.monotonic())
        order = StreamOrder(self._path, self.command, left, protocols=(V4,))
        return open_stream(self._session, order)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # it was closed
            while True:
                local, _ = self._listener.accept()
                with self._lock:
                    self._open.add(local)
                pumping = threading.Thread(target=self._pump, args=(local,), daemon=True)
                pumping.start()

    def _pump(self, local: socket.socket) -> None:
        """Pass on both ways in one thread: a TLS connection of Python stands no second one."""
        try:
            with self._stream() as stream:
                while (ready := self._ready(local, stream)) != set():
                    if local in ready:
                        if not (piece := local.recv(CHUNK_BYTES)):
                            return  # no half of a stream can be closed
                        stream.send(DATA, piece)
                    if stream.socket.sock in ready:
                        if (received := stream.receive()) is None:
                            return
                        if piece := _told(stream, *received):
                            self._refuse_error(received[0], piece)
                            local.sendall(piece)
        except RecoveryError as error:
            self.failure = error
        except (OSError, WebSocketException):  # one of the sides has closed
            return
        finally:
            with self._lock:
                self._open.discard(local)
            with contextlib.suppress(OSError):
                local.shutdown(socket.SHUT_RDWR)
            local.close()

    def _ready(self, local: socket.socket, stream: PodStream) -> set[socket.socket]:
        """Which of the two sides has something to tell; none once the time is over."""
        wire = stream.socket.sock
        if isinstance(wire, ssl.SSLSocket) and wire.pending():  # read from the network already
            return {wire}
        left = max(0.0, self._ends - time.monotonic())
        return set(select.select([wire, local], [], [], left)[0])

    def _refuse_error(self, channel: int, piece: bytes) -> None:
        if channel == ERRORS:
            said = piece.decode(errors="replace")
            label = self._session.label
            raise CommandFailed(label, self.command, "no connection", said, NOBODY_LISTENS)


def _received(stream: PodStream) -> tuple[int, bytes] | None:
    """The next piece that is none of the two that say which port a channel is of."""
    while (received := stream.receive()) is not None:
        if piece := _told(stream, *received):
            return received[0], piece
    return None


def _told(stream: PodStream, channel: int, piece: bytes) -> bytes:
    """What a piece tells; nothing where it only says which port its channel is of."""
    is_greeting = len(piece) == PORT_BYTES and channel not in stream.greeted
    stream.greeted.add(channel)
    return b"" if is_greeting else piece

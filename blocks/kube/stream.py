"""A stream into a pod: the websocket that exec and port-forward are made of.

The official client's own stream sends no impersonation, so that it would act as somebody else than
was asked for, and its handshake has no deadline. So the same websocket library is used here with
that client's configuration, every header that a request has, and a deadline.
"""

import ssl
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from websocket import (
    ABNF,
    WebSocket,
    WebSocketAddressException,
    WebSocketBadStatusException,
    WebSocketConnectionClosedException,
    WebSocketException,
    WebSocketProxyException,
    WebSocketTimeoutException,
)

from blocks.kube.answer import Answer, Question, refuse_bad_answer
from blocks.kube.path import asked_by
from blocks.kube.session import KubernetesSession
from recovery.errors import AnswerLost, CommandFailed, Unreachable
from recovery.secrecy.redaction import redacted_head

CONNECT_SECONDS = 10.0
CHUNK_BYTES = 1 << 15
CLOSES = 255  # the channel of v5 that ends another one
V5, V4 = "v5.channel.k8s.io", "v4.channel.k8s.io"
OF_A_GATEWAY = {502, 504}  # which does not know whether the command was begun behind it
NEVER_SENT = (
    ConnectionRefusedError,
    ssl.SSLError,
    WebSocketAddressException,
    WebSocketProxyException,
)


@dataclass
class PodStream:
    """An open stream of numbered channels, up to a moment of the monotonic clock.

    `greeted` are the channels of a port-forward that have said which port they are of.
    """

    socket: Any
    label: str
    command: str
    ends: float
    is_change: bool
    greeted: set[int] = field(default_factory=set)

    @property
    def has_ends_of_input(self) -> bool:
        """Whether the pod can be told that there is no more to read (Kubernetes 1.30 and later)."""
        return bool(self.socket.subprotocol == V5)

    def receive(self) -> tuple[int, bytes] | None:
        """The next piece and its channel; `None` once the other side has closed.

        Raises:
            Unreachable, AnswerLost: the deadline came first, or the connection broke.
        """
        while True:
            left = self.ends - time.monotonic()
            if left <= 0:
                raise self.lost("it did not end in time")
            self.socket.settimeout(left)
            try:
                kind, piece = self.socket.recv_data()
            except WebSocketTimeoutException:
                continue
            except WebSocketConnectionClosedException:
                return None
            except (WebSocketException, OSError) as error:
                raise self.lost(redacted_head(str(error), 500)) from error
            if kind == ABNF.OPCODE_CLOSE:
                return None
            if piece:
                return piece[0], bytes(piece[1:])

    def send(self, channel: int, piece: bytes) -> None:
        """Send a piece; what breaks while it is sent is told by `receive`."""
        self.socket.send_binary(bytes([channel]) + piece)

    def end_input(self, channel: int = 0) -> None:
        """Tell that nothing more comes, where that can be told."""
        if self.has_ends_of_input:
            self.send(CLOSES, bytes([channel]))

    def lost(self, seen: str) -> Unreachable:
        """The error of a stream that did not end as it should."""
        kind = AnswerLost if self.is_change else Unreachable
        return kind(self.label, self.command, seen)


@dataclass(frozen=True)
class StreamOrder:
    """Which stream is wanted: the path of a pod with its query, and its text in messages."""

    path: str
    command: str
    within_seconds: float
    is_change: bool = False
    protocols: Sequence[str] = (V5, V4)


@contextmanager
def open_stream(session: KubernetesSession, order: StreamOrder) -> Iterator[PodStream]:
    """Open a stream on a path of a pod, as the account of the session.

    Raises:
        ClusterForbidden: the account may not; the remedy holds the Role that grants it.
        ClusterNotFound, ClusterRejected, ClusterLoginRefused: see there.
        Unreachable: no answer in time, or the kubelet of the pod's node gave none.
        AnswerLost: a change was asked for, and it may have been begun.
        CommandFailed: the certificate of the API is not trusted.
    """
    ends = time.monotonic() + order.within_seconds
    path, command = order.path, order.command
    configuration = session.wire.access.client.configuration
    socket: Any = WebSocket(sslopt=_tls(configuration), enable_multithread=True)
    try:
        socket.connect(
            _address(session.wire.access.server) + path,
            header=_headers(session, path),
            timeout=min(CONNECT_SECONDS, order.within_seconds),
            subprotocols=list(order.protocols),
            suppress_origin=True,
            **_proxy(configuration),
        )
    except WebSocketBadStatusException as error:
        body: Any = error.resp_body or b""
        text = body.decode(errors="replace") if isinstance(body, bytes) else str(body)
        is_lost = order.is_change and error.status_code in OF_A_GATEWAY
        question = Question(session.label, command, asked_by("GET", path), is_change=is_lost)
        refuse_bad_answer(question, Answer(error.status_code, text))
        raise Unreachable(session.label, command, f"status {error.status_code}") from error
    except ssl.SSLCertVerificationError as error:
        raise CommandFailed(
            session.label, command, "TLS", redacted_head(str(error), 500)
        ) from error
    except (WebSocketException, OSError) as error:
        is_lost = order.is_change and not isinstance(error, NEVER_SENT)
        kind = AnswerLost if is_lost else Unreachable
        raise kind(
            session.label, command, redacted_head(str(error), 500) or type(error).__name__
        ) from error
    try:
        yield PodStream(socket, session.label, command, ends, order.is_change)
    finally:
        with suppress(WebSocketException, OSError):
            socket.close(timeout=1)


def _address(server: str) -> str:
    parts = urlsplit(server)
    scheme = "wss" if parts.scheme == "https" else "ws"
    return f"{scheme}://{parts.netloc}{parts.path.rstrip('/')}"


def _headers(session: KubernetesSession, path: str) -> list[str]:
    access = session.wire.access
    headers: dict[str, str] = dict(access.client.default_headers)
    access.client.update_params_for_auth(headers, [], ["BearerToken"], path, "GET", None)
    lines = [f"{name}: {value}" for name, value in headers.items()]
    return lines + [f"Impersonate-Group: {group}" for group in access.groups]


def _tls(configuration: Any) -> dict[str, Any]:
    """The options of TLS, as the official client's own stream makes them."""
    if not configuration.verify_ssl:
        return {"cert_reqs": ssl.CERT_NONE, "check_hostname": False, **_pair(configuration)}
    options: dict[str, Any] = {"cert_reqs": ssl.CERT_REQUIRED, **_pair(configuration)}
    if configuration.ssl_ca_cert:
        options["ca_certs"] = configuration.ssl_ca_cert
    if configuration.assert_hostname is not None:
        options["check_hostname"] = bool(configuration.assert_hostname)
    if configuration.tls_server_name:
        options["server_hostname"] = configuration.tls_server_name
    return options


def _pair(configuration: Any) -> dict[str, str]:
    pair = {"certfile": configuration.cert_file, "keyfile": configuration.key_file}
    return {name: str(path) for name, path in pair.items() if path}


def _proxy(configuration: Any) -> dict[str, Any]:
    if not configuration.proxy:
        return {}
    parts = urlsplit(str(configuration.proxy))
    options: dict[str, Any] = {"http_proxy_host": parts.hostname, "http_proxy_port": parts.port}
    options["proxy_type"] = "http"
    if configuration.no_proxy:
        options["http_no_proxy"] = str(configuration.no_proxy).split(",")
    if parts.username:
        options["http_proxy_auth"] = (parts.username, parts.password or "")
    return options

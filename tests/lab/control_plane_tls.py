"""TLS as the stand-ins of a control plane speak it: servers that keep what they loaded, clients.

A real API server asks for a client certificate and judges it after the handshake, so that one
that has expired is answered with 401. So it is here. One of another authority is turned away in
the handshake, because Python cannot ask for a certificate without having OpenSSL judge it.
"""

import base64
import contextlib
import http.client
import json
import ssl
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

NO_CHECK_TIME = 0x200000  # X509_V_FLAG_NO_CHECK_TIME, to which Python gives no name
HANDSHAKE_SECONDS = 10


@dataclass(frozen=True)
class Identity:
    """Who a client says it is by its certificate; nobody where it showed none."""

    name: str = ""
    groups: tuple[str, ...] = ()
    ends_at: datetime | None = None

    @property
    def has_expired(self) -> bool:
        """Whether the certificate is no good any more."""
        return self.ends_at is not None and datetime.now(UTC) > self.ends_at

    @classmethod
    def of(cls, shown: dict[str, Any] | None) -> "Identity":
        """Read what `SSLSocket.getpeercert` returns."""
        if not shown:
            return cls()
        subject = [pair for part in shown["subject"] for pair in part]
        seconds = ssl.cert_time_to_seconds(shown["notAfter"])
        return cls(
            next((value for key, value in subject if key == "commonName"), ""),
            tuple(value for key, value in subject if key == "organizationName"),
            datetime.fromtimestamp(seconds, UTC),
        )


def server_context(certificate: str, key: str, client_authority: str = "") -> ssl.SSLContext:
    """Load what a server shows, and the authority of the clients it asks for a certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    if client_authority:
        context.verify_mode = ssl.CERT_OPTIONAL
        context.load_verify_locations(client_authority)
        context.verify_flags |= NO_CHECK_TIME
    return context


@contextlib.contextmanager
def file_of(*pems: bytes) -> Iterator[str]:
    """Hold PEMs in a file for as long as OpenSSL reads them."""
    with tempfile.NamedTemporaryFile("wb") as file:
        file.write(b"".join(pems))
        file.flush()
        yield file.name


class TlsServer(ThreadingHTTPServer):
    """An HTTPS server that asks for its context at each connection."""

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 64

    def __init__(
        self,
        address: tuple[str, int],
        handler: type[BaseHTTPRequestHandler],
        context: Callable[[], ssl.SSLContext],
    ) -> None:
        super().__init__(address, handler)
        self.context = context

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Shake hands in the thread of the connection, so that a slow one delays no other."""
        request.settimeout(HANDSHAKE_SECONDS)
        try:
            secured = self.context().wrap_socket(request, server_side=True)
        except (OSError, ValueError):
            return
        secured.settimeout(60)
        with contextlib.suppress(OSError, ValueError), secured:
            super().finish_request(secured, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that go away."""


class Handler(BaseHTTPRequestHandler):
    """Answers in JSON or text, and knows who asks."""

    protocol_version = "HTTP/1.1"

    @property
    def identity(self) -> Identity:
        """Whose certificate was shown on this connection."""
        shown = self.connection.getpeercert()  # type: ignore[attr-defined]
        return Identity.of(shown)

    def body(self) -> bytes:
        """What was sent."""
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def answer(self, code: int, content: object) -> None:
        """Send an object as JSON, or a text."""
        is_text = isinstance(content, str)
        body = content.encode() if isinstance(content, str) else json.dumps(content).encode()
        self.send_response(code)
        self.send_header("Content-Type", "text/plain" if is_text else "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as it is called
        """Keep quiet."""


def serve(server: TlsServer | ThreadingHTTPServer) -> None:
    """Serve in the background."""
    threading.Thread(target=server.serve_forever, args=(0.2,), daemon=True).start()


class AnswerNo(Exception):
    """The API answered, and said no."""

    def __init__(self, code: int, body: str) -> None:
        super().__init__(code, body)
        self.code = code


@dataclass(frozen=True)
class ApiClient:
    """A client of the API, holding the certificate it was made with."""

    server: str
    context: ssl.SSLContext
    within_seconds: float = 3

    @classmethod
    def of_kubeconfig(cls, path: str) -> "ApiClient":
        """Load a kubeconfig once; a file named in it is read now as well."""
        said = yaml.safe_load(Path(path).read_text())
        contexts = {one["name"]: one["context"] for one in said["contexts"]}
        current = contexts[said["current-context"]]
        cluster = next(c["cluster"] for c in said["clusters"] if c["name"] == current["cluster"])
        user = next(u["user"] for u in said["users"] if u["name"] == current["user"])
        authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
        context = ssl.create_default_context(cadata=authority)
        with file_of(_part(user, "client-certificate"), b"\n", _part(user, "client-key")) as file:
            context.load_cert_chain(file)
        return cls(cluster["server"], context)

    def ask(self, method: str, path: str, body: object = None) -> Any:
        """Send a request and return the JSON of the answer.

        Raises:
            AnswerNo: the API refused.
            OSError: it was not reached.
        """
        parts = urlsplit(self.server)
        connection = http.client.HTTPSConnection(
            parts.hostname or "", parts.port, timeout=self.within_seconds, context=self.context
        )
        try:
            content = None if body is None else json.dumps(body)
            connection.request(method, path, content, {"Content-Type": "application/json"})
            response = connection.getresponse()
            text = response.read().decode()
        except (TimeoutError, http.client.HTTPException) as error:
            raise OSError(str(error)) from error
        finally:
            connection.close()
        if response.status >= http.HTTPStatus.BAD_REQUEST:
            raise AnswerNo(response.status, text)
        return json.loads(text) if text.startswith("{") else text


def _part(user: dict[str, str], name: str) -> bytes:
    if f"{name}-data" in user:
        return base64.b64decode(user[f"{name}-data"])
    return Path(user[name]).read_bytes()

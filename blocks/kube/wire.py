"""One request to a Kubernetes API and its answer, bounded in time and size."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, ClassVar

import urllib3
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    NewConnectionError,
    ProxyError,
    SSLError,
    TimeoutError,  # noqa: A004 (read as urllib3 names it)
)

from blocks.kube.access import Access
from blocks.kube.answer import Answer
from recovery.errors import AnswerLost, CommandFailed, Unreachable
from recovery.secrecy.redaction import redacted_head
from recovery.secrecy.secret import Secret

ANSWER_MAX_BYTES = 256 << 20
CHUNK_BYTES = 1 << 16
CONNECT_SECONDS = 10.0
ESCAPED_BY_GO = "<>&\u2028\u2029"
LINE_MAX_BYTES = 32 << 20
STARTING_SECONDS = 30.0  # until it has read its Roles, an API forbids what they allow
NEVER_SENT = (NewConnectionError, ConnectTimeoutError, ProxyError, SSLError)
NOT_TRUSTED = (
    "Its certificate is not one that the kubeconfig trusts, or ran out: see "
    "docs/runbooks/kubeadm-certificates.md; correct certificate-authority where it was renewed"
)


@dataclass(frozen=True)
class Sent:
    """A request. `command` is its text in messages."""

    method: str
    path: str
    command: str
    body: Any = None
    content_type: str = "application/json"
    within_seconds: float = 30.0
    accept: str = "application/json"

    @property
    def is_change(self) -> bool:
        """Whether it may have changed something when its answer is lost."""
        return self.method != "GET"


class Wire:
    """Sends requests by the official client's connections, credentials and proxies."""

    def __init__(self, access: Access, label: str) -> None:
        self.access, self.label = access, label

    _lost_at: ClassVar[dict[str, float]] = {}  # by server, for all sessions of this process

    @property
    def was_away(self) -> bool:
        """Whether this API was not there a moment ago, and may only just have started."""
        lost_at = self._lost_at.get(self.access.server)
        return lost_at is not None and time.monotonic() - lost_at < STARTING_SECONDS

    def ask(self, sent: Sent) -> Answer:
        """Send a request and return its whole answer, whatever its status.

        Raises:
            Unreachable: it was not sent, or a look was not answered in time.
            AnswerLost: a change was sent, and no whole answer came.
            CommandFailed: the certificate of the API is not trusted.
        """
        ends = time.monotonic() + sent.within_seconds
        with self._told_by_name(sent), self._open(sent) as response:
            received = bytearray()
            for chunk in response.stream(CHUNK_BYTES):  # urllib3 limits the wait for each of them
                received += chunk
                if time.monotonic() > ends or len(received) > ANSWER_MAX_BYTES:
                    kind = AnswerLost if sent.is_change else Unreachable
                    seen = f"the answer did not end ({len(received)} bytes came)"
                    raise kind(self.label, sent.command, seen)
            after = str(response.headers.get("Retry-After", ""))
            return Answer(response.status, received.decode(errors="replace"), after)

    @contextmanager
    def lines(self, sent: Sent, silent_seconds: float) -> Iterator["tuple[int, Iterator[bytes]]"]:
        """Open an answer that is read line by line as it comes, as a watch is.

        Args:
            sent: the request.
            silent_seconds: the longest wait for the next piece.
        """
        with self._told_by_name(sent), self._open(sent, silent_seconds) as response:
            yield response.status, _lines_of(response)

    @contextmanager
    def _open(self, sent: Sent, silent_seconds: float = 0.0) -> Iterator[urllib3.BaseHTTPResponse]:
        client = self.access.client
        headers = {**client.default_headers, "Accept": sent.accept}
        if sent.body is not None:
            headers["Content-Type"] = sent.content_type
        client.update_params_for_auth(
            headers, [], ["BearerToken"], sent.path, sent.method, sent.body
        )
        lines = urllib3.HTTPHeaderDict(headers)
        for group in self.access.groups:  # a line each: joined, they would be one group
            lines.add("Impersonate-Group", group)
        within = silent_seconds or sent.within_seconds
        response = client.rest_client.pool_manager.request(
            sent.method,
            self.access.server + sent.path,
            body=None if sent.body is None else as_the_api_writes(sent.body),
            headers=lines,
            timeout=urllib3.Timeout(connect=min(CONNECT_SECONDS, within), read=within),
            retries=False,
            redirect=False,
            preload_content=False,
        )
        is_whole = False
        try:
            yield response
            is_whole = not silent_seconds
        finally:
            if is_whole:
                response.release_conn()
            else:
                with suppress(HTTPError, OSError):
                    response.close()

    @contextmanager
    def _told_by_name(self, sent: Sent) -> Iterator[None]:
        try:
            yield
        except SSLError as error:
            if "certificate" in str(error).lower():
                told = redacted_head(str(error), 500)
                raise CommandFailed(self.label, sent.command, "TLS", told, NOT_TRUSTED) from error
            raise Unreachable(self.label, sent.command, redacted_head(str(error), 500)) from error
        except (HTTPError, OSError) as error:
            kind = (
                AnswerLost if sent.is_change and not isinstance(error, NEVER_SENT) else Unreachable
            )
            is_slow = isinstance(error, TimeoutError) and not isinstance(error, NewConnectionError)
            if not is_slow:
                self._lost_at[self.access.server] = time.monotonic()
            seen = f"silent for {sent.within_seconds:g} s" if is_slow else _plainly(error)
            raise kind(self.label, sent.command, seen) from error


def as_the_api_writes(body: object) -> bytes:
    """A body in JSON, its texts written out as Go does it: with an escape for `&`, none for `ü`.

    The API compares what a JSON patch tests with what is there as texts of JSON, so that the same
    value, written otherwise, is another one to it (seen in 1.36).
    """
    written = json.dumps(body, default=_revealed, ensure_ascii=False)
    for sign in ESCAPED_BY_GO:  # none of them stands outside of a text
        written = written.replace(sign, f"\\u{ord(sign):04x}")
    return written.encode("utf-8", "backslashreplace")


def _revealed(value: object) -> str:
    """Write out a secret: here, and in no text of the request."""
    if isinstance(value, Secret):
        return value.reveal()
    raise TypeError(f"{type(value).__name__} has no place in a request")


def _plainly(error: BaseException) -> str:
    """An error of urllib3 without the addresses of its objects."""
    text = str(error).rpartition("object at ")[2].partition(": ")[2] or str(error)
    return redacted_head(text or type(error).__name__, 500)


def _lines_of(response: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
    pending = b""
    while chunk := response.read1(CHUNK_BYTES):  # what is there, not a whole piece of this size
        pending += chunk
        *whole, pending = pending.split(b"\n")
        yield from (line for line in whole if line.strip())
        if len(pending) > LINE_MAX_BYTES:
            return
    if pending.strip():
        yield pending

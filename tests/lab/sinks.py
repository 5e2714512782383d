"""Servers that take what is sent to people: a webhook, and a mail server."""

import contextlib
import email
import json
import threading
from collections.abc import Iterator
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from aiosmtpd.controller import Controller

from tests.lab.ports import LOOPBACK, free_port


class WebhookSink:
    """Keeps what was posted, by path. `/hangs` gives no answer while it is up; `/no` says no."""

    def __init__(self) -> None:
        self.received: list[tuple[str, Any]] = []
        self.is_over = threading.Event()
        sink = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.path == "/hangs":
                    sink.is_over.wait()
                    return
                sink.received.append((self.path, json.loads(body)))
                self.send_response(403 if self.path == "/no" else 200)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Stay silent."""

        self.server = ThreadingHTTPServer((LOOPBACK, 0), Handler)
        self.url = f"http://{LOOPBACK}:{self.server.server_port}"

    def at(self, path: str) -> list[Any]:
        """What was posted there."""
        return [body for where, body in self.received if where == path]


@contextlib.contextmanager
def webhook_sink() -> Iterator[WebhookSink]:
    """Run a webhook until the end of the block."""
    sink = WebhookSink()
    thread = threading.Thread(target=sink.server.serve_forever, daemon=True)
    thread.start()
    try:
        yield sink
    finally:
        sink.is_over.set()
        sink.server.shutdown()
        sink.server.server_close()


class MailSink:
    """Keeps the mails it was given; has a name in the form that aiosmtpd asks for."""

    def __init__(self) -> None:
        self.port = free_port()
        self.mails: list[EmailMessage] = []

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802 (the name that aiosmtpd calls)
        if "nobody@lab" in envelope.rcpt_tos:
            return "550 nobody is not here"
        self.mails.append(email.message_from_bytes(envelope.content, policy=email.policy.default))
        return "250 taken"


@contextlib.contextmanager
def mail_sink() -> Iterator[MailSink]:
    """Run a mail server until the end of the block."""
    sink = MailSink()
    controller = Controller(sink, hostname=LOOPBACK, port=sink.port)
    controller.start()
    try:
        yield sink
    finally:
        controller.stop()

"""Asking a Prefect server that is busy for a moment, over a real connection."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from prefect.client import base
from prefect.settings import PREFECT_API_URL, temporary_settings

from operate.alerts.prefect_runs import PrefectRuns, Unanswered
from recovery.errors import Unreachable


class BusyServer(ThreadingHTTPServer):
    """Answers 503 so many times, as Prefect does when two writers of its SQLite meet."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answer)
        self.busy_times, self.asked, self.says_no_with = 0, 0, 503

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/api"


class Answer(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_error(404)  # no tokens against forged requests, as the server is by default

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked += 1
        is_busy = self.server.asked <= self.server.busy_times
        body = b'{"exception_message":"Service Unavailable"}' if is_busy else b"[]"
        self.send_response(self.server.says_no_with if is_busy else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Say nothing."""


@pytest.fixture
def server():
    with BusyServer() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def pauses(monkeypatch):
    """What Prefect's client waits between two tries, s."""
    waited = []
    monkeypatch.setattr(base.time, "sleep", waited.append)
    return waited


def test_a_server_that_is_busy_for_a_moment_is_asked_again_at_once(server, pauses):
    server.busy_times = 2

    with temporary_settings(updates={PREFECT_API_URL: server.url}):
        assert PrefectRuns().find("key") == ""

    assert server.asked == 3
    assert len(pauses) == 2
    assert max(pauses) < 0.5


@pytest.mark.usefixtures("pauses")
def test_a_server_that_stays_busy_is_away(server):
    server.busy_times = 100

    with (
        temporary_settings(updates={PREFECT_API_URL: server.url}),
        pytest.raises(Unreachable, match="503") as raised,
    ):
        PrefectRuns().find("key")

    assert 1 < server.asked < 10
    assert not isinstance(raised.value, Unanswered)


@pytest.mark.parametrize(("status", "is_away"), [(500, False), (403, False), (401, True)])
def test_a_server_that_has_no_answer_to_one_question_is_not_away(server, status, is_away):
    server.busy_times, server.says_no_with = 1, status

    with (
        temporary_settings(updates={PREFECT_API_URL: server.url}),
        pytest.raises(Unreachable, match=str(status)) as raised,
    ):
        PrefectRuns().find("key")

    assert isinstance(raised.value, Unanswered) != is_away

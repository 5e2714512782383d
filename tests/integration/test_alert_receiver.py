"""The HTTP side of the receiver: who may post, what is refused, what no request can do."""

import asyncio
import base64
import contextlib
import hashlib
import hmac
import json
import logging
import time
from functools import partial

import pytest
import schemathesis
from fastapi import Request
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import content_type_conformance, status_code_conformance

from operate.alerts import receiver as receiver_module
from operate.alerts.accepting import Acceptance
from operate.alerts.authentication import Authentication
from operate.alerts.opening import open_alerts
from operate.alerts.pace import Pace, Rate
from operate.alerts.receiver import Gate, make_app
from operate.alerts.routes_file import read_routes
from operate.alerts.serving import Settings
from operate.alerts.turned_away import Turned, TurnedAway
from recovery.errors import BadInput
from recovery.journal.store import JournalUnavailable

TOKEN, PASSWORD, KEY = "t" * 20, "p" * 20, "k" * 20
HELD = [not_a_server_error, status_code_conformance, content_type_conformance]
BEARER = {"Authorization": f"Bearer {TOKEN}"}
ALERT = {"labels": {"alertname": "A"}, "startsAt": "2026-03-01T00:00:00Z"}
BODY = {"version": "4", "status": "firing", "alerts": [ALERT]}
ROUTES = "version: 1\nroutes: []\n"


class Somebody:
    def __init__(self):
        self.told = []

    def tell(self, notice):
        self.told.append(notice)


class Receiver:
    """The application with a store of its own, asked without a network."""

    def __init__(self, folder):
        files = {"bearer": TOKEN, "basic": f"ops:{PASSWORD}\nold:{PASSWORD}2", "hmac": f"{KEY}"}
        for name, text in files.items():
            (folder / name).write_text(f"{text}\n")
        (folder / "routes.yaml").write_text(ROUTES)
        self.store = open_alerts(str(folder / "alerts.sqlite"))
        self.people = Somebody()
        self.acceptance = Acceptance(self.store, read_routes(folder / "routes.yaml"), self.people)
        self.authentication = Authentication(folder / "bearer", folder / "basic", folder / "hmac")
        self.gate = Gate(self.authentication, TurnedAway(self.people), body_bytes_max=100_000)
        self.standing = {"status": "ok", "store": "ok"}
        self.app = make_app(self.acceptance, self.gate, lambda: self.standing)
        self.client = TestClient(self.app, raise_server_exceptions=False)

    def post(self, body=BODY, headers=BEARER, path="/alertmanager"):
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.client.post(path, content=content, headers=headers)

    def kept(self):
        return len(self.store.latest(100))


@pytest.fixture
def receiver(tmp_path):
    made = Receiver(tmp_path)
    yield made
    made.store.close()


def basic(text):
    return {"Authorization": f"Basic {base64.b64encode(text.encode()).decode()}"}


def signed(body, key=KEY, ahead=0):
    at = int(time.time()) + ahead
    content = json.dumps(body).encode()
    digest = hmac.new(key.encode(), f"{at}.".encode() + content, hashlib.sha256).hexdigest()
    return {"X-Recover-Signature": f"t={at},v1={digest}"}


def made_now(headers):
    return headers() if callable(headers) else headers


@pytest.mark.parametrize(
    "headers",
    [
        BEARER,
        {"Authorization": f"bearer {TOKEN}"},
        basic(f"ops:{PASSWORD}"),
        basic(f"old:{PASSWORD}2"),
        partial(signed, BODY),  # at the time of the test, not at that of its collection
    ],
)
def test_who_says_who_they_are_may_post(receiver, headers):
    assert receiver.post(headers=made_now(headers)).status_code == 202
    assert receiver.kept() == 1


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer "},
        {"Authorization": f"Bearer {TOKEN}x"},
        {"Authorization": f"Token {TOKEN}"},
        {"Authorization": b"Bearer \xff\xfe"},
        basic(f"ops:{PASSWORD}x"),
        basic("ops:"),
        {"Authorization": "Basic %%%"},
        partial(signed, {**BODY, "version": "5"}),
        partial(signed, BODY, key="another key of some length"),
        partial(signed, BODY, ahead=-400),
        partial(signed, BODY, ahead=400),
        {"X-Recover-Signature": "t=1,v1="},
    ],
)
def test_nobody_else_may(receiver, headers):
    answer = receiver.post(headers=made_now(headers))

    assert answer.status_code == 401
    assert "WWW-Authenticate" in answer.headers
    assert receiver.kept() == 0


def test_a_token_counts_from_when_it_is_in_the_file_to_when_it_is_taken_out(receiver, tmp_path):
    (tmp_path / "bearer").write_text(f"{TOKEN}\n{'n' * 20}\n")
    both = [receiver.post(headers={"Authorization": f"Bearer {one * 20}"}) for one in "tn"]
    (tmp_path / "bearer").write_text(f"{'n' * 20}\n")
    later = [receiver.post(headers={"Authorization": f"Bearer {one * 20}"}) for one in "tn"]

    assert [answer.status_code for answer in both + later] == [202, 202, 401, 202]


def test_no_secret_is_in_the_log(receiver, caplog):
    caplog.set_level(logging.DEBUG)

    receiver.post(headers=basic(f"ops:{PASSWORD}x"))

    assert PASSWORD not in caplog.text


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"[" * 90_000, 400),
        ({"alerts": []}, 202),
        ({"text": "foreign"}, 400),
        ({"alerts": [{**ALERT, "startsAt": "never"}]}, 400),
        ({"alerts": [ALERT, {**ALERT, "startsAt": "never"}]}, 202),
        (b"x" * 100_001, 413),
        (b" " * 99_000 + b"{}", 400),
    ],
)
def test_a_body_is_taken_or_refused_by_what_is_wrong_with_it(receiver, body, status):
    answer = receiver.post(body)

    assert answer.status_code == status
    if status == 400:
        assert set(answer.json()) == {"field", "error", "remedy"}


def test_a_body_that_does_not_say_how_large_it_is_is_cut_off_too(receiver):
    answer = receiver.client.post(
        "/alertmanager", content=(b"x" * 10_000 for _ in range(50)), headers=BEARER
    )

    assert answer.status_code == 413


def test_a_packed_body_is_not_unpacked(receiver):
    answer = receiver.post(b"\x1f\x8b", {**BEARER, "Content-Encoding": "gzip"})

    assert answer.status_code == 415


@pytest.mark.parametrize("headers", [BEARER, partial(signed, {"text": "foreign"})])
def test_what_a_known_sender_posts_in_vain_is_told_of_once(receiver, headers):
    for _ in range(3):
        receiver.post({"text": "foreign"}, made_now(headers))

    (notice,) = receiver.people.told
    assert notice.severity == "critical"
    assert "HTTP 400" in notice.text


def test_what_is_too_large_is_told_of_where_its_sender_is_known_and_else_not(receiver):
    receiver.post(b"x" * 100_001)
    receiver.post(b"x" * 100_001, signed(BODY))
    receiver.post(b"x" * 100_001, {})

    assert [notice.subject for notice in receiver.people.told] == [
        "alerts of bearer were turned away"
    ]
    assert "HTTP 413" in receiver.people.told[0].text


def test_a_body_that_is_too_slow_is_to_be_sent_again(monkeypatch):
    monkeypatch.setattr(receiver_module, "BODY_WITHIN_SECONDS", 0.01)

    async def never():
        await asyncio.Event().wait()

    with pytest.raises(Turned) as turned:
        asyncio.run(receiver_module._body(Request({"type": "http", "headers": []}, never), 10))

    assert turned.value.status == 503


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content-Type": "application/json"}, 202),
        ({"Content-Type": "application/json; charset=utf-8"}, 202),
        ({"Content-Type": "application/json", "Origin": "http://evil.example"}, 403),
        ({"Content-Type": "text/plain"}, 403),
        ({}, 403),
    ],
)
def test_where_nobody_says_who_they_are_no_web_page_may_post(receiver, headers, status):
    receiver.gate.authentication = Authentication()

    assert receiver.post(headers=headers).status_code == status
    assert receiver.kept() == (status == 202)


def test_one_address_that_proves_nothing_keeps_nobody_else_waiting(receiver):
    receiver.gate.unproven["testclient"] = 2
    busy = receiver.post(headers=signed(BODY)).status_code
    del receiver.gate.unproven["testclient"]
    receiver.gate.strangers = Pace(Rate(1, 0))
    tried = [receiver.post(headers=signed(BODY, key="x" * 20)).status_code for _ in range(2)]

    assert busy == 503
    assert tried == [401, 503]
    assert not receiver.gate.unproven


def test_strangers_are_slowed_down_and_the_known_told_to_send_again(receiver):
    receiver.gate.strangers = Pace(Rate(2, 0))
    receiver.gate.known = Pace(Rate(2, 0))

    strange = [receiver.post(headers={}).status_code for _ in range(4)]
    known = [receiver.post().status_code for _ in range(3)]

    assert strange == [401, 401, 429, 429]
    assert known == [202, 202, 503]  # Alertmanager sends again what was answered with 5xx
    assert receiver.post().headers["Retry-After"]


def test_what_cannot_be_kept_is_to_be_sent_again(receiver, monkeypatch):
    def broken(*_):
        raise JournalUnavailable("alerts.sqlite", "disk is full")

    monkeypatch.setattr(receiver.store, "receive", broken)

    assert receiver.post().status_code == 503
    assert receiver.kept() == 0


def test_health_is_open_and_the_rest_is_not(receiver):
    assert receiver.client.get("/healthz").json() == {"status": "ok", "store": "ok"}
    assert receiver.client.get("/status").status_code == 401
    assert receiver.client.get("/status", headers=BEARER).status_code == 200

    receiver.standing["status"] = "cannot keep alerts"

    assert receiver.client.get("/healthz").status_code == 503


def test_the_interface_is_described_on_a_page_that_needs_nothing_from_elsewhere(receiver):
    page = receiver.client.get("/docs").text

    assert "/alertmanager" in page
    assert "startsAt" in page
    assert "://" not in page
    assert "<script" not in page


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"host": "0.0.0.0"}, "--host"),  # noqa: S104 (that is what is refused)
        ({"host": "::", "without_authentication": True}, "--host"),
        ({"host": "example.org", "without_authentication": True}, "--host"),
        ({}, "--bearer-file"),
        ({"authentication": ("bearer",), "without_authentication": True}, "--without-auth"),
        ({"authentication": ("empty",)}, "--bearer-file"),
        ({"authentication": ("none",)}, "--bearer-file"),
        ({"authentication": ("short",)}, "--bearer-file"),
        ({"authentication": (None, "bearer")}, "--basic-file"),
        ({"authentication": ("bearer",), "certificate": "bearer"}, "--tls-certificate"),
        ({"authentication": ("bearer",), "certificate": "no", "key": "no"}, "--tls-certificate"),
    ],
)
def test_it_does_not_listen_where_it_would_not_be_safe(
    receiver, tmp_path, monkeypatch, given, field
):
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:4200/api")
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "short").write_text("secret\n")
    options = dict(given)
    files = options.pop("authentication", ())
    options["authentication"] = Authentication(*(tmp_path / one if one else None for one in files))
    for name in ("certificate", "key"):
        if name in options:
            options[name] = tmp_path / options[name]

    with pytest.raises(BadInput) as refused:
        Settings(**options).refuse_unsafe()

    assert refused.value.field.startswith(field)
    assert refused.value.remedy


@pytest.fixture(scope="module")
def schema(tmp_path_factory):
    receiver = Receiver(tmp_path_factory.mktemp("schema"))
    receiver.gate.known = Pace(Rate(1e9, 1e9))
    yield schemathesis.openapi.from_asgi("/openapi.json", receiver.app)
    receiver.store.close()


@pytest.mark.parametrize("mode", list(GenerationMode))
def test_no_request_that_the_document_allows_or_forbids_is_answered_with_an_error_of_ours(
    schema, mode
):
    asked = []
    for result in schema.get_all_operations():
        operation = result.ok()

        @settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy(generation_mode=mode))
        def is_answered_as_described(case):
            case.call_and_validate(headers=BEARER, checks=HELD)

        with contextlib.suppress(Unsatisfiable):  # there is nothing wrong to say without a body
            is_answered_as_described()
        asked.append(operation.path)

    assert {"/alertmanager", "/alerts"} <= set(asked)

"""What is read of nginx-proxy, which of them are due, and what no restart mends."""

from dataclasses import replace

import pytest

from recovery.errors import BadInput, NotVerified, Refused
from recovery.verdict import Verdict
from tasks.api_proxy import restarting
from tasks.api_proxy.finding import (
    DueProxy,
    ProxyRestart,
    notes_on,
    proxies_due,
    reasons_against,
    refuse_unless_restarts_help,
    within_of,
)
from tasks.api_proxy.proxy import Proxy, parse_conf
from tasks.api_proxy.restarting import judge_restarted
from tasks.certificates.seen import ApiState, Runtime, RuntimeKind
from tests.lab.api_proxy import conf
from tests.unit.certificates_seen import CRI, NoHost
from tests.unit.certificates_told import Told

WELL = Proxy(
    "w1",
    manifest="/etc/kubernetes/manifests/nginx-proxy.yml",
    runtime=CRI,
    is_kubelet_active=True,
    has_openssl=True,
    pods=("old",),
    started_at=200.0,
    written_at=100.0,
    listens="127.0.0.1:6443",
    answers=ApiState.READY,
    servers={"10.0.0.1:6443": ApiState.READY, "10.0.0.2:6443": ApiState.CLOSED},
)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (conf(["10.0.0.1", "10.0.0.2"]), ("127.0.0.1:7443", ["10.0.0.1:6443", "10.0.0.2:6443"])),
        (
            conf(["10.0.0.1"]).replace("127.0.0.1:", "0.0.0.0:"),
            ("127.0.0.1:7443", ["10.0.0.1:6443"]),
        ),
        (conf(["10.0.0.1"]).replace("127.0.0.1:", ""), ("127.0.0.1:7443", ["10.0.0.1:6443"])),
        (
            conf(["[fd00::1]"]).replace("127.0.0.1:", "[::]:"),
            ("127.0.0.1:7443", ["[fd00::1]:6443"]),
        ),
        (conf([]), ("", [])),
        ("", ("", [])),
    ],
)
def test_a_configuration_says_where_it_listens_and_leads_to(text, found):
    assert parse_conf(text) == found


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({}, ""),
        ({"unseen": "no answer"}, "cannot be read: no answer"),
        ({"started_at": 0.0}, "does not run"),
        ({"started_at": 99.0}, "serves the older one"),
        ({"answers": ApiState.SILENT}, "the API is silent through it"),
    ],
)
def test_a_proxy_is_unwell_by_what_it_shows(fields, why):
    found = replace(WELL, **fields).why_unwell

    assert (why in found) if why else found == ""


DEAD = {"10.0.0.9:6443": ApiState.SILENT}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"unseen": "no answer"}, "max_fail"),
        ({"manifest": ""}, "Leave it out"),
        ({"is_kubelet_active": False}, "the kubelet is not active"),
        ({"runtime": Runtime(RuntimeKind.NONE)}, "crictl"),
        ({"has_openssl": False}, "openssl"),
        ({"servers": DEAD}, r"10.0.0.9:6443"),
        ({"servers": {}}, "(none)"),
    ],
)
def test_what_no_restart_mends_is_refused_by_name(fields, said):
    odd = replace(WELL, **fields)

    with pytest.raises(Refused) as refused:
        refuse_unless_restarts_help.fn([odd, replace(WELL, host="w2")], 0)

    assert refused.value.target == "w1"
    assert said in str(refused.value)
    assert refuse_unless_restarts_help.fn([odd, replace(WELL, host="w2")], 1) is None
    assert proxies_due.fn([odd], is_ordered=True) == []


def test_however_many_may_fail_one_host_must_be_left():
    with pytest.raises(Refused):
        refuse_unless_restarts_help.fn([replace(WELL, manifest="")], 5)


def test_those_are_due_that_do_not_serve_or_all_on_order():
    old = replace(WELL, host="w2", started_at=50.0)

    assert [one.host for one in proxies_due.fn([WELL, old], is_ordered=False)] == ["w2"]
    assert [one.host for one in proxies_due.fn([WELL, old], is_ordered=True)] == ["w1", "w2"]


def test_dead_servers_are_noted_where_others_live():
    assert reasons_against(WELL) == []
    assert notes_on([WELL]) == []
    (note,) = notes_on([replace(WELL, servers={**WELL.servers, **DEAD})])
    assert "10.0.0.9:6443" in note


@pytest.mark.parametrize(
    ("was_well", "fields", "verdict"),
    [
        (False, {"started_at": 0.0}, Verdict.NOT_DONE),
        (False, {}, Verdict.DONE),
        (True, {}, Verdict.NOT_DONE),
        (True, {"pods": ("new",)}, Verdict.DONE),
    ],
)
def test_a_restart_is_done_when_another_one_serves(was_well, fields, verdict):
    due = DueProxy("w1", CRI, ("old",), was_well, "why")

    assert judge_restarted(ProxyRestart(NoHost(), due, 60), replace(WELL, **fields)) is verdict


def test_no_time_at_all_is_no_time():
    with pytest.raises(BadInput, match="within_seconds"):
        within_of(0.5)


def test_a_proxy_is_not_taken_down_once_no_api_server_answers_any_more(monkeypatch):
    monkeypatch.setattr(restarting, "looked_at", lambda _: replace(WELL, servers=DEAD))
    due = DueProxy("w1", CRI, ("old",), was_well=True, why="why")

    with pytest.raises(Refused, match="no API server answers"):
        restarting.refuse_unless_it_would_serve(ProxyRestart(NoHost(), due, 1))


def test_a_proxy_that_does_not_serve_in_time_is_told(monkeypatch):
    monkeypatch.setattr(restarting, "look_at_proxy", lambda _: replace(WELL, started_at=0.0))
    due = DueProxy("w1", CRI, ("old",), was_well=False, why="why")

    with pytest.raises(NotVerified, match="it does not run"):
        restarting.restart_proxy.fn(ProxyRestart(Told(), due, 0.0))


def test_a_proxy_that_was_left_alone_and_does_not_serve_ends_it(monkeypatch):
    monkeypatch.setattr(restarting, "looked_at", lambda _: replace(WELL, unseen="no answer"))

    with pytest.raises(NotVerified, match="no answer"):
        restarting.proxy_serves.fn(NoHost())

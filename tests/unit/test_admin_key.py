"""Whether a lost admin key is reason enough: what is typed, counted and read."""

import inspect
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

import flows.admin_key
from blocks.kube.session import LogOrder
from recovery.errors import BadInput, Refused, UnreadableOutput
from recovery.secrecy.secret import isolated_registry
from recovery.steps import ask
from recovery.walk import Fence
from tasks.admin_key import asking, finding, key_log
from tasks.admin_key.asking import COUNTS, counting, read_counts
from tasks.admin_key.changing import keep_volume, remove_claim
from tasks.admin_key.key_log import refuse_if_the_key_may_be_good
from tasks.admin_key.order import (
    AdminKeyForm,
    KeyWish,
    Login,
    admin_key_order,
    admin_key_parts,
    more_than_fresh,
)
from tasks.admin_key.stopping import stop_as_agreed

GIVEN = {
    "cluster": "in-cluster:?name=lab",
    "namespace": "vantiq",
    "client": "statefulset/vantiq",
    "databases": None,
    "keycloak": "https://admin@sso.example.net/auth?password_file=/run/keys/sso",
    "realm": "vantiq",
    "role": "system-admin",
    "baseline": ["vantiq.namespaces=1"],
    "login": Login(),
    "key": KeyWish(r"key: (\S+)", "/run/keys/new"),
    "confirm": "erase vantiq of lab",
    "declared_by": "kim",
    "window": "2026-11-20T22:00Z/2026-11-21T02:00+00:00",
}


def an_order(**given):
    return admin_key_order(AdminKeyForm(**{**GIVEN, **given}))


def test_everything_that_is_typed_is_read():
    order = an_order()

    assert order.baseline == {"vantiq.namespaces": 1}
    assert [one.name for one in order.databases] == ["mongodb"]
    assert order.consent.is_open(datetime(2026, 11, 21, 1, tzinfo=UTC))
    assert not order.consent.is_open(datetime(2026, 11, 21, 2, tzinfo=UTC))
    assert order.label == "kubernetes://lab/vantiq/mongodb"
    parts = admin_key_parts("in-cluster:?name=lab", "vantiq", None, "vantiq")
    assert parts == ["kubernetes://lab/vantiq/vantiq", "kubernetes://lab/vantiq/mongodb"]


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"databases": []}, "databases"),
        ({"databases": ["deployment/mongodb"]}, "databases"),
        ({"databases": ["mongodb"]}, "databases"),
        ({"databases": ["statefulset/vantiq"]}, "databases"),
        ({"namespace": "shared", "confirm": "erase shared of lab"}, "namespace"),
        ({"role": " "}, "role"),
        ({"declared_by": ""}, "declared_by"),
        ({"confirm": "erase vantiq"}, "confirm"),
        ({"confirm": "erase vantiq of prod"}, "confirm"),
        ({"login": Login("root")}, "database_user"),
        ({"baseline": ["vantiq=1"]}, "baseline"),
        ({"window": "tonight"}, "window"),
        ({"window": "2026-11-20T22:00/2026-11-21T02:00"}, "window"),
        ({"window": "2026-11-20T22:00Z/2026-11-23T02:00Z"}, "window"),
        ({"accept": ["everything"]}, "accept"),
        ({"key": KeyWish("key: .*", "/run/keys/new")}, "key_pattern"),
        ({"key": KeyWish("key: (", "/run/keys/new")}, "key_pattern"),
        ({"key": KeyWish("key: (.*)", "new")}, "key_file"),
    ],
)
def test_what_is_malformed_or_too_wide_is_bad_input(given, field):
    with pytest.raises(BadInput) as wrong:
        an_order(**given)

    assert wrong.value.field == field


@pytest.mark.parametrize(
    ("counts", "told"),
    [
        ({"vantiq.namespaces": 1}, []),
        ({"vantiq.namespaces": 1, "vantiq.types": 0}, []),
        ({}, ["vantiq.namespaces has 0 documents, 1 when fresh"]),
        (
            {"vantiq.namespaces": 1, "app.orders": 3},
            ["app.orders has 3 documents, 0 when fresh"],
        ),
    ],
)
def test_empty_is_exactly_what_a_fresh_installation_has(counts, told):
    assert more_than_fresh(counts, {"vantiq.namespaces": 1}) == told


def test_counts_are_the_last_line_that_was_printed():
    assert read_counts("c", 'Warning: x\n{"vantiq.types":40}\n') == {"vantiq.types": 40}


@pytest.mark.parametrize("printed", ["", "null", "[]", '{"a.b": "many"}', '{"a.b": true}', "error"])
def test_what_is_no_count_is_not_taken_for_none(printed):
    with pytest.raises(UnreadableOutput):
        read_counts("c", printed)


def test_a_password_reaches_the_shell_by_its_input_alone(tmp_path):
    file = tmp_path / "password"
    file.write_text("pa55-0f-the-lab")
    file.chmod(0o600)

    command = counting(an_order(login=Login("root", str(file))))

    assert command.stdin == b"pa55-0f-the-lab\n"
    assert "pa55" not in " ".join(command.argv)
    assert counting(an_order()).argv[-1] == COUNTS


class LogSession:
    """Answers with one pod, and with the logs of its containers."""

    def __init__(self, pod, logs):
        self.pod, self.logs_of, self.orders = pod, logs, []

    def find(self, _):
        return self.pod

    def logs(self, _namespace, _pod, order, learn):
        self.orders.append(order)
        learn(self.logs_of[order.container])
        return self.logs_of[order.container]


def a_pod(age=timedelta(hours=1), **restarts):
    made = datetime.now(UTC) - age
    running = {"running": {"startedAt": made.isoformat()}}
    statuses = [{"name": n, "restartCount": c, "state": running} for n, c in restarts.items()]
    return {
        "metadata": {"name": "vantiq-0", "creationTimestamp": made.isoformat()},
        "spec": {"containers": [{"name": name} for name in restarts]},
        "status": {"containerStatuses": statuses},
    }


def log_line(pod, text, after=timedelta(seconds=1)):
    made = datetime.fromisoformat(pod["metadata"]["creationTimestamp"])
    return f"{(made + after).isoformat()} {text}\n"


@pytest.mark.parametrize("names", [("vantiq", "mesh"), ("mesh", "vantiq")])
def test_a_key_is_found_in_any_container_though_another_has_restarted(names):
    pod = a_pod(**{name: 3 if name == "mesh" else 0 for name in names})
    logs = {"mesh": "", "vantiq": log_line(pod, "key: abcd-efgh-1")}

    with isolated_registry(), pytest.raises(Refused, match="has a key that may still be good"):
        refuse_if_the_key_may_be_good(LogSession(pod, logs), an_order())


def test_a_restart_of_the_client_or_48_hours_end_its_key():
    for pod in (a_pod(vantiq=1, mesh=0), a_pod(timedelta(hours=49), vantiq=0)):
        session = LogSession(pod, {})
        refuse_if_the_key_may_be_good(session, an_order())
        assert session.orders == []


def test_a_log_is_read_from_its_start_and_its_text_is_not_kept():
    pod = a_pod(vantiq=0)
    session = LogSession(pod, {"vantiq": log_line(pod, "ready")})

    refuse_if_the_key_may_be_good(session, an_order())

    assert session.orders == [
        LogOrder("vantiq", tail_lines=None, bytes_max=64 << 20, is_kept=False)
    ]


def test_a_log_that_was_not_seen_whole_is_not_taken_for_one_without_a_key(monkeypatch):
    pod = a_pod(vantiq=0)
    turned_over = {"vantiq": log_line(pod, "later", after=timedelta(minutes=50))}
    with pytest.raises(Refused, match="it is not known whether the log of vantiq-0"):
        refuse_if_the_key_may_be_good(LogSession(pod, turned_over), an_order())

    monkeypatch.setattr(key_log, "LOG_BYTES_MAX", 100)
    long = {"vantiq": log_line(pod, "x" * 100)}
    with pytest.raises(Refused, match="it is not known whether the log of vantiq-0"):
        refuse_if_the_key_may_be_good(LogSession(pod, long), an_order())


def test_documents_of_several_databases_are_added_and_time_series_counted(monkeypatch):
    printed = iter(['{"vantiq.types":7}', '{"vantiq.types":0}'])
    answer = lambda *_: SimpleNamespace(stdout=next(printed))  # noqa: E731 (a line of a table)
    monkeypatch.setattr(asking, "run_in_pod", answer)
    pod = {"metadata": {"name": "p", "uid": "u"}, "spec": {"containers": [{"name": "mongodb"}]}}

    named = ["statefulset/mongodb", "statefulset/other"]

    counts = asking.counts_of(LogSession(pod, {}), an_order(databases=named))

    assert counts == {"vantiq.types": 7}
    assert "c.type !== 'view'" in COUNTS
    assert "type: 'collection'" not in COUNTS


@pytest.mark.parametrize("name", ["keep_volume", "stop_as_agreed", "remove_claim"])
def test_outside_of_the_window_nothing_is_stopped_or_removed_though_the_rest_is_done(
    name, monkeypatch
):
    step = next(s for s in (keep_volume, stop_as_agreed, remove_claim) if s.name == name)
    monkeypatch.setattr(finding, "current_fence", lambda: Fence("4711", 1))
    order = an_order(window="2026-01-01T00:00Z/2026-01-01T04:00Z")

    with pytest.raises(Refused) as refused:
        ask(step.terms.refuse_if[0], {"order": order, "agreed": order})

    assert "it may be done from 2026-01-01 00:00" in str(refused.value)
    assert "`recover undo 4711`, then begin anew in a window" in str(refused.value)


def test_whatever_reinstalls_stops_workloads_as_agreed_alone():
    assert "scale_down" not in inspect.getsource(flows.admin_key)

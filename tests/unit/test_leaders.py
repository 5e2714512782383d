"""What is wrong with a controller manager or scheduler, and whether a restart mends it."""

import re
from dataclasses import replace
from datetime import timedelta

import pytest

from recovery.errors import BadInput, NotVerified, Refused
from recovery.verdict import Verdict
from tasks.certificates.catalogue import Component
from tasks.certificates.look_lines import Lines
from tasks.certificates.reading import KeyState
from tasks.certificates.seen import ApiState, Runtime, RuntimeKind
from tasks.leaders import restarting
from tasks.leaders.finding import Due, Restart, instances_due, within_of
from tasks.leaders.instance import Health, Instance, Leader, parse_healthz
from tasks.leaders.judging import reasons_against
from tasks.leaders.restarting import judge_restarted
from tasks.static_pods import list_argv, remove_argv
from tests.unit.certificates_seen import (
    CRI,
    NOW,
    STARTED_AT,
    WRITTEN_AT,
    NoHost,
    broken_file,
    file_seen,
    kubelet_seen,
    node_of,
    seen_host,
)
from tests.unit.certificates_told import Told
from tests.unit.test_certificates_look import encoded

SCHEDULER = Component.SCHEDULER
MANIFEST = "kind: Pod\nspec:\n  containers:\n  - name: kube-scheduler\n"
WELL = Instance(
    SCHEDULER,
    ("old",),
    STARTED_AT,
    file_seen("scheduler.conf"),
    Health.HEALTHY,
    "127.0.0.1:10259: 200 OK",
    MANIFEST,
)
FRESH, STALE = Leader("cp1 (2 s ago)", is_fresh=True), Leader("cp1 (90 s ago)", is_fresh=False)
DOCKER = Runtime(RuntimeKind.DOCKER, "/usr/bin/docker")


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({}, ""),
        ({"started_at": 0.0, "log": "a\nflag wrong\n"}, "does not run; its log ends: flag wrong"),
        ({"started_at": WRITTEN_AT - 1}, "before its kubeconfig was written"),
        ({"health": Health.SILENT}, "it runs, and is silent"),
        ({"health": Health.UNHEALTHY}, "it runs, and is unhealthy"),
    ],
)
def test_a_process_is_unwell_by_what_it_shows(fields, why):
    found = replace(WELL, **fields).why_unwell

    assert (why in found) if why else found == ""


ENDED = file_seen("scheduler.conf", timedelta(days=-1))
REASONS = {
    "no manifest": ({"manifest": ""}, {}, "kubeadm init phase control-plane scheduler"),
    "laid aside": ({"manifest": "", "aside": ("/etc/kubernetes/x/s.yaml",)}, {}, "`mv /etc/kube"),
    "broken": ({"manifest": "a: [", "complaint": "could not process"}, {}, "could not process"),
    "another pod": ({"manifest": MANIFEST.replace("scheduler", "x")}, {}, "no container kube-sch"),
    "no pod": ({"manifest": "kind: Pod\n"}, {}, "no pod with containers"),
    "kubelet": ({}, {"kubelet": kubelet_seen(is_active=False)}, "the kubelet is not active"),
    "no runtime": ({}, {"runtime": Runtime(RuntimeKind.NONE)}, "nothing is found to restart"),
    "no pod made": ({"pods": ()}, {}, "the kubelet makes no pod"),
    "no kubeconfig": ({"config": file_seen("scheduler.conf", None)}, {}, "scheduler.conf is miss"),
    "unreadable": ({"config": broken_file("scheduler.conf")}, {}, "cannot be read"),
    "ended": ({"config": ENDED}, {}, "renew-control-plane-certificates"),
    "unsigned": ({"config": file_seen("s", is_signed=False)}, {}, "method=regenerate"),
    "other key": ({"config": file_seen("s", key=KeyState.DIFFERS)}, {}, "its key is not"),
    "api": ({}, {"api": ApiState.SILENT}, "the API server of this host is silent"),
}


@pytest.mark.parametrize("name", REASONS)
def test_what_no_restart_mends_is_named_with_what_does(name):
    fields, of_host, expected = REASONS[name]

    found = reasons_against(replace(WELL, **fields), seen_host(**of_host), NOW)

    assert len(found) == 1
    assert expected in f"{found[0].why}. {found[0].remedy}"


def test_nothing_is_against_a_restart_of_one_that_is_in_order():
    assert reasons_against(WELL, seen_host(), NOW) == []


def due_of(found, leader, nodes=None):
    nodes = nodes or [node_of(seen_host(), f"cp{n}") for n in range(len(found))]
    return {one.host: one.was_well for one in instances_due(nodes, found, leader)}


def test_those_are_due_that_are_unwell_or_all_where_nobody_leads():
    unwell = replace(WELL, health=Health.SILENT)

    assert due_of([WELL, WELL], FRESH) == {}
    assert due_of([WELL, unwell], FRESH) == {"cp1": False}
    assert due_of([WELL, unwell], STALE) == {"cp1": False}
    assert due_of([WELL, WELL], STALE) == {"cp0": True, "cp1": True}


def test_one_that_no_restart_mends_is_left_and_it_alone_is_refused():
    unwell, gone = replace(WELL, health=Health.SILENT), replace(WELL, started_at=0.0, manifest="")

    assert due_of([unwell, gone], STALE) == {"cp0": False}
    with pytest.raises(Refused, match=r"cp1: .*kube-scheduler\.yaml is not there"):
        due_of([WELL, gone], FRESH)


@pytest.mark.parametrize(
    ("was_well", "fields", "verdict"),
    [
        (False, {"health": Health.SILENT}, Verdict.NOT_DONE),
        (False, {}, Verdict.DONE),
        (True, {}, Verdict.NOT_DONE),
        (True, {"pods": ("new",)}, Verdict.DONE),
        (True, {"pods": ("new", "old")}, Verdict.NOT_DONE),
        (True, {"pods": ("new",), "started_at": 0.0}, Verdict.NOT_DONE),
    ],
)
def test_a_restart_is_done_when_another_one_is_well(was_well, fields, verdict):
    due = Due("cp1", "cp1", CRI, ("old",), was_well, "why")

    found = judge_restarted(Restart(NoHost(), due, SCHEDULER, 60), replace(WELL, **fields))

    assert found is verdict


@pytest.mark.parametrize("runtime", [CRI, DOCKER])
def test_only_the_pods_that_were_found_are_removed(runtime):
    argv = remove_argv(runtime, ("one", "two"))

    assert argv[-2:] == ["one", "two"]
    assert argv[4] == runtime.client


@pytest.mark.parametrize(
    ("runtime", "before", "after"), [(CRI, "", ""), (DOCKER, "/k8s_POD_", "_kube-system_1_0")]
)
def test_a_pod_is_found_by_its_name_and_no_other(runtime, before, after):
    pattern = list_argv(runtime, "kube-scheduler-cp1.example")[-1]

    assert re.search(pattern, f"{before}kube-scheduler-cp1.example{after}")
    assert not re.search(pattern, f"{before}kube-scheduler-cp1xexample{after}")
    assert not re.search(pattern, f"{before}my-kube-scheduler-cp1.example{after}")


@pytest.mark.parametrize(
    ("answer", "health", "said"),
    [
        ("", Health.SILENT, "127.0.0.1:10259"),
        ("HTTP/1.0 200 OK\r\n\r\nok", Health.HEALTHY, "127.0.0.1:10259: 200 OK (ok)"),
        ("HTTP/1.0 500 No\r\n\r\n[-]x", Health.UNHEALTHY, "127.0.0.1:10259: 500 No ([-]x)"),
    ],
)
def test_health_is_read_from_the_bare_answer(answer, health, said):
    lines = Lines(f"healthz:kube-scheduler\t127.0.0.1:10259 {encoded(answer)}\n")

    assert parse_healthz(lines, SCHEDULER) == (health, said)


def test_no_time_at_all_is_no_time():
    with pytest.raises(BadInput, match="within_seconds"):
        within_of(0)


class Looked(Restart):
    """A process that is seen as the test says, one look after the other."""

    def look(self):
        return self.seen.pop(0)


def looked(*seen, host=None):
    due = Due("cp1", "cp1", CRI, ("old",), was_well=False, why="why")
    restart = Looked(host or NoHost(), due, SCHEDULER, 0.0)
    object.__setattr__(restart, "seen", list(seen))
    return restart


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"started_at": STARTED_AT + 60}, "it ended and was started again"),
        ({"health": Health.SILENT}, "it runs, and is silent"),
    ],
)
def test_one_that_does_not_stay_up_is_told(fields, said):
    with pytest.raises(NotVerified, match=said):
        restarting.stays_up.fn(looked(WELL, replace(WELL, **fields)), 0.0)


def test_one_that_stays_up_is_told_by_its_answer():
    assert restarting.stays_up.fn(looked(WELL, WELL), 0.0) == WELL.answer


def test_a_lease_that_nobody_renews_is_told(monkeypatch):
    monkeypatch.setattr(restarting, "leader_seen", lambda *_: STALE)

    with pytest.raises(NotVerified, match="90 s ago"):
        restarting.somebody_leads.fn([node_of()], SCHEDULER, 0.0)


def test_one_that_was_left_alone_and_is_unwell_ends_it_with_what_mends_it(monkeypatch):
    gone = replace(WELL, started_at=0.0, manifest="")
    monkeypatch.setattr(restarting, "look_at_instance", lambda *_: gone)

    with pytest.raises(NotVerified, match="kubeadm init phase control-plane scheduler"):
        restarting.is_well.fn(node_of(), SCHEDULER)


@pytest.mark.parametrize("exit_code", [3, 4])
def test_no_pod_is_removed_that_nobody_starts_again(exit_code):
    host = Told({"starts-again": "inactive"}, {"starts-again": exit_code})

    with pytest.raises(Refused, match="nobody would start kube-scheduler again"):
        restarting.refuse_unless_started_again(looked(host=host))

"""Recovering controller managers and schedulers on hosts of the lab."""

import pytest

from recovery.errors import NotVerified, Refused
from recovery.journal.history import RecoveryState
from tests.integration.leader_runs import (
    MANIFESTS,
    LeaderRuns,
    answers,
    freeze,
    leads,
    pid_of,
    wait_until_well,
)
from tests.lab.control_plane import control_planes
from tests.lab.processes import wait_until
from tests.lab.session import started_or_skipped

pytestmark = pytest.mark.timeout(300)

SCHEDULER, MANAGER = "kube-scheduler", "kube-controller-manager"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with started_or_skipped(control_planes(tmp_path_factory.mktemp("cp"), 3)) as cluster:
        cluster.wait_until_ready()
        yield cluster


@pytest.fixture
def runs(cluster, tmp_path, monkeypatch):
    monkeypatch.setenv("RECOVER_JOURNAL", str(tmp_path / "journal.sqlite"))
    monkeypatch.setenv("RECOVER_WORK_DIR", str(tmp_path / "work"))
    for component in (SCHEDULER, MANAGER):
        wait_until_well(cluster.hosts, component)
    return LeaderRuns(cluster.hosts, tmp_path)


def processes(hosts):
    return {
        (host.name, name): pid_of(host, name) for host in hosts for name in (SCHEDULER, MANAGER)
    }


def wait_until_ended(host, pid=None):
    """Wait until its scheduler is gone, or is another one than before."""
    has_ended = (
        (lambda: pid_of(host, SCHEDULER) != pid) if pid else (lambda: not pid_of(host, SCHEDULER))
    )
    wait_until(has_ended, f"the scheduler of {host.name} to end", within_seconds=60)


def test_one_that_holds_an_older_kubeconfig_is_restarted_and_no_other(runs):
    """The second run, once all are well, changes nothing."""
    host = runs.hosts[2]
    host.run("touch /etc/kubernetes/controller-manager.conf")
    before = processes(runs.hosts)

    ended = runs.run("recover-controller-manager")
    again = runs.run("recover-controller-manager")

    assert ended.state is RecoveryState.RECOVERED, ended.error
    assert "before its kubeconfig was written" in ended.result.found[0]
    assert ended.result.leads.partition(" ")[0] == leads(host, MANAGER)
    after = processes(runs.hosts)
    assert {key for key in before if before[key] != after[key]} == {(host.name, MANAGER)}
    assert len(runs.changes(ended)) == 1
    assert again.result.restarted == []
    assert runs.changes(again) == []


def test_what_no_restart_mends_is_named_host_by_host(runs):
    """A manifest laid aside, one that is broken, and a kubelet that is down, all at once."""
    aside, broken, down = runs.hosts
    path = f"{MANIFESTS}/{SCHEDULER}.yaml"
    kept = {host: host.read_file(path) for host in runs.hosts}
    aside.run(f"mkdir -p /etc/kubernetes/aside && mv {path} /etc/kubernetes/aside")
    broken.write(path, b"apiVersion: v1\n  kind: [Pod\n")
    down.run("systemctl stop kubelet")
    freeze(down, SCHEDULER)
    try:
        for host in (aside, broken):
            wait_until_ended(host)

        ended = runs.run("recover-scheduler")
    finally:
        aside.run(f"mv /etc/kubernetes/aside/{SCHEDULER}.yaml {path}")
        broken.write(path, kept[broken])
        down.run(f"kill -CONT {pid_of(down, SCHEDULER)}; systemctl start kubelet")

    assert isinstance(ended.error, Refused), ended.error
    for said in ("`mv /etc/kubernetes/aside/", "it is no YAML", "the kubelet is not active"):
        assert said in str(ended.error)
    assert runs.changes(ended) == []


def test_one_that_fails_again_is_told_with_its_log_and_a_resume_goes_on(runs):
    host = runs.hosts[0]
    path = f"{MANIFESTS}/{SCHEDULER}.yaml"
    kept, running = host.read_file(path), pid_of(host, SCHEDULER)
    host.write(path, kept.replace(b"--kubeconfig=/etc", b"--kubeconfig=/gone"))
    wait_until_ended(host, running)
    try:
        ended = runs.run("recover-scheduler", within_seconds=6.0)
    finally:
        host.write(path, kept)
    wait_until_well([host], SCHEDULER)
    resumed = runs.run("recover-scheduler", resume=ended.recovery_id, within_seconds=6.0)

    assert isinstance(ended.error, NotVerified), ended.error
    assert "No such file or directory: '/gone" in str(ended.error)
    assert resumed.state is RecoveryState.RECOVERED, resumed.error
    assert answers(host, SCHEDULER)

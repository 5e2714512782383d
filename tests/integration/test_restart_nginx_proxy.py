"""Restarting nginx-proxy on hosts of the lab, with containerd and with Docker."""

import pytest

from recovery.errors import Refused
from recovery.fan_out import TargetsFailed
from recovery.journal.history import RecoveryState
from tests.integration.proxy_runs import ProxyRuns, pid_of, serves, wait_until_serving
from tests.lab.api_proxy import CONF, conf, put_proxy
from tests.lab.control_plane import control_planes
from tests.lab.session import started_or_skipped

pytestmark = pytest.mark.timeout(300)

NOWHERE = "192.0.2.1"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with started_or_skipped(control_planes(tmp_path_factory.mktemp("cp"), 3)) as cluster:
        cluster.wait_until_ready()
        for host in cluster.hosts:
            put_proxy(host, [one.address for one in cluster.hosts])
        yield cluster


@pytest.fixture
def runs(cluster, tmp_path, monkeypatch):
    """Every host has a proxy that leads to all API servers, and serves what is on disk."""
    monkeypatch.setenv("RECOVER_JOURNAL", str(tmp_path / "journal.sqlite"))
    monkeypatch.setenv("RECOVER_WORK_DIR", str(tmp_path / "work"))
    wait_until_serving(cluster.hosts)
    return ProxyRuns(cluster.hosts, tmp_path)


def rewrite(host, servers):
    host.write(CONF, conf(servers))


def test_a_proxy_that_serves_an_older_configuration_is_restarted_and_no_other(runs):
    """The second run changes nothing."""
    old = runs.hosts[1]
    rewrite(old, [NOWHERE, runs.hosts[0].address])
    before = {host.name: pid_of(host) for host in runs.hosts}

    ended = runs.run()
    again = runs.run()

    assert ended.state is RecoveryState.RECOVERED, ended.error
    assert {h.name for h in runs.hosts if pid_of(h) != before[h.name]} == {old.name}
    assert serves(old)
    assert len(runs.changed_on(ended)) == 1
    assert ended.result.notes == [
        f"{old.block().label}: {CONF} still names {NOWHERE}:6443, which does not answer"
    ]
    assert again.result.restarted == []
    assert runs.changed_on(again) == []


def test_a_proxy_that_would_lead_nowhere_is_not_taken_down(runs):
    """With max_fail the others are restarted, and the run still ends as failed."""
    lost, *others = runs.hosts
    lost.run(f"cp -p {CONF} {CONF}.kept")
    rewrite(lost, [NOWHERE])
    before = pid_of(lost)

    refused = runs.run(restart=True)
    allowed = runs.run(restart=True, max_fail="1")
    lost.run(f"mv {CONF}.kept {CONF}")

    assert isinstance(refused.error, Refused), refused.error
    assert "no API server answers that its configuration names" in str(refused.error)
    assert runs.changed_on(refused) == []
    assert isinstance(allowed.error, TargetsFailed), allowed.error
    assert "cluster.yml" in str(allowed.error)
    assert sorted(runs.changed_on(allowed)) == sorted(host.block().target for host in others)
    assert pid_of(lost) == before


def test_with_docker_the_same_is_done_by_docker(tmp_path, monkeypatch):
    monkeypatch.setenv("RECOVER_JOURNAL", str(tmp_path / "journal.sqlite"))
    monkeypatch.setenv("RECOVER_WORK_DIR", str(tmp_path / "work"))
    shape = {"runtime": "docker", "kubeadm_version": "1.22.17", "kubeadm": "standin"}
    with started_or_skipped(control_planes(tmp_path / "cp", **shape)) as cluster:
        (host,) = cluster.hosts
        put_proxy(host, [host.address])
        wait_until_serving([host])
        runs, before = ProxyRuns(cluster.hosts, tmp_path), pid_of(host)

        ended = runs.run(restart=True)

        assert ended.state is RecoveryState.RECOVERED, ended.error
        assert serves(host)
        assert pid_of(host) != before

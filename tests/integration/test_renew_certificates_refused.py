"""What is refused before anything is changed, each by its own name, on a host of the lab."""

import subprocess
from dataclasses import dataclass

import pytest

from recovery.errors import CommandFailed, Refused
from tests.integration.certificate_renewal import (
    BACKUPS,
    PKI,
    Renewal,
    changed,
    files_of,
    processes,
)
from tests.lab.control_plane import control_planes
from tests.lab.control_plane_design import EXPIRED_WITH_AUTHORITIES, EXPIRING
from tests.lab.session import started_or_skipped

pytestmark = pytest.mark.timeout(600)


@dataclass(frozen=True)
class Obstacle:
    """What is broken, how it is mended where the files alone do not, and what is said of it."""

    broken: str
    why: str
    mend: str = ":"


OBSTACLES = {
    "openssl": Obstacle(
        "mv /usr/bin/openssl /root", "there is no openssl", "mv /root/openssl /usr/bin"
    ),
    "crictl": Obstacle("mv /usr/bin/crictl /root", "no crictl", "mv /root/crictl /usr/bin"),
    "ca.key": Obstacle(f"rm {PKI}/ca.key", "external authority"),
    "other-key": Obstacle(
        f"cp {PKI}/etcd/ca.key {PKI}/front-proxy-ca.key", "front-proxy-ca.key is not on"
    ),
    "etcd-ca": Obstacle(f"rm {PKI}/etcd/ca.crt", "the authority etcd/ca.crt is missing"),
    "manifest": Obstacle(
        "mv /etc/kubernetes/manifests/kube-scheduler.yaml /root", "no manifest of kube-scheduler"
    ),
    "kubelet": Obstacle("systemctl stop kubelet", "the kubelet is not active"),
    "admin.conf": Obstacle("echo : > /etc/kubernetes/admin.conf", "admin.conf cannot be read"),
    "etcd-peer": Obstacle(f"rm {PKI}/etcd/peer.crt {PKI}/etcd/peer.key", "etcd/peer.crt missing"),
    "authority": Obstacle(
        f"cp {PKI}/etcd/ca.crt {PKI}/ca.crt; cp {PKI}/etcd/ca.key {PKI}/ca.key",
        "not signed by the authority on this host",
    ),
    "several": Obstacle(
        "sed -i 's/^contexts:/contexts:\\n- context: {cluster: production, user: x}"
        "\\n  name: other/' "
        "/home/ops/.kube/config",
        "/home/ops/.kube/config",
    ),
}


@pytest.fixture(scope="module")
def a_cluster(tmp_path_factory):
    with started_or_skipped(control_planes(tmp_path_factory.mktemp("cp"))) as cluster:
        yield cluster


@pytest.fixture
def cluster(a_cluster):
    if a_cluster.age is EXPIRING:
        a_cluster.restore()
    else:
        a_cluster.become(EXPIRING)
    a_cluster.wait_until_ready()
    return a_cluster


@pytest.fixture
def host(a_cluster):
    return a_cluster.hosts[0]


@pytest.fixture
def renewal(a_cluster, tmp_path, monkeypatch):
    monkeypatch.setenv("RECOVER_JOURNAL", "")
    monkeypatch.setenv("RECOVER_WORK_DIR", "")
    return Renewal(a_cluster, tmp_path)


def nothing_was_changed(host, before, renewal, ended):
    assert renewal.commands(ended) == []
    assert changed(before, files_of(host)) == set()
    return True


@pytest.mark.parametrize("name", OBSTACLES)
def test_each_obstacle_is_refused_by_its_name(cluster, host, renewal, name):
    obstacle = OBSTACLES[name]
    host.run(obstacle.broken)
    before = files_of(host)

    try:
        ended = renewal.run(users="ops")
    finally:
        host.run(obstacle.mend)

    assert isinstance(ended.error, Refused), ended.error
    assert obstacle.why in str(ended.error)
    assert nothing_was_changed(host, before, renewal, ended)


def test_a_triage_tells_all_that_is_due_and_all_that_hinders_and_changes_nothing(
    cluster, host, renewal
):
    """One host has two obstacles at once, another one gives no answer at all."""
    host.run("mv /usr/bin/crictl /root; mv /etc/kubernetes/manifests/kube-scheduler.yaml /root")
    before = files_of(host)
    away = host.url().replace(host.address, host.address.rpartition(".")[0] + ".250")
    hosts = f"{host.url()} {away}"
    try:
        ended = renewal.triage(hosts)
        after = files_of(host)
    finally:
        host.run("mv /root/crictl /usr/bin; mv /root/kube-scheduler.yaml /etc/kubernetes/manifests")

    assert ended.error is None, ended.error
    told = ended.result
    assert any("apiserver ends" in one for one in told.found)
    assert any("cannot be read" in one for one in told.found)
    assert any("no crictl" in one for one in told.against)
    assert any("no manifest of kube-scheduler" in one for one in told.against)
    assert told.recover == "renew-control-plane-certificates"
    assert told.command.startswith(f"recover plan {told.recover} --set 'hosts={hosts}'")
    assert renewal.commands(ended) == []
    assert changed(before, after) == set()


def test_authorities_that_have_ended_are_refused(a_cluster, host, renewal):
    a_cluster.become(EXPIRED_WITH_AUTHORITIES)
    before = files_of(host)

    ended = renewal.run()

    assert "the authority ca.crt ended" in str(ended.error)
    assert "manual rotation of CA" in str(ended.error)
    assert nothing_was_changed(host, before, renewal, ended)


def test_without_a_key_nothing_is_begun(cluster, host, renewal):
    before = files_of(host)

    ended = renewal.run(backup_key_file="")

    assert "openssl rand -hex 32" in str(ended.error)
    assert nothing_was_changed(host, before, renewal, ended)


def test_a_disk_that_fills_up_leaves_nothing_half_done(cluster, host, renewal):
    before, running = files_of(host), processes(host)
    host.run(f"mkdir -p {BACKUPS} && mount -t tmpfs -o size=40k none {BACKUPS}")
    try:
        ended = renewal.run(off_host_backup=False)
        left = host.run(f"find {BACKUPS} -type f")
    finally:
        host.run(f"umount {BACKUPS}")

    assert isinstance(ended.error, CommandFailed), ended.error
    assert "No space left on device" in str(ended.error)
    assert left == ""
    assert changed(before, files_of(host)) == set()
    assert processes(host) == running

    resumed = renewal.resume(ended)
    assert resumed.error is None, resumed.error
    assert not list(renewal.folder.rglob("*.sealed"))


def test_sudo_that_asks_for_a_password_nobody_named_is_told(cluster, host, renewal):
    before = files_of(host)

    ended = renewal.run(hosts=host.url("asked"))

    assert "sudo" in str(ended.error)
    assert nothing_was_changed(host, before, renewal, ended)


def test_a_wrong_key_and_an_unknown_host_are_two_errors(cluster, host, renewal, tmp_path):
    key = tmp_path / "other"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)

    wrong = renewal.run(hosts=host.url(key_file=str(key)))
    unknown = renewal.run(hosts=f"{host.url()}&host_key=SHA256:{'A' * 43}")

    assert type(wrong.error).__name__ == "LoginRefused", wrong.error
    assert type(unknown.error).__name__ == "HostKeyRefused", unknown.error

"""Renewals of other control planes: three hosts, Docker, releases of old, an etcd of its own."""

import contextlib
import threading

import pytest

from recovery.errors import NotVerified, Refused
from tests.faults.conftest import IS_WHOLE
from tests.integration.certificate_renewal import (
    CONFIGS,
    KEPT,
    LEAVES,
    Renewal,
    assert_renewed,
    serials,
    sha256_of,
)
from tests.lab.control_plane import control_planes
from tests.lab.control_plane_design import EXPIRED_WITH_KUBELETS, EXPIRING, Age
from tests.lab.processes import LabError
from tests.lab.session import started_or_skipped

pytestmark = pytest.mark.timeout(900)

COUNT_HEALTHY = (
    "timeout 2 openssl s_client -quiet -connect 127.0.0.1:2379 "
    "-cert /etc/kubernetes/pki/etcd/healthcheck-client.crt "
    "-key /etc/kubernetes/pki/etcd/healthcheck-client.key 2>/dev/null <<'E'\n"
    "GET /health HTTP/1.0\n\nE"
)


@pytest.fixture
def renewal_of(tmp_path, monkeypatch):
    monkeypatch.setenv("RECOVER_JOURNAL", "")
    monkeypatch.setenv("RECOVER_WORK_DIR", "")
    return lambda cluster: Renewal(cluster, tmp_path)


# -- three hosts ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    with started_or_skipped(control_planes(tmp_path_factory.mktemp("cp3"), 3)) as cluster:
        yield cluster


def before_of(cluster):
    return {host.name: (serials_there(host), sha256_of(host, KEPT)) for host in cluster.hosts}


def serials_there(host):
    """Joined hosts have no super-admin.conf."""
    present = host.run("ls /etc/kubernetes").split()
    return serials(host, [leaf for leaf in (*LEAVES, *CONFIGS) if leaf in {*LEAVES, *present}])


def assert_all_renewed(cluster, before):
    for host in cluster.hosts:
        old, kept = before[host.name]
        assert_renewed(host, old, leaves=tuple(old))
        assert sha256_of(host, KEPT) == kept, host.name
    cluster.wait_until_ready()


class Watch:
    """Counts, all the while, on how many hosts no etcd runs."""

    def __init__(self, cluster):
        self._cluster, self._over = cluster, threading.Event()
        self.missing_max = 0

    def __enter__(self):
        self._thread = threading.Thread(target=self._look)
        self._thread.start()
        return self

    def __exit__(self, *error):
        self._over.set()
        self._thread.join()

    def _look(self):
        while not self._over.wait(0.05):
            with contextlib.suppress(LabError):
                missing = [
                    h for h in self._cluster.hosts if not h.run("pgrep -x etcd || :").strip()
                ]
                self.missing_max = max(self.missing_max, len(missing))


def test_three_hosts_are_renewed_and_never_two_members_of_etcd_are_away(three, renewal_of):
    three.become(EXPIRING)
    three.wait_until_ready()
    before = before_of(three)

    with Watch(three) as watch:
        ended = renewal_of(three).run(users="ops")

    assert ended.error is None, ended.error
    assert ended.result.certificates == 31
    assert watch.missing_max <= 1
    assert_all_renewed(three, before)


def test_three_hosts_without_quorum_and_api_are_brought_back(three, renewal_of):
    three.become(EXPIRED_WITH_KUBELETS)
    before = before_of(three)

    ended = renewal_of(three).run()

    assert ended.error is None, ended.error
    assert_all_renewed(three, before)


@pytest.mark.skipif(not IS_WHOLE, reason="FAULTS=all")
def test_three_hosts_are_rebooted_one_after_the_other_and_once_each(three, renewal_of):
    three.become(EXPIRING)
    three.wait_until_ready()
    before, reboots = before_of(three), [host.reboot_count for host in three.hosts]

    ended = renewal_of(three).run(reboot=True)

    assert ended.error is None, ended.error
    assert [host.reboot_count for host in three.hosts] == [count + 1 for count in reboots]
    assert_all_renewed(three, before)


def test_an_etcd_that_misses_a_member_is_refused(three, renewal_of):
    three.become(EXPIRING)
    three.wait_until_ready()
    renewal, (first, _, third) = renewal_of(three), three.hosts
    third.run(
        "mv /etc/kubernetes/manifests/etcd.yaml /root; "
        "crictl pods --name etcd -q | xargs crictl rmp -f || :"  # the kubelet may be first
    )

    two = renewal.run(hosts=f"{first.url()} {three.hosts[1].url()}")

    assert isinstance(two.error, Refused), two.error
    assert "etcd cannot do without" in str(two.error)
    assert "cp3 unknown" in str(two.error)


def test_hosts_that_do_not_agree_are_refused(three, renewal_of):
    three.become(EXPIRING)
    three.wait_until_ready()
    three.hosts[1].run("openssl genrsa -out /etc/kubernetes/pki/sa.key 2048 2>/dev/null")

    ended = renewal_of(three).run()

    assert "the service account key differs between the hosts" in str(ended.error)


def test_one_host_that_is_due_is_renewed_and_the_others_are_left_alone(three, renewal_of):
    three.become(Age(left=EXPIRING.left + (EXPIRING.left * 10)))
    three.wait_until_ready()
    first = three.hosts[0]
    before = before_of(three)
    renewal = renewal_of(three)

    ended = renewal.run(hosts=first.url(), days_left_min=300)

    assert ended.error is None, ended.error
    assert_renewed(first, before[first.name][0])
    assert {h.name: serials_there(h) for h in three.hosts[1:]} == {
        h.name: before[h.name][0] for h in three.hosts[1:]
    }


# -- other shapes of one host --------------------------------------------------------------------


def test_docker_and_an_alpha_kubeadm_and_a_kubelet_that_never_rotated(tmp_path, renewal_of):
    shape = {"runtime": "docker", "kubeadm_version": "1.19.16", "kubelet_conf": "embedded"}
    with started_or_skipped(control_planes(tmp_path / "cp", **shape)) as cluster:
        cluster.wait_until_ready()
        (host,) = cluster.hosts
        configs = tuple(name for name in CONFIGS if name != "super-admin.conf")
        before = serials(host, (*LEAVES, *configs))
        renewal = renewal_of(cluster)

        ended = renewal.run()

        assert ended.error is None, ended.error
        assert_renewed(host, before, leaves=tuple(before))
        assert any(
            "kubeadm alpha certs renew all" in command for _, command in renewal.commands(ended)
        )
        conf = host.run("cat /etc/kubernetes/kubelet.conf")
        assert "client-certificate: /var/lib/kubelet/pki/kubelet-client-current.pem" in conf
        assert "client-key-data" not in conf
        assert host.run("systemctl is-active kubelet").strip() == "active"


def test_an_etcd_of_kubesprays_is_left_alone(tmp_path, renewal_of):
    with started_or_skipped(control_planes(tmp_path / "cp", etcd="external")) as cluster:
        cluster.wait_until_ready()
        (host,) = cluster.hosts
        leaves = (*(leaf for leaf in LEAVES if "etcd" not in leaf), *CONFIGS)
        before = serials(host, leaves)
        foreign = host.run("sha256sum /etc/ssl/etcd/ssl/*; pgrep -x etcd")

        ended = renewal_of(cluster).run()

        assert ended.error is None, ended.error
        assert_renewed(host, before, leaves=leaves, is_etcd_ours=False)
        assert host.run("sha256sum /etc/ssl/etcd/ssl/*; pgrep -x etcd") == foreign


@pytest.mark.parametrize("version", ["1.23.17", *(["1.29.9"] if IS_WHOLE else [])])
def test_releases_that_print_no_json_are_read_by_their_table(tmp_path, renewal_of, version):
    with started_or_skipped(control_planes(tmp_path / "cp", kubeadm_version=version)) as cluster:
        cluster.wait_until_ready()
        (host,) = cluster.hosts
        host.run("umount /usr/bin/kubectl && chmod -x /usr/bin/kubectl || :")  # and no kubectl
        before = serials_there(host)

        ended = renewal_of(cluster).run()

        assert ended.error is None, ended.error
        assert_renewed(host, before, leaves=tuple(before))


def test_an_admin_without_rights_is_told_what_binds_them(tmp_path, renewal_of):
    shape = {"has_admin_binding": False}
    with started_or_skipped(control_planes(tmp_path / "cp", **shape)) as cluster:
        ended = renewal_of(cluster).run()

        assert isinstance(ended.error, NotVerified), ended.error
        assert "create clusterrolebinding kubeadm:cluster-admins" in str(ended.error)

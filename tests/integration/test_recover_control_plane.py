"""Recovering a control plane through playbooks, on real hosts with a real etcd."""

import pytest

import flows.kubespray  # noqa: F401 (what is run)
from recovery.run import RecoveryState
from tests.lab.hosts import lab_hosts
from tests.lab.kubespray_cluster import FILES, KEYS, UNITS, KubesprayCluster
from tests.lab.redis_hosts import Recoveries
from tests.lab.session import started_or_skipped

pytestmark = pytest.mark.timeout(300)
NAMES = ["node1", "node2", "node3", "node4"]


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    directory = tmp_path_factory.mktemp("kubespray")
    with started_or_skipped(lab_hosts(directory, 4, names=NAMES, files=FILES, units=UNITS)) as lab:
        yield lab


@pytest.fixture
def recover(tmp_path, monkeypatch):
    monkeypatch.setenv("RECOVER_WORK_DIR", str(tmp_path / "work"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return Recoveries(tmp_path)


@pytest.fixture
def cluster(lab, tmp_path):
    made = KubesprayCluster(lab, tmp_path)
    made.build()
    return made


def urls(hosts):
    return " ".join(host.url() for host in hosts)


def test_a_lost_host_is_replaced_and_every_key_is_there(recover, cluster):
    one, two, three, four = cluster.hosts
    one.power_cut()
    parameters = cluster.parameters(
        hosts=urls([two, three]), broken=["node1"], new=[cluster.line(four)]
    )

    ended = recover.run("recover-control-plane", parameters, break_glass="a test")

    assert ended.error is None, ended.error
    assert ended.state is RecoveryState.RECOVERED
    assert cluster.runs() == ["recover-control-plane", "cluster"]
    assert cluster.member_names(four) == ["etcd2", "etcd3", "etcd4"]
    assert cluster.nodes(two) == ["node2", "node3", "node4"]
    assert cluster.keys(four) == KEYS
    text = cluster.inventory.read_text()
    assert "node1" not in text
    assert "# of etcd" in text

    again = recover.run("recover-control-plane", parameters, break_glass="a test")
    assert again.error is None, again.error
    assert again.result.finding == "well"
    assert cluster.inventory.read_text() == text

"""Recovering and replacing hosts through playbooks, on real hosts with a real etcd."""

import sys
import tempfile
from pathlib import Path

import pytest

import flows.kubespray  # noqa: F401 (what is run)
from recovery.run import RecoveryState
from tests.faults.conftest import IS_WHOLE
from tests.lab.hosts import lab_hosts
from tests.lab.kubespray_cluster import FILES, KEYS, UNITS, KubesprayCluster
from tests.lab.redis_hosts import Recoveries
from tests.lab.session import started_or_skipped

pytestmark = pytest.mark.timeout(900)  # the first run builds the root file system
whole = pytest.mark.skipif(not IS_WHOLE, reason="one of the whole campaign: FAULTS=all")
NAMES = ["node1", "node2", "node3", "node4"]


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    directory = tmp_path_factory.mktemp("kubespray")
    shown = [(Path(prefix), Path(prefix), True) for prefix in {sys.prefix, sys.base_prefix}]
    lab = lab_hosts(directory, 4, names=NAMES, files=FILES, units=UNITS, binds=shown)
    with started_or_skipped(lab) as lab:
        yield lab


@pytest.fixture
def recover(tmp_path, monkeypatch):
    monkeypatch.setenv("RECOVER_WORK_DIR", str(tmp_path / "work"))
    with tempfile.TemporaryDirectory(prefix="ksp-", ignore_cleanup_errors=True) as home:
        monkeypatch.setenv("HOME", home)  # short: it holds sockets of ssh
        yield Recoveries(tmp_path)


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
    assert cluster.runs() == ["facts", "recover-control-plane", "cluster"]
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


@whole
def test_with_quorum_lost_it_goes_on_from_the_survivor(recover, cluster):
    one, two, three, four = cluster.hosts
    one.power_cut()
    two.power_cut()
    parameters = cluster.parameters(
        hosts=urls([three]),
        broken=["node1", "node2"],
        etcd_retries=2,
    )
    even = recover.run(
        "recover-control-plane", {**parameters, "new": [cluster.line(four)]}, break_glass="a test"
    )

    ended = recover.run("recover-control-plane", parameters, break_glass="a test")

    assert even.state is RecoveryState.REFUSED
    assert "odd number" in str(even.error)
    assert ended.error is None, ended.error
    assert cluster.member_names(three) == ["etcd3"]
    assert cluster.keys(three) == KEYS
    assert cluster.nodes(three) == ["node3"]


@whole
def test_a_given_snapshot_is_not_restored_a_second_time(recover, cluster, tmp_path):
    """The role failed behind its restore, with a member added that does not start."""
    one, two, three, _ = cluster.hosts
    three.run("ETCDCTL_API=3 etcdctl snapshot save /root/given.db")  # where the stand-in has it
    given = tmp_path / "given.db"
    given.touch()
    for host in (one, two):
        host.run("systemctl disable -q --now etcd; rm -rf /var/lib/etcd /etc/etcd.env")
        host.run("chmod a-x /usr/bin/etcd")
    parameters = cluster.parameters(
        hosts=urls([three]),
        broken=["node1", "node2"],
        comes_back=True,
        etcd_retries=2,
        etcd_snapshot=str(given),
    )

    failed = recover.run("recover-control-plane", parameters, break_glass="a test")
    runs = cluster.runs()
    again = recover.run(
        "recover-control-plane", parameters, resume=failed.recovery_id, break_glass="a test"
    )

    for host in (one, two):
        host.run("chmod a+x /usr/bin/etcd")
    assert failed.state is RecoveryState.FAILED, failed.error
    assert again.state is RecoveryState.REFUSED, again.error
    assert "given-snapshot" in str(again.error)
    assert cluster.runs() == runs
    kept = "ETCDCTL_API=3 etcdctl get key/ --prefix --keys-only --consistency=s | grep -c key/"
    assert three.run(kept).strip() == str(KEYS)


@whole
def test_the_first_host_is_replaced_while_it_lives(recover, cluster):
    one, two, three, four = cluster.hosts
    parameters = cluster.parameters(
        hosts=urls([one, two, three]), old="node1", new=cluster.line(four)
    )

    ended = recover.run("replace-control-plane-node", parameters, break_glass="a test")

    assert ended.error is None, ended.error
    assert cluster.runs() == ["cluster", "remove-node", "cluster"]
    assert cluster.member_names(four) == ["etcd2", "etcd3", "etcd4"]
    assert cluster.nodes(two) == ["node2", "node3", "node4"]
    assert cluster.keys(four) == KEYS
    assert "node1" not in cluster.inventory.read_text()


@pytest.mark.parametrize(
    "is_gone",
    [
        pytest.param(False, id="lives"),
        pytest.param(True, id="is-gone-from-a-deploy-host", marks=whole),
    ],
)
def test_a_worker_is_replaced(recover, lab, tmp_path, is_gone):
    deploy = lab.hosts[2] if is_gone else None
    cluster = KubesprayCluster(lab, tmp_path, etcd=1, worker=1, form="yaml", deploy=deploy)
    cluster.build()
    one, worker, _, new = cluster.hosts
    if is_gone:
        worker.power_cut()
        one.run("/usr/local/bin/kubectl lost node2")
    parameters = cluster.parameters(
        hosts=urls([one]), old="node2", new=cluster.line(new), old_is_gone=is_gone
    )

    ended = recover.run("replace-worker-node", parameters, break_glass="a test")

    assert ended.error is None, ended.error
    assert cluster.runs() == ["facts", "scale", "remove-node"]
    assert cluster.nodes(one) == ["node1", "node4"]
    text = cluster.text(cluster.inventory)
    assert "node2" not in text
    assert "# The hosts of the lab" in text


@whole
def test_the_way_back_of_a_failed_recovery_is_the_inventory_as_it_was(recover, cluster):
    one, two, three, four = cluster.hosts
    one.power_cut()
    before = cluster.inventory.read_text()
    four.power_cut()
    parameters = cluster.parameters(
        hosts=urls([two, three]), broken=["node1"], new=[cluster.line(four)]
    )

    failed = recover.run("recover-control-plane", parameters, break_glass="a test")
    changed = cluster.inventory.read_text()
    undone = recover.run(
        "recover-control-plane", parameters, resume=failed.recovery_id, undo_by="ops"
    )

    assert "could not be reached on node4" in str(failed.error)
    assert "[broken_etcd]" in changed
    assert undone.error is None, undone.error
    assert cluster.inventory.read_text() == before

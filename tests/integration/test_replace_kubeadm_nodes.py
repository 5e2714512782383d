"""Replacing nodes of a kubeadm cluster whose last host was lost and is installed anew."""

import json

import pytest

from recovery.errors import Refused
from recovery.journal.history import RecoveryState
from tasks.kubeadm_nodes.newcomer import MARK
from tests.integration.node_runs import (
    CONTROL_PLANE,
    LABELS,
    WORKER,
    NodeRuns,
    assert_replaced,
    given_to,
    lose,
    secrets_in,
    standing,
)
from tests.lab.control_plane import control_planes
from tests.lab.control_plane_host import binary
from tests.lab.kubeadm_cluster import KUBECTL, is_ready, members, node_of, put_cluster_info
from tests.lab.processes import wait_until
from tests.lab.session import started_or_skipped

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        binary("kubectl") is None, reason="there is no kubectl in KUBEBUILDER_ASSETS"
    ),
]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    lab = control_planes(tmp_path_factory.mktemp("cp"), 3, kubeadm="standin")
    with started_or_skipped(lab) as cluster:
        cluster.wait_until_ready()
        put_cluster_info(cluster, cluster.hosts[0])
        yield cluster


@pytest.fixture
def runs(cluster, tmp_path, monkeypatch):
    monkeypatch.setenv("RECOVER_JOURNAL", str(tmp_path / "journal.sqlite"))
    monkeypatch.setenv("RECOVER_WORK_DIR", str(tmp_path / "work"))
    lose(cluster.hosts)
    return NodeRuns(cluster.hosts, tmp_path)


def test_a_lost_control_plane_node_is_taken_out_and_another_joins_in_its_place(runs, capfd):
    """Token and certificate key show in no file of the worker and in nothing that was printed."""
    before = standing(runs.hosts)

    planned = runs.run(CONTROL_PLANE, "cp3", plan_only=True)
    ended = runs.run(CONTROL_PLANE, "cp3", approve=planned.plan.hash, approved_by="test")

    assert ended.state is RecoveryState.RECOVERED, ended.error
    assert_replaced(runs.hosts, before)
    assert is_ready(node_of(runs.hosts[0], "cp3"))
    printed = "".join(capfd.readouterr()).encode() + runs.journal_bytes() + repr(ended).encode()
    secrets = secrets_in(given_to(runs.hosts[-1]))
    assert len(secrets) == 2
    for secret in secrets:
        assert secret.encode() not in printed


def test_no_member_is_removed_while_another_one_is_missing(runs):
    """Two of three are gone: what is left is no quorum, and nothing is done."""
    second = runs.hosts[1]
    known = sorted(members(runs.hosts[0]))
    second.run("systemctl stop kubelet; crictl pods --name etcd -q | xargs crictl rmp -f")
    try:
        ended = runs.run(CONTROL_PLANE, "cp3")
    finally:
        second.run("systemctl start kubelet")

    assert isinstance(ended.error, Refused), ended.error
    whys = ("quorum", "no API server", "the API does not give its node")  # as far as it answers
    assert any(why in str(ended.error) for why in whys), ended.error
    assert runs.changes(ended) == []
    wait_until(lambda: sorted(members(runs.hosts[0])) == known, "etcd", within_seconds=60)


def test_a_node_that_lives_and_a_host_that_is_in_use_are_refused(runs):
    """Also where another recovery has joined that host and left its mark there."""
    living = runs.hosts[1]
    given = runs.hosts
    runs.hosts = (given[0], living)
    living.run(f"echo e5f6a7b8 >{MARK}")

    try:
        ended = runs.run(CONTROL_PLANE, "cp1")
    finally:
        living.run(f"rm {MARK}")

    assert isinstance(ended.error, Refused), ended.error
    assert "the node cp1 is Ready: it is not lost" in str(ended.error)
    assert "it has files of a cluster" in str(ended.error)
    assert runs.changes(ended) == []


def test_a_lost_worker_is_replaced_without_any_change_of_etcd_and_taken_out_again(runs):
    first, new = runs.hosts[0], runs.hosts[-1]
    node = {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": "w1", "labels": LABELS},
        "spec": {},
        "status": {"conditions": [{"type": "Ready", "status": "Unknown"}]},
    }
    first.write("root/w1.json", json.dumps(node))
    first.run(f"{KUBECTL} create --validate=false -f /root/w1.json")
    known = members(first)

    ended = runs.run(WORKER, "w1")

    found = node_of(first, "w1")
    undone = runs.run(WORKER, "w1", resume=ended.recovery_id, undo_by="test", break_glass="test")
    assert ended.state is RecoveryState.RECOVERED, ended.error
    assert undone.state is RecoveryState.UNDONE, undone.error
    assert node_of(first, "w1") is None
    assert "kubelet.conf" not in new.run("ls /etc/kubernetes 2>/dev/null || :")
    assert is_ready(found)
    assert LABELS.items() <= found["metadata"]["labels"].items()
    assert members(first) == known
    for secret in secrets_in(given_to(new)):
        assert secret.encode() not in runs.journal_bytes()

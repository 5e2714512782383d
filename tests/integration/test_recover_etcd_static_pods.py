"""What is particular to the etcd of kubeadm: its manifest, its kubelet, and its API servers."""

import pytest

from recovery.run import RecoveryState
from tests.integration.etcd_runs import etcd as etcd  # noqa: PLC0414 (the fixture)
from tests.integration.etcd_runs import runs as runs  # noqa: PLC0414 (the fixture)
from tests.lab.etcd_pods import MANIFEST, PARKED, PARKED_IN, etcd_pods
from tests.lab.processes import wait_until
from tests.lab.session import started_or_skipped

pytestmark = pytest.mark.timeout(600)  # the first run builds the root file system
KEYS = 150
PODS = ["etcd.yaml", "kube-apiserver.yaml", "kube-controller-manager.yaml", "kube-scheduler.yaml"]


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    with started_or_skipped(etcd_pods(tmp_path_factory.mktemp("pods"))) as etcd:
        yield etcd


def assert_as_kubeadm_left_it(etcd, before):
    """All keys on all members, all manifests in place and nothing else, API servers that answer."""
    for member in etcd.members:
        assert member.contents() == before, member.host
        assert member.host.run("ls -A /etc/kubernetes/manifests").split() == PODS, member.host
        assert member.host.run(f"ls -A {PARKED_IN} 2>/dev/null || true").split() == []
        assert "force-new-cluster" not in member.host.read_file(MANIFEST).decode()
    etcd.wait_until_ready()


def test_members_whose_disks_are_empty_and_that_fail_over_and_over_are_let_in_again(etcd, runs):
    """As kubeadm leaves a host: no tool of etcd but in its image, and a kubelet that goes on."""
    survivor, *others = etcd.members
    before = survivor.contents()
    for member in others:
        member.fail_without_data()
    for member in etcd.members:
        member.hide_tools()

    found = runs.run("triage-etcd")
    planned = runs.run(plan_only=True)
    ended = runs.run(approve=planned.plan.hash, approved_by="Ada")

    assert found.result.recovery == "recover-etcd-quorum"
    assert ended.error is None, ended.error
    assert ended.result.cure == "rebuild"
    assert ended.result.now.members == 3
    assert_as_kubeadm_left_it(etcd, before)
    again = runs.run()
    assert (again.result.cure, runs.changes(again.recovery_id)) == ("nothing", [])


def test_a_member_that_is_parked_and_one_whose_kubelet_is_down_are_only_started(etcd, runs):
    first, parked, down = etcd.members
    before = first.contents()
    parked.stop()
    down.host.run("systemctl stop kubelet; pkill -x etcd")
    wait_until(lambda: not down.process(), f"etcd of {down.host} to end", within_seconds=30)
    found = runs.run("triage-etcd")

    ended = runs.run()

    assert found.result.recovery == "recover-etcd-quorum"
    assert ended.error is None, ended.error
    assert ended.result.cure == "start"
    for member in etcd.members:
        wait_until(member.is_healthy, f"{member.host}", within_seconds=60)
    assert_as_kubeadm_left_it(etcd, before)


def test_one_that_somebody_left_parked_is_told_with_what_puts_it_back(etcd, runs):
    etcd.members[2].stop()

    found = runs.run("triage-etcd")

    assert f"mv {PARKED} {MANIFEST}" in found.result.why
    assert any("parked" in said for said in found.result.members)


def test_a_member_that_fails_over_and_over_is_replaced_while_the_others_serve(etcd, runs):
    first, _, lost = etcd.members
    before = first.contents()
    lost.fail_without_data()
    lost.hide_tools()
    found = runs.run("triage-etcd")

    ended = runs.run("replace-etcd-member", host=lost.host.address)

    assert found.result.recovery == "replace-etcd-member"
    assert ended.error is None, ended.error
    assert ended.result.now.members == 3
    assert_as_kubeadm_left_it(etcd, before)


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (f"cp {MANIFEST} {MANIFEST}.bak", "etcd.yaml.bak describes it, too"),
        ("systemctl stop kubelet", "the kubelet is inactive"),
        (f"sed -i 's,- etcd$,- etcd --debug,' {MANIFEST}", "does not begin with the program etcd"),
    ],
)
def test_what_the_kubelet_could_not_do_is_refused_before_anything_is_touched(
    etcd, runs, spoil, why
):
    survivor, *others = etcd.members
    for member in others:
        member.lose_data()
    process = survivor.process()
    survivor.host.run(spoil)
    if "kubelet" not in spoil:  # which ends what has another manifest now
        wait_until(lambda: survivor.process() != process, "its etcd to end", within_seconds=60)

    ended = runs.run()

    assert ended.state is RecoveryState.REFUSED
    assert why in str(ended.error)
    assert runs.changes(ended.recovery_id) == []


def test_a_survivor_that_is_down_and_has_no_tool_is_refused_before_anything_is_touched(etcd, runs):
    survivor, *others = etcd.members
    for member in others:
        member.lose_data()
    survivor.stop()
    for member in etcd.members:
        member.hide_tools()

    ended = runs.run()

    assert ended.state is RecoveryState.REFUSED
    assert "Install etcdctl of the version of the cluster there" in str(ended.error)
    assert runs.changes(ended.recovery_id) == []

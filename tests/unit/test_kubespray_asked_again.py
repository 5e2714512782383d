"""What is asked right before a playbook that destroys, and again before its next run."""

import contextlib
import json
from dataclasses import dataclass, field

import pytest

from blocks.ssh.command import Answer
from blocks.ssh.detached import Detached, DetachedState
from recovery.launch import launch
from recovery.run import Options, Recovery, RecoveryState
from recovery.secrecy.redaction import isolated_registry
from recovery.stage import PlainStage
from recovery.verdict import Danger
from tasks.kubespray import (
    by_role,
    edits,
    judging,
    nodes,
    orders,
    recovering,
    removing,
    replacing,
)
from tasks.kubespray.reading import Found
from tasks.kubespray.target import Kubespray
from tests.unit.kubespray_inventory import PATH, inventory

TEXT = inventory(9)
NEW = ["node4 ansible_host=10.0.0.4", "node5 ansible_host=10.0.0.5"]


@dataclass
class Host:
    """A host of etcd and the control plane, as its tools tell of both."""

    number: int
    is_healthy: bool = True
    members: tuple[int, ...] = (1, 2, 3)
    are_all_healthy: bool = False
    version: str = "3.5.21"
    cluster: int = 10
    nodes: str = ""
    asked: int = 0

    def read(self, argv, **_):
        self.asked += 1
        text = self.nodes if argv[2] == nodes.NODES else self._of_etcd()
        return Answer("sh", f"node{self.number}", 0, text, "")

    def _of_etcd(self):
        listed = [
            {"ID": n, "name": f"etcd{n}", "peerURLs": [f"https://10.0.0.{n}:2380"]}
            for n in self.members
        ]
        header = {"cluster_id": self.cluster, "revision": 7}
        said = {
            "version": f"etcdctl version: {self.version}",
            "health": "yes" if self.is_healthy else "",
            "told": "is healthy" if self.is_healthy else "",
            "cluster": "yes" if self.are_all_healthy else "",
            "members": json.dumps({"members": listed}) if self.is_healthy else "",
            "status": json.dumps([{"Status": {"header": header}}]),
        }
        return "".join(f"recover-section {title}\n{text}\n" for title, text in said.items())


@dataclass
class Machine:
    """A machine with an inventory, on which a playbook ends as it is told to."""

    ends: DetachedState = DetachedState.FAILED
    state: DetachedState = DetachedState.NOT_FOUND
    started: int = 0
    is_noted: bool = False
    label: str = "here"

    def session(self):
        return contextlib.nullcontext()

    def home(self):
        return "/root"

    def line(self, argv):
        return " ".join(argv)

    def read(self, argv, *, within_seconds=60, accept=(0,)):
        is_no = argv[0] == "test" and not self.is_noted
        return Answer("", self.label, int(is_no), "", "")

    def text_of(self, argv, *, within_seconds=60):
        return TEXT if argv[0] == "cat" else ""

    def change(self, argv, *, within_seconds=60, stdin=None):
        return Answer("", self.label, 0, "", "")

    def detached_lines(self, command):
        return [command.name]

    def start(self, command):
        if self.state is not DetachedState.RUNNING:
            self.started += 1
        self.state = self.ends
        self.is_noted = self.ends is DetachedState.SUCCEEDED

    def look(self, command):
        return Detached(command.unit, self.state, 2)

    def settle(self, command):
        self.state = DetachedState.NOT_FOUND


@dataclass(frozen=True)
class Cluster(Kubespray):
    """A checkout, and the hosts that were named over SSH."""

    named: dict[str, Host] = field(default_factory=dict)

    def host_of(self, name, layout):
        return self.named.get(name)


@dataclass
class World:
    """Runs of one act on a cluster, in a journal of their own."""

    order: Cluster
    step: object
    arguments: tuple[object, ...]
    runs: int = 0

    def run(self, **options):
        self.runs += 1
        declared = Recovery(
            name="lab",
            fn=lambda: self.step(self.order, *self.arguments),
            runbook="",
            answers=(),
            danger=Danger.DESTRUCTIVE,
            target_of=lambda **_: "lab",
            parameters={},
        )
        run_id = f"00000000-0000-7000-8000-{self.runs:012x}"
        given = Options(break_glass="a test", **options)
        return launch(declared, {}, given, PlainStage((0.0,)), run_id)


@pytest.fixture(autouse=True)
def journal(tmp_path, monkeypatch):
    monkeypatch.setenv("RECOVER_JOURNAL", str(tmp_path / "journal.sqlite"))
    with isolated_registry():
        yield


def found():
    return Found(edits.sha256(TEXT), judging.document_of(TEXT, PATH).layout(), "host", "here", "v2")


def order_of(*hosts):
    named = {f"node{host.number}": host for host in hosts}
    return Cluster(Machine(), "/srv/kubespray", PATH, named=named)


def by_the_role(*hosts, broken=("node2", "node3"), new=NEW, snapshot=""):
    order = order_of(*hosts)
    wish = orders.recovery_wish(broken, new, snapshot, comes_back=False)
    due = recovering.recovery_due.fn(order, found(), wish)
    playbook = orders.recover_playbook(wish, 10, 60)
    return World(order, by_role.recover_by_role, (playbook, found(), due, wish))


def removal(*hosts, old="node1", new=NEW[0], is_gone=False):
    order = order_of(*hosts)
    wish = orders.replacement_wish(old, new, is_gone=is_gone)
    decide = replacing.worker_due if old == "node9" else replacing.control_plane_due
    due = decide.fn(order, found(), wish)
    playbook = orders.remove_playbook(wish, due, 60)
    return World(order, removing.remove_node, (playbook, found(), due, wish))


def test_a_role_that_failed_behind_its_restore_is_run_again_only_once_all_are_healthy():
    """Run at once, it would take the restored host for the rest of a lost quorum."""
    survivor = Host(1, is_healthy=False)
    world = by_the_role(survivor, snapshot="/srv/given.db")
    failed = world.run()
    survivor.is_healthy, survivor.members, survivor.cluster = True, (1,), 20

    alone = world.run(resume=failed.recovery_id)
    started = world.order.machine.started
    survivor.members, survivor.are_all_healthy = (1, 4, 5), True
    world.order.machine.ends = DetachedState.SUCCEEDED
    whole = world.run(resume=failed.recovery_id)

    assert failed.state is RecoveryState.FAILED
    assert alone.state is RecoveryState.REFUSED
    assert "1 healthy of 3" in str(alone.error)
    assert "restore the given snapshot" in str(alone.error)
    assert "cluster.yml" in alone.error.remedy
    assert started == 1
    assert whole.state is RecoveryState.RECOVERED, whole.error
    assert world.order.machine.started == 2


def test_a_given_snapshot_is_not_restored_over_what_was_written_since_it_was_restored():
    """A member that was added and does not start takes the quorum of the restored one."""
    survivor = Host(1, is_healthy=False)
    world = by_the_role(survivor, snapshot="/srv/given.db")
    failed = world.run()
    again = world.run(resume=failed.recovery_id)
    survivor.cluster = 20

    refused = world.run(resume=failed.recovery_id)

    assert again.state is RecoveryState.FAILED
    assert refused.state is RecoveryState.REFUSED
    assert "given-snapshot" in str(refused.error)
    assert world.order.machine.started == 2


def test_a_quorum_that_was_lost_since_is_no_reason_to_delete_what_3_6_cannot_restore():
    hosts = [Host(2, version="3.6.4"), Host(3, version="3.6.4")]
    world = by_the_role(*hosts, broken=["node1"], new=NEW[:1])
    for host in hosts:
        host.is_healthy = False

    refused = world.run()

    assert refused.state is RecoveryState.REFUSED
    assert "restore: etcd has no quorum" in str(refused.error)
    assert world.order.machine.started == 0


def test_a_run_that_goes_on_is_followed_whatever_the_hosts_say():
    survivor = Host(1, is_healthy=False)
    world = by_the_role(survivor)
    asked, survivor.version = survivor.asked, "3.6.4"
    world.order.machine.state = DetachedState.RUNNING
    world.order.machine.ends = DetachedState.SUCCEEDED

    followed = world.run()

    assert followed.state is RecoveryState.RECOVERED, followed.error
    assert (world.order.machine.started, survivor.asked) == (0, asked)


def test_a_run_that_was_ended_from_outside_is_no_longer_followed():
    survivor = Host(1, is_healthy=False)
    world = by_the_role(survivor)
    survivor.version = "3.6.4"
    world.order.machine.state = DetachedState.UNKNOWN

    refused = world.run()

    assert refused.state is RecoveryState.REFUSED
    assert world.order.machine.started == 0


def test_a_worker_that_was_gone_and_is_back_is_not_removed_without_its_drain():
    host = Host(1, nodes="node9\tUnknown\n")
    world = removal(host, old="node9", is_gone=True)
    failed = world.run()
    host.nodes = "node9\tTrue\n"

    refused = world.run(resume=failed.recovery_id)

    assert failed.state is RecoveryState.FAILED
    assert refused.state is RecoveryState.REFUSED
    assert "said to be gone" in str(refused.error)
    assert world.order.machine.started == 1


def test_a_removal_that_failed_behind_its_reset_goes_on_with_a_node_that_is_not_ready():
    host = Host(1, nodes="node9\tTrue\n")
    world = removal(host, old="node9")
    failed = world.run()
    host.nodes, world.order.machine.ends = "node9\tFalse\n", DetachedState.SUCCEEDED

    ended = world.run(resume=failed.recovery_id)

    assert ended.state is RecoveryState.RECOVERED, ended.error


def test_a_member_that_fails_between_two_runs_of_the_removal_keeps_it_from_the_second():
    joined = (1, 2, 3, 4)
    hosts = [Host(n, members=joined, are_all_healthy=True) for n in (2, 3)]
    world = removal(*hosts)
    failed = world.run()
    hosts[1].is_healthy = hosts[0].are_all_healthy = hosts[1].are_all_healthy = False

    refused = world.run(resume=failed.recovery_id)

    assert failed.state is RecoveryState.FAILED
    assert refused.state is RecoveryState.REFUSED
    assert "3 members and 1 healthy" in str(refused.error)
    assert world.order.machine.started == 1


@pytest.mark.parametrize(
    ("members", "are_all_healthy", "is_gone", "expected"),
    [
        ((1, 2, 3), True, False, (3, 3)),  # a plan: the new one counts as it will be
        ((1, 2, 3, 4), True, False, (3, 3)),
        ((1, 2, 3, 4), False, False, (2, 3)),  # which of them is not, nobody says
        ((1, 2, 3), False, True, (2, 2)),
        ((), False, False, (0, 0)),
    ],
)
def test_the_members_that_would_be_left_are_counted(members, are_all_healthy, is_gone, expected):
    hosts = [Host(n, members=members, are_all_healthy=are_all_healthy) for n in (2, 3)]
    world = removal(*hosts, old="node1" if not is_gone else "node3", is_gone=is_gone)
    _, known, due, wish = world.arguments
    seen = recovering.Etcd(tuple(recovering.ask_all(world.order, known.layout, ["node2", "node3"])))

    assert removing.counted(seen, known.layout, due, wish) == expected

"""Recovering and replacing hosts through playbooks while the worker is killed.

What counts is etcd and the nodes: every key, the members meant, and playbooks that were run once
each. What the recovery says of itself comes second.
"""

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.faults.conftest import IS_WHOLE, JournaledWorld, flaws_of, kill_points
from tests.lab.hosts import lab_hosts
from tests.lab.kubespray_cluster import FILES, KEYS, UNITS, KubesprayCluster
from tests.lab.session import started_or_skipped

NAMES = ["node1", "node2", "node3", "node4"]
REASON = "fault test"
PLAYBOOK_STEPS = ("run_playbook", "recover_by_role", "remove_node")


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    directory = tmp_path_factory.mktemp("kubespray-killed")
    with started_or_skipped(lab_hosts(directory, 4, names=NAMES, files=FILES, units=UNITS)) as lab:
        yield lab


@dataclass
class World(JournaledWorld):
    """A cluster, and the journal of whoever repairs it."""

    cluster: KubesprayCluster
    folder: Path

    module = "flows.kubespray"
    flow = ""
    destroying = ""  # the step that does
    etcd, worker = 3, 0
    playbooks = ()
    nodes = ()
    members = ()

    @classmethod
    def made(cls, lab, folder):
        cluster = KubesprayCluster(lab, folder, etcd=cls.etcd, worker=cls.worker)
        cluster.build()
        world = cls(cluster, folder)
        world.begin()
        return world

    def begin(self):
        """What happens before somebody comes."""

    @property
    def environment(self):
        return {**super().environment, "HOME": str(self.folder / "home")}

    def run(self, runs, **options):
        return super().run(runs, break_glass=REASON, **options)

    def assert_whole(self, at):
        new = self.cluster.hosts[3]
        asked = self.cluster.hosts[0] if self.worker else new
        gone = set(NAMES[: self.etcd + self.worker]) - set(self.nodes)
        assert self.cluster.keys(asked) == KEYS, at
        assert self.cluster.member_names(asked) == list(self.members), at
        assert self.cluster.nodes(asked) == list(self.nodes), at
        assert self.cluster.runs() == list(self.playbooks), at
        text = self.cluster.inventory.read_text()
        assert [name for name in gone if name in text] == [], at
        assert flaws_of(self) == [], at


class LostHost(World):
    """The first host of three is lost."""

    flow = "recover-control-plane"
    destroying = "recover_by_role[recover-control-plane]"
    playbooks = ("facts", "recover-control-plane", "cluster")
    nodes = ("node2", "node3", "node4")
    members = ("etcd2", "etcd3", "etcd4")

    def begin(self):
        self.cluster.hosts[0].power_cut()

    @property
    def parameters(self):
        _, two, three, four = self.cluster.hosts
        return self.cluster.parameters(
            hosts=f"{two.url()} {three.url()}", broken=["node1"], new=[self.cluster.line(four)]
        )


class FirstHost(World):
    """The first host of three lives, and is to go."""

    flow = "replace-control-plane-node"
    destroying = "remove_node[remove-node]"
    playbooks = ("cluster", "remove-node", "cluster")
    nodes = ("node2", "node3", "node4")
    members = ("etcd2", "etcd3", "etcd4")

    @property
    def parameters(self):
        hosts = " ".join(host.url() for host in self.cluster.members)
        new = self.cluster.line(self.cluster.hosts[3])
        return self.cluster.parameters(hosts=hosts, old="node1", new=new)


class Worker(World):
    """The only worker is to go."""

    flow = "replace-worker-node"
    destroying = "remove_node[remove-node]"
    etcd, worker = 1, 1
    playbooks = ("facts", "scale", "remove-node")
    nodes = ("node1", "node4")
    members = ("etcd1",)

    @property
    def parameters(self):
        one, _, _, four = self.cluster.hosts
        return self.cluster.parameters(hosts=one.url(), old="node2", new=self.cluster.line(four))


@pytest.fixture
def make_world(lab):
    folders = []

    def make(kind):
        folders.append(Path(tempfile.mkdtemp(prefix="ksp-")))  # short: it holds sockets of ssh
        return kind.made(lab, folders[-1])

    yield make
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def is_look(kind, step):
    """Whether an event is one of those while a playbook runs."""
    return kind == "command" and step.startswith(PLAYBOOK_STEPS)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", [LostHost, Worker])
def test_a_worker_killed_while_a_playbook_runs_leaves_it_to_the_next(make_world, runs, kind):
    """Goal: no playbook is left without a reader, or run twice.

    Method: kill -9 the worker when the playbook that destroys has begun and that is not noted yet,
    resume in another process, which adopts it; count at etcd and in the playbook's own notes.
    """
    world = make_world(kind)
    point = (("command", kind.destroying, True, 2), "before")
    world.assert_whole(world.killed_and_resumed(runs, point))


@pytest.mark.skipif(not IS_WHOLE, reason="FAULTS=all")
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("kind", [LostHost, Worker, FirstHost])
def test_a_worker_killed_at_any_event_runs_each_playbook_once(make_world, runs, kind):
    """Goal: no instant leaves a playbook without a reader, runs it twice, or loses a key.

    Method: as above, before and after every event of one recovery in turn, so also at each look
    while a playbook runs; then singly where that one did not come to.
    """
    undisturbed = make_world(kind)
    whole = undisturbed.run(runs)
    assert whole.answer["state"] == "recovered", whole.answer
    undisturbed.assert_whole("undisturbed")
    looks = [n for n, (event, step, *_) in enumerate(whole.events, 1) if is_look(event, step)]
    points = sorted({*kill_points(whole.events), *((n, "after") for n in looks)})

    world = make_world(kind)
    rest = world.killed_in_turn(runs, points, whole.events)
    world.assert_whole("in turn")
    for point in rest:
        world = make_world(kind)
        world.assert_whole(world.killed_and_resumed(runs, point))

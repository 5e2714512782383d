"""Recovering a control plane through a playbook while its worker is killed.

What counts is etcd: every key, the members meant, and a playbook that was run once. What the
recovery says of itself comes second.
"""

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.faults.conftest import IS_WHOLE, JournaledWorld, flaws_of, kill_points, shards
from tests.lab.hosts import lab_hosts
from tests.lab.kubespray_cluster import FILES, KEYS, UNITS, KubesprayCluster
from tests.lab.session import started_or_skipped

NAMES = ["node1", "node2", "node3", "node4"]
SHARDS = shards(8, in_a_sample=1)
REASON = "fault test"


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    directory = tmp_path_factory.mktemp("kubespray-killed")
    with started_or_skipped(lab_hosts(directory, 4, names=NAMES, files=FILES, units=UNITS)) as lab:
        yield lab


@dataclass
class World(JournaledWorld):
    """A cluster that has lost its first host, and the journal of whoever recovers it."""

    cluster: KubesprayCluster
    folder: Path

    module = "flows.kubespray"
    flow = "recover-control-plane"

    @property
    def parameters(self):
        _, two, three, four = self.cluster.hosts
        return self.cluster.parameters(
            hosts=f"{two.url()} {three.url()}", broken=["node1"], new=[self.cluster.line(four)]
        )

    @property
    def environment(self):
        return {**super().environment, "HOME": str(self.folder / "home")}

    def run(self, runs, **options):
        return super().run(runs, break_glass=REASON, **options)

    def assert_whole(self, at):
        _, two, _, four = self.cluster.hosts
        assert self.cluster.member_names(two) == ["etcd2", "etcd3", "etcd4"], at
        assert self.cluster.keys(four) == KEYS, at
        assert self.cluster.nodes(two) == ["node2", "node3", "node4"], at
        assert self.cluster.runs() == ["facts", "recover-control-plane", "cluster"], at
        text = self.cluster.inventory.read_text()
        assert "node1" not in text, at
        assert flaws_of(self) == [], at


@pytest.fixture
def make_world(lab):
    folders = []

    def make():
        folders.append(Path(tempfile.mkdtemp(prefix="ksp-")))  # short: it holds sockets of ssh
        cluster = KubesprayCluster(lab, folders[-1])
        cluster.build()
        cluster.hosts[0].power_cut()
        return World(cluster, folders[-1])

    yield make
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def points_of(make_world, runs, shard):
    """Where to kill: in a sample, once while a playbook runs."""
    if not IS_WHOLE:
        return [(48, "after")]
    undisturbed = make_world()
    whole = undisturbed.run(runs)
    assert whole.answer["state"] == "recovered", whole.answer
    undisturbed.assert_whole("undisturbed")
    looks = [n for n, (kind, step, *_) in enumerate(whole.events, 1) if is_look(kind, step)]
    points = [*kill_points(whole.events), *((n, "after") for n in looks)]
    return sorted(set(points))[shard :: len(SHARDS)]


def is_look(kind, step):
    """Whether an event is one of those while the playbook runs."""
    return kind == "command" and step.startswith("run_playbook")


@pytest.mark.timeout(7200 if IS_WHOLE else 900)
@pytest.mark.parametrize("shard", SHARDS)
def test_a_worker_killed_at_any_event_runs_the_playbook_once(make_world, runs, shard):
    """Goal: no instant leaves a playbook without a reader, runs it twice, or loses a key.

    Method: kill -9 the worker before and after an event of the journal, so also while the playbook
    runs; resume in another process, which adopts it; count at etcd and in the playbook's own notes.
    """
    for point in points_of(make_world, runs, shard):
        world = make_world()
        killed = world.run(runs, kill=point)
        at = (point, killed.events[-1:])
        is_past = killed.exit_code == 0  # it looked less often this time, and ended before that
        assert is_past or killed.exit_code == -9, (at, killed)
        resumed = killed if is_past else world.resume(runs)

        assert resumed.answer["state"] == "recovered", (at, resumed.answer)
        world.assert_whole(at)

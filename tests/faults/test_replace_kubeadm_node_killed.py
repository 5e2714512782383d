"""Replacing a control-plane node while the worker is killed: before, inside and after every step.

What counts is the cluster: three members that vote, the Node anew with its labels and taints, and
no token left with which anybody else could join.
"""

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tasks.kubeadm_nodes.newcomer import MARK
from tests.faults.conftest import IS_WHOLE, JournaledWorld, flaws_of, kill_points, the_recovery
from tests.integration.node_runs import (
    CONTROL_PLANE,
    assert_replaced,
    given_to,
    lose,
    parameters,
    secrets_in,
    standing,
)
from tests.lab.control_plane import control_planes
from tests.lab.control_plane_host import binary
from tests.lab.kubeadm_cluster import put_cluster_info
from tests.lab.session import started_or_skipped

pytestmark = pytest.mark.skipif(
    binary("kubectl") is None, reason="there is no kubectl in KUBEBUILDER_ASSETS"
)
JOINED = (56, "before")  # the host has joined, and nobody has noted it: that of an ordinary run
CONSENT = {"break_glass": "fault test", "approved_by": "fault test"}


@dataclass
class World(JournaledWorld):
    """A cluster that has lost its third host, and the journal of whoever replaces it."""

    hosts: tuple
    folder: Path
    before: dict = field(default_factory=dict)

    module = "flows.kubeadm_nodes"
    flow = CONTROL_PLANE

    def __post_init__(self):
        lose(self.hosts)
        self.before = standing(self.hosts)

    @property
    def parameters(self):
        return parameters(self.hosts, "cp3")

    def assert_replaced(self, at):
        assert_replaced(self.hosts, self.before)
        assert flaws_of(self) == [], at
        assert self.hosts[-1].run(f"ls {MARK} 2>/dev/null || :") == "", at
        kept = b"".join(one.read_bytes() for one in self.folder.rglob("*") if one.is_file())
        for secret in secrets_in(given_to(self.hosts[-1])):
            assert secret.encode() not in kept, at


@pytest.fixture(scope="module")
def hosts(tmp_path_factory):
    lab = control_planes(tmp_path_factory.mktemp("cp"), 3, kubeadm="standin")
    with started_or_skipped(lab) as cluster:
        cluster.wait_until_ready()
        put_cluster_info(cluster, cluster.hosts[0])
        yield cluster.hosts


@pytest.mark.timeout(7200 if IS_WHOLE else 900)
def test_a_worker_killed_at_any_event_leaves_a_whole_control_plane(hosts, tmp_path, runs):
    """Goal: no instruction is a point of no return, and the quorum stands throughout.

    Method: lose a host, kill -9 the worker before and after an event of the journal, resume in
    another process, and look at Node, labels, taints, members of etcd and tokens. Once its join is
    found as if it had been cut off before its last command: all is there, and is done again. With
    FAULTS=all, at every event of one recovery in turn, then singly where that one did not come to.
    """

    def make(name):
        folder = tmp_path / name
        folder.mkdir()
        return World(hosts, folder)

    def told_as_begun(killed, _at):
        if killed.exit_code:
            hosts[-1].run(f"echo {the_recovery(world)} >{MARK}")

    world = make("joined")
    world.assert_replaced(world.killed_and_resumed(runs, JOINED, told_as_begun, **CONSENT))
    if not IS_WHOLE:
        return

    undisturbed = make("undisturbed")
    whole = runs.run(undisturbed, **CONSENT)
    assert whole.answer["state"] == "recovered", whole.answer
    undisturbed.assert_replaced("undisturbed")

    world = make("in-turn")
    rest = world.killed_in_turn(runs, kill_points(whole.events), whole.events, **CONSENT)
    world.assert_replaced("in turn")
    for point in rest:
        world = make(f"{point[0]}-{point[1]}")
        world.assert_replaced(world.killed_and_resumed(runs, point, **CONSENT))

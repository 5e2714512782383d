"""Raising a container's memory while the worker is killed.

What counts is the API: the values are there or those of before are, and the workload was rolled out
once for each.
"""

from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.faults.conftest import JournaledWorld, flaws_of, kill_points, sampled, the_recovery
from tests.integration.container_runs import MARK, REVISION, Containers

POINTS = 2  # of an ordinary run; all of them with FAULTS=all
POINTS_BACK = 1


@dataclass
class World(JournaledWorld):
    """A Deployment that is killed for want of memory, and the journal of whoever mends it."""

    containers: Containers
    folder: Path
    within_seconds: int = 30

    module = "flows.containers"
    flow = "raise-resources"
    ends = ("recovered", "failed")

    @property
    def parameters(self):
        given = {"memory_limit": "512Mi", "quiet_seconds": 1}
        return {**self.containers.place(), **given, "within_seconds": self.within_seconds}

    def assert_raised_once(self, at):
        read = self.containers.workload()
        pods = self.containers.pods()
        assert self.containers.memory() == "512Mi", at
        assert read["metadata"]["annotations"][REVISION] == "2", at
        assert {p["metadata"]["annotations"][MARK] for p in pods} == {the_recovery(self)}, at
        assert flaws_of(self) == [], at

    def assert_back(self, at):
        template = self.containers.workload()["spec"]["template"]
        assert self.containers.memory() == "256Mi", at
        assert not template["metadata"].get("annotations"), at
        assert flaws_of(self) == [], at


@pytest.fixture
def make_world(kubernetes, tmp_path):
    def make(*, least="400Mi", within_seconds=30):
        namespace = kubernetes.namespace("raisekilled")
        folder = tmp_path / namespace
        folder.mkdir()
        containers = Containers(kubernetes, namespace).starve(least, replicas=1)
        return World(containers, folder, within_seconds)

    return make


@pytest.mark.timeout(300)
@pytest.mark.parametrize("is_enough", [True, False], ids=["enough", "too-little"])
def test_a_worker_killed_at_any_event_raises_once_or_goes_back(make_world, runs, is_enough):
    """Goal: no instruction is a point of no return, and none is done twice.

    Method: kill -9 the worker before and after an event of the journal, resume in another process,
    and look at the values, the mark and the revisions of the Deployment.
    """
    given = {} if is_enough else {"least": "2Gi", "within_seconds": 5}
    state = "recovered" if is_enough else "failed"

    def assert_ended(world, at):
        (world.assert_raised_once if is_enough else world.assert_back)(at)

    undisturbed = make_world(**given)
    whole = runs.run(undisturbed)
    assert whole.answer["state"] == state, whole.answer
    assert_ended(undisturbed, "undisturbed")
    points = kill_points(whole.events)
    assert points

    most = POINTS if is_enough else POINTS_BACK
    for point in sampled(points, most, f"raise-resources-{is_enough}"):
        world = make_world(**given)
        killed = runs.run(world, kill=point)
        at = (point, whole.events[min(point[0], len(whole.events)) - 1])
        if killed.exit_code != 0:  # 0: it waited less often this time, and ended before that
            assert killed.exit_code == -9, (at, killed)
            resumed = world.resume(runs)
            assert resumed.answer["state"] == state, (at, resumed.answer)
        assert_ended(world, at)

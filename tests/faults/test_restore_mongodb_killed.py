"""Restoring MongoDB while its worker is killed, and while the Kubernetes API is away.

What counts is the API: the restore has run exactly once, and as many clients run as there were.
"""

from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.faults.api_away import AWAY_POINTS, points_of_loss, run_through_loss
from tests.faults.conftest import (
    JournaledWorld,
    flaws_of,
    kill_points,
    sampled,
    shards,
    the_recovery,
)
from tests.integration.kubernetes_runs import Mongodb

SHARDS = shards(12, in_a_sample=1)
POINTS = 3  # of an ordinary run; all of them with FAULTS=all


@dataclass
class World(JournaledWorld):
    """An installation with two clients, and the journal of whoever restores it."""

    mongodb: Mongodb
    folder: Path
    lease_seconds: int = 3
    within_seconds: int = 30
    retry_delays: tuple = (0.2, 0.5, 1.0)

    module = "flows.mongodb"
    flow = "restore-mongodb"

    @property
    def api(self):
        return self.mongodb.api

    @property
    def parameters(self):
        within = {"within_seconds": self.within_seconds}
        return {**self.mongodb.parameters, **within, "restore_within_seconds": self.within_seconds}

    def run(self, runs, **options):
        return runs.run(self, break_glass="a test", **options)

    def assert_restored_once(self, at, *, pods_are_counted=True):
        assert self.mongodb.is_well(), (at, self.mongodb.client())
        names = {name: one["metadata"]["name"] for name, one in self.mongodb.jobs().items()}
        recovery_id = the_recovery(self)
        assert names == {
            name: f"{name}-{recovery_id}" for name in ("mongobackup", "mongorestore")
        }, at
        if pods_are_counted:
            assert [self.mongodb.starts(name) for name in names] == [1, 1], at
        assert flaws_of(self) == [], at


@pytest.fixture
def make_world(kubernetes, tmp_path):
    def make():
        mongodb = Mongodb(kubernetes, kubernetes.namespace("killed"), replicas=2).deploy()
        folder = tmp_path / mongodb.namespace
        folder.mkdir()
        return World(mongodb, folder)

    return make


@pytest.mark.parametrize("shard", SHARDS)
@pytest.mark.timeout(600)
def test_a_worker_killed_at_any_event_restores_once_and_brings_the_clients_back(
    make_world, runs, shard
):
    """Goal: no instruction is a point of no return, and none is done twice.

    Method: kill -9 the worker before and after an event of the journal, resume in another process,
    and count Jobs, their pods, and the replicas of the client.
    """
    undisturbed = make_world()
    whole = undisturbed.run(runs)
    assert whole.answer["state"] == "recovered", whole.answer
    undisturbed.assert_restored_once("undisturbed")
    points = kill_points(whole.events)[shard :: len(SHARDS)]
    assert points

    for point in sampled(points, POINTS, "restore-mongodb"):
        world = make_world()
        killed = world.run(runs, kill=point)
        at = (point, whole.events[min(point[0], len(whole.events)) - 1])
        is_past = killed.exit_code == 0  # it waited less often this time, and ended before that
        assert is_past or killed.exit_code == -9, (at, killed)
        resumed = killed if is_past else world.resume(runs)

        assert resumed.answer["state"] == "recovered", (at, resumed.answer)
        world.assert_restored_once(at)


@pytest.mark.timeout(2400)
def test_an_api_that_is_away_for_a_minute_at_any_step_needs_no_person(make_world, runs):
    """Goal: the loss of the API is waited out, at whichever step it comes.

    Method: stop the worker before a change, take the API away, let the worker go on, bring the API
    back a minute later (seconds, in an ordinary run), and see the same attempt end well.
    """
    whole = make_world().run(runs)
    assert whole.answer["state"] == "recovered", whole.answer

    for point in sampled(points_of_loss(whole.events), AWAY_POINTS, "restore-mongodb-away"):
        world = make_world()
        ended = run_through_loss(world, runs, point)

        assert ended.answer["state"] == "recovered", (point, ended.answer)
        # Kubernetes itself may make a second pod of a Job when the API goes away in between.
        world.assert_restored_once(point, pods_are_counted=False)

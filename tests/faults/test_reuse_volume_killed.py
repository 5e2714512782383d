"""Reusing a released volume while its worker is killed.

What counts is the API: the volume is bound to the claim that the workload uses, nobody else got it,
and the workload has the replicas it had.
"""

from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.faults.api_away import points_of_loss, run_through_loss
from tests.faults.conftest import (
    IS_WHOLE,
    RETRY_DELAYS_SECONDS,
    JournaledWorld,
    flaws_of,
    kill_points,
    sampled,
    shards,
    the_recovery,
)
from tests.integration.volume_runs import Volumes

SHARDS = shards(8, in_a_sample=1)
POINTS = 2  # of an ordinary run; all of them with FAULTS=all
NOTE = "recovery-pipelines.io/replicas"


@dataclass
class World(JournaledWorld):
    """A workload, its released volume, a claim that waits for any, and a journal."""

    volumes: Volumes
    folder: Path
    volume: str
    replicas: int
    given: dict
    lease_seconds: int = 3
    within_seconds: int = 30
    retry_delays: tuple = RETRY_DELAYS_SECONDS

    module = "flows.volumes"
    flow = "reuse-released-volume"
    ends = ("recovered", "undone")

    @property
    def parameters(self):
        given = {**self.given, "within_seconds": self.within_seconds}
        return self.volumes.parameters(self.volume, **given)

    @property
    def api(self):
        return self.volumes.api

    @property
    def resource(self):
        kind, _, name = self.given["workload"].partition("/")
        return self.volumes.api.path("apps/v1", f"{kind}s", self.volumes.namespace, name)

    def assert_as_many_as_before(self, at):
        name = self.given["workload"].partition("/")[2]
        if name == "web":
            self.volumes.api.wait_until_out(self.volumes.namespace, name)
        else:
            self.volumes.wait_until_ready(name, self.replicas)
        one = self.volumes.api.client.get(self.resource)
        assert one["spec"]["replicas"] == self.replicas, at
        assert NOTE not in (one["metadata"].get("annotations") or {}), at
        assert self.volumes.claims("greedy")[0]["status"]["phase"] == "Pending", at
        assert flaws_of(self) == [], at

    def assert_reused(self, claim, at):
        self.assert_as_many_as_before(at)
        assert self.volumes.is_bound_to(self.volume, claim), at
        assert (self.folder / "work" / the_recovery(self) / "before.json").is_file(), at


@pytest.fixture
def make_world(kubernetes, tmp_path):
    def make(kind):
        volumes = Volumes(kubernetes, kubernetes.namespace("reuse"))
        folder = tmp_path / volumes.namespace
        folder.mkdir()
        if kind == "deployment":
            old = volumes.released("old", "data")
            volumes.bound("new", "data")
            volumes.deployment(replicas=2)
            world = World(volumes, folder, old, 2, {"workload": "deployment/web"})
        else:
            old = volumes.released("old", "data-db-0")
            volumes.volume("new")
            volumes.stateful_set(replicas=1)
            given = {"was": "data-db-0", "accept": ["replaced-claim:data-db-0"]}
            world = World(volumes, folder, old, 1, {"workload": "statefulset/db", **given})
        volumes.claim("greedy")
        return world

    return make


@pytest.mark.parametrize("shard", SHARDS)
@pytest.mark.parametrize("kind", ["deployment", "statefulset"])
@pytest.mark.timeout(600)
def test_a_worker_killed_at_any_event_ends_on_the_volume_with_all_replicas(
    make_world, runs, kind, shard
):
    """Goal: no instruction is a point of no return, and none leaves the workload scaled down.

    Method: kill -9 the worker before and after an event of the journal, resume in another process,
    and look at volume, claims and workload.
    """
    undisturbed = make_world(kind)
    whole = runs.run(undisturbed)
    assert whole.answer["state"] == "recovered", whole.answer
    points = kill_points(whole.events)[shard :: len(SHARDS)]
    assert points

    for point in sampled(points, POINTS, f"reuse-{kind}"):
        world = make_world(kind)
        killed = runs.run(world, kill=point)
        at = (point, whole.events[min(point[0], len(whole.events)) - 1])
        is_past = killed.exit_code == 0  # it waited less often this time, and ended before that
        assert is_past or killed.exit_code == -9, (at, killed)
        resumed = killed if is_past else world.resume(runs)

        assert resumed.answer["state"] == "recovered", (at, resumed.answer)
        world.assert_reused(world.volumes.reference(world.volume)["name"], at)


@pytest.mark.parametrize("shard", SHARDS)
@pytest.mark.parametrize("kind", ["deployment", "statefulset"])
@pytest.mark.timeout(600)
def test_a_worker_killed_on_the_way_back_gives_everybody_what_they_had(
    make_world, runs, kind, shard
):
    """Goal: the way back is as safe to break as the way there.

    Method: recover, kill -9 the worker that undoes it at an event of the journal, order it again,
    and look whether the volume is released as before and the workload as it was.
    """
    back = {"undo_by": "kim", "break_glass": "a test"}

    def recovered():
        world = make_world(kind)
        before = world.volumes.reference(world.volume)
        ended = runs.run(world)
        assert ended.answer["state"] == "recovered", ended.answer
        return world, before

    world, before = recovered()
    whole = runs.run(world, resume=the_recovery(world), **back)
    assert whole.answer["state"] == "undone", whole.answer
    points = kill_points(whole.events)[shard :: len(SHARDS)]
    assert points

    for point in sampled(points, 1, f"back-{kind}"):
        world, before = recovered()
        killed = runs.run(world, kill=point, resume=the_recovery(world), **back)
        at = (point, whole.events[min(point[0], len(whole.events)) - 1])
        is_past = killed.exit_code == 0
        assert is_past or killed.exit_code == -9, (at, killed)
        undone = killed if is_past else world.resume(runs, **back)

        assert undone.answer["state"] == "undone", (at, undone.answer)
        world.assert_as_many_as_before(at)
        assert world.volumes.reference(world.volume) == before, at


@pytest.mark.skipif(not IS_WHOLE, reason="with FAULTS=all: each loss takes a minute")
@pytest.mark.parametrize("kind", ["deployment", "statefulset"])
@pytest.mark.timeout(2400)
def test_an_api_that_is_away_for_a_minute_at_any_step_needs_no_person(make_world, runs, kind):
    """Goal: the loss of the API is waited out, at whichever step it comes.

    Method: stop the worker before a change, take the API away for a minute, let the worker go on,
    and see the same attempt end well.
    """
    whole = runs.run(make_world(kind))
    assert whole.answer["state"] == "recovered", whole.answer

    for point in points_of_loss(whole.events):
        world = make_world(kind)
        ended = run_through_loss(world, runs, point)

        assert ended.answer["state"] == "recovered", (point, ended.answer)
        world.assert_reused(world.volumes.reference(world.volume)["name"], point)

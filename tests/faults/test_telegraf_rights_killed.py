"""Giving telegraf its rights, and taking others, while the worker is killed: there and back.

What counts is the API's word of what telegraf may do, and how often telegraf was restarted.
"""

import contextlib
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tasks.metrics.rights import NEEDED, RULES, still_beyond, still_missing
from tests.faults.conftest import (
    IS_WHOLE,
    JournaledWorld,
    flaws_of,
    kill_points,
    sampled,
    shards,
    the_recovery,
)
from tests.integration.config_runs import MARK
from tests.integration.datasource_runs import Datasources
from tests.integration.metrics_runs import POINTS, Metrics
from tests.integration.test_telegraf_rights import (
    BINDINGS,
    FORBIDDEN,
    ROLES,
    asked,
    put_the_old_instructions,
)
from tests.lab.grafana_api import stand_in_grafana
from tests.lab.kubernetes_api import deployment
from tests.lab.kubernetes_client import ApiSaidNo
from tests.lab.kubernetes_node import Image
from tests.lab.processes import wait_until

SHARDS = shards(4, in_a_sample=1)
WAYS = [False, True] if IS_WHOLE else [False]  # whether the wide rights are taken as well
POINTS_THERE, POINTS_BACK = 1, 1  # of an ordinary run; all of them with FAULTS=all
MADE = {
    # The gathering one first: a controller that sees what it gathers go might make it anew.
    ROLES: ("influx:telegraf", "influx:cluster:viewer", "telegraf-metrics"),
    BINDINGS: ("telegraf-metrics", "influx:telegraf:viewer"),
}


@dataclass
class World(JournaledWorld):
    """A Grafana, a telegraf that is denied what it asks for, and who gives it that."""

    metrics: Metrics
    api: object
    namespace: str
    folder: Path
    wide_before: list = field(default_factory=list)

    module = "flows.metrics"
    flow = "restore-grafana-metrics"
    ends = ("recovered", "undone")

    @property
    def parameters(self):
        return self.metrics.parameters

    def telegraf(self):
        return self.api.deployment(self.namespace, "telegraf-prom")

    def wide(self):
        return self.api.client.get(f"{ROLES}/influx:cluster:viewer")["rules"]

    def assert_given_once(self, at):
        assert asked(self.metrics, still_missing) == [], at
        assert self.api.client.get(f"{ROLES}/telegraf-metrics")["rules"] == RULES, at
        if self.wide_before:
            assert asked(self.metrics, still_beyond) == [], at
            assert self.wide() == RULES, at
        one = self.telegraf()
        mark = one["spec"]["template"]["metadata"]["annotations"][MARK]
        assert mark == the_recovery(self), at
        assert one["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == "2", at
        assert flaws_of(self) == [], at

    def assert_as_before(self, at):
        for path in (f"{ROLES}/telegraf-metrics", f"{BINDINGS}/telegraf-metrics"):
            with pytest.raises(ApiSaidNo, match="404"):
                self.api.client.get(path)
        if self.wide_before:
            assert self.wide() == self.wide_before, at
        else:
            assert len(asked(self.metrics, still_missing)) == 2 * len(NEEDED), at
        assert flaws_of(self) == [], at


@pytest.fixture
def make_world(kubernetes, influxdb, tmp_path):
    database = influxdb.create_database("rightskilled")
    influxdb.write(database, *POINTS)

    def is_gone(path):
        with contextlib.suppress(ApiSaidNo):
            kubernetes.client.delete(path)
        try:
            kubernetes.client.get(path)
        except ApiSaidNo:
            return True
        return False

    def remove():
        for path, names in MADE.items():
            for name in names:
                wait_until(
                    lambda one=f"{path}/{name}": is_gone(one), f"no {name}", within_seconds=30
                )

    with stand_in_grafana() as lab:
        lab.role = "Admin"
        sources = Datasources(lab, influxdb, database, tmp_path)
        sources.add()

        def make(*, is_narrowed):
            remove()
            namespace = kubernetes.namespace("rightskilled")
            folder = tmp_path / namespace
            folder.mkdir()
            image = f"{namespace}/telegraf-prom"
            kubernetes.node.images[image] = Image(log=FORBIDDEN)
            kubernetes.apply(deployment("telegraf-prom", image, replicas=1), namespace)
            kubernetes.wait_until_out(namespace, "telegraf-prom")
            given = {
                "cluster": kubernetes.url_for(World.flow, namespace),
                "namespace": namespace,
                "dashboards": [],
                "telegraf": ["deployment/telegraf-prom"],
                "within_seconds": 60,
                "fresh_within_seconds": 86400,
            }
            world = World(Metrics(sources, given), kubernetes, namespace, folder)
            if is_narrowed:  # to take wide rights wants more than the Role has: to escalate
                given.update(cluster=kubernetes.url, narrow=True)
                put_the_old_instructions(kubernetes, world.metrics)
                world.wide_before = world.wide()
            return world

        yield make
        remove()


@pytest.mark.parametrize("shard", SHARDS)
@pytest.mark.parametrize("is_narrowed", WAYS)
@pytest.mark.timeout(600)
def test_a_worker_killed_at_any_event_gives_the_rights_and_restarts_telegraf_once(
    make_world, runs, is_narrowed, shard
):
    """Goal: no instruction is a point of no return, and telegraf is restarted once.

    Method: kill -9 the worker before and after an event of the journal, resume in another process,
    and ask the API what telegraf may do.
    """
    undisturbed = make_world(is_narrowed=is_narrowed)
    whole = runs.run(undisturbed)
    assert whole.answer["state"] == "recovered", whole.answer
    undisturbed.assert_given_once("undisturbed")
    points = kill_points(whole.events)[shard :: len(SHARDS)]
    assert points

    for point in sampled(points, POINTS_THERE, "telegraf-rights"):
        world = make_world(is_narrowed=is_narrowed)
        killed = runs.run(world, kill=point)
        at = (point, whole.events[min(point[0], len(whole.events)) - 1])
        is_past = killed.exit_code == 0  # it waited less often this time, and ended before that
        assert is_past or killed.exit_code == -9, (at, killed)
        resumed = killed if is_past else world.resume(runs)

        assert resumed.answer["state"] == "recovered", (at, resumed.answer)
        world.assert_given_once(at)


@pytest.mark.parametrize("shard", SHARDS)
@pytest.mark.parametrize("is_narrowed", WAYS)
@pytest.mark.timeout(600)
def test_an_undo_killed_at_any_event_leaves_the_rights_there_were(
    make_world, runs, is_narrowed, shard
):
    """Goal: the way back survives what the way there survives."""
    back = {"undo_by": "kim", "break_glass": "a test"}

    def recovered():
        world = make_world(is_narrowed=is_narrowed)
        ended = runs.run(world)
        assert ended.answer["state"] == "recovered", ended.answer
        return world

    first = recovered()
    whole = runs.run(first, resume=the_recovery(first), **back)
    assert whole.answer["state"] == "undone", whole.answer
    first.assert_as_before("undisturbed")
    points = kill_points(whole.events)[shard :: len(SHARDS)]

    for point in sampled(points, POINTS_BACK, "telegraf-rights-back"):
        world = recovered()
        killed = runs.run(world, kill=point, resume=the_recovery(world), **back)
        at = (point, whole.events[min(point[0], len(whole.events)) - 1])
        assert killed.exit_code in {0, -9}, (at, killed)  # 0: it ended before that
        again = killed if killed.exit_code == 0 else world.resume(runs, **back)

        assert again.answer["state"] == "undone", (at, again.answer)
        world.assert_as_before(at)

"""Restarting a service while its worker is killed, and while its API is away.

What counts is the API: the workload was restarted once, and all its pods are new and ready.
"""

from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.faults.conftest import JournaledWorld, flaws_of, kill_points, sampled, the_recovery
from tests.lab.kubernetes_api import KubernetesApi, deployment

POINTS = 2  # of an ordinary run; all of them with FAULTS=all
REVISION = "deployment.kubernetes.io/revision"
MARK = "recovery-pipelines.io/restarted-by"


@dataclass
class World(JournaledWorld):
    """A Deployment that is well, and the journal of whoever restarts it."""

    api: KubernetesApi
    namespace: str
    folder: Path

    module = "flows.workloads"
    flow = "restart-service"

    @property
    def parameters(self):
        return {
            "cluster": self.api.url_for("restart-service", self.namespace),
            "workload": "web",
            "namespace": self.namespace,
            "restart": True,
            "within_seconds": 30,
        }

    def assert_restarted_once(self, at):
        one = self.api.wait_until_out(self.namespace, "web")
        pods = self.api.pods(self.namespace, **{"k8s-app": "web"})
        mark = one["spec"]["template"]["metadata"]["annotations"][MARK]
        assert one["metadata"]["annotations"][REVISION] == "2", at
        assert {pod["metadata"]["annotations"][MARK] for pod in pods} == {mark}, at
        assert mark == the_recovery(self), at
        assert flaws_of(self) == [], at


@pytest.fixture
def make_world(kubernetes, tmp_path):
    def make():
        namespace = kubernetes.namespace("killed")
        folder = tmp_path / namespace
        folder.mkdir()
        kubernetes.apply(deployment("web", f"{namespace}/web", replicas=2), namespace)
        kubernetes.wait_until_out(namespace, "web")
        return World(kubernetes, namespace, folder)

    return make


@pytest.mark.timeout(300)
def test_a_worker_killed_at_any_event_restarts_the_service_once(make_world, runs):
    """Goal: no instruction is a point of no return, and none is done twice.

    Method: kill -9 the worker before and after an event of the journal, resume in another process,
    and count the revisions of the Deployment.
    """
    undisturbed = make_world()
    whole = runs.run(undisturbed)
    assert whole.answer["state"] == "recovered", whole.answer
    undisturbed.assert_restarted_once("undisturbed")
    points = kill_points(whole.events)
    assert points

    for point in sampled(points, POINTS, "restart-service"):
        world = make_world()
        killed = runs.run(world, kill=point)
        at = (point, whole.events[min(point[0], len(whole.events)) - 1])
        is_past = killed.exit_code == 0  # it waited less often this time, and ended before that
        assert is_past or killed.exit_code == -9, (at, killed)
        resumed = killed if is_past else world.resume(runs)

        assert resumed.answer["state"] == "recovered", (at, resumed.answer)
        world.assert_restarted_once(at)

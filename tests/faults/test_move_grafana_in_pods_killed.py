"""Moving a Grafana on Kubernetes while its worker is killed: it is stopped and started once."""

from dataclasses import dataclass
from urllib.parse import urlsplit

import pytest

from tests.faults.conftest import flaws_of, kill_points, sampled, the_recovery
from tests.integration.test_move_grafana_in_pods import Pods
from tests.lab.grafana_database import make_grafana_database, make_grafana_mysql_schema
from tests.lab.processes import scratch_directory, wait_until

POINTS = 2  # of an ordinary run; all of them with FAULTS=all
OF_PODS = ("scale_down", "start_reader", "stop_reader", "scale_back")


@dataclass
class World:
    """A Grafana on a claim, and the journal of whoever moves it."""

    pods: Pods
    folder: object

    module = "flows.grafana"
    flow = "move-grafana-to-mysql"

    @property
    def parameters(self):
        return self.pods.parameters

    @property
    def environment(self):
        return {
            "RECOVER_JOURNAL": str(self.folder / "journal.sqlite"),
            "RECOVER_WORK_DIR": str(self.folder / "work"),
            "RECOVER_LEASE_SECONDS": "3",
        }

    def end_reader(self):
        """Let the pod that reads the claim come to the end of its time."""
        path = self.pods.api.path("v1", "pods", self.pods.namespace, self.reader)
        self.pods.api.client.patch(path, {"spec": {"activeDeadlineSeconds": 1}})

        def has_ended():
            return self.pods.api.client.get(path)["status"]["phase"] == "Failed"

        wait_until(has_ended, "the reader pod to end", within_seconds=60)

    @property
    def reader(self):
        return f"recovery-{the_recovery(self)}"

    def assert_moved(self, at):
        assert not self.pods.differences().differences, at
        names = [pod["metadata"]["name"] for pod in self.pods.pods()]
        assert not [name for name in names if name.startswith("recovery-")], at
        one = self.pods.api.deployment(self.pods.namespace, "grafana")
        assert one["spec"]["replicas"] == 1, at
        assert "recovery-pipelines.io/replicas" not in one["metadata"]["annotations"], at
        assert flaws_of(self) == [], at


@pytest.fixture
def make_world(pods_kubernetes, mariadb, mariadb_url, tmp_path):
    database = urlsplit(mariadb_url).path.strip("/")
    numbers = iter(range(1000))
    with scratch_directory("claim") as folder:
        make_grafana_database(folder / "grafana.db", dashboards=2, versions_each=1)

        def make():
            mariadb.create_database(database)
            with mariadb.connect(database) as connection:
                make_grafana_mysql_schema(connection)
            own = tmp_path / str(next(numbers))
            own.mkdir()
            return World(Pods(pods_kubernetes, mariadb, database, folder).deploy(), own)

        yield make


@pytest.mark.timeout(400)
def test_a_worker_killed_around_the_pods_leaves_grafana_running_on_its_rows(make_world, runs):
    """Goal: no instruction around the pods is a point of no return.

    Method: kill -9 the worker before and after an event of the steps that stop Grafana, read its
    claim and start it, resume in another process, and look at rows, pods and replicas.
    """
    undisturbed = make_world()
    whole = runs.run(undisturbed, break_glass="fault test")
    assert whole.answer["state"] == "recovered", whole.answer
    undisturbed.assert_moved("undisturbed")
    points = [
        point
        for point in kill_points(whole.events)
        if whole.events[point[0] - 1][1].partition("[")[0] in OF_PODS
    ]
    assert points

    for point in sampled(points, POINTS, "move in pods"):
        world = make_world()
        killed = runs.run(world, kill=point, break_glass="fault test")
        at = (point, whole.events[point[0] - 1])
        assert killed.exit_code == -9, (at, killed)
        resumed = runs.run(world, resume=the_recovery(world), break_glass="fault test")

        assert resumed.answer["state"] == "recovered", (at, resumed.answer)
        world.assert_moved(at)

    started = [
        n for n, event in enumerate(whole.events, 1) if event[:2] == ["done", "start_reader"]
    ]
    world = make_world()
    killed = runs.run(world, kill=(started[0], "after"), break_glass="fault test")
    assert killed.exit_code == -9, killed
    world.end_reader()
    resumed = runs.run(world, resume=the_recovery(world), break_glass="fault test")

    assert resumed.answer["state"] == "recovered", resumed.answer
    world.assert_moved("the reader pod had ended")

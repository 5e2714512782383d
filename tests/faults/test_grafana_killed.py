"""Changing a Grafana while the worker is killed: before, inside and after every step."""

import copy
from dataclasses import dataclass

import pytest

from tests.faults.conftest import flaws_of, kill_points, sampled, the_recovery
from tests.integration.datasource_runs import NAME, Datasources
from tests.integration.metrics_runs import CPU_TO_BE, Metrics, vantiq_resources
from tests.integration.metrics_runs import POINTS as FRESH
from tests.lab.grafana_api import stand_in_grafana

POINTS = 3  # of an ordinary run; all of them with FAULTS=all
TIMES_RESUMED = 3
WRONG_URL = "http://127.0.0.1:1"


@dataclass
class World:
    """A Grafana whose data source is wrong, and the journal of whoever corrects it."""

    sources: Datasources
    is_there: bool

    module = "flows.datasources"
    flow = "add-grafana-datasource"

    @property
    def parameters(self):
        accept = ["former-password"] if self.is_there else []
        return {**self.sources.parameters, "accept": accept, "within_seconds": 20}

    @property
    def environment(self):
        journal = str(self.sources.folder / "journal.sqlite")
        return {"RECOVER_JOURNAL": journal, "RECOVER_LEASE_SECONDS": "3"}

    def resume(self, runs, **options):
        resumed = None
        for _ in range(TIMES_RESUMED):
            recovery_id = the_recovery(self)
            if recovery_id or "undo_by" not in options:
                options = {**options, **({"resume": recovery_id} if recovery_id else {})}
            resumed = runs.run(self, **options)
            if resumed.answer.get("state") in {"recovered", "undone"}:
                break
        return resumed

    def assert_set_once(self, at):
        stored = self.sources.stored()
        assert stored["url"] == self.sources.influxdb.url, at
        assert stored["secrets"] == {"password": self.sources.influxdb.password}, at
        assert stored["version"] == (2 if self.is_there else 1), at
        assert len(self.sources.lab.datasources.stored) == 1, at
        assert flaws_of(self) == [], at
        kept = b"".join(p.read_bytes() for p in self.sources.folder.glob("journal.sqlite*"))
        assert self.sources.influxdb.password.encode() not in kept, at


@pytest.fixture
def make_world(influxdb, tmp_path):
    database = influxdb.create_database("killed")
    influxdb.write(database, "cpu,host=a usage=1")
    with stand_in_grafana() as lab:
        lab.role = "Admin"
        numbers = iter(range(1000))

        def make(*, is_there):
            folder = tmp_path / str(next(numbers))
            folder.mkdir()
            lab.datasources.stored.clear()
            sources = Datasources(lab, influxdb, database, folder)
            if is_there:
                sources.add(url=WRONG_URL, secrets={"password": "f0rmer-of-the-lab"})
            return World(sources, is_there)

        yield make


@pytest.mark.timeout(240)
@pytest.mark.parametrize("is_there", [False, True], ids=["created", "changed"])
def test_a_worker_killed_at_any_event_writes_the_data_source_once(make_world, runs, is_there):
    """Goal: no instruction is a point of no return, and none is done twice.

    Method: kill -9 the worker before and after an event of the journal, resume in another process,
    and look at the data source, how often it was changed, and whether there is a second one.
    """
    undisturbed = make_world(is_there=is_there)
    whole = runs.run(undisturbed)
    assert whole.answer["state"] == "recovered", whole.answer
    undisturbed.assert_set_once("undisturbed")

    for point in sampled(kill_points(whole.events), POINTS, f"datasource-{is_there}"):
        world = make_world(is_there=is_there)
        killed = runs.run(world, kill=point)
        at = (point, whole.events[min(point[0], len(whole.events)) - 1])
        assert killed.exit_code == -9, (at, killed)
        resumed = world.resume(runs)

        assert resumed.answer["state"] == "recovered", (at, resumed.answer)
        world.assert_set_once(at)


@pytest.mark.timeout(240)
def test_an_undo_killed_at_any_event_ends_with_the_former_data_source(make_world, runs):
    """Goal: the way back survives what the way there survives.

    Method: correct, begin to undo, kill before or after an event, undo again, and compare.
    """
    back = {"undo_by": "fault test", "break_glass": "fault test"}
    first = make_world(is_there=True)
    before = copy.deepcopy(first.sources.stored(NAME))
    runs.run(first)
    whole = runs.run(first, resume=the_recovery(first), **back)
    assert whole.answer["state"] == "undone", whole.answer
    assert first.sources.stored()["url"] == before["url"]

    for point in sampled(kill_points(whole.events), POINTS, "datasource-undo"):
        world = make_world(is_there=True)
        runs.run(world)
        killed = runs.run(world, kill=point, resume=the_recovery(world), **back)
        at = (point, whole.events[min(point[0], len(whole.events)) - 1])
        assert killed.exit_code == -9, (at, killed)
        again = world.resume(runs, **back)

        assert again.answer["state"] == "undone", (at, again.answer)
        stored = world.sources.stored()
        assert stored["url"] == before["url"], at
        assert stored["version"] == 3, at
        assert flaws_of(world) == [], at


@dataclass
class DashboardWorld:
    """A Grafana with two dashboards of docker, and the journal of whoever migrates them."""

    metrics: Metrics

    module = "flows.metrics"
    flow = "restore-grafana-metrics"

    @property
    def parameters(self):
        return {**self.metrics.parameters, "dashboards": ["vantiq", "second"]}

    @property
    def environment(self):
        folder = self.metrics.sources.folder
        return {
            "RECOVER_JOURNAL": str(folder / "journal.sqlite"),
            "RECOVER_WORK_DIR": str(folder / "work"),
            "RECOVER_LEASE_SECONDS": "3",
        }

    resume = World.resume

    def assert_saved_once(self, at):
        for uid in ("vantiq", "second"):
            dashboard = self.metrics.dashboard(uid)
            (cpu,) = dashboard["panels"][0]["panels"][0]["targets"]
            assert cpu["query"] == CPU_TO_BE, (uid, at)
            assert dashboard["version"] == 5, (uid, at)
        assert flaws_of(self) == [], at


@pytest.fixture
def make_dashboards(make_world, influxdb):
    def make():
        sources = make_world(is_there=False).sources
        influxdb.write(sources.database, *FRESH)
        sources.add()
        sources.lab.dashboards.clear()
        world = DashboardWorld(Metrics(sources))
        world.metrics.put()
        world.metrics.put(vantiq_resources("second", title="Second", id=2))
        return world

    return make


@pytest.mark.timeout(240)
def test_a_worker_killed_at_any_event_saves_each_dashboard_once(make_dashboards, runs):
    """Goal: no instruction is a point of no return, and none is done twice.

    Method: kill -9 the worker before and after an event of the journal, resume in another process,
    and look at the queries of each dashboard and how often it was saved.
    """
    undisturbed = make_dashboards()
    whole = runs.run(undisturbed)
    assert whole.answer["state"] == "recovered", whole.answer
    undisturbed.assert_saved_once("undisturbed")

    for point in sampled(kill_points(whole.events), POINTS, "dashboards"):
        world = make_dashboards()
        killed = runs.run(world, kill=point)
        at = (point, whole.events[min(point[0], len(whole.events)) - 1])
        assert killed.exit_code == -9, (at, killed)
        resumed = world.resume(runs)

        assert resumed.answer["state"] == "recovered", (at, resumed.answer)
        world.assert_saved_once(at)


@pytest.mark.timeout(240)
def test_an_undo_killed_at_any_event_ends_with_every_dashboard_as_it_was(make_dashboards, runs):
    """Goal: the way back survives what the way there survives.

    Method: migrate, begin to undo, kill before or after an event, undo again, and compare.
    """
    back = {"undo_by": "fault test", "break_glass": "fault test"}
    first = make_dashboards()
    before = copy.deepcopy(first.metrics.lab.dashboards)
    runs.run(first)
    whole = runs.run(first, resume=the_recovery(first), **back)
    assert whole.answer["state"] == "undone", whole.answer

    for point in sampled(kill_points(whole.events), POINTS, "dashboards-undo"):
        world = make_dashboards()
        runs.run(world)
        killed = runs.run(world, kill=point, resume=the_recovery(world), **back)
        at = (point, whole.events[min(point[0], len(whole.events)) - 1])
        assert killed.exit_code == -9, (at, killed)
        again = world.resume(runs, **back)

        assert again.answer["state"] == "undone", (at, again.answer)
        for uid in before:
            wanted = {**before[uid]["dashboard"], "version": 6}
            assert world.metrics.dashboard(uid) == wanted, (uid, at)
        assert flaws_of(world) == [], at

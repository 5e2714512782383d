"""Setting a value while the worker is killed.

What counts is the API: the value is the new one, each consumer was restarted once, and all its pods
are newer than the value.
"""

from dataclasses import dataclass

import pytest

from tests.faults.conftest import JournaledWorld, flaws_of, kill_points, sampled, the_recovery
from tests.integration.config_runs import CONFIG, MARK, Settings, encoded
from tests.lab.kubernetes_node import UNREADY, Image

POINTS = 2  # of an ordinary run; all of them with FAULTS=all
POINTS_BACK = 1
LIMIT = "CERTIFICATE_UPDATE_LIMIT"
OLD, NEW = "old-0f-the-lab-17", "new-0f-the-lab-42"
READERS = ("api", "web")


@dataclass
class World(JournaledWorld):
    """Two Deployments that read a setting, and the journal of whoever changes it."""

    settings: Settings
    given: dict
    within_seconds: int = 30

    module = "flows.config_values"
    flow = "set-config-value"
    ends = ("recovered", "failed")

    @property
    def folder(self):
        return self.settings.folder

    @property
    def parameters(self):
        cluster = self.settings.api.url_for(self.flow, self.settings.namespace)
        place = {"cluster": cluster, "namespace": self.settings.namespace}
        return {**place, **self.given, "within_seconds": self.within_seconds}

    def assert_back(self, at):
        settings = self.settings
        assert self.value() == "100", at
        marks = [settings.mark(name) for name in READERS]
        assert marks == [f"{the_recovery(self)}-back", ""], at
        for name in READERS:
            settings.api.wait_until_out(settings.namespace, name)
        assert flaws_of(self) == [], at

    def value(self):
        kind, _, name = self.given["config"].partition("/")
        return self.settings.value(self.given["key"], name, f"{kind}s")

    def assert_set_once(self, wanted, at):
        settings = self.settings
        assert self.value() == wanted, at
        for name in READERS:
            settings.api.wait_until_out(settings.namespace, name)
            assert settings.revision(name) == "2", (name, at)
            pods = settings.api.pods(settings.namespace, **{"k8s-app": name})
            assert {p["metadata"]["annotations"][MARK] for p in pods} == {the_recovery(self)}, at
        assert flaws_of(self) == [], at


@pytest.fixture
def make_world(kubernetes, tmp_path):
    def make(*, is_secret):
        namespace = kubernetes.namespace("setkilled")
        folder = tmp_path / namespace
        folder.mkdir()
        settings = Settings(kubernetes, namespace, folder)
        settings.config_map()
        settings.secret(KEY=OLD)
        sources = [{"configMapRef": {"name": "divoc-config"}}]
        sources += [{"secretRef": {"name": "divoc-secrets"}}]
        for name in READERS:
            settings.reader(name, replicas=1, envFrom=sources)
        given = {"config": CONFIG, "key": LIMIT, "value": "200"}
        if is_secret:
            given = {"config": "secret/divoc-secrets", "key": "KEY"}
            given["value_file"] = settings.file(NEW)
        return World(settings, given)

    return make


@pytest.mark.timeout(300)
@pytest.mark.parametrize("is_secret", [False, True], ids=["plain", "secret"])
def test_a_worker_killed_at_any_event_sets_the_value_and_restarts_each_once(
    make_world, runs, is_secret
):
    """Goal: no instruction is a point of no return, and none is done twice.

    Method: kill -9 the worker before and after an event of the journal, resume in another process,
    and count the revisions of each Deployment; of a secret, look for it in the journal too.
    """
    wanted = encoded(NEW) if is_secret else "200"
    undisturbed = make_world(is_secret=is_secret)
    whole = runs.run(undisturbed)
    assert whole.answer["state"] == "recovered", whole.answer
    undisturbed.assert_set_once(wanted, "undisturbed")
    points = kill_points(whole.events)
    assert points

    for point in sampled(points, POINTS, f"set-config-value-{is_secret}"):
        world = make_world(is_secret=is_secret)
        killed = runs.run(world, kill=point)
        at = (point, whole.events[min(point[0], len(whole.events)) - 1])
        is_past = killed.exit_code == 0  # it waited less often this time, and ended before that
        assert is_past or killed.exit_code == -9, (at, killed)
        resumed = killed if is_past else world.resume(runs)

        assert resumed.answer["state"] == "recovered", (at, resumed.answer)
        world.assert_set_once(wanted, at)
        kept = b"".join(path.read_bytes() for path in world.folder.glob("journal.sqlite*"))
        assert not [value for value in (OLD, NEW) if value.encode() in kept], at


@pytest.mark.timeout(300)
def test_a_worker_killed_while_it_goes_back_ends_with_the_former_value(make_world, runs):
    """Goal: a value that a consumer cannot start with is not left behind by a kill.

    Method: the second consumer never becomes ready with it; kill -9 the worker at an event from the
    putting back on, resume, and look at the value and at the marks of both.
    """
    broken = Image(UNREADY)

    def prepared():
        world = make_world(is_secret=False)
        world.within_seconds = 8
        api, namespace = world.settings.api, world.settings.namespace
        api.node.images[f"{namespace}/web"] = broken
        return world

    undisturbed = prepared()
    whole = runs.run(undisturbed)
    assert whole.answer["state"] == "failed", whole.answer
    undisturbed.assert_back("undisturbed")
    first = next(
        n for n, event in enumerate(whole.events, 1) if event[1].startswith("put_value_back")
    )
    points = [point for point in kill_points(whole.events) if point[0] >= first]
    assert points

    for point in sampled(points, POINTS_BACK, "set-config-value-back"):
        world = prepared()
        killed = runs.run(world, kill=point)
        at = (point, whole.events[min(point[0], len(whole.events)) - 1])
        if killed.exit_code != 0:
            assert killed.exit_code == -9, (at, killed)
            resumed = world.resume(runs)
            assert resumed.answer["state"] == "failed", (at, resumed.answer)
        world.assert_back(at)

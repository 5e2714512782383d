"""Enabling a backup of MongoDB while its worker is killed, on the way there and on the way back.

What counts is the API: the credentials, the schedule, and how many backups were run.
"""

import base64
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.faults.conftest import JournaledWorld, flaws_of, kill_points, sampled, the_recovery
from tests.integration.kubernetes_runs import Mongodb, cronjob
from tests.lab.kubernetes_node import SUCCEEDS, Image
from tests.lab.processes import made_up_password

POINTS = 2  # of an ordinary run; all of them with FAULTS=all
VOLUMES = [{"name": "creds", "secret": {"secretName": "dbbackup-creds"}}]


@dataclass
class World(JournaledWorld):
    """An installation whose backup is suspended and has no credentials, and who enables it."""

    mongodb: Mongodb
    folder: Path

    module = "flows.mongodb"
    flow = "enable-mongodb-backup"
    ends = ("recovered", "undone")

    def __post_init__(self):
        self.file = self.folder / "credentials.txt"
        key = base64.b64encode(made_up_password().encode()).decode()
        self.file.write_text(
            f"export AZURE_STORAGE_ACCOUNT=backups\nexport AZURE_STORAGE_KEY={key}\n"
        )
        self.file.chmod(0o600)

    @property
    def parameters(self):
        return {
            "cluster": self.mongodb.api.url_for(self.flow, self.mongodb.namespace),
            "namespace": self.mongodb.namespace,
            "credentials_file": str(self.file),
            "backup_schedule": "0 3 * * *",
            "backup_within_seconds": 30,
        }

    def spec(self):
        path = self.mongodb.api.path("batch/v1", "cronjobs", self.mongodb.namespace, "mongobackup")
        return self.mongodb.api.client.get(path)["spec"]

    def secrets(self):
        listed = self.mongodb.api.client.items(
            self.mongodb.api.path("v1", "secrets", self.mongodb.namespace)
        )
        return {one["metadata"]["name"]: one["data"] for one in listed}

    def assert_enabled_by_one_backup(self, at):
        held = base64.b64decode(self.secrets()["dbbackup-creds"]["credentials"]).decode()
        assert held == self.file.read_text(), at
        assert (self.spec()["suspend"], self.spec()["schedule"]) == (False, "0 3 * * *"), at
        assert self.mongodb.starts("mongobackup") == 1, at
        assert flaws_of(self) == [], at

    def assert_as_before(self, at):
        assert self.secrets() == {}, at
        assert (self.spec()["suspend"], self.spec()["schedule"]) == (True, "@daily"), at
        assert flaws_of(self) == [], at


@pytest.fixture
def make_world(kubernetes, tmp_path):
    def make():
        mongodb = Mongodb(kubernetes, kubernetes.namespace("killed"))
        image = mongodb.image("mongobackup")
        kubernetes.apply(cronjob("mongobackup", image, volumes=VOLUMES), mongodb.namespace)
        kubernetes.node.images[image] = Image(SUCCEEDS, log="done dumping\n")
        folder = tmp_path / mongodb.namespace
        folder.mkdir()
        return World(mongodb, folder)

    return make


@pytest.mark.timeout(600)
def test_a_worker_killed_at_any_event_backs_up_once_and_then_switches_it_on(make_world, runs):
    """Goal: no instruction is a point of no return, and none is done twice.

    Method: kill -9 the worker before and after an event of the journal, resume in another process,
    and look at the Secret, the schedule and the Jobs.
    """
    undisturbed = make_world()
    whole = runs.run(undisturbed)
    assert whole.answer["state"] == "recovered", whole.answer
    undisturbed.assert_enabled_by_one_backup("undisturbed")

    for point in sampled(kill_points(whole.events), POINTS, "enable-mongodb-backup"):
        world = make_world()
        killed = runs.run(world, kill=point)
        at = (point, whole.events[min(point[0], len(whole.events)) - 1])
        assert killed.exit_code in {0, -9}, (at, killed)  # 0: it waited less often, and ended
        resumed = world.resume(runs)

        assert resumed.answer["state"] == "recovered", (at, resumed.answer)
        world.assert_enabled_by_one_backup(at)


@pytest.mark.timeout(600)
def test_an_undo_killed_at_any_event_leaves_what_was_there_before(make_world, runs):
    """Goal: the way back survives what the way there survives."""
    back = {"undo_by": "fault test", "break_glass": "test"}
    first = make_world()
    runs.run(first)
    whole = runs.run(first, resume=the_recovery(first), **back)
    assert whole.answer["state"] == "undone", whole.answer
    first.assert_as_before("undisturbed")

    for point in sampled(kill_points(whole.events), 2, "enable-mongodb-backup back"):
        world = make_world()
        runs.run(world)
        killed = runs.run(world, kill=point, resume=the_recovery(world), **back)
        at = (point, whole.events[min(point[0], len(whole.events)) - 1])
        assert killed.exit_code in {0, -9}, (at, killed)
        again = world.resume(runs, **back)

        assert again.answer["state"] == "undone", (at, again.answer)
        world.assert_as_before(at)

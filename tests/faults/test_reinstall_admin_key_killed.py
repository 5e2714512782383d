"""Making an installation anew while the worker is killed, and going back in the middle of it.

What counts is the cluster, whose pods run: either a new claim on another volume, or the old one.
"""

from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.faults.conftest import JournaledWorld, flaws_of, kill_points, sampled, the_recovery
from tests.integration.admin_key_runs import Installation
from tests.lab.keycloak import lab_keycloak
from tests.lab.processes import wait_until

POINTS = 2  # of an ordinary run; all of them with FAULTS=all
CONSENT = "robin"


@dataclass
class World(JournaledWorld):
    """An installation, and the journal of whoever makes it anew."""

    installation: Installation
    folder: Path
    hash: str = ""
    old: str = ""
    uid: str = ""

    module = "flows.admin_key"
    flow = "reinstall-lost-admin-key"

    @property
    def parameters(self):
        return self.installation.parameters

    def run(self, runs, **options):
        return runs.run(self, approve=self.hash, approved_by=CONSENT, **options)

    def assert_anew(self, at):
        one = self.installation
        assert one.claim()["metadata"]["uid"] != self.uid, at
        assert one.volume_in_use() != self.old, at
        assert one.policy_of(self.old) == "Retain", at
        assert len(one.key_file.read_text().strip()) == 36, at
        assert one.is_well("mongodb"), at
        assert one.is_well("vantiq"), at
        assert flaws_of(self) == [], at


@pytest.fixture
def make_world(pods_kubernetes, tmp_path, monkeypatch):
    with lab_keycloak(tmp_path / "keycloak", "/auth") as keycloak:

        def make():
            namespace = pods_kubernetes.namespace("keykilled")
            folder = tmp_path / namespace
            folder.mkdir()
            one = Installation(pods_kubernetes, namespace, folder, keycloak).deploy()
            monkeypatch.setenv("RECOVER_JOURNAL", str(folder / "plan.sqlite"))
            planned = one.run({"plan_only": True}).plan
            uid = one.claim()["metadata"]["uid"]
            return World(one, folder, planned.hash, one.volume_in_use(), uid)

        yield make


@pytest.mark.timeout(300)
def test_a_worker_killed_at_any_event_makes_it_anew_once(make_world, runs):
    """Goal: no instruction is a point of no return, and no claim is removed twice.

    Method: kill -9 the worker before and after an event of the journal, resume in another process,
    and look at the claim, both volumes, the pods and the key.
    """
    undisturbed = make_world()
    whole = undisturbed.run(runs)
    assert whole.answer["state"] == "recovered", whole.answer
    undisturbed.assert_anew("undisturbed")
    points = kill_points(whole.events)
    assert points

    for point in sampled(points, POINTS, "reinstall-lost-admin-key"):
        world = make_world()
        killed = world.run(runs, kill=point)
        at = (point, whole.events[min(point[0], len(whole.events)) - 1])
        is_past = killed.exit_code == 0  # it waited less often this time, and ended before that
        assert is_past or killed.exit_code == -9, (at, killed)
        resumed = killed if is_past else world.resume(runs)

        assert resumed.answer["state"] == "recovered", (at, resumed.answer)
        world.assert_anew(at)


@pytest.mark.timeout(240)
def test_a_removed_claim_comes_back_on_the_volume_it_had(make_world, runs):
    """Goal: until the database starts anew, there is a way back to the data of before.

    Method: kill the worker when it has removed the claim, and undo in another process.
    """
    trial = make_world()
    events = trial.run(runs).events
    removed = next(
        n
        for n, event in enumerate(events, 1)
        if event[0] == "done" and event[1].startswith("remove_claim")
    )
    world = make_world()
    assert world.run(runs, kill=(removed, "after")).exit_code == -9

    undone = runs.run(world, resume=the_recovery(world), undo_by="kim")

    assert undone.answer["state"] == "undone", undone.answer["error"]
    one = world.installation
    wait_until(lambda: one.is_well("mongodb"), "the database", within_seconds=60)
    wait_until(lambda: one.is_well("vantiq"), "the client", within_seconds=60)
    assert one.volume_in_use() == world.old
    assert one.policy_of(world.old) == one.policy  # as it was, since its claim has it again
    assert flaws_of(world) == []

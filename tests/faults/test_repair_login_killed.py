"""Giving a role the password of Keycloak's pods while the worker is killed.

What counts is the world: the database takes what the pods have, they are up, and were restarted
once. The other side, the value that the pods have, is that of set-config-value.
"""

from dataclasses import dataclass

import pytest

from tests.faults.conftest import JournaledWorld, flaws_of, kill_points, sampled, the_recovery
from tests.integration.config_runs import MARK, encoded
from tests.integration.login_runs import NAME, RIGHT, WRONG, Keycloak, keycloak_on

POINTS = 2  # of an ordinary run; all of them with FAULTS=all


@dataclass
class World(JournaledWorld):
    """A Keycloak that its database refuses, and the journal of whoever repairs that."""

    keycloak: Keycloak

    module = "flows.database_login"
    flow = NAME
    ends = ("recovered", "failed")

    @property
    def folder(self):
        return self.keycloak.folder

    @property
    def parameters(self):
        settings = self.keycloak.settings
        place = {
            "cluster": settings.api.url_for(self.flow, settings.namespace),
            "namespace": settings.namespace,
        }
        how = {"side": "role", "database": self.keycloak.admin, "within_seconds": 30}
        return {**place, "workload": "keycloak", **how}

    def assert_repaired_once(self, at):
        keycloak, settings = self.keycloak, self.keycloak.settings
        assert keycloak.lets_in(WRONG), at  # what the pods have
        assert not keycloak.lets_in(RIGHT), at
        assert keycloak.is_up(), at
        assert settings.revision("keycloak") == "2", at
        pods = settings.api.pods(settings.namespace, **{"k8s-app": "keycloak"})
        assert {p["metadata"]["annotations"][MARK] for p in pods} == {the_recovery(self)}, at
        kept = settings.object(f"recovery-{the_recovery(self)}", "secrets")
        assert set(kept["data"]) == {"before"}, at
        assert flaws_of(self) == [], at
        told = b"".join(path.read_bytes() for path in keycloak.folder.glob("journal.sqlite*"))
        secrets = [RIGHT, WRONG, encoded(RIGHT), encoded(WRONG), "SCRAM-SHA-256$"]
        assert not [one for one in secrets if one.encode() in told], at


@pytest.fixture
def make_world(kubernetes, postgres, tmp_path_factory):
    def make():
        keycloak = keycloak_on(kubernetes, postgres, tmp_path_factory.mktemp("login"))
        return World(keycloak.deploy(WRONG))

    return make


@pytest.mark.timeout(300)
def test_a_worker_killed_at_any_event_gives_the_role_the_password_of_the_pods(make_world, runs):
    """Goal: no instant leaves the role with a password that neither side has, or no way back.

    Method: kill -9 the worker before and after an event of the journal, resume in another process,
    log in with what the pods have, and count the revisions of the Deployment.
    """
    undisturbed = make_world()
    whole = runs.run(undisturbed)
    assert whole.answer["state"] == "recovered", whole.answer
    undisturbed.assert_repaired_once("undisturbed")
    points = kill_points(whole.events)
    assert points

    for point in sampled(points, POINTS, NAME):
        world = make_world()
        killed = runs.run(world, kill=point)
        at = (point, whole.events[min(point[0], len(whole.events)) - 1])
        is_past = killed.exit_code == 0  # it waited less often this time, and ended before that
        assert is_past or killed.exit_code == -9, (at, killed)
        resumed = killed if is_past else world.resume(runs)

        assert resumed.answer["state"] == "recovered", (at, resumed.answer)
        world.assert_repaired_once(at)

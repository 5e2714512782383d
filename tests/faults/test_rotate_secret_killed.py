"""Rotating a secret that Keycloak and the services share while the worker is killed.

What counts is asked of both: Keycloak was given exactly one new secret, the services have that one,
each was restarted once, and a token is given for it.
"""

from dataclasses import dataclass

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
from tests.integration.client_secret_runs import NAME, READERS, Platform
from tests.integration.config_runs import MARK, Settings, encoded
from tests.lab.keycloak import lab_keycloak
from tests.lab.keycloak_server import WITHOUT_PREFIX
from tests.lab.kubernetes_node import UNREADY, Image

POINTS = 2  # of an ordinary run; all of them with FAULTS=all
POINTS_BACK = 1
SHARDS = shards(10, in_a_sample=1)
READER = READERS[:1]


@dataclass
class World(JournaledWorld):
    """Keycloak, a service that logs in to it, and the journal of whoever rotates the secret."""

    platform: Platform
    old: str
    lease_seconds: int = 3
    within_seconds: int = 30
    retry_delays: tuple = RETRY_DELAYS_SECONDS

    module = "flows.client_secrets"
    flow = NAME
    ends = ("recovered", "failed", "undone")

    @property
    def api(self):
        return self.platform.settings.api

    @property
    def folder(self):
        return self.platform.settings.folder

    @property
    def parameters(self):
        settings = self.platform.settings
        return {
            "cluster": settings.api.url_for(self.flow, settings.namespace),
            "namespace": settings.namespace,
            "keycloak": self.platform.keycloak.parameter,
            "config": self.platform.config,
            "rotate": True,
            "within_seconds": self.within_seconds,
        }

    def assert_rotated_once(self, at):
        platform = self.platform
        given = platform.keycloak.standin.secrets_set
        assert len(given) == 1, (given, at)
        assert platform.held == given[0] != self.old, at
        assert platform.agrees_on(given[0]), at
        for name in READER:
            platform.settings.api.wait_until_out(platform.settings.namespace, name)
            assert platform.settings.revision(name) == "2", (name, at)
            pods = platform.settings.api.pods(platform.settings.namespace, **{"k8s-app": name})
            assert {p["metadata"]["annotations"][MARK] for p in pods} == {the_recovery(self)}, at
        self.assert_told_nowhere(given[0], at)

    def assert_back(self, at):
        platform = self.platform
        assert platform.agrees_on(self.old), (platform.held, self.old, at)
        for name in READER:
            platform.settings.api.wait_until_out(platform.settings.namespace, name)
        self.assert_told_nowhere(platform.keycloak.standin.secrets_set[0], at)

    def assert_told_nowhere(self, new, at):
        assert flaws_of(self) == [], at
        folder = self.platform.settings.folder
        kept = b"".join(path.read_bytes() for path in folder.glob("journal.sqlite*"))
        tokens = list(self.platform.keycloak.standin.tokens)
        secrets = [self.old, new, encoded(self.old), encoded(new), *tokens]
        secrets.append(self.platform.keycloak.password)
        assert not [one for one in secrets if one.encode() in kept], at


@pytest.fixture
def make_world(kubernetes, tmp_path):
    """Worlds side by side on one Keycloak, each with a realm of its own emptied before."""
    with lab_keycloak(tmp_path / "keycloak", WITHOUT_PREFIX) as keycloak:

        def make(**settings):
            standin = keycloak.standin
            standin.realms.pop("divoc", None)
            standin.secrets_set.clear()
            standin.tokens.clear()
            keycloak.make()
            namespace = kubernetes.namespace("rotkilled")
            folder = tmp_path / namespace
            folder.mkdir()
            platform = Platform(
                Settings(kubernetes, namespace, folder, **settings),
                keycloak,
                "secret/divoc-secrets",
            )
            old = platform.held
            platform.deploy(old, readers=READER)
            return World(platform, old)

        yield make


@pytest.mark.timeout(600)
@pytest.mark.parametrize("shard", SHARDS)
def test_a_worker_killed_at_any_event_gives_keycloak_one_secret_and_the_services_that_one(
    make_world, runs, shard
):
    """Goal: no instant leaves Keycloak with a secret nobody has kept, and none brings a second one.

    Method: kill -9 the worker before and after an event of the journal, also between Keycloak and
    the cluster, resume in another process, and compare what either side has.
    """
    undisturbed = make_world()
    whole = runs.run(undisturbed)
    assert whole.answer["state"] == "recovered", whole.answer
    undisturbed.assert_rotated_once("undisturbed")
    points = kill_points(whole.events)
    between = [n for n, event in enumerate(whole.events, 1) if _is_of_keycloak(event)]
    assert between
    window = [point for point in points if between[0] <= point[0] <= between[-1] + 1]
    assert window

    chosen = dict.fromkeys([*sampled(window, POINTS // 2, NAME), *sampled(points, POINTS, NAME)])
    for point in points[shard :: len(SHARDS)] if IS_WHOLE else chosen:
        world = make_world()
        killed = runs.run(world, kill=point)
        at = (point, whole.events[min(point[0], len(whole.events)) - 1])
        is_past = killed.exit_code == 0  # it waited less often this time, and ended before that
        assert is_past or killed.exit_code == -9, (at, killed)
        resumed = killed if is_past else world.resume(runs)

        assert resumed.answer["state"] == "recovered", (at, resumed.answer)
        world.assert_rotated_once(at)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("shard", SHARDS)
def test_a_worker_killed_while_it_goes_back_leaves_both_with_the_former_secret(
    make_world, runs, shard
):
    """Goal: where a service does not come up with the new secret, no kill leaves the two apart.

    Method: the service never becomes ready with it; kill -9 the worker at an event from Keycloak's
    going back on, resume, and compare what either side has.
    """

    def prepared():
        world = make_world()
        world.within_seconds = 20
        settings = world.platform.settings
        settings.api.node.images[f"{settings.namespace}/{READER[0]}"] = Image(UNREADY)
        return world

    undisturbed = prepared()
    whole = runs.run(undisturbed)
    assert whole.answer["state"] == "failed", whole.answer
    undisturbed.assert_back("undisturbed")
    first = next(
        n for n, event in enumerate(whole.events, 1) if event[1].startswith("put_client_secret")
    )
    points = [point for point in kill_points(whole.events) if point[0] >= first]

    for point in sampled(points[shard :: len(SHARDS)], POINTS_BACK, f"{NAME}-back"):
        world = prepared()
        killed = runs.run(world, kill=point)
        at = (point, whole.events[min(point[0], len(whole.events)) - 1])
        if killed.exit_code != 0:
            assert killed.exit_code == -9, (at, killed)
            resumed = world.resume(runs)
            assert resumed.answer["state"] == "failed", (at, resumed.answer)
        world.assert_back(at)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("shard", SHARDS)
def test_a_worker_killed_while_it_undoes_gives_both_the_former_secret_again(
    make_world, runs, shard
):
    """Goal: a way back that is killed is gone to its end by the next attempt.

    Method: rotate, kill -9 the worker at an event of the way back, resume that, compare both sides.
    """
    back = {"undo_by": "kim", "break_glass": "a test"}

    def rotated():
        world = make_world()
        assert runs.run(world).answer["state"] == "recovered"
        return world

    undisturbed = rotated()
    whole = runs.run(undisturbed, resume=the_recovery(undisturbed), **back)
    assert whole.answer["state"] == "undone", whole.answer
    undisturbed.assert_back("undisturbed")

    points = kill_points(whole.events)[shard :: len(SHARDS)]
    for point in sampled(points, POINTS_BACK, f"{NAME}-undo"):
        world = rotated()
        killed = runs.run(world, kill=point, resume=the_recovery(world), **back)
        at = (point, whole.events[min(point[0], len(whole.events)) - 1])
        if killed.exit_code != 0:
            assert killed.exit_code == -9, (at, killed)
            resumed = world.resume(runs, **back)
            assert resumed.answer["state"] == "undone", (at, resumed.answer)
        world.assert_back(at)


@pytest.mark.skipif(not IS_WHOLE, reason="with FAULTS=all: each loss takes a minute")
@pytest.mark.timeout(2400)
def test_an_api_that_is_away_for_a_minute_at_any_step_needs_no_person(make_world, runs):
    """Goal: the loss of the API is waited out, at whichever step it comes.

    Method: stop the worker before a change, take the API away for a minute, let the worker go on,
    and see the same attempt end with one secret on both sides.
    """
    given = {"deadline_seconds": 600}  # of the platform: its controllers are away as well
    whole = runs.run(make_world(**given))
    assert whole.answer["state"] == "recovered", whole.answer

    for point in points_of_loss(whole.events):
        world = make_world(**given)
        ended = run_through_loss(world, runs, point)

        assert ended.answer["state"] == "recovered", (point, ended.answer)
        world.assert_rotated_once(point)


def _is_of_keycloak(event):
    return event[1].startswith("set_client_secret")

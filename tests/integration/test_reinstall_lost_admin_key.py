"""reinstall-lost-admin-key on pods that run: what is erased, what stays, and what is refused."""

import pytest

from recovery.errors import BadInput, CommandFailed, NeedsPerson, Refused
from recovery.stage import PlainStage
from tests.integration.admin_key_runs import ROLE, Installation
from tests.lab.keycloak import lab_keycloak

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(autouse=True)
def journal(tmp_path, monkeypatch):
    monkeypatch.setenv("RECOVER_JOURNAL", str(tmp_path / "journal.sqlite"))
    monkeypatch.setattr("recovery.declare.PlainStage", lambda: PlainStage((0.1, 0.2)))


@pytest.fixture(scope="module")
def keycloak(tmp_path_factory):
    with lab_keycloak(tmp_path_factory.mktemp("keycloak"), "/auth") as running:
        yield running


@pytest.fixture(scope="module")
def shared(pods_kubernetes, keycloak, tmp_path_factory):
    """An installation that no test may change for good."""
    folder = tmp_path_factory.mktemp("shared")
    return Installation(
        pods_kubernetes, pods_kubernetes.namespace("key"), folder, keycloak
    ).deploy()


def test_an_installation_that_nobody_used_is_made_anew_and_its_key_kept(
    pods_kubernetes, keycloak, tmp_path
):
    namespace = pods_kubernetes.namespace("anew")
    one = Installation(pods_kubernetes, namespace, tmp_path, keycloak).deploy()
    one.use(**{"vantiq.namespaces": 1})
    old, uid = one.volume_in_use(), one.claim()["metadata"]["uid"]

    ended = one.approved(baseline=["vantiq.namespaces=1"])

    assert ended.error is None, ended.error
    log_in, remove = ended.result.left_to_person
    assert str(one.key_file) in log_in
    assert old in remove
    assert one.claim()["metadata"]["uid"] != uid
    assert one.volume_in_use() != old
    assert one.policy_of(old) == "Retain"
    assert (one.disk(old.removeprefix(f"{namespace}-")) / "counts.json").exists()
    assert one.is_well("mongodb")
    assert one.is_well("vantiq")
    key = one.key_file.read_text().strip()
    assert one.key_file.stat().st_mode & 0o777 == 0o600
    log = pods_kubernetes.client
    assert len(key) == 36
    assert log is not None
    journal = b"".join(path.read_bytes() for path in tmp_path.glob("journal.sqlite*"))
    assert key.encode() not in journal
    assert b"lines, which are not kept" in journal


def test_a_plan_names_claims_and_volumes_by_uid_and_changes_nothing(shared):
    claim = shared.claim()

    planned = shared.run({"plan_only": True})

    assert planned.error is None, planned.error
    steps = {step.key: step.commands for step in planned.plan.steps if step.commands}
    names = [key.partition("(")[0].partition("[")[0] for key in steps]
    assert names[0].startswith("keep_volume")
    removal = next(commands for key, commands in steps.items() if key.startswith("remove_claim"))
    assert claim["metadata"]["uid"] in removal[0]
    assert shared.claim()["metadata"]["resourceVersion"] == claim["metadata"]["resourceVersion"]


def test_documents_beyond_those_of_a_fresh_installation_are_never_erased(shared):
    shared.use(**{"vantiq.namespaces": 1, "vantiq.types": 7})
    try:
        ended = shared.run({"plan_only": True}, baseline=["vantiq.namespaces=1"])
        flagged = shared.run({"break_glass": "hurry"}, baseline=["vantiq.namespaces=1"])
    finally:
        shared.use()

    for one in (ended, flagged):
        told = str(one.error) + str(one.plan and one.plan.refusals)
        assert "vantiq.types has 7 documents, 0 when fresh" in told
        assert "escalate to the vendor" in told


def test_an_administrator_who_can_log_in_is_a_reason_to_reset_a_password_instead(shared):
    realm = shared.namespace
    shared.keycloak.standin.role_users[realm, ROLE] = ["sasha"]
    try:
        ended = shared.run({"break_glass": "hurry"})
    finally:
        shared.keycloak.standin.role_users[realm, ROLE] = []

    assert isinstance(ended.error, Refused)
    assert "sasha have the role system-admin" in str(ended.error)


@pytest.mark.parametrize(
    ("given", "name"),
    [({"realm": "mistyped"}, "missing-realm"), ({"role": "mistyped"}, "missing-role")],
)
def test_a_realm_or_role_that_is_missing_is_accepted_by_name_alone(shared, given, name):
    ended = shared.run({"plan_only": True}, **given)
    accepted = shared.run({"plan_only": True}, accept=[name], **given)

    assert isinstance(ended.error, Refused), ended.error
    assert f"accept {name}" in str(ended.error)
    assert accepted.error is None, accepted.error


def test_a_key_that_may_still_be_good_is_read_instead(pods_kubernetes, keycloak, tmp_path):
    namespace = pods_kubernetes.namespace("good")
    one = Installation(pods_kubernetes, namespace, tmp_path, keycloak)
    one.restart_client = lambda: None

    ended = one.deploy().run({"break_glass": "hurry"})

    assert isinstance(ended.error, Refused)
    assert "has a key that may still be good" in str(ended.error)


def test_one_person_alone_erases_nothing(shared):
    uid = shared.claim()["metadata"]["uid"]

    same = shared.approved(by="kim")
    flagged = shared.run({"break_glass": "hurry", "approved_by": "robin"})
    nobody = shared.run()

    assert isinstance(same.error, Refused), same.error
    assert "two persons are needed" in str(same.error)
    assert "two persons are needed" in str(flagged.error)
    assert isinstance(nobody.error, NeedsPerson)
    assert shared.claim()["metadata"]["uid"] == uid
    assert shared.policy_of(shared.volume_in_use()) == "Delete"


def test_rights_that_are_missing_are_told_before_anything_is_done(shared):
    ended = shared.run({"break_glass": "hurry"}, cluster=shared.api.url_as("nobody"))

    assert isinstance(ended.error, CommandFailed)
    rules = [("apps", "statefulsets", "get,list,watch"), ("", "pods", "get,list,watch")]
    shared.api.allow(shared.namespace, "somebody", *rules)

    ended = shared.run({"break_glass": "hurry"}, cluster=shared.api.url_as("somebody"))

    assert isinstance(ended.error, Refused)
    assert 'resources: ["pods/exec"], verbs: [create, get]' in str(ended.error)
    assert 'resources: ["persistentvolumeclaims"]' in str(ended.error)


def test_outside_of_its_window_nothing_is_done(shared):
    window = "2026-01-01T00:00Z/2026-01-01T04:00Z"

    ended = shared.approved(window=window)

    assert isinstance(ended.error, Refused), ended.error
    assert "it may be done from 2026-01-01 00:00" in str(ended.error)


def test_what_is_typed_must_name_the_cluster_and_the_namespace(shared):
    ended = shared.run(confirm="yes")

    assert isinstance(ended.error, BadInput)
    assert f"Type erase {shared.namespace} of " in str(ended.error)


def test_claims_beyond_the_replicas_are_not_guessed_about(shared):
    body = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "datadir-mongodb-1"},
        "spec": {**shared.claim()["spec"], "volumeName": "none"},
    }
    shared.api.apply(body, shared.namespace)
    path = shared.api.path("v1", "persistentvolumeclaims", shared.namespace, "datadir-mongodb-1")
    try:
        ended = shared.run({"break_glass": "hurry"})
    finally:
        shared.api.client.delete(path)

    assert isinstance(ended.error, Refused)
    assert "datadir-mongodb-1" in str(ended.error)

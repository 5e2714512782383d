"""enable-mongodb-backup against a Kubernetes API: what holds afterwards is asked of the API."""

import base64

import pytest

import flows.mongodb  # noqa: F401 (declares the recovery)
from recovery.errors import BadInput, NotVerified, Refused
from recovery.stage import PlainStage
from tests.integration.kubernetes_runs import Mongodb, cronjob
from tests.lab.kubernetes_api import deployment
from tests.lab.kubernetes_node import FAILS, SUCCEEDS, Image
from tests.lab.processes import made_up_password

VOLUMES = [{"name": "creds", "secret": {"secretName": "dbbackup-creds"}}]


@pytest.fixture(autouse=True)
def journal(tmp_path, monkeypatch):
    monkeypatch.setenv("RECOVER_JOURNAL", str(tmp_path / "journal.sqlite"))
    monkeypatch.setattr("recovery.declare.PlainStage", lambda: PlainStage((0.1, 0.2)))


@pytest.fixture
def backup(kubernetes):
    """An installation whose backup is suspended and has no credentials."""
    mongodb = Mongodb(kubernetes, kubernetes.namespace("backup"))
    image = mongodb.image("mongobackup")
    kubernetes.apply(cronjob("mongobackup", image, volumes=VOLUMES), mongodb.namespace)
    kubernetes.node.images[image] = Image(SUCCEEDS, log="done dumping\n")
    return mongodb


@pytest.fixture
def credentials(tmp_path):
    """A file of credentials for Azure."""
    file = tmp_path / "azure_storage_credentials.txt"
    key = base64.b64encode(made_up_password().encode()).decode()
    file.write_text(f"export AZURE_STORAGE_ACCOUNT=backups\nexport AZURE_STORAGE_KEY={key}\n")
    file.chmod(0o600)
    return file


def spec_of(backup):
    path = backup.api.path("batch/v1", "cronjobs", backup.namespace, "mongobackup")
    return backup.api.client.get(path)["spec"]


def secrets_of(backup):
    listed = backup.api.client.items(backup.api.path("v1", "secrets", backup.namespace))
    return {one["metadata"]["name"]: one["data"] for one in listed}


def put_secret(backup, **values):
    data = {name: base64.b64encode(value.encode()).decode() for name, value in values.items()}
    body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "dbbackup-creds"}}
    backup.api.apply({**body, "data": data}, backup.namespace)


def test_a_backup_gets_its_credentials_is_proven_and_then_switched_on(backup, credentials):
    ended = backup.enable_backup(credentials_file=str(credentials), backup_schedule="0 3 * * *")

    assert ended.error is None, ended.error
    held = base64.b64decode(secrets_of(backup)["dbbackup-creds"]["credentials"]).decode()
    assert held == credentials.read_text()
    assert (spec_of(backup)["suspend"], spec_of(backup)["schedule"]) == (False, "0 3 * * *")
    assert backup.starts("mongobackup") == 1
    assert ended.result.was == "@daily, suspended"
    assert ended.result.proof.log[-1].endswith("done dumping")


def test_a_plan_shows_no_credentials(backup, credentials):
    planned = backup.enable_backup(credentials_file=str(credentials), options={"plan_only": True})

    told = str(planned.plan.as_plain())
    assert '"data":{"credentials":"***"}' in told
    assert secrets_of(backup) == {}


def test_going_back_suspends_it_again_and_removes_what_was_put_there(backup, credentials):
    ended = backup.enable_backup(credentials_file=str(credentials))

    undone = backup.enable_backup(
        credentials_file=str(credentials),
        options={"resume": ended.recovery_id, "undo_by": "kim", "break_glass": "a test"},
    )

    assert undone.error is None, undone.error
    assert spec_of(backup)["suspend"] is True
    assert secrets_of(backup) == {}


def test_a_second_run_proves_it_anew_and_changes_nothing_else(backup, credentials):
    assert backup.enable_backup(credentials_file=str(credentials)).error is None
    before = spec_of(backup), secrets_of(backup)

    ended = backup.enable_backup(credentials_file=str(credentials))

    assert ended.error is None, ended.error
    assert (spec_of(backup), secrets_of(backup)) == before
    assert backup.starts("mongobackup") == 2


def test_other_keys_of_a_secret_stay_and_go_back_without_the_one_that_was_added(
    backup, credentials
):
    put_secret(backup, other="kept")

    ended = backup.enable_backup(credentials_file=str(credentials))
    assert ended.error is None, ended.error
    assert set(secrets_of(backup)["dbbackup-creds"]) == {"other", "credentials"}
    undone = backup.enable_backup(
        credentials_file=str(credentials),
        options={"resume": ended.recovery_id, "undo_by": "kim", "break_glass": "a test"},
    )

    assert undone.error is None, undone.error
    assert set(secrets_of(backup)["dbbackup-creds"]) == {"other"}


def test_a_backup_that_fails_is_not_switched_on(backup, credentials):
    log = "AuthenticationFailed: the key is wrong\n"
    backup.api.node.images[backup.image("mongobackup")] = Image(FAILS, log=log)

    ended = backup.enable_backup(credentials_file=str(credentials))

    assert isinstance(ended.error, NotVerified)
    assert "AuthenticationFailed" in str(ended.error)
    assert spec_of(backup)["suspend"] is True


def test_other_credentials_than_those_of_the_file_are_left_alone(backup, credentials):
    put_secret(backup, credentials="export AZURE_STORAGE_ACCOUNT=another\n")

    ended = backup.enable_backup(credentials_file=str(credentials))

    assert isinstance(ended.error, Refused)
    assert "holds other credentials" in str(ended.error)
    assert spec_of(backup)["suspend"] is True


def test_a_secret_that_is_not_there_is_named_where_no_file_is_given(backup):
    ended = backup.enable_backup()

    assert isinstance(ended.error, Refused)
    assert "there is no Secret dbbackup-creds" in str(ended.error)
    assert backup.jobs() == {}


def test_a_backup_that_was_never_deployed_is_told_with_the_keys_as_they_belong(kubernetes):
    other = Mongodb(kubernetes, kubernetes.namespace("backup"))
    kubernetes.apply(deployment("web", other.image("web")), other.namespace)

    ended = other.enable_backup()

    assert isinstance(ended.error, Refused)
    assert "    backup:\n      enabled: true" in str(ended.error)


def test_rights_that_are_missing_are_told_before_anything_is_changed(backup, credentials):
    user = f"{backup.namespace}-limited"
    backup.api.allow(backup.namespace, user, ("batch", "cronjobs", "get,list"))
    backup.cluster = backup.api.url_as(user)

    ended = backup.enable_backup(credentials_file=str(credentials))

    assert isinstance(ended.error, Refused)
    assert 'resources: ["cronjobs"], verbs: [patch]' in str(ended.error)
    assert secrets_of(backup) == {}


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("AZURE_STORAGE_KEY=x", "line 2"),
        ("export AZURE_STORAGE_KEY = x", "line 2"),
        ("export AZURE_STORAGE_KEY=<key>", "line 2"),
        ("", "it lacks AZURE_STORAGE_KEY"),
    ],
)
def test_a_file_that_would_not_work_is_told_by_its_line(backup, credentials, line, told):
    credentials.write_text(f"export AZURE_STORAGE_ACCOUNT=backups\n{line}\n")

    ended = backup.enable_backup(credentials_file=str(credentials))

    assert isinstance(ended.error, BadInput)
    assert told in str(ended.error)
    assert secrets_of(backup) == {}


@pytest.mark.parametrize(
    "wrong",
    [{"backup_cronjob": ""}, {"backup_schedule": "daily"}, {"backup_within_seconds": 0}],
)
def test_a_parameter_that_is_malformed_is_named(kubernetes, wrong):
    ended = Mongodb(kubernetes, "divoc").enable_backup(**wrong)

    assert isinstance(ended.error, BadInput)

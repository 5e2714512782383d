"""repair-keycloak-database-login against a Kubernetes API and a real PostgreSQL."""

import logging

import pytest

from recovery.errors import BadInput, CommandFailed, NotVerified, Refused
from recovery.evidence.report import markdown_report
from recovery.journal.opening import open_journal
from recovery.plan import as_markdown
from recovery.secrecy.secret import isolated_registry
from recovery.stage import PlainStage
from tests.integration.config_runs import Settings, encoded
from tests.integration.login_runs import NAME, RIGHT, WRONG, keycloak_on
from tests.lab.kubernetes_node import CRASHES
from tests.lab.ports import free_port


@pytest.fixture(autouse=True)
def journal(tmp_path, monkeypatch):
    monkeypatch.setenv("RECOVER_JOURNAL", str(tmp_path / "journal.sqlite"))
    monkeypatch.setattr("recovery.declare.PlainStage", lambda: PlainStage((0.1, 0.2)))
    with isolated_registry():
        yield


@pytest.fixture
def either_keycloak(either_kubernetes, postgres, tmp_path):
    """For what is to hold on either API."""
    return keycloak_on(either_kubernetes, postgres, tmp_path)


@pytest.fixture
def keycloak(kubernetes, postgres, tmp_path):
    return keycloak_on(kubernetes, postgres, tmp_path)


def assert_told_nowhere(keycloak, ended, caplog, *secrets):
    journal = open_journal()
    try:
        report = markdown_report(journal, ended.recovery_id)
    finally:
        journal.close()
    files = keycloak.folder.glob("journal.sqlite*")
    texts = [report, caplog.text, f"{ended.error} {ended.result}"]
    texts += [path.read_bytes().decode(errors="replace") for path in files]
    shown = "\n".join(texts)
    assert not [one for one in (*secrets, *map(encoded, secrets)) if one in shown]
    assert "SCRAM-SHA-256$" not in shown


def test_the_pods_get_the_right_password_and_come_up(either_keycloak, caplog):
    caplog.set_level(logging.DEBUG)
    keycloak = either_keycloak.deploy(WRONG)
    given = {"side": "workload", "password_file": keycloak.settings.file(RIGHT)}

    looked = keycloak.run()
    ended = keycloak.run(**given)

    assert isinstance(looked.error, Refused)
    assert "Which side is right only a person knows" in str(looked.error)
    assert ended.error is None, ended.error
    assert keycloak.password_in_pods() == RIGHT
    assert keycloak.is_up()
    assert "password-refused" in ended.result.found
    assert "password authentication failed" in ended.result.found
    assert ended.result.done.startswith("password of secret/keycloak-db: set; restarted")
    assert "the database takes keycloak" in ended.result.holds[-1]
    assert keycloak.run(**given).result.done == "nothing"
    assert_told_nowhere(keycloak, ended, caplog, RIGHT, WRONG)


def test_the_role_gets_the_password_of_the_pods_and_undo_gives_the_former_one_back(
    either_keycloak, caplog
):
    caplog.set_level(logging.DEBUG)
    keycloak = either_keycloak.deploy(WRONG)
    given = {"side": "role", "database": keycloak.admin}

    planned = keycloak.run(options={"plan_only": True}, **given)
    ended = keycloak.run(**given)

    assert ended.error is None, ended.error
    assert f"ALTER ROLE \"{keycloak.role}\" PASSWORD '***'" in as_markdown(planned.plan)
    assert keycloak.lets_in(WRONG)
    assert not keycloak.lets_in(RIGHT)
    assert keycloak.is_up()
    assert keycloak.password_in_pods() == WRONG
    undone = keycloak.undo(ended, **given)
    assert undone.error is None, undone.error
    assert keycloak.lets_in(RIGHT)
    assert_told_nowhere(keycloak, undone, caplog, RIGHT, WRONG)


def test_a_password_in_the_pod_template_is_mended_at_the_database(keycloak):
    keycloak.deploy(WRONG, literal=True)
    file = keycloak.settings.file(RIGHT)

    refused = keycloak.run(side="workload", password_file=file)
    ended = keycloak.run(side="role", database=keycloak.admin)

    assert "stands in the pod template itself" in str(refused.error)
    assert ended.error is None, ended.error
    assert keycloak.lets_in(WRONG)
    assert keycloak.is_up()


def test_a_password_that_is_the_name_of_its_user_is_no_secret(keycloak):
    keycloak.deploy(keycloak.role, literal=True)  # as in DIVOC's manifest

    ended = keycloak.run(side="role", database=keycloak.admin)

    assert ended.error is None, ended.error
    assert keycloak.lets_in(keycloak.role)
    assert keycloak.is_up()


def test_pods_that_wait_for_their_next_start_are_restarted_once_the_login_is_right(keycloak):
    keycloak.deploy(WRONG)
    keycloak.set_password(WRONG)

    ended = keycloak.run()

    assert ended.error is None, ended.error
    assert ended.result.done == "the login was right already; restarted"
    assert keycloak.is_up()


def test_a_keycloak_that_is_well_is_left_alone(keycloak):
    keycloak.deploy(RIGHT)
    assert keycloak.is_up()

    ended = keycloak.run()

    assert ended.error is None, ended.error
    assert ended.result.done == "nothing"


def test_a_wrong_password_in_the_file_is_refused_before_anything_is_touched(keycloak):
    keycloak.deploy(WRONG)

    ended = keycloak.run(side="workload", password_file=keycloak.settings.file("n0-better-either"))

    assert isinstance(ended.error, Refused)
    assert "refuses the password of the file as well" in str(ended.error)
    assert keycloak.password_in_pods() == WRONG


def test_what_is_no_matter_of_a_password_is_named(keycloak):
    locked = "INFO  [liquibase.lockservice] Waiting for changelog lock....\n"
    keycloak.deploy(RIGHT, log=locked, boots=lambda _: CRASHES)

    held_up = keycloak.run()
    keycloak.postgres.execute(f'ALTER DATABASE "{keycloak.role}" RENAME TO "{keycloak.role}x"')
    nameless = keycloak.run()

    assert "the database takes the login of the pods" in str(held_up.error)
    assert "databasechangeloglock" in str(held_up.error)
    assert "no password is the cause (database-missing" in str(nameless.error)


def test_a_database_that_the_worker_does_not_reach_is_not_guessed_at(keycloak):
    nobody = f"jdbc:postgresql://127.0.0.1:{free_port()}/{keycloak.role}"
    env = [
        {"name": "KC_DB_URL", "value": nobody},
        {"name": "KC_DB_USERNAME", "value": keycloak.role},
        {"name": "KC_DB_PASSWORD", "value": WRONG},
    ]
    keycloak.deploy(WRONG, env=env)

    blind = keycloak.run(side="workload", password_file=keycloak.settings.file(RIGHT))
    seeing = keycloak.run(side="role", database=keycloak.admin)

    assert "the worker does not reach the database" in str(blind.error)
    assert "its log says" in str(blind.error)
    assert seeing.error is None, seeing.error
    assert keycloak.lets_in(WRONG)


def test_an_account_that_cannot_keep_the_way_back_is_refused_unless_accepted(keycloak, tmp_path):
    keycloak.deploy(WRONG)
    admin = f"{keycloak.role}_admin"
    keycloak.postgres.execute(f"CREATE ROLE {admin} LOGIN CREATEROLE PASSWORD 'adm1n-0f-the-lab'")
    file = keycloak.settings.file("adm1n-0f-the-lab", "admin.password")
    place = f"{keycloak.postgres.host}:{keycloak.postgres.port}/{keycloak.role}"
    given = {"side": "role", "database": f"postgresql://{admin}@{place}?password_file={file}"}

    refused = keycloak.run(**given)
    ended = keycloak.run(**given, without_way_back=True)

    assert "there is no way back" in str(refused.error)
    assert ended.error is None, ended.error
    assert keycloak.lets_in(WRONG)
    undone = keycloak.undo(ended, **given, without_way_back=True)
    assert "Set it by hand" in str(undone.error)


def test_a_password_that_somebody_set_after_the_former_one_was_kept_is_not_written_over(keycloak):
    keycloak.deploy(WRONG)
    reader, theirs = f"{keycloak.role}_reader", "their-0f-the-lab-99"
    login = f"CREATE ROLE {reader} LOGIN IN ROLE pg_read_all_data PASSWORD 'adm1n-0f-the-lab'"
    keycloak.postgres.execute(login)
    file = keycloak.settings.file("adm1n-0f-the-lab", "admin.password")
    place = f"{keycloak.postgres.host}:{keycloak.postgres.port}/{keycloak.role}"
    given = {"side": "role", "database": f"postgresql://{reader}@{place}?password_file={file}"}

    stopped = keycloak.run(**given)
    keycloak.set_password(theirs)
    keycloak.postgres.execute(f"ALTER ROLE {reader} SUPERUSER")
    resumed = keycloak.run(options={"resume": stopped.recovery_id}, **given)

    assert isinstance(stopped.error, CommandFailed), stopped.error
    assert isinstance(resumed.error, Refused), resumed.error
    assert "since the former one was kept" in str(resumed.error)
    assert keycloak.lets_in(theirs)


def test_a_role_that_is_not_there_or_was_changed_since_is_told(keycloak):
    keycloak.deploy(WRONG)
    given = {"side": "role", "database": keycloak.admin}
    ended = keycloak.run(**given)
    assert ended.error is None, ended.error
    keycloak.set_password("an0ther-0f-the-lab")

    undone = keycloak.undo(ended, **given)
    keycloak.postgres.execute(f'ALTER ROLE "{keycloak.role}" RENAME TO "{keycloak.role}_gone"')
    missing = keycloak.run(**given)

    assert "Somebody set it since" in str(undone.error)
    assert f"the database has no role {keycloak.role}" in str(missing.error)


def test_undo_takes_no_password_away_where_what_was_kept_is_gone(keycloak):
    keycloak.deploy(WRONG)
    given = {"side": "role", "database": keycloak.admin}
    ended = keycloak.run(**given)
    assert ended.error is None, ended.error
    settings = keycloak.settings
    path = settings.api.path("v1", "secrets", settings.namespace, ended.result.kept)
    settings.api.client.delete(path)

    undone = keycloak.undo(ended, **given)

    assert "the Secret that kept it is gone. Set the password by hand" in str(undone.error)
    assert keycloak.lets_in(WRONG)


def test_a_role_that_had_no_password_has_none_again(keycloak):
    keycloak.deploy(WRONG)
    keycloak.postgres.execute(f'ALTER ROLE "{keycloak.role}" PASSWORD NULL')
    given = {"side": "role", "database": keycloak.admin}
    ended = keycloak.run(**given)
    assert ended.error is None, ended.error
    assert keycloak.lets_in(WRONG)

    undone = keycloak.undo(ended, **given)

    assert undone.error is None, undone.error
    assert not keycloak.lets_in(WRONG)


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"side": "both"}, "side"),
        ({"side": "workload"}, "password_file"),
        ({"side": "role"}, "database"),
        ({"accept": ["anything"]}, "accept"),
    ],
)
def test_parameters_that_do_not_go_together_are_told(kubernetes, tmp_path, given, field):
    settings = Settings(kubernetes, "divoc", tmp_path)

    ended = settings.run(NAME, workload="keycloak", **given)

    assert isinstance(ended.error, BadInput)
    assert ended.error.field == field


def test_a_workload_that_is_no_keycloak_is_told(kubernetes, tmp_path):
    settings = Settings(kubernetes, kubernetes.namespace("login"), tmp_path)
    settings.reader("web", replicas=1, env=[{"name": "OTHER", "value": "x"}])

    ended = settings.run(NAME, workload="web")

    assert "no container of deployment/web has KC_DB_PASSWORD" in str(ended.error)
    assert not isinstance(ended.error, NotVerified)

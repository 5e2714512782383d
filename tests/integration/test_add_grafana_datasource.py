"""Adding and correcting data sources: the stand-in Grafana asks a real InfluxDB for its health."""

import copy

import pytest

from blocks.grafana.answer import GrafanaPermissionMissing
from blocks.grafana.api import GrafanaApi
from recovery.errors import BadInput, NotVerified, Refused
from recovery.evidence.report import markdown_report
from recovery.journal.opening import open_journal
from recovery.plan import as_markdown
from recovery.secrecy.secret import isolated_registry
from recovery.stage import PlainStage
from tests.integration.datasource_runs import NAME, Datasources
from tests.lab.grafana_api import Reply, stand_in_grafana
from tests.lab.influxdb import USER

WRONG_HOST = "http://influxdb-influxdb.invalid:8086"
FORMER = "former-0f-the-lab-17"


@pytest.fixture(autouse=True)
def journal(tmp_path, monkeypatch):
    monkeypatch.setenv("RECOVER_JOURNAL", str(tmp_path / "journal.sqlite"))
    monkeypatch.setattr("recovery.declare.PlainStage", lambda: PlainStage((0.1, 0.2)))
    with isolated_registry():
        yield


@pytest.fixture
def sources(influxdb, tmp_path):
    with stand_in_grafana() as lab:
        lab.role = "Admin"
        database = influxdb.create_database("kubernetes")
        influxdb.write(database, "cpu,host=a usage=1")
        yield Datasources(lab, influxdb, database, tmp_path)


def assert_told_nowhere(sources, ended, *secrets):
    journal = open_journal()
    try:
        report = markdown_report(journal, ended.recovery_id)
    finally:
        journal.close()
    kept = b"".join(path.read_bytes() for path in sources.folder.glob("journal.sqlite*"))
    assert NAME in report
    for secret in secrets:
        assert secret not in report
        assert secret.encode() not in kept
        assert secret not in f"{ended.error} {ended.result}"


def test_a_missing_data_source_is_created_and_reached(sources):
    planned = sources.run({"plan_only": True})
    assert sources.changes() == []

    ended = sources.run()

    assert ended.error is None, ended.error
    assert ended.result.done == "created"
    assert "1 measurements found" in ended.result.holds
    assert sources.stored()["jsonData"] == {"dbName": sources.database, "httpMode": "GET"}
    assert sources.stored()["secrets"] == {"password": sources.influxdb.password}
    shown = as_markdown(planned.plan)
    assert f'"name": "{NAME}"' in shown
    assert '"secureJsonData": {"password": "***"}' in shown
    assert_told_nowhere(sources, ended, sources.influxdb.password)


def test_a_second_run_changes_nothing(sources):
    assert sources.run().error is None
    before = copy.deepcopy(sources.stored())

    ended = sources.run()

    assert ended.result.done == "nothing", ended.error
    assert sources.stored() == before


def test_a_wrong_url_is_corrected_and_the_password_kept(sources):
    sources.add(url=WRONG_HOST)

    ended = sources.run(user="", password_file="")

    assert ended.error is None, ended.error
    assert "no such host" in ended.result.found
    assert sources.stored()["url"] == sources.influxdb.url
    assert sources.stored()["secrets"] == {"password": sources.influxdb.password}
    assert sources.stored()["uid"] == "uid1"


def test_undo_puts_the_former_fields_back_and_again_does_nothing(sources):
    before = copy.deepcopy(sources.add(url=WRONG_HOST, jsonData={"httpMode": "POST", "x": 1}))
    ended = sources.run(user="", password_file="")
    assert ended.error is None, ended.error

    undone = sources.undo(ended, user="", password_file="")
    again = sources.undo(ended, user="", password_file="")

    assert undone.error is None, undone.error
    assert again.error is None, again.error
    assert sources.stored() == {**before, "version": 3}


def test_undo_deletes_what_was_created_and_makes_the_former_default_the_default(sources):
    sources.add(name="Prometheus", type="prometheus", isDefault=True)
    ended = sources.run(default=True)
    assert ended.error is None, ended.error
    assert not sources.stored("Prometheus")["isDefault"]

    undone = sources.undo(ended, default=True)

    assert undone.error is None, undone.error
    assert sources.stored() is None
    assert sources.stored("Prometheus")["isDefault"]


def test_undo_leaves_alone_what_somebody_changed_since(sources):
    ended = sources.run()
    sources.stored()["url"] = "http://another:8086"

    undone = sources.undo(ended)

    assert "somebody changed it since" in str(undone.error)
    assert sources.stored()["url"] == "http://another:8086"


@pytest.mark.parametrize("before", [{}, {"url": WRONG_HOST}])
def test_undo_leaves_alone_what_was_given_another_password_since(sources, before):
    if before:
        sources.add(**before)
    ended = sources.run(accept=["former-password"])
    assert ended.error is None, ended.error
    stored = sources.stored()
    api = GrafanaApi.from_url(sources.grafana_url)
    secret = {"secureJsonData": {"password": "an0ther-0f-the-lab"}}
    api.send(
        "PUT", f"/api/datasources/uid/{stored['uid']}", {"version": stored["version"], **secret}
    )

    undone = sources.undo(ended, accept=["former-password"])

    version = stored["version"] - 1
    assert f"somebody changed it since: version: {version + 1} instead of {version}" in str(
        undone.error
    )
    assert sources.stored()["url"] == sources.influxdb.url
    assert sources.stored()["secrets"] == {"password": "an0ther-0f-the-lab"}


def test_a_missing_password_is_written(sources):
    sources.add(user="", secrets={})

    ended = sources.run()

    assert ended.error is None, ended.error
    assert "authorization failed" in ended.result.found or "unable" in ended.result.found
    assert sources.stored()["secrets"] == {"password": sources.influxdb.password}


def test_a_wrong_password_is_replaced_once_and_put_back_where_it_was_given(sources):
    sources.add(secrets={"password": FORMER})
    path = sources.folder / "former"
    path.write_text(FORMER)
    path.chmod(0o600)

    unasked = sources.run()
    ended = sources.run(former_password_file=str(path))

    assert isinstance(unasked.error, Refused)
    assert "accept=former-password" in str(unasked.error)
    assert ended.error is None, ended.error
    assert sources.stored()["secrets"] == {"password": sources.influxdb.password}
    assert_told_nowhere(sources, ended, FORMER, sources.influxdb.password)
    undone = sources.undo(ended, former_password_file=str(path))
    assert undone.error is None, undone.error
    assert sources.stored()["secrets"] == {"password": FORMER}


def test_a_provisioned_data_source_is_refused_before_anything_is_sent(sources):
    sources.add(url=WRONG_HOST, readOnly=True)

    ended = sources.run()

    assert isinstance(ended.error, Refused)
    assert "provisioned" in str(ended.error)
    assert sources.changes() == []


def test_a_provisioned_default_is_not_taken_away(sources):
    sources.add(name="Prometheus", isDefault=True, readOnly=True)

    ended = sources.run(default=True)

    assert "no API makes it that again" in str(ended.error)
    assert sources.changes() == []


@pytest.mark.parametrize(
    ("stored", "given", "told"),
    [
        ({"database": "other", "jsonData": {"dbName": "other"}}, {}, "accept=works-now"),
        ({"type": "prometheus"}, {"accept": ["health-unknown"]}, "accept=other-type"),
        ({"url": WRONG_HOST}, {"uid": "another"}, "has the uid uid1, which dashboards refer to"),
        ({"name": "Other", "uid": "taken"}, {"uid": "taken"}, "uid taken is that of 'Other'"),
        ({"secrets": {"password": FORMER}}, {"password_file": "", "user": ""}, "does not answer"),
        ({"url": WRONG_HOST, "secrets": {}}, {"password_file": ""}, "no password is known"),
    ],
)  # fmt: skip
def test_what_could_do_harm_is_refused_by_name(sources, stored, given, told):
    sources.add(**stored)

    ended = sources.run(**given)

    assert isinstance(ended.error, Refused | BadInput), ended.error
    assert told in str(ended.error)
    assert sources.changes() == []


def test_a_working_data_source_is_changed_where_that_is_meant(sources, influxdb):
    sources.add(database="other", jsonData={"dbName": "other"})
    influxdb.create_database("other")

    ended = sources.run(accept=["works-now", "former-password"])

    assert ended.error is None, ended.error
    assert sources.stored()["database"] == sources.database


def test_a_data_source_that_is_not_reached_afterwards_is_told_with_the_remedy(sources):
    ended = sources.run(url=WRONG_HOST)

    assert isinstance(ended.error, NotVerified)
    assert "must name the Service" in str(ended.error)
    assert "recover undo" in str(ended.error)
    assert sources.undo(ended, url=WRONG_HOST).error is None
    assert sources.stored() is None


def test_an_account_that_may_not_is_told_what_it_lacks(sources):
    sources.lab.role = "Editor"
    ended = sources.run()
    sources.lab.datasources.release = 8
    old = sources.run()

    assert "lacks datasources:read, datasources:create, datasources:write" in str(ended.error)
    assert isinstance(old.error, GrafanaPermissionMissing)
    assert sources.changes() == []


def test_a_grafana_whose_own_database_fails_is_not_written_to(sources):
    sources.lab.database = "failing"

    ended = sources.run()

    assert "its own database is failing" in str(ended.error)


@pytest.mark.parametrize("release", [7, 8, 9])
def test_older_grafanas_are_asked_and_changed_the_way_they_know(sources, release):
    sources.lab.datasources.release = release
    created = sources.run()
    assert created.error is None, created.error
    sources.stored()["url"] = WRONG_HOST
    changed = sources.run(user="", password_file="")
    assert changed.error is None, changed.error

    undone = sources.undo(changed, user="", password_file="")

    assert undone.error is None, undone.error
    assert sources.stored()["url"] == WRONG_HOST
    is_by_uid = any(" /api/datasources/uid/" in one for one in sources.lab.requests)
    assert is_by_uid is (release >= 9)


def test_a_password_that_grafana_7_keeps_in_the_clear_is_not_lost_nor_told(sources):
    sources.lab.datasources.release = 7
    plain = {"password": sources.influxdb.password}
    sources.add(url=WRONG_HOST, secrets={}, plain=plain)

    ended = sources.run(user="", password_file="")

    assert ended.error is None, ended.error
    assert sources.stored()["secrets"] == plain
    assert_told_nowhere(sources, ended, sources.influxdb.password)


def test_the_passwords_that_grafana_7_keeps_in_the_clear_outlive_being_the_default_again(sources):
    sources.lab.datasources.release = 7
    plain = {"password": "0utdated-0f-the-lab", "basicAuthPassword": "an0ther-0f-the-lab"}
    secrets = {"password": FORMER}
    fields = {"type": "prometheus", "isDefault": True}
    sources.add(name="Prometheus", plain=plain, secrets=secrets, **fields)
    ended = sources.run(default=True)
    assert ended.error is None, ended.error

    undone = sources.undo(ended, default=True)

    assert undone.error is None, undone.error
    assert sources.stored("Prometheus")["isDefault"]
    assert sources.stored("Prometheus")["secrets"] == {**plain, **secrets}
    assert_told_nowhere(sources, ended, *plain.values())


def test_a_type_without_health_is_created_only_where_that_is_accepted(sources):
    given = {"name": "Logs", "kind": "graphite", "user": "", "password_file": "", "database": ""}

    ended = sources.run(**given, accept=["health-unknown"])

    assert ended.error is None, ended.error
    assert "tells no health" in ended.result.holds


def test_somebody_who_was_faster_is_not_overwritten(sources):
    sources.add(url=WRONG_HOST)
    said = {"message": "Datasource has already been updated by someone else."}
    sources.lab.replies["/api/datasources/uid/uid1"] = Reply(409, said)

    ended = sources.run(user="", password_file="")

    assert "already been updated" in str(ended.error)
    assert sources.stored()["url"] == WRONG_HOST


def test_an_answer_that_is_lost_is_found_to_have_taken_effect(sources):
    sources.lab.loses_answers_to = "POST"

    ended = sources.run()

    assert ended.error is None, ended.error
    assert len([one for one in sources.changes() if one == "POST /api/datasources"]) == 1
    assert sources.stored()["user"] == USER


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"name": " "}, "empty means none"),
        ({"kind": "influx"}, "Known: influxdb"),
        ({"url": "influxdb:8086"}, "is not http"),
        ({"url": "http://u@influxdb:8086"}, "Give user and password apart"),
        ({"url": "http://"}, "names no host"),
        ({"kind": "mysql", "url": "db"}, "names no host, or no port"),
        ({"uid": "a b"}, "is none"),
        ({"user": ""}, "there is a password and no user"),
        ({"password_env": "X"}, "given twice"),
        ({"accept": ["all"]}, "Known: works-now"),
    ],
)
def test_bad_parameters_are_named_before_anything_is_asked(sources, given, told):
    ended = sources.run(**given)

    assert isinstance(ended.error, BadInput)
    assert told in str(ended.error)
    assert sources.lab.requests == []

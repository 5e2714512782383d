"""What is relied on of Grafana's data sources, asked of the stand-in and of a real one if given.

RECOVER_TEST_GRAFANA names a real Grafana of release 9 or later, as
`http://host:3000?token_file=PATH`, whose account may change data sources.
"""

import contextlib
import os

import pytest

from blocks.grafana.answer import GrafanaConflict, GrafanaNotFound
from blocks.grafana.api import GrafanaApi
from recovery.errors import CommandFailed
from recovery.secrecy.secret import Secret, isolated_registry
from tasks.datasources.stored import read_stored
from tests.lab.grafana_api import TOKEN, stand_in_grafana

NAME, UID = "recovery contract", "recovery-contract"
FIELDS = {"name": NAME, "uid": UID, "type": "influxdb", "access": "proxy", "isDefault": False,
          "url": "http://127.0.0.1:1", "user": "u", "jsonData": {"dbName": "d"}}  # fmt: skip
PATH = f"/api/datasources/uid/{UID}"


@pytest.fixture(params=["stand-in", "real"])
def grafana(request, monkeypatch):
    with isolated_registry(), contextlib.ExitStack() as stack:
        if request.param == "real":
            if not (url := os.environ.get("RECOVER_TEST_GRAFANA")):
                pytest.skip("RECOVER_TEST_GRAFANA is not set")
            api = GrafanaApi.from_url(url)
        else:
            lab = stack.enter_context(stand_in_grafana())
            lab.role = "Admin"
            monkeypatch.setenv("GRAFANA_TOKEN", TOKEN)
            api = GrafanaApi(url=lab.url, token_env="GRAFANA_TOKEN")  # noqa: S106 (a name)
        yield api
        with contextlib.suppress(GrafanaNotFound):
            api.send("DELETE", PATH)


def test_a_data_source_is_created_told_without_its_password_and_deleted(grafana):
    secret = {"password": Secret("0f-the-lab-17")}
    created = grafana.send("POST", "/api/datasources", {**FIELDS, "secureJsonData": secret})

    said = grafana.get(f"/api/datasources/name/{NAME.replace(' ', '%20')}")

    stored = read_stored(said)
    assert created["message"] == "Datasource added"
    assert (stored.uid, stored.version, stored.secrets) == (UID, 1, ("password",))
    assert "0f-the-lab-17" not in str(said)
    assert read_stored(grafana.get(PATH)).fields == stored.fields
    listed = [one for one in grafana.get("/api/datasources") if one["name"] == NAME]
    assert [one["uid"] for one in listed] == [UID]
    assert grafana.send("DELETE", PATH)["message"] == "Data source deleted"
    with pytest.raises(GrafanaNotFound, match="Data source not found"):
        grafana.get(PATH)


def test_a_name_and_a_uid_are_there_once(grafana):
    grafana.send("POST", "/api/datasources", FIELDS)

    with pytest.raises(GrafanaConflict, match="same name already exists"):
        grafana.send("POST", "/api/datasources", {**FIELDS, "uid": "another"})
    with pytest.raises(GrafanaConflict, match="same uid already exists"):
        grafana.send("POST", "/api/datasources", {**FIELDS, "name": "another"})


def test_a_change_with_an_old_version_is_refused_and_secrets_not_spoken_of_stay(grafana):
    secret = {"password": Secret("0f-the-lab-17")}
    grafana.send("POST", "/api/datasources", {**FIELDS, "secureJsonData": secret})
    changed = {**FIELDS, "url": "http://127.0.0.1:2", "version": 1}

    grafana.send("PUT", PATH, changed)

    stored = read_stored(grafana.get(PATH))
    assert (stored.version, stored.secrets) == (2, ("password",))
    assert stored.fields["url"] == "http://127.0.0.1:2"
    with pytest.raises(GrafanaConflict, match="already been updated by someone else"):
        grafana.send("PUT", PATH, changed)


def test_the_health_of_what_is_not_reached_is_an_error_and_no_failure(grafana):
    grafana.send("POST", "/api/datasources", FIELDS)

    answer = grafana.answer(f"{PATH}/health")

    assert answer.status == 400
    assert answer.read()["status"] == "ERROR"
    assert "refused" in answer.said


def test_a_question_through_the_proxy_that_nobody_answers_is_a_bad_gateway(grafana):
    grafana.send("POST", "/api/datasources", FIELDS)

    answer = grafana.answer(f"/api/datasources/proxy/uid/{UID}/ping")

    assert answer.status == 502


def test_only_one_data_source_is_the_default(grafana):
    before = [one for one in grafana.get("/api/datasources") if one["isDefault"]]
    if before:
        pytest.skip("it has a default of its own, which stays")
    grafana.send("POST", "/api/datasources", {**FIELDS, "isDefault": True})
    other = {**FIELDS, "name": f"{NAME} 2", "uid": f"{UID}-2", "isDefault": True}

    grafana.send("POST", "/api/datasources", other)

    assert not read_stored(grafana.get(PATH)).is_default
    grafana.send("DELETE", f"/api/datasources/uid/{UID}-2")


def test_an_address_that_is_none_is_no_missing_data_source(grafana):
    with pytest.raises(CommandFailed) as failed:
        grafana.get("/api/datasources-of-none/x")

    assert not isinstance(failed.value, GrafanaNotFound)

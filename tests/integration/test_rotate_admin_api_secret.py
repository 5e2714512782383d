"""rotate-admin-api-secret: both sides are asked afterwards, and the secrets are told nowhere."""

import contextlib
import logging
from dataclasses import replace

import pytest

from recovery.errors import BadInput, NotVerified, Refused
from recovery.evidence.bundle import write_bundle
from recovery.evidence.report import markdown_report
from recovery.journal.opening import open_journal
from recovery.plan import as_markdown
from recovery.secrecy.secret import isolated_registry
from recovery.stage import PlainStage
from tasks.client_secrets import setting
from tests.integration.client_secret_runs import KEY, READERS, WRONG, Platform
from tests.integration.config_runs import Settings, encoded
from tests.lab.keycloak import CLIENT, lab_keycloak
from tests.lab.keycloak_server import MASKED, WITH_PREFIX, WITHOUT_PREFIX
from tests.lab.kubernetes_node import READY, UNREADY, Image

NEW = "new-0f-the-lab-4242"


@pytest.fixture(autouse=True)
def journal(tmp_path, monkeypatch):
    monkeypatch.setenv("RECOVER_JOURNAL", str(tmp_path / "journal.sqlite"))
    monkeypatch.setattr("recovery.declare.PlainStage", lambda: PlainStage((0.1, 0.2)))
    with isolated_registry():
        yield


@contextlib.contextmanager
def platform_on(api, folder, config="configmap/divoc-config"):
    settings = Settings(api, api.namespace("client"), folder)
    with lab_keycloak(folder / "keycloak", WITH_PREFIX) as keycloak:
        keycloak.make()
        yield Platform(settings, keycloak, config)


@pytest.fixture
def either_platform(either_kubernetes, tmp_path):
    """For what is to hold on either API."""
    with platform_on(either_kubernetes, tmp_path) as platform:
        yield platform


@pytest.fixture
def platform(kubernetes, tmp_path):
    with platform_on(kubernetes, tmp_path) as platform:
        yield platform


def assert_told_nowhere(platform, ended, caplog, *secrets):
    journal = open_journal()
    try:
        report = markdown_report(journal, ended.recovery_id)
        write_bundle(journal, ended.recovery_id, platform.settings.folder / "bundle.tar.gz")
    finally:
        journal.close()
    files = platform.settings.folder.glob("journal.sqlite*")
    texts = [report, caplog.text, f"{ended.error} {ended.result}"]
    texts += [path.read_bytes().decode(errors="replace") for path in files]
    shown = "\n".join(texts)
    tokens = list(platform.keycloak.standin.tokens)
    secrets = [*secrets, *map(encoded, secrets), *tokens, platform.keycloak.password]
    assert KEY in report
    assert not [one for one in secrets if one in shown]


def test_the_secret_of_keycloak_is_taken_over_where_only_the_services_have_a_wrong_one(
    either_platform, caplog
):
    caplog.set_level(logging.DEBUG)
    platform = either_platform.deploy(WRONG)
    held = platform.held

    ended = platform.run(service_url=platform.service_url)

    assert ended.error is None, ended.error
    assert platform.agrees_on(held)
    assert platform.keycloak.standin.secrets_set == []
    assert platform.marks() == {ended.recovery_id}
    assert platform.settings.mark("registry") == ""
    assert "that of Keycloak gives one" in ended.result.found
    assert ended.result.done.startswith("taken over from Keycloak; restarted: deployment/portal")
    assert ended.result.token[-1].endswith("/service/ping answers 200 to it")
    assert_told_nowhere(platform, ended, caplog, WRONG, held)
    assert ended.result.left_to_person == []
    again = platform.run()
    assert again.result.done == "nothing", again.error
    assert "service_url was empty" in again.result.left_to_person[0]


def test_a_masked_secret_of_an_import_is_replaced_on_both_sides(either_platform, caplog):
    caplog.set_level(logging.DEBUG)
    platform = replace(either_platform, config="secret/divoc-secrets").deploy(WRONG)
    client = platform.keycloak.standin.client(CLIENT)
    client["secret"] = MASKED

    planned = platform.run(options={"plan_only": True})
    ended = platform.run()

    assert ended.error is None, ended.error
    assert "the mask of a realm's export" in ended.result.found
    assert len(platform.keycloak.standin.secrets_set) == 1
    assert platform.agrees_on(platform.held)
    assert client["serviceAccountsEnabled"]
    assert platform.marks() == {ended.recovery_id}
    shown = as_markdown(planned.plan)
    assert f'/clients/{client["id"]} {{"secret":"***"}}' in shown
    assert_told_nowhere(platform, ended, caplog, WRONG, platform.held)


def test_a_secret_that_works_is_rotated_on_order_and_undo_puts_the_old_one_back(
    either_platform, caplog
):
    old = either_platform.held
    platform = either_platform.deploy(old)

    ended = platform.run(rotate=True)

    assert ended.error is None, ended.error
    assert platform.run().result.done == "nothing"
    new = platform.held
    assert new != old
    assert platform.agrees_on(new)
    assert not platform.keycloak.gives_token(old)
    undone = platform.undo(ended, rotate=True)
    assert undone.error is None, undone.error
    assert platform.agrees_on(old)
    assert platform.marks() == {f"{ended.recovery_id}-back"}
    assert_told_nowhere(platform, undone, caplog, old, new)


def test_undo_restarts_no_service_onto_a_secret_that_keycloak_does_not_take_yet(platform):
    old, seen = platform.held, []

    def boots(_pod):
        seen.append(platform.agrees_on(old))
        return READY

    platform.deploy(old, readers=READERS[:1])
    ended = platform.run(rotate=True)
    assert ended.error is None, ended.error
    image = f"{platform.settings.namespace}/{READERS[0]}"
    platform.settings.api.node.images[image] = Image(boots=boots)

    undone = platform.undo(ended, rotate=True)

    assert undone.error is None, undone.error
    assert platform.agrees_on(old)
    assert seen
    assert all(seen)


def test_undo_is_refused_before_anybody_is_restarted_where_keycloak_had_a_mask(platform, caplog):
    platform.deploy(WRONG, readers=READERS[:1])
    platform.keycloak.standin.client(CLIENT)["secret"] = MASKED
    ended = platform.run()
    assert ended.error is None, ended.error
    new = platform.held

    undone = platform.undo(ended)

    assert "it has none to go back to" in str(undone.error)
    assert "begin a new recovery with rotate" in str(undone.error)
    assert platform.agrees_on(new)
    assert platform.keycloak.standin.secrets_set == [new]
    assert platform.marks(READERS[:1]) == {ended.recovery_id}
    assert_told_nowhere(platform, undone, caplog, WRONG, new)


def test_a_secret_from_a_file_is_what_both_get(platform):
    platform.deploy(platform.held)
    file = platform.settings.file(NEW)

    ended = platform.run(secret_file=file)

    assert ended.error is None, ended.error
    assert platform.agrees_on(NEW)
    assert platform.run(secret_file=file).result.done == "nothing"


def test_both_go_back_where_a_service_does_not_come_up_with_it(platform):
    old = platform.held
    platform.deploy(old)
    image = f"{platform.settings.namespace}/portal-api"
    platform.settings.api.node.images[image] = Image(UNREADY)

    ended = platform.run(rotate=True, within_seconds=20)

    assert isinstance(ended.error, NotVerified), ended.error
    assert "deployment/portal-api did not come up with it" in str(ended.error)
    assert platform.agrees_on(old)


def test_an_answer_of_keycloak_that_is_lost_leaves_one_secret(platform):
    platform.deploy(platform.held)
    platform.keycloak.standin.loses_answers = True

    ended = platform.run(rotate=True)

    assert ended.error is None, ended.error
    assert len(platform.keycloak.standin.secrets_set) == 1
    assert platform.agrees_on(platform.held)


def test_a_service_that_still_answers_401_is_no_success(platform):
    platform.deploy(WRONG)
    held = platform.held
    platform.keycloak.standin.service_knows_nobody = True

    ended = platform.run(service_url=platform.service_url)

    assert isinstance(ended.error, NotVerified), ended.error
    assert "it answers 401 to a token that Keycloak has just given" in str(ended.error)
    assert platform.agrees_on(held)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"enabled": False}, "the client is disabled"),
        ({"publicClient": True}, "has no secret that counts"),
        ({"clientAuthenticatorType": "client-jwt"}, "but by client-jwt"),
        ({"serviceAccountsEnabled": False}, "its service account is switched off"),
        ({"clientId": "another"}, "the realm has no client of this name"),
    ],
)
def test_a_client_that_no_secret_can_help_is_refused(kubernetes, tmp_path, fields, told):
    settings = Settings(kubernetes, kubernetes.namespace("client"), tmp_path)
    settings.config_map(data={KEY: WRONG})
    with lab_keycloak(tmp_path / "keycloak", WITHOUT_PREFIX) as keycloak:
        keycloak.make()
        client = keycloak.standin.client(CLIENT)
        before = client["secret"]
        client.update(fields)

        ended = Platform(settings, keycloak).run()

        assert isinstance(ended.error, Refused), ended.error
        assert told in str(ended.error)
        assert client["secret"] == before
    assert settings.value(KEY) == WRONG


def test_what_the_cluster_refuses_is_refused_before_keycloak_is_touched(platform):
    platform.deploy(platform.held, readers=READERS[:1])
    old = platform.held

    missing = platform.run(rotate=True, key="ADMIN_API_SECRET")
    unread = platform.run(rotate=True, consumers=["registry"])
    short = platform.run(secret_file=platform.settings.file("abc"))
    unnamed = platform.run(realm=" ")

    assert f"The nearest are {KEY}" in str(missing.error)
    assert f"registry does not read {KEY}" in str(unread.error)
    assert isinstance(short.error, BadInput)
    assert isinstance(unnamed.error, BadInput)
    assert platform.agrees_on(old)
    assert platform.keycloak.standin.secrets_set == []


def test_an_account_that_may_not_restart_the_services_is_refused_before_keycloak_is_touched(
    platform,
):
    platform.deploy(platform.held, readers=READERS[:1])
    settings, reading = platform.settings, "get,list,watch"
    rules = [
        ("", "configmaps", f"{reading},patch"),
        ("", "secrets", "get,create"),
        ("", "pods", reading),
        ("", "pods/log", "get"),
        ("", "events", "list"),
        ("batch", "cronjobs", "list"),
        ("apps", "deployments", reading),
    ]
    settings.api.allow(settings.namespace, "reader", *rules)
    settings.cluster = settings.api.url_as("reader")

    refused = platform.run(rotate=True)

    assert "may not patch deployments" in str(refused.error)
    assert 'resources: ["deployments"], verbs: [patch]' in str(refused.error)
    assert platform.keycloak.standin.secrets_set == []

    settings.api.allow(settings.namespace, "owner", *rules, ("apps", "deployments", "patch"))
    settings.cluster = settings.api.url_as("owner")
    ended = platform.run(rotate=True)
    assert ended.error is None, ended.error
    assert platform.agrees_on(platform.held)


def test_no_other_secret_is_made_where_the_one_that_was_kept_is_gone(platform):
    platform.deploy(platform.held, readers=READERS[:1])
    ended = platform.run(rotate=True)
    assert ended.error is None, ended.error
    new, settings = platform.held, platform.settings
    path = settings.api.path("v1", "secrets", settings.namespace, ended.result.kept)
    settings.api.client.delete(path)

    undone = platform.undo(ended, rotate=True)

    assert "Set the value by hand" in str(undone.error)
    assert platform.keycloak.standin.secrets_set == [new]
    assert platform.agrees_on(new)


@pytest.mark.parametrize("had", [None, MASKED])
def test_a_secret_that_somebody_sets_before_ours_is_not_written_over(platform, monkeypatch, had):
    platform.deploy(WRONG, readers=READERS[:1])
    client = platform.keycloak.standin.client(CLIENT)
    client["secret"] = had
    plain = setting.is_client_secret_set

    def set_meanwhile(order, setting, found, kept):
        verdict = plain(order, setting, found, kept)
        client["secret"] = "the1rs-0f-the-lab"  # noqa: S105 (of the lab)
        return verdict

    terms = replace(setting.set_client_secret.terms, done_when=set_meanwhile)
    monkeypatch.setattr(setting.set_client_secret, "terms", terms)
    planned = platform.run(options={"plan_only": True})
    client["secret"] = had

    ended = platform.run()

    assert planned.error is None, planned.error
    assert planned.plan.refusals == []
    assert "somebody gave the client another secret" in str(ended.error)
    assert platform.held == "the1rs-0f-the-lab"
    assert platform.in_setting == WRONG


def test_consent_to_a_plan_is_consent_to_both_going_back(platform):
    old = platform.held
    platform.deploy(old, readers=READERS[:1])
    image = f"{platform.settings.namespace}/{READERS[0]}"
    platform.settings.api.node.images[image] = Image(UNREADY)
    planned = platform.run({"plan_only": True}, rotate=True, within_seconds=20)
    assert planned.error is None, planned.error

    consent = {"approve": planned.plan.hash, "approved_by": "kim"}
    ended = platform.run(consent, rotate=True, within_seconds=20)

    assert isinstance(ended.error, NotVerified), ended.error
    assert "the value was put back" in str(ended.error)
    assert platform.agrees_on(old)


def test_a_secret_that_somebody_else_set_since_is_not_written_over(platform):
    platform.deploy(platform.held)
    client = platform.keycloak.standin.client(CLIENT)
    ended = platform.run(rotate=True)
    assert ended.error is None, ended.error
    client["secret"] = "an0ther-0f-the-lab"  # noqa: S105 (of the lab)

    undone = platform.undo(ended, rotate=True)

    assert "Somebody set it since" in str(undone.error)
    assert platform.held == "an0ther-0f-the-lab"

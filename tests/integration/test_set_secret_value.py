"""Changing secret settings: the values reach the object, and are told nowhere."""

import logging

import pytest

from blocks.kube.answer import ClusterConflict, ClusterForbidden
from recovery.errors import BadInput, NotVerified, Refused
from recovery.evidence.bundle import write_bundle
from recovery.evidence.report import markdown_report
from recovery.journal.opening import open_journal
from recovery.plan import as_markdown
from recovery.secrecy.secret import isolated_registry
from recovery.stage import PlainStage
from tests.integration.config_runs import MARK, Settings, encoded
from tests.lab.kubernetes_node import UNREADY, Image

OLD, NEW = "old-0f-the-lab-17", "new-0f-the-lab-42"
FORMS = [value for one in (OLD, NEW) for value in (one, encoded(one))]
KEY = "SMS_AUTH_KEY"
BY_SECRET = [{"secretRef": {"name": "divoc-secrets"}}]


@pytest.fixture(autouse=True)
def journal(tmp_path, monkeypatch):
    monkeypatch.setenv("RECOVER_JOURNAL", str(tmp_path / "journal.sqlite"))
    monkeypatch.setattr("recovery.declare.PlainStage", lambda: PlainStage((0.1, 0.2)))
    with isolated_registry():
        yield


@pytest.fixture
def settings(kubernetes, tmp_path):
    """A namespace with notification-service, which reads the key from a Secret."""
    found = Settings(kubernetes, kubernetes.namespace("secrets"), tmp_path)
    found.secret(**{KEY: OLD, "ENABLE_EMAIL": "true", "DB_PORT": "5432"})
    return found


def of_secret(settings):
    return {"config": "secret/divoc-secrets", "key": KEY, "value_file": settings.file(NEW)}


def assert_told_nowhere(settings, ended, caplog):
    journal = open_journal()
    try:
        report = markdown_report(journal, ended.recovery_id)
        bundle = write_bundle(journal, ended.recovery_id, settings.folder / "bundle.tar.gz")
    finally:
        journal.close()
    texts = {
        "report": report.encode(),
        "log": caplog.text.encode(),
        "outcome": f"{ended.error} {ended.result}".encode(),
        "journal": b"".join(path.read_bytes() for path in settings.folder.glob("journal.sqlite*")),
    }
    assert bundle.exists()
    assert KEY in report
    for name, told in texts.items():
        for form in FORMS:
            assert form.encode() not in told, name


def test_a_secret_is_set_from_a_file_and_told_nowhere(settings, caplog):
    caplog.set_level(logging.DEBUG)
    settings.reader(replicas=1, envFrom=BY_SECRET)

    planned = settings.run(**of_secret(settings), options={"plan_only": True})
    ended = settings.run(**of_secret(settings))

    assert ended.error is None, ended.error
    assert settings.value(KEY, "divoc-secrets", "secrets") == encoded(NEW)
    assert settings.mark() == ended.recovery_id
    shown = as_markdown(planned.plan)
    assert f'"path":"/data/{KEY}","value":"***"' in shown
    assert not [form for form in FORMS if form in shown]
    assert_told_nowhere(settings, ended, caplog)


def test_undo_puts_the_old_secret_back_though_its_file_is_gone(settings, caplog):
    settings.reader(replicas=1, envFrom=BY_SECRET)
    ended = settings.run(**of_secret(settings))
    assert ended.error is None, ended.error
    (settings.folder / "new.key").unlink()
    given = {**of_secret(settings)}
    (settings.folder / "new.key").write_text("another-0f-the-lab")

    undone = settings.undo(ended, **given)

    assert undone.error is None, undone.error
    assert settings.value(KEY, "divoc-secrets", "secrets") == encoded(OLD)
    assert settings.mark() == f"{ended.recovery_id}-back"
    assert_told_nowhere(settings, undone, caplog)


def test_a_second_run_with_the_same_secret_changes_nothing(settings):
    settings.reader(replicas=1, envFrom=BY_SECRET)
    assert settings.run(**of_secret(settings)).error is None
    kept = settings.api.client.items(settings.api.path("v1", "secrets", settings.namespace))

    ended = settings.run(**of_secret(settings))

    assert ended.result.done == "nothing", ended.error
    now = settings.api.client.items(settings.api.path("v1", "secrets", settings.namespace))
    assert now == kept


def test_a_value_from_the_environment_is_secret_in_a_config_map_too(settings, caplog, monkeypatch):
    monkeypatch.setenv("LAB_SMS_KEY", NEW)
    settings.config_map(data={KEY: OLD, "OTHER": "x"})
    settings.reader(replicas=1)
    given = {"key": KEY, "value_env": "LAB_SMS_KEY"}

    ended = settings.run(**given)

    assert ended.error is None, ended.error
    assert settings.value(KEY) == NEW
    kept = settings.object(ended.result.kept, "secrets")
    assert kept["data"] == {"before": encoded(OLD), "after": encoded(NEW)}
    assert_told_nowhere(settings, ended, caplog)
    assert settings.undo(ended, **given).error is None
    assert settings.value(KEY) == OLD


def test_a_secret_that_a_consumer_cannot_start_with_is_put_back(settings, caplog):
    settings.reader(replicas=1, envFrom=BY_SECRET)
    settings.api.node.images[f"{settings.namespace}/web"] = Image(UNREADY)

    ended = settings.run(**of_secret(settings), within_seconds=6)

    assert isinstance(ended.error, NotVerified), ended.error
    assert settings.value(KEY, "divoc-secrets", "secrets") == encoded(OLD)
    assert_told_nowhere(settings, ended, caplog)


@pytest.mark.parametrize("text", ["", "abc"])
def test_a_key_file_that_holds_no_secret_is_refused(settings, text):
    ended = settings.run(**{**of_secret(settings), "value_file": settings.file(text)})

    assert isinstance(ended.error, BadInput)
    assert settings.value(KEY, "divoc-secrets", "secrets") == encoded(OLD)


def test_a_secret_gone_meanwhile_is_put_back_by_hand(settings):
    settings.reader(replicas=1, envFrom=BY_SECRET)
    ended = settings.run(**of_secret(settings))
    path = settings.api.path("v1", "secrets", settings.namespace, ended.result.kept)
    settings.api.client.delete(path)

    undone = settings.undo(ended, **of_secret(settings))

    assert "Set the value by hand" in str(undone.error)


def test_a_secret_that_somebody_set_after_the_old_one_was_kept_is_not_written_over(
    settings, caplog
):
    theirs, api, namespace = "their-0f-the-lab-99", settings.api, settings.namespace
    settings.reader(replicas=1, envFrom=BY_SECRET)
    read = [
        ("", "configmaps", "get,list,watch"),
        ("", "pods", "get,list,watch"),
        ("apps", "deployments", "get,list,watch,patch"),
        ("batch", "cronjobs", "list"),
    ]
    kept = ("", "secrets", "get,create")
    api.allow(namespace, "keeper", *read, kept)
    settings.cluster = api.url_as("keeper")

    stopped = settings.run(**of_secret(settings))
    api.client.patch(
        api.path("v1", "secrets", namespace, "divoc-secrets"), {"data": {KEY: encoded(theirs)}}
    )
    rule = {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get", "create", "patch"]}
    role = {"metadata": {"name": "writer"}, "rules": [rule]}
    version = "rbac.authorization.k8s.io/v1"
    api.client.post(api.path(version, "roles", namespace), role)
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "writer"}
    user = {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "keeper"}
    binding = {"metadata": {"name": "writer"}, "roleRef": reference, "subjects": [user]}
    api.client.post(api.path(version, "rolebindings", namespace), binding)
    resumed = settings.run(**of_secret(settings), options={"resume": stopped.recovery_id})

    assert isinstance(stopped.error, ClusterForbidden), stopped.error
    assert isinstance(resumed.error, ClusterConflict), resumed.error
    assert f"/data/{KEY} is another value, and not what it was" in str(resumed.error)
    assert settings.value(KEY, "divoc-secrets", "secrets") == encoded(theirs)
    assert theirs not in str(resumed.error)
    assert_told_nowhere(settings, resumed, caplog)


def test_a_secret_that_was_empty_before_is_set_and_is_empty_again(settings, monkeypatch):
    monkeypatch.setenv("LAB_SMS_KEY", NEW)
    settings.config_map(data={KEY: "", "OTHER": "x"})
    given = {"key": KEY, "value_env": "LAB_SMS_KEY", "restart": False}

    ended = settings.run(**given)

    assert ended.error is None, ended.error
    assert settings.value(KEY) == NEW
    assert settings.undo(ended, **given).error is None
    assert settings.value(KEY) == ""


def test_the_sms_key_is_rotated_and_notification_service_alone_restarted(settings, caplog):
    settings.config_map(data={"ENABLE_SMS": "true", "REGISTRY_URL": "http://registry:8081"})
    both = [{"configMapRef": {"name": "divoc-config"}}, *BY_SECRET]
    settings.reader("notification-service", replicas=1, envFrom=both)
    settings.reader("registry", replicas=1, envFrom=both)
    given = {"config": "secret/divoc-secrets", "key_file": settings.file(NEW)}

    ended = settings.run("rotate-sms-key", **given)

    assert ended.error is None, ended.error
    assert settings.value(KEY, "divoc-secrets", "secrets") == encoded(NEW)
    assert settings.mark("notification-service") == ended.recovery_id
    assert settings.mark("registry") == ""
    assert_told_nowhere(settings, ended, caplog)
    again = settings.run("rotate-sms-key", **given)
    assert again.result.done == "nothing", again.error


def test_the_sms_key_of_the_config_map_is_rotated_by_default(settings, caplog):
    settings.config_map(data={"ENABLE_SMS": "true", KEY: OLD})
    settings.reader("notification-service", replicas=1)

    ended = settings.run("rotate-sms-key", key_file=settings.file(NEW))

    assert ended.error is None, ended.error
    assert settings.value(KEY) == NEW
    assert settings.mark("notification-service") == ended.recovery_id
    assert_told_nowhere(settings, ended, caplog)


def test_the_sms_key_is_not_blamed_where_no_sms_is_sent(settings):
    settings.config_map(data={"ENABLE_SMS": "false"})
    settings.reader("notification-service", replicas=1, envFrom=BY_SECRET)
    given = {"config": "secret/divoc-secrets", "key_file": settings.file(NEW)}

    ended = settings.run("rotate-sms-key", **given)

    assert isinstance(ended.error, Refused)
    assert "ENABLE_SMS is 'false' in configmap/divoc-config" in str(ended.error)
    accepted = settings.run("rotate-sms-key", **given, accept=["sms-is-off"])
    assert accepted.error is None, accepted.error


def test_the_limit_is_raised_also_where_its_key_is_missing_and_never_lowered(settings):
    settings.config_map(data={"REGISTRY_URL": "http://registry:8081"})
    settings.reader("vaccination-api", replicas=1)

    none = settings.run("raise-certificate-update-limit", limit=0)
    below = settings.run("raise-certificate-update-limit", limit=99)
    raised = settings.run("raise-certificate-update-limit", limit=200)
    lower = settings.run("raise-certificate-update-limit", limit=150)
    same = settings.run("raise-certificate-update-limit", limit=200)

    assert isinstance(none.error, BadInput)
    assert "the limit is 100 now, and 99 would lower it" in str(below.error)
    assert raised.error is None, raised.error
    assert "the limit is 200 now" in str(lower.error)
    assert same.result.done == "nothing"
    assert settings.value("CERTIFICATE_UPDATE_LIMIT") == "200"
    pods = settings.api.pods(settings.namespace, **{"k8s-app": "vaccination-api"})
    assert [pod["metadata"]["annotations"][MARK] for pod in pods] == [raised.recovery_id]


def test_a_limit_that_is_no_number_is_told(settings):
    settings.config_map(data={"CERTIFICATE_UPDATE_LIMIT": "many"})

    ended = settings.run("raise-certificate-update-limit", limit=200)

    assert "'many' now, which is no whole number" in str(ended.error)

"""set-config-value against a Kubernetes API: what holds afterwards is asked of the API."""

from dataclasses import replace

import pytest
import yaml

from recovery.errors import BadInput, CommandFailed, NotVerified, Refused
from recovery.evidence.status import status_of
from recovery.journal.opening import open_journal
from recovery.stage import PlainStage
from tasks.settings import changing, rollout
from tests.integration.config_runs import CONFIG, Settings
from tests.integration.kubernetes_runs import evicted
from tests.lab.kubernetes_node import UNREADY, Image
from tests.lab.processes import wait_until

LIMIT = "CERTIFICATE_UPDATE_LIMIT"


@pytest.fixture(autouse=True)
def journal(tmp_path, monkeypatch):
    monkeypatch.setenv("RECOVER_JOURNAL", str(tmp_path / "journal.sqlite"))
    monkeypatch.setattr("recovery.declare.PlainStage", lambda: PlainStage((0.1, 0.2)))


@pytest.fixture
def settings(kubernetes, tmp_path):
    """A namespace with the ConfigMap, and nobody who reads it."""
    found = Settings(kubernetes, kubernetes.namespace("settings"), tmp_path)
    found.config_map()
    return found


def refused(ended):
    assert isinstance(ended.error, Refused), ended.error or ended.result
    return str(ended.error)


def test_a_value_is_set_and_only_those_who_read_it_are_restarted(settings):
    settings.reader("web")
    settings.reader("other", env=[{"name": "LIMIT", "value": "1"}])
    ref = {"configMapKeyRef": {"name": "divoc-config", "key": LIMIT}}
    settings.reader("api", replicas=1, env=[{"name": "LIMIT", "valueFrom": ref}])

    ended = settings.run(value="200")

    assert ended.error is None, ended.error
    assert settings.value() == "200"
    assert settings.value("REGISTRY_URL") == "http://registry:8081"
    assert settings.mark("web") == settings.mark("api") == ended.recovery_id
    assert settings.mark("other") == ""
    assert ended.result.done == "set; restarted: deployment/api, deployment/web"
    assert ended.result.holds == [
        f"deployment/api: {LIMIT} is '200' in env LIMIT of api, by 1 pods",
        f"deployment/web: {LIMIT} is '200' in env {LIMIT} of web, by 2 pods",
    ]


def test_a_second_run_changes_nothing(settings):
    settings.reader()
    assert settings.run(value="200").error is None
    before = settings.object()["metadata"]["resourceVersion"], settings.revision()

    ended = settings.run(value="200")

    assert ended.error is None, ended.error
    assert ended.result.done == "nothing"
    assert (settings.object()["metadata"]["resourceVersion"], settings.revision()) == before


def test_a_value_that_is_set_and_that_older_pods_have_not_read_is_read_by_a_restart(settings):
    settings.reader()
    path = settings.api.path("v1", "configmaps", settings.namespace, "divoc-config")
    settings.api.client.patch(path, {"data": {LIMIT: "200"}})

    ended = settings.run(value="200")

    assert ended.error is None, ended.error
    assert ended.result.found == "the value is set; older pods: deployment/web"
    assert settings.mark() == ended.recovery_id


def test_a_plan_shows_the_patches_and_changes_nothing(settings):
    settings.reader()

    planned = settings.run(value="200", options={"plan_only": True})

    told = {step.key: step.commands for step in planned.plan.steps if step.commands}
    assert list(told) == [
        "set_value", "restart_consumer[deployment/web]",
        "put_value_back", "restart_back[deployment/web]",
    ]  # fmt: skip
    commands = told["set_value"]
    assert f'{{"op":"test","path":"/data/{LIMIT}","value":"100"}}' in commands[0]
    assert f'{{"op":"add","path":"/data/{LIMIT}","value":"200"}}' in commands[0]
    assert settings.value() == "100"
    assert settings.mark() == ""


def test_undo_puts_the_value_back_and_restarts_the_same(settings):
    settings.reader()
    ended = settings.run(value="200")
    assert ended.error is None, ended.error

    undone = settings.undo(ended, value="200")

    assert undone.error is None, undone.error
    assert settings.value() == "100"
    assert settings.mark() == f"{ended.recovery_id}-back"
    pods = settings.api.pods(settings.namespace, **{"k8s-app": "web"})
    marks = {pod["metadata"]["annotations"]["recovery-pipelines.io/restarted-by"] for pod in pods}
    assert marks == {f"{ended.recovery_id}-back"}


def test_a_key_that_was_added_is_removed_by_undo(settings):
    settings.reader()
    ended = settings.run(key="NEW", value="x", add=True)
    assert settings.value("NEW") == "x", ended.error

    undone = settings.undo(ended, key="NEW", value="x", add=True)

    assert undone.error is None, undone.error
    assert settings.value("NEW") is None


def test_a_value_that_a_consumer_cannot_start_with_is_put_back(settings):
    settings.reader("api")
    settings.reader("web")
    settings.api.node.images[f"{settings.namespace}/web"] = Image(UNREADY)
    before = {p["metadata"]["name"] for p in settings.api.pods(settings.namespace)}

    ended = settings.run(value="200", within_seconds=6)

    assert isinstance(ended.error, NotVerified), ended.error
    assert settings.value() == "100"
    assert settings.mark("api") == f"{ended.recovery_id}-back"
    assert settings.mark("web") == ""
    settings.api.wait_until_out(settings.namespace, "web")
    assert before & {p["metadata"]["name"] for p in settings.api.pods(settings.namespace)}


def test_consent_to_a_plan_is_consent_to_putting_the_value_back(settings):
    settings.reader("api")
    settings.reader("web")
    settings.api.node.images[f"{settings.namespace}/web"] = Image(UNREADY)
    within = {"value": "200", "within_seconds": 6}
    planned = settings.run(options={"plan_only": True}, **within)
    assert planned.error is None, planned.error

    ended = settings.run(options={"approve": planned.plan.hash, "approved_by": "kim"}, **within)

    assert isinstance(ended.error, NotVerified), ended.error
    assert "the value was put back" in str(ended.error)
    assert settings.value() == "100"
    assert settings.mark("api") == f"{ended.recovery_id}-back"
    assert settings.mark("web") == ""


@pytest.mark.timeout(240)
def test_a_pod_that_was_evicted_and_is_still_listed_has_nothing_to_read(settings):
    settings.deadline_seconds = 60
    settings.reader(replicas=1)
    (pod,) = settings.api.pods(settings.namespace, **{"k8s-app": "web"})
    path = evicted(settings.api, settings.namespace, pod)

    ended = settings.run(value="200", within_seconds=60)

    assert ended.error is None, str(ended.error)
    assert ended.result.holds == [
        f"deployment/web: {LIMIT} is '200' in env {LIMIT} of web, by 1 pods"
    ]
    assert settings.api.client.get(path)["status"]["phase"] == "Failed"


def test_what_is_not_restarted_is_told(settings):
    settings.reader("api", replicas=1)
    settings.reader("web", replicas=1)
    settings.reader("idle", replicas=0)

    ended = settings.run(value="200", consumers=["web"])

    assert ended.error is None, ended.error
    assert settings.mark("api") == ""
    assert "deployment/api reads it and was not named" in ended.result.told
    unread = settings.run(value="300", restart=False)
    assert unread.error is None, unread.error
    assert "deployment/idle is scaled to 0 and reads it when it starts" in unread.result.told
    left = "restart deployment/web: it keeps the value it has read until then"
    assert left in unread.result.left_to_person
    assert left in status_of(open_journal(), unread.recovery_id)["next"]
    assert ended.result.left_to_person == []
    assert settings.revision() == "2"


def test_what_runs_by_itself_is_told_and_sets_of_pods_are_restarted(settings):
    settings.reader("db", kind="StatefulSet")
    settings.reader("agent", kind="DaemonSet")
    source = [{"configMapRef": {"name": "divoc-config"}}]
    web = {"name": "web", "image": f"{settings.namespace}/web", "envFrom": source}
    bare = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "bare"}}
    settings.api.apply({**bare, "spec": {"containers": [web]}}, settings.namespace)
    template = {"spec": {"containers": [web], "restartPolicy": "Never"}}
    cron = {"schedule": "0 3 * * *", "jobTemplate": {"spec": {"template": template}}}
    body = {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "nightly"}}
    settings.api.apply({**body, "spec": cron}, settings.namespace)
    wait_until(
        lambda: (
            len(settings.api.pods(settings.namespace, **{"k8s-app": "db"})) == 2
            and all(
                pod["status"].get("containerStatuses")
                and pod["status"]["containerStatuses"][0]["ready"]
                for pod in settings.api.pods(settings.namespace)
            )
        ),
        "the pods of the sets",
        within_seconds=30,
    )
    wait_until(
        lambda: (
            settings.api.client.get(
                settings.api.path("apps/v1", "statefulsets", settings.namespace, "db")
            )["status"].get("availableReplicas")
            == 2
        ),
        "the set",
        within_seconds=30,
    )

    ended = settings.run(value="200")

    assert ended.error is None, ended.error
    assert ended.result.done == "set; restarted: daemonset/agent, statefulset/db"
    assert "cronjob/nightly reads it at its next run" in ended.result.told
    assert "pod/bare is of no workload: replace it by hand" in ended.result.told


def test_a_key_added_meanwhile_is_not_written_over(settings, monkeypatch):
    path = settings.api.path("v1", "configmaps", settings.namespace, "divoc-config")
    plain = changing.is_set

    def added_meanwhile(order, kept):
        verdict = plain(order, kept)
        settings.api.client.patch(path, {"data": {"NEW": "theirs"}})
        return verdict

    terms = replace(changing.set_value.terms, done_when=added_meanwhile)
    monkeypatch.setattr(changing.set_value, "terms", terms)

    ended = settings.run(key="NEW", value="ours", add=True)

    assert "somebody added" in refused(ended)
    assert settings.value("NEW") == "theirs"


def test_files_of_a_volume_are_read_anew_by_a_restart(settings):
    volume = {"name": "c", "configMap": {"name": "divoc-config"}}
    other = {
        "name": "c",
        "configMap": {"name": "divoc-config", "items": [{"key": "X", "path": "x"}]},
    }
    mount = [{"name": "c", "mountPath": "/etc/divoc"}]
    settings.reader("web", replicas=1, volumes=[volume], volumeMounts=mount)
    settings.reader("none", replicas=1, volumes=[other], volumeMounts=mount)

    ended = settings.run(value="200")

    assert ended.error is None, ended.error
    assert ended.result.done == "set; restarted: deployment/web"
    assert "in file /etc/divoc of web" in ended.result.holds[0]


def test_a_missing_object_or_key_is_told_with_the_nearest(settings):
    named = settings.run(config="configmap/divoc-confg", value="200")
    keyed = settings.run(key="CERTIFICATE_UPDATE_LIMT", value="200")

    assert "The nearest are divoc-config" in refused(named)
    assert f"The nearest are {LIMIT}; add=true adds it" in refused(keyed)


def test_a_number_asks_for_a_number_unless_that_is_accepted(settings):
    ended = settings.run(value="many")
    typed = settings.run(key="REGISTRY_URL", value="registry:8081", value_type="url")

    assert f"{LIMIT} is a number now ('100'), and 'many' is none" in refused(ended)
    assert "'registry:8081' is no url" in refused(typed)
    accepted = settings.run(value="many", accept=["other-type"])
    assert accepted.error is None, accepted.error


def test_an_immutable_object_is_refused(settings):
    settings.config_map("fixed", immutable=True)

    ended = settings.run(config="configmap/fixed", value="200")

    assert "it is immutable" in refused(ended)
    assert "Create one of another name" in refused(ended)


def test_binary_data_is_refused(settings):
    settings.config_map("binary", binaryData={LIMIT: "AAEC"}, data={})

    ended = settings.run(config="configmap/binary", value="200")

    assert "holds binary data" in refused(ended)


def test_a_value_that_somebody_takes_back_at_once_is_not_verified(settings, monkeypatch):
    settings.reader(replicas=1)
    path = settings.api.path("v1", "configmaps", settings.namespace, "divoc-config")
    plain = rollout.captured.fn

    def taken_back(order, consumer):
        settings.api.client.patch(path, {"data": {LIMIT: "50"}})
        return plain(order, consumer)

    monkeypatch.setattr(rollout.captured, "fn", taken_back)

    ended = settings.run(value="200")

    assert isinstance(ended.error, NotVerified)
    assert "Somebody took it back" in str(ended.error)


@pytest.mark.parametrize(
    ("metadata", "name"),
    [
        ({"labels": {"app.kubernetes.io/managed-by": "Helm"}}, "helm"),
        ({"annotations": {"argocd.argoproj.io/tracking-id": "divoc:x"}}, "argo-cd"),
        ({"labels": {"kustomize.toolkit.fluxcd.io/name": "divoc"}}, "flux"),
    ],
)
def test_an_owner_that_takes_it_back_is_told_and_refused_unless_accepted(settings, metadata, name):
    settings.config_map("owned", metadata={"name": "owned", **metadata})

    ended = settings.run(config="configmap/owned", value="200")

    assert f"accept={name}" in refused(ended)
    accepted = settings.run(config="configmap/owned", value="200", accept=[name])
    assert accepted.error is None, accepted.error
    assert accepted.result.told[0].startswith(name)


def test_a_value_that_nobody_would_see_is_refused_with_what_hides_it(settings):
    settings.secret(**{LIMIT: "100"})
    sources = [{"configMapRef": {"name": "divoc-config"}}, {"secretRef": {"name": "divoc-secrets"}}]
    settings.reader(replicas=1, envFrom=sources)

    ended = settings.run(value="200")

    assert f"{LIMIT} of web is that of secret/divoc-secrets" in refused(ended)
    assert settings.run(value="200", accept=["shadowed"]).error is None
    assert settings.mark() == ""


def test_a_consumer_that_is_not_well_or_does_not_read_it_is_refused(settings):
    settings.reader(replicas=1)
    nobody = settings.run(value="200", consumers=["wep"])
    path = settings.api.path("apps/v1", "deployments", settings.namespace, "web")
    settings.api.client.patch(path, {"spec": {"paused": True}})
    paused = settings.run(value="200")

    assert "wep does not read" in refused(nobody)
    assert "Who does: deployment/web" in refused(nobody)
    assert "its rollouts are paused" in refused(paused)


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"config": "divoc-config"}, "config"),
        ({"config": "secret/divoc-secrets", "value": "x"}, "value"),
        ({"key": "SMS_AUTH_KEY", "value": "x"}, "value"),
        ({"value": ""}, "value"),
        ({"value": "1", "value_env": "HOME"}, "value"),
        ({"key": "a b", "value": "x"}, "key"),
        ({"value": "1", "accept": ["anything"]}, "accept"),
        ({"value": "1", "value_type": "int"}, "value_type"),
        ({"value": "1", "within_seconds": 0}, "within_seconds"),
    ],
)
def test_a_bad_parameter_is_told_by_its_name(settings, given, field):
    ended = settings.run(**given)

    assert isinstance(ended.error, BadInput), ended.error
    assert ended.error.field == field


def test_a_right_that_is_missing_is_told_and_nothing_is_half_done(settings):
    settings.reader(replicas=1)
    looks = (("apps", "deployments", "get,list,watch"), ("", "pods", "get,list,watch"))
    settings.api.allow(settings.namespace, "looker", *looks, ("", "configmaps", "get,list"))
    settings.cluster = settings.api.url_as("looker")

    ended = settings.run(value="200")

    assert isinstance(ended.error, CommandFailed)
    assert 'resources: ["configmaps"], verbs: ["patch"]' in str(ended.error)
    assert (settings.value(), settings.mark()) == ("100", "")


def test_somebody_elses_value_is_not_put_back_over(settings):
    settings.reader(replicas=1)
    ended = settings.run(value="200")
    path = settings.api.path("v1", "configmaps", settings.namespace, "divoc-config")
    settings.api.client.patch(path, {"data": {LIMIT: "300"}})

    undone = settings.undo(ended, value="200")

    assert undone.error is not None
    assert f'/data/{LIMIT} is "300"' in str(undone.error)
    assert settings.value() == "300"


def test_the_objects_of_divoc_are_changed_by_name(kubernetes, recover_test_data, tmp_path):
    settings = Settings(kubernetes, kubernetes.namespace("divoc"), tmp_path)
    settings.secret()
    for name in ("divoc-config.yml", "vaccination-api.yml", "certificate-api-deployment.yaml"):
        body = yaml.safe_load((recover_test_data / "divoc" / name).read_text())
        body["metadata"].pop("namespace", None)
        kubernetes.apply(body, settings.namespace)
    kubernetes.wait_until_out(settings.namespace, "vaccination-api")
    kubernetes.wait_until_out(settings.namespace, "certificate-api")

    ended = settings.run("raise-certificate-update-limit", limit=200, config=CONFIG)

    assert ended.error is None, ended.error
    assert settings.value() == "200"
    assert settings.mark("vaccination-api") == ended.recovery_id
    assert settings.mark("certificate-api") == ""

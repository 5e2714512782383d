"""restart-service against a Kubernetes API: what holds afterwards is asked of the API."""

import pytest
import yaml

import flows.workloads  # noqa: F401 (declares the recovery)
from recovery.errors import BadInput, CommandFailed, NotVerified, Refused, Unreachable
from recovery.stage import PlainStage
from tests.integration.kubernetes_runs import Restarts
from tests.lab.kubernetes_api import STAND_IN, deployment
from tests.lab.kubernetes_node import CRASHES, MISSING, UNREADY, Image
from tests.lab.ports import free_port
from tests.lab.processes import wait_until


@pytest.fixture(autouse=True)
def journal(tmp_path, monkeypatch):
    monkeypatch.setenv("RECOVER_JOURNAL", str(tmp_path / "journal.sqlite"))
    monkeypatch.setattr("recovery.declare.PlainStage", lambda: PlainStage((0.1, 0.2)))


@pytest.fixture
def restarts(kubernetes, tmp_path):
    return Restarts(kubernetes, kubernetes.namespace("restart"), tmp_path)


@pytest.fixture
def web(restarts):
    """A Deployment that is well."""
    api, namespace = restarts.api, restarts.namespace
    api.apply(deployment("web", restarts.image(), replicas=3), namespace)
    api.wait_until_out(namespace, "web")
    return restarts


def names_of(restarts, name="web"):
    pods = restarts.api.pods(restarts.namespace, **{"k8s-app": name})
    return {pod["metadata"]["name"] for pod in pods}


def asked_of(restarts):
    """What people and recoveries wrote; the API's own controller goes on writing the status."""
    deployment = restarts.api.deployment(restarts.namespace, "web")
    meta = deployment["metadata"]
    return deployment["spec"], meta["generation"], meta["annotations"], meta["labels"]


def hang(restarts):
    """Let every pod that runs stop being ready, as a process that hangs; new ones are well."""
    for pod in restarts.api.pods(restarts.namespace, **{"k8s-app": "web"}):
        path = restarts.api.path("v1", "pods", restarts.namespace, pod["metadata"]["name"])
        status = pod["status"]
        for one in status["conditions"]:
            one["status"] = "False" if one["type"] == "Ready" else one["status"]
        for one in status["containerStatuses"]:
            one["ready"] = False
        restarts.api.client.patch(f"{path}/status", {"status": status})


def test_a_service_that_hangs_is_restarted_once_and_comes_back(web):
    before = names_of(web)
    hang(web)

    ended = web.run(within_seconds=30)

    assert ended.error is None, ended.error
    assert ended.result.done == "restarted"
    assert web.mark() == ended.recovery_id
    assert len(names_of(web)) == 3
    assert not names_of(web) & before
    logs = ended.result.before.logs
    assert {line for lines in logs.values() for line in lines if "started" in line}


def test_a_second_run_finds_it_well_and_changes_nothing(web):
    assert web.run(restart=True, within_seconds=30).error is None
    before = asked_of(web)

    ended = web.run()

    assert ended.result.done == "nothing"
    assert asked_of(web) == before


def test_a_plan_shows_the_patch_and_changes_nothing(web):
    planned = web.run(restart=True, options={"plan_only": True})

    steps = {step.key: step.commands for step in planned.plan.steps if step.commands}
    path = web.api.path("apps/v1", "deployments", web.namespace, "web")
    commands = steps["restart"]
    assert list(steps) == ["restart", "roll_back"]
    assert steps["roll_back"][0].startswith(f"PATCH {path} ")
    assert commands[0].startswith(f'PATCH {path} [{{"op":"test","path":"/metadata/uid"')
    assert '"value":"as read"' in commands[0]
    assert web.mark() == ""


def test_what_it_changed_carries_its_fence(web):
    ended = web.run(restart=True, within_seconds=30)

    annotations = web.api.deployment(web.namespace, "web")["metadata"]["annotations"]
    fences = [v for n, v in annotations.items() if n.startswith("fence.recovery-pipelines.io/")]
    assert [fence.partition(":")[0] for fence in fences] == [ended.recovery_id]


def test_a_moved_tag_that_crashes_is_rolled_back_at_its_own_deadline(restarts):
    web = restarts
    body = deployment("web", web.image(), replicas=3, deadline_seconds=2)
    web.api.apply(body, web.namespace)
    web.api.wait_until_out(web.namespace, "web")
    before = names_of(web)
    web.api.node.images[web.image()] = Image(CRASHES, build="2", log="boom\n")

    ended = web.run(restart=True, within_seconds=40)

    assert ended.error is None, ended.error
    assert ended.result.done.startswith("restarted, and rolled back: ")
    assert "another image was pulled (web: docker.io/" in ended.result.done
    assert web.mark() == ""
    out = web.api.wait_until_out(web.namespace, "web")
    assert out["status"]["availableReplicas"] == 3
    assert names_of(web) & before


@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet"])
def test_consent_to_the_plan_of_a_restart_is_consent_to_taking_it_back(restarts, kind):
    restarts.api.apply(workload_of(kind, restarts.image()), restarts.namespace)
    wait_until(lambda: are_ready(restarts, 2), "two ready pods", within_seconds=30)
    before = names_of(restarts)
    named = f"{kind.lower()}/web"
    planned = restarts.run(named, restart=True, within_seconds=4, options={"plan_only": True})
    restarts.api.node.images[restarts.image()] = Image(CRASHES, build="2")

    given = {"approve": planned.plan.hash, "approved_by": "kim"}
    ended = restarts.run(named, restart=True, within_seconds=4, options=given)

    resource = f"{kind.lower()}s"
    path = restarts.api.path("apps/v1", resource, restarts.namespace, "web")
    template = restarts.api.client.get(path)["spec"]["template"]
    assert not template["metadata"].get("annotations"), ended.error
    if kind == "Deployment":
        assert ended.error is None, ended.error
        assert names_of(restarts) & before
    else:
        assert isinstance(ended.error, NotVerified)  # its former template pulls the moved tag too


def workload_of(kind, image):
    body = deployment("web", image, replicas=2, deadline_seconds=2)
    if kind == "StatefulSet":
        del body["spec"]["progressDeadlineSeconds"]
        body.update(kind=kind, spec={**body["spec"], "serviceName": "web"})
    return body


def are_ready(restarts, count):
    pods = restarts.api.pods(restarts.namespace, **{"k8s-app": "web"})
    told = [c for pod in pods for c in pod["status"].get("conditions") or []]
    return [c["status"] for c in told if c["type"] == "Ready"] == ["True"] * count


def test_a_crash_loop_of_before_is_left_alone_and_handed_over(restarts):
    restarts.api.node.images[restarts.image()] = Image(CRASHES, previous_log="no database\n")
    restarts.api.apply(deployment("web", restarts.image(), replicas=1), restarts.namespace)
    wait_until(
        lambda: any(
            pod["status"].get("containerStatuses")
            for pod in restarts.api.pods(restarts.namespace, **{"k8s-app": "web"})
        ),
        "a pod that crashes",
        within_seconds=20,
    )

    ended = restarts.run(within_seconds=3)

    assert isinstance(ended.error, NotVerified)
    assert "Error, exit code 1" in str(ended.error)
    assert "recover bundle" in str(ended.error)
    assert restarts.mark() == ended.recovery_id

    restarts.api.node.images[restarts.image()] = Image(build="1")
    for name in names_of(restarts):
        path = restarts.api.path("v1", "pods", restarts.namespace, name)
        restarts.api.client.delete(path)
    resumed = restarts.run(within_seconds=3, options={"resume": ended.recovery_id})
    assert resumed.error is None, resumed.error


def test_pods_that_never_started_are_not_restarted(restarts):
    restarts.api.node.images[restarts.image()] = Image(MISSING)
    restarts.api.apply(deployment("web", restarts.image(), replicas=1), restarts.namespace)
    wait_until(
        lambda: restarts.api.pods(restarts.namespace, **{"k8s-app": "web"})[0]["status"].get(
            "containerStatuses"
        ),
        "a pod without an image",
        within_seconds=20,
    )

    ended = restarts.run()

    assert isinstance(ended.error, Refused)
    assert "web: ImagePullBackOff" in str(ended.error)
    assert restarts.mark() == ""


def test_what_is_scaled_to_nothing_is_not_restarted(web):
    path = web.api.path("apps/v1", "deployments", web.namespace, "web")
    web.api.client.patch(path, {"spec": {"replicas": 0}})
    web.api.wait_until_out(web.namespace, "web")

    ended = web.run(restart=True)

    assert isinstance(ended.error, Refused)
    assert "it is scaled to 0" in str(ended.error)


def test_a_workload_or_namespace_that_is_not_there_is_told_with_what_is(web):
    workload = web.run("wep")
    web.cluster = web.api.url  # its Role is of one namespace, and knows of no other
    namespace = web.run(namespace=f"{web.namespace}x")

    assert isinstance(workload.error, Refused)
    assert "The nearest are web" in str(workload.error)
    assert isinstance(namespace.error, Refused)
    assert f"The nearest are {web.namespace}" in str(namespace.error)


def test_a_gateway_is_the_ingress(restarts):
    backend = {"service": {"name": "vaccination-api", "port": {"number": 8000}}}
    path = {"path": "/divoc", "pathType": "Prefix", "backend": backend}
    body = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {"name": "ingress-vaccination-api"},
        "spec": {"rules": [{"host": "divoc.example.net", "http": {"paths": [path]}}]},
    }
    restarts.api.apply(body, restarts.namespace)

    ended = restarts.run("gateway")

    assert isinstance(ended.error, Refused)
    assert "ingress-vaccination-api leads to vaccination-api" in str(ended.error)


def test_a_right_that_is_missing_is_told_with_the_role_that_grants_it(web):
    web.api.allow(
        web.namespace,
        "viewer",
        ("apps", "deployments", "get,list,watch"),
        ("", "pods", "get,list,watch"),
        ("", "pods/log", "get"),
    )
    web.cluster = web.api.url_as("viewer")

    ended = web.run("deployment/web", restart=True, within_seconds=5)

    assert isinstance(ended.error, CommandFailed)
    assert 'apiGroups: ["apps"], resources: ["deployments"], verbs: ["patch"]' in str(ended.error)
    assert web.mark() == ""


def test_an_api_that_is_down_is_unreachable(restarts, tmp_path):
    text = restarts.api.kubeconfig.read_text()
    conf = yaml.safe_load(text)
    conf["clusters"][0]["cluster"]["server"] = f"http://127.0.0.1:{free_port()}"
    other = tmp_path / "down.conf"
    other.write_text(yaml.safe_dump(conf))

    ended = restarts.run(cluster=f"kubeconfig://{other}")

    assert isinstance(ended.error, Unreachable)
    assert "Connection refused" in str(ended.error)


def test_a_context_that_is_not_there_is_told_with_those_that_are(restarts):
    ended = restarts.run(cluster=restarts.api.url_as(context="prod"))

    assert isinstance(ended.error, BadInput)
    assert "It has lab" in str(ended.error)


def test_a_deploy_between_look_and_restart_is_a_conflict(web, monkeypatch):
    from tasks.workloads import restarting  # noqa: PLC0415

    path = web.api.path("apps/v1", "deployments", web.namespace, "web")
    plain = restarting.is_restarted

    def deployed_meanwhile(order, found):
        verdict = plain(order, found)
        if found.state.revision == "1":
            change = {"spec": {"template": {"metadata": {"annotations": {"release": "2"}}}}}
            web.api.client.patch(path, change)
            wait_until(
                lambda: (
                    web.api.client.get(path)["metadata"]["annotations"][
                        "deployment.kubernetes.io/revision"
                    ]
                    == "2"
                ),
                "the other rollout",
                within_seconds=20,
            )
        return verdict

    monkeypatch.setattr(restarting.restart, "terms", _with(restarting.restart, deployed_meanwhile))

    ended = web.run(restart=True)

    assert isinstance(ended.error, CommandFailed)
    assert "revision is " in str(ended.error)
    assert web.mark() == ""


def _with(step, done_when):
    from dataclasses import replace  # noqa: PLC0415

    return replace(step.terms, done_when=done_when)


def test_the_way_back_gives_the_template_its_former_mark(web):
    ended = web.run(restart=True, within_seconds=30)
    assert web.mark()

    undone = web.run(
        restart=True,
        within_seconds=30,
        options={"resume": ended.recovery_id, "undo_by": "kim", "break_glass": "a test"},
    )

    assert undone.error is None, undone.error
    assert web.mark() == ""


def test_the_services_of_divoc_are_restarted_by_name(restarts, recover_test_data):
    for name in ("vaccination-api.yml", "registry-deployment.yaml"):
        body = yaml.safe_load((recover_test_data / "divoc" / name).read_text())
        body["metadata"].pop("namespace", None)
        restarts.api.apply(body, restarts.namespace)
    restarts.api.wait_until_out(restarts.namespace, "vaccination-api")
    restarts.api.wait_until_out(restarts.namespace, "registry")

    for name in ("vaccination-api", "registry"):
        ended = restarts.run(name, restart=True, within_seconds=30)
        assert ended.error is None, ended.error
        assert restarts.mark(name) == ended.recovery_id


def test_a_stateful_set_that_is_stuck_after_a_restart_is_unstuck_by_going_back(restarts):
    body = deployment("db", restarts.image("db"), replicas=2)
    body["kind"] = "StatefulSet"
    del body["spec"]["progressDeadlineSeconds"]
    body["spec"]["serviceName"] = "db"
    restarts.api.apply(body, restarts.namespace)
    path = restarts.api.path("apps/v1", "statefulsets", restarts.namespace, "db")

    def is_out():
        status = restarts.api.client.get(path)["status"]
        return status.get("availableReplicas") == 2 == status.get("updatedReplicas")

    wait_until(is_out, "the set", within_seconds=30)
    restarts.api.node.images[restarts.image("db")] = Image(UNREADY)

    ended = restarts.run("statefulset/db", restart=True, within_seconds=4)

    template = restarts.api.client.get(path)["spec"]["template"]
    assert not (template["metadata"].get("annotations"))
    assert not ({})
    assert isinstance(ended.error, NotVerified)  # the tag has moved: the old template pulls it too
    restarts.api.node.images[restarts.image("db")] = Image()
    for pod in restarts.api.pods(restarts.namespace, **{"k8s-app": "db"}):
        where = restarts.api.path("v1", "pods", restarts.namespace, pod["metadata"]["name"])
        restarts.api.client.delete(where)
    wait_until(is_out, "the set again", within_seconds=30)


def test_either_api_is_told_in_the_head_of_the_run(kubernetes):
    from tests.lab.kubernetes_api import used_here  # noqa: PLC0415

    assert ("stand-in" in used_here()) == (kubernetes.kind == STAND_IN)

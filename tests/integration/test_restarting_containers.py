"""relax-probes and raise-resources against a Kubernetes API: what holds is asked of the API."""

import pytest

from recovery.errors import BadInput, NotVerified, Refused
from recovery.stage import PlainStage
from tests.integration.container_runs import MARK, OOM, PROBE, Containers
from tests.lab.kubernetes_node import CRASHES, DIES, UNREADY, Image
from tests.lab.processes import wait_until


@pytest.fixture(autouse=True)
def journal(tmp_path, monkeypatch):
    monkeypatch.setenv("RECOVER_JOURNAL", str(tmp_path / "journal.sqlite"))
    monkeypatch.setattr("recovery.declare.PlainStage", lambda: PlainStage((0.1, 0.2)))


@pytest.fixture
def web(kubernetes):
    return Containers(kubernetes, kubernetes.namespace("containers"))


@pytest.fixture
def either_web(either_kubernetes):
    return Containers(either_kubernetes, either_kubernetes.namespace("containers"))


def test_a_container_that_is_killed_for_want_of_memory_gets_more_and_stays(either_web):
    web = either_web.starve()

    ended = web.run(memory_limit="1024Mi")

    assert ended.error is None, ended.error
    assert web.container()["resources"] == {
        "limits": {"memory": "1Gi"},
        "requests": {"memory": "1Gi"},  # it equalled the limit
    }
    assert "out-of-memory (OOMKilled, exit code 137)" in ended.result.found
    assert {p["metadata"]["annotations"][MARK] for p in web.pods()} == {ended.recovery_id}
    assert web.run(memory_limit="1Gi").result.done == []


def test_a_slow_start_is_given_time_by_a_startup_probe_or_nothing_at_all(either_web):
    web = either_web.hurry(seconds=10)
    before = web.container()

    small = web.run("relax-probes", startup_seconds=8, within_seconds=8)
    assert isinstance(small.error, NotVerified)
    assert web.container() == before
    web.fail_liveness()  # also of pods that were made anew
    ended = web.run("relax-probes", startup_seconds=11, within_seconds=30)

    assert ended.error is None, ended.error
    assert web.container()["livenessProbe"] == before["livenessProbe"]
    assert web.container()["startupProbe"] == {**before["livenessProbe"], "failureThreshold": 6}


def test_the_way_back_puts_the_former_values_back(web):
    web.starve()
    before = web.container()
    ended = web.run(memory_limit="512Mi")
    assert ended.error is None, ended.error

    undone = web.undo(ended, memory_limit="512Mi")

    assert undone.error is None, undone.error
    assert web.container() == before
    assert not web.workload()["spec"]["template"]["metadata"].get("annotations")


def test_what_is_not_enough_is_taken_back_under_an_approved_plan(web):
    web.starve(least="2Gi")
    before = web.container()
    planned = web.run(memory_limit="512Mi", within_seconds=4, options={"plan_only": True})
    keys = [step.key for step in planned.plan.steps if step.commands]
    assert keys == ["change_container", "roll_back"]
    assert web.container() == before

    given = {"approve": planned.plan.hash, "approved_by": "kim"}
    ended = web.run(memory_limit="512Mi", within_seconds=4, options=given)

    assert isinstance(ended.error, NotVerified)
    assert "the former values were put back" in str(ended.error)
    assert "OOMKilled" in str(ended.error)
    assert web.container() == before


def test_a_restart_within_the_quiet_period_is_no_success(web):
    web.starve()
    path = web.api.path("v1", "pods", web.namespace)

    def restart_one():
        marked = [p for p in web.pods() if MARK in (p["metadata"].get("annotations") or {})]
        status = marked[0]["status"] if marked else {}
        if not status.get("containerStatuses"):
            return False
        status["containerStatuses"][0]["restartCount"] += 1
        named = f"{path}/{marked[0]['metadata']['name']}/status"
        web.api.client.patch(named, {"status": status})
        return False

    ended = run_beside(restart_one, lambda: web.run(memory_limit="512Mi", quiet_seconds=20))

    assert isinstance(ended.error, NotVerified)
    assert "no restart of deployment/web within 20 s" in str(ended.error)
    assert web.memory() == "512Mi"


def test_values_that_somebody_takes_back_in_the_quiet_period_are_no_success(web):
    web.starve()
    path = web.api.path("apps/v1", "deployments", web.namespace, "web")

    def take_back():
        pods = [p for p in web.pods() if MARK in (p["metadata"].get("annotations") or {})]
        are_ready = [c["ready"] for p in pods for c in p["status"].get("containerStatuses") or []]
        if web.memory() == "512Mi" and are_ready == [True, True]:
            memory = {"memory": "256Mi"}
            resources = {"limits": memory, "requests": memory}
            former = [{"name": "web", "resources": resources}]
            spec = {"template": {"spec": {"containers": former}}}
            web.api.client.patch(path, {"spec": spec}, "application/strategic-merge-patch+json")

    ended = run_beside(take_back, lambda: web.run(memory_limit="512Mi", quiet_seconds=8))

    assert isinstance(ended.error, NotVerified), ended
    assert "somebody took that back" in str(ended.error)


def run_beside(act, run):
    """Let something happen again and again while a recovery runs."""
    import threading  # noqa: PLC0415

    ends = threading.Event()

    def again():
        while not ends.wait(0.3):
            act()

    beside = threading.Thread(target=again, daemon=True)
    beside.start()
    try:
        return run()
    finally:
        ends.set()
        beside.join()


def test_a_stateful_set_that_is_stuck_in_its_restarts_is_got_going(web):
    web.starve(kind="StatefulSet")

    ended = web.run(memory_limit="512Mi")

    assert ended.error is None, ended.error
    assert web.memory("statefulsets") == "512Mi"
    assert {p["metadata"]["annotations"][MARK] for p in web.pods()} == {ended.recovery_id}


@pytest.mark.parametrize(
    ("image", "name", "asked", "instead"),
    [
        (Image(DIES, ended=OOM), "relax-probes", {"startup_seconds": 60}, "raise-resources"),
        (Image(CRASHES), "relax-probes", {"startup_seconds": 60}, "previous log"),
        (Image(CRASHES), "raise-resources", {"memory_limit": "1Gi"}, "previous log"),
        (Image(UNREADY), "raise-resources", {"memory_limit": "1Gi"}, "not restarted"),
        (Image(DIES, ended={"exitCode": 137}), "relax-probes", {"startup_seconds": 60}, "-known"),
        (Image(DIES, ended=OOM), "raise-resources", {"cpu_limit": "2"}, "memory_limit"),
    ],
)
def test_what_would_not_mend_it_is_refused_by_name(web, image, name, asked, instead):
    web.api.node.images[web.image] = image
    limits = {"limits": {"memory": "256Mi"}}
    web.deploy("Deployment", {"livenessProbe": PROBE, "resources": limits}, replicas=1)

    ended = web.run(name, within_seconds=90, **asked)

    assert isinstance(ended.error, Refused), ended.error
    assert instead in str(ended.error)
    assert MARK not in str(web.workload()["spec"])


def test_a_cause_that_nothing_tells_any_more_can_be_accepted(web):
    image = Image(DIES, ended={"exitCode": 137}, is_cured=lambda one: "startupProbe" in one)
    web.api.node.images[web.image] = image
    web.deploy("Deployment", {"livenessProbe": PROBE}, replicas=1)

    given = {"startup_seconds": 20, "accept": ["cause-not-known"]}
    ended = web.run("relax-probes", **given)

    assert ended.error is None, ended.error


def test_a_limit_range_a_quota_and_the_nodes_are_asked_first(web):
    web.starve(replicas=1)
    item = {"type": "Container", "max": {"memory": "1Gi"}}
    body = {"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "most"}}
    web.api.apply({**body, "spec": {"limits": [item]}}, web.namespace)

    most = web.run(memory_limit="2Gi")
    node = web.run(memory_limit="1Gi", memory_request="900Ti")
    web.api.client.delete(web.api.path("v1", "limitranges", web.namespace, "most"))
    large = web.run(memory_limit="900Gi")

    assert isinstance(most.error, Refused)
    assert "limitrange/most allows a container 1Gi of memory at most" in str(most.error)
    assert isinstance(node.error, BadInput)
    assert isinstance(large.error, Refused)
    assert "is more than any node has" in str(large.error)
    assert web.memory() == "256Mi"


def test_nodes_that_may_not_be_looked_at_are_not_taken_for_empty(web):
    web.starve(replicas=1)
    rules = [
        ("apps", "deployments", "get,list,watch,patch"),
        ("", "pods,events,limitranges,resourcequotas", "get,list,watch"),
        ("", "pods/log", "get"),
    ]
    told = [
        (group, resource, verbs) for group, names, verbs in rules for resource in names.split(",")
    ]
    web.api.allow(web.namespace, "limited", *told)
    web.cluster = web.api.url_as("limited")

    refused = web.run(memory_limit="512Mi", workload="deployment/web")
    accepted = web.run(memory_limit="512Mi", workload="deployment/web", accept=["room-not-known"])

    assert isinstance(refused.error, Refused)
    assert "accept=room-not-known" in str(refused.error)
    assert accepted.error is None, accepted.error


def test_a_stateful_set_is_not_begun_that_could_not_be_got_going(web):
    web.starve(kind="StatefulSet", replicas=1)
    watched = ("pods", "events", "limitranges", "resourcequotas")
    rules = [("", one, "get,list,watch") for one in watched]
    rules += [("apps", "statefulsets", "get,list,watch,patch"), ("", "pods/log", "get")]
    web.api.allow(web.namespace, "limited", *rules)
    web.cluster = web.api.url_as("limited")

    ended = web.run(memory_limit="512Mi", workload="statefulset/web", accept=["room-not-known"])

    assert isinstance(ended.error, Refused)
    assert 'resources: ["pods"], verbs: ["delete"]' in str(ended.error)
    assert web.memory("statefulsets") == "256Mi"


def test_who_would_take_it_back_is_named(web):
    web.starve(replicas=1)
    path = web.api.path("apps/v1", "deployments", web.namespace, "web")
    label = {"metadata": {"annotations": {"meta.helm.sh/release-name": "divoc"}}}
    web.api.client.patch(path, label)

    refused = web.run(memory_limit="512Mi")
    accepted = web.run(memory_limit="512Mi", accept=["helm"])

    assert "accept=helm" in str(refused.error)
    assert accepted.error is None, accepted.error


def test_a_container_that_is_not_there_or_not_named_is_told_with_those_that_are(web):
    web.starve(replicas=1)
    path = web.api.path("apps/v1", "deployments", web.namespace, "web")

    missing = web.run(memory_limit="512Mi", container="wep")
    containers = [
        *web.workload()["spec"]["template"]["spec"]["containers"],
        {"name": "proxy", "image": "proxy"},
    ]
    web.api.client.patch(path, {"spec": {"template": {"spec": {"containers": containers}}}})
    wait_until(lambda: len(web.pods()) >= 1, "pods", within_seconds=20)
    several = web.run(memory_limit="512Mi")

    assert "It has web" in str(missing.error)
    assert "several containers: web, proxy" in str(several.error)

"""Recoveries of workloads whose pods really run, under a real kubelet: its words, its restarts."""

import pytest

import flows.workloads  # noqa: F401 (declare the recoveries)
from recovery.errors import Refused
from recovery.stage import PlainStage
from tests.integration.container_runs import MARK, Containers
from tests.integration.kubernetes_runs import Restarts, evicted
from tests.lab.kubernetes_api import deployment
from tests.lab.kubernetes_kubelet import BUSYBOX
from tests.lab.processes import wait_until

pytestmark = pytest.mark.timeout(240)
SLOW_START = "sleep 5; touch /tmp/started; sleep 1000"
ALIVE = {"exec": {"command": ["test", "-f", "/tmp/started"]}, "periodSeconds": 1}  # noqa: S108
HUNGRY = "x=$(yes | head -c 30000000); sleep 1000"


@pytest.fixture(autouse=True)
def journal(tmp_path, monkeypatch):
    monkeypatch.setenv("RECOVER_JOURNAL", str(tmp_path / "journal.sqlite"))
    monkeypatch.setattr("recovery.declare.PlainStage", lambda: PlainStage((0.1, 0.2)))


@pytest.fixture
def deploy(pods_kubernetes):
    """Deploy `web` into a namespace of its own; return what runs recoveries there."""

    def deployed(script, replicas=1, **container):
        api = pods_kubernetes
        namespace = api.namespace("pods")
        body = deployment("web", BUSYBOX, replicas=replicas)
        spec = body["spec"]["template"]["spec"]
        spec.update(hostNetwork=True, terminationGracePeriodSeconds=1)
        spec["containers"][0].update(command=["sh", "-c", script], **container)
        api.apply(body, namespace)
        return Containers(api, namespace)

    return deployed


def wait_for_end(web, reason="", code=None):
    """Wait until the container has ended so, and is waited for or runs again."""

    def has_ended():
        for pod in web.pods():
            for one in pod["status"].get("containerStatuses") or []:
                ended = one["lastState"].get("terminated") or one["state"].get("terminated") or {}
                if ended and (not reason or ended["reason"] == reason):
                    return code is None or ended["exitCode"] == code
        return False

    wait_until(has_ended, f"a container that ended {reason} {code}", within_seconds=90)


def test_a_service_is_restarted_once_and_its_logs_are_kept(deploy, tmp_path):
    web = deploy("echo serving; sleep 1000", replicas=2)
    web.api.wait_until_out(web.namespace, "web", within_seconds=90)
    before = {pod["metadata"]["name"] for pod in web.pods()}

    ended = Restarts(web.api, web.namespace, tmp_path).run(restart=True, within_seconds=120)

    assert ended.error is None, ended.error
    now = [pod for pod in web.pods() if pod["status"]["phase"] == "Running"]
    assert len(now) == 2
    assert not {pod["metadata"]["name"] for pod in now} & before
    assert {pod["metadata"]["annotations"][MARK] for pod in now} == {ended.recovery_id}
    logs = ended.result.before.logs
    assert sum("serving" in line for lines in logs.values() for line in lines) == 2


def test_a_pod_that_was_evicted_and_is_still_listed_holds_nothing_up(deploy, tmp_path):
    web = deploy("sleep 1000")
    web.api.wait_until_out(web.namespace, "web", within_seconds=90)
    (pod,) = web.pods()
    path = evicted(web.api, web.namespace, pod)

    ended = Restarts(web.api, web.namespace, tmp_path).run(restart=True, within_seconds=20)

    assert ended.error is None, ended.error
    assert web.api.client.get(path)["status"]["phase"] == "Failed"


def test_a_container_whose_probe_ends_it_while_it_starts_is_given_time(deploy):
    web = deploy(SLOW_START, livenessProbe={**ALIVE, "failureThreshold": 2})
    wait_for_end(web)

    memory = web.run("raise-resources", memory_limit="64Mi")
    ended = web.run("relax-probes", startup_seconds=30, within_seconds=90, quiet_seconds=10)

    assert isinstance(memory.error, Refused)
    assert "relax-probes mends that" in str(memory.error)
    assert ended.error is None, ended.error
    assert "liveness-probe (Liveness probe failed" in ended.result.found
    (pod,) = web.pods()
    (one,) = pod["status"]["containerStatuses"]
    assert one["ready"]
    assert one["restartCount"] == 0
    assert web.container()["startupProbe"]["failureThreshold"] == 30


def test_a_container_that_is_killed_for_want_of_memory_is_given_more(deploy):
    limits = {"limits": {"memory": "16Mi"}, "requests": {"memory": "8Mi"}}
    web = deploy(HUNGRY, resources=limits)
    wait_for_end(web, "OOMKilled", 137)

    probes = web.run("relax-probes", startup_seconds=60)
    ended = web.run(memory_limit="256Mi", within_seconds=90, quiet_seconds=10)

    assert isinstance(probes.error, Refused)
    assert ended.error is None, ended.error
    assert web.memory() == "256Mi"
    (pod,) = web.pods()
    assert pod["status"]["containerStatuses"][0]["restartCount"] == 0


def test_an_application_that_ends_by_itself_is_left_to_those_who_wrote_it(deploy):
    web = deploy("echo no database; exit 3", livenessProbe={**ALIVE, "periodSeconds": 10})
    wait_for_end(web, "Error", 3)

    for name, asked in {
        "relax-probes": {"startup_seconds": 60},
        "raise-resources": {"memory_limit": "1Gi"},
    }.items():
        ended = web.run(name, within_seconds=90, **asked)

        assert isinstance(ended.error, Refused)
        assert "application (Error, exit code 3)" in str(ended.error)
        assert "hand it to L3" in str(ended.error)

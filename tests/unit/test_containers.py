"""Why a container is restarted, what would mend it, and whether there is room for that."""

import pytest

from recovery.errors import BadInput, Refused
from tasks.containers import probes, resources
from tasks.containers.causes import Cause, Ending, ending_of
from tasks.containers.change import backwards, forwards, is_done, is_undone
from tasks.containers.order import (
    Limits,
    ProbeKind,
    ProbeWish,
    ResourceWish,
    probe_named,
    probe_order,
    probe_target,
    resource_order,
    resource_target,
)
from tasks.containers.quantities import amount, cpu, memory
from tasks.containers.room import (
    Rollout,
    limit_range_objections,
    node_objections,
    quota_objections,
    surge_of,
)

PLACE = ("in-cluster:?namespace=divoc&name=lab", "", "web")
LIVENESS = {
    "httpGet": {"port": 80},
    "periodSeconds": 10,
    "failureThreshold": 3,
    "timeoutSeconds": 1,
}
BEGAN, ENDED = "2026-11-20T03:00:00Z", "2026-11-20T03:00:40Z"


def asked_probes(limits=None, **wish):
    return probe_order(PLACE, "", ProbeWish(**wish), limits or Limits())


def asked_resources(**wish):
    return resource_order(PLACE, "", ResourceWish(**wish), Limits())


def a_pod(*, ended=None, waiting="", is_ready=False, restarts=4, **status):
    one = {"name": "web", "ready": is_ready, "restartCount": restarts, "state": {"running": {}}}
    if waiting:
        one["state"] = {"waiting": {"reason": waiting}}
    if ended:
        moments = {"startedAt": BEGAN, "finishedAt": ENDED}
        one["lastState"] = {"terminated": {**moments, "reason": "Error", **ended}}
    return {"metadata": {"name": "web-1"}, "status": {"containerStatuses": [one], **status}}


def an_event(reason, message, at=ENDED, container="web"):
    where = {"fieldPath": f"spec.containers{{{container}}}"}
    return {"reason": reason, "message": message, "lastTimestamp": at, "involvedObject": where}


KILLED_BY_LIVENESS = an_event("Killing", "Container web failed liveness probe, will be restarted")
KILLED_BY_STARTUP = an_event("Killing", "Container web failed startup probe, will be restarted")


@pytest.mark.parametrize(
    ("pod", "events", "cause"),
    [
        (a_pod(is_ready=True, restarts=0), [], Cause.NONE),
        (a_pod(ended={"reason": "OOMKilled", "exitCode": 137}), [], Cause.OUT_OF_MEMORY),
        (a_pod(ended={"exitCode": 137}), [KILLED_BY_LIVENESS], Cause.LIVENESS),
        (a_pod(ended={"exitCode": 143}), [KILLED_BY_LIVENESS], Cause.LIVENESS),
        (a_pod(ended={"exitCode": 0}), [KILLED_BY_STARTUP], Cause.STARTUP),
        (a_pod(ended={"exitCode": 137}), [], Cause.KILLED),
        (a_pod(ended={"exitCode": 143}), [], Cause.TERMINATED),
        (a_pod(ended={"exitCode": 1}), [], Cause.APPLICATION),
        (a_pod(ended={"exitCode": 139}), [], Cause.CRASH),
        (a_pod(ended={"exitCode": 127}), [], Cause.COMMAND),
        (a_pod(ended={"exitCode": 128, "reason": "StartError"}), [], Cause.COMMAND),
        (a_pod(waiting="ImagePullBackOff"), [], Cause.NOT_STARTED),
        (a_pod(reason="Evicted", message="The node was low on resource"), [], Cause.NODE),
        (a_pod(), [an_event("Unhealthy", "Readiness probe failed: 503")], Cause.READINESS),
        (
            a_pod(ended={"exitCode": 1}),
            [{**KILLED_BY_LIVENESS, "lastTimestamp": "2026-11-20T02:00:00Z"}],
            Cause.APPLICATION,
        ),
        (
            a_pod(ended={"exitCode": 137}),
            [{**KILLED_BY_LIVENESS, **an_event("Killing", "failed liveness probe", container="x")}],
            Cause.KILLED,
        ),
    ],
)
def test_the_last_end_and_the_event_of_that_run_tell_the_cause(pod, events, cause):
    ending = ending_of(pod, "web", events)

    assert ending.cause is cause
    assert ending.pod == "web-1"


def test_a_probe_that_gets_no_answer_in_time_is_told_from_one_that_gets_a_bad_one():
    late = an_event("Unhealthy", "Liveness probe failed: context deadline exceeded")
    bad = an_event("Unhealthy", "Liveness probe failed: HTTP probe failed with statuscode: 500")
    pod = a_pod(ended={"exitCode": 137})

    assert ending_of(pod, "web", [KILLED_BY_LIVENESS, late]).is_slow
    assert not ending_of(pod, "web", [KILLED_BY_LIVENESS, bad]).is_slow
    assert ending_of(pod, "web", [KILLED_BY_LIVENESS]).lived_seconds == 40


NOWHERE = {"cluster": "kubeconfig:///nowhere", "workload": "web", "namespace": ""}


@pytest.mark.parametrize(
    ("target", "given", "field"),
    [
        (resource_target, {"memory_limit": "lots"}, "memory_limit"),
        (resource_target, {"cpu_request": "2", "cpu_limit": "1"}, "cpu_request"),
        (resource_target, {}, "memory_limit"),
        (probe_target, {"timeout_seconds": -1}, "timeout_seconds"),
        (probe_target, {"probe": "alive"}, "probe"),
    ],
)
def test_a_bad_field_is_told_before_the_cluster_is_opened(target, given, field):
    sizes = dict.fromkeys(("memory_limit", "memory_request", "cpu_limit", "cpu_request"), "")
    probes = {"startup_seconds": 0, "probe": "liveness", "timeout_seconds": 0}
    probes |= {"period_seconds": 0, "failure_threshold": 0}
    fields = sizes if target is resource_target else probes

    with pytest.raises(BadInput) as told:
        target(**{**NOWHERE, **fields, **given})

    assert told.value.field == field


def ended_by(cause, lived=40, *, is_slow=False):
    return Ending("web-1", cause, "told", lived, is_slow=is_slow, restarts=4)


@pytest.mark.parametrize(
    ("given", "written"),
    [("1024Mi", "1Gi"), ("512Mi", "512Mi"), ("1536Mi", "1536Mi"), ("2000M", "2G"), ("2Gi", "2Gi")],
)
def test_memory_is_written_as_the_api_writes_it(given, written):
    assert memory("memory_limit", given) == written


@pytest.mark.parametrize(
    ("given", "written"), [("0.5", "500m"), ("1000m", "1"), ("1.5", "1500m"), ("2", "2")]
)
def test_cpu_is_written_as_the_api_writes_it(given, written):
    assert cpu("cpu_limit", given) == written


@pytest.mark.parametrize("given", ["512", "0Mi", "half", "512mb", "-1Gi"])
def test_memory_without_a_unit_or_sense_is_bad_input(given):
    with pytest.raises(BadInput, match="memory"):
        memory("memory_limit", given)


@pytest.mark.parametrize("given", ["0", "m", "0.0001", "two"])
def test_no_cpu_at_all_is_bad_input(given):
    with pytest.raises(BadInput, match="CPU"):
        cpu("cpu_limit", given)


def test_what_is_no_quantity_cannot_be_compared():
    assert amount("128974848") == amount("123Mi")
    assert amount("100m") * 10 == amount("1")
    with pytest.raises(BadInput, match="quantity"):
        amount("lots")


@pytest.mark.parametrize(
    ("wish", "field"),
    [
        ({}, "startup_seconds"),
        ({"startup_seconds": -1}, "startup_seconds"),
        ({"timeout_seconds": 90_000}, "timeout_seconds"),
        ({"startup_seconds": 9, "probe": ProbeKind.STARTUP, "timeout_seconds": 2}, "probe"),
    ],
)
def test_probes_that_cannot_be_are_bad_input(wish, field):
    with pytest.raises(BadInput, match=field):
        asked_probes(**wish)


@pytest.mark.parametrize(
    ("wish", "field"),
    [
        ({}, "memory_limit"),
        ({"memory_limit": "1Gi", "memory_request": "2Gi"}, "memory_request"),
        ({"cpu_request": "none"}, "cpu_request"),
    ],
)
def test_resources_that_cannot_be_are_bad_input(wish, field):
    with pytest.raises(BadInput, match=field):
        asked_resources(**wish)


def test_other_parameters_that_cannot_be_are_bad_input():
    with pytest.raises(BadInput, match="accept"):
        asked_probes(Limits(accept=["all"]), startup_seconds=9)
    with pytest.raises(BadInput, match="quiet_seconds"):
        asked_probes(Limits(quiet_seconds=-1), startup_seconds=9)
    with pytest.raises(BadInput, match="probe"):
        probe_named("alive")


def test_a_startup_probe_is_a_copy_made_by_the_api_so_that_no_command_of_it_is_read():
    container = {"name": "web", "livenessProbe": {"exec": {"command": ["cli", "-a", "x"]}}}
    changes = probes.probe_changes(asked_probes(startup_seconds=95), container)

    forth, back = forwards("/c/0", changes), backwards("/c/0", changes)

    assert forth == [
        {"op": "copy", "from": "/c/0/livenessProbe", "path": "/c/0/startupProbe"},
        {"op": "add", "path": "/c/0/startupProbe/failureThreshold", "value": 10},
    ]
    assert back[-1] == {"op": "remove", "path": "/c/0/startupProbe"}
    assert not is_done(container, changes)
    assert is_undone(container, changes)


def test_values_that_are_there_are_tested_before_they_are_replaced():
    container = {"name": "web", "livenessProbe": LIVENESS}
    changes = probes.probe_changes(asked_probes(timeout_seconds=5), container)

    place = "/c/0/livenessProbe/timeoutSeconds"
    assert forwards("/c/0", changes)[0] == {"op": "test", "path": place, "value": 1}
    assert backwards("/c/0", changes)[-1] == {"op": "replace", "path": place, "value": 1}


@pytest.mark.parametrize(
    ("container", "wish", "said"),
    [
        ({}, {"startup_seconds": 60}, "neither a startup nor a liveness probe"),
        ({}, {"timeout_seconds": 5}, "no liveness probe"),
        ({"livenessProbe": LIVENESS}, {"startup_seconds": 30}, "already lets it take 30 s"),
        ({"startupProbe": LIVENESS}, {"startup_seconds": 20}, "could take 20 s only"),
        ({"livenessProbe": LIVENESS}, {"failure_threshold": 2}, "stricter"),
        ({"livenessProbe": {**LIVENESS, "timeoutSeconds": 9}}, {"timeout_seconds": 5}, "waits 9"),
    ],
)
def test_probes_that_would_not_become_laxer_are_refused(container, wish, said):
    with pytest.raises(Refused, match=said):
        probes.probe_changes(asked_probes(**wish), {"name": "web", **container})


def test_a_startup_probe_that_is_there_is_given_more_time():
    container = {"name": "web", "startupProbe": LIVENESS}

    (changed,) = probes.probe_changes(asked_probes(startup_seconds=95), container)

    assert str(changed) == "startupProbe/failureThreshold: 3 -> 10"
    assert probes.probe_changes(asked_probes(startup_seconds=30), container) == []


@pytest.mark.parametrize(
    ("ending", "wish", "said"),
    [
        (ended_by(Cause.LIVENESS, lived=5000), {"startup_seconds": 60}, "it had started"),
        (ended_by(Cause.LIVENESS), {"timeout_seconds": 5}, "a bad one"),
        (ended_by(Cause.STARTUP), {"timeout_seconds": 5}, "startup probe is what fails"),
        (
            ended_by(Cause.LIVENESS),
            {"failure_threshold": 9, "probe": ProbeKind.READINESS},
            "restart nothing",
        ),
    ],
)
def test_probes_that_are_not_what_ends_it_are_refused(ending, wish, said):
    container = {"name": "web", "livenessProbe": LIVENESS}

    with pytest.raises(Refused, match=said):
        probes.refuse_unless_probes_restart_it(asked_probes(**wish), container, [ending])


@pytest.mark.parametrize(
    ("ending", "wish"),
    [
        (ended_by(Cause.LIVENESS), {"startup_seconds": 60}),
        (ended_by(Cause.LIVENESS, lived=5000, is_slow=True), {"timeout_seconds": 5}),
        (ended_by(Cause.STARTUP), {"startup_seconds": 60}),
    ],
)
def test_probes_that_are_what_ends_it_may_be_relaxed(ending, wish):
    container = {"name": "web", "livenessProbe": LIVENESS}

    probes.refuse_unless_probes_restart_it(asked_probes(**wish), container, [ending])


@pytest.mark.parametrize(
    ("deadline", "within", "said"),
    [(600, 60, "waited for 60 s"), (60, 600, "progressDeadlineSeconds is 60")],
)
def test_a_start_that_would_be_given_up_before_is_refused(deadline, within, said):
    order = asked_probes(Limits(within_seconds=within), startup_seconds=90)

    with pytest.raises(Refused, match=said):
        probes.refuse_if_late_by_itself(order, {"spec": {"progressDeadlineSeconds": deadline}})


def test_a_request_goes_up_with_the_limit_it_equals_and_stays_where_it_does_not():
    same = {"limits": {"memory": "1Gi"}, "requests": {"memory": "1Gi"}}
    less = {"limits": {"memory": "1Gi"}, "requests": {"memory": "512Mi"}}
    order = asked_resources(memory_limit="2Gi")

    assert resources.wanted_resources(order, {"resources": same}) == {
        "limits": {"memory": "2Gi"},
        "requests": {"memory": "2Gi"},
    }
    kept = resources.wanted_resources(order, {"resources": less})
    assert kept["requests"] == {"memory": "512Mi"}


def test_a_cpu_limit_can_be_removed():
    now = {"limits": {"cpu": "1", "memory": "1Gi"}}

    wanted = resources.wanted_resources(asked_resources(cpu_limit="none"), {"resources": now})

    assert wanted == {"limits": {"memory": "1Gi"}}
    assert resources.resource_changes(asked_resources(cpu_limit="none"), {"resources": {}}) == []


@pytest.mark.parametrize(
    ("now", "wish", "said"),
    [
        ({"limits": {"memory": "2Gi"}}, {"memory_limit": "1Gi"}, "lowered"),
        ({"limits": {"memory": "1Gi"}}, {"memory_request": "2Gi"}, "above its limit"),
    ],
)
def test_less_than_now_is_refused(now, wish, said):
    with pytest.raises(Refused, match=said):
        resources.wanted_resources(asked_resources(**wish), {"resources": now})


@pytest.mark.parametrize(
    ("running", "wish", "said"),
    [
        ({}, {"memory_limit": "1Gi"}, "its node had no more"),
        ({"limits": {"memory": "2Gi"}}, {"memory_limit": "1Gi"}, "of a LimitRange"),
        ({"limits": {"memory": "1Gi"}}, {"memory_request": "1Gi"}, "stays as it is"),
    ],
)
def test_a_memory_limit_that_is_not_the_cause_is_refused(running, wish, said):
    ending = ended_by(Cause.OUT_OF_MEMORY)

    with pytest.raises(Refused, match=said):
        resources.refuse_unless_memory_ends_it(asked_resources(**wish), running, [ending])


@pytest.mark.parametrize(
    ("running", "wish", "used", "is_slow", "said"),
    [
        ({"limits": {"cpu": "1"}}, {"cpu_limit": "2"}, [], False, "a bad one"),
        ({}, {"cpu_limit": "2"}, [], True, "no CPU limit"),
        ({"limits": {"cpu": "1"}}, {"cpu_request": "1"}, [], True, "stays as it is"),
        ({"limits": {"cpu": "1"}}, {"cpu_limit": "2"}, ["100m", "90m"], True, "nothing throttles"),
        ({"limits": {"cpu": "1"}}, {"cpu_limit": "2"}, ["950m", "90m"], True, ""),
        ({"limits": {"cpu": "1"}}, {"cpu_limit": "2"}, [], True, ""),
        ({}, {"cpu_request": "2"}, [], True, ""),
    ],
)
def test_more_cpu_is_refused_where_nothing_throttles_it(running, wish, used, is_slow, said):
    endings = [ended_by(Cause.LIVENESS, is_slow=is_slow)]

    def ask():
        resources.refuse_unless_throttled(asked_resources(**wish), running, endings, used)

    if not said:
        ask()
        return
    with pytest.raises(Refused, match=said):
        ask()


def a_spec(limit="1Gi", request="1Gi"):
    values = {"limits": {"memory": limit}, "requests": {"memory": request}}
    return {"containers": [{"name": "web", "resources": values}]}


def a_node(name="n1", memory_there="4Gi", **spec):
    status = {
        "conditions": [{"type": "Ready", "status": "True"}],
        "allocatable": {"memory": memory_there, "cpu": "4", "pods": "10"},
    }
    return {"metadata": {"name": name}, "spec": spec, "status": status}


def running(uid, spec, node="n1"):
    return {
        "metadata": {"uid": uid},
        "spec": {**spec, "nodeName": node},
        "status": {"phase": "Running"},
    }


@pytest.mark.parametrize(
    ("item", "unlimited", "said"),
    [
        ({"type": "Container", "max": {"memory": "512Mi"}}, [], "512Mi of memory at most"),
        ({"type": "Pod", "max": {"memory": "512Mi"}}, [], "a pod 512Mi"),
        ({"type": "Container", "default": {"cpu": "1"}}, ["cpu"], "without a cpu limit one of 1"),
        ({"type": "Container", "maxLimitRequestRatio": {"memory": "2"}}, [], "2 times"),
        ({"type": "Container", "max": {"memory": "2Gi"}}, [], ""),
        ({"type": "PersistentVolumeClaim", "max": {"storage": "1Gi"}}, [], ""),
    ],
)
def test_a_limit_range_is_asked_of_the_container_and_of_its_pod(item, unlimited, said):
    spec = a_spec(request="256Mi")
    ranges = [{"metadata": {"name": "lr"}, "spec": {"limits": [item]}}]

    found = limit_range_objections(ranges, spec["containers"][0], spec, unlimited)

    assert said in " ".join(found)
    assert bool(found) == bool(said)


@pytest.mark.parametrize(("left", "is_enough"), [("3Gi", False), ("4Gi", True)])
def test_a_quota_must_have_room_for_all_pods_and_those_beside_them(left, is_enough):
    hard = {"requests.memory": left, "requests.cpu": "0"}
    quota = {"metadata": {"name": "q"}, "status": {"hard": hard, "used": {}}, "spec": {}}

    found = quota_objections([quota], a_spec(), a_spec("2Gi", "2Gi"), Rollout(2, 1))

    assert (found == []) is is_enough


@pytest.mark.parametrize(
    ("nodes", "pods", "said"),
    [
        ([a_node()], [], ""),
        ([a_node(unschedulable=True)], [], "no node takes pods"),
        ([a_node(memory_there="1Gi")], [], "more than any node has"),
        ([a_node()], [running("other", a_spec("3Gi", "3Gi"))], "room for 0 of 2"),
        ([a_node()], [running("mine", a_spec("3Gi", "3Gi"))], "beside those that run"),
        ([a_node(), a_node("n2")], [running("other", a_spec("2Gi", "2Gi"))], ""),
    ],
)
def test_the_nodes_must_have_room_for_what_is_promised(nodes, pods, said):
    found = node_objections(nodes, pods, a_spec("2Gi", "2Gi"), {"mine"}, Rollout(2, 1))

    assert said in " ".join(found)
    assert bool(found) == bool(said)


@pytest.mark.parametrize(
    ("kind", "strategy", "surge"),
    [
        ("Deployment", {}, 1),
        ("Deployment", {"type": "Recreate"}, 0),
        ("Deployment", {"rollingUpdate": {"maxSurge": 2}}, 2),
        ("StatefulSet", {}, 0),
    ],
)
def test_how_many_pods_run_beside_while_they_are_replaced(kind, strategy, surge):
    assert surge_of({"kind": kind, "spec": {"strategy": strategy}}, 3) == surge

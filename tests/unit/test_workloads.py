"""Judging workloads and their pods from what the API says of them."""

import pytest

from recovery.errors import BadInput, NotVerified, Refused
from tasks.workloads import restarting, triage
from tasks.workloads.interference import Interferer, interference_with
from tasks.workloads.pods import MARK, PodSeen, read_pod
from tasks.workloads.scaling import (
    REPLICAS,
    Replicas,
    back_operations,
    down_operations,
    original_replicas,
)
from tasks.workloads.state import read_state
from tasks.workloads.target import Workload, WorkloadKind, selector_of, workload_order
from tasks.workloads.waiting import not_out

WEB = Workload(WorkloadKind.DEPLOYMENT, "divoc", "web", "u", "k8s-app=web")
IN_CLUSTER = "in-cluster:?namespace=divoc&name=lab"


def a_deployment(wanted=3, **status):
    counts = {"replicas": 3, "updatedReplicas": 3, "availableReplicas": 3, "observedGeneration": 2}
    return {
        "kind": "Deployment",
        "metadata": {"name": "web", "generation": 2, "uid": "u"},
        "spec": {"replicas": wanted, "template": {"metadata": {"labels": {"k8s-app": "web"}}}},
        "status": {**counts, **status},
    }


def a_pod(*, waiting="", exit_code=None, is_ready=False, image="i@1", **status):
    state = {"waiting": {"reason": waiting}} if waiting else {"running": {}}
    ended = {"terminated": {"reason": "Error", "exitCode": exit_code}} if exit_code else {}
    one = {"name": "web", "imageID": image, "ready": is_ready, "state": state, "lastState": ended}
    ready = {"type": "Ready", "status": "True" if is_ready else "False"}
    metadata = {"name": "web-1", "uid": "p", "annotations": {MARK: "r"}}
    return {
        "metadata": metadata,
        "status": {"conditions": [ready], "containerStatuses": [one], **status},
    }


def seen(*causes, image="i@1", mark=""):
    return PodSeen(
        name="web-1",
        uid="p",
        mark=mark,
        is_ready=not causes,
        is_terminating=False,
        images={"web": image},
        restarts=0,
        causes=list(causes),
    )


@pytest.mark.parametrize(
    ("counts", "is_stuck"),
    [
        ({"updatedReplicas": 1, "availableReplicas": 2}, True),
        ({"replicas": 4, "updatedReplicas": 3, "availableReplicas": 3}, True),
        ({"replicas": 4, "updatedReplicas": 3, "availableReplicas": 4}, False),
        ({"observedGeneration": 1, "availableReplicas": 0}, False),
    ],
)
def test_a_rollout_that_is_late_is_stuck_while_a_pod_is_still_to_come_up(counts, is_stuck):
    late = {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}

    state = read_state(WEB, a_deployment(**counts, conditions=[late]))

    assert state.is_late
    assert state.is_stuck is is_stuck


def found_with(*pods, available=3):
    state = read_state(WEB, a_deployment(availableReplicas=available))
    return triage.Found(triage.Due.RESTART, WEB, state, list(pods), [])


@pytest.mark.parametrize(
    ("status", "is_out"),
    [
        ({}, True),
        ({"observedGeneration": 1}, False),
        ({"updatedReplicas": 2}, False),
        ({"availableReplicas": 2}, False),
        ({"replicas": 4}, False),
    ],
)
def test_a_rollout_is_out_only_when_every_count_says_so(status, is_out):
    assert read_state(WEB, a_deployment(**status)).is_out is is_out


def test_counts_of_zero_are_left_out_by_the_api():
    read = a_deployment(wanted=0)
    read["status"] = {"observedGeneration": 2}

    assert read_state(WEB, read).is_out


@pytest.mark.parametrize(
    ("pod", "causes"),
    [
        (a_pod(is_ready=True), []),
        (a_pod(waiting="ImagePullBackOff"), ["web: ImagePullBackOff"]),
        (a_pod(waiting="CrashLoopBackOff", exit_code=137), ["web: Error, exit code 137"]),
        (a_pod(), ["web: not ready"]),
        (a_pod(reason="Evicted"), ["pod: Evicted"]),
        (a_pod(containerStatuses=[]), ["pod: not started"]),
    ],
)
def test_why_a_pod_is_not_ready(pod, causes):
    assert read_pod(pod).causes == causes
    assert read_pod(pod).mark == "r"


def test_a_restart_is_taken_back_only_where_it_made_things_worse():
    well, broken = seen(), seen("web: Error, exit code 1")
    newer = seen("web: Error, exit code 1", image="i@2")

    assert "another image" in restarting.worse_by(
        found_with(well), [newer], restarting.changed_images([well], [newer]), 3
    )
    assert "none did before" in restarting.worse_by(found_with(well), [broken], [], 3)
    assert "2 are available" in restarting.worse_by(found_with(broken), [broken], [], 2)
    assert restarting.worse_by(found_with(broken, available=0), [broken], [], 0) == ""


def test_an_image_that_was_never_pulled_is_no_other_image():
    assert restarting.changed_images([seen(image="")], [seen(image="i@2")]) == []
    assert restarting.changed_images([seen()], [seen(image="")]) == []
    assert restarting.changed_images([seen()], [seen(image="i@2")]) == ["web: i@1 -> i@2"]


@pytest.mark.parametrize(
    ("change", "pods", "said"),
    [
        ({"replicas": 0}, [seen()], "scaled to 0"),
        ({"paused": True}, [seen()], "paused"),
        ({}, [seen("web: CreateContainerConfigError")], "never started"),
        ({}, [], "no pod at all"),
    ],
)
def test_a_restart_that_cannot_help_is_refused(change, pods, said):
    order = workload_order(IN_CLUSTER, "web")
    read = a_deployment()
    read["spec"].update(change)

    with pytest.raises(Refused, match=said):
        triage.refuse_useless(order, WEB, read_state(WEB, read), pods)


def test_pods_replaced_only_on_deletion_hold_up_a_restart():
    read = a_deployment()
    read["spec"]["updateStrategy"] = {"type": "OnDelete"}
    daemons = Workload(WorkloadKind.DAEMONSET, "divoc", "web", "u", "")

    assert "OnDelete" in read_state(daemons, read).hold


@pytest.mark.parametrize(
    ("given", "kind", "name"),
    [
        ("web", None, "web"),
        ("deployment/web", WorkloadKind.DEPLOYMENT, "web"),
        ("StatefulSets/db", WorkloadKind.STATEFULSET, "db"),
    ],
)
def test_a_workload_is_given_by_name_or_kind_and_name(given, kind, name):
    order = workload_order(IN_CLUSTER, given)

    assert (order.kind, order.name) == (kind, name)
    assert order.label == f"kubernetes://lab/divoc/{name}"


@pytest.mark.parametrize("given", ["", "deployment/", "cronjob/x"])
def test_what_names_no_workload_is_refused(given):
    with pytest.raises(BadInput, match="workload"):
        workload_order(IN_CLUSTER, given)


def test_no_time_at_all_is_refused():
    with pytest.raises(BadInput, match="within_seconds"):
        workload_order(IN_CLUSTER, "web", within_seconds=0)


def test_a_selector_is_written_as_a_query_has_it():
    expressions = [
        {"key": "a", "operator": "In", "values": ["1", "2"]},
        {"key": "b", "operator": "DoesNotExist"},
    ]

    told = selector_of({"matchLabels": {"k": "v"}, "matchExpressions": expressions})

    assert told == "k=v,a in (1,2),!b"


class FakeSession:
    """Answers from a table of paths; what is not in it is not served."""

    def __init__(self, objects=None, read=None):
        self.table, self.read = objects or {}, read

    def served_version(self, group, *preferred):
        return {"autoscaling": "autoscaling/v2", "policy": "policy/v1"}.get(group, "")

    def objects(self, path, **selected):
        return self.table.get(path.rpartition("/")[2], [])

    def get(self, path):
        return self.read


def test_whoever_else_changes_a_workload_is_found():
    read = a_deployment()
    read["metadata"].update(
        labels={"argocd.argoproj.io/instance": "divoc"},
        annotations={"meta.helm.sh/release-name": "divoc"},
        ownerReferences=[{"kind": "Operator", "name": "o", "controller": True}],
    )
    target = {"kind": "Deployment", "name": "web"}
    session = FakeSession(
        {
            "horizontalpodautoscalers": [
                {"metadata": {"name": "h"}, "spec": {"scaleTargetRef": target, "maxReplicas": 5}},
                {"metadata": {"name": "other"}, "spec": {"scaleTargetRef": {"name": "x"}}},
            ],
            "poddisruptionbudgets": [
                {
                    "metadata": {"name": "b"},
                    "spec": {"selector": {"matchLabels": {"k8s-app": "web"}}},
                    "status": {"disruptionsAllowed": 0},
                }
            ],
        }
    )

    found = interference_with(session, WEB, read)

    assert [one.who for one in found] == [
        Interferer.ARGO_CD,
        Interferer.HELM,
        Interferer.OPERATOR,
        Interferer.HPA,
        Interferer.BUDGET,
    ]
    assert str(found[3]) == "horizontal-pod-autoscaler h: 1 to 5 replicas"


def test_the_number_of_replicas_is_noted_beside_the_scale_and_tested_first():
    had = Replicas(3, 3)

    down, back = down_operations(WEB, had), back_operations(WEB, had)

    assert {"op": "test", "path": "/spec/replicas", "value": 3} in down
    assert {"op": "replace", "path": "/spec/replicas", "value": 0} in down
    assert {"op": "test", "path": "/spec/replicas", "value": 0} in back
    assert {"op": "replace", "path": "/spec/replicas", "value": 3} in back


def test_a_note_that_cannot_be_read_is_not_guessed(monkeypatch):
    read = a_deployment(wanted=0)
    read["metadata"]["annotations"] = {REPLICAS: "recovery:many"}
    order = workload_order(IN_CLUSTER, "web")
    monkeypatch.setattr(type(order.cluster), "session", lambda _: _opened(FakeSession(read=read)))

    with pytest.raises(NotVerified, match="annotation"):
        original_replicas.fn(order, WEB)


def _opened(session):
    from contextlib import nullcontext  # noqa: PLC0415

    return nullcontext(session)


def test_what_is_not_out_is_handed_over_with_its_causes():
    state = read_state(WEB, a_deployment(availableReplicas=2))

    error = not_out(workload_order(IN_CLUSTER, "web"), WEB, state, [seen("web: not ready")])

    assert "web-1 web: not ready" in str(error)
    assert "recover bundle" in str(error)

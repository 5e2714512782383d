"""What the project relies on of a Kubernetes API, asked of the real one and of the stand-in."""

import threading

import pytest

from blocks.kube import text
from blocks.kube.answer import (
    ClusterConflict,
    ClusterForbidden,
    ClusterNotFound,
    ClusterRejected,
)
from blocks.kube.cluster import KubernetesCluster
from blocks.kube.path import Asked
from blocks.kube.session import LogOrder
from blocks.kube.watch import wait_for
from recovery.errors import Unreachable
from tests.lab.kubernetes_api import STAND_IN, deployment
from tests.lab.kubernetes_node import CRASHES, FAILS, SUCCEEDS, Image
from tests.lab.processes import wait_until


@pytest.fixture
def api(either_kubernetes):
    return either_kubernetes


@pytest.fixture
def namespace(api):
    return api.namespace("contract")


@pytest.fixture
def session(api):
    with KubernetesCluster.named(api.url).session() as session:
        yield session


def a_map(name, **values):
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": values}


def maps(namespace, name=""):
    return f"/api/v1/namespaces/{namespace}/configmaps" + (f"/{name}" if name else "")


def test_a_patch_is_made_only_where_its_tests_hold(session, namespace):
    made = session.create(maps(namespace), a_map("settings", limit="5"))
    uid = made["metadata"]["uid"]
    change = {"op": "replace", "path": "/data/limit", "value": "7"}

    session.patch(maps(namespace, "settings"), [*text.tests(uid=uid), change])
    with pytest.raises(ClusterConflict, match=r'/data/limit is "7", and was "5"'):
        session.patch(maps(namespace, "settings"), [text.tested("/data/limit", "5"), change])

    assert session.get(maps(namespace, "settings"))["data"] == {"limit": "7"}


def test_what_is_only_tried_is_not_created(session, namespace):
    session.try_create(maps(namespace), a_map("settings", limit="5"))

    assert session.find(maps(namespace, "settings")) is None
    session.create(maps(namespace), a_map("settings", limit="5"))
    with pytest.raises(ClusterConflict, match="already exists"):
        session.try_create(maps(namespace), a_map("settings", limit="5"))


def test_a_change_that_came_in_between_is_a_conflict_below_and_is_sent_again(
    api, session, namespace, monkeypatch
):
    session.create(maps(namespace), a_map("settings", limit="5"))
    ask, others = session.wire.ask, iter([maps(namespace, "settings")])

    def ask_after_another(sent):
        if sent.method == "PATCH" and (path := next(others, "")):
            api.client.patch(path, {"data": {"other": "1"}})
        return ask(sent)

    monkeypatch.setattr(session.wire, "ask", ask_after_another)
    change = {"op": "replace", "path": "/data/limit", "value": "7"}
    session.patch(maps(namespace, "settings"), [text.tested("/data/limit", "5"), change])

    assert session.get(maps(namespace, "settings"))["data"] == {"limit": "7", "other": "1"}


def test_a_merge_patch_changes_what_it_names_and_removes_what_is_null(session, namespace):
    session.create(maps(namespace), a_map("settings", limit="5", old="1"))

    session.merge(maps(namespace, "settings"), {"data": {"limit": "7", "old": None}})

    assert session.get(maps(namespace, "settings"))["data"] == {"limit": "7"}


def test_a_second_object_of_a_name_is_a_conflict(session, namespace):
    session.create(maps(namespace), a_map("settings"))

    with pytest.raises(ClusterConflict, match="already exists"):
        session.create(maps(namespace), a_map("settings"))


def test_a_deletion_is_bound_to_one_object(session, namespace):
    made = session.create(maps(namespace), a_map("settings"))

    with pytest.raises(ClusterConflict):
        session.delete(maps(namespace, "settings"), "another-uid")
    session.delete(maps(namespace, "settings"), made["metadata"]["uid"])
    session.delete(maps(namespace, "settings"), made["metadata"]["uid"])

    assert session.find(maps(namespace, "settings")) is None


def test_a_deletion_of_whatever_has_a_name_is_bound_to_what_must_hold(session, namespace):
    session.create(maps(namespace), a_map("settings", limit="5"))
    path = maps(namespace, "settings")

    with pytest.raises(ClusterConflict, match=r'/data/limit is "5", and was "7"'):
        session.delete_where(path, [text.tested("/data/limit", "7")])
    session.delete_where(path, [text.tested("/data/limit", "5")])
    session.delete_where(path, [text.tested("/data/limit", "5")])

    assert session.find(path) is None


def test_what_is_not_there_is_told_from_what_may_not_be_seen(api, session, namespace):
    limited = KubernetesCluster.named(api.url_as("nobody"))

    with pytest.raises(ClusterNotFound):
        session.get(maps(namespace, "nothing"))
    with limited.session() as other, pytest.raises(ClusterForbidden) as refused:
        other.get(maps(namespace, "nothing"))

    assert 'resources: ["configmaps"], verbs: ["get"]' in str(refused.value)
    assert f"namespace: {namespace}" in str(refused.value)


def test_an_api_that_has_only_just_come_back_is_asked_again_for_what_it_forbids(
    api, namespace, monkeypatch
):
    monkeypatch.setattr("blocks.kube.wire.Wire._lost_at", {})  # and forget it again
    limited = KubernetesCluster.named(api.url_as("nobody"))
    with limited.session() as session:
        api.go_away()
        try:
            with pytest.raises(Unreachable):
                session.get(maps(namespace, "nothing"))
        finally:
            api.come_back()

        with pytest.raises(Unreachable, match="was away a moment ago"):
            session.get(maps(namespace, "nothing"))
        with pytest.raises(Unreachable, match="was away a moment ago"):
            session.may(Asked("get", "", "configmaps", namespace=namespace))
        monkeypatch.setattr("blocks.kube.wire.STARTING_SECONDS", 0.0)
        with pytest.raises(ClusterForbidden):
            session.get(maps(namespace, "nothing"))
        assert not session.may(Asked("get", "", "configmaps", namespace=namespace))


def test_what_a_role_grants_may_be_done_and_nothing_else(api, session, namespace):
    api.allow(namespace, "reader", ("", "configmaps", "get,list"))
    session.create(maps(namespace), a_map("settings"))
    limited = KubernetesCluster.named(api.url_as("reader"))

    with limited.session() as other:
        wait_until(
            lambda: other.may(Asked("get", "", "configmaps", "", namespace)),
            "the role",
            within_seconds=10,
        )
        assert other.get(maps(namespace, "settings"))
        assert not other.may(Asked("patch", "", "configmaps", "", namespace))
        with pytest.raises(ClusterForbidden, match="patch configmaps in namespace"):
            other.patch(maps(namespace, "settings"), [])


def test_lists_are_selected_by_the_server_and_read_page_by_page(session, namespace, monkeypatch):
    monkeypatch.setattr("blocks.kube.session.PAGE", 3)
    for n in range(8):
        body = a_map(f"m{n}")
        body["metadata"]["labels"] = {"half": str(n % 2)}
        session.create(maps(namespace), body)

    half = session.objects(maps(namespace), labels="half=1")
    one = session.objects(maps(namespace), fields="metadata.name=m4")

    assert [each["metadata"]["name"] for each in half] == ["m1", "m3", "m5", "m7"]
    assert [(each["kind"], each["metadata"]["name"]) for each in one] == [("ConfigMap", "m4")]


def test_a_wait_ends_with_the_change_it_is_for(api, session, namespace):
    session.create(maps(namespace), a_map("settings", limit="5"))
    later = threading.Timer(
        0.3, api.client.patch, [maps(namespace, "settings"), {"data": {"limit": "7"}}]
    )
    later.start()

    seen = wait_for(
        session,
        maps(namespace),
        lambda found: next((o["data"]["limit"] for o in found if o["data"]["limit"] != "5"), None),
        fields="metadata.name=settings",
        within_seconds=20,
    )

    assert seen == "7"


def test_a_wait_ends_at_its_deadline(session, namespace):
    assert wait_for(session, maps(namespace), lambda _: None, within_seconds=1) is None


def test_a_wait_sees_what_is_deleted(api, session, namespace):
    made = session.create(maps(namespace), a_map("settings"))
    path = maps(namespace, "settings")
    threading.Timer(0.3, api.client.delete, [path]).start()

    def is_gone(found):
        return (
            True if made["metadata"]["uid"] not in {o["metadata"]["uid"] for o in found} else None
        )

    assert wait_for(session, maps(namespace), is_gone, within_seconds=20)


def test_a_watch_from_before_what_is_kept_begins_with_a_new_list(api, session, namespace):
    if api.kind != STAND_IN:
        pytest.skip("etcd would have to be compacted")
    session.create(maps(namespace), a_map("settings"))
    lists = []

    def until(found):
        lists.append(len(found))
        if len(lists) == 1:
            session.create(maps(namespace), a_map("more"))
            api.standin.store.compact()
            return None
        return True

    assert wait_for(session, maps(namespace), until, within_seconds=20)
    assert lists[0] < lists[-1]


def test_versions_and_kinds_are_found_by_asking(session):
    assert session.version().startswith("v1.36")
    assert session.served_version("batch", "v1", "v1beta1") == "batch/v1"
    assert session.served_version("batch", "v1beta1") == ""
    assert session.served_version("keda.sh") == ""
    assert session.resource_of("apps/v1", "StatefulSet") == "statefulsets"


def test_a_rolling_update_counts_what_is_new_and_ends(api, session, namespace):
    api.apply(deployment("web", f"{namespace}/web", replicas=3), namespace)

    out = api.wait_until_out(namespace, "web")
    pods = session.objects(f"/api/v1/namespaces/{namespace}/pods", labels="k8s-app=web")

    assert out["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == "1"
    assert len(pods) == 3
    assert "started" in session.logs(namespace, pods[0]["metadata"]["name"], LogOrder("web"))


def test_a_previous_log_is_there_only_where_there_was_a_run_before(api, session, namespace):
    api.node.images[f"{namespace}/web"] = Image(CRASHES, previous_log="panic: no database\n")
    for name in ("web", "well"):
        api.apply(deployment(name, f"{namespace}/{name}", replicas=1), namespace)

    def pod_of(name):
        pods = api.pods(namespace, **{"k8s-app": name})
        return next(p["metadata"]["name"] for p in pods if p["status"].get("containerStatuses"))

    crashed, well = (
        wait_until(lambda n=n: pod_of(n), n, within_seconds=20) for n in ("web", "well")
    )

    assert "panic" in session.logs(namespace, crashed, LogOrder("web", is_previous=True))
    with pytest.raises(ClusterRejected):
        session.logs(namespace, well, LogOrder("well", is_previous=True))


def test_scaled_to_nothing_pods_are_terminating_before_they_are_gone(api, session, namespace):
    api.apply(deployment("web", f"{namespace}/web", replicas=1), namespace)
    path = api.path("apps/v1", "deployments", namespace, "web")
    api.wait_until_out(namespace, "web")
    api.node.holds_deletions = True
    try:
        session.patch(path, [{"op": "replace", "path": "/spec/replicas", "value": 0}])
        going = wait_until(
            lambda: [
                pod
                for pod in api.pods(namespace, **{"k8s-app": "web"})
                if "deletionTimestamp" in pod["metadata"]
            ],
            "a pod that is going",
            within_seconds=20,
        )
    finally:
        api.node.holds_deletions = False
    api.client.patch(api.path("v1", "pods", namespace, going[0]["metadata"]["name"]),
                     {"metadata": {"labels": {"touched": "1"}}})  # fmt: skip

    wait_until(lambda: not api.pods(namespace, **{"k8s-app": "web"}), "none", within_seconds=20)


@pytest.mark.parametrize(("state", "ends_as"), [(SUCCEEDS, "Complete"), (FAILS, "Failed")])
def test_a_job_ends_as_its_pod_does(api, session, namespace, state, ends_as):
    api.node.images[f"{namespace}/job"] = Image(state)
    path = f"/apis/batch/v1/namespaces/{namespace}/jobs"
    containers = [{"name": "job", "image": f"{namespace}/job"}]
    template = {"spec": {"restartPolicy": "Never", "containers": containers}}
    body = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "job"},
        "spec": {"backoffLimit": 0, "template": template},
    }

    session.create(path, body)

    def end_of(found):
        told = [c for one in found for c in (one.get("status") or {}).get("conditions") or []]
        ends = {c["type"] for c in told if c["status"] == "True"} & {"Complete", "Failed"}
        return next(iter(ends), None)

    assert wait_for(session, path, end_of, within_seconds=40) == ends_as

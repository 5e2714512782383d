"""The rights of telegraf, on either Kubernetes API: what it needs, what it has, who gives it."""

import contextlib
import copy

import pytest

from recovery.errors import Refused
from recovery.secrecy.secret import isolated_registry
from recovery.stage import PlainStage
from tasks.metrics.granting import subjects_of
from tasks.metrics.order import rights_order
from tasks.metrics.rights import BEYOND, NEEDED, RULES, still_beyond, still_missing
from tests.integration.datasource_runs import Datasources
from tests.integration.metrics_runs import POINTS, Metrics
from tests.lab.grafana_api import stand_in_grafana
from tests.lab.kubernetes_api import deployment
from tests.lab.kubernetes_client import ApiSaidNo
from tests.lab.kubernetes_node import Image
from tests.lab.kubernetes_roles import ARE_RECORDED
from tests.lab.processes import wait_until

RBAC = "rbac.authorization.k8s.io/v1"
ROLES = f"/apis/{RBAC}/clusterroles"
BINDINGS = f"/apis/{RBAC}/clusterrolebindings"
GATHERED = "rbac.authorization.k8s.io/aggregate-view-telegraf"
FORBIDDEN = (
    "2021-08-25T23:33:35Z E! [inputs.prometheus] Unable to watch resources: kubernetes api: "
    "Failure 403 pods is forbidden\n"
)
pytestmark = pytest.mark.timeout(120)


@pytest.fixture(autouse=True)
def journal(tmp_path, monkeypatch):
    monkeypatch.setenv("RECOVER_JOURNAL", str(tmp_path / "journal.sqlite"))
    monkeypatch.setenv("RECOVER_WORK_DIR", str(tmp_path / "work"))
    monkeypatch.setattr("recovery.declare.PlainStage", lambda: PlainStage((0.1, 0.2)))
    with isolated_registry():
        yield


@pytest.fixture
def api(either_kubernetes):
    yield either_kubernetes
    for path in (ROLES, BINDINGS):
        for name in ("telegraf-metrics", "influx:cluster:viewer", "influx:telegraf"):
            with contextlib.suppress(ApiSaidNo):
                either_kubernetes.client.delete(f"{path}/{name}")
        with contextlib.suppress(ApiSaidNo):
            either_kubernetes.client.delete(f"{path}/influx:telegraf:viewer")


@pytest.fixture
def metrics(influxdb, tmp_path, api):
    """A Grafana, and a namespace with a telegraf that is denied what it asks for."""
    namespace = api.namespace("telegraf")
    name = f"{namespace}/telegraf-prom"
    api.node.images[name] = Image(log=FORBIDDEN)
    api.apply(deployment("telegraf-prom", name, replicas=1), namespace)
    api.apply(of_each_node("telegraf-ds", name), namespace)
    api.wait_until_out(namespace, "telegraf-prom")
    database = influxdb.create_database("rights")
    influxdb.write(database, *POINTS)
    with stand_in_grafana() as lab:
        lab.role = "Admin"
        sources = Datasources(lab, influxdb, database, tmp_path)
        sources.add()
        given = {
            "cluster": api.url_for("restore-grafana-metrics", namespace),
            "namespace": namespace,
            "dashboards": [],
            "within_seconds": 30,
        }
        yield Metrics(sources, given)


def of_each_node(name, image):
    """A DaemonSet."""
    body = {**deployment(name, image), "kind": "DaemonSet"}
    for field in ("replicas", "progressDeadlineSeconds"):
        del body["spec"][field]
    return body


def asked(metrics, look):
    order = rights_order(
        (metrics.cluster["cluster"], metrics.cluster["namespace"]), (), (), 1, narrow=False
    )
    with order.cluster.session() as session:
        return look(session, order)


def put_the_old_instructions(api, metrics):
    """The three objects of the platform's own instructions, with `resources: ["*"]`."""
    order = rights_order(("in-cluster:", metrics.cluster["namespace"]), (), (), 1, narrow=False)
    viewer = {
        "metadata": {"name": "influx:cluster:viewer", "labels": {GATHERED: "true"}},
        "rules": [{"apiGroups": [""], "resources": ["*"], "verbs": ["get", "list"]}],
    }
    gathering = {"clusterRoleSelectors": [{"matchLabels": {GATHERED: "true"}}]}
    telegraf = {"metadata": {"name": "influx:telegraf"}, "aggregationRule": gathering, "rules": []}
    binding = {
        "metadata": {"name": "influx:telegraf:viewer"},
        "roleRef": {"apiGroup": RBAC[:-3], "kind": "ClusterRole", "name": "influx:telegraf"},
        "subjects": subjects_of(order),
    }
    for path, kind, body in (
        (ROLES, "ClusterRole", viewer),
        (ROLES, "ClusterRole", telegraf),
        (BINDINGS, "ClusterRoleBinding", binding),
    ):
        api.client.post(path, {"apiVersion": RBAC, "kind": kind, **copy.deepcopy(body)})
    wait_until(lambda: asked(metrics, still_beyond), "the roles to be gathered", within_seconds=20)


def test_telegraf_gets_what_it_needs_and_no_more_and_undo_takes_it_back(api, metrics):
    assert len(asked(metrics, still_missing)) == 2 * len(NEEDED)

    ended = metrics.run()

    assert ended.error is None, ended.error
    assert asked(metrics, still_missing) == []
    assert asked(metrics, still_beyond) == []
    assert ended.result.rights[0] == "it may do what it needs"
    assert ended.result.rights[1].startswith("deployment/telegraf-prom was restarted")
    assert any(
        "a right is missing: [inputs.prometheus]" in one for one in ended.result.left_to_person
    )
    assert not any("cannot be read" in one for one in ended.result.left_to_person)
    again = metrics.run()
    assert again.result.rights == [], again.error
    undone = metrics.undo(ended)
    assert undone.error is None, undone.error
    assert len(asked(metrics, still_missing)) == 2 * len(NEEDED)


def test_the_old_instructions_are_told_and_narrowed_where_that_was_asked_for(api, metrics):
    put_the_old_instructions(api, metrics)
    before = api.client.get(f"{ROLES}/influx:cluster:viewer")["rules"]

    told = metrics.run()
    assert told.error is None, told.error
    assert "telegraf-prom: list secrets" in told.result.rights[0]
    assert len(asked(metrics, still_beyond)) >= 2 * (len(BEYOND) - 1)
    metrics.cluster["cluster"] = api.url  # to narrow wants more than the Role has: to escalate
    narrowed = metrics.run(narrow=True)

    assert narrowed.error is None, narrowed.error
    assert asked(metrics, still_beyond) == []
    assert asked(metrics, still_missing) == []
    assert api.client.get(f"{ROLES}/influx:cluster:viewer")["rules"] == RULES
    undone = metrics.undo(narrowed, narrow=True)
    assert undone.error is None, undone.error
    assert api.client.get(f"{ROLES}/influx:cluster:viewer")["rules"] == before


@pytest.mark.skipif(ARE_RECORDED, reason="a right that it is not to have")
def test_who_may_not_put_wide_rights_back_is_not_let_narrow_them(api, metrics):
    put_the_old_instructions(api, metrics)

    ended = metrics.run(narrow=True)

    assert isinstance(ended.error, Refused), ended.error
    assert "may not escalate clusterroles" in str(ended.error)


def test_a_role_that_others_have_too_is_told_and_left(api, metrics):
    metrics.cluster["cluster"] = api.url  # as above
    put_the_old_instructions(api, metrics)
    path = f"{BINDINGS}/influx:telegraf:viewer"
    subjects = [
        *api.client.get(path)["subjects"],
        {"apiGroup": RBAC[:-3], "kind": "User", "name": "kim"},
    ]
    api.client.patch(path, {"subjects": subjects})

    ended = metrics.run(narrow=True, within_seconds=2)

    assert "beyond: telegraf-ds: get secrets" in str(ended.error)
    assert api.client.get(f"{ROLES}/influx:cluster:viewer")["rules"] != RULES


def test_a_role_that_others_have_in_one_namespace_is_told_and_left(api, metrics):
    metrics.cluster["cluster"] = api.url  # as above
    put_the_old_instructions(api, metrics)
    body = {
        "metadata": {"name": "kim"},
        "roleRef": {"apiGroup": RBAC[:-3], "kind": "ClusterRole", "name": "influx:cluster:viewer"},
        "subjects": [{"apiGroup": RBAC[:-3], "kind": "User", "name": "kim"}],
    }
    path = api.path(RBAC, "rolebindings", api.namespace("kims"))
    api.client.post(path, body)

    ended = metrics.run(narrow=True, within_seconds=2)

    api.client.delete(f"{path}/kim")  # or the role would be kim's in the tests after this one too
    assert "beyond: telegraf-ds: get secrets" in str(ended.error)
    assert api.client.get(f"{ROLES}/influx:cluster:viewer")["rules"] != RULES


def test_a_role_of_ours_that_lacks_a_verb_keeps_what_else_it_gives(api, metrics):
    own = {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}
    before = [own, {**RULES[0], "verbs": ["get", "list"]}]
    api.client.post(ROLES, {"metadata": {"name": "telegraf-metrics"}, "rules": before})

    ended = metrics.run()

    assert ended.error is None, ended.error
    assert asked(metrics, still_missing) == []
    assert api.client.get(f"{ROLES}/telegraf-metrics")["rules"] == [*before, *RULES]
    undone = metrics.undo(ended)
    assert undone.error is None, undone.error
    assert api.client.get(f"{ROLES}/telegraf-metrics")["rules"] == before


def test_an_account_that_may_not_give_rights_is_told_which_rule_would(api, metrics):
    who = f"{metrics.cluster['namespace']}-user"
    looks = [
        {"apiGroups": ["authorization.k8s.io"], "resources": ["*"], "verbs": ["create"]},
        {"apiGroups": [RBAC[:-3]], "resources": ["*"], "verbs": ["get", "list"]},
    ]
    api.client.post(ROLES, {"metadata": {"name": who}, "rules": looks})
    api.client.post(BINDINGS, {
        "metadata": {"name": who},
        "roleRef": {"apiGroup": RBAC[:-3], "kind": "ClusterRole", "name": who},
        "subjects": [{"apiGroup": RBAC[:-3], "kind": "User", "name": who}],
    })  # fmt: skip

    ended = metrics.run(cluster=api.url_as(who))

    assert isinstance(ended.error, Refused), ended.error
    assert "may not create clusterroles" in str(ended.error)
    assert "kind: ClusterRole" in str(ended.error)
    assert asked(metrics, still_missing) != []


def test_a_binding_of_this_name_that_leads_elsewhere_is_left_alone(api, metrics):
    ref = {"apiGroup": RBAC[:-3], "kind": "ClusterRole", "name": "view"}
    api.client.post(BINDINGS, {"metadata": {"name": "telegraf-metrics"}, "roleRef": ref})

    ended = metrics.run()

    assert "is there and leads to view" in str(ended.error)
    assert asked(metrics, still_missing) != []

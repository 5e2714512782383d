"""Metrics that Grafana does not show: dashboards migrated, asked of a real InfluxDB, put back."""

import copy
import json

import pytest

from recovery.errors import BadInput, CommandFailed, Refused
from recovery.plan import as_markdown
from recovery.secrecy.secret import isolated_registry
from recovery.stage import PlainStage
from tests.integration.datasource_runs import Datasources
from tests.integration.metrics_runs import (
    CPU,
    CPU_TO_BE,
    PODS_TO_BE,
    POINTS,
    Metrics,
    vantiq_resources,
)
from tests.lab.grafana_api import stand_in_grafana


@pytest.fixture(autouse=True)
def journal(tmp_path, monkeypatch):
    monkeypatch.setenv("RECOVER_JOURNAL", str(tmp_path / "journal.sqlite"))
    monkeypatch.setenv("RECOVER_WORK_DIR", str(tmp_path / "work"))
    monkeypatch.setattr("recovery.declare.PlainStage", lambda: PlainStage((0.1, 0.2)))
    with isolated_registry():
        yield


@pytest.fixture
def metrics(influxdb, tmp_path):
    with stand_in_grafana() as lab:
        lab.role = "Admin"
        database = influxdb.create_database("kubernetes")
        influxdb.write(database, *POINTS, seconds_ago=60)
        sources = Datasources(lab, influxdb, database, tmp_path)
        sources.add()
        yield Metrics(sources)


def test_dashboards_of_docker_ask_for_containerd_and_show_rows(metrics):
    metrics.put()
    before = copy.deepcopy(metrics.dashboard())

    planned = metrics.run({"plan_only": True})
    assert metrics.saves() == []
    ended = metrics.run()

    assert ended.error is None, ended.error
    assert ended.result.migrated == ["'Vantiq Resources': 4 of 4 new queries return rows"]
    now = metrics.dashboard()
    (cpu,) = now["panels"][0]["panels"][0]["targets"]
    assert (cpu["query"], cpu["alias"]) == (CPU_TO_BE, "$tag_pod_name: $col")
    (memory,) = now["panels"][1]["targets"]
    assert memory["measurement"] == "kubernetes_pod_container"
    assert memory["select"][0][0]["params"] == ["memory_working_set_bytes"]
    assert memory["tags"][0]["key"] == "namespace"
    assert now["panels"][2] == before["panels"][2]
    assert now["templating"]["list"][1]["query"] == PODS_TO_BE
    assert now["templating"]["list"][1]["definition"] == PODS_TO_BE
    assert now["version"] == before["version"] + 1
    shown = as_markdown(planned.plan)
    assert f"- {CPU}" in shown
    assert f"+ {CPU_TO_BE}" in shown


def test_a_second_run_changes_nothing(metrics):
    metrics.put()
    assert metrics.run().error is None
    saves = metrics.saves()

    ended = metrics.run(dashboards=["all"])

    assert ended.error is None, ended.error
    assert ended.result.migrated == []
    assert metrics.saves() == saves


@pytest.mark.parametrize("is_kept_here", [True, False])
def test_undo_saves_each_dashboard_as_it_was(metrics, is_kept_here, tmp_path, monkeypatch):
    metrics.put()
    metrics.put(vantiq_resources("second", title="Second", id=2))
    before = {uid: copy.deepcopy(metrics.dashboard(uid)) for uid in ("vantiq", "second")}
    ended = metrics.run(dashboards=["all"])
    assert ended.error is None, ended.error
    if not is_kept_here:
        monkeypatch.setenv("RECOVER_WORK_DIR", str(tmp_path / "elsewhere"))

    undone = metrics.undo(ended, dashboards=["all"])

    assert undone.error is None, undone.error
    for uid, dashboard in before.items():
        assert metrics.dashboard(uid) == {**dashboard, "version": 6}


def test_undo_leaves_alone_what_somebody_saved_since(metrics):
    metrics.put()
    ended = metrics.run()
    metrics.dashboard()["version"] += 1
    metrics.dashboard()["title"] = "Ours"

    undone = metrics.undo(ended)

    assert "somebody saved 'Vantiq Resources' since" in str(undone.error)
    assert metrics.dashboard()["title"] == "Ours"


def test_a_dashboard_that_somebody_saved_after_the_plan_is_not_written_over(metrics):
    metrics.put()
    planned = metrics.run({"plan_only": True})
    metrics.dashboard()["panels"][1]["title"] = "Ours"
    metrics.dashboard()["version"] = 9

    ended = metrics.run({"approve": planned.plan.hash})

    assert ended.error is not None
    assert metrics.saves() == []
    assert metrics.dashboard()["version"] == 9


def test_a_query_without_a_counterpart_is_named_and_left_only_where_that_is_accepted(metrics):
    one = vantiq_resources()
    query = 'SELECT last("rx_bytes") FROM "docker_container_net"'
    net = {"refId": "B", "rawQuery": True, "query": query}
    one["panels"][1]["targets"].append(net)
    metrics.put(one)

    refused = metrics.run()
    ended = metrics.run(accept=["no-counterpart"])

    assert "panel 3 'Memory', query B: the field rx_bytes of docker_container_net" in str(
        refused.error
    )
    assert ended.error is None, ended.error
    assert metrics.dashboard()["panels"][1]["targets"][1] == net


def test_queries_that_would_return_nothing_are_refused_before_anything_is_saved(metrics, influxdb):
    influxdb.create_database("kubernetes")
    metrics.put()

    refused = metrics.run()
    ended = metrics.run(accept=["empty-queries"])

    assert "4 of the new queries return nothing" in str(refused.error)
    assert ended.error is None, ended.error
    assert ended.result.found == [
        "kubernetes_pod_container is missing", "nginx_ingress_controller_requests is missing",
    ]  # fmt: skip
    assert ended.result.migrated == ["'Vantiq Resources': 0 of 4 new queries return rows"]


def test_provisioned_dashboards_are_refused_by_name(metrics):
    metrics.put(vantiq_resources(), provisioned=True)

    refused = metrics.run()
    left = metrics.run(accept=["provisioned"])

    assert "'Vantiq Resources' (vantiq)" in str(refused.error)
    assert left.error is None, left.error
    assert metrics.saves() == []


def test_a_data_source_that_grafana_does_not_reach_comes_first(metrics):
    metrics.put()
    metrics.sources.stored()["secrets"] = {"password": "wr0ng-0f-the-lab"}

    ended = metrics.run()

    assert isinstance(ended.error, Refused)
    assert "Grafana does not reach it" in str(ended.error)
    assert "add-grafana-datasource" in str(ended.error)


@pytest.mark.parametrize(
    ("given", "error", "told"),
    [
        ({"dashboards": ["nowhere"]}, BadInput, "no dashboard of uid 'nowhere'"),
        ({"dashboards": ["all", "x"]}, BadInput, "all is given beside uids"),
        ({"datasource": "Other"}, Refused, "there is no data source 'Other'"),
        ({"datasource": " "}, BadInput, "it is empty"),
        ({"fresh_within_seconds": 0}, BadInput, "at least 1"),
        ({"accept": ["everything"]}, BadInput, "Known: no-counterpart"),
    ],
)
def test_bad_input_is_named(metrics, given, error, told):
    metrics.put()

    ended = metrics.run(**given)

    assert isinstance(ended.error, error), ended.error
    assert told in str(ended.error)


def test_old_points_and_points_from_the_future_are_told_apart(metrics, influxdb):
    database = influxdb.create_database("kubernetes")
    influxdb.write(database, POINTS[0], seconds_ago=7200)
    influxdb.write(database, POINTS[1], seconds_ago=-600)

    ended = metrics.run(dashboards=[])

    assert ended.error is None, ended.error
    old, future = ended.result.found
    assert old.startswith("kubernetes_pod_container is stale: its newest point is 72")
    assert future.startswith("nginx_ingress_controller_requests is in-the-future")
    assert any("synchronise-clocks" in one for one in ended.result.left_to_person)


def test_missing_execution_times_lead_to_the_collector(metrics, influxdb):
    influxdb.create_database("system")
    without = metrics.run(dashboards=[])
    influxdb.write("system", "resources_requests_percentile,resource=collaborationtypes p=1")

    with_times = metrics.run(dashboards=[])

    assert any("metrics-collector" in one for one in without.result.left_to_person)
    assert with_times.result.left_to_person == []
    influxdb.execute('DROP DATABASE "system"')


def test_a_query_that_influxdb_refuses_is_no_answer_without_rows(metrics):
    one = vantiq_resources()
    one["panels"][1]["targets"] = []
    one["panels"][0]["panels"][0]["targets"][0]["query"] = CPU.replace("mean(", "nonsense(")
    metrics.put(one)

    ended = metrics.run()

    assert isinstance(ended.error, Refused | CommandFailed)
    assert "undefined function nonsense()" in str(ended.error)


def test_real_dashboards_of_docker_are_migrated_where_there_is_a_counterpart(
    metrics, recover_test_data
):
    files = sorted((recover_test_data / "dashboards").glob("*.json"))
    if not files:
        pytest.skip("RECOVER_TEST_DATA: it has no dashboards")
    for n, path in enumerate(files, 1):
        one = json.loads(path.read_text())
        metrics.put({**one, "id": n, "uid": f"real{n}", "version": 1})

    refused = metrics.run(dashboards=["all"])
    ended = metrics.run(dashboards=["all"], accept=["no-counterpart"])

    assert "queries have no counterpart under containerd" in str(refused.error)
    assert ended.error is None, ended.error
    cpu = metrics.dashboard("real1")["rows"][0]["panels"][0]["targets"][0]
    assert cpu["measurement"] == "kubernetes_pod_container"
    assert cpu["select"][0][-1] == {"type": "math", "params": [" / 10000000"]}
    assert metrics.undo(ended, dashboards=["all"], accept=["no-counterpart"]).error is None
    for n, path in enumerate(files, 1):
        assert metrics.dashboard(f"real{n}") == {
            **json.loads(path.read_text()), "id": n, "uid": f"real{n}", "version": 3,
        }  # fmt: skip

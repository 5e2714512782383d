"""Queries from docker to containerd: what they become, and what is not guessed."""

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recovery.errors import BadInput, UnreadableOutput
from tasks.metrics.asking import askable, is_askable, values_of
from tasks.metrics.built_queries import migrated_target, rendered
from tasks.metrics.containerd import NoCounterpart, legend
from tasks.metrics.dashboard_queries import migrated_dashboard
from tasks.metrics.influx import read_series
from tasks.metrics.influxql import words_of, written
from tasks.metrics.links import Freshness, judged
from tasks.metrics.order import metrics_order, rights_order
from tasks.metrics.raw_queries import migrated_query
from tasks.metrics.rights import gives_beyond
from tasks.metrics.telegraf_log import errors_in
from tests.integration.metrics_runs import (
    CPU,
    CPU_TO_BE,
    MEMORY,
    PODS,
    PODS_TO_BE,
    vantiq_resources,
)

# ruff: noqa: S608 (queries are what is tested here)

POD = "kubernetes_pod_container"
MONGODB_PODS = (
    'show tag values with key = "io.kubernetes.pod.name" where "io.kubernetes.pod.name"'
    " =~ /^mongodb/ AND \"io.kubernetes.pod.namespace\" = '$installation'"
)
MONGODB_PODS_TO_BE = (
    f'show tag values from "{POD}" with key = "pod_name" where "pod_name" =~ /^mongodb/ '
    "AND \"namespace\" = '$installation'"
)
RATES = (
    "SELECT non_negative_derivative(mean(usage_percent), 1s) / 2, count(usage_percent) "
    'FROM "autogen"."docker_container_cpu" WHERE cpu = \'cpu-total\' AND $timeFilter'
)
RATES_TO_BE = (
    "SELECT non_negative_derivative(mean(cpu_usage_nanocores), 1s) / 10000000 / 2, "
    f'count(cpu_usage_nanocores) FROM "autogen"."{POD}" WHERE $timeFilter'
)


@pytest.mark.parametrize(
    ("query", "becomes"),
    [
        (CPU, CPU_TO_BE),
        (PODS, PODS_TO_BE),
        (
            'show tag values with key = "installation"',
            f'show tag values from "{POD}" with key = "namespace"',
        ),
        (MONGODB_PODS, MONGODB_PODS_TO_BE),
        (RATES, RATES_TO_BE),
        (
            "SELECT usage_percent FROM docker_container_cpu WHERE $timeFilter AND release =~ /x/",
            f"SELECT cpu_usage_nanocores / 10000000 FROM {POD} WHERE $timeFilter",
        ),
        (
            'SELECT max("usage") FROM "docker_container_mem" WHERE (component = \'\')',
            f'SELECT max("memory_working_set_bytes") FROM "{POD}"',
        ),
        ('SELECT mean("m") FROM (SELECT max("usage") AS "m" FROM "docker_container_mem")', None),
        ('SELECT mean("value") / 10 FROM "cpu" WHERE "host" =~ /a\\/b/', "same"),
        ("show tag values from cpu with key = host", "same"),
        ('SELECT "usage_percent" FROM "docker_container_mem"', None),
        ("SELECT n_containers_running FROM docker", None),
        ("SELECT usage FROM docker_container_mem WHERE engine_host = 'a'", None),
        ("SELECT usage FROM docker_container_mem WHERE component = 'other'", None),
        ("SELECT usage FROM docker_container_mem WHERE component = '' OR host = 'a'", None),
        ("SELECT usage FROM docker_container_mem WHERE container_name = 'k8s_a_b'", None),
        ("SELECT usage FROM docker_container_mem, cpu", None),
        ("SELECT usage FROM cpu WHERE \"io.kubernetes.pod.name\" = 'a'", None),
    ],
)
def test_a_query_becomes_what_the_runbook_says_or_is_not_guessed(query, becomes):
    if becomes is None:
        with pytest.raises(NoCounterpart):
            migrated_query(query)
        return

    new = migrated_query(query)

    assert new == (query if becomes == "same" else becomes)
    assert migrated_query(new) == new


@given(st.text(max_size=200))
def test_the_words_of_any_text_are_that_text(text):
    assert written(words_of(text)) == text


def test_a_query_of_the_editor_becomes_one_that_grafana_renders_alike():
    target = {
        "measurement": "docker_container_cpu",
        "policy": "default",
        "select": [[{"type": "field", "params": ["usage_percent"]}, {"type": "mean"},
                    {"type": "math", "params": [" / 2"]}, {"type": "alias", "params": ["x"]}]],
        "tags": [
            {"key": "component", "operator": "=", "value": ""},
            {"key": "io.kubernetes.pod.name::tag", "operator": "=~", "value": "/^$pod$/",
             "condition": "AND"},
            {"key": "container_name", "operator": "=~", "value": "/^k8s_mongodb_/",
             "condition": "AND"},
        ],
        "groupBy": [{"type": "time", "params": ["$interval"]},
                    {"type": "tag", "params": ["io.kubernetes.pod.name"]},
                    {"type": "fill", "params": ["null"]}],
        "alias": "[[tag_io.kubernetes.pod.name]]",
    }  # fmt: skip
    before = copy.deepcopy(target)

    new = migrated_target(target)

    assert target == before
    assert new["alias"] == "$tag_pod_name"
    assert rendered(new) == (
        f'SELECT mean("cpu_usage_nanocores") / 10000000 / 2 AS "x" FROM "{POD}" WHERE '
        '"pod_name::tag" =~ /^$pod$/ AND "container_name" =~ /^mongodb/ AND $timeFilter '
        'GROUP BY time($__interval), "pod_name" fill(null)'
    )
    assert migrated_target(new) == new


def test_a_count_of_the_editor_is_not_divided():
    counted = {"type": "count", "params": []}
    field = {"type": "field", "params": ["usage_percent"]}
    new = migrated_target({"measurement": "docker_container_cpu", "select": [[field, counted]]})

    assert [part["type"] for part in new["select"][0]] == ["field", "count"]


def test_a_condition_beside_an_or_is_not_dropped():
    tags = [{"key": "component", "value": ""}, {"key": "host", "value": "a", "condition": "OR"}]

    with pytest.raises(NoCounterpart, match="beside an OR"):
        migrated_target({**MEMORY, "tags": tags})


def test_every_place_of_a_dashboard_is_looked_through_and_the_dashboard_is_left_alone():
    dashboard = vantiq_resources()
    folded = dashboard["panels"]
    dashboard["rows"] = [{"panels": [copy.deepcopy(folded[1])]}]
    dashboard["annotations"] = {"list": [
        {"name": "old", "query": "SELECT usage FROM docker_container_mem"},
        {"name": "new", "target": {"rawQuery": True,
                                   "query": "SELECT usage FROM docker_container_mem"}},
        {"name": "lost", "query": "SELECT x FROM docker_container_net"},
    ]}  # fmt: skip
    before = copy.deepcopy(dashboard)

    migrated = migrated_dashboard(dashboard)

    assert dashboard == before
    assert [change.at for change in migrated.changes] == [
        "panel 2 'CPU utilization', query A",
        "panel 3 'Memory', query A",
        "annotation 'new'",
        "variable 'installation'",
        "variable 'pod'",
        "annotation 'old'",
    ]
    assert migrated.dashboard["rows"][0]["panels"][0] == migrated.dashboard["panels"][1]
    assert [left.at for left in migrated.left] == ["annotation 'lost'"]
    assert migrated_dashboard(migrated.dashboard).changes == []


def test_a_list_of_installations_is_left_where_nothing_is_of_docker():
    query = 'show tag values with key = "installation"'
    one = {"name": "installation", "type": "query", "query": query}

    assert migrated_dashboard({"templating": {"list": [one]}}).changes == []


def test_a_variable_of_newer_grafanas_holds_its_query_a_level_deeper():
    one = {"name": "pod", "type": "query", "query": {"query": PODS, "refId": "A"}}

    migrated = migrated_dashboard({"templating": {"list": [one]}})

    assert migrated.dashboard["templating"]["list"][0]["query"]["query"] == PODS_TO_BE


def test_legends_follow_their_tags():
    assert legend("[[tag_io.kubernetes.pod.name]]: $col") == "$tag_pod_name: $col"
    assert legend("$tag_io.kubernetes.container.name") == "$tag_container_name"
    assert legend("plain") == "plain"


def test_variables_are_put_in_as_grafana_would():
    values = values_of(vantiq_resources())

    assert values == {"installation": "prod"}
    asked = askable("x =~ /^$pod$/ AND n = '$installation' AND $timeFilter / 10", values)
    assert asked == "x =~ /^.*$/ AND n = 'prod' AND time > now() - 1h / 10"
    assert not is_askable(askable("x = '[[other]]'", values))


@pytest.mark.parametrize(
    ("age", "freshness"),
    [(0, "fresh"), (180, "fresh"), (181, "stale"), (-30, "fresh"), (-61, "in-the-future")],
)
def test_the_newest_point_tells_how_a_measurement_stands(age, freshness):
    assert judged("cpu", age, 180).freshness is Freshness(freshness)


def test_an_answer_of_influxdb_is_read_and_another_is_not():
    said = {"results": [{"statement_id": 0, "series": [
        {"name": "measurements", "columns": ["name"], "values": [["cpu"], ["mem"]]}]}]}  # fmt: skip

    assert read_series("q", said)[0].column("name") == ["cpu", "mem"]
    assert read_series("q", {"results": [{"statement_id": 0}]}) == []
    for wrong in (None, {}, {"results": [{"series": [{}]}]}):
        with pytest.raises(UnreadableOutput):
            read_series("q", wrong)


def test_errors_of_telegraf_are_told_once_the_newest_first_with_what_they_mean():
    log = (
        "2021-08-25T23:33:34Z I! Loaded inputs: kubernetes\n"
        "2021-08-25T23:33:35Z E! [inputs.prometheus] Unable to watch: Failure 403\n"
        "2021-08-25T23:33:36Z E! [inputs.prometheus] Unable to watch: Failure 403\n"
        "2021-08-25T23:33:37Z E! [outputs.influxdb] 500: write: no space left on device\n"
        "2021-08-25T23:33:38Z E! [agent] something else\n"
    )

    assert errors_in(log) == [
        "[agent] something else",
        "the volume of InfluxDB is full: [outputs.influxdb] 500: write: no space left on device",
        "a right is missing: [inputs.prometheus] Unable to watch: Failure 403",
    ]


@pytest.mark.parametrize(
    ("rule", "is_beyond"),
    [
        ({"apiGroups": [""], "resources": ["*"], "verbs": ["get"]}, True),
        ({"apiGroups": ["*"], "resources": ["secrets"], "verbs": ["*"]}, True),
        ({"apiGroups": [""], "resources": ["*/exec"], "verbs": ["create"]}, True),
        ({"apiGroups": [""], "resources": ["pods", "nodes"], "verbs": ["*"]}, False),
        ({"apiGroups": ["apps"], "resources": ["*"], "verbs": ["*"]}, False),
        ({"nonResourceURLs": ["/metrics"], "verbs": ["get"]}, False),
    ],
)
def test_rules_that_give_more_than_is_needed_are_known(rule, is_beyond):
    assert gives_beyond([rule]) is is_beyond


def test_no_cluster_means_that_no_rights_are_looked_at():
    assert rights_order(("", "shared"), (), (), 1, narrow=False) is None
    with pytest.raises(BadInput, match="deployment/NAME"):
        rights_order(("in-cluster:", "shared"), (), ("pod/telegraf",), 1, narrow=False)
    with pytest.raises(BadInput, match="Known: no-counterpart"):
        metrics_order(("http://g?token_env=X", "I"), (), (), 1, ["x"])

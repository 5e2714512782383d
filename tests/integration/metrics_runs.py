"""Running restore-grafana-metrics in this process, and the dashboards it is run on."""

from dataclasses import dataclass, field

import flows.metrics  # noqa: F401 (declares the recovery)
from recovery.declare import RECOVERIES, run_plainly
from recovery.run import Options
from tests.integration.datasource_runs import NAME, Datasources

CPU = (
    'SELECT mean("usage_percent") AS "cpu usage" FROM "docker_container_cpu" WHERE '
    '("io.kubernetes.pod.name" =~ /^$pod$/ AND "io.kubernetes.pod.namespace" =~ /^$installation$/ '
    "AND component = '' and container_name =~ /^k8s_vantiq_vantiq/) AND $timeFilter "
    'GROUP BY time($__interval), "io.kubernetes.pod.name" fill(none)'
)
CPU_TO_BE = (
    'SELECT mean("cpu_usage_nanocores") / 10000000 AS "cpu usage" FROM "kubernetes_pod_container" '
    'WHERE ("pod_name" =~ /^$pod$/ AND "namespace" =~ /^$installation$/ '
    "AND container_name =~ /^vantiq/) AND $timeFilter "
    'GROUP BY time($__interval), "pod_name" fill(none)'
)
PODS = (
    "show tag values with key = \"io.kubernetes.pod.name\" where component = 'vantiq-server' "
    "AND release =~ /^vantiq-$installation$/"
)
PODS_TO_BE = (
    'show tag values from "kubernetes_pod_container" with key = "pod_name" where '
    "pod_name =~ /vantiq-/"
)
MEMORY = {
    "refId": "A",
    "measurement": "docker_container_mem",
    "policy": "default",
    "select": [[{"type": "field", "params": ["usage"]}, {"type": "mean", "params": []}]],
    "tags": [
        {"key": "io.kubernetes.pod.namespace", "operator": "=~", "value": "/^$installation$/"}
    ],
    "groupBy": [{"type": "time", "params": ["$__interval"]}, {"type": "fill", "params": ["null"]}],
}
VANTIQ = "container_name=vantiq,namespace=prod,pod_name=vantiq-0"
POINTS = (
    f"kubernetes_pod_container,{VANTIQ} cpu_usage_nanocores=25i,memory_working_set_bytes=1000i",
    "nginx_ingress_controller_requests,host=a counter=1",
)


def vantiq_resources(uid="vantiq", **fields):
    """A dashboard like the one of the platform, cut down to what is migrated."""
    cpu = {"id": 2, "title": "CPU utilization", "type": "graph",
           "targets": [{"refId": "A", "rawQuery": True, "query": CPU,
                        "alias": "[[tag_io.kubernetes.pod.name]]: $col"}]}  # fmt: skip
    return {
        "id": 1,
        "uid": uid,
        "title": "Vantiq Resources",
        "version": 4,
        "panels": [
            {"id": 1, "type": "row", "panels": [cpu]},
            {"id": 3, "title": "Memory", "type": "graph", "targets": [MEMORY]},
            {"id": 4, "title": "Rate", "type": "graph", "targets": [
                {"refId": "A", "rawQuery": True, "query": "SELECT count(counter) FROM "
                 "nginx_ingress_controller_requests WHERE $timeFilter"}]},
        ],
        "templating": {"list": [
            {"name": "installation", "type": "query", "query":
             'show tag values with key = "installation"', "current": {"value": "prod"}},
            {"name": "pod", "type": "query", "query": PODS, "definition": PODS,
             "current": {"value": ["$__all"]}},
        ]},
        **fields,
    }  # fmt: skip


@dataclass
class Metrics:
    """A Grafana with dashboards, and the InfluxDB behind it."""

    sources: Datasources
    cluster: dict = field(default_factory=dict)

    @property
    def lab(self):
        return self.sources.lab

    @property
    def parameters(self):
        return {
            "grafana_url": self.sources.grafana_url,
            "datasource": NAME,
            "dashboards": ["vantiq"],
            "within_seconds": 20,
            **self.cluster,
        }

    def run(self, options=None, **parameters):
        declared = RECOVERIES["restore-grafana-metrics"]
        given = {name: default for name, (_, default) in declared.parameters.items()}
        given.update(self.parameters)
        return run_plainly(declared, {**given, **parameters}, Options(**(options or {})))

    def undo(self, ended, **parameters):
        options = {"resume": ended.recovery_id, "undo_by": "kim", "break_glass": "a test"}
        return self.run(options, **parameters)

    def put(self, dashboard=None, **meta):
        """Put a dashboard there, as it was saved without the API."""
        one = dashboard or vantiq_resources()
        self.lab.dashboards[one["uid"]] = {
            "meta": {"folderUid": "", "provisioned": False, **meta},
            "dashboard": one,
        }
        return one

    def dashboard(self, uid="vantiq"):
        return self.lab.dashboards[uid]["dashboard"]

    def saves(self):
        return [one for one in self.lab.requests if one.startswith("POST /api/dashboards")]

"""Grafana in pods: where its file lies, and what leads there."""

import pytest

from recovery.errors import BadInput
from tasks.grafana.migration import source_file
from tasks.grafana.mysql_in_pod import MysqlInPod
from tasks.grafana.pods import grafana_pods
from tasks.grafana.reader_pod import mount_of

FILE = "/var/lib/grafana/grafana.db"


@pytest.mark.parametrize(
    ("mounts", "name"),
    [
        ([], None),
        ([("/etc/grafana", "config")], None),
        ([("/var/lib/grafana", "data")], "data"),
        ([("/var/lib/", "outer"), ("/var/lib/grafana", "data")], "data"),
        ([("/var/lib/grafana/grafana.db", "file")], None),
        ([("/var/lib/graf", "other")], None),
    ],
)
def test_a_file_lies_on_the_deepest_mount_above_it(mounts, name):
    found = mount_of([{"mountPath": path, "name": one} for path, one in mounts], FILE)

    assert found.get("name") == name


def test_a_path_in_a_pod_needs_a_cluster_and_a_file():
    pods = grafana_pods("kubeconfig:///etc/k?namespace=shared&name=c", "", "deployment/grafana")

    assert source_file(f"pod:{FILE}", pods).label == f"kubernetes://c/shared/grafana pod:{FILE}"
    for wrong, of in ((f"pod:{FILE}", None), ("pod:grafana.db", pods), ("pod:/", pods)):
        with pytest.raises(BadInput, match="leads into no pod"):
            source_file(wrong, of)


def test_a_unit_of_a_host_is_no_workload_of_a_cluster():
    assert grafana_pods("", "", "deployment/grafana") is None
    with pytest.raises(BadInput, match="no workload of it"):
        grafana_pods("in-cluster:?namespace=shared", "", "systemd+ssh://u@h/grafana.service")


def test_a_database_in_a_pod_is_named_by_its_service_and_not_by_the_socket_of_one_process():
    server = MysqlInPod(host="db", user="u", database="g", unix_socket="/run/x/.s")

    assert server.label == "mysql://db:3306/g"

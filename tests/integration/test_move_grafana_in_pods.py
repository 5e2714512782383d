"""Moving a Grafana that runs in Kubernetes: its file on a claim, its MySQL behind a pod."""

import contextlib
from urllib.parse import urlsplit

import pytest

import flows.grafana  # noqa: F401 (declares the recovery)
from blocks.kube.answer import ClusterRejected
from blocks.mysql.server import _kept_sessions
from recovery.declare import RECOVERIES, run_plainly
from recovery.errors import Refused
from recovery.run import Options
from tests.integration.test_move_grafana import ACCEPT, TABLES
from tests.lab.cells import compare
from tests.lab.grafana_database import make_grafana_database, make_grafana_mysql_schema
from tests.lab.kubernetes_api import deployment
from tests.lab.kubernetes_client import ApiSaidNo
from tests.lab.kubernetes_kubelet import BUSYBOX
from tests.lab.processes import scratch_directory, wait_until

pytestmark = pytest.mark.timeout(240)
FOLDER = "/var/lib/grafana"
SLEEPS = ["sleep", "10000"]


def pod_of(name, **spec):
    body = deployment(name, BUSYBOX, replicas=1)
    pod = body["spec"]["template"]["spec"]
    pod.update(hostNetwork=True, terminationGracePeriodSeconds=0, **spec)
    pod["containers"][0]["command"] = SLEEPS
    return body


class Pods:
    """A namespace with a Grafana on a claim, and a pod that leads to MySQL."""

    def __init__(self, api, mariadb, database, folder):
        self.api, self.mariadb, self.database = api, mariadb, database
        self.source = folder / "grafana.db"
        self.namespace = api.namespace("grafana")

    def deploy(self, volume=None):
        claim = {"persistentVolumeClaim": {"claimName": "grafana"}}
        size = {"storage": "1Gi"}
        spec = {"accessModes": ["ReadWriteOnce"], "storageClassName": ""}
        name = f"{self.namespace}-grafana"
        self.api.client.post("/api/v1/persistentvolumes", {
            "metadata": {"name": name},
            "spec": {**spec, "capacity": size, "persistentVolumeReclaimPolicy": "Retain",
                     "hostPath": {"path": str(self.source.parent), "type": "Directory"},
                     "claimRef": {"namespace": self.namespace, "name": "grafana"}},
        })  # fmt: skip
        self.api.apply({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "grafana"},
            "spec": {**spec, "volumeName": name, "resources": {"requests": size}},
        }, self.namespace)  # fmt: skip
        body = pod_of("grafana", volumes=[{"name": "storage", **(volume or claim)}])
        container = body["spec"]["template"]["spec"]["containers"][0]
        container["volumeMounts"] = [{"name": "storage", "mountPath": FOLDER}]
        container["resources"] = {"limits": {"memory": "64Mi"}}
        self.api.apply(body, self.namespace)
        self.api.apply(pod_of("grafanadb-mysql"), self.namespace)
        for one in ("grafana", "grafanadb-mysql"):
            self.api.wait_until_out(self.namespace, one, within_seconds=90)
        return self

    def limit(self, megabytes):
        """Let no pod be created that may take more memory, or says nothing of it."""
        limit = {"type": "Pod", "max": {"memory": f"{megabytes}Mi"}}
        body = {"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "pods"}}
        self.api.apply({**body, "spec": {"limits": [limit]}}, self.namespace)

    @contextlib.contextmanager
    def full_quota(self):
        """A quota that the pods there are use up."""
        path = self.api.path("v1", "resourcequotas", self.namespace)
        full = {"hard": {"pods": "2"}, "used": {"pods": "2"}}
        self.api.client.post(path, {"metadata": {"name": "pods"}, "spec": {"hard": full["hard"]}})
        self.api.client.patch(f"{path}/pods/status", {"status": full})
        spec = {"containers": [{"name": "one", "image": BUSYBOX}]}
        tried = self.api.path("v1", "pods", self.namespace) + "?dryRun=All"

        def is_full():
            try:
                self.api.client.post(tried, {"metadata": {"name": "one"}, "spec": spec})
            except ApiSaidNo as refused:
                return "exceeded quota" in str(refused)
            return False

        wait_until(is_full, "the quota to be known", within_seconds=30)
        yield
        self.api.client.delete(f"{path}/pods")

    @property
    def parameters(self):
        target = self.mariadb.url(self.database).replace("127.0.0.1", "grafanadb-mysql")
        return {
            "source": f"pod:{FOLDER}/grafana.db",
            "target": target,
            "grafana": "deployment/grafana",
            "accept": ACCEPT,
            "cluster": self.api.url_for("move-grafana-to-mysql", self.namespace),
            "namespace": self.namespace,
            "mysql": "deployment/grafanadb-mysql",
        }

    def run(self, given=None, **options):
        declared = RECOVERIES["move-grafana-to-mysql"]
        defaults = {name: default for name, (_, default) in declared.parameters.items()}
        told = {**defaults, **self.parameters, **(given or {})}
        return run_plainly(declared, told, Options(**options))

    def pods(self):
        return self.api.client.items(self.api.path("v1", "pods", self.namespace))

    def differences(self):
        with self.mariadb.connect(self.database) as connection:
            return compare(self.source, connection, TABLES, tolerate=ACCEPT)

    def contents(self):
        tables = [n for (n,) in self.mariadb.execute("SHOW TABLES", database=self.database)]
        named = ", ".join(f"`{name}`" for name in tables)
        return self.mariadb.execute(f"CHECKSUM TABLE {named}", database=self.database)


@pytest.fixture
def pods(pods_kubernetes, mariadb, mariadb_url, tmp_path, monkeypatch):
    monkeypatch.setenv("RECOVER_JOURNAL", str(tmp_path / "journal.sqlite"))
    monkeypatch.setenv("RECOVER_WORK_DIR", str(tmp_path / "work"))
    monkeypatch.setattr("recovery.stage.RETRY_DELAYS_SECONDS", (0.1,))
    database = urlsplit(mariadb_url).path.strip("/")
    with scratch_directory("claim") as folder:
        made = Pods(pods_kubernetes, mariadb, database, folder)
        make_grafana_database(made.source, dashboards=5, versions_each=1)
        with mariadb.connect(database) as connection:
            make_grafana_mysql_schema(connection)
        yield made
        for kind, name in (("deployments", "grafana"), ("deployments", "grafanadb-mysql")):
            try:
                pods_kubernetes.client.delete(
                    pods_kubernetes.path("apps/v1", kind, made.namespace, name)
                )
            except ApiSaidNo:
                continue
    _kept_sessions.clear()


def test_every_cell_arrives_and_grafana_comes_back_with_its_replicas(pods):
    pods.deploy()
    before = pods.contents()
    with pods.full_quota():  # there is room once Grafana is stopped
        planned = pods.run(plan_only=True)
    pods.limit(64)  # Grafana's pods say what they take, and so must the one that reads the claim
    assert planned.error is None, planned.error
    assert pods.contents() == before

    ended = pods.run(approve=planned.plan.hash)

    assert ended.error is None, ended.error
    assert ended.result.cells_found_equal > 1000
    assert not pods.differences().differences
    assert sorted(pod["metadata"]["name"].partition("-")[0] for pod in pods.pods()) == [
        "grafana", "grafanadb",
    ]  # fmt: skip
    assert pods.api.deployment(pods.namespace, "grafana")["spec"]["replicas"] == 1
    undone = pods.run(resume=ended.recovery_id, undo_by="kim", break_glass="a test")
    assert undone.error is None, undone.error
    assert pods.contents() == before
    assert pods.api.deployment(pods.namespace, "grafana")["spec"]["replicas"] == 1


def test_a_database_that_would_be_gone_with_its_pod_is_not_stopped(pods):
    pods.deploy(volume={"hostPath": {"path": str(pods.source.parent), "type": "Directory"}})

    ended = pods.run(break_glass="a test")

    assert isinstance(ended.error, Refused), ended.error
    assert "lies on hostPath, which is no claim" in str(ended.error)
    assert pods.api.deployment(pods.namespace, "grafana")["spec"]["replicas"] == 1


def test_somebody_who_would_scale_grafana_up_is_named_before_it_is_stopped(pods):
    pods.deploy()
    path = pods.api.path("apps/v1", "deployments", pods.namespace, "grafana")
    mark = {"argocd.argoproj.io/tracking-id": "grafana:apps/Deployment:x/grafana"}
    pods.api.client.patch(path, {"metadata": {"annotations": mark}})

    ended = pods.run(break_glass="a test")

    assert "somebody may scale it up while rows are moved: argo-cd" in str(ended.error)
    assert pods.api.deployment(pods.namespace, "grafana")["spec"]["replicas"] == 1


def test_grafana_is_not_stopped_where_nobody_could_read_its_claim_then(pods):
    pods.deploy()
    looks = [
        ("", "pods", "get,list,watch"),
        ("", "pods/exec", "create,get"),
        ("", "pods/portforward", "create,get"),
        ("apps", "deployments", "get,list,watch,patch"),
        ("autoscaling", "horizontalpodautoscalers", "list"),
        ("policy", "poddisruptionbudgets", "list"),
    ]
    pods.api.allow(pods.namespace, f"{pods.namespace}-user", *looks)

    denied = pods.run({"cluster": pods.api.url_as(f"{pods.namespace}-user")}, break_glass="a test")
    pods.limit(32)
    limited = pods.run(break_glass="a test")

    assert isinstance(denied.error, Refused), denied.error
    assert "the account may not create, delete pods in namespace" in str(denied.error)
    assert isinstance(limited.error, ClusterRejected), limited.error
    assert "maximum memory usage per Pod is 32Mi" in str(limited.error)
    assert pods.api.deployment(pods.namespace, "grafana")["spec"]["replicas"] == 1

"""Installations whose pods really run, from a busybox: what each does says if it was mended."""

import base64
import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.integration.kubernetes_runs import Mongodb, cronjob, stateful_set
from tests.integration.login_runs import HOLDER, Keycloak
from tests.integration.volume_runs import Volumes
from tests.lab.influxdb import USER
from tests.lab.kubernetes_api import deployment
from tests.lab.kubernetes_kubelet import BUSYBOX, NODE, PodsApi
from tests.lab.kubernetes_real import find_kubernetes
from tests.lab.ports import LOOPBACK
from tests.lab.processes import wait_until

UP = {"exec": {"command": ["test", "-f", "/tmp/up"]}, "periodSeconds": 1}  # noqa: S108
SERVES = "touch /tmp/up; exec sleep 100000"
WRITES = "while true; do echo late > /data/written-by-$POD; touch /tmp/up; sleep 1; done"
ITS_NAME = {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}
# What the tools of MongoDB would do with a database: theirs is a folder, a document is a file.
BACKS_UP = """
test ! -f /creds/credentials || . /creds/credentials
rm -rf /backup/*; cp /data/* /backup/
echo "as ${AZURE_STORAGE_ACCOUNT:-nobody}: done dumping $(ls /backup | wc -l) files"
"""
RESTORES = """
rm -rf /data/*; sleep 2
test -z "$(ls /data)" || { echo "Failed: somebody writes to the database"; exit 1; }
cp /backup/* /data/ || { echo "Failed: there is no archive"; exit 1; }
echo "$(ls /data | wc -l) document(s) restored successfully. 0 document(s) failed to restore."
"""


def running(body, script, *, ready=True, **container):
    """Let the pods of a workload run a script, which makes /tmp/up where it is to be ready."""
    pod = body["spec"]["template"]["spec"]
    pod.update(hostNetwork=True, terminationGracePeriodSeconds=1)
    pod["volumes"] = container.pop("volumes", [])
    pod["containers"][0].update(
        image=BUSYBOX,
        command=["sh", "-c", script],
        **({"readinessProbe": UP} if ready else {}),
        **container,
    )
    return body


def folder_of_node(name, path):
    """A volume of pods that is a folder of this machine."""
    return {"name": name, "hostPath": {"path": str(path), "type": "Directory"}}


@dataclass
class Services:
    """Deployments of one namespace whose pods run."""

    api: PodsApi
    namespace: str

    def deploy(self, name, script=SERVES, **container):
        body = running(deployment(name, BUSYBOX, replicas=1), script, **container)
        self.api.apply(body, self.namespace)

    def wait_until_out(self, *names):
        for name in names:
            self.api.wait_until_out(self.namespace, name, within_seconds=120)

    def pod(self, name):
        """The only pod of a Deployment that is not going."""
        pods = self.api.pods(self.namespace, **{"k8s-app": name})
        (one,) = [pod for pod in pods if not pod["metadata"].get("deletionTimestamp")]
        return one

    def environment(self, name):
        """What the process in that pod has been started with."""
        told = self.api.exec(self.pod(name), "cat", "/proc/1/environ")
        return dict(one.partition("=")[::2] for one in told.split("\0") if one)


@dataclass
class MongodbInPods(Mongodb):
    """A database of files, a client that writes to it while it runs, and Jobs that copy it."""

    folder: Path = Path()

    def __post_init__(self):
        self.data, self.backup = self.folder / "data", self.folder / "backup"
        for one in (self.data, self.backup):
            one.mkdir()

    def deploy(self):
        given = {"volumeMounts": [{"name": "data", "mountPath": "/data"}], "env": [ITS_NAME]}
        volumes = [folder_of_node("data", self.data)]
        client = stateful_set("vantiq", BUSYBOX, self.replicas)
        self.api.apply(running(client, WRITES, volumes=volumes, **given), self.namespace)
        self.cronjob("mongobackup", BACKS_UP)
        self.cronjob("mongorestore", RESTORES)
        wait_until(self.is_well, "the client to be well", within_seconds=120)
        return self

    def cronjob(self, name, script, secret=""):
        body = cronjob(name, BUSYBOX, hostNetwork=True)
        pod = body["spec"]["jobTemplate"]["spec"]["template"]["spec"]
        folders = {"data": self.data, "backup": self.backup}
        pod["volumes"] = [folder_of_node(*one) for one in folders.items()]
        mounts = [{"name": one, "mountPath": f"/{one}"} for one in folders]
        if secret:
            pod["volumes"].append({"name": "creds", "secret": {"secretName": secret}})
            mounts.append({"name": "creds", "mountPath": "/creds", "readOnly": True})
        pod["containers"][0].update(command=["sh", "-c", script], volumeMounts=mounts)
        self.api.apply(body, self.namespace)

    @property
    def parameters(self):
        return {**super().parameters, "within_seconds": 120, "restore_within_seconds": 120}

    def documents(self):
        return {path.name: path.read_text().strip() for path in self.data.iterdir()}


@dataclass
class VolumesInPods(Volumes):
    """Volumes that are folders of the node, and workloads that really mount them."""

    folder: Path = Path()

    def volume(self, name, *, policy="Retain", **spec):
        path = self.folder / f"{self.namespace}-{name}"
        path.mkdir()
        where = {"hostPath": {"path": str(path), "type": "Directory"}}
        return super().volume(name, policy=policy, **{**where, **spec})

    def local(self, name):
        """A volume that only its own node can mount."""
        path = self.folder / f"{self.namespace}-{name}"
        term = {"key": "kubernetes.io/hostname", "operator": "In", "values": [NODE]}
        here = {"required": {"nodeSelectorTerms": [{"matchExpressions": [term]}]}}
        return self.volume(name, hostPath=None, local={"path": str(path)}, nodeAffinity=here)

    def run_on(self, claim, replicas=1):
        """Run a Deployment `web` whose pods have the claim at /data."""
        body = deployment("web", BUSYBOX, replicas=replicas)
        volumes = [
            {"name": "config", "emptyDir": {}},
            {"name": "storage", "persistentVolumeClaim": {"claimName": claim}},
        ]
        mounts = [{"name": "storage", "mountPath": "/data"}]
        self.api.apply(running(body, SERVES, volumes=volumes, volumeMounts=mounts), self.namespace)
        self.api.wait_until_out(self.namespace, "web", within_seconds=120)

    def run_set_on_template(self, replicas=1):
        """Run a StatefulSet `db` that makes its claims itself."""
        wanted = {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}},
            "storageClassName": self.namespace,
        }
        body = stateful_set("db", BUSYBOX, replicas)
        body["spec"]["volumeClaimTemplates"] = [{"metadata": {"name": "data"}, "spec": wanted}]
        mounts = [{"name": "data", "mountPath": "/data"}]
        self.api.apply(running(body, SERVES, volumeMounts=mounts), self.namespace)
        self.wait_until_up("db", replicas)

    def wait_until_up(self, name, replicas):
        path = self.api.path("apps/v1", "statefulsets", self.namespace, name)

        def is_up():
            status = self.api.client.get(path).get("status") or {}
            return status.get("availableReplicas", 0) == replicas

        wait_until(is_up, f"{name} to be up", within_seconds=120)

    def in_pod(self, label, value, *argv):
        """Run a command in the only pod of a workload, once that runs."""

        def that_runs():
            pods = self.api.pods(self.namespace, **{label: value})
            (one,) = [pod for pod in pods if not pod["metadata"].get("deletionTimestamp")]
            return one["status"]["containerStatuses"][0]["ready"] and one

        pod = wait_until(that_runs, f"a pod of {value} that runs", within_seconds=120)
        return self.api.exec(pod, *argv).strip()


LOGS_IN_TO_THE_DATABASE = """
wget -q -O /dev/null --post-data "$KC_DB_PASSWORD" "$DOOR" || {
  echo "ERROR [org.keycloak] Caused by: org.postgresql.util.PSQLException: FATAL: password" \
    "authentication failed for user \\"$KC_DB_USERNAME\\""
  exit 1
}
touch /tmp/up; exec sleep 100000
"""


@dataclass
class KeycloakInPods(Keycloak):
    """A Keycloak whose pods start where the database takes their password, else they crash."""

    @contextlib.contextmanager
    def door(self) -> Iterator[str]:
        """Where a pod, which has no client of PostgreSQL, may have its password tried."""
        keycloak = self

        class Door(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                password = self.rfile.read(int(self.headers["Content-Length"])).decode()
                self.send_response(200 if keycloak.lets_in(password) else 401)
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        with ThreadingHTTPServer((LOOPBACK, 0), Door) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            yield f"http://{LOOPBACK}:{server.server_port}/"
            server.shutdown()

    def run_pods(self, in_pods, door):
        """Run it with this password, until a pod was refused and waits for its next start."""
        self.settings.secret(HOLDER, password=in_pods, username=self.role)
        held = {"username": "KC_DB_USERNAME", "password": "KC_DB_PASSWORD"}
        env = [
            {"name": name, "valueFrom": {"secretKeyRef": {"name": HOLDER, "key": key}}}
            for key, name in held.items()
        ]
        url = f"jdbc:postgresql://{self.postgres.host}:{self.postgres.port}/{self.role}"
        env += [
            {"name": "KC_DB", "value": "postgres"},
            {"name": "KC_DB_URL", "value": url},
            {"name": "DOOR", "value": door},
        ]
        body = running(
            deployment("keycloak", BUSYBOX, replicas=1), LOGS_IN_TO_THE_DATABASE, env=env
        )
        self.api.apply(body, self.settings.namespace)

        def was_refused():
            (pod,) = self.api.pods(self.settings.namespace, **{"k8s-app": "keycloak"})
            (one,) = pod["status"]["containerStatuses"]
            return one["restartCount"] and "waiting" in one["state"]

        wait_until(was_refused, "a pod of Keycloak to crash", within_seconds=120)


TELEGRAF = """
touch /tmp/up
if ! HOME=/tmp /kube/kubectl --server=$API --token="$TOKEN" --insecure-skip-tls-verify \
    get pods --all-namespaces >/tmp/pods 2>/tmp/said; then
  echo "2026-11-20T03:10:00Z E! [inputs.kubernetes] Unable to watch resources: $(cat /tmp/said)"
  exec sleep 100000
fi
while true; do
  wget -q -O /dev/null --header "Authorization: Basic $LOGIN" --post-data "$POINTS" "$WRITE"
  sleep 1
done
"""


def telegraf(services, influxdb, database, points):
    """Deploy what asks the API for its pods once, with its account, and writes points if it may."""
    api, namespace = services.api, services.namespace
    for account in ("telegraf-prom", "telegraf-ds"):
        body = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": account}}
        api.client.post(api.path("v1", "serviceaccounts", namespace), body)
        path = api.path("v1", "serviceaccounts", namespace, account)
        kind = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest"}
        token = api.client.post(f"{path}/token", {**kind, "spec": {}})["status"]["token"]
        login = base64.b64encode(f"{USER}:{influxdb.password}".encode()).decode()
        given = {
            "API": api.client.server,
            "TOKEN": token,
            "LOGIN": login,
            "POINTS": "\n".join(points),
            "WRITE": f"{influxdb.url}/write?db={database}",
        }
        env = [{"name": name, "value": value} for name, value in given.items()]
        mounts = [{"name": "kube", "mountPath": "/kube"}]
        programs = folder_of_node("kube", Path(find_kubernetes("kubectl")).parent)
        body = deployment(account, BUSYBOX, replicas=1)
        if account == "telegraf-ds":
            body["kind"] = "DaemonSet"
            del body["spec"]["replicas"], body["spec"]["progressDeadlineSeconds"]
        body = running(body, TELEGRAF, env=env, volumes=[programs], volumeMounts=mounts)
        api.apply(body, namespace)
    services.wait_until_out("telegraf-prom")

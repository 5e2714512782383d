"""A Kubernetes API for tests: a real one where its programs are installed, else a stand-in.

    with kubernetes_api(directory) as api:
        api.apply(deployment("registry", image="divoc/registry-es:latest"))
        api.node.images["divoc/registry-es:latest"] = Image(state=CRASHES)
        flow(cluster=api.url)

Both have a node that runs no containers: what becomes of a pod is what the test chose for its
image (`tests.lab.kubernetes_node`). Each test takes a namespace of its own (`api.namespace()`).
"""

import contextlib
import itertools
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.lab.kubernetes_client import ApiSaidNo, LabClient
from tests.lab.kubernetes_controllers import Controllers
from tests.lab.kubernetes_node import LabNode, lab_node
from tests.lab.kubernetes_real import ApiServer, find_kubernetes, kubeconfig_text, real_api
from tests.lab.kubernetes_roles import ARE_RECORDED, account_of, everything, granted
from tests.lab.kubernetes_standin import TOKEN, StandInApi, served
from tests.lab.kubernetes_store import OF_THE_CLUSTER, RESOURCES
from tests.lab.ports import LOOPBACK
from tests.lab.processes import ServerMissing, scratch_directory, wait_until

REAL, STAND_IN = "real", "stand-in"
RESOURCE_OF = {
    (version, kind): name for version, names in RESOURCES.items() for name, kind in names.items()
}


@dataclass
class KubernetesApi:
    """What tests do with an API: put objects there, look at them, and hand out ways in."""

    kind: str
    client: LabClient
    node: LabNode
    kubeconfig: Path
    standin: StandInApi | None = None
    server: ApiServer | None = None
    _numbers: itertools.count = field(default_factory=lambda: itertools.count(1))
    _coming: threading.Lock = field(default_factory=threading.Lock)
    _granting: threading.Lock = field(default_factory=threading.Lock)
    _granted: set[str] = field(default_factory=set)

    @property
    def url(self):
        """The cluster parameter of a recovery."""
        return self.url_as()

    def url_as(self, user="", **options):
        """The cluster parameter, impersonating a user whom only Roles let do anything."""
        given = {**({"as": user} if user else {}), **options}
        query = "&".join(f"{name}={value}" for name, value in given.items())
        return f"kubeconfig://{self.kubeconfig}" + (f"?{query}" if query else "")

    def url_for(self, recovery, namespace):
        """The cluster parameter, as an account that may do there what the recovery needs alone."""
        user = account_of(recovery, namespace)
        with self._granting:
            if user not in self._granted:
                for one in everything(user) if ARE_RECORDED else granted(recovery, user):
                    with contextlib.suppress(ApiSaidNo):  # a ClusterRole is there already
                        self.apply(one, namespace)
                    self._wait_until_granted(user, one, namespace)
            self._granted.add(user)
        return self.url_as(user)

    def _wait_until_granted(self, user, bound, namespace):
        """Wait until the API has read what a binding gives; it does so a moment later."""
        if "subjects" not in bound:
            return
        role = bound["roleRef"]
        resource = RESOURCE_OF["rbac.authorization.k8s.io/v1", role["kind"]]
        where = "" if role["kind"].startswith("Cluster") else namespace
        path = self.path("rbac.authorization.k8s.io/v1", resource, where, role["name"])
        rule = self.client.get(path)["rules"][-1]
        kind, _, sub = rule["resources"][0].partition("/")
        asked = {"group": rule["apiGroups"][0], "resource": kind, "subresource": sub,
                 "verb": rule["verbs"][0], "namespace": where}  # fmt: skip
        wait_until(lambda: self.client.may(user, **asked), f"{user} to be let", within_seconds=30)

    def go_away(self):
        """Stop answering at once; what is stored stays, and the node and controllers wait."""
        if self.server is not None:
            self.server.kill()
        else:
            self.standin.is_away = True

    def come_back(self):
        """Answer again, at the same address; nothing when it does."""
        with self._coming:
            if self.server is not None:
                self.server.start()
            else:
                self.standin.is_away = False

    def namespace(self, prefix="t"):
        """A namespace that no other test has."""
        name = f"{prefix}{next(self._numbers)}"
        self.client.post("/api/v1/namespaces", {"metadata": {"name": name}})
        return name

    def path(self, version, resource, namespace="", name=""):
        root = "apis" if "/" in version else "api"
        where = f"/namespaces/{namespace}" if namespace else ""
        return f"/{root}/{version}{where}/{resource}" + (f"/{name}" if name else "")

    def apply(self, body, namespace=""):
        """Create an object; in this namespace, where it is of one."""
        version, kind = body["apiVersion"], body["kind"]
        resource = RESOURCE_OF[version, kind]
        where = "" if resource in OF_THE_CLUSTER else namespace
        return self.client.post(self.path(version, resource, where), body)

    def deployment(self, namespace, name):
        return self.client.get(self.path("apps/v1", "deployments", namespace, name))

    def pods(self, namespace, **labels):
        selector = ",".join(f"{n}%3D{v}" for n, v in labels.items())
        path = self.path("v1", "pods", namespace)
        return self.client.items(f"{path}?labelSelector={selector}")

    def allow(self, namespace, user, *rules):
        """Let a user do this: `allow(ns, "limited", ("apps", "deployments", "get,patch"))`."""
        told = [
            {"apiGroups": [group], "resources": [resource], "verbs": verbs.split(",")}
            for group, resource, verbs in rules
        ]
        version = "rbac.authorization.k8s.io/v1"
        role = {"metadata": {"name": user}, "rules": told}
        binding = {
            "metadata": {"name": user},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": user},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}],
        }
        self.client.post(self.path(version, "roles", namespace), role)
        self.client.post(self.path(version, "rolebindings", namespace), binding)

    def wait_until_out(self, namespace, name, within_seconds=30):
        """Wait until a Deployment is as it is wanted; return it."""

        def is_out():
            one = self.deployment(namespace, name)
            wanted, status = one["spec"]["replicas"], one.get("status") or {}
            is_seen = status.get("observedGeneration") == one["metadata"]["generation"]
            counts = [
                status.get(n, 0) for n in ("replicas", "updatedReplicas", "availableReplicas")
            ]
            return is_seen and counts == [wanted] * 3 and one

        return wait_until(is_out, f"{name} to be out", within_seconds=within_seconds)


def deployment(name, image, *, replicas=2, deadline_seconds=600, **spec):
    """A Deployment with the label that DIVOC's have."""
    labels = {"k8s-app": name}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "replicas": replicas,
            "progressDeadlineSeconds": deadline_seconds,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [{"name": name, "image": image}]},
            },
            **spec,
        },
    }


def is_real_there():
    """Whether this machine has a real API."""
    if ARE_RECORDED:
        return False
    try:
        for name in ("kube-apiserver", "kube-controller-manager", "etcd"):
            find_kubernetes(name)
    except ServerMissing:
        return False
    return True


def used_here():
    """Which API the flow tests use here, and why, for the head of a test run."""
    if is_real_there():
        return f"kubernetes: real kube-apiserver, {find_kubernetes('kube-apiserver')}"
    return "kubernetes: the stand-in (no kube-apiserver in KUBEBUILDER_ASSETS or on PATH)"


@contextlib.contextmanager
def kubernetes_api(directory: Path, kind: str = "") -> Iterator[KubernetesApi]:
    """Run an API and its node until the end of the block.

    Args:
        directory: for keys and logs.
        kind: REAL or STAND_IN; empty: the real one where it is installed.

    Raises:
        ServerMissing: it is to be real, and a program is absent.
    """
    kind = kind or (REAL if is_real_there() else STAND_IN)
    directory.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        kubeconfig = directory / "kubeconfig"
        if kind == REAL:
            scratch = stack.enter_context(scratch_directory("kube"))
            server = stack.enter_context(real_api(scratch))
            client, standin = server.client(), None
            kubeconfig.write_text(kubeconfig_text(server.url, scratch))
            stack.callback(_keep_logs, scratch, directory)
        else:
            server = None
            standin = stack.enter_context(served(StandInApi()))
            stack.enter_context(Controllers(standin.store))
            url = f"http://{LOOPBACK}:{standin.port}"
            client = LabClient(url, TOKEN)
            kubeconfig.write_text(standin_kubeconfig(url))
        with contextlib.suppress(ApiSaidNo):
            client.post("/api/v1/namespaces", {"metadata": {"name": "divoc"}})
        node = stack.enter_context(lab_node(client, directory))
        if standin is not None:
            standin.log_of = node.log_of
        yield KubernetesApi(kind, client, node, kubeconfig, standin, server)


def _keep_logs(scratch, directory):
    for log in scratch.glob("*.log"):
        shutil.copy(log, directory)


def standin_kubeconfig(url):
    return f"""apiVersion: v1
kind: Config
current-context: lab
clusters: [{{name: lab, cluster: {{server: "{url}"}}}}]
users: [{{name: admin, user: {{token: "{TOKEN}"}}}}]
contexts: [{{name: lab, context: {{cluster: lab, user: admin, namespace: divoc}}}}]
"""

"""Running relax-probes and raise-resources in this process, and workloads that need them."""

import contextlib
from dataclasses import dataclass
from datetime import UTC, datetime

import flows.containers  # noqa: F401 (declares the recoveries)
from recovery.declare import RECOVERIES, run_plainly
from recovery.run import Options
from tasks.containers.quantities import amount
from tests.lab.kubernetes_api import KubernetesApi, deployment
from tests.lab.kubernetes_client import ApiSaidNo
from tests.lab.kubernetes_node import DIES, Image
from tests.lab.processes import wait_until

PROBE = {"httpGet": {"path": "/health", "port": 8080}, "periodSeconds": 2, "failureThreshold": 3}
OOM = {"reason": "OOMKilled", "exitCode": 137}
REVISION = "deployment.kubernetes.io/revision"
MARK = "recovery-pipelines.io/restarted-by"


def has_memory(least):
    """Whether a container has a memory limit of so much."""
    return lambda one: amount(one["resources"]["limits"]["memory"]) >= amount(least)


def may_start_in(seconds):
    """Whether a container has so much time to start."""

    def is_cured(one):
        probe = one.get("startupProbe") or {}
        return probe.get("periodSeconds", 0) * probe.get("failureThreshold", 0) >= seconds

    return is_cured


@dataclass
class Containers:
    """A namespace with a workload `web` that is restarted again and again."""

    api: KubernetesApi
    namespace: str
    cluster: str = ""

    def run(self, name="raise-resources", options=None, **parameters):
        declared = RECOVERIES[name]
        given = {name: default for name, (_, default) in declared.parameters.items()}
        given.update(self.place, within_seconds=30, quiet_seconds=1)
        return run_plainly(declared, {**given, **parameters}, Options(**(options or {})))

    @property
    def place(self):
        cluster = self.cluster or self.api.url
        return {"cluster": cluster, "namespace": self.namespace, "workload": "web"}

    def undo(self, ended, name="raise-resources", **parameters):
        options = {"resume": ended.recovery_id, "undo_by": "kim", "break_glass": "a test"}
        return self.run(name, options, **parameters)

    @property
    def image(self):
        return f"{self.namespace}/web"

    def starve(self, least="400Mi", kind="Deployment", limit="256Mi", **spec):
        """A workload that is killed for want of memory."""
        self.api.node.images[self.image] = Image(DIES, ended=OOM, is_cured=has_memory(least))
        resources = {"limits": {"memory": limit}, "requests": {"memory": limit}}
        return self.deploy(kind, {"resources": resources}, **spec)

    def hurry(self, seconds=60, told="connect: connection refused", **container):
        """A workload whose liveness probe ends it before it has started."""
        ended = {"exitCode": 143}
        cured = may_start_in(seconds)
        self.api.node.images[self.image] = Image(DIES, ended=ended, is_cured=cured)
        self.deploy("Deployment", {"livenessProbe": PROBE, **container})
        return self.fail_liveness(told)

    def fail_liveness(self, told="connect: connection refused"):
        """Let the kubelet say of each pod that its liveness probe ended it."""
        for pod in self.pods():
            with contextlib.suppress(ApiSaidNo):  # it was said before
                self.event(pod, "Unhealthy", f"Liveness probe failed: {told}")
                self.event(pod, "Killing", "Container web failed liveness probe, will be restarted")
        return self

    def deploy(self, kind, container, replicas=2, **spec):
        body = deployment("web", self.image, replicas=replicas, **spec)
        body["spec"]["template"]["spec"]["containers"][0].update(container)
        if kind == "StatefulSet":
            body["kind"] = kind
            del body["spec"]["progressDeadlineSeconds"]
            body["spec"]["serviceName"] = "web"
        self.api.apply(body, self.namespace)
        seen = 1 if kind == "StatefulSet" else replicas
        wait_until(
            lambda: len([p for p in self.pods() if p["status"].get("containerStatuses")]) == seen,
            "pods that die",
            within_seconds=30,
        )
        return self

    def event(self, pod, reason, message):
        meta = pod["metadata"]
        moment = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        body = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"{meta['name']}.{reason.lower()}"},
            "involvedObject": {
                "kind": "Pod",
                "name": meta["name"],
                "namespace": self.namespace,
                "uid": meta["uid"],
                "fieldPath": "spec.containers{web}",
            },
            "reason": reason,
            "message": message,
            "type": "Warning",
            "lastTimestamp": moment,
        }
        self.api.apply(body, self.namespace)

    def pods(self):
        return self.api.pods(self.namespace, **{"k8s-app": "web"})

    def workload(self, resource="deployments"):
        return self.api.client.get(self.api.path("apps/v1", resource, self.namespace, "web"))

    def container(self, resource="deployments"):
        return self.workload(resource)["spec"]["template"]["spec"]["containers"][0]

    def memory(self, resource="deployments"):
        return self.container(resource)["resources"]["limits"]["memory"]

"""Running recoveries of workloads in this process, each in a journal of its own."""

from dataclasses import dataclass, field
from pathlib import Path

from recovery.declare import RECOVERIES, run_plainly
from recovery.run import Options
from tests.lab.kubernetes_node import SUCCEEDS, Image
from tests.lab.processes import wait_until

RESTORED = "2026-11-20T03:10:00.000+0000\t{} document(s) restored successfully. {} document(s) "
RESTORED += "failed to restore.\n"


@dataclass
class Restarts:
    """Runs restart-service on workloads of one namespace."""

    api: object
    namespace: str
    folder: Path
    cluster: str = ""
    defaults: dict = field(default_factory=dict)

    def run(self, workload="web", options=None, **parameters):
        declared = RECOVERIES["restart-service"]
        given = {name: default for name, (_, default) in declared.parameters.items()}
        given.update(
            cluster=self.cluster or self.api.url_for("restart-service", self.namespace),
            namespace=self.namespace,
            workload=workload,
            **self.defaults,
        )
        return run_plainly(declared, {**given, **parameters}, Options(**(options or {})))

    def image(self, name="web"):
        """An image that no other test has."""
        return f"{self.namespace}/{name}:latest"

    def starts(self, prefix="web-"):
        """How many pods of ours the node has ever started."""
        return len([n for n in self.api.node.starts if n.startswith(f"{self.namespace}-{prefix}")])

    def mark(self, name="web"):
        template = self.api.deployment(self.namespace, name)["spec"]["template"]
        annotations = template["metadata"].get("annotations") or {}
        return annotations.get("recovery-pipelines.io/restarted-by", "")


@dataclass
class Mongodb:
    """An installation with a database of which only the clients and the CronJobs are there."""

    api: object
    namespace: str
    replicas: int = 1
    cluster: str = ""

    def deploy(self):
        """Put it there, and wait until its client is well."""
        self.api.apply(stateful_set("vantiq", self.image("vantiq"), self.replicas), self.namespace)
        for name in ("mongobackup", "mongorestore", "userdbrestore"):
            self.api.apply(cronjob(name, self.image(name)), self.namespace)
            self.api.node.images[self.image(name)] = Image(SUCCEEDS, log=RESTORED.format(41, 0))
        self.api.node.images[self.image("mongobackup")] = Image(SUCCEEDS, log="done dumping\n")
        wait_until(self.is_well, "the client to be well", within_seconds=30)
        return self

    def image(self, name):
        """An image that no other test has."""
        return f"{self.namespace}/{name}:1"

    @property
    def parameters(self):
        """Those of a restore that is to succeed."""
        return {
            "cluster": self.cluster or self.api.url_for("restore-mongodb", self.namespace),
            "namespace": self.namespace,
            "accept": ["not-the-newest:mongorestore"],
            "within_seconds": 30,
            "restore_within_seconds": 30,
        }

    def restore(self, options=None, **parameters):
        declared = RECOVERIES["restore-mongodb"]
        given = {name: default for name, (_, default) in declared.parameters.items()}
        told = {"break_glass": "a test", **(options or {})}
        return run_plainly(declared, {**given, **self.parameters, **parameters}, Options(**told))

    def enable_backup(self, options=None, **parameters):
        declared = RECOVERIES["enable-mongodb-backup"]
        given = {name: default for name, (_, default) in declared.parameters.items()}
        given.update(
            cluster=self.cluster or self.api.url_for("enable-mongodb-backup", self.namespace),
            namespace=self.namespace,
            backup_within_seconds=30,
        )
        return run_plainly(declared, {**given, **parameters}, Options(**(options or {})))

    def client(self):
        path = self.api.path("apps/v1", "statefulsets", self.namespace, "vantiq")
        return self.api.client.get(path)

    def is_well(self):
        """Whether as many pods of the client are available as are wanted, and it has no note."""
        one = self.client()
        noted = "recovery-pipelines.io/replicas" in (one["metadata"].get("annotations") or {})
        available = (one.get("status") or {}).get("availableReplicas", 0)
        return one["spec"]["replicas"] == self.replicas == available and not noted

    def jobs(self):
        """The Jobs there are, by the CronJob each was made from."""
        listed = self.api.client.items(self.api.path("batch/v1", "jobs", self.namespace))
        return {
            one["metadata"]["annotations"]["recovery-pipelines.io/from-cronjob"]: one
            for one in listed
        }

    def starts(self, name):
        """How many pods of the Jobs from a CronJob were ever started in this namespace."""
        pods = self.api.client.items(self.api.path("v1", "pods", self.namespace))
        return len([pod for pod in pods if pod["metadata"]["name"].startswith(f"{name}-")])


def stateful_set(name, image, replicas):
    """A StatefulSet whose pods may start side by side."""
    labels = {"app": name}
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "replicas": replicas,
            "serviceName": name,
            "podManagementPolicy": "Parallel",
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [{"name": name, "image": image}]},
            },
        },
    }


def cronjob(name, image, **pod_spec):
    """A CronJob as restores have it: suspended, and with limits that delete what has ended."""
    container = {"name": name, "image": image, "command": [name, "--archive=/backup/fixed"]}
    template = {
        "spec": {"containers": [container], "restartPolicy": "OnFailure", **pod_spec},
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": name},
        "spec": {
            "schedule": "@daily",
            "suspend": True,
            "failedJobsHistoryLimit": 0,
            "jobTemplate": {"spec": {"backoffLimit": 3, "template": template}},
        },
    }


def evicted(api, namespace, like):
    """Put a pod beside another one that was evicted and stays listed; return its path.

    It becomes one of its owner's only once it has ended, so that no controller ever counts it.
    """
    meta = {"name": "evicted", "finalizers": ["example.net/stays-listed"]}
    body = {"apiVersion": "v1", "kind": "Pod", "metadata": meta}
    container = {"name": "web", "image": f"{namespace}/evicted"}
    api.apply({**body, "spec": {"containers": [container], "nodeName": "gone"}}, namespace)
    path = api.path("v1", "pods", namespace, "evicted")
    told = {"phase": "Failed", "reason": "Evicted", "message": "The node was low on memory"}
    api.client.patch(f"{path}/status", {"status": told})
    names = ("labels", "ownerReferences")
    api.client.patch(path, {"metadata": {name: like["metadata"][name] for name in names}})
    return path

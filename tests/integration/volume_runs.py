"""Worlds in which a volume was released, and runs of reuse-released-volume in this process."""

from dataclasses import dataclass

from recovery.declare import RECOVERIES, run_plainly
from recovery.run import Options
from tests.lab.kubernetes_api import KubernetesApi, deployment
from tests.lab.processes import wait_until

SIZE = "1Gi"


@dataclass
class Volumes:
    """Volumes, claims and workloads of one namespace; names of volumes begin with it."""

    api: KubernetesApi
    namespace: str

    def volume(self, name, *, policy="Retain", **spec):
        """Make a volume; return its name."""
        body = {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": f"{self.namespace}-{name}"},
            "spec": {
                "capacity": {"storage": SIZE},
                "accessModes": ["ReadWriteOnce"],
                "persistentVolumeReclaimPolicy": policy,
                "storageClassName": self.namespace,
                "hostPath": {"path": "/var/empty"},
                **spec,
            },
        }
        if "csi" in spec:
            del body["spec"]["hostPath"]
        self.api.apply(body)
        return body["metadata"]["name"]

    def claim(self, name, volume="", **others):
        """Make a claim, on a volume or on any; the storage class is that of the namespace."""
        spec = {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": SIZE}},
            "storageClassName": self.namespace,
            **others,
        }
        if volume:
            spec["volumeName"] = volume
        kind = "PersistentVolumeClaim"
        body = {"apiVersion": "v1", "kind": kind, "metadata": {"name": name}, "spec": spec}
        return self.api.apply(body, self.namespace)

    def released(self, name, claim, **options):
        """Make a volume that was of a claim which is gone; return its name."""
        volume = self.volume(name, **options)
        self.claim(claim, volume)
        self.wait_for_phase(volume, "Bound")
        self.remove_claim(claim)
        self.wait_for_phase(volume, "Released")
        return volume

    def bound(self, name, claim, **options):
        """Make a volume that a claim has; return its name."""
        volume = self.volume(name, **options)
        self.claim(claim, volume)
        self.wait_for_phase(volume, "Bound")
        return volume

    def remove_claim(self, name):
        self.api.client.delete(self.claim_path(name))
        wait_until(lambda: not self.claims(name), f"{name} gone", within_seconds=20)

    def claim_path(self, name):
        return self.api.path("v1", "persistentvolumeclaims", self.namespace, name)

    def claims(self, name):
        path = self.api.path("v1", "persistentvolumeclaims", self.namespace)
        return [one for one in self.api.client.items(path) if one["metadata"]["name"] == name]

    def volume_path(self, name):
        return self.api.path("v1", "persistentvolumes", "", name)

    def read(self, volume):
        return self.api.client.get(self.volume_path(volume))

    def reference(self, volume):
        return self.read(volume)["spec"].get("claimRef") or {}

    def wait_for_phase(self, volume, phase):
        def phase_is():
            return self.read(volume)["status"].get("phase") == phase

        wait_until(phase_is, f"{volume} to be {phase}", within_seconds=30)

    def deployment(self, name="web", claim="data", replicas=2, **volume):
        """Run a Deployment whose pods have one volume, by claim unless told otherwise."""
        body = deployment(name, f"{self.namespace}/{name}", replicas=replicas)
        spec = body["spec"]["template"]["spec"]
        storage = volume or {"persistentVolumeClaim": {"claimName": claim}}
        spec["volumes"] = [{"name": "config", "emptyDir": {}}, {"name": "storage", **storage}]
        self.api.apply(body, self.namespace)
        self.api.wait_until_out(self.namespace, name)

    def stateful_set(self, name="db", replicas=2, **spec):
        """Run a StatefulSet, whose claims it makes itself: there must be a volume for each."""
        body = deployment(name, f"{self.namespace}/{name}", replicas=replicas)
        body["kind"] = "StatefulSet"
        del body["spec"]["progressDeadlineSeconds"]
        wanted = {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": SIZE}},
            "storageClassName": self.namespace,
        }
        template = {"metadata": {"name": "data"}, "spec": wanted}
        body["spec"].update(serviceName=name, volumeClaimTemplates=[template], **spec)
        self.api.apply(body, self.namespace)
        self.wait_until_ready(name, replicas)
        for n in range(replicas):  # the node of the lab runs pods whose claims are not bound yet
            wait_until(lambda n=n: self.is_held(f"data-{name}-{n}"), "claim", within_seconds=30)

    def is_held(self, claim):
        """Whether a claim has a volume."""
        return [one["status"]["phase"] for one in self.claims(claim)] == ["Bound"]

    def wait_until_ready(self, name, replicas):
        path = self.api.path("apps/v1", "statefulsets", self.namespace, name)

        def are_ready():
            return self.api.client.get(path).get("status", {}).get("availableReplicas") == replicas

        wait_until(are_ready, f"{name} ready", within_seconds=30)

    def pod_volume(self, name="web"):
        one = self.api.deployment(self.namespace, name)
        return one["spec"]["template"]["spec"]["volumes"][1]

    def parameters(self, volume, workload="web", was="data", **given):
        return {
            "cluster": self.api.url_for("reuse-released-volume", self.namespace),
            "volume": volume,
            "workload": workload,
            "namespace": self.namespace,
            "confirm": f"{self.namespace}/{was} {SIZE}",
            "within_seconds": 30,
            **given,
        }

    def run(self, volume, workload="web", options=None, **given):
        declared = RECOVERIES["reuse-released-volume"]
        defaults = {name: default for name, (_, default) in declared.parameters.items()}
        told = self.parameters(volume, workload, **given)
        return run_plainly(declared, {**defaults, **told}, Options(**(options or {})))

    def is_bound_to(self, volume, claim):
        """Whether both sides say so, by uid."""
        claims = self.claims(claim)
        return (
            bool(claims)
            and claims[0]["spec"].get("volumeName") == volume
            and claims[0]["status"]["phase"] == "Bound"
            and self.reference(volume).get("uid") == claims[0]["metadata"]["uid"]
        )

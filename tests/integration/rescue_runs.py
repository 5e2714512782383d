"""Rescues of self-hosted components, whose pods come up only once somebody does their work."""

import contextlib
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime

from tests.lab.kubernetes_api import deployment
from tests.lab.kubernetes_client import ApiSaidNo
from tests.lab.kubernetes_node import READY, UNREADY, Image

LEASES = "coordination.k8s.io/v1"


@dataclass
class SelfHosted:
    """A component of a namespace whose own pods do not come up by themselves.

    Where one of its pods is ready it renews the Lease, and has the others come up: as a scheduler
    that places its own pods.
    """

    api: object
    namespace: str
    name: str = "kube-scheduler"
    leads: bool = True
    _closing: threading.Event = field(default_factory=threading.Event)
    _is_led: threading.Event = field(default_factory=threading.Event)

    def __enter__(self):
        image = f"{self.namespace}/{self.name}:1"
        self.api.node.images[image] = Image(boots=self._boots)
        self.api.apply(deployment(self.name, image, replicas=1), self.namespace)
        self._thread = threading.Thread(target=self._play, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._closing.set()
        self._thread.join(20)

    @property
    def pods(self):
        return [
            one
            for one in self.api.pods(self.namespace)
            if one["metadata"]["name"].startswith(self.name)
        ]

    @property
    def rescue(self):
        """The pod that stands in; none where there is none."""
        name = f"{self.name}-rescue"
        return next((one for one in self.pods if one["metadata"]["name"] == name), None)

    @property
    def available(self):
        status = self.api.deployment(self.namespace, self.name).get("status") or {}
        return status.get("availableReplicas", 0)

    def _boots(self, pod):
        is_rescue = pod["metadata"]["name"].endswith("-rescue")
        return READY if is_rescue or self._is_led.is_set() else UNREADY

    def _play(self):
        while not self._closing.wait(0.2):
            with contextlib.suppress(ApiSaidNo, OSError, KeyError):
                ready = [one for one in self.pods if _is_ready(one)]
                if ready and self.leads:
                    self._renew()
                    self._lead()

    def _lead(self):
        if self._is_led.is_set():
            return
        self._is_led.set()
        for pod in self.pods:
            if not _is_ready(pod):
                name = pod["metadata"]["name"]
                self.api.client.delete(self.api.path("v1", "pods", self.namespace, name))

    def _renew(self):
        spec = {"renewTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")}
        path = self.api.path(LEASES, "leases", self.namespace, self.name)
        try:
            self.api.client.patch(path, {"spec": spec})
        except ApiSaidNo:
            body = {"metadata": {"name": self.name}, "spec": spec}
            self.api.client.post(self.api.path(LEASES, "leases", self.namespace), body)


def _is_ready(pod):
    conditions = (pod.get("status") or {}).get("conditions") or []
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)

"""An installation whose pods run and that nobody ever used, and runs of its reinstallation."""

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import flows.admin_key  # noqa: F401 (declares the recovery)
from recovery.declare import RECOVERIES, run_plainly
from recovery.run import Options
from tests.lab.keycloak import LabKeycloak
from tests.lab.kubernetes_kubelet import BUSYBOX, PodsApi
from tests.lab.processes import wait_until

# What a database would answer: the counts that lie on its volume, or none where that is new.
MONGOSH = "#!/bin/sh\ncat /data/counts.json 2>/dev/null || echo '{}'\n"
CLIENT = 'read key < /proc/sys/kernel/random/uuid; echo "one-time key: $key"; exec sleep 100000'
FRESH = {"vantiq.namespaces": 1}
ROLE = "system-admin"


@dataclass
class Installation:
    """A client and a database of one namespace, and two volumes for one claim."""

    api: PodsApi
    namespace: str
    folder: Path
    keycloak: LabKeycloak
    policy: str = "Delete"
    given: dict = field(default_factory=dict)
    now: datetime = field(default_factory=lambda: datetime.now(UTC))

    def deploy(self):
        """Put it there and wait until it is well."""
        self.keycloak.standin.realms[self.namespace] = {}
        self.keycloak.standin.role_users[self.namespace, ROLE] = []
        for name in ("old", "new"):
            self.volume(name)
        script = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "bin"}}
        self.api.apply({**script, "data": {"mongosh": MONGOSH}}, self.namespace)
        path = {"name": "PATH", "value": "/opt/bin:/usr/local/bin:/bin"}
        mounts = [
            {"name": "datadir", "mountPath": "/data"},
            {"name": "bin", "mountPath": "/opt/bin"},
        ]
        bins = {"name": "bin", "configMap": {"name": "bin", "defaultMode": 0o755}}
        wanted = {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}},
            "storageClassName": self.namespace,
        }
        claim = {"metadata": {"name": "datadir"}, "spec": wanted}
        self.stateful_set("mongodb", "exec sleep 100000", [claim], [bins], env=[path],
                          volumeMounts=mounts)  # fmt: skip
        self.stateful_set("vantiq", CLIENT)
        for name in ("mongodb", "vantiq"):
            wait_until(lambda n=name: self.is_well(n), f"{name} to be well", within_seconds=90)
        self.restart_client()
        return self

    def volume(self, name):
        body = {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": f"{self.namespace}-{name}"},
            "spec": {
                "capacity": {"storage": "1Gi"},
                "accessModes": ["ReadWriteOnce"],
                "persistentVolumeReclaimPolicy": self.policy,
                "storageClassName": self.namespace,
                "hostPath": {"path": str(self.disk(name)), "type": "DirectoryOrCreate"},
            },
        }
        self.api.apply(body)

    def disk(self, name):
        """The folder that a volume is."""
        return self.folder / self.namespace / name

    def stateful_set(self, name, script, claims=(), volumes=(), **container):
        labels = {"app": name}
        one = {"name": name, "image": BUSYBOX, "command": ["sh", "-c", script], **container}
        spec = {"hostNetwork": True, "terminationGracePeriodSeconds": 0, "containers": [one]}
        body = {
            "apiVersion": "apps/v1",
            "kind": "StatefulSet",
            "metadata": {"name": name, "labels": labels},
            "spec": {
                "replicas": 1,
                "serviceName": name,
                "selector": {"matchLabels": labels},
                "volumeClaimTemplates": list(claims),
                "template": {
                    "metadata": {"labels": labels},
                    "spec": {**spec, "volumes": list(volumes)},
                },
            },
        }
        self.api.apply(body, self.namespace)

    def restart_client(self):
        """Let the container of the client run a second time: its key is good for nothing now."""
        pod = self.pod("vantiq-0")
        container = pod["status"]["containerStatuses"][0]["containerID"].rpartition("/")[2]
        self.api.runtime.ctr("tasks", "kill", "--signal", "SIGKILL", container)

        def has_restarted():
            one = self.pod("vantiq-0")["status"]["containerStatuses"][0]
            return one["restartCount"] == 1 and one["ready"]

        wait_until(has_restarted, "the client to be restarted", within_seconds=60)

    def use(self, **counts):
        """Let the database hold something: on the disk of its claim."""
        (self.disk_in_use() / "counts.json").write_text(json.dumps(counts))

    def disk_in_use(self):
        return self.disk(self.volume_in_use().removeprefix(f"{self.namespace}-"))

    def volume_in_use(self):
        return self.claim()["spec"]["volumeName"]

    def claim(self):
        path = self.api.path("v1", "persistentvolumeclaims", self.namespace, "datadir-mongodb-0")
        return self.api.client.get(path)

    def policy_of(self, volume):
        path = self.api.path("v1", "persistentvolumes", "", volume)
        return self.api.client.get(path)["spec"]["persistentVolumeReclaimPolicy"]

    def pod(self, name):
        return self.api.client.get(self.api.path("v1", "pods", self.namespace, name))

    def is_well(self, name):
        one = self.api.client.get(self.api.path("apps/v1", "statefulsets", self.namespace, name))
        return (one.get("status") or {}).get("availableReplicas") == 1 == one["spec"]["replicas"]

    @property
    def key_file(self):
        return self.folder / f"{self.namespace}.key"

    @property
    def parameters(self):
        window = [(self.now + timedelta(hours=hours)).isoformat() for hours in (-1, 1)]
        place = self.api.server.url.partition("://")[2]
        return {
            "cluster": self.api.url_for("reinstall-lost-admin-key", self.namespace),
            "namespace": self.namespace,
            "keycloak": self.keycloak.parameter,
            "realm": self.namespace,
            "role": ROLE,
            "confirm": f"erase {self.namespace} of {place}",
            "declared_by": "kim",
            "window": "/".join(window),
            "key_pattern": r"one-time key: (\S+)",
            "key_file": str(self.key_file),
            "within_seconds": 60,
            **self.given,
        }

    def run(self, options=None, **parameters):
        declared = RECOVERIES["reinstall-lost-admin-key"]
        given = {name: default for name, (_, default) in declared.parameters.items()}
        given.update({**self.parameters, **parameters})
        return run_plainly(declared, given, Options(**(options or {})))

    def approved(self, by="robin", **parameters):
        """Plan it, and carry out that plan with somebody's consent."""
        given = {**self.parameters, **parameters}
        planned = self.run({"plan_only": True}, **given)
        assert planned.error is None, planned.error
        return self.run({"approve": planned.plan.hash, "approved_by": by}, **given)

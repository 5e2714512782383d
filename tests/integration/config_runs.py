"""Running recoveries of settings in this process, and the objects they are run on."""

import base64
from dataclasses import dataclass
from pathlib import Path

import flows.config_values  # noqa: F401 (declares the recoveries)
from recovery.declare import RECOVERIES, run_plainly
from recovery.run import Options
from tests.lab.kubernetes_api import KubernetesApi, deployment

MARK = "recovery-pipelines.io/restarted-by"
CONFIG = "configmap/divoc-config"
VALUES = {"CERTIFICATE_UPDATE_LIMIT": "100", "REGISTRY_URL": "http://registry:8081"}


@dataclass
class Settings:
    """A namespace with a ConfigMap, and who reads it."""

    api: KubernetesApi
    namespace: str
    folder: Path
    cluster: str = ""
    deadline_seconds: int = 4  # how long a rollout may take, by the workload's own word

    def run(self, name="set-config-value", options=None, **parameters):
        declared = RECOVERIES[name]
        given = {name: default for name, (_, default) in declared.parameters.items()}
        given.update(
            cluster=self.cluster or self.api.url_for(name, self.namespace),
            namespace=self.namespace,
            within_seconds=30,
        )
        if name == "set-config-value":
            given.update(config=CONFIG, key="CERTIFICATE_UPDATE_LIMIT")
        return run_plainly(declared, {**given, **parameters}, Options(**(options or {})))

    def undo(self, ended, name="set-config-value", **parameters):
        options = {"resume": ended.recovery_id, "undo_by": "kim", "break_glass": "a test"}
        return self.run(name, options, **parameters)

    def config_map(self, name="divoc-config", **fields):
        kind = {"apiVersion": "v1", "kind": "ConfigMap"}
        body = {**kind, "metadata": {"name": name}, "data": VALUES, **fields}
        return self.api.apply(body, self.namespace)

    def secret(self, name="divoc-secrets", **values):
        kind = {"apiVersion": "v1", "kind": "Secret"}
        data = {key: encoded(value) for key, value in values.items()}
        return self.api.apply({**kind, "metadata": {"name": name}, "data": data}, self.namespace)

    def reader(self, name="web", replicas=2, kind="Deployment", **container):
        """A workload that reads divoc-config by envFrom, or as it is given; it is out."""
        body = deployment(
            name,
            f"{self.namespace}/{name}",
            replicas=replicas,
            deadline_seconds=self.deadline_seconds,
        )
        read = container or {"envFrom": [{"configMapRef": {"name": "divoc-config"}}]}
        pod = body["spec"]["template"]["spec"]
        pod["volumes"] = read.pop("volumes", [])
        pod["containers"][0].update(read)
        body["kind"] = kind
        if kind != "Deployment":
            del body["spec"]["progressDeadlineSeconds"]
        if kind == "StatefulSet":
            body["spec"]["serviceName"] = name
        if kind == "DaemonSet":
            del body["spec"]["replicas"]
        self.api.apply(body, self.namespace)
        if kind == "Deployment" and replicas:
            self.api.wait_until_out(self.namespace, name)

    def object(self, name="divoc-config", resource="configmaps"):
        return self.api.client.get(self.api.path("v1", resource, self.namespace, name))

    def value(self, key="CERTIFICATE_UPDATE_LIMIT", name="divoc-config", resource="configmaps"):
        return (self.object(name, resource).get("data") or {}).get(key)

    def mark(self, name="web"):
        template = self.api.deployment(self.namespace, name)["spec"]["template"]
        return (template["metadata"].get("annotations") or {}).get(MARK, "")

    def revision(self, name="web"):
        annotations = self.api.deployment(self.namespace, name)["metadata"]["annotations"]
        return annotations["deployment.kubernetes.io/revision"]

    def file(self, text, name="new.key"):
        path = self.folder / name
        path.write_text(text)
        path.chmod(0o600)
        return str(path)


def encoded(value):
    return base64.b64encode(value.encode()).decode()

"""Running recoveries of workloads in this process, each in a journal of its own."""

from dataclasses import dataclass, field
from pathlib import Path

from recovery.declare import RECOVERIES, run_plainly
from recovery.run import Options


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
            cluster=self.cluster or self.api.url,
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

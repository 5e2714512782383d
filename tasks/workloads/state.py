"""How a workload stands: as the API's controllers see it, for each of the kinds."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from blocks.kube.text import MISSING, pointer_to, value_at
from tasks.workloads.pods import MARK
from tasks.workloads.target import Workload, WorkloadKind

REVISION = pointer_to("metadata", "annotations", "deployment.kubernetes.io/revision")
TEMPLATE_MARK = pointer_to("spec", "template", "metadata", "annotations", MARK)
REVISION_OF = {
    WorkloadKind.DEPLOYMENT: REVISION,
    WorkloadKind.STATEFULSET: "/status/updateRevision",
    WorkloadKind.DAEMONSET: "/metadata/generation",
}
TOO_LATE = "ProgressDeadlineExceeded"


@dataclass(frozen=True)
class WorkloadState:
    """A workload. `revision` names its pod template, `hold` says what would hold up a restart."""

    wanted: int
    pods: int
    updated: int
    available: int
    is_observed: bool
    is_late: bool
    revision: str
    mark: str
    hold: str

    @property
    def is_out(self) -> bool:
        """Whether every pod that is wanted is of the newest template and available, and no other.

        Pods that are going are not counted by the controllers: look at the pods for those.
        """
        counts = {self.pods, self.updated, self.available}
        return self.is_observed and counts == {self.wanted}

    @property
    def is_stuck(self) -> bool:
        """Whether its controller calls its rollout late, and a pod is still to come up.

        Where all are available and the former only have to go, as after an absence of the API that
        was longer than the deadline, it says so as well.
        """
        are_up = self.updated >= self.wanted and self.available == self.pods
        return self.is_observed and self.is_late and not are_up

    def __str__(self) -> str:
        """As an operator would say it."""
        late = ", progress deadline exceeded" if self.is_late else ""
        seen = "" if self.is_observed else ", not yet seen by its controller"
        return (
            f"{self.available} of {self.wanted} available, {self.updated} updated, "
            f"{self.pods} in all{late}{seen}"
        )


def read_state(workload: Workload, read: Mapping[str, Any]) -> WorkloadState:
    """Read a workload from the API's JSON; counts that are zero are left out there."""
    spec, status = read["spec"], read.get("status") or {}
    is_daemon = workload.kind is WorkloadKind.DAEMONSET
    names = (
        ("desiredNumberScheduled", "currentNumberScheduled", "updatedNumberScheduled",
         "numberAvailable")
        if is_daemon
        else ("", "replicas", "updatedReplicas", "availableReplicas")
    )  # fmt: skip
    counts = [int(status.get(name) or 0) for name in names]
    told = {one["type"]: one for one in status.get("conditions") or []}
    revision = value_at(dict(read), REVISION_OF[workload.kind])
    mark = value_at(dict(read), TEMPLATE_MARK)
    observed = int(status.get("observedGeneration") or 0)
    return WorkloadState(
        wanted=counts[0] if is_daemon else int(spec.get("replicas", 1)),
        pods=counts[1],
        updated=counts[2],
        available=counts[3],
        is_observed=observed >= int(read["metadata"]["generation"]),
        is_late=(told.get("Progressing") or {}).get("reason") == TOO_LATE,
        revision="" if revision is MISSING else str(revision),
        mark="" if mark is MISSING else str(mark),
        hold=_hold(workload, spec),
    )


def _hold(workload: Workload, spec: Mapping[str, Any]) -> str:
    if spec.get("paused"):
        return "its rollouts are paused (spec.paused)"
    strategy = (spec.get("updateStrategy") or {}).get("type", "")
    if workload.kind is not WorkloadKind.DEPLOYMENT and strategy == "OnDelete":
        return "its pods are replaced only when somebody deletes them (updateStrategy OnDelete)"
    partition = ((spec.get("updateStrategy") or {}).get("rollingUpdate") or {}).get("partition")
    if partition:
        return f"only pods from number {partition} on are replaced (rollingUpdate.partition)"
    return ""

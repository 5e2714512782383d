"""The pods of a workload: how each stands, and why one is not ready."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from blocks.kube.session import KubernetesSession
from blocks.kube.text import pointer_to
from tasks.workloads.target import Workload

MARK = "recovery-pipelines.io/restarted-by"
MARK_POINTER = pointer_to("metadata", "annotations", MARK)
NEVER_STARTED = {
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
    "ErrImageNeverPull",
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
    "Unschedulable",
    "SchedulingGated",
}


@dataclass(frozen=True)
class PodSeen:
    """A pod. `causes` say why it is not ready, as `container: reason`; none where it is."""

    name: str
    uid: str
    mark: str
    is_ready: bool
    is_terminating: bool
    images: dict[str, str]
    restarts: int
    causes: list[str]


def read_pod(pod: Mapping[str, Any]) -> PodSeen:
    """Read a pod from the API's JSON."""
    meta, status = pod["metadata"], pod.get("status") or {}
    told = {one["type"]: one for one in status.get("conditions") or []}
    containers = [*(status.get("initContainerStatuses") or []), *containers_of(pod)]
    is_ready = (told.get("Ready") or {}).get("status") == "True"
    return PodSeen(
        meta["name"],
        meta["uid"],
        str((meta.get("annotations") or {}).get(MARK, "")),
        is_ready,
        "deletionTimestamp" in meta,
        {one["name"]: str(one.get("imageID") or "") for one in containers_of(pod)},
        sum(int(one.get("restartCount") or 0) for one in containers),
        [] if is_ready else _causes(status, told, containers),
    )


def is_history(pod: Mapping[str, Any]) -> bool:
    """Whether a pod is history: one that was evicted stays listed, and another took its place.

    One that is deleted and has ended is so too: nothing of it runs any more.
    """
    return (pod.get("status") or {}).get("phase") in {"Failed", "Succeeded"}


def containers_of(pod: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """What the kubelet says of the containers, init containers left out."""
    return (pod.get("status") or {}).get("containerStatuses") or []


def pods_of(session: KubernetesSession, workload: Workload) -> list[PodSeen]:
    """The pods of a workload, also those that are going; sorted by name."""
    listed = session.objects(workload.pods_path, labels=workload.selector)
    return sorted((read_pod(pod) for pod in listed), key=lambda pod: pod.name)


def _causes(
    status: Mapping[str, Any],
    told: Mapping[str, Mapping[str, Any]],
    containers: Sequence[Mapping[str, Any]],
) -> list[str]:
    """Why a pod is not ready, the last end of a container before its waiting for the next start."""
    if status.get("reason"):
        return [f"pod: {status['reason']}"]
    scheduled = told.get("PodScheduled") or {}
    if scheduled.get("status") == "False":
        return [f"pod: {scheduled.get('reason', 'Unschedulable')}"]
    causes = []
    for one in containers:
        state, last = one.get("state") or {}, one.get("lastState") or {}
        waiting = (state.get("waiting") or {}).get("reason", "")
        ended = (last.get("terminated") or state.get("terminated")) or {}
        if waiting in NEVER_STARTED:
            causes.append(f"{one['name']}: {waiting}")
        elif ended and not one.get("ready"):
            causes.append(
                f"{one['name']}: {ended.get('reason')}, exit code {ended.get('exitCode')}"
            )
        elif not one.get("ready"):
            causes.append(f"{one['name']}: {waiting or 'not ready'}")
    return causes or ["pod: not started"]


def reason_of(cause: str) -> str:
    """The reason in a cause, without its container."""
    return cause.partition(": ")[2]

"""What is kept of a workload before it is changed, and handed over when that did not help."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from blocks.kube.answer import ClusterForbidden, ClusterNotFound, ClusterRejected
from blocks.kube.path import path_of
from blocks.kube.session import KubernetesSession, LogOrder
from recovery.secrecy.redaction import redacted_head
from recovery.steps import probe
from tasks.workloads.pods import PodSeen, containers_of, read_pod
from tasks.workloads.state import read_state
from tasks.workloads.target import Workload, WorkloadOrder

PODS_MAX = 6  # those that are not ready first; the others say the same
LINES_KEPT = 15
TAIL_LINES = 500
EVENTS_MAX = 20


@dataclass(frozen=True)
class Captured:
    """How a workload stood, with the ends of its logs; the journal has 4,000 characters of each.

    Attributes:
        state: of the workload.
        pods: of the workload.
        events: of the workload, its pods and whatever else of the namespace is named after it.
        logs: the last lines of each container's log, by `pod/container`, `(previous)` behind it.
        settings: names of what the containers read their settings from; no values.
    """

    state: str
    pods: list[PodSeen]
    events: list[str]
    logs: dict[str, list[str]]
    settings: list[str]


@probe
def captured(order: WorkloadOrder, workload: Workload) -> Captured:
    """State, pods, events, logs and previous logs; what may not be read is named.

    Raises:
        Unreachable: the API gave no answer.

    Runbook: docs/runbooks/restart-service.md, step 2.
    """
    with order.cluster.session() as session:
        read = session.get(workload.path)
        pods = session.objects(workload.pods_path, labels=workload.selector)
        logs: dict[str, list[str]] = {}
        for pod in sorted(pods, key=lambda one: read_pod(one).is_ready)[:PODS_MAX]:
            logs.update(_logs_of(session, pod))
        return Captured(
            str(read_state(workload, read)),
            [read_pod(pod) for pod in pods],
            _events(session, workload),
            logs,
            _settings(read),
        )


def _logs_of(session: KubernetesSession, pod: Mapping[str, Any]) -> dict[str, list[str]]:
    logs = {}
    name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
    for one in containers_of(pod):
        ran_before = bool((one.get("lastState") or {}).get("terminated"))
        for is_previous in (False, True) if ran_before else (False,):
            shown = f"{name}/{one['name']}{' (previous)' if is_previous else ''}"
            order = LogOrder(one["name"], is_previous, TAIL_LINES)
            try:
                lines = session.logs(namespace, name, order).splitlines()
            except (ClusterRejected, ClusterNotFound, ClusterForbidden) as error:
                lines = [f"not to be had: {error.tail}"]
            logs[shown] = lines[-LINES_KEPT:]
    return logs


def _events(session: KubernetesSession, workload: Workload) -> list[str]:
    """Events are kept for an hour by default: that there is none proves nothing."""
    try:
        listed = session.objects(path_of("v1", "events", namespace=workload.namespace))
    except ClusterForbidden as error:
        return [f"not to be had: {error.tail}"]
    mine = [
        one
        for one in listed
        if str((one.get("involvedObject") or {}).get("name", "")).startswith(workload.name)
    ]
    mine.sort(key=lambda one: str(one.get("lastTimestamp") or one.get("eventTime") or ""))
    return [
        f"{one['involvedObject'].get('kind')}/{one['involvedObject'].get('name')} "
        f"{one.get('reason')}: {said} (x{one.get('count') or 1})"
        for one in mine[-EVENTS_MAX:]
        for said in [redacted_head(str(one.get("message")), 300)]
    ]


def _settings(read: Mapping[str, Any]) -> list[str]:
    names = []
    for container in read["spec"]["template"]["spec"].get("containers") or []:
        names += [f"env {one['name']}" for one in container.get("env") or []]
        for one in container.get("envFrom") or []:
            names += [
                f"{kind} {source['name']}" for kind, source in one.items() if kind != "prefix"
            ]
    return sorted(set(names))

"""Who reads a key: workloads that are restarted for it, and what else must be told of."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from blocks.kube.access import USER_AGENT
from blocks.kube.answer import ClusterForbidden
from blocks.kube.path import path_of
from blocks.kube.session import KubernetesSession
from tasks.settings.contents import set_by_name
from tasks.settings.order import ConfigOrder, ObjectKind
from tasks.settings.readers import Reading, reading_of
from tasks.workloads.interference import interference_with
from tasks.workloads.pods import MARK, is_history, read_pod
from tasks.workloads.state import read_state
from tasks.workloads.target import VERSION, Workload, WorkloadKind, selector_of
from tasks.workloads.triage import Due, Found

OF_WORKLOADS = {"ReplicaSet", "StatefulSet", "DaemonSet", "Job"}


@dataclass(frozen=True)
class Consumer:
    """A workload that reads the key, as it was found. `has_it` says that all its pods are newer."""

    found: Found
    ways: list[str]
    shadowed: list[str]
    has_it: bool

    @property
    def workload(self) -> Workload:
        """The workload."""
        return self.found.workload

    def __str__(self) -> str:
        """As kubectl writes it: it names the steps about it."""
        return str(self.workload)


@dataclass
class Others:
    """Whether other objects have a key, each read once."""

    session: KubernetesSession
    order: ConfigOrder
    told: list[str] = field(default_factory=list)
    _keys: dict[tuple[ObjectKind, str], set[str]] = field(default_factory=dict)

    def have(self, kind: ObjectKind, name: str, key: str) -> bool:
        """Whether this object has it; one that may not be read is told of."""
        if (kind, name) not in self._keys:
            path = path_of("v1", kind.resource, name, namespace=self.order.namespace)
            try:
                read = self.session.find(path) or {}
            except ClusterForbidden:
                read = {}
                self.told.append(f"{kind}/{name} may not be read: it may shadow {self.order.key}")
            self._keys[kind, name] = set(read.get("data") or {})
        return key in self._keys[kind, name]


def consumers_of(
    session: KubernetesSession, order: ConfigOrder, read: Mapping[str, Any]
) -> tuple[list[Consumer], list[str]]:
    """The workloads that read the key, by name, and what else does, in words.

    Args:
        session: an open session.
        order: which key of which object.
        read: the object.
    """
    others = Others(session, order)
    consumers = []
    for kind in WorkloadKind:
        try:
            listed = session.objects(path_of(VERSION, kind.resource, namespace=order.namespace))
        except ClusterForbidden:
            if kind is WorkloadKind.DEPLOYMENT:
                raise
            others.told.append(f"{kind.resource} may not be listed: some may read it")
            continue
        for one in listed:
            reading = reading_of(order, one["spec"]["template"]["spec"], others.have)
            if reading.ways or reading.shadowed:
                consumers.append(_consumer(session, order, read, (kind, one), reading))
    told = [*_jobs_and_pods(session, order, others), *others.told]
    return sorted(consumers, key=str), told


def key_owner(read: Mapping[str, Any], key: str) -> tuple[str, str]:
    """Who wrote a key last, and when it last wrote to the object; empty where nobody can tell."""
    for entry in (read.get("metadata") or {}).get("managedFields") or []:
        if f"f:{key}" in ((entry.get("fieldsV1") or {}).get("f:data") or {}):
            return str(entry.get("manager") or ""), str(entry.get("time") or "")
    return "", ""


def is_newer(pod: Mapping[str, Any], order: ConfigOrder, read: Mapping[str, Any]) -> bool:
    """Whether a pod was made after the key was written.

    The times of the API are whole seconds, so the same second is none of proof; the mark of the
    recovery that wrote the key is, while nobody else has written it.
    """
    manager, written_at = key_owner(read, order.key)
    meta = pod["metadata"]
    set_by = (read["metadata"].get("annotations") or {}).get(set_by_name(order), "")
    mark = (meta.get("annotations") or {}).get(MARK, "")
    if manager == USER_AGENT and set_by and mark == set_by:
        return True
    return bool(written_at) and str(meta["creationTimestamp"]) > written_at


def _consumer(
    session: KubernetesSession,
    order: ConfigOrder,
    read: Mapping[str, Any],
    found: tuple[WorkloadKind, Mapping[str, Any]],
    reading: Reading,
) -> Consumer:
    kind, one = found
    meta = one["metadata"]
    selector = selector_of(one["spec"]["selector"])
    workload = Workload(kind, meta["namespace"], meta["name"], meta["uid"], selector)
    listed = session.objects(workload.pods_path, labels=selector)
    pods = [pod for pod in listed if not is_history(pod)]
    has_it = all(is_newer(pod, order, read) for pod in pods)
    state = read_state(workload, one)
    others = [str(each) for each in interference_with(session, workload, one)]
    seen = sorted((read_pod(pod) for pod in pods), key=lambda pod: pod.name)
    due = Due.NOTHING if has_it else Due.RESTART
    return Consumer(
        Found(due, workload, state, seen, others), reading.ways, reading.shadowed, has_it
    )


def _jobs_and_pods(session: KubernetesSession, order: ConfigOrder, others: Others) -> list[str]:
    told = []
    version = session.served_version("batch", "v1", "v1beta1")
    try:
        for one in session.objects(path_of(version, "cronjobs", namespace=order.namespace)):
            spec = one["spec"]["jobTemplate"]["spec"]["template"]["spec"]
            if reading_of(order, spec, others.have).ways:
                told.append(f"cronjob/{one['metadata']['name']} reads it at its next run")
    except ClusterForbidden:
        told.append("cronjobs may not be listed: those read it at their next run")
    for pod in session.objects(path_of("v1", "pods", namespace=order.namespace)):
        owners = [one["kind"] for one in pod["metadata"].get("ownerReferences") or []]
        if not reading_of(order, pod["spec"], others.have).ways:
            continue
        if "Job" in owners and pod.get("status", {}).get("phase") == "Running":
            told.append(f"pod/{pod['metadata']['name']} of a Job goes on with what it read")
        elif not set(owners) & OF_WORKLOADS:
            told.append(f"pod/{pod['metadata']['name']} is of no workload: replace it by hand")
    return told

"""How a container stands, why it is restarted, and every reason not to change it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from blocks.kube.answer import ClusterForbidden
from blocks.kube.path import Asked, path_of
from blocks.kube.session import KubernetesSession
from recovery.errors import Refused
from recovery.steps import decision
from tasks.containers import resources
from tasks.containers.causes import Cause, Ending, ending_of
from tasks.containers.change import Change
from tasks.containers.order import Accepted, ContainerOrder
from tasks.containers.preflight import Asking, refuse_without_room
from tasks.containers.probes import (
    BY_PROBE,
    probe_changes,
    refuse_if_late_by_itself,
    refuse_unless_probes_restart_it,
    starting_seconds,
)
from tasks.workloads.interference import Interferer, interference_with
from tasks.workloads.pods import PodSeen, is_history, read_pod
from tasks.workloads.state import read_state
from tasks.workloads.target import Workload, WorkloadKind, find_workload
from tasks.workloads.triage import Due, Found

QUIET_SECONDS_MIN, QUIET_SECONDS_MAX = 60, 1800
TAKEN_BACK_BY = {
    Interferer.ARGO_CD: Accepted.ARGO_CD,
    Interferer.FLUX: Accepted.FLUX,
    Interferer.HELM: Accepted.HELM,
    Interferer.OPERATOR: Accepted.OPERATOR,
}
INSTEAD = {
    Cause.NONE: "It was not restarted: see restart-service, or the caller's side",
    Cause.OUT_OF_MEMORY: "raise-resources with memory_limit mends that",
    Cause.LIVENESS: "relax-probes mends that, or raise-resources with cpu_limit if it is throttled",
    Cause.STARTUP: "relax-probes with startup_seconds mends that",
    Cause.READINESS: "That restarts nothing: see what its probe answers, and restart-service",
    Cause.APPLICATION: "Its previous log says why: hand it to L3 with `recover bundle`",
    Cause.CRASH: "It crashed: hand its previous log to L3 with `recover bundle`",
    Cause.COMMAND: "Correct its command, or its image",
    Cause.TERMINATED: "See the events of the pod and its node: a rollout, a drain or an eviction",
    Cause.KILLED: "See the events of the pod and its node, and its kubelet's log",
    Cause.NODE: "Its node ran out: see the node's conditions, and what the others there ask for",
    Cause.NOT_STARTED: "Mend what it waits for: an image, a ConfigMap or Secret, room on a node",
}


@dataclass(frozen=True)
class ContainerFound:
    """A container as it was found, and what is to be changed of it; nothing where it is so.

    Attributes:
        service: the workload.
        container: its name.
        place: `containers`, or `initContainers` for a sidecar.
        index: its number there.
        changes: what makes it as it is asked to be.
        endings: how it ended last, in each pod.
        quiet_seconds: how long it is then watched.
        told: who else changes the workload, and what else was seen.
    """

    service: Found
    container: str
    place: str
    index: int
    changes: list[Change]
    endings: list[Ending]
    quiet_seconds: int
    told: list[str]

    @property
    def workload(self) -> Workload:
        """The workload."""
        return self.service.workload

    @property
    def root(self) -> str:
        """Where the container stands in its workload."""
        return f"/spec/template/spec/{self.place}/{self.index}"

    @property
    def in_the_way(self) -> list[PodSeen]:
        """Pods of a StatefulSet that are not ready: it replaces none before they are."""
        if self.workload.kind is not WorkloadKind.STATEFULSET:
            return []
        return [pod for pod in self.service.pods if not pod.is_ready and not pod.is_terminating]

    @property
    def seen(self) -> str:
        """How it stood, in a line."""
        ends = "; ".join(map(str, self.endings)) or "no pod"
        return f"{self.service.state}; {self.container}: {ends}"


@decision
def container_found(order: ContainerOrder) -> ContainerFound:
    """The container, why it is restarted, and what is changed of it.

    Raises:
        Refused: there is no such workload or container, what is asked for would not mend what
            restarts it, somebody would take it back, or the pods would not be let in.
        ClusterForbidden, ClusterLoginRefused, Unreachable: see there.

    Runbook: docs/runbooks/restarting-containers.md, steps 1 to 4.
    """
    with order.cluster.session() as session:
        workload = find_workload(session, order.workload_order)
        read = session.get(workload.path)
        pods = session.objects(workload.pods_path, labels=workload.selector)
        place, index = _place_of(order, read)
        container = read["spec"]["template"]["spec"][place][index]
        endings, told = _endings(session, workload, pods, container["name"])
        changes = _changes(order, container)
        state = read_state(workload, read)
        alive = [read_pod(pod) for pod in pods if not is_history(pod)]
        seen = sorted(alive, key=lambda pod: pod.name)
        others = interference_with(session, workload, read)
        service = Found(Due.RESTART, workload, state, seen, [str(one) for one in others])
        found = ContainerFound(
            service,
            container["name"],
            place,
            index,
            changes,
            endings,
            order.quiet_seconds or quiet_seconds(container, endings),
            [*service.others, *told],
        )
        if not changes and state.is_out and all(pod.is_ready for pod in seen):
            return replace(found, service=replace(service, due=Due.NOTHING))
        _refuse_held(order, found)
        asking = Asking(read, pods, container["name"], place, index)
        _refuse_other_cause(order, found, container, asking.running, _used(session, found))
        if not changes:
            reason = f"the values that are asked for are there already: {found.seen}"
            raise Refused(order.label, reason, "Ask for more")
        refuse_if_late_by_itself(order, read)
        for one in others:
            accepted = TAKEN_BACK_BY.get(one.who)
            if accepted is not None and accepted not in order.accept:
                reason = f"it is not ours alone: {one}"
                remedy = f"Change it where that comes from; accept={accepted} changes it here too"
                raise Refused(order.label, reason, remedy)
        _refuse_unless_it_can_be_cleared(session, order, found)
        told_room = refuse_without_room(session, order, workload, asking)
    return replace(found, told=[*found.told, *told_room])


def quiet_seconds(container: Mapping[str, Any], endings: Sequence[Ending]) -> int:
    """How long no restart proves that it is mended: twice as long as it lived, or may start."""
    longest = max([starting_seconds(container), *(one.lived_seconds for one in endings)])
    return max(QUIET_SECONDS_MIN, min(QUIET_SECONDS_MAX, 2 * longest))


def _place_of(order: ContainerOrder, read: Mapping[str, Any]) -> tuple[str, int]:
    spec = read["spec"]["template"]["spec"]
    places = [
        (place, index, one)
        for place in ("containers", "initContainers")
        for index, one in enumerate(spec.get(place) or [])
    ]
    names = ", ".join(one["name"] for _, _, one in places)
    if not order.container:
        if len(spec["containers"]) > 1:
            reason = f"its pods have several containers: {names}"
            raise Refused(order.label, reason, "Name the one that is restarted as container")
        return "containers", 0
    for place, index, one in places:
        if one["name"] != order.container:
            continue
        if place == "initContainers" and one.get("restartPolicy") != "Always":
            reason = f"{order.container} runs once, before the others: nothing restarts it there"
            raise Refused(order.label, reason, "See its log; mend what it waits for")
        return place, index
    raise Refused(order.label, f"it has no container {order.container}", f"It has {names}")


def _changes(order: ContainerOrder, container: Mapping[str, Any]) -> list[Change]:
    if order.resources.is_memory or order.resources.is_cpu:
        return resources.resource_changes(order, container)
    return probe_changes(order, container)


def _endings(
    session: KubernetesSession,
    workload: Workload,
    pods: Sequence[Mapping[str, Any]],
    container: str,
) -> tuple[list[Ending], list[str]]:
    told = []
    try:
        listed = session.objects(path_of("v1", "events", namespace=workload.namespace))
    except ClusterForbidden as error:
        listed, told = [], [f"the account may not look at events ({error.command})"]
    by_uid: dict[str, list[Mapping[str, Any]]] = {}
    for event in listed:
        uid = str((event.get("involvedObject") or {}).get("uid") or "")
        by_uid.setdefault(uid, []).append(event)
    endings = [
        ending_of(pod, container, by_uid.get(pod["metadata"]["uid"], []))
        for pod in sorted(pods, key=lambda one: str(one["metadata"]["name"]))
        if "deletionTimestamp" not in pod["metadata"]
    ]
    return endings, told


def _refuse_unless_it_can_be_cleared(
    session: KubernetesSession, order: ContainerOrder, found: ContainerFound
) -> None:
    asked = Asked("delete", "", "pods", namespace=found.workload.namespace)
    if found.in_the_way and not session.may(asked):
        names = ", ".join(pod.name for pod in found.in_the_way)
        reason = f"{names} would hold up {found.workload}, and the account may not {asked}"
        remedy = f"Have this granted and bound to it, then begin again:\n{asked.rule}\n"
        raise Refused(order.label, reason, remedy)


def _refuse_held(order: ContainerOrder, found: ContainerFound) -> None:
    if found.service.state.wanted == 0:
        reason = f"nothing is wanted of {found.workload}: it is scaled to 0"
        raise Refused(order.label, reason, "Find out who scaled it down and why")
    if found.service.state.hold:
        remedy = "Have whoever set that end it, then begin again"
        raise Refused(order.label, found.service.state.hold, remedy)


def _refuse_other_cause(
    order: ContainerOrder,
    found: ContainerFound,
    container: Mapping[str, Any],
    running: Mapping[str, Any],
    used: Sequence[str],
) -> None:
    """Refuse what would not mend the cause; where the cause is not known, unless it is accepted."""
    wish = order.resources
    memory = [one for one in found.endings if one.cause is Cause.OUT_OF_MEMORY]
    by_probe = [one for one in found.endings if one.cause in BY_PROBE]
    if wish.is_memory and memory:
        resources.refuse_unless_memory_ends_it(order, running, memory)
    elif wish.is_cpu and by_probe:
        resources.refuse_unless_throttled(order, running, by_probe, used)
    elif not wish.is_memory and not wish.is_cpu and by_probe:
        refuse_unless_probes_restart_it(order, container, by_probe)
    else:
        _refuse_cause(order, found.endings)


def _refuse_cause(order: ContainerOrder, endings: Sequence[Ending]) -> None:
    unknown = [one for one in endings if not one.cause.is_proven]
    if unknown and Accepted.CAUSE_NOT_KNOWN in order.accept:
        return
    worst = max(endings, key=lambda one: (one.cause is not Cause.NONE, one.restarts), default=None)
    if worst is None:
        reason, remedy = "it has no pod, so that nothing tells what restarts it", "See its events"
        raise Refused(order.label, reason, remedy)
    accept = ""
    if unknown:
        accept = (
            f". Events are kept for an hour: where you know the cause, "
            f"accept={Accepted.CAUSE_NOT_KNOWN}"
        )
    raise Refused(
        order.label,
        f"what is asked for would not mend it: {'; '.join(map(str, endings[:5]))}",
        INSTEAD[worst.cause] + accept,
    )


def _used(session: KubernetesSession, found: ContainerFound) -> list[str]:
    """The CPU that the container uses in each pod; none where nobody measures it."""
    version = session.served_version("metrics.k8s.io")
    if not version:
        return []
    path = path_of(version, "pods", namespace=found.workload.namespace)
    try:
        listed = session.objects(path, labels=found.workload.selector)
    except ClusterForbidden:
        return []
    return [
        str(container["usage"]["cpu"])
        for pod in listed
        for container in pod.get("containers") or []
        if container["name"] == found.container and "cpu" in (container.get("usage") or {})
    ]

"""On which nodes a pod with the volume could run: zones, affinities, taints, the CSI driver."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from blocks.kube.path import path_of
from blocks.kube.session import KubernetesSession
from recovery.errors import Refused
from recovery.steps import probe
from tasks.volumes.target import VolumeOrder, volume_path
from tasks.volumes.triage import Found
from tasks.workloads.target import selector_of

HOLDS_OFF = {"NoSchedule", "NoExecute"}
SHOWN_MAX = 10


@dataclass(frozen=True)
class Wish:
    """One thing that a node must satisfy: any of these terms. `why` names it to the operator."""

    why: str
    terms: list[dict[str, Any]]


@probe
def refuse_unless_a_node_fits(order: VolumeOrder, found: Found) -> None:
    """Refuse a volume that no node could use for this workload.

    A node must be ready and take pods, and lie where the volume, the other volumes of the pod and
    the pods it must be beside are; and the volume's driver must run there.

    Raises:
        Refused: there is no such node; says what keeps each wish apart.

    Runbook: docs/runbooks/released-volume.md, step 2.
    """
    with order.cluster.session() as session:
        spec = session.get(found.workload.path)["spec"]["template"]["spec"]
        nodes = session.objects(path_of("v1", "nodes"))
        ready = [one for one in nodes if takes_pods(one, spec.get("tolerations") or [])]
        wishes = [
            *_volume_wish(session, found.volume.name),
            *_other_volumes(session, order, found, spec),
            *pod_wishes(spec),
            *_beside(session, found.workload.namespace, spec, nodes),
        ]
        left, told = ready, []
        for wish in wishes:
            kept = [one for one in left if fits(one, wish.terms)]
            told.append(f"{wish.why}: {len(kept)} of {len(left)} nodes")
            left = kept
        if not left:
            raise Refused(
                order.label,
                f"no node could run a pod with volume {found.volume.name}: "
                f"{len(ready)} of {len(nodes)} nodes take pods; {'; '.join(told)}",
                "A volume cannot be moved: make room where it lies (uncordon, add a node, move "
                "what must be beside it), or restore its contents to a volume elsewhere",
            )
        _refuse_without_driver(session, order, found, [one["metadata"]["name"] for one in left])


def takes_pods(node: Mapping[str, Any], tolerations: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a node is ready and no taint holds a pod with these tolerations off."""
    spec, status = node.get("spec") or {}, node.get("status") or {}
    told = {one["type"]: one["status"] for one in status.get("conditions") or []}
    if spec.get("unschedulable") or told.get("Ready") != "True":
        return False
    taints = [one for one in spec.get("taints") or [] if one.get("effect") in HOLDS_OFF]
    return all(any(_tolerates(one, taint) for one in tolerations) for taint in taints)


def _tolerates(toleration: Mapping[str, Any], taint: Mapping[str, Any]) -> bool:
    if toleration.get("effect") not in {None, "", taint["effect"]}:
        return False
    if toleration.get("operator", "Equal") == "Exists":
        return toleration.get("key") in {None, "", taint["key"]}
    mine = (toleration.get("key"), toleration.get("value") or "")
    return mine == (taint["key"], taint.get("value") or "")


def fits(node: Mapping[str, Any], terms: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a node satisfies any of the terms of a node selector; no term at all: none."""
    labels = node["metadata"].get("labels") or {}
    fields = {"metadata.name": node["metadata"]["name"]}
    return any(
        all(_holds(one, labels) for one in term.get("matchExpressions") or [])
        and all(_holds(one, fields) for one in term.get("matchFields") or [])
        for term in terms
        if term.get("matchExpressions") or term.get("matchFields")
    )


def _holds(wanted: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    value, values = labels.get(wanted["key"]), list(wanted.get("values") or [])
    match wanted["operator"]:
        case "In":
            return value in values
        case "NotIn":
            return value not in values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case "Gt" | "Lt" if value is not None and value.isdigit() and values[0].isdigit():
            is_more = int(value) > int(values[0])
            return is_more if wanted["operator"] == "Gt" else int(value) < int(values[0])
    return False


def _volume_wish(session: KubernetesSession, name: str) -> list[Wish]:
    read = session.find(volume_path(name)) or {}
    required = ((read.get("spec") or {}).get("nodeAffinity") or {}).get("required") or {}
    terms = required.get("nodeSelectorTerms")
    return [Wish(f"where volume {name} lies", terms)] if terms else []


def _other_volumes(
    session: KubernetesSession, order: VolumeOrder, found: Found, spec: Mapping[str, Any]
) -> list[Wish]:
    """Where the other volumes of the pod lie, but for the one that gives way."""
    wishes = []
    for index, one in enumerate(spec.get("volumes") or []):
        claim = (one.get("persistentVolumeClaim") or {}).get("claimName")
        if claim is None or (found.pointing is not None and index == found.pointing.index):
            continue
        read = session.find(order.claim_path(claim)) or {}
        if name := (read.get("spec") or {}).get("volumeName"):
            wishes += _volume_wish(session, str(name))
    return wishes


def pod_wishes(spec: Mapping[str, Any]) -> list[Wish]:
    """What a pod itself asks of its node."""
    wishes = []
    if selector := spec.get("nodeSelector"):
        wanted = [{"key": n, "operator": "In", "values": [v]} for n, v in selector.items()]
        wishes.append(Wish("nodeSelector of the pods", [{"matchExpressions": wanted}]))
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {}
    if terms := required.get("nodeSelectorTerms"):
        wishes.append(Wish("nodeAffinity of the pods", terms))
    return wishes


def _beside(
    session: KubernetesSession,
    namespace: str,
    spec: Mapping[str, Any],
    nodes: Sequence[Mapping[str, Any]],
) -> list[Wish]:
    """Where the pods run that these must be beside, as Grafana beside its database."""
    affinity = (spec.get("affinity") or {}).get("podAffinity") or {}
    labels = {one["metadata"]["name"]: one["metadata"].get("labels") or {} for one in nodes}
    wishes = []
    for term in affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or []:
        key, selector = term["topologyKey"], selector_of(term.get("labelSelector") or {})
        places: set[str] = set()
        for each in term.get("namespaces") or [namespace]:
            pods = session.objects(path_of("v1", "pods", namespace=each), labels=selector)
            on = [labels.get(one["spec"].get("nodeName", ""), {}).get(key) for one in pods]
            places |= {value for value in on if value is not None}
        if places:  # where none runs yet, the first of them may go anywhere
            wanted = {"key": key, "operator": "In", "values": sorted(places)}
            why = f"beside pods {selector} ({key} {', '.join(sorted(places))})"
            wishes.append(Wish(why, [{"matchExpressions": [wanted]}]))
    return wishes


def _refuse_without_driver(
    session: KubernetesSession, order: VolumeOrder, found: Found, names: Sequence[str]
) -> None:
    driver = found.volume.driver
    if not driver:
        return
    listed = session.objects(path_of("storage.k8s.io/v1", "csinodes"))
    having = {
        one["metadata"]["name"]
        for one in listed
        if any(d.get("name") == driver for d in (one.get("spec") or {}).get("drivers") or [])
    }
    if not having & set(names):
        where = ", ".join(sorted(having)[:SHOWN_MAX]) or "no node at all"
        raise Refused(
            order.label,
            f"the CSI driver {driver} of volume {found.volume.name} runs on {where}, and the pods "
            f"could run on {', '.join(names[:SHOWN_MAX])}",
            "Install the driver, or see why its node plugin does not run there",
        )

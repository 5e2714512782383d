"""Which workload is meant: by kind and name, in a namespace of a cluster."""

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum
from typing import Any

from blocks.kube.answer import ClusterForbidden
from blocks.kube.cluster import KubernetesCluster
from blocks.kube.path import path_of
from blocks.kube.session import KubernetesSession
from recovery.errors import BadInput, Refused

VERSION = "apps/v1"
SHOWN_MAX = 20
GATEWAY = "gateway"


class WorkloadKind(StrEnum):
    """What runs pods and can be restarted, as kubectl writes it before the slash."""

    DEPLOYMENT = "deployment"
    STATEFULSET = "statefulset"
    DAEMONSET = "daemonset"

    @property
    def resource(self) -> str:
        """Its name in paths."""
        return f"{self}s"


@dataclass(frozen=True)
class WorkloadOrder:
    """What a recovery of a workload was asked for. The label is what it leases."""

    cluster: KubernetesCluster
    namespace: str
    kind: WorkloadKind | None
    name: str
    within_seconds: int = 600

    @property
    def label(self) -> str:
        """The workload, by whichever kind it was named."""
        return f"{self.cluster.label}/{self.namespace}/{self.name}"


@dataclass(frozen=True)
class Workload:
    """A workload that was found. `selector` is what its pods are listed by."""

    kind: WorkloadKind
    namespace: str
    name: str
    uid: str
    selector: str

    @property
    def path(self) -> str:
        """Where the API has it."""
        return path_of(VERSION, self.kind.resource, self.name, namespace=self.namespace)

    @property
    def pods_path(self) -> str:
        """Where the API has its pods, and others of the namespace."""
        return path_of("v1", "pods", namespace=self.namespace)

    def __str__(self) -> str:
        """As kubectl writes it."""
        return f"{self.kind}/{self.name}"


def workload_order(
    cluster: str, workload: str, namespace: str = "", within_seconds: int = 600
) -> WorkloadOrder:
    """Read the parameters of a recovery: `registry`, `deployment/registry`, `statefulset/db`.

    Raises:
        BadInput: one is malformed, or the kind is none that is restarted.
    """
    kind, slash, name = workload.strip().rpartition("/")
    kinds = {str(one): one for one in WorkloadKind}
    if slash and kind.lower().removesuffix("s") not in kinds:
        raise BadInput("workload", f"{kind!r} is no kind of workload", f"Known: {', '.join(kinds)}")
    if not name:
        raise BadInput("workload", "it is empty: empty means none, never all", "Give one name")
    if within_seconds < 1:
        raise BadInput("within_seconds", f"{within_seconds}", "Give at least 1")
    block = KubernetesCluster.named(cluster)
    meant = kinds[kind.lower().removesuffix("s")] if slash else None
    return WorkloadOrder(block, block.namespace_of(namespace), meant, name, within_seconds)


def workload_target(cluster: str, workload: str, namespace: str = "") -> str:
    """What a recovery of this workload leases; errors are those of `workload_order`."""
    return workload_order(cluster, workload, namespace).label


def find_workload(session: KubernetesSession, order: WorkloadOrder) -> Workload:
    """The workload that is meant.

    Raises:
        Refused: there is no such namespace or workload, or several of this name; says what there
            is. A `gateway` that is none leads to the Ingress that plays its part.
        ClusterForbidden, Unreachable: as of `KubernetesSession.get`.
    """
    kinds = [order.kind] if order.kind else list(WorkloadKind)
    found = []
    for kind in kinds:
        path = path_of(VERSION, kind.resource, order.name, namespace=order.namespace)
        if (read := _find_if_allowed(session, path, is_only=len(kinds) == 1)) is not None:
            found.append(_workload(kind, read))
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(map(str, found))
        raise Refused(order.label, f"there are {len(found)} of this name", f"Name one: {names}")
    _refuse_missing_namespace(session, order)
    known = _names(session, order.namespace)
    if order.name == GATEWAY:
        raise Refused(
            order.label, "no workload plays the gateway here", _ingress_told(session, order)
        )
    near = get_close_matches(order.name, [n.rpartition("/")[2] for n in known], 3, 0.5)
    there = f"The nearest are {', '.join(near)}" if near else f"There is {_some(known)}"
    raise Refused(order.label, f"namespace {order.namespace} has no such workload", there)


def _find_if_allowed(
    session: KubernetesSession, path: str, *, is_only: bool
) -> Mapping[str, Any] | None:
    """A kind that the Role of a recovery does not grant is not the one that is meant."""
    try:
        return session.find(path)
    except ClusterForbidden:
        if is_only or WorkloadKind.DEPLOYMENT.resource in path:
            raise
        return None


def selector_of(selector: Mapping[str, Any]) -> str:
    """A label selector as a query has it."""
    parts = [
        f"{name}={value}" for name, value in sorted((selector.get("matchLabels") or {}).items())
    ]
    for one in selector.get("matchExpressions") or []:
        values = ",".join(one.get("values") or [])
        forms = {
            "In": f"{one['key']} in ({values})",
            "NotIn": f"{one['key']} notin ({values})",
            "Exists": one["key"],
            "DoesNotExist": f"!{one['key']}",
        }
        parts.append(forms[one["operator"]])
    return ",".join(parts)


def _workload(kind: WorkloadKind, read: Mapping[str, Any]) -> Workload:
    meta = read["metadata"]
    selector = selector_of(read["spec"]["selector"])
    return Workload(kind, meta["namespace"], meta["name"], meta["uid"], selector)


def _refuse_missing_namespace(session: KubernetesSession, order: WorkloadOrder) -> None:
    try:
        if session.find(path_of("v1", "namespaces", order.namespace)) is not None:
            return
        known = [one["metadata"]["name"] for one in session.objects(path_of("v1", "namespaces"))]
    except ClusterForbidden:  # a Role reaches no further than its namespace, which then is there
        return
    near = get_close_matches(order.namespace, known, 3, 0.5)
    there = f"The nearest are {', '.join(near)}" if near else f"There is {_some(known)}"
    raise Refused(order.label, f"there is no namespace {order.namespace}", there)


def _names(session: KubernetesSession, namespace: str) -> list[str]:
    names = []
    for kind in WorkloadKind:
        try:
            listed = session.objects(path_of(VERSION, kind.resource, namespace=namespace))
        except ClusterForbidden:
            continue
        names += [f"{kind}/{one['metadata']['name']}" for one in listed]
    return names


def _some(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN_MAX} more" if len(names) > SHOWN_MAX else ""
    return (", ".join(names[:SHOWN_MAX]) or "none at all") + more


def _ingress_told(session: KubernetesSession, order: WorkloadOrder) -> str:
    """The Ingresses of the namespace and what they lead to: on Kubernetes they are the gateway."""
    path = path_of("networking.k8s.io/v1", "ingresses", namespace=order.namespace)
    told = []
    for one in session.objects(path):
        backends = [
            (place.get("backend") or {}).get("service", {}).get("name", "?")
            for rule in (one.get("spec") or {}).get("rules") or []
            for place in (rule.get("http") or {}).get("paths") or []
        ]
        told.append(f"{one['metadata']['name']} leads to {', '.join(backends) or 'nothing'}")
    found = "; ".join(told) or "and there is no Ingress in this namespace either"
    return (
        f"On Kubernetes the Ingress is the gateway: {found}. Restart the service behind the path "
        "that fails, and look at the pods of the Ingress controller"
    )

"""Which self-hosted component is to be rescued, and how it stands."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from blocks.kube.cluster import KubernetesCluster
from blocks.kube.path import path_of
from blocks.kube.session import KubernetesSession
from recovery.errors import BadInput, Refused
from recovery.steps import decision
from tasks.certificates.catalogue import Component
from tasks.certificates.proof import LEASE_AGE_MAX_SECONDS
from tasks.workloads.rights import Rule, refuse_missing

RULES: tuple[Rule, ...] = (("", "pods", ("get", "list", "watch", "create", "delete")),)
LEASE_VERSION = "coordination.k8s.io/v1"
CONTROL_PLANE = "node-role.kubernetes.io/control-plane"


@dataclass(frozen=True)
class RescueOrder:
    """What was asked for. The label is what it leases."""

    cluster: KubernetesCluster
    namespace: str
    component: Component
    node: str
    within_seconds: int

    @property
    def label(self) -> str:
        """The Deployment."""
        return f"{self.cluster.label}/{self.namespace}/{self.component}"

    @property
    def deployment_path(self) -> str:
        """Where the API has it."""
        return path_of("apps/v1", "deployments", str(self.component), namespace=self.namespace)

    @property
    def lease_path(self) -> str:
        """Where the API has its Lease."""
        return path_of(LEASE_VERSION, "leases", str(self.component), namespace=self.namespace)

    @property
    def pods_path(self) -> str:
        """Where the API has pods of its namespace."""
        return path_of("v1", "pods", namespace=self.namespace)

    @property
    def rescue_name(self) -> str:
        """The pod that stands in for it."""
        return f"{self.component}-rescue"


@dataclass(frozen=True)
class Rescue:
    """The pod that stands in, on which node, and why it is needed."""

    node: str
    spec: dict[str, Any]
    why: str


def rescue_order(
    cluster: str, component: Component, namespace: str, node: str, within_seconds: int
) -> RescueOrder:
    """Read the parameters.

    Raises:
        BadInput: one is malformed.
    """
    if within_seconds < 1:
        raise BadInput("within_seconds", f"{within_seconds} is no time", "Give 1 or more")
    block = KubernetesCluster.named(cluster)
    return RescueOrder(block, namespace or "kube-system", component, node.strip(), within_seconds)


@decision(none_is_fine=True)
def rescue_due(order: RescueOrder) -> list[Rescue]:
    """The pod that has to stand in; none where the Deployment runs, or its Lease is kept.

    Raises:
        Refused: there is no such Deployment, it is scaled to 0, no node can take its pod, or the
            account may not do what follows.
        ClusterForbidden, Unreachable: see there.

    Runbook: docs/runbooks/control-plane-leaders.md, "Self-hosted".
    """
    with order.cluster.session() as session:
        deployment = session.find(order.deployment_path)
        if deployment is None:
            raise Refused(
                order.label,
                "there is no such Deployment: it does not run self-hosted",
                f"Where it is a static pod: `recover run recover-{_short(order)}`",
            )
        why = why_rescued(deployment, lease_age_seconds(session, order))
        if not why:
            return []
        if deployment["spec"].get("replicas", 1) == 0:
            remedy = f"`kubectl -n {order.namespace} scale deployment {order.component} --replicas"
            raise Refused(
                order.label, "it is scaled to 0", f"Scale it up: {remedy}=2`, then resume"
            )
        refuse_missing(session, order, f"rescue-{_short(order)}", RULES)
        spec = deployment["spec"]["template"]["spec"]
        node = node_for(order, spec, session.objects(path_of("v1", "nodes")))
    return [Rescue(node, stand_in_spec(spec, node), why)]


def _short(order: RescueOrder) -> str:
    return order.component.removeprefix("kube-")


def lease_age_seconds(session: KubernetesSession, order: RescueOrder) -> float | None:
    """How long ago the Lease was renewed, by the worker's clock; `None` where it never was."""
    lease = session.find(order.lease_path)
    renewed = str(((lease or {}).get("spec") or {}).get("renewTime") or "")
    if not renewed:
        return None
    return (datetime.now(UTC) - datetime.fromisoformat(renewed)).total_seconds()


def why_rescued(deployment: Mapping[str, Any], lease_age: float | None) -> str:
    """Why a pod has to stand in; empty where nobody has to.

    One that runs although its Lease is old is another cause, and one whose Lease is kept is led by
    somebody, whatever its Deployment says.
    """
    available = int((deployment.get("status") or {}).get("availableReplicas") or 0)
    if available or (lease_age is not None and lease_age <= LEASE_AGE_MAX_SECONDS):
        return ""
    seen = "never" if lease_age is None else f"{lease_age:.0f} s ago"
    return f"no replica is available, and its lease was renewed {seen}"


def node_for(
    order: RescueOrder, spec: Mapping[str, Any], nodes: Sequence[Mapping[str, Any]]
) -> str:
    """The node that the pod is put on without a scheduler: Ready, and one it is meant for.

    Raises:
        Refused: there is none, or the one that was named cannot take it.
    """
    wanted = (spec.get("nodeSelector") or {}).items()
    fitting = [
        node
        for node in nodes
        if _is_ready(node) and wanted <= (node["metadata"].get("labels") or {}).items()
    ]
    fitting.sort(key=lambda node: CONTROL_PLANE not in (node["metadata"].get("labels") or {}))
    names = [str(node["metadata"]["name"]) for node in fitting]
    if order.node and order.node not in names:
        known = ", ".join(names) or "none"
        why = f"the node {order.node} is not Ready, or not one its nodeSelector wants"
        raise Refused(order.label, why, f"Name one of: {known}")
    if not names:
        remedy = "Bring a control-plane node back first: see `kubectl get nodes`"
        raise Refused(order.label, "no node is Ready that its nodeSelector wants", remedy)
    return order.node or names[0]


def _is_ready(node: Mapping[str, Any]) -> bool:
    conditions = (node.get("status") or {}).get("conditions") or ()
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def stand_in_spec(spec: Mapping[str, Any], node: str) -> dict[str, Any]:
    """The Deployment's own pod, put on a node past the scheduler."""
    own = deepcopy(dict(spec))
    own.pop("schedulerName", None)
    return {**own, "nodeName": node}

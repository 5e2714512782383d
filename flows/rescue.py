"""Rescue a self-hosted controller manager or scheduler: one that runs as a Deployment."""

from dataclasses import dataclass

from blocks.kube.cluster import ClusterParameter
from recovery.declare import recovery
from tasks.certificates.catalogue import Component
from tasks.rescue import standing_in
from tasks.rescue.order import rescue_due, rescue_order


@dataclass(frozen=True)
class Rescued:
    """Why a pod had to stand in, on which node it did, and how many replicas run now."""

    why: str
    node: str
    available: int
    lease: str


@recovery(
    runbook="docs/runbooks/control-plane-leaders.md",
    target=lambda cluster, namespace: (
        rescue_order(cluster, Component.CONTROLLER_MANAGER, namespace, "", 1).label
    ),
)
def rescue_controller_manager(
    cluster: ClusterParameter,
    namespace: str = "kube-system",
    node: str = "",
    within_seconds: int = 300,
) -> Rescued:
    """Start a self-hosted controller manager past itself: without one no Deployment makes pods.

    A pod of its own template stands in on a node until its Deployment runs, and is then removed.

    Args:
        cluster: kubeconfig:///path?context=NAME, in-cluster:, or the name of a saved block.
        namespace: Where its Deployment and its Lease are.
        node: Node that the pod is put on; empty takes a control-plane node that is Ready.
        within_seconds: How long each pod may take to come up.

    Runbook: docs/runbooks/control-plane-leaders.md, "Self-hosted".
    """
    return _rescued(cluster, Component.CONTROLLER_MANAGER, namespace, node, within_seconds)


@recovery(
    runbook="docs/runbooks/control-plane-leaders.md",
    target=lambda cluster, namespace: (
        rescue_order(cluster, Component.SCHEDULER, namespace, "", 1).label
    ),
)
def rescue_scheduler(
    cluster: ClusterParameter,
    namespace: str = "kube-system",
    node: str = "",
    within_seconds: int = 300,
) -> Rescued:
    """Start a self-hosted scheduler past itself: without one its own pods are placed nowhere.

    A pod of its own template stands in on a node until its Deployment runs, and is then removed.

    Args:
        cluster: kubeconfig:///path?context=NAME, in-cluster:, or the name of a saved block.
        namespace: Where its Deployment and its Lease are.
        node: Node that the pod is put on; empty takes a control-plane node that is Ready.
        within_seconds: How long each pod may take to come up.

    Runbook: docs/runbooks/control-plane-leaders.md, "Self-hosted".
    """
    return _rescued(cluster, Component.SCHEDULER, namespace, node, within_seconds)


def _rescued(
    cluster: str, component: Component, namespace: str, node: str, within_seconds: int
) -> Rescued:
    """Look, stand in, wait for the Deployment, step back."""
    order = rescue_order(cluster, component, namespace, node, within_seconds)
    due = rescue_due(order)
    if not due:
        return Rescued("", "", 0, "")
    (rescue,) = due
    standing_in.start_stand_in(order, rescue)
    standing_in.lease_is_kept(order, "with the pod that stands in")
    available = standing_in.own_pods_run(order)
    standing_in.remove_stand_in(order)
    lease = standing_in.lease_is_kept(order, "without it")
    return Rescued(rescue.why, rescue.node, available, lease)

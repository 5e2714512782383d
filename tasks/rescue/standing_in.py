"""The pod that stands in for a self-hosted component until its Deployment runs again."""

import time
from collections.abc import Sequence
from typing import Any

from blocks.kube import text
from blocks.kube.session import KubernetesSession
from blocks.kube.text import Object, Operation
from blocks.kube.watch import wait_for
from recovery.errors import NotVerified, Refused
from recovery.steps import act, undo, verify
from recovery.verdict import Verdict
from recovery.walk import current_fence
from tasks.certificates.proof import LEASE_AGE_MAX_SECONDS
from tasks.jobs.template import RECOVERY_LABEL
from tasks.rescue.order import Rescue, RescueOrder, lease_age_seconds
from tasks.workloads.pods import is_history, read_pod

PAUSE_SECONDS = 1.0


def rescue_path(order: RescueOrder) -> str:
    """Where the API has the pod."""
    return f"{order.pods_path}/{order.rescue_name}"


def rescue_body(order: RescueOrder, rescue: Rescue) -> dict[str, Any]:
    """The pod as it is created: without the labels by which the Deployment would adopt it."""
    labels = {RECOVERY_LABEL: current_fence().recovery_id}
    metadata = {"name": order.rescue_name, "labels": labels}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": rescue.spec}


def of_this_recovery() -> list[Operation]:
    """What holds for the pod of this recovery alone."""
    where = text.pointer_to("metadata", "labels", RECOVERY_LABEL)
    return [text.tested(where, current_fence().recovery_id)]


def _is_ours(pod: Object) -> bool:
    labels = pod["metadata"].get("labels") or {}
    return bool(labels.get(RECOVERY_LABEL) == current_fence().recovery_id)


def removal_text(order: RescueOrder) -> str:
    """What deletes the pod."""
    return text.delete_where_text(rescue_path(order), of_this_recovery())


def stands_in(order: RescueOrder) -> Verdict:
    """Whether the pod of this recovery runs; half done where it is there and does not."""
    with order.cluster.session() as session:
        read = session.find(rescue_path(order))
    if read is None or not _is_ours(read):
        return Verdict.NOT_DONE
    return Verdict.DONE if read_pod(read).is_ready else Verdict.HALF_DONE


def is_gone(order: RescueOrder) -> Verdict:
    """Whether the pod is gone."""
    with order.cluster.session() as session:
        return Verdict.of(session.find(rescue_path(order)) is None)


def refuse_if_another_stands_in(order: RescueOrder) -> None:
    """Refuse where a pod of that name is not of this recovery.

    Raises:
        Refused: it is somebody else's.
    """
    with order.cluster.session() as session:
        read = session.find(rescue_path(order))
    if read is not None and not _is_ours(read):
        raise Refused(
            order.label,
            f"there is a pod {order.rescue_name} that is not of this recovery",
            f"See whose it is; resume that recovery, or delete it: `kubectl -n {order.namespace} "
            f"delete pod {order.rescue_name}`",
        )


@undo
def stand_in_removed(order: RescueOrder) -> None:
    """Delete the pod, where it is there."""
    with order.cluster.session() as session:
        _remove(session, order)


@act(
    commands=lambda order, rescue: [
        removal_text(order),  # of one that has ended
        text.create_text(order.pods_path, rescue_body(order, rescue)),
    ],
    done_when=stands_in,
    refuse_if=(refuse_if_another_stands_in,),
    undo=stand_in_removed,
    lasts_until="remove_stand_in",
    redo_half_done=True,
)
def start_stand_in(order: RescueOrder, rescue: Rescue) -> None:
    """Start the Deployment's own pod under another name, on a node, past the scheduler.

    The Deployment and its ReplicaSets are not touched, and do not adopt it. Done twice, the second
    does nothing.

    Raises:
        NotVerified: it does not run in time.
        ClusterRejected, ClusterForbidden, Unreachable: see there.

    Runbook: docs/runbooks/control-plane-leaders.md, "Self-hosted".
    """
    with order.cluster.session() as session:
        there = session.find(rescue_path(order))
        if there is not None and is_history(there):
            _remove(session, order)
            there = None
        if there is None:
            session.create(order.pods_path, rescue_body(order, rescue))
        seen = ["nothing yet"]

        def is_ready(pods: Sequence[Object]) -> bool | None:
            for pod in pods:
                about = read_pod(pod)
                seen[:] = about.causes
                if about.is_ready:
                    return True
            return None

        fields, within = f"metadata.name={order.rescue_name}", order.within_seconds
        if not wait_for(session, order.pods_path, is_ready, fields=fields, within_seconds=within):
            raise NotVerified(
                order.label,
                f"pod {order.rescue_name} to run on {rescue.node}",
                "; ".join(seen),
                f"See `kubectl -n {order.namespace} describe pod {order.rescue_name}`: what keeps "
                "it from running keeps the Deployment's own. Mend that, then resume or undo",
            )


@act(commands=lambda order: [removal_text(order)], done_when=is_gone)
def remove_stand_in(order: RescueOrder) -> None:
    """Delete the pod, so that one of the Deployment's own leads. Done twice does nothing more.

    Raises:
        NotVerified: it is still there.
        ClusterConflict, ClusterForbidden, Unreachable: see there.

    Runbook: docs/runbooks/control-plane-leaders.md, "Self-hosted".
    """
    with order.cluster.session() as session:
        _remove(session, order)


def _remove(session: KubernetesSession, order: RescueOrder) -> None:
    if session.find(rescue_path(order)) is None:
        return
    session.delete_where(rescue_path(order), of_this_recovery())

    def are_gone(pods: Sequence[Object]) -> bool | None:
        return None if pods else True

    fields, within = f"metadata.name={order.rescue_name}", order.within_seconds
    if not wait_for(session, order.pods_path, are_gone, fields=fields, within_seconds=within):
        raise NotVerified(order.label, f"pod {order.rescue_name} to be gone", "it is there")


@verify
def own_pods_run(order: RescueOrder) -> int:
    """How many replicas of the Deployment are available: one at least.

    Raises:
        NotVerified: none in time; the pod that stands in goes on doing so.
        ClusterForbidden, Unreachable: see there.

    Runbook: docs/runbooks/control-plane-leaders.md, "Self-hosted".
    """
    ends = time.monotonic() + order.within_seconds
    while True:
        with order.cluster.session() as session:
            status = session.get(order.deployment_path).get("status") or {}
        if available := int(status.get("availableReplicas") or 0):
            return available
        if time.monotonic() >= ends:
            raise NotVerified(
                order.label,
                "a replica of its Deployment to be available",
                "none is",
                f"{order.rescue_name} does its work meanwhile. See `kubectl -n {order.namespace} "
                f"describe deployment {order.component}`, mend that, then resume",
            )
        time.sleep(PAUSE_SECONDS)


@verify(each=("when",))
def lease_is_kept(order: RescueOrder, when: str) -> str:
    """How long ago its Lease was renewed: just now.

    Args:
        order: the component.
        when: with the pod that stands in, or without it.

    Raises:
        NotVerified: nobody renews it.
        ClusterForbidden, Unreachable: see there.

    Runbook: docs/runbooks/control-plane-leaders.md, "Self-hosted".
    """
    ends = time.monotonic() + order.within_seconds
    while True:
        with order.cluster.session() as session:
            age = lease_age_seconds(session, order)
        if age is not None and age <= LEASE_AGE_MAX_SECONDS:
            return f"{when}: {age:.0f} s ago"
        if time.monotonic() >= ends:
            raise NotVerified(
                order.label,
                "its lease to be renewed",
                "never" if age is None else f"{age:.0f} s ago",
                f"See the logs of the pods of {order.component}: mostly it may not, or does not "
                "reach the API. Mend that, then resume",
            )
        time.sleep(PAUSE_SECONDS)

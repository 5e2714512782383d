"""Waiting until a volume is let go, and until it is bound: both sides are looked at."""

from collections.abc import Sequence

from blocks.kube.answer import ClusterForbidden
from blocks.kube.path import path_of
from blocks.kube.session import KubernetesSession
from blocks.kube.text import Object
from blocks.kube.watch import wait_for
from recovery.errors import NotVerified
from recovery.steps import verify
from tasks.volumes.target import VolumeOrder
from tasks.volumes.triage import Found
from tasks.volumes.volume import BOUND, read_claim, read_volume

EVENTS_MAX = 3


@verify
def is_detached(order: VolumeOrder, found: Found) -> str:
    """That no node has the volume, nor the one that gives way, attached any more.

    Raises:
        NotVerified: a node still has; says which.
        Unreachable: the API gave no answer up to the deadline.

    Runbook: docs/runbooks/released-volume.md, step 4.
    """
    mine = {found.volume.name, found.replaced.volume if found.replaced else ""}
    left: list[str] = []

    def are_gone(listed: Sequence[Object]) -> bool | None:
        left[:] = [
            f"{one['spec']['nodeName']} ({name})"
            for one in listed
            if (name := (one["spec"].get("source") or {}).get("persistentVolumeName")) in mine
        ]
        return None if left else True

    path, within = path_of("storage.k8s.io/v1", "volumeattachments"), order.within_seconds
    with order.cluster.session() as session:
        if wait_for(session, path, are_gone, within_seconds=within):
            return "attached to no node"
    raise NotVerified(
        order.label,
        f"no node to have the volume within {within} s",
        ", ".join(left),
        "A node that is gone lets go after six minutes; never take it from one that may run",
    )


@verify
def is_bound(order: VolumeOrder, found: Found) -> str:
    """That claim and volume are bound to each other, by name and by uid.

    Raises:
        NotVerified: they are not; says how each stands, and why.
        Unreachable: the API gave no answer up to the deadline.

    Runbook: docs/runbooks/released-volume.md, step 8.
    """
    named, within = f"metadata.name={found.claim}", order.within_seconds
    with order.cluster.session() as session:

        def are_both(listed: Sequence[Object]) -> bool | None:
            claims = [read_claim(one) for one in listed]
            if not claims or (claims[0].phase, claims[0].volume) != (BOUND, order.volume):
                return None
            volume = read_volume(session.get(order.path))
            is_its = volume.reference.get("uid") == claims[0].uid
            return True if is_its and volume.phase == BOUND else None

        is_done = wait_for(
            session, order.claims_path, are_both, fields=named, within_seconds=within
        )
        volume = read_volume(session.get(order.path))
        if is_done:
            return f"{volume.name} is bound to {order.namespace}/{found.claim}"
        read = session.find(order.claim_path(found.claim))
        seen = "not there" if read is None else f"{read_claim(read).phase}"
        raise NotVerified(
            order.label,
            f"claim {found.claim} and volume {order.volume} bound to each other in {within} s",
            f"the claim is {seen}, the volume is {volume}. {_told(session, order, found)}",
            "Mend what the event names, then resume; no other claim can take the volume meanwhile",
        )


def _told(session: KubernetesSession, order: VolumeOrder, found: Found) -> str:
    path = path_of("v1", "events", namespace=order.namespace)
    try:
        about = session.objects(path, fields=f"involvedObject.name={found.claim}")
    except ClusterForbidden:
        return "Its events may not be read"
    told = [f"{one.get('reason')}: {one.get('message')}" for one in about[-EVENTS_MAX:]]
    return "; ".join(told) or "It has no event"

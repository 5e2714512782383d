"""Reasons not to reuse a volume, each asked before the first act."""

from blocks.kube.path import path_of
from blocks.kube.session import KubernetesSession
from recovery.errors import Refused
from recovery.steps import probe
from tasks.volumes.target import VolumeOrder, volume_path
from tasks.volumes.triage import Found
from tasks.volumes.volume import AVAILABLE, BOUND, RELEASED, RETAIN, VolumeSeen, read_volume
from tasks.workloads.interference import Interferer
from tasks.workloads.target import WorkloadKind

TAKES_BACK = {
    Interferer.ARGO_CD,
    Interferer.FLUX,
    Interferer.OPERATOR,
    Interferer.KEDA,
    Interferer.NOT_KNOWN,
}
DELETE = "Delete"


@probe
def refuse_unless_released(order: VolumeOrder, found: Found) -> None:
    """Refuse a volume that is not released, is going, or would not outlive its claim.

    One that an earlier reuse has set aside for this very claim, and left the workload stopped, is
    gone on with.

    Raises:
        Refused: it is; says in which phase, and whose it is.

    Runbook: docs/runbooks/released-volume.md, step 2.
    """
    volume = found.volume
    if volume.is_terminating:
        remedy = "It goes once nothing holds it: save what is on the disk by its provider, now"
        raise Refused(order.label, f"volume {volume} is being deleted", remedy)
    is_its = volume.is_of(order.namespace, found.claim) and found.replaced is None
    is_gone_on_with = is_its and found.is_stopped and volume.phase in {AVAILABLE, BOUND}
    if volume.phase != RELEASED and not is_gone_on_with:
        remedy = {
            BOUND: "Its claim is there: use that one, or release the volume first",
            AVAILABLE: "It was given free for any claim: make a claim with its volumeName",
            "Failed": "Its provider could not reclaim it: see its status.message",
        }.get(volume.phase, "See its status")
        raise Refused(order.label, f"volume {volume} is not Released", remedy)
    if volume.policy != RETAIN:
        raise Refused(
            order.label,
            f"volume {volume.name} has the reclaim policy {volume.policy}: with its claim its data "
            "would go",
            f"Set it to Retain first: kubectl patch pv {volume.name} -p "
            '\'{"spec":{"persistentVolumeReclaimPolicy":"Retain"}}\'',
        )


@probe
def refuse_unless_confirmed(order: VolumeOrder, found: Found) -> None:
    """Refuse a volume that nobody has confirmed to be the right one.

    Several may have been of the same claim: age and contents tell them apart, and only a person
    knows which is meant.

    Raises:
        Refused: what was confirmed is not what the volume was; says what it was, and of the others.

    Runbook: docs/runbooks/released-volume.md, step 2.
    """
    volume = found.volume
    if order.confirm == volume.was:
        return
    also = "; ".join(found.others_of_claim)
    others = f". Others were of the same claim: {also}" if also else ""
    given = f", and {order.confirm!r} was confirmed" if order.confirm else ""
    raise Refused(
        order.label,
        f"volume {volume} was of claim {volume.was}{given}{others}",
        f"If it is the one that is meant, give confirm='{volume.was}'",
    )


@probe
def refuse_if_taken_back(order: VolumeOrder, found: Found) -> None:
    """Refuse while somebody else would take the change back, and nobody accepted that by name.

    Raises:
        Refused: somebody would; says who, and what makes the change last.

    Runbook: docs/runbooks/released-volume.md, step 2.
    """
    against = [
        one
        for one in found.others
        if (one.who in TAKES_BACK or (one.who is Interferer.HELM and found.changes_template))
        and f"{one.who}:{one.name}" not in order.accept
    ]
    if against:
        names = ", ".join(f"{one.who}:{one.name}" for one in against)
        raise Refused(
            order.label,
            "; ".join(map(str, against)),
            "Have it hold still, and set the claim there as well (a chart's "
            f"persistence.existingClaim: {found.claim}); then accept {names}",
        )


@probe
def refuse_if_claim_is_taken(order: VolumeOrder, found: Found) -> None:
    """Refuse a name that another claim has, or to replace a claim that nobody accepted by name.

    Raises:
        Refused: there is one, or it would take its volume with it when it goes.

    Runbook: docs/runbooks/released-volume.md, step 2.
    """
    other = found.replaced
    if other is None:
        return
    if found.workload.kind is not WorkloadKind.STATEFULSET:
        raise Refused(
            order.label,
            f"there is a claim {found.claim} already ({other.phase}, volume {other.volume})",
            "Give another name as claim, or none",
        )
    refuse_unless_kept(order, found)
    if f"replaced-claim:{other.name}" not in order.accept:
        volume = other.volume or "none"
        raise Refused(
            order.label,
            f"claim {other.name} (volume {volume}) gives way; what was written there since is kept "
            "on its volume, and no longer seen",
            f"If that is meant, accept replaced-claim:{other.name}",
        )


def refuse_unless_kept(order: VolumeOrder, found: Found) -> None:
    """Refuse to remove a claim whose volume would go with it.

    Raises:
        Refused: it would, or that cannot be told.
    """
    if found.replaced is None or not found.replaced.volume:
        return
    with order.cluster.session() as session:
        read = session.find(volume_path(found.replaced.volume))
    policy = "not to be told, as it is not there" if read is None else read_volume(read).policy
    if policy != RETAIN:
        name = found.replaced.volume
        raise Refused(
            order.label,
            f"the reclaim policy of volume {name}, of claim {found.replaced.name}, is {policy}",
            f"Set it to Retain first: kubectl patch pv {name} -p "
            '\'{"spec":{"persistentVolumeReclaimPolicy":"Retain"}}\'',
        )


@probe
def refuse_if_scaling_deletes(order: VolumeOrder, found: Found) -> None:
    """Refuse to scale a StatefulSet down that deletes the claims of its pods then.

    Raises:
        Refused: its persistentVolumeClaimRetentionPolicy says so.

    Runbook: docs/runbooks/released-volume.md, step 2.
    """
    with order.cluster.session() as session:
        read = session.get(found.workload.path)
    policy = read["spec"].get("persistentVolumeClaimRetentionPolicy") or {}
    deletes = sorted(when for when, what in policy.items() if what == DELETE)
    if deletes:
        raise Refused(
            order.label,
            f"{found.workload} deletes its claims ({', '.join(deletes)} is Delete)",
            "Set its persistentVolumeClaimRetentionPolicy to Retain, then resume",
        )


@probe
def refuse_if_attached(order: VolumeOrder, found: Found) -> None:
    """Refuse a volume that is still attached to a node, where something may write to it.

    Raises:
        Refused: it is; says to which node.

    Runbook: docs/runbooks/released-volume.md, step 2.
    """
    if found.volume.phase == BOUND:  # by an earlier attempt: its own pods may have it
        return
    with order.cluster.session() as session:
        nodes = attached_to(session, found.volume)
    if nodes:
        raise Refused(
            order.label,
            f"volume {found.volume.name} is still attached to {', '.join(nodes)}",
            "A node that is gone lets go after six minutes; otherwise find out which pod has it",
        )


def attached_to(session: KubernetesSession, *volumes: VolumeSeen | str) -> list[str]:
    """The nodes that volumes are attached to."""
    names = {one if isinstance(one, str) else one.name for one in volumes}
    listed = session.objects(path_of("storage.k8s.io/v1", "volumeattachments"))
    return sorted(
        str(one["spec"]["nodeName"])
        for one in listed
        if (one["spec"].get("source") or {}).get("persistentVolumeName") in names
    )

"""Binding a released volume to a claim that nobody else can take, and the ways back.

The reference of the volume to its claim is never cleared: it would be free for any claim, and a
pending one takes it within seconds. It is turned to the new claim in one patch instead.
"""

from typing import Any

from blocks.kube import text
from blocks.kube.session import KubernetesSession
from blocks.kube.text import Operation
from blocks.kube.watch import wait_for
from recovery.errors import NotVerified, Refused
from recovery.steps import act, undo
from recovery.verdict import Verdict
from tasks.volumes.preflight import refuse_unless_kept
from tasks.volumes.target import VolumeOrder, volume_path
from tasks.volumes.triage import Found
from tasks.volumes.volume import (
    BOUND,
    RELEASED,
    RETAIN,
    ClaimSeen,
    claim_of,
    read_claim,
    read_volume,
)

REFERENCE = "/spec/claimRef"


def reference_to(order: VolumeOrder, claim: str) -> dict[str, str]:
    """A reference that keeps a volume for the next claim of this name."""
    where = {"namespace": order.namespace, "name": claim}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", **where}


def set_aside_operations(order: VolumeOrder, found: Found) -> list[Operation]:
    """Turn the reference to the new claim, if the volume is still released by the old one."""
    return [
        *text.tests(uid=found.volume.uid),
        text.tested("/status/phase", RELEASED),
        text.tested(f"{REFERENCE}/uid", found.volume.reference.get("uid", "")),
        {"op": "replace", "path": REFERENCE, "value": reference_to(order, found.claim)},
    ]


def is_set_aside(order: VolumeOrder, found: Found) -> Verdict:
    """Whether the volume is kept for the claim, or bound to it."""
    with order.cluster.session() as session:
        volume = read_volume(session.get(order.path))
        claim = _claim(session, order, found.claim)
    uid = volume.reference.get("uid", "")
    is_its = not uid or (claim is not None and claim.uid == uid)
    return Verdict.of(volume.is_of(order.namespace, found.claim) and is_its)


@undo
def reference_put_back(order: VolumeOrder, found: Found) -> None:
    """Give the volume the reference it had; it is Released again.

    Raises:
        Refused: it stays bound, since its claim could not be removed.
        ClusterConflict: it is of another claim by now.
    """
    with order.cluster.session() as session:
        volume = read_volume(session.get(order.path))
        if volume.reference == found.volume.reference:
            return
        if _claim(session, order, found.claim) or not _is_let_go(session, order):
            remedy = f"Remove claim {found.claim} first, then undo again"
            raise Refused(order.label, f"volume {volume} is bound", remedy)
        operations: list[Operation] = [
            *text.tests(uid=found.volume.uid),
            text.tested(f"{REFERENCE}/namespace", order.namespace),
            text.tested(f"{REFERENCE}/name", found.claim),
            {"op": "replace", "path": REFERENCE, "value": found.volume.reference},
        ]
        session.patch(order.path, operations)


@act(
    commands=lambda order, found: [text.patch_text(order.path, set_aside_operations(order, found))],
    done_when=is_set_aside,
    undo=reference_put_back,
    redo_stale=False,
)
def set_volume_aside(order: VolumeOrder, found: Found) -> None:
    """Keep the volume for the one claim that is made next; no other can take it.

    Its data is not touched. Done twice, the second does nothing.

    Raises:
        ClusterConflict: it is not released any more, or by another claim.
        ClusterForbidden, ClusterRejected: see there.
        Unreachable: no answer.

    Runbook: docs/runbooks/released-volume.md, step 6.
    """
    with order.cluster.session() as session:
        session.patch(order.path, set_aside_operations(order, found))


def has_claim(order: VolumeOrder, found: Found) -> Verdict:
    """Whether the claim is there and names the volume."""
    with order.cluster.session() as session:
        claim = _claim(session, order, found.claim)
    return Verdict.of(claim is not None and claim.volume == found.volume.name)


@undo
def claim_removed(order: VolumeOrder, found: Found) -> None:
    """Remove the claim on the volume, whose data stays; wait until it is gone.

    Raises:
        Refused: the volume would go with it.
        NotVerified: a pod still uses it.
    """
    with order.cluster.session() as session:
        claim = _claim(session, order, found.claim)
        if claim is None or claim.volume != found.volume.name:
            return
        policy = read_volume(session.get(order.path)).policy
        if policy != RETAIN:
            remedy = "Set it to Retain, then undo again"
            raise Refused(order.label, f"the reclaim policy of {order.volume} is {policy}", remedy)
        session.delete(order.claim_path(claim.name), claim.uid)
        _wait_until_gone(session, order, claim)


@act(
    commands=lambda order, found: [text.create_text(order.claims_path, _body(order, found))],
    done_when=has_claim,
    undo=claim_removed,
    redo_stale=False,
)
def create_claim(order: VolumeOrder, found: Found) -> None:
    """Make the claim that the volume is kept for.

    Done twice, the second does nothing.

    Raises:
        ClusterConflict: there is another claim of this name by now.
        ClusterForbidden, ClusterRejected: see there; a quota, for one.
        Unreachable: no answer.

    Runbook: docs/runbooks/released-volume.md, step 7.
    """
    with order.cluster.session() as session:
        session.create(order.claims_path, _body(order, found))


def has_given_way(order: VolumeOrder, found: Found) -> Verdict:
    """Whether the claim that was found in the place is gone; half done: it is going."""
    with order.cluster.session() as session:
        claim = _claim(session, order, found.claim)
    if claim is None or found.replaced is None or claim.volume == found.volume.name:
        return Verdict.DONE
    is_going = claim.uid == found.replaced.uid and claim.is_terminating
    return Verdict.HALF_DONE if is_going else Verdict.NOT_DONE


@undo
def replaced_claim_made_again(order: VolumeOrder, found: Found) -> None:
    """Make the claim of before again, bound to the volume it had.

    Raises:
        ClusterConflict: its volume is of another claim by now.
    """
    replaced = found.replaced
    if replaced is None:
        return
    with order.cluster.session() as session:
        if _claim(session, order, replaced.name) is not None:
            return
        if replaced.volume:
            path = volume_path(replaced.volume)
            volume = read_volume(session.get(path))
            if volume.reference.get("uid", "") == replaced.uid:
                operations: list[Operation] = [
                    *text.tests(uid=volume.uid),
                    text.tested(f"{REFERENCE}/uid", replaced.uid),
                    {"op": "replace", "path": REFERENCE, "value": reference_to(order, found.claim)},
                ]
                session.patch(path, operations)
        session.create(order.claims_path, _again(order, replaced))


@act(
    commands=lambda order, found: [
        text.delete_text(order.claim_path(found.replaced.name), found.replaced.uid)
    ],
    done_when=has_given_way,
    refuse_if=(refuse_unless_kept,),
    undo=replaced_claim_made_again,
    redo_half_done=True,
)
def remove_replaced_claim(order: VolumeOrder, found: Found) -> None:
    """Remove the claim that a StatefulSet has in this place; the data on its volume stays.

    Done twice, the second does nothing.

    Raises:
        NotVerified: a pod still uses it.
        ClusterConflict: it is another claim by now.
        Unreachable: no answer.

    Runbook: docs/runbooks/released-volume.md, step 5.
    """
    if found.replaced is not None:
        with order.cluster.session() as session:
            session.delete(order.claim_path(found.replaced.name), found.replaced.uid)
            _wait_until_gone(session, order, found.replaced)


def _body(order: VolumeOrder, found: Found) -> Any:
    return claim_of(order.namespace, found.claim, found.volume, found.labels)


def _again(order: VolumeOrder, replaced: ClaimSeen) -> Any:
    metadata = {"name": replaced.name, "namespace": order.namespace, "labels": replaced.labels}
    kind = "PersistentVolumeClaim"
    return {"apiVersion": "v1", "kind": kind, "metadata": metadata, "spec": replaced.spec}


def _claim(session: KubernetesSession, order: VolumeOrder, name: str) -> ClaimSeen | None:
    read = session.find(order.claim_path(name))
    return None if read is None else read_claim(read)


def _is_let_go(session: KubernetesSession, order: VolumeOrder) -> bool:
    """Wait until the volume is not bound: its controller sees a moment later that a claim went."""

    def is_free(listed: list[dict[str, Any]]) -> bool | None:
        return None if any(read_volume(one).phase == BOUND for one in listed) else True

    named, within = f"metadata.name={order.volume}", order.within_seconds
    path = order.path.rpartition("/")[0]
    return bool(wait_for(session, path, is_free, fields=named, within_seconds=within))


def _wait_until_gone(session: KubernetesSession, order: VolumeOrder, claim: ClaimSeen) -> None:
    def is_gone(found: list[dict[str, Any]]) -> bool | None:
        return None if claim.uid in {one["metadata"]["uid"] for one in found} else True

    named, within = f"metadata.name={claim.name}", order.within_seconds
    if not wait_for(session, order.claims_path, is_gone, fields=named, within_seconds=within):
        raise NotVerified(
            order.label,
            f"claim {claim.name} gone within {within} s",
            "it is being deleted, and a pod still uses it",
            "Find the pods that use it (kubectl describe pvc), then go on as before",
        )

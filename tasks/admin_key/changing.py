"""Keeping the old volumes, removing the claims by name and uid, and the way back of each."""

from blocks.kube import text
from blocks.kube.path import path_of
from blocks.kube.session import KubernetesSession
from blocks.kube.text import Object, Operation
from blocks.kube.watch import wait_for
from recovery.errors import NotVerified, Refused
from recovery.steps import act, undo
from recovery.verdict import Danger, Verdict
from recovery.walk import current_fence
from tasks.admin_key.finding import LostKeyFound, OldClaim, refuse_unless_agreed
from tasks.admin_key.order import AdminKeyOrder
from tasks.volumes.target import CLAIMS, volume_path
from tasks.volumes.volume import BOUND, RETAIN, read_claim, read_volume
from tasks.workloads.pods import is_history

POLICY = "/spec/persistentVolumeReclaimPolicy"
REFERENCE = "/spec/claimRef"
BIND_SECONDS = 60.0
ENDED = {"Failed", "Succeeded"}


def keep_operations(claim: OldClaim) -> list[Operation]:
    """Let the volume outlive its claim, if it is still the volume of that claim."""
    return [
        *text.tests(uid=claim.volume_uid),
        text.tested(f"{REFERENCE}/uid", claim.uid),
        {"op": "replace", "path": POLICY, "value": RETAIN},
    ]


def is_kept(order: AdminKeyOrder, claim: OldClaim) -> Verdict:
    """Whether the volume outlives its claim."""
    with order.cluster.session() as session:
        volume = read_volume(session.get(volume_path(claim.volume)))
    return Verdict.of(volume.uid == claim.volume_uid and volume.policy == RETAIN)


@undo
def policy_put_back(order: AdminKeyOrder, claim: OldClaim) -> None:
    """Give the volume its former policy, once it is bound to the claim again.

    Raises:
        Refused: it is not, or that claim is being deleted: with Delete, its disk would go.
    """
    path = volume_path(claim.volume)
    with order.cluster.session() as session:
        there = session.find(_claim_path(order, claim))
        is_staying = there is not None and not read_claim(there).is_terminating
        uid = str(there["metadata"]["uid"]) if there is not None and is_staying else ""

        def is_bound(listed: list[Object]) -> bool | None:
            seen = [read_volume(one) for one in listed]
            mine = [one for one in seen if one.phase == BOUND and one.reference.get("uid") == uid]
            return True if mine else None

        named, parent = f"metadata.name={claim.volume}", path.rpartition("/")[0]
        within = BIND_SECONDS if uid else 0.1
        if not wait_for(session, parent, is_bound, fields=named, within_seconds=within):
            state = "is not bound to" if is_staying or there is None else "would go with"
            reason = f"volume {claim.volume} {state} claim {claim.name}, and stays Retain"
            remedy = f"Where its policy {claim.policy} is wanted, set it once the claim has it"
            raise Refused(order.label, reason, remedy)
        back: Operation = {"op": "replace", "path": POLICY, "value": claim.policy}
        tests = [*text.tests(uid=claim.volume_uid), text.tested(f"{REFERENCE}/uid", uid)]
        session.patch(path, [*tests, back])


@act(
    each=("claim",),
    commands=lambda claim: [text.patch_text(volume_path(claim.volume), keep_operations(claim))],
    done_when=is_kept,
    undo=policy_put_back,
    refuse_if=(refuse_unless_agreed,),
)
def keep_volume(order: AdminKeyOrder, claim: OldClaim) -> None:
    """Set the volume of a claim to Retain, so that its disk stays whatever becomes of the claim.

    Done twice, the second does nothing.

    Raises:
        Refused: it is not the time, or only one person wants it.
        ClusterConflict: the volume is of another claim by now.
        ClusterForbidden, Unreachable: see there.

    Runbook: docs/runbooks/lost-admin-key.md, step 5.
    """
    with order.cluster.session() as session:
        session.patch(volume_path(claim.volume), keep_operations(claim))


def refuse_unless_kept(order: AdminKeyOrder, claim: OldClaim) -> None:
    """Refuse to remove a claim whose disk would go with it; a plan cannot know that yet.

    Raises:
        Refused: its volume is not Retain.
    """
    if current_fence().epoch and is_kept(order, claim) is not Verdict.DONE:
        reason = f"the reclaim policy of volume {claim.volume} is not {RETAIN} any more"
        raise Refused(order.label, reason, "Find out who changed it, then resume")


def refuse_while_used(order: AdminKeyOrder, found: LostKeyFound, claim: OldClaim) -> None:
    """Refuse to remove a claim while a pod of the installation is left, or any pod mounts it.

    In a plan there are pods, and nothing is refused.

    Raises:
        Refused: one is, or does.
    """
    if current_fence().epoch == 0:
        return
    with order.cluster.session() as session:
        left = [
            pod["metadata"]["name"]
            for one in (found.client, *found.databases)
            for pod in session.objects(one.pods_path, labels=one.selector)
            if not is_history(pod)
        ]
        mounting = _pods_with(session, order, claim)
    if left:
        remedy = "Somebody scaled it up: find out who, then resume"
        raise Refused(order.label, f"pods are there again: {', '.join(left)}", remedy)
    if mounting:
        reason = f"pods of others mount claim {claim.name}: {', '.join(mounting)}"
        raise Refused(order.label, reason, "Have whoever runs them end them, then resume")


def is_removed(order: AdminKeyOrder, claim: OldClaim) -> Verdict:
    """Whether the claim is gone, and none has its volume again; half done: it is going."""
    with order.cluster.session() as session:
        read = session.find(_claim_path(order, claim))
    if read is None:
        return Verdict.DONE
    if read["metadata"]["uid"] != claim.uid:
        return Verdict.of(read["spec"].get("volumeName") != claim.volume)
    return Verdict.HALF_DONE if read_claim(read).is_terminating else Verdict.NOT_DONE


@undo
def claim_made_again(order: AdminKeyOrder, claim: OldClaim) -> None:
    """Make the claim again, bound to the volume it had; one that is going is waited for.

    Raises:
        Refused: its StatefulSet has made a new one, whose data a person must weigh first, or a pod
            holds the claim that is being deleted.
    """
    with order.cluster.session() as session:
        there = session.find(_claim_path(order, claim))
        if there is not None and read_claim(there).is_terminating:
            _refuse_unless_it_goes(session, order, claim, there["metadata"]["uid"])
            there = session.find(_claim_path(order, claim))
        if there is not None and there["metadata"]["uid"] == claim.uid:
            return
        if there is not None and there["spec"].get("volumeName") == claim.volume:
            return
        if there is not None:
            raise Refused(
                order.label,
                f"claim {claim.name} was made anew, on volume {there['spec'].get('volumeName')}",
                f"Where the data of before is wanted, scale down and run reuse-released-volume for "
                f"volume {claim.volume}",
            )
        path = volume_path(claim.volume)
        if read_volume(session.get(path)).reference.get("uid") == claim.uid:
            kind = {"apiVersion": "v1", "kind": "PersistentVolumeClaim"}
            reference = {**kind, "namespace": order.namespace, "name": claim.name}
            operations: list[Operation] = [
                *text.tests(uid=claim.volume_uid),
                text.tested(f"{REFERENCE}/uid", claim.uid),
                {"op": "replace", "path": REFERENCE, "value": reference},
            ]
            session.patch(path, operations)
        body = {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": claim.name, "labels": claim.labels},
            "spec": claim.spec,
        }
        session.create(_claims_path(order), body)


@act(
    each=("claim",),
    commands=lambda order, claim: [text.delete_text(_claim_path(order, claim), claim.uid)],
    done_when=is_removed,
    refuse_if=(refuse_unless_agreed, refuse_unless_kept, refuse_while_used),
    undo=claim_made_again,
    danger=Danger.DESTRUCTIVE,
    redo_half_done=True,
)
def remove_claim(order: AdminKeyOrder, found: LostKeyFound, claim: OldClaim) -> None:
    """Remove one claim by name and uid; its volume and its disk stay, Released.

    Done twice, the second does nothing. The disks are removed later, by hand.

    Raises:
        Refused: it is not the time, the disk would go too, or a pod is there again.
        NotVerified: something still uses it.
        ClusterConflict: it is another claim by now.
        ClusterForbidden, Unreachable: see there.

    Runbook: docs/runbooks/lost-admin-key.md, step 7.
    """
    del found  # asked by what refuses
    with order.cluster.session() as session:
        session.delete(_claim_path(order, claim), claim.uid)
        if not _is_gone(session, order, claim, claim.uid):
            raise NotVerified(
                order.label,
                f"claim {claim.name} gone within {order.within_seconds} s",
                "it is being deleted, and something still uses it",
                "Find the pods that use it (kubectl describe pvc), then resume",
            )


def _is_gone(
    session: KubernetesSession, order: AdminKeyOrder, claim: OldClaim, uid: str
) -> bool | None:
    """Wait until the claim of this uid is gone; `None` where it stays."""

    def is_gone(listed: list[Object]) -> bool | None:
        return None if uid in {one["metadata"]["uid"] for one in listed} else True

    named, within = f"metadata.name={claim.name}", order.within_seconds
    return wait_for(session, _claims_path(order), is_gone, fields=named, within_seconds=within)


def _refuse_unless_it_goes(
    session: KubernetesSession, order: AdminKeyOrder, claim: OldClaim, uid: str
) -> None:
    if _is_gone(session, order, claim, uid):
        return
    pods = ", ".join(_pods_with(session, order, claim)) or "none"
    raise Refused(
        order.label,
        f"claim {claim.name} is still being deleted; pods that mount it: {pods}",
        "Have those ended; its volume stays Retain, and its disk with it",
    )


def _pods_with(session: KubernetesSession, order: AdminKeyOrder, claim: OldClaim) -> list[str]:
    """Whatever pods of the namespace mount the claim, and have not ended."""
    return [
        pod["metadata"]["name"]
        for pod in session.objects(path_of("v1", "pods", namespace=order.namespace))
        if (pod.get("status") or {}).get("phase") not in ENDED
        and any(
            (one.get("persistentVolumeClaim") or {}).get("claimName") == claim.name
            for one in pod["spec"].get("volumes") or []
        )
    ]


def _claims_path(order: AdminKeyOrder) -> str:
    return path_of("v1", CLAIMS, namespace=order.namespace)


def _claim_path(order: AdminKeyOrder, claim: OldClaim) -> str:
    return path_of("v1", CLAIMS, claim.name, namespace=order.namespace)

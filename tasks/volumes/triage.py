"""What a reuse comes to: which claim, which place in the workload, and whether it is needed."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from blocks.kube.session import KubernetesSession
from blocks.kube.text import Object
from recovery.errors import Refused
from recovery.steps import decision
from tasks.volumes.target import VolumeOrder
from tasks.volumes.volume import (
    BOUND,
    RELEASED,
    ClaimSeen,
    VolumeSeen,
    read_claim,
    read_volume,
)
from tasks.workloads.interference import Interference, interference_with
from tasks.workloads.scaling import REPLICAS
from tasks.workloads.target import Workload, WorkloadKind, find_workload

UID_DIGITS = 8


class Due(StrEnum):
    """What is to be done."""

    NOTHING = "nothing"
    REUSE = "reuse"


@dataclass(frozen=True)
class Pointing:
    """Where a pod template names the claim: the volume at this place, as it is and as it will be.

    Where both are the same, the template needs no change.
    """

    index: int
    before: dict[str, Any]
    after: dict[str, Any]


@dataclass(frozen=True)
class Found:
    """What was found, and what is to be done.

    Attributes:
        due: whether anything is.
        workload: what is to use the volume.
        volume: the volume, as it was before anything was done.
        claim: name of the claim that binds to it.
        labels: of that claim.
        pointing: how a Deployment comes to name the claim; `None` for a StatefulSet.
        replaced: the claim of that name which a StatefulSet has now, if any.
        others_of_claim: other volumes that were of the same claim.
        others: who else changes the workload.
        is_stopped: a recovery has scaled the workload down, and not back yet.
    """

    due: Due
    workload: Workload
    volume: VolumeSeen
    claim: str
    labels: dict[str, str]
    pointing: Pointing | None
    replaced: ClaimSeen | None
    others_of_claim: list[str]
    others: list[Interference]
    is_stopped: bool

    @property
    def changes_template(self) -> bool:
        """Whether the pod template is changed."""
        return self.pointing is not None and self.pointing.before != self.pointing.after


@dataclass(frozen=True)
class _Place:
    """Where in a workload the volume goes, under which claim."""

    claim: str
    labels: dict[str, str]
    pointing: Pointing | None


@decision
def volume_found(order: VolumeOrder) -> Found:
    """The volume, its claim to be, and its place in the workload.

    Raises:
        Refused: there is no such volume, workload or place; names what there is.
        ClusterForbidden, ClusterLoginRefused, Unreachable: see there.

    Runbook: docs/runbooks/released-volume.md, step 1.
    """
    with order.cluster.session() as session:
        workload = find_workload(session, order.workload)
        read = session.get(workload.path)
        volume, others_of_claim = _volume(session, order)
        is_set = workload.kind is WorkloadKind.STATEFULSET
        place = (_in_set if is_set else _in_deployment)(session, order, read, volume)
        there = session.find(order.claim_path(place.claim))
        claim = None if there is None else read_claim(there)
        others = interference_with(session, workload, read)
    is_ours = claim is not None and claim.volume == volume.name
    is_in_use = is_ours and volume.phase == BOUND and volume.is_of(order.namespace, place.claim)
    is_pointed = place.pointing is None or place.pointing.before == place.pointing.after
    is_noted = REPLICAS in (read["metadata"].get("annotations") or {})
    due = Due.NOTHING if is_in_use and is_pointed and not is_noted else Due.REUSE
    return Found(
        due=due,
        workload=workload,
        volume=volume,
        claim=place.claim,
        labels=place.labels,
        pointing=place.pointing,
        replaced=None if is_ours else claim,
        others_of_claim=others_of_claim,
        others=others,
        is_stopped=is_noted,
    )


def _volume(session: KubernetesSession, order: VolumeOrder) -> tuple[VolumeSeen, list[str]]:
    all_of_them = [read_volume(one) for one in session.objects(order.path.rpartition("/")[0])]
    mine = next((one for one in all_of_them if one.name == order.volume), None)
    if mine is None:
        released = [str(one) for one in all_of_them if one.phase == RELEASED]
        there = f"Released are {', '.join(released)}" if released else "None is released"
        raise Refused(order.label, f"there is no volume {order.volume}", there)
    ref = mine.reference
    others = [
        str(one)
        for one in all_of_them
        if one.name != mine.name and one.is_of(ref.get("namespace", ""), ref.get("name", ""))
    ]
    return mine, others if ref else []


def _in_deployment(
    session: KubernetesSession, order: VolumeOrder, read: Object, volume: VolumeSeen
) -> _Place:
    """The volume of the pod template that is to name the claim."""
    claim = order.claim or _free_name(session, order, volume)
    volumes = read["spec"]["template"]["spec"].get("volumes") or []
    claims = {i: one for i, one in enumerate(volumes) if "persistentVolumeClaim" in one}
    old = volume.reference.get("name", "")
    named = [i for i, one in claims.items() if _claim_in(one) in {old, claim}]
    if order.pod_volume:
        fitting = [i for i, one in enumerate(volumes) if one["name"] == order.pod_volume]
    else:
        fitting = named if len(named) == 1 else list(claims)
    if len(fitting) != 1:
        names = ", ".join(one["name"] for one in volumes) or "none at all"
        what = f"no volume {order.pod_volume}" if order.pod_volume else "no single volume by claim"
        remedy = f"Name one as pod_volume; its volumes are {names}"
        raise Refused(order.label, f"its pod template has {what}", remedy)
    before = volumes[fitting[0]]
    kept = {n: v for n, v in (before.get("persistentVolumeClaim") or {}).items() if n == "readOnly"}
    after = {"name": before["name"], "persistentVolumeClaim": {"claimName": claim, **kept}}
    return _Place(claim, {}, Pointing(fitting[0], before, after))


def _claim_in(pod_volume: Mapping[str, Any]) -> str:
    return str(pod_volume["persistentVolumeClaim"].get("claimName", ""))


def _free_name(session: KubernetesSession, order: VolumeOrder, volume: VolumeSeen) -> str:
    """The name the claim had, if it is free: then the workload may need no change at all."""
    old = volume.reference.get("name") or order.workload.name
    if volume.phase != RELEASED:
        return old
    there = session.find(order.claim_path(old))
    return old if there is None else f"{old}-{volume.uid[:UID_DIGITS]}"


def _in_set(
    session: KubernetesSession, order: VolumeOrder, read: Object, volume: VolumeSeen
) -> _Place:
    """The name that a StatefulSet gives the claim of one of its pods: nothing else is taken."""
    del session
    spec, name = read["spec"], read["metadata"]["name"]
    templates = [one["metadata"]["name"] for one in spec.get("volumeClaimTemplates") or []]
    wanted = [t for t in templates if order.pod_volume in {"", t}]
    claim = order.claim or volume.reference.get("name", "")
    fits = [t for t in wanted if re.fullmatch(rf"{re.escape(t)}-{re.escape(name)}-\d+", claim)]
    if not fits:
        shapes = ", ".join(f"{t}-{name}-NUMBER" for t in wanted or templates) or "none at all"
        raise Refused(
            order.label,
            f"no pod of it uses a claim {claim}",
            f"Give the claim of the pod that is to have the volume; its claims are {shapes}",
        )
    labels = dict((spec.get("selector") or {}).get("matchLabels") or {})
    return _Place(claim, labels, None)

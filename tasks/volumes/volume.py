"""A PersistentVolume and a claim, as they are read from the API."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MIGRATED_TO = "pv.kubernetes.io/migrated-to"
BOUND, RELEASED, AVAILABLE = "Bound", "Released", "Available"
RETAIN = "Retain"


@dataclass(frozen=True)
class VolumeSeen:
    """A PersistentVolume. `reference` is its claimRef as it stands there.

    `storage_class` is the text that a claim must have too, also where it is empty; `driver` is the
    CSI driver that attaches it, empty where it needs none.
    """

    name: str
    uid: str
    phase: str
    size: str
    policy: str
    storage_class: str
    modes: list[str]
    volume_mode: str
    created_at: str
    released_at: str
    is_terminating: bool
    driver: str
    reference: dict[str, str]

    @property
    def was(self) -> str:
        """Which claim it is or was of, and how large it is: what a person confirms."""
        ref = self.reference
        return f"{ref.get('namespace', '')}/{ref.get('name', '')} {self.size}"

    def is_of(self, namespace: str, claim: str) -> bool:
        """Whether it refers to a claim of this name."""
        ref = self.reference
        return (ref.get("namespace"), ref.get("name")) == (namespace, claim)

    def __str__(self) -> str:
        """As an operator would say it."""
        since = f", released at {self.released_at}" if self.released_at else ""
        return f"{self.name} ({self.was}, {self.phase}, made at {self.created_at}{since})"


@dataclass(frozen=True)
class ClaimSeen:
    """A PersistentVolumeClaim, with what it takes to make it again."""

    name: str
    uid: str
    phase: str
    volume: str
    is_terminating: bool
    labels: dict[str, str]
    spec: dict[str, Any]


def read_volume(read: Mapping[str, Any]) -> VolumeSeen:
    """Read a volume from the API's JSON."""
    meta, spec, status = read["metadata"], read["spec"], read.get("status") or {}
    migrated = (meta.get("annotations") or {}).get(MIGRATED_TO, "")
    phase = str(status.get("phase", ""))
    turned = str(status.get("lastPhaseTransitionTime", ""))  # from 1.31 on
    reference = {str(n): str(v) for n, v in (spec.get("claimRef") or {}).items()}
    return VolumeSeen(
        name=meta["name"],
        uid=meta["uid"],
        phase=phase,
        size=str((spec.get("capacity") or {}).get("storage", "")),
        policy=str(spec.get("persistentVolumeReclaimPolicy", RETAIN)),
        storage_class=str(spec.get("storageClassName", "")),
        modes=list(spec.get("accessModes") or []),
        volume_mode=str(spec.get("volumeMode", "Filesystem")),
        created_at=str(meta.get("creationTimestamp", "")),
        released_at=turned if phase == RELEASED else "",
        is_terminating="deletionTimestamp" in meta,
        driver=str((spec.get("csi") or {}).get("driver", "") or migrated),
        reference=reference,
    )


def read_claim(read: Mapping[str, Any]) -> ClaimSeen:
    """Read a claim from the API's JSON."""
    meta, spec = read["metadata"], read["spec"]
    return ClaimSeen(
        name=meta["name"],
        uid=meta["uid"],
        phase=str((read.get("status") or {}).get("phase", "")),
        volume=str(spec.get("volumeName", "")),
        is_terminating="deletionTimestamp" in meta,
        labels=dict(meta.get("labels") or {}),
        spec=dict(spec),
    )


def claim_of(order_namespace: str, name: str, volume: VolumeSeen, labels: Mapping[str, str]) -> Any:
    """The claim that binds to a volume and to no other: what a POST has."""
    metadata: dict[str, Any] = {"name": name, "namespace": order_namespace}
    if labels:
        metadata["labels"] = dict(labels)
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": metadata,
        "spec": {
            "accessModes": volume.modes,
            "resources": {"requests": {"storage": volume.size}},
            "storageClassName": volume.storage_class,
            "volumeMode": volume.volume_mode,
            "volumeName": volume.name,
        },
    }

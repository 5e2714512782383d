"""Which released volume is meant, and for which workload."""

from collections.abc import Sequence
from dataclasses import dataclass

from blocks.kube.cluster import KubernetesCluster
from blocks.kube.path import path_of
from recovery.errors import BadInput
from tasks.workloads.target import WorkloadKind, WorkloadOrder, workload_order

VOLUMES = "persistentvolumes"
CLAIMS = "persistentvolumeclaims"


@dataclass(frozen=True)
class VolumeOrder:
    """What a reuse was asked for. The label is that of the workload, which is leased.

    Attributes:
        workload: which one is to use the volume.
        volume: name of the PersistentVolume.
        claim: name of the claim to make; empty: found.
        pod_volume: which volume of the pod template, or which claim template; empty: found.
        confirm: what the volume is known to be, as the refusal prints it.
        accept: names of what is accepted, as refusals print them.
    """

    workload: WorkloadOrder
    volume: str
    claim: str
    pod_volume: str
    confirm: str
    accept: tuple[str, ...]

    @property
    def label(self) -> str:
        """The workload."""
        return self.workload.label

    @property
    def cluster(self) -> KubernetesCluster:
        """The cluster of both."""
        return self.workload.cluster

    @property
    def namespace(self) -> str:
        """That of the workload and of the claim."""
        return self.workload.namespace

    @property
    def within_seconds(self) -> int:
        """How long each wait may take."""
        return self.workload.within_seconds

    @property
    def path(self) -> str:
        """Where the API has the volume."""
        return volume_path(self.volume)

    @property
    def claims_path(self) -> str:
        """Where the API has the claims of the namespace."""
        return path_of("v1", CLAIMS, namespace=self.namespace)

    def claim_path(self, name: str) -> str:
        """Where the API has a claim."""
        return path_of("v1", CLAIMS, name, namespace=self.namespace)


def volume_path(name: str) -> str:
    """Where the API has a volume."""
    return path_of("v1", VOLUMES, name)


def volume_order(order: WorkloadOrder, volume: str, claim: str, pod_volume: str) -> VolumeOrder:
    """Read the parameters that name the volume and where it goes; see `VolumeOrder`.

    Raises:
        BadInput: no volume is named, or the workload is a DaemonSet, whose pods share no volume.
    """
    if not volume.strip():
        raise BadInput("volume", "it is empty: empty means none", "Give the PersistentVolume")
    if order.kind is WorkloadKind.DAEMONSET:
        remedy = "Name a Deployment or a StatefulSet"
        raise BadInput("workload", "a DaemonSet has a pod on each node", remedy)
    return VolumeOrder(order, volume.strip(), claim.strip(), pod_volume.strip(), "", ())


def read_volume_order(  # noqa: PLR0913 (each is a field of the form)
    cluster: str,
    volume: str,
    workload: str,
    namespace: str,
    *,
    claim: str,
    pod_volume: str,
    confirm: str,
    accept: Sequence[str] | None,
    within_seconds: int,
) -> VolumeOrder:
    """Read all parameters; errors are those of `workload_order` and `volume_order`."""
    meant = volume_order(
        workload_order(cluster, workload, namespace, within_seconds), volume, claim, pod_volume
    )
    return VolumeOrder(
        meant.workload,
        meant.volume,
        meant.claim,
        meant.pod_volume,
        " ".join(confirm.split()),
        tuple(accept or ()),
    )


def leased_volume(cluster: str, volume: str) -> list[str]:
    """What is leased along with the workload: the volume, so that no other recovery takes it."""
    return [f"{KubernetesCluster.named(cluster).label}/{VOLUMES}/{volume.strip()}"]

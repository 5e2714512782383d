"""Give a workload on Kubernetes a released volume back: its data, under a claim nobody can take."""

from dataclasses import dataclass

from blocks.kube.cluster import ClusterParameter
from recovery.declare import recovery
from tasks.volumes import binding, placing, pointing, preflight, saving, starting, triage
from tasks.volumes.target import leased_volume, read_volume_order
from tasks.volumes.triage import Due, Found
from tasks.volumes.waiting import is_bound, is_detached
from tasks.workloads import scaling, waiting
from tasks.workloads.target import workload_target


@dataclass(frozen=True)
class VolumeReused:
    """What was found, what was done, what now holds.

    Attributes:
        found: how the volume stood.
        done: nothing, or reused.
        holds: how the workload stands now.
        claim: the claim that the volume is bound to.
        others_of_claim: other volumes that were of the same claim, whose data is not seen now.
        others: who else changes the workload.
    """

    found: str
    done: str
    holds: str
    claim: str
    others_of_claim: list[str]
    others: list[str]


@recovery(
    runbook="docs/runbooks/released-volume.md",
    target=workload_target,
    parts=leased_volume,
    answers=["PersistentVolumeReleased"],
)
def reuse_released_volume(  # noqa: PLR0913, PLR0917 (each is a field of the form)
    cluster: ClusterParameter,
    volume: str,
    workload: str,
    namespace: str = "",
    claim: str = "",
    pod_volume: str = "",
    confirm: str = "",
    accept: list[str] | None = None,
    within_seconds: int = 600,
) -> VolumeReused:
    """Bind a released volume to a claim that no other can take, and run the workload on it.

    The data is neither written nor deleted. The workload is stopped meanwhile, and gets as many
    replicas as it had.

    Args:
        cluster: kubeconfig:///path?context=NAME, in-cluster:, or the name of a saved block.
        volume: The PersistentVolume, in phase Released.
        workload: Its name, as grafana, or with its kind, as statefulset/mongodb.
        namespace: Empty: the one of the block or the context.
        claim: The claim to make. Empty: the one the volume had if that is free, else a new one.
        pod_volume: Which volume of the pod template (StatefulSet: claim template). Empty: found.
        confirm: What the volume was, NAMESPACE/CLAIM SIZE, as the refusal prints it.
        accept: Names of what to accept, as refusals print them: helm:NAME, replaced-claim:NAME.
        within_seconds: How long each wait may take, such as that for its pods.

    Runbook: docs/runbooks/released-volume.md, steps 1 to 10.
    """
    order = read_volume_order(
        cluster, volume, workload, namespace,
        claim=claim, pod_volume=pod_volume, confirm=confirm, accept=accept,
        within_seconds=within_seconds,
    )  # fmt: skip
    found = triage.volume_found(order)
    if found.due is Due.NOTHING:
        return _reused(found, "nothing", "it uses the volume")
    preflight.refuse_unless_released(order, found)
    preflight.refuse_unless_confirmed(order, found)
    preflight.refuse_if_taken_back(order, found)
    preflight.refuse_if_claim_is_taken(order, found)
    preflight.refuse_if_scaling_deletes(order, found)
    preflight.refuse_if_attached(order, found)
    placing.refuse_unless_a_node_fits(order, found)
    had = scaling.original_replicas(order.workload, found.workload, is_zero_fine=True)
    saving.save_objects(order, found)
    scaling.scale_down(order.workload, found.workload, had)
    waiting.no_pods_left(order.workload, found.workload)
    is_detached(order, found)
    if found.replaced is not None:
        binding.remove_replaced_claim(order, found)
    binding.set_volume_aside(order, found)  # before there is a claim: no other can take it
    binding.create_claim(order, found)
    is_bound(order, found)
    if found.changes_template:
        pointing.point_at_claim(order, found)
    starting.scale_back(order.workload, found.workload, had)
    holds = waiting.is_out(order.workload, found.workload, within_seconds)
    return _reused(found, "reused", holds)


def _reused(found: Found, done: str, holds: str) -> VolumeReused:
    others = [str(one) for one in found.others]
    volume = str(found.volume)
    return VolumeReused(volume, done, holds, found.claim, found.others_of_claim, others)

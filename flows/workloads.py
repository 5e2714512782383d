"""Restart a service on Kubernetes: look, keep the logs, restart once, wait, take it back or not."""

from dataclasses import dataclass

from blocks.kube.cluster import ClusterParameter
from recovery.declare import recovery
from tasks.workloads import evidence, restarting, triage, waiting
from tasks.workloads.evidence import Captured
from tasks.workloads.target import WorkloadOrder, workload_order, workload_target
from tasks.workloads.triage import Due, Found


@dataclass(frozen=True)
class ServiceRestarted:
    """What was found, what was done, what now holds, and how it stood before.

    Attributes:
        found: how the workload stood.
        done: nothing, restarted, or restarted and rolled back.
        holds: how it stands now.
        images: which images are others than before.
        others: who else changes the workload.
        before: logs and events of before; `None` where nothing was done.
    """

    found: str
    done: str
    holds: str
    images: list[str]
    others: list[str]
    before: Captured | None


@recovery(
    runbook="docs/runbooks/restart-service.md",
    target=workload_target,
    answers=["KubeDeploymentReplicasMismatch"],
)
def restart_service(
    cluster: ClusterParameter,
    workload: str,
    namespace: str = "",
    restart: bool = False,  # noqa: FBT001, FBT002 (a field of the form)
    within_seconds: int = 600,
) -> ServiceRestarted:
    """Restart a workload that is not all there, once; take that back where it made things worse.

    Pods that never started are not restarted, since that cannot help: the cause is named.

    Args:
        cluster: kubeconfig:///path?context=NAME, in-cluster:, or the name of a saved block.
        workload: Its name, as registry, or with its kind, as statefulset/mongodb.
        namespace: Empty: the one of the block or the context.
        restart: Restart it although it is well.
        within_seconds: How long its pods may take to come up.

    Runbook: docs/runbooks/restart-service.md, steps 1 to 7.
    """
    order = workload_order(cluster, workload, namespace, within_seconds)
    found = triage.service_found(order, is_ordered=restart)
    if found.due is Due.NOTHING:
        return ServiceRestarted(found.seen, "nothing", str(found.state), [], found.others, None)
    before = evidence.captured(order, found.workload)
    done, holds, images = restart_found(order, found)
    return ServiceRestarted(found.seen, done, holds, images, found.others, before)


def restart_found(order: WorkloadOrder, found: Found) -> tuple[str, str, list[str]]:
    """Restart a workload; return what was done, how it stands, and which images are others."""
    restarting.restart(order, found)
    went = restarting.how_it_went(order, found)
    if went.how is not restarting.HowItWent.OUT:
        evidence.captured(order, found.workload)
    restarting.roll_back(order, found, went)
    done = f"restarted, and rolled back: {went.seen}" if went.is_taken_back else "restarted"
    holds = waiting.is_out(order, found.workload, went.seconds_more(order))
    return done, holds, went.images

"""Mend containers that are restarted again and again: laxer probes, or more memory and CPU."""

from dataclasses import dataclass

from blocks.kube.cluster import ClusterParameter
from recovery.declare import recovery
from tasks.containers import changing, finding, proof
from tasks.containers.order import (
    ContainerOrder,
    Limits,
    ProbeWish,
    ResourceWish,
    probe_named,
    probe_order,
    probe_target,
    resource_order,
    resource_target,
)
from tasks.workloads import evidence
from tasks.workloads.evidence import Captured
from tasks.workloads.triage import Due


@dataclass(frozen=True)
class ContainerMended:
    """What was found, what was done, and what now holds.

    Attributes:
        found: how it stood, and why it was restarted.
        done: nothing, or each value of before and after.
        holds: how it stands after the quiet period.
        told: who else changes the workload, and what could not be looked at.
        before: logs and events of before; `None` where nothing was done.
    """

    found: str
    done: list[str]
    holds: str
    told: list[str]
    before: Captured | None


@recovery(
    runbook="docs/runbooks/restarting-containers.md",
    target=probe_target,
    answers=["KubePodCrashLooping"],
)
def relax_probes(  # noqa: PLR0913, PLR0917 (fields of the form)
    cluster: ClusterParameter,
    workload: str,
    container: str = "",
    namespace: str = "",
    startup_seconds: int = 0,
    probe: str = "liveness",
    timeout_seconds: int = 0,
    period_seconds: int = 0,
    failure_threshold: int = 0,
    accept: list[str] | None = None,
    within_seconds: int = 600,
    quiet_seconds: int = 0,
) -> ContainerMended:
    """Give a container that its probes restart more time: to start, or to answer.

    Refused where something else restarts it, as want of memory or the application itself. Where
    it does not come up in time, its former probes are put back.

    Args:
        cluster: kubeconfig:///path?context=NAME, in-cluster:, or the name of a saved block.
        workload: Its name, as registry, or with its kind, as statefulset/mongodb.
        container: Which of its containers; empty: the only one.
        namespace: Empty: the one of the block or the context.
        startup_seconds: How long it may take to start, by a startup probe; 0 leaves that.
        probe: Which probe the next three change: liveness, readiness or startup.
        timeout_seconds: How long it may take to answer; 0 leaves that.
        period_seconds: How often it is asked; 0 leaves that.
        failure_threshold: How often it may fail in a row; 0 leaves that.
        accept: Names of what is refused otherwise, as helm or cause-not-known.
        within_seconds: How long its pods may take to come up.
        quiet_seconds: How long no restart proves it mended; 0: twice what it lived before.

    Runbook: docs/runbooks/restarting-containers.md, steps 1 to 7.
    """
    wish = ProbeWish(
        startup_seconds, probe_named(probe), timeout_seconds, period_seconds, failure_threshold
    )
    limits = Limits(accept or (), within_seconds, quiet_seconds)
    return _mended(probe_order((cluster, namespace, workload), container, wish, limits))


@recovery(
    runbook="docs/runbooks/restarting-containers.md",
    target=resource_target,
    answers=["KubePodCrashLooping", "KubeContainerOOMKilled", "CPUThrottlingHigh"],
)
def raise_resources(  # noqa: PLR0913, PLR0917 (fields of the form)
    cluster: ClusterParameter,
    workload: str,
    container: str = "",
    namespace: str = "",
    memory_limit: str = "",
    memory_request: str = "",
    cpu_limit: str = "",
    cpu_request: str = "",
    accept: list[str] | None = None,
    within_seconds: int = 600,
    quiet_seconds: int = 0,
) -> ContainerMended:
    """Give a container that is killed for want of memory, or is throttled, more of it.

    Refused where something else restarts it, and where a LimitRange, a ResourceQuota or the nodes
    leave no room. Where it does not come up in time, its former resources are put back.

    Args:
        cluster: kubeconfig:///path?context=NAME, in-cluster:, or the name of a saved block.
        workload: Its name, as registry, or with its kind, as statefulset/mongodb.
        container: Which of its containers; empty: the only one.
        namespace: Empty: the one of the block or the context.
        memory_limit: As 512Mi or 2Gi; empty leaves it.
        memory_request: As 512Mi or 2Gi; empty leaves it, or raises it with a limit it equals.
        cpu_limit: As 500m or 2; none removes it; empty leaves it.
        cpu_request: As 500m or 2; empty leaves it, or raises it with a limit it equals.
        accept: Names of what is refused otherwise, as helm, cause-not-known or room-not-known.
        within_seconds: How long its pods may take to come up.
        quiet_seconds: How long no restart proves it mended; 0: twice what it lived before.

    Runbook: docs/runbooks/restarting-containers.md, steps 1 to 7.
    """
    wish = ResourceWish(memory_limit, memory_request, cpu_limit, cpu_request)
    limits = Limits(accept or (), within_seconds, quiet_seconds)
    return _mended(resource_order((cluster, namespace, workload), container, wish, limits))


def _mended(order: ContainerOrder) -> ContainerMended:
    """Look, refuse, keep the logs, change, wait, go back or prove: the same for both."""
    found = finding.container_found(order)
    if found.service.due is Due.NOTHING:
        return ContainerMended(found.seen, [], str(found.service.state), found.told, None)
    before = evidence.captured(order.workload_order, found.workload)
    changing.change_container(order, found)
    if found.in_the_way:  # a StatefulSet replaces no pod before these are ready
        changing.clear_the_way(order, found)
    went = changing.how_it_went(order, found)
    if went.is_taken_back:
        evidence.captured(order.workload_order, found.workload)
    changing.roll_back(order, found, went)
    holds = proof.stays_quiet(order, found, went)
    return ContainerMended(
        found.seen, [str(one) for one in found.changes], holds, found.told, before
    )

"""Waiting until a workload is really out, or really gone: watched, not asked again and again."""

import time
from collections.abc import Sequence

from blocks.kube.session import KubernetesSession
from blocks.kube.text import Object
from blocks.kube.watch import wait_for
from recovery.errors import NotVerified
from recovery.steps import verify
from tasks.workloads.pods import PodSeen, is_history, pods_of, read_pod
from tasks.workloads.state import WorkloadState, read_state
from tasks.workloads.target import Workload, WorkloadOrder

PODS_NAMED_MAX = 10


def rollout_end(
    session: KubernetesSession,
    workload: Workload,
    mark: str,
    within_seconds: float,
    *,
    gives_up_late: bool = True,
) -> bool:
    """Wait until a rollout is out; false where it is late by its own deadline, or by ours.

    Out is: its controller has seen the newest template, as many pods as wanted are available, all
    of them of that template, and no other is left, not even one that is going.

    Args:
        session: an open session.
        workload: whose rollout.
        mark: what the pods of the newest template are marked with; empty: nothing.
        within_seconds: our deadline.
        gives_up_late: end at the workload's own deadline. A Deployment that goes back says that it
            is late until the last pod of the rollout before is gone, so nobody gives up on that.
    """
    ends = time.monotonic() + within_seconds
    path = workload.path.rpartition("/")[0]
    named = f"metadata.name={workload.name}"

    def has_ended(found: Sequence[Object]) -> bool | None:
        mine = [one for one in found if one["metadata"]["uid"] == workload.uid]
        if not mine:
            return False
        state = read_state(workload, mine[0])
        if gives_up_late and state.is_stuck:
            return False
        return True if state.is_out else None

    if not wait_for(session, path, has_ended, fields=named, within_seconds=within_seconds):
        return False

    def are_new(found: Sequence[Object]) -> bool | None:
        pods = [read_pod(pod) for pod in found if not is_history(pod)]
        is_clean = all(p.is_ready and p.mark == mark and not p.is_terminating for p in pods)
        return True if is_clean else None

    left = max(1.0, ends - time.monotonic())
    labels = workload.selector
    is_clean = wait_for(session, workload.pods_path, are_new, labels=labels, within_seconds=left)
    return bool(is_clean)


@verify(each=("workload",))
def is_out(order: WorkloadOrder, workload: Workload, within_seconds: int) -> str:
    """How the workload stands once all its pods are new, ready and alone.

    Raises:
        NotVerified: not in time; says which pods are not ready, and why.
        Unreachable: the API gave no answer up to the deadline.

    Runbook: docs/runbooks/restart-service.md, step 5.
    """
    with order.cluster.session() as session:
        mark = read_state(workload, session.get(workload.path)).mark
        is_done = rollout_end(session, workload, mark, within_seconds, gives_up_late=False)
        state = read_state(workload, session.get(workload.path))
        if not is_done:
            raise not_out(order, workload, state, pods_of(session, workload))
        return str(state)


def not_out(
    order: WorkloadOrder, workload: Workload, state: WorkloadState, pods: Sequence[PodSeen]
) -> NotVerified:
    """Say how far it came, and hand it over."""
    broken = [pod for pod in pods if not pod.is_ready]
    told = "; ".join(f"{pod.name} {', '.join(pod.causes)}" for pod in broken[:PODS_NAMED_MAX])
    return NotVerified(
        order.label,
        f"every pod of {workload} new and ready within {order.within_seconds} s",
        f"{state}; {told or 'a pod that is still going'}",
        "Hand it to L3 with `recover bundle`, which holds logs and events of before and after; "
        "resume once the cause is mended",
    )


@verify(each=("workload",))
def no_pods_left(order: WorkloadOrder, workload: Workload) -> int:
    """How many seconds it took until no pod was left, not even one that is going.

    A pod on a node that is gone stays; forcing it off could leave two writers on one volume. One
    that has ended, as by an eviction, stays listed and is none: nothing of it runs.

    Raises:
        NotVerified: some are left; names them.
        Unreachable: the API gave no answer up to the deadline.
    """
    began = time.monotonic()
    left: list[str] = []

    def are_gone(found: Sequence[Object]) -> bool | None:
        left[:] = sorted(pod["metadata"]["name"] for pod in found if not is_history(pod))
        return None if left else True

    with order.cluster.session() as session:
        is_done = wait_for(
            session,
            workload.pods_path,
            are_gone,
            labels=workload.selector,
            within_seconds=order.within_seconds,
        )
    if not is_done:
        raise NotVerified(
            order.label,
            f"no pod of {workload} left within {order.within_seconds} s",
            ", ".join(left[:PODS_NAMED_MAX]),
            "See the node of each; never force one off whose node may still run it, then resume",
        )
    return round(time.monotonic() - began)

"""The proof that a container is mended: it is watched, and is not restarted."""

from collections.abc import Sequence

from blocks.kube.text import Object
from blocks.kube.watch import wait_for
from recovery.errors import NotVerified
from recovery.steps import verify
from tasks.containers.change import is_done
from tasks.containers.changing import container_in
from tasks.containers.finding import ContainerFound
from tasks.containers.order import ContainerOrder
from tasks.workloads.pods import is_history, pods_of, read_pod
from tasks.workloads.restarting import Went
from tasks.workloads.state import read_state
from tasks.workloads.waiting import not_out


@verify
def stays_quiet(order: ContainerOrder, found: ContainerFound, went: Went) -> str:
    """How the workload stands after a quiet period in which none of its pods was restarted.

    Pods that are new in that period count from nothing. A resume watches the whole period anew.

    Raises:
        NotVerified: it did not come up and was put back, somebody took the values back, a container
            was restarted, or a pod is not ready at the end.
        Unreachable: the API gave no answer up to the deadline.

    Runbook: docs/runbooks/restarting-containers.md, step 7.
    """
    if went.is_taken_back:
        raise NotVerified(
            order.label,
            f"every pod of {found.workload} new and ready within {order.within_seconds} s",
            f"{went.seen}; the former values were put back",
            "See the logs of before and after in the report, hand it to L3 with `recover bundle`, "
            "and begin a new recovery with other values",
        )
    workload = found.workload
    with order.cluster.session() as session:
        began = {pod.uid: pod.restarts for pod in pods_of(session, workload)}

        def restarted(listed: Sequence[Object]) -> list[str] | None:
            seen = [read_pod(pod) for pod in listed]
            grown = [
                f"{pod.name}: {pod.restarts} restarts, {began.get(pod.uid, 0)} before"
                + (f" ({', '.join(pod.causes)})" if pod.causes else "")
                for pod in seen
                if pod.restarts > began.get(pod.uid, 0)
            ]
            return grown or None

        grown = wait_for(
            session,
            workload.pods_path,
            restarted,
            labels=workload.selector,
            within_seconds=found.quiet_seconds,
        )
        read = session.get(workload.path)
        state = read_state(workload, read)
        listed = session.objects(workload.pods_path, labels=workload.selector)
        pods = [read_pod(pod) for pod in listed if not is_history(pod)]
    if not is_done(container_in(found, read), found.changes):
        raise NotVerified(
            order.label,
            f"{found.workload} with {', '.join(map(str, found.changes))}",
            f"somebody took that back; {state}",
            "Change it where it comes from (Helm, Git, an operator): what is changed here is not "
            "kept; see who changed it in its managedFields",
        )
    if grown:
        raise NotVerified(
            order.label,
            f"no restart of {workload} within {found.quiet_seconds} s",
            "; ".join(grown),
            "The values stay: `recover undo` puts the former ones back. Begin a new recovery, "
            "which finds the cause anew",
        )
    if not state.is_out or not all(pod.is_ready for pod in pods):
        raise not_out(order.workload_order, workload, state, pods)
    return f"{state}; no restart within {found.quiet_seconds} s"

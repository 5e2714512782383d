"""Why a workload is not there, and whether a restart can help; found before anything is done."""

from dataclasses import dataclass
from enum import StrEnum

from recovery.errors import Refused
from recovery.steps import decision
from tasks.workloads.interference import interference_with
from tasks.workloads.pods import NEVER_STARTED, PodSeen, pods_of, reason_of
from tasks.workloads.state import WorkloadState, read_state
from tasks.workloads.target import Workload, WorkloadOrder, find_workload


class Due(StrEnum):
    """What is to be done."""

    NOTHING = "nothing"
    RESTART = "restart"


@dataclass(frozen=True)
class Found:
    """A workload as it was found, and what that calls for. `others` also change it."""

    due: Due
    workload: Workload
    state: WorkloadState
    pods: list[PodSeen]
    others: list[str]

    @property
    def seen(self) -> str:
        """How it stood, in a line."""
        causes = sorted({cause for pod in self.pods for cause in pod.causes})
        return f"{self.state}" + (f"; {'; '.join(causes)}" if causes else "")


@decision
def service_found(order: WorkloadOrder, *, is_ordered: bool) -> Found:
    """The workload, how it stands, and whether it is restarted.

    Args:
        order: which one.
        is_ordered: restart it although it is well.

    Raises:
        Refused: there is none, nothing is wanted of it, it is held, or a restart cannot help; says
            what would.
        ClusterForbidden, ClusterLoginRefused, Unreachable: see there.

    Runbook: docs/runbooks/restart-service.md, steps 1 and 3.
    """
    with order.cluster.session() as session:
        workload = find_workload(session, order)
        read = session.get(workload.path)
        state, pods = read_state(workload, read), pods_of(session, workload)
        others = [str(one) for one in interference_with(session, workload, read)]
    is_well = state.is_out and all(pod.is_ready and not pod.is_terminating for pod in pods)
    due = Due.RESTART if is_ordered or not is_well else Due.NOTHING
    if due is Due.RESTART:
        refuse_useless(order, workload, state, pods)
    return Found(due, workload, state, pods, others)


def refuse_useless(
    order: WorkloadOrder, workload: Workload, state: WorkloadState, pods: list[PodSeen]
) -> None:
    """Refuse a restart that cannot help, and may take the last pod that works.

    Raises:
        Refused: it cannot help.
    """
    if state.wanted == 0:
        raise Refused(
            order.label,
            f"nothing is wanted of {workload}: it is scaled to 0",
            "Find out who scaled it down and why; scale it up with `kubectl scale` if it is meant "
            "to run",
        )
    if state.hold:
        raise Refused(order.label, state.hold, "Have whoever set that end it, then resume")
    stuck = {
        f"{pod.name} {cause}"
        for pod in pods
        for cause in pod.causes
        if reason_of(cause) in NEVER_STARTED
    }
    if stuck:
        raise Refused(
            order.label,
            f"a restart cannot help pods that never started: {'; '.join(sorted(stuck))}",
            "Mend what they wait for (the image and its tag or pull secret; the ConfigMap or "
            "Secret that is missing; room on the nodes), and they start by themselves",
        )
    if not pods:
        raise Refused(
            order.label,
            f"{workload} has no pod at all, though {state.wanted} are wanted",
            "See the events of its ReplicaSet in the report: a quota, a limit range, a webhook or "
            "a missing service account keeps pods from being made; a restart cannot help that",
        )

"""Letting the pods of Grafana run again, and stopping them once more on the way back."""

from recovery.steps import act, undo
from recovery.verdict import Verdict
from tasks.grafana.pods import GrafanaPods
from tasks.workloads import scaling, waiting
from tasks.workloads.scaling import Replicas
from tasks.workloads.state import read_state
from tasks.workloads.target import Workload


def is_back(grafana: GrafanaPods, workload: Workload, replicas: Replicas) -> Verdict:
    """Whether pods of it are wanted again."""
    return scaling.is_back(grafana.order, workload, replicas)


@undo
def stopped_again(grafana: GrafanaPods, workload: Workload, replicas: Replicas) -> None:
    """Want no pod of it, and wait until the last is gone: the database is put back next."""
    with grafana.order.cluster.session() as session:
        now = read_state(workload, session.get(workload.path)).wanted
        if now:
            seen = Replicas(now, replicas.original)
            session.patch(workload.path, scaling.down_operations(workload, seen))
    waiting.no_pods_left(grafana.order, workload)


@act(
    each=("workload",),
    commands=scaling.back_commands,
    done_when=is_back,
    undo=stopped_again,
)
def scale_back(grafana: GrafanaPods, workload: Workload, replicas: Replicas) -> None:
    """Want as many pods of Grafana as there were. Their configuration must name the target.

    Done twice, it does nothing. Whether they come up is for `is_out`.

    Raises:
        ClusterConflict: somebody scaled it meanwhile.
        Unreachable: no answer.

    Runbook: docs/runbooks/grafana-sqlite-to-mysql.md, "In Kubernetes".
    """
    with grafana.order.cluster.session() as session:
        session.patch(workload.path, scaling.back_operations(workload, replicas))

"""Starting a workload on its volume, and stopping it again before that is taken back."""

from recovery.steps import act, undo
from recovery.verdict import Verdict
from tasks.workloads import scaling
from tasks.workloads.scaling import Replicas
from tasks.workloads.target import Workload, WorkloadOrder
from tasks.workloads.waiting import no_pods_left


@undo
def scale_down_again(order: WorkloadOrder, workload: Workload, replicas: Replicas) -> None:
    """Scale down once more and wait for the pods, so that what came before can be taken back.

    The way back of the first scaling down then scales up.

    Raises:
        NotVerified: pods are left; names them.
        ClusterConflict: somebody scaled it meanwhile.
    """
    if replicas.original == 0:
        return
    if scaling.is_back(order, workload, replicas) is Verdict.DONE:
        running = Replicas(replicas.original, replicas.original)
        with order.cluster.session() as session:
            session.patch(workload.path, scaling.down_operations(workload, running))
    no_pods_left(order, workload)


@act(
    each=("workload",),
    commands=scaling.back_commands,
    done_when=scaling.is_back,
    undo=scale_down_again,
)
def scale_back(order: WorkloadOrder, workload: Workload, replicas: Replicas) -> None:
    """Want as many pods of it as there were, and remove the note.

    Done twice, it does nothing. Its way back stops them again, since nothing of the volume can be
    taken back under a pod that uses it.

    Raises:
        ClusterConflict: somebody scaled it meanwhile.
        Unreachable: no answer.

    Runbook: docs/runbooks/released-volume.md, step 10.
    """
    scaling.scale_back.fn(order, workload, replicas)

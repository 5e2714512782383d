"""Stopping the workloads of an installation, only while that is agreed."""

from blocks.kube import text
from recovery.steps import act
from tasks.admin_key.finding import refuse_unless_agreed
from tasks.admin_key.order import AdminKeyOrder
from tasks.workloads.scaling import Replicas, down_operations, is_down, scale_up_again
from tasks.workloads.target import Workload, WorkloadOrder


def refuse_unless_still_agreed(agreed: AdminKeyOrder) -> None:
    """Refuse to stop anything outside of the window; asked right before, on a resume as well.

    Raises:
        Refused: as of `refuse_unless_agreed`.
    """
    refuse_unless_agreed(agreed)


@act(
    each=("workload",),
    commands=lambda workload, replicas: [
        text.patch_text(workload.path, down_operations(workload, replicas))
    ],
    done_when=is_down,
    refuse_if=(refuse_unless_still_agreed,),
    undo=scale_up_again,
    lasts_until="scale_back",
    takes_down=True,
)
def stop_as_agreed(
    order: WorkloadOrder, workload: Workload, replicas: Replicas, agreed: AdminKeyOrder
) -> None:
    """Want no pod of it any more, as `scale_down` does, inside the window alone.

    Raises:
        Refused: it is not the time, or only one person wants it.
        ClusterConflict: somebody scaled it meanwhile.
        Unreachable: no answer.

    Runbook: docs/runbooks/lost-admin-key.md, step 6.
    """
    del agreed  # asked by what refuses
    with order.cluster.session() as session:
        session.patch(workload.path, down_operations(workload, replicas))

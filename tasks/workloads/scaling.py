"""Scaling a workload to nothing, and back to what it had."""

from blocks import kubernetes_text as text
from blocks.kubernetes_text import Operation
from recovery.errors import NotVerified
from recovery.steps import act, decision, undo
from recovery.verdict import Verdict
from recovery.walk import current_fence
from tasks.workloads.state import read_state
from tasks.workloads.target import Workload, WorkloadOrder
from tasks.workloads.waiting import no_pods_left

REPLICAS = "recovery-pipelines.io/replicas"
REPLICAS_POINTER = text.pointer_to("metadata", "annotations", REPLICAS)


@decision(each=("workload",))
def original_replicas(order: WorkloadOrder, workload: Workload) -> int:
    """How many replicas it had before any of this: recorded once, and never again at zero.

    Where an earlier recovery left its note on the workload, that is what it had.

    Raises:
        NotVerified: the note cannot be read.
    """
    with order.cluster.session() as session:
        read = session.get(workload.path)
        noted = (read["metadata"].get("annotations") or {}).get(REPLICAS)
        if noted is None:
            return read_state(workload, read).wanted
        count = noted.rpartition(":")[2]
        if not count.isdigit():
            remedy = f"Correct or remove the annotation {REPLICAS} of {workload}, then resume"
            raise NotVerified(order.label, "a number of replicas", repr(noted), remedy)
        return int(count)


def down_operations(workload: Workload, original: int) -> list[Operation]:
    """Scale to nothing, and note beside it what there was."""
    noted = f"{current_fence().recovery_id}:{original}"
    return [
        *text.tests(uid=workload.uid, replicas=original),
        {"op": "add", "path": REPLICAS_POINTER, "value": noted},
        {"op": "replace", "path": "/spec/replicas", "value": 0},
    ]


def back_operations(workload: Workload, original: int) -> list[Operation]:
    """Scale back, and remove the note."""
    return [
        *text.tests(uid=workload.uid, replicas=0),
        {"op": "replace", "path": "/spec/replicas", "value": original},
        {"op": "remove", "path": REPLICAS_POINTER},
    ]


def is_down(order: WorkloadOrder, workload: Workload) -> Verdict:
    """Whether nothing is wanted of it."""
    with order.cluster.session() as session:
        wanted = read_state(workload, session.get(workload.path)).wanted
    return Verdict.of(wanted == 0)


def is_back(order: WorkloadOrder, workload: Workload, original: int) -> Verdict:
    """Whether as many are wanted as there were, or an autoscaler has taken over from there."""
    with order.cluster.session() as session:
        read = session.get(workload.path)
    wanted = read_state(workload, read).wanted
    has_note = REPLICAS in (read["metadata"].get("annotations") or {})
    return Verdict.of(not has_note and (wanted > 0 or original == 0))


@undo
def scale_down_again(order: WorkloadOrder, workload: Workload, original: int) -> None:
    """Scale down once more and wait for the pods, so that what came before can be taken back.

    The way back of the first scaling down then scales up.

    Raises:
        NotVerified: pods are left; names them.
        ClusterConflict: somebody scaled it meanwhile.
    """
    if original == 0:
        return
    if is_back(order, workload, original) is Verdict.DONE:
        with order.cluster.session() as session:
            session.patch(workload.path, down_operations(workload, original))
    no_pods_left(order, workload)


@undo
def scale_up_again(order: WorkloadOrder, workload: Workload, original: int) -> None:
    """Scale back, where it is still down by this recovery."""
    if is_back(order, workload, original) is not Verdict.DONE:
        with order.cluster.session() as session:
            session.patch(workload.path, back_operations(workload, original))


@act(
    each=("workload",),
    commands=lambda workload, original: [
        text.patch_text(workload.path, down_operations(workload, original))
    ],
    done_when=is_down,
    undo=scale_up_again,
    lasts_until="scale_back",
)
def scale_down(order: WorkloadOrder, workload: Workload, original: int) -> None:
    """Want no pod of it any more; the number it had is noted on it.

    Its pods are still going when this returns: wait with `no_pods_left`. Done twice, it does
    nothing.

    Raises:
        ClusterConflict: somebody scaled it meanwhile.
        Unreachable: no answer.
    """
    with order.cluster.session() as session:
        session.patch(workload.path, down_operations(workload, original))


@act(
    each=("workload",),
    commands=lambda workload, original: [
        text.patch_text(workload.path, back_operations(workload, original))
    ],
    done_when=is_back,
    undo=scale_down_again,
)
def scale_back(order: WorkloadOrder, workload: Workload, original: int) -> None:
    """Want as many pods of it as there were, and remove the note.

    Done twice, it does nothing. Whether they come up is for `is_out`.

    Raises:
        ClusterConflict: somebody scaled it meanwhile.
        Unreachable: no answer.
    """
    with order.cluster.session() as session:
        session.patch(workload.path, back_operations(workload, original))

"""Scaling a workload to nothing, and back to what it had."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from blocks.kube import text
from blocks.kube.text import Operation
from recovery.errors import NotVerified, Refused
from recovery.steps import act, decision, undo
from recovery.verdict import Verdict
from recovery.walk import current_fence
from tasks.workloads.state import read_state
from tasks.workloads.target import Workload, WorkloadOrder

REPLICAS = "recovery-pipelines.io/replicas"
REPLICAS_POINTER = text.pointer_to("metadata", "annotations", REPLICAS)


@dataclass(frozen=True)
class Replicas:
    """How many pods of a workload were wanted when it was looked at, and how many it is to have."""

    found: int
    original: int


@decision(each=("workload",))
def original_replicas(
    order: WorkloadOrder, workload: Workload, given: int = 0, *, is_zero_fine: bool = False
) -> Replicas:
    """How many replicas it had before any of this: recorded once, and never again at zero.

    Where it is at zero by an earlier recovery, what that noted on it is what it had.

    Args:
        order: which one was meant.
        workload: the one that was found.
        given: how many it had, by the word of a person; 0: nobody said.
        is_zero_fine: it may have had none, and then gets none.

    Raises:
        NotVerified: the note cannot be read.
        Refused: it is at zero, and nothing tells what it had.
    """
    with order.cluster.session() as session:
        read = session.get(workload.path)
    found = read_state(workload, read).wanted
    if found or given:
        return Replicas(found, given or found)
    noted = _note(read)
    if noted is None and is_zero_fine:
        return Replicas(0, 0)
    if noted is None:
        reason = f"{workload} is scaled to 0, and nothing tells how many replicas it had"
        remedy = f"Find out how many, and name it so: {workload}=NUMBER"
        raise Refused(order.label, reason, remedy)
    count = noted.rpartition(":")[2]
    if not count.isdigit() or not (int(count) or is_zero_fine):
        remedy = f"Correct or remove the annotation {REPLICAS} of {workload}, then resume"
        raise NotVerified(order.label, "a number of replicas", repr(noted), remedy)
    return Replicas(found, int(count))


def down_operations(workload: Workload, replicas: Replicas) -> list[Operation]:
    """Scale to nothing, and note beside it what there was."""
    noted = f"{current_fence().recovery_id}:{replicas.original}"
    return [
        *text.tests(uid=workload.uid, replicas=replicas.found),
        {"op": "add", "path": REPLICAS_POINTER, "value": noted},
        {"op": "replace", "path": "/spec/replicas", "value": 0},
    ]


def back_operations(workload: Workload, replicas: Replicas) -> list[Operation]:
    """Scale back, and remove the note."""
    return [
        *text.tests(uid=workload.uid, replicas=0),
        {"op": "replace", "path": "/spec/replicas", "value": replicas.original},
        {"op": "remove", "path": REPLICAS_POINTER},
    ]


def _note(read: Mapping[str, Any]) -> str | None:
    noted = (read["metadata"].get("annotations") or {}).get(REPLICAS)
    return None if noted is None else str(noted)


def is_down(order: WorkloadOrder, workload: Workload) -> Verdict:
    """Whether nothing is wanted of it, and it says what it had."""
    with order.cluster.session() as session:
        read = session.get(workload.path)
    return Verdict.of(read_state(workload, read).wanted == 0 and _note(read) is not None)


def is_back(order: WorkloadOrder, workload: Workload, replicas: Replicas) -> Verdict:
    """Whether pods of it are wanted again: as many as it had, or as an autoscaler chose since."""
    with order.cluster.session() as session:
        read = session.get(workload.path)
    is_wanted = read_state(workload, read).wanted > 0 or replicas.original == 0
    return Verdict.of(is_wanted and _note(read) is None)


def back_commands(workload: Workload, replicas: Replicas) -> list[str]:
    """What scales it back."""
    return [text.patch_text(workload.path, back_operations(workload, replicas))]


@undo
def scale_up_again(order: WorkloadOrder, workload: Workload, replicas: Replicas) -> None:
    """Scale back, where it is still down by this recovery."""
    if is_back(order, workload, replicas) is not Verdict.DONE:
        with order.cluster.session() as session:
            session.patch(workload.path, back_operations(workload, replicas))


@act(
    each=("workload",),
    commands=lambda workload, replicas: [
        text.patch_text(workload.path, down_operations(workload, replicas))
    ],
    done_when=is_down,
    undo=scale_up_again,
    lasts_until="scale_back",
    takes_down=True,
)
def scale_down(order: WorkloadOrder, workload: Workload, replicas: Replicas) -> None:
    """Want no pod of it any more; the number it had is noted on it.

    Its pods are still going when this returns: wait with `no_pods_left`. Done twice, it does
    nothing.

    Raises:
        ClusterConflict: somebody scaled it meanwhile.
        Unreachable: no answer.
    """
    with order.cluster.session() as session:
        session.patch(workload.path, down_operations(workload, replicas))


@act(
    each=("workload",),
    commands=back_commands,
    done_when=is_back,
)
def scale_back(order: WorkloadOrder, workload: Workload, replicas: Replicas) -> None:
    """Want as many pods of it as there were, and remove the note.

    Done twice, it does nothing. Whether they come up is for `is_out`.

    Raises:
        ClusterConflict: somebody scaled it meanwhile.
        Unreachable: no answer.
    """
    with order.cluster.session() as session:
        session.patch(workload.path, back_operations(workload, replicas))

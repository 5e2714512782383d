"""Writing the changes into the workload's template, and taking them back where it is not out."""

from collections.abc import Iterable, Mapping
from typing import Any

from blocks.kube import text
from blocks.kube.text import Operation
from recovery.steps import act, decision, undo
from recovery.verdict import Verdict
from recovery.walk import current_fence
from tasks.containers.change import backwards, forwards, is_done, is_undone
from tasks.containers.finding import ContainerFound
from tasks.containers.order import ContainerOrder
from tasks.workloads import restarting
from tasks.workloads.pods import PodSeen, pods_of
from tasks.workloads.restarting import HowItWent, Went
from tasks.workloads.state import read_state
from tasks.workloads.waiting import rollout_end

UID = "/metadata/uid"


def change_operations(found: ContainerFound) -> list[Operation]:
    """Change the container, if it and the template are those that were looked at."""
    return [
        *restarting.restart_operations(found.service),
        text.tested(f"{found.root}/name", found.container),
        *forwards(found.root, found.changes),
    ]


def back_operations(found: ContainerFound) -> list[Operation]:
    """Put back what stood there, which makes the template the one it was."""
    return [
        *restarting.back_operations(found.service),
        text.tested(f"{found.root}/name", found.container),
        *backwards(found.root, found.changes),
    ]


def container_in(found: ContainerFound, read: Mapping[str, Any]) -> Mapping[str, Any]:
    """The container as its workload has it now; empty where it has none of that name."""
    containers = read["spec"]["template"]["spec"].get(found.place) or []
    return next((one for one in containers if one["name"] == found.container), {})


def is_changed(order: ContainerOrder, found: ContainerFound) -> Verdict:
    """Whether the container has all that was asked for."""
    with order.cluster.session() as session:
        read = session.get(found.workload.path)
    return Verdict.of(is_done(container_in(found, read), found.changes))


def is_taken_back(order: ContainerOrder, found: ContainerFound, went: Went) -> Verdict:
    """Whether nothing is to be taken back, or the container has what it had.

    Half done: pods of the change still keep a StatefulSet from going back.
    """
    if not went.is_taken_back:
        return Verdict.DONE
    with order.cluster.session() as session:
        read = session.get(found.workload.path)
        if not is_undone(container_in(found, read), found.changes):
            return Verdict.NOT_DONE
        is_stuck = restarting.stuck_pods(session, found.service)
    return Verdict.HALF_DONE if is_stuck else Verdict.DONE


def back_commands(found: ContainerFound) -> list[str]:
    """What puts it back: the patch; for a StatefulSet, the pods that may be in the way."""
    stuck = restarting.may_be_stuck(found.service)
    return [
        text.patch_text(found.workload.path, back_operations(found)),
        *(text.delete_where_text(path, restarting.of_this_restart()) for path in stuck),
    ]


@undo
def container_put_back(order: ContainerOrder, found: ContainerFound) -> None:
    """Put back what the container had, where it still has what this recovery gave it."""
    _put_back(order, found)


@act(
    commands=lambda found: [text.patch_text(found.workload.path, change_operations(found))],
    done_when=is_changed,
    undo=container_put_back,
    lasts_until="roll_back",
    redo_stale=False,
)
def change_container(order: ContainerOrder, found: ContainerFound) -> None:
    """Write the values into the one container of the template; every pod is replaced for it.

    Other containers and values are left as they are. Images with a moving tag are pulled anew.
    Done twice, the second does nothing, because the values are there.

    Raises:
        ClusterConflict: the workload was changed since it was looked at.
        ClusterForbidden, ClusterRejected, Unreachable: see there.

    Runbook: docs/runbooks/restarting-containers.md, step 5.
    """
    with order.cluster.session() as session:
        session.patch(found.workload.path, change_operations(found))


def is_clear(order: ContainerOrder, found: ContainerFound) -> Verdict:
    """Whether no pod is left of those that would hold up a StatefulSet."""
    return Verdict.of(not _left(order, found))


def clear_commands(found: ContainerFound) -> Iterable[str]:
    """What deletes them, each only if it is still the one that was looked at."""
    return [
        text.delete_where_text(_pod_path(found, pod), [text.tested(UID, pod.uid)])
        for pod in found.in_the_way
    ]


@act(commands=clear_commands, done_when=is_clear, redo_half_done=True)
def clear_the_way(order: ContainerOrder, found: ContainerFound) -> None:
    """Delete the pods of a StatefulSet that are not ready: it replaces none before they are.

    Their claims stay. Those that became ready meanwhile are left alone. Done twice, the second
    does nothing.

    Raises:
        ClusterForbidden, Unreachable: see there.

    Runbook: docs/runbooks/restarting-containers.md, step 5.
    """
    with order.cluster.session() as session:
        for pod in _left(order, found):
            session.delete_where(_pod_path(found, pod), [text.tested(UID, pod.uid)])


@decision
def how_it_went(order: ContainerOrder, found: ContainerFound) -> Went:
    """How the rollout went, once it is out or late; at once where there was none yet, in a plan.

    Raises:
        Unreachable: the API gave no answer up to the deadline.

    Runbook: docs/runbooks/restarting-containers.md, step 6.
    """
    mark, epoch = current_fence().recovery_id, current_fence().epoch
    with order.cluster.session() as session:
        if read_state(found.workload, session.get(found.workload.path)).mark != mark:
            return Went(HowItWent.OUT, restarting.another_rollout(), [], epoch)
        is_out = rollout_end(session, found.workload, mark, order.within_seconds)
        state = read_state(found.workload, session.get(found.workload.path))
        pods = pods_of(session, found.workload)
    fresh = [pod for pod in pods if pod.mark == mark]
    images = restarting.changed_images(found.service.pods, fresh)
    if is_out:
        return Went(HowItWent.OUT, str(state), images, epoch)
    why = "; ".join(sorted({cause for pod in fresh for cause in pod.causes})) or "no new pod"
    return Went(HowItWent.CAUSED, f"{state}; {why}", images, epoch)


@act(
    commands=back_commands,
    done_when=is_taken_back,
    redo_half_done=True,
    only_if="its pods do not come up in time",
)
def roll_back(order: ContainerOrder, found: ContainerFound, went: Went) -> None:
    """Put back what the container had, where its pods did not come up in time.

    A plan shows it always: consent to the change is consent to that. Done twice, the second does
    nothing.

    Raises:
        ClusterConflict: somebody changed the workload meanwhile.
        Unreachable: no answer.

    Runbook: docs/runbooks/restarting-containers.md, step 6.
    """
    del went  # asked by the probe
    _put_back(order, found)


def _put_back(order: ContainerOrder, found: ContainerFound) -> None:
    with order.cluster.session() as session:
        read = session.get(found.workload.path)
        if read_state(found.workload, read).mark == current_fence().recovery_id:
            session.patch(found.workload.path, back_operations(found))
        for path in restarting.stuck_pods(session, found.service):
            session.delete_where(path, restarting.of_this_restart())


def _left(order: ContainerOrder, found: ContainerFound) -> list[PodSeen]:
    uids = {pod.uid for pod in found.in_the_way}
    with order.cluster.session() as session:
        pods = pods_of(session, found.workload)
    return [p for p in pods if p.uid in uids and not p.is_ready and not p.is_terminating]


def _pod_path(found: ContainerFound, pod: PodSeen) -> str:
    return f"{found.workload.pods_path}/{pod.name}"

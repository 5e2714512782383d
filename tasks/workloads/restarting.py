"""Restarting a workload once, finding out how that went, and taking it back where it did harm."""

from dataclasses import dataclass
from enum import StrEnum

from blocks.kube import text
from blocks.kube.session import KubernetesSession
from blocks.kube.text import Operation
from recovery.steps import act, decision, undo
from recovery.verdict import Verdict
from recovery.walk import current_fence
from tasks.workloads.pods import MARK_POINTER, PodSeen, pods_of
from tasks.workloads.state import REVISION_OF, TEMPLATE_MARK, read_state
from tasks.workloads.target import WorkloadKind, WorkloadOrder
from tasks.workloads.triage import Found
from tasks.workloads.waiting import rollout_end

LAST_LOOK_SECONDS = 5


class HowItWent(StrEnum):
    """How a restart went."""

    OUT = "out"
    CAUSED = "worse-by-the-restart"
    NOT_CAUSED = "no-better-by-the-restart"


@dataclass(frozen=True)
class Went:
    """How a restart went, what told so, and which images are others than before.

    `epoch` is that of the attempt that waited for it.
    """

    how: HowItWent
    seen: str
    images: list[str]
    epoch: int = 0

    @property
    def is_taken_back(self) -> bool:
        """Whether the workload is better off without it."""
        return self.how is HowItWent.CAUSED

    def seconds_more(self, order: WorkloadOrder) -> int:
        """How long it is waited for from here: a last look, where this attempt waited in vain.

        An attempt that resumes waits anew: somebody mended the cause, and pods take their time.
        """
        is_waited = self.how is HowItWent.NOT_CAUSED and self.epoch == current_fence().epoch
        return LAST_LOOK_SECONDS if is_waited else order.within_seconds


def restart_operations(found: Found) -> list[Operation]:
    """Mark the pod template with this recovery, if it is still the template that was looked at."""
    workload = found.workload
    revision: list[Operation] = []
    if found.state.revision:
        is_number = workload.kind is WorkloadKind.DAEMONSET
        value = int(found.state.revision) if is_number else found.state.revision
        revision = [text.tested(REVISION_OF[workload.kind], value)]
    mark = current_fence().recovery_id
    return [
        *text.tests(uid=workload.uid),
        *revision,
        {"op": "add", "path": TEMPLATE_MARK, "value": mark},
    ]


def back_operations(found: Found) -> list[Operation]:
    """Give the pod template the mark it had, which makes it the template it was."""
    mine = text.tested(TEMPLATE_MARK, current_fence().recovery_id)
    before = found.state.mark
    back: Operation = {"op": "remove", "path": TEMPLATE_MARK}
    if before:
        back = {"op": "replace", "path": TEMPLATE_MARK, "value": before}
    return [*text.tests(uid=found.workload.uid), mine, back]


def is_restarted(order: WorkloadOrder, found: Found) -> Verdict:
    """Whether the pod template has the mark of this recovery."""
    return Verdict.of(_mark(order, found) == current_fence().recovery_id)


def is_taken_back(order: WorkloadOrder, found: Found, went: Went) -> Verdict:
    """Whether nothing is to be taken back, or the pod template no longer has this mark.

    Half done: pods of the restart still keep a StatefulSet from going back.
    """
    if not went.is_taken_back:
        return Verdict.DONE
    if _mark(order, found) == current_fence().recovery_id:
        return Verdict.NOT_DONE
    with order.cluster.session() as session:
        return Verdict.HALF_DONE if stuck_pods(session, found) else Verdict.DONE


def back_commands(found: Found) -> list[str]:
    """What takes a restart back: the patch; for a StatefulSet, the pods that may be in the way."""
    return [
        text.patch_text(found.workload.path, back_operations(found)),
        *(text.delete_where_text(path, of_this_restart()) for path in may_be_stuck(found)),
    ]


def of_this_restart() -> list[Operation]:
    """What holds for a pod of this recovery's template alone."""
    return [text.tested(MARK_POINTER, current_fence().recovery_id)]


@undo
def restart_taken_back(order: WorkloadOrder, found: Found) -> None:
    """Go back to the pod template of before, where this recovery's is still the newest."""
    _take_back(order, found)


@act(
    commands=lambda found: [text.patch_text(found.workload.path, restart_operations(found))],
    done_when=is_restarted,
    undo=restart_taken_back,
    lasts_until="roll_back",
    redo_stale=False,
)
def restart(order: WorkloadOrder, found: Found) -> None:
    """Replace every pod, in the way that the workload's own strategy says.

    Images with a moving tag are pulled anew, so other code may start. Done twice in one recovery,
    the second does nothing, because the mark is there.

    Raises:
        ClusterConflict: the workload was changed since it was looked at.
        ClusterForbidden, ClusterRejected: see there.
        Unreachable: no answer.

    Runbook: docs/runbooks/restart-service.md, step 4.
    """
    with order.cluster.session() as session:
        session.patch(found.workload.path, restart_operations(found))


@decision
def how_it_went(order: WorkloadOrder, found: Found) -> Went:
    """How the restart went, once it is out or late; at once where there was none yet, in a plan.

    Worse is: a pod of the new template runs another image than before and is not ready, or fails
    in a way that none failed before, or fewer pods are available than before.

    Raises:
        Unreachable: the API gave no answer up to the deadline.

    Runbook: docs/runbooks/restart-service.md, step 5.
    """
    mark = current_fence().recovery_id
    with order.cluster.session() as session:
        if read_state(found.workload, session.get(found.workload.path)).mark != mark:
            return Went(HowItWent.OUT, another_rollout(), [], current_fence().epoch)
        is_done = rollout_end(session, found.workload, mark, order.within_seconds)
        state = read_state(found.workload, session.get(found.workload.path))
        pods = pods_of(session, found.workload)
    fresh = [pod for pod in pods if pod.mark == mark]
    images = changed_images(found.pods, fresh)
    if is_done:
        return Went(HowItWent.OUT, str(state), images, current_fence().epoch)
    why = worse_by(found, fresh, images, state.available)
    how = HowItWent.CAUSED if why else HowItWent.NOT_CAUSED
    seen = f"{state}; {why or 'it fails as it failed before'}"
    return Went(how, seen, images, current_fence().epoch)


def another_rollout() -> str:
    """What is said where the newest rollout is none of this recovery: in a plan there is none."""
    if not current_fence().epoch:
        return "not known before it is done"
    return "there is another rollout than that of this recovery"


@act(
    commands=back_commands,
    done_when=is_taken_back,
    redo_half_done=True,
    only_if="the restart makes it worse",
)
def roll_back(order: WorkloadOrder, found: Found, went: Went) -> None:
    """Go back to the pod template of before this recovery, where the restart made it worse.

    A plan shows it always, since only the restart can tell whether it is needed: consent to a
    restart is consent to taking it back.

    Pods of that template that still run are kept. New ones pull a moving tag again: the report
    names the image that ran before. Done twice, the second does nothing.

    Raises:
        ClusterConflict: somebody changed the workload after the restart.
        Unreachable: no answer.

    Runbook: docs/runbooks/restart-service.md, step 6.
    """
    del went  # asked by the probe
    _take_back(order, found)


def changed_images(before: list[PodSeen], after: list[PodSeen]) -> list[str]:
    """Which containers run another image than any pod ran before, as `container: old -> new`."""
    known: dict[str, set[str]] = {}
    for pod in before:
        for container, image in pod.images.items():
            known.setdefault(container, set()).add(image)
    changed = {
        f"{container}: {', '.join(sorted(known[container] - {''}))} -> {image}"
        for pod in after
        for container, image in pod.images.items()
        if image
        and container in known
        and known[container] - {""}
        and image not in known[container]
    }
    return sorted(changed)


def worse_by(found: Found, fresh: list[PodSeen], images: list[str], available: int) -> str:
    """What is worse than before the restart; empty where nothing is."""
    known = {cause for pod in found.pods for cause in pod.causes}
    new = sorted({cause for pod in fresh for cause in pod.causes} - known)
    if images and any(not pod.is_ready for pod in fresh):
        return f"another image was pulled ({'; '.join(images)}) and its pods are not ready"
    if new and any(not pod.causes for pod in found.pods):
        return f"new pods fail as none did before: {'; '.join(new)}"
    if available < found.state.available:
        return f"{available} are available, {found.state.available} were before"
    return ""


def _mark(order: WorkloadOrder, found: Found) -> str:
    with order.cluster.session() as session:
        return read_state(found.workload, session.get(found.workload.path)).mark


def _take_back(order: WorkloadOrder, found: Found) -> None:
    with order.cluster.session() as session:
        if _mark(order, found) == current_fence().recovery_id:
            session.patch(found.workload.path, back_operations(found))
        for path in stuck_pods(session, found):
            session.delete_where(path, of_this_restart())


def may_be_stuck(found: Found) -> list[str]:
    """The pods of a StatefulSet, which have the same names before and after a restart."""
    if found.workload.kind is not WorkloadKind.STATEFULSET:
        return []
    numbered = {f"{found.workload.name}-{n}" for n in range(found.state.wanted)}
    names = numbered | {pod.name for pod in found.pods}
    return [f"{found.workload.pods_path}/{name}" for name in sorted(names)]


def stuck_pods(session: KubernetesSession, found: Found) -> list[str]:
    """Pods that keep a StatefulSet from going back: it waits for each to be ready first."""
    mark, may_be = current_fence().recovery_id, set(may_be_stuck(found))
    if not may_be:
        return []
    paths = {
        f"{found.workload.pods_path}/{pod.name}"
        for pod in pods_of(session, found.workload)
        if pod.mark == mark and not pod.is_ready and not pod.is_terminating
    }
    return sorted(paths & may_be)

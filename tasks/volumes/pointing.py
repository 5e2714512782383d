"""Letting a Deployment name another claim for one of its volumes."""

from blocks.kube import text
from blocks.kube.text import Operation, value_at
from recovery.steps import act, undo
from recovery.verdict import Verdict
from tasks.volumes.target import VolumeOrder
from tasks.volumes.triage import Found, Pointing

VOLUMES = ("spec", "template", "spec", "volumes")


def _pointer(pointing: Pointing) -> str:
    return text.pointer_to(*VOLUMES, str(pointing.index))


def pointing_operations(found: Found) -> list[Operation]:
    """Put the new volume in the place of the old one, whatever that was, if it is still that."""
    return _swap(found, is_back=False)


def _swap(found: Found, *, is_back: bool) -> list[Operation]:
    pointing = found.pointing
    if pointing is None:
        return []
    before, after = pointing.before, pointing.after
    if is_back:
        before, after = after, before
    where = _pointer(pointing)
    return [
        *text.tests(uid=found.workload.uid),
        text.tested(where, before),
        {"op": "replace", "path": where, "value": after},
    ]


def is_pointed(order: VolumeOrder, found: Found) -> Verdict:
    """Whether the pod template names the claim."""
    if found.pointing is None:
        return Verdict.DONE
    with order.cluster.session() as session:
        read = session.get(found.workload.path)
    return Verdict.of(value_at(read, _pointer(found.pointing)) == found.pointing.after)


@undo
def pointed_back(order: VolumeOrder, found: Found) -> None:
    """Give the pod template the volume it had."""
    if is_pointed(order, found) is Verdict.DONE:
        with order.cluster.session() as session:
            session.patch(found.workload.path, _swap(found, is_back=True))


@act(
    commands=lambda found: [text.patch_text(found.workload.path, pointing_operations(found))],
    done_when=is_pointed,
    undo=pointed_back,
    redo_stale=False,
)
def point_at_claim(order: VolumeOrder, found: Found) -> None:
    """Let the pod template name the claim; its other volumes stay as they are.

    Done twice, the second does nothing. No pod starts by it: the workload is scaled to nothing.

    Raises:
        ClusterConflict: somebody changed that volume of the template.
        Unreachable: no answer.

    Runbook: docs/runbooks/released-volume.md, step 9.
    """
    with order.cluster.session() as session:
        session.patch(found.workload.path, pointing_operations(found))

"""Writing the value, and writing the former one back, with the recovery's name beside it."""

from collections.abc import Mapping
from typing import Any

from blocks.kube import text
from blocks.kube.session import KubernetesSession
from blocks.kube.text import Operation
from recovery.errors import NotVerified, Refused
from recovery.steps import act, undo
from recovery.verdict import Verdict
from recovery.walk import current_fence
from tasks.settings.consumers import Consumer
from tasks.settings.contents import (
    Content,
    as_it_stands,
    as_typed,
    is_same,
    pointer,
    set_by_name,
    standing,
)
from tasks.settings.finding import ConfigFound
from tasks.settings.keeping import AFTER, BEFORE, kept_contents, kept_path
from tasks.settings.order import ConfigOrder
from tasks.workloads import restarting
from tasks.workloads.pods import pods_of
from tasks.workloads.state import TEMPLATE_MARK, read_state
from tasks.workloads.waiting import not_out, rollout_end


def back_mark() -> str:
    """What marks that a recovery has put back what it did."""
    return f"{current_fence().recovery_id}-back"


def wanted(session: KubernetesSession, order: ConfigOrder, kept: str) -> Content:
    """The new value, as it stands at the key; what was kept of it counts, but in a plan of that.

    Raises:
        NotVerified: what was kept is gone. To read the value anew could bring another one.
    """
    if not kept or is_kept_later(session, order, kept):
        return as_it_stands(order, order.source.read())
    return kept_contents(session, order, kept, AFTER)


def former(
    session: KubernetesSession, order: ConfigOrder, found: ConfigFound, kept: str
) -> Content:
    """The value of before, as it stood at the key; in a plan of keeping it, that of now.

    Raises:
        NotVerified: what was kept is gone.
    """
    if not kept:
        return found.before
    if is_kept_later(session, order, kept):
        return standing(order, session.get(order.path)) or ""
    return as_typed(order, kept_contents(session, order, kept, BEFORE))


def set_operations(
    session: KubernetesSession, order: ConfigOrder, found: ConfigFound, kept: str
) -> list[Operation]:
    """Write the value, if the object and the value of before are those that were looked at."""
    value = wanted(session, order, kept)
    operations = text.tests(uid=found.uid)
    if found.is_there:
        before = former(session, order, found, kept)
        operations.append(text.tested(pointer(order), before))
    where, what = (pointer(order), value) if found.has_data else ("/data", {order.key: value})
    return [
        *operations,
        {"op": "add", "path": where, "value": what},
        _set_by(order, current_fence().recovery_id),
    ]


def back_operations(
    session: KubernetesSession, order: ConfigOrder, found: ConfigFound, kept: str
) -> list[Operation]:
    """Write the former value back, or remove the key again, if the value is still the new one."""
    mine = text.tested(pointer(order), wanted(session, order, kept))
    back: Operation = {"op": "remove", "path": pointer(order)}
    if found.is_there:
        value = former(session, order, found, kept)
        back = {"op": "replace", "path": pointer(order), "value": value}
    return [*text.tests(uid=found.uid), mine, back, _set_by(order, back_mark())]


def is_set(order: ConfigOrder, kept: str) -> Verdict:
    """Whether the value is the wanted one."""
    with order.cluster.session() as session:
        now = standing(order, session.get(order.path))
        return Verdict.of(is_same(now, wanted(session, order, kept)))


def is_put_back(
    order: ConfigOrder, found: ConfigFound, kept: str, *, is_due: bool = True
) -> Verdict:
    """Whether it need not be, or the value is the former one, or the key is gone again."""
    if not is_due:
        return Verdict.DONE
    with order.cluster.session() as session:
        now = standing(order, session.get(order.path))
        before = former(session, order, found, kept) if found.is_there else None
        return Verdict.of(is_same(now, before))


def set_commands(order: ConfigOrder, found: ConfigFound, kept: str) -> list[str]:
    """What writes the value."""
    with order.cluster.session() as session:
        return [text.patch_text(order.path, set_operations(session, order, found, kept))]


def back_commands(order: ConfigOrder, found: ConfigFound, kept: str) -> list[str]:
    """What writes the former value back."""
    with order.cluster.session() as session:
        return [text.patch_text(order.path, back_operations(session, order, found, kept))]


def refuse_if_added(order: ConfigOrder, found: ConfigFound) -> None:
    """Refuse to write over a key that somebody added meanwhile, which no patch can test for.

    Raises:
        Refused: it is there now.
    """
    if found.is_there:
        return
    with order.cluster.session() as session:
        data = session.get(order.path).get("data") or {}
    if order.key in data or (data and not found.has_data):
        reason = f"somebody added {', '.join(sorted(data))[:200]} since it was looked at"
        raise Refused(order.label, reason, "Look at it, and begin a new recovery")


@undo
def value_put_back(order: ConfigOrder, found: ConfigFound, kept: str) -> None:
    """Write the former value back, and then restart every consumer that was restarted for it.

    Who else was given the value goes back first: nobody is restarted onto one that is refused.
    """
    order.source.go_back_first(order, kept)
    if is_put_back(order, found, kept) is not Verdict.DONE:
        with order.cluster.session() as session:
            session.patch(order.path, back_operations(session, order, found, kept))
    for one in found.consumers:
        if has_mark(order, one, current_fence().recovery_id):
            send_restart_back(order, one)
        if has_mark(order, one, back_mark()):
            wait_until_back(order, one)


@act(
    commands=set_commands,
    done_when=is_set,
    refuse_if=[refuse_if_added],
    undo=value_put_back,
    lasts_until="put_value_back",
    redo_stale=False,
)
def set_value(order: ConfigOrder, found: ConfigFound, kept: str) -> None:
    """Write the one key; all others are left as they are.

    Nothing that runs sees it yet, but pods that start by themselves from now on, and files of
    mounted volumes after a minute or so. Done twice, the second does nothing.

    Raises:
        Refused: the key was added meanwhile.
        ClusterConflict: the value, or the object, is not the one that was looked at, or kept.
        NotVerified: what was kept is gone.
        ClusterForbidden, ClusterRejected, Unreachable: see there.

    Runbook: docs/runbooks/config-value.md, step 5.
    """
    with order.cluster.session() as session:
        session.patch(order.path, set_operations(session, order, found, kept))


@act(
    commands=back_commands,
    done_when=is_put_back,
    redo_stale=False,
    only_if="a reader does not come up with it",
)
def put_value_back(order: ConfigOrder, found: ConfigFound, kept: str, *, is_due: bool) -> None:
    """Write the former value back, where a consumer did not come up with the new one.

    A plan shows it always, since only the restarts can tell whether it is needed: consent to the
    change is consent to taking it back. Done twice, the second does nothing.

    Raises:
        ClusterConflict: somebody has changed the value since.
        NotVerified: what was kept of the former value is gone.
        Unreachable: no answer.

    Runbook: docs/runbooks/config-value.md, step 7.
    """
    del is_due  # asked by the probe
    with order.cluster.session() as session:
        session.patch(order.path, back_operations(session, order, found, kept))


def has_mark(order: ConfigOrder, consumer: Consumer, mark: str) -> bool:
    """Whether a consumer's pod template has a mark."""
    workload = consumer.workload
    with order.cluster.session() as session:
        return read_state(workload, session.get(workload.path)).mark == mark


def restart_back_operations(consumer: Consumer, *, is_late: bool = False) -> list[Operation]:
    """Restart a consumer that this recovery has restarted, once more.

    One that is late goes back to its former template instead: the pods of that which still run
    have read the former value, and no image is pulled again.
    """
    if is_late:
        return restarting.back_operations(consumer.found)
    return [
        *text.tests(uid=consumer.workload.uid),
        text.tested(TEMPLATE_MARK, current_fence().recovery_id),
        {"op": "replace", "path": TEMPLATE_MARK, "value": back_mark()},
    ]


def send_restart_back(order: ConfigOrder, consumer: Consumer, *, is_late: bool = False) -> None:
    """Restart a consumer once more; pods that keep a StatefulSet from going back are deleted."""
    with order.cluster.session() as session:
        operations = restart_back_operations(consumer, is_late=is_late)
        session.patch(consumer.workload.path, operations)
        for path in restarting.stuck_pods(session, consumer.found):
            session.delete_where(path, restarting.of_this_restart())


def wait_until_back(order: ConfigOrder, consumer: Consumer) -> str:
    """How a consumer stands once all its pods have read the former value.

    Raises:
        NotVerified: not in time; says why its pods are not ready.
    """
    workload = consumer.workload
    with order.cluster.session() as session:
        mark = read_state(workload, session.get(workload.path)).mark
        within = order.within_seconds
        is_out = rollout_end(session, workload, mark, within, gives_up_late=False)
        state = read_state(workload, session.get(workload.path))
        if not is_out:
            pods = pods_of(session, workload)
            raise not_out(order.workload_order(workload), workload, state, pods)
    return str(state)


def told_value(order: ConfigOrder, read: Mapping[str, Any]) -> str:
    """The value of now as a report may show it."""
    now = standing(order, read)
    if now is None:
        return f"{order.key} is not there"
    return f"{order.key} is {'the new value' if order.is_secret else repr(now)}"


def refuse_other_value(order: ConfigOrder, kept: str) -> None:
    """Say so where the value is not the wanted one.

    Raises:
        NotVerified: it is not.
    """
    if is_set(order, kept) is not Verdict.DONE:
        raise NotVerified(
            order.label,
            f"the new value at {order.key}",
            "another one",
            "Somebody took it back: see who owns the object, and begin a new recovery",
        )


def is_kept_later(session: KubernetesSession, order: ConfigOrder, kept: str) -> bool:
    """Whether this is a plan, and the values are only to be kept by it."""
    return not current_fence().epoch and session.find(kept_path(order, kept)) is None


def _set_by(order: ConfigOrder, mark: str) -> Operation:
    where = text.pointer_to("metadata", "annotations", set_by_name(order))
    return {"op": "add", "path": where, "value": mark}

"""Restarting the consumers one after the other, each until it is really out, and back again."""

from collections.abc import Iterable
from dataclasses import dataclass

from blocks.kube import text
from recovery.errors import NotVerified
from recovery.steps import act, decision, probe, verify
from recovery.verdict import Verdict
from recovery.walk import current_fence
from tasks.settings.changing import (
    has_mark,
    refuse_other_value,
    restart_back_operations,
    send_restart_back,
    told_value,
    wait_until_back,
)
from tasks.settings.consumers import Consumer, is_newer
from tasks.settings.finding import ConfigFound
from tasks.settings.order import ConfigOrder
from tasks.workloads import evidence, restarting
from tasks.workloads.evidence import Captured
from tasks.workloads.pods import is_history, read_pod
from tasks.workloads.restarting import HowItWent, Went


@probe(each=("consumer",))
def captured(order: ConfigOrder, consumer: Consumer) -> Captured:
    """State, pods, events and logs of a consumer.

    Runbook: docs/runbooks/config-value.md, step 6.
    """
    return evidence.captured.fn(order.workload_order(consumer.workload), consumer.workload)


def is_restarted(order: ConfigOrder, consumer: Consumer) -> Verdict:
    """Whether its pod template has the mark of this recovery."""
    return Verdict.of(has_mark(order, consumer, current_fence().recovery_id))


def is_restarted_back(order: ConfigOrder, consumer: Consumer, *, is_due: bool) -> Verdict:
    """Whether it need not be, or its pod template has not, or no longer, this recovery's mark."""
    return Verdict.of(not is_due or not has_mark(order, consumer, current_fence().recovery_id))


def restart_back_commands(consumer: Consumer) -> Iterable[str]:
    """What restarts a consumer once more, and what takes its restart back: one of them is sent."""
    in_the_way = restarting.may_be_stuck(consumer.found)
    return [
        *(
            text.patch_text(
                consumer.workload.path, restart_back_operations(consumer, is_late=is_late)
            )
            for is_late in (False, True)
        ),
        *(text.delete_where_text(path, restarting.of_this_restart()) for path in in_the_way),
    ]


@act(
    each=("consumer",),
    commands=lambda consumer: [
        text.patch_text(consumer.workload.path, restarting.restart_operations(consumer.found))
    ],
    done_when=is_restarted,
    lasts_until="restart_back",
    redo_stale=False,
)
def restart_consumer(order: ConfigOrder, consumer: Consumer) -> None:
    """Replace every pod of a consumer, so that it reads the value.

    Images with a moving tag are pulled anew. Its way back is that of the value: `set_value` puts
    that back first, and then restarts. Done twice, the second does nothing.

    Raises:
        ClusterConflict: the workload was changed since it was looked at.
        ClusterForbidden, ClusterRejected, Unreachable: see there.

    Runbook: docs/runbooks/config-value.md, step 6.
    """
    with order.cluster.session() as session:
        operations = restarting.restart_operations(consumer.found)
        session.patch(consumer.workload.path, operations)


@decision(each=("consumer",))
def consumer_went(order: ConfigOrder, consumer: Consumer) -> Went:
    """How its restart went, once it is out or late.

    Raises:
        Unreachable: the API gave no answer up to the deadline.

    Runbook: docs/runbooks/config-value.md, step 6.
    """
    return restarting.how_it_went.fn(order.workload_order(consumer.workload), consumer.found)


@act(
    each=("consumer",),
    commands=restart_back_commands,
    done_when=is_restarted_back,
    only_if="the value is put back; one of the two is sent",
)
def restart_back(order: ConfigOrder, consumer: Consumer, *, is_due: bool, is_late: bool) -> None:
    """Restart a consumer once more, so that it reads the former value; one that is late goes back.

    A plan shows it always, as it does what puts the value back. One that was not restarted is left
    alone. Done twice, the second does nothing.

    Raises:
        ClusterConflict: somebody changed the workload meanwhile.
        Unreachable: no answer.

    Runbook: docs/runbooks/config-value.md, step 7.
    """
    del is_due  # asked by the probe
    send_restart_back(order, consumer, is_late=is_late)


@verify(each=("consumer",))
def is_back(order: ConfigOrder, consumer: Consumer) -> str:
    """How a consumer stands once all its pods have read the former value.

    Raises:
        NotVerified: not in time.
        Unreachable: the API gave no answer up to the deadline.

    Runbook: docs/runbooks/config-value.md, step 7.
    """
    return wait_until_back(order, consumer)


@verify
def is_seen(order: ConfigOrder, found: ConfigFound, kept: str, late: list[str]) -> list[str]:
    """What every consumer sees now: the value, and how many pods have read it.

    Raises:
        NotVerified: the value was put back or taken back, or a pod is older than it.
        Unreachable: no answer.

    Runbook: docs/runbooks/config-value.md, step 8.
    """
    if late:
        raise NotVerified(
            order.label,
            f"the new value at {order.key}, read by all",
            "; ".join(late),
            "See the logs of before and after in the report, hand it to L3 with `recover bundle`, "
            "and begin a new recovery once the value is known to be good",
        )
    refuse_other_value(order, kept)
    seen, mine = [], current_fence().recovery_id  # which restarted after it had seen the value
    with order.cluster.session() as session:
        read = session.get(order.path)
        for one in found.consumers:
            listed = session.objects(one.workload.pods_path, labels=one.workload.selector)
            pods = [pod for pod in listed if not is_history(pod)]
            older = [
                pod["metadata"]["name"]
                for pod in pods
                if read_pod(pod).mark != mine and not is_newer(pod, order, read)
            ]
            if older or not pods:
                raise NotVerified(
                    order.label,
                    f"every pod of {one} started after the change",
                    f"older: {', '.join(older) or 'there is no pod'}",
                    "See who restarted or changed it meanwhile, then resume",
                )
            seen.append(
                f"{one}: {told_value(order, read)} in {'; '.join(one.ways)}, by {len(pods)} pods"
            )
    return seen or [f"{told_value(order, read)}, and no pod was restarted for it"]


@dataclass(frozen=True)
class Restarts:
    """Who was restarted, and who of them did not come up: `late`, with how it `went`; or nobody."""

    restarted: list[Consumer]
    late: Consumer | None
    went: Went | None

    def are_taken_back(self, found: ConfigFound) -> bool:
        """Whether the value goes back: the restart did harm, and there is a former value."""
        return self.went is not None and self.went.is_taken_back and not found.is_equal

    def told(self, found: ConfigFound) -> list[str]:
        """Why not all have the value, where one did not come up."""
        if self.late is None or self.went is None:
            return []
        if self.are_taken_back(found):
            what = "did not come up with it, and the value was put back"
        else:
            what = "is no better, and the value stays"
        return [f"{self.late} {what}: {self.went.seen}"]


def is_late(went: Went) -> bool:
    """Whether a restart did not end well."""
    return went.how is not HowItWent.OUT

"""Raising what a container may use or is promised: what is written, and why not."""

import copy
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from recovery.errors import Refused
from tasks.containers.causes import Ending
from tasks.containers.change import Change, change, written
from tasks.containers.order import NO_LIMIT, ContainerOrder
from tasks.containers.quantities import amount

KINDS = ("limits", "requests")
USED_MIN = Decimal("0.8")  # of its CPU limit: below that nobody throttles it


def value_in(resources: Mapping[str, Any], kind: str, name: str) -> str:
    """A value of a container's resources; a request that is not there is its limit."""
    found = (resources.get(kind) or {}).get(name)
    if found is None and kind == "requests":
        found = (resources.get("limits") or {}).get(name)
    return "" if found is None else str(found)


def wanted_resources(order: ContainerOrder, container: Mapping[str, Any]) -> dict[str, Any]:
    """The resources of a container as they are asked to be.

    A request that equals its limit goes up with it: the pod keeps its class of service, by which
    nodes choose whom they evict first.

    Raises:
        Refused: a value would be lowered, or a request be above its limit.
    """
    now = container.get("resources") or {}
    wanted: dict[str, Any] = copy.deepcopy(dict(now))
    for kind in KINDS:
        for name, value in order.resources.of(kind).items():
            before = (now.get(kind) or {}).get(name)
            if value == NO_LIMIT:
                (wanted.get(kind) or {}).pop(name, None)
                continue
            if before is not None and amount(value) < amount(before):
                reason = f"the {name} {kind[:-1]} is {before}, and would be lowered to {value}"
                raise Refused(order.label, reason, f"Give more than {before}")
            if before is None or amount(value) != amount(before):
                wanted.setdefault(kind, {})[name] = value
    for name, limit in order.resources.of("limits").items():
        is_paired = (now.get("requests") or {}).get(name) == (now.get("limits") or {}).get(name)
        is_asked = name in order.resources.of("requests")
        if is_paired and not is_asked and limit != NO_LIMIT and "requests" in wanted:
            wanted["requests"][name] = wanted["limits"][name]
    for name in ("memory", "cpu"):
        request = (wanted.get("requests") or {}).get(name)
        most = (wanted.get("limits") or {}).get(name)
        if request is not None and most is not None and amount(request) > amount(most):
            reason = f"its {name} request would be {request}, above its limit {most}"
            raise Refused(order.label, reason, f"Raise {name}_limit as well")
    return {kind: values for kind, values in wanted.items() if values}


def resource_changes(order: ContainerOrder, container: Mapping[str, Any]) -> list[Change]:
    """What makes the resources as they are asked to be; none where they are."""
    wanted = wanted_resources(order, container)
    now = {kind: value for kind, value in (container.get("resources") or {}).items() if value}
    return [] if written(now) == written(wanted) else [change(container, "/resources", wanted)]


def refuse_unless_memory_ends_it(
    order: ContainerOrder, running: Mapping[str, Any], mine: Sequence[Ending]
) -> None:
    """Refuse a memory limit where the container has none: then its node had no more.

    Args:
        order: what was asked for.
        running: its resources as a pod has them, defaults of the namespace included.
        mine: how it ended, in each pod, for want of memory.

    Raises:
        Refused: it has no limit that could have ended it, or gets less than it has.
    """
    told = "; ".join(map(str, mine[:3]))
    limit = value_in(running, "limits", "memory")
    if not limit and order.resources.memory_limit:
        raise Refused(
            order.label,
            f"it has no memory limit: its node had no more ({told})",
            "Give memory_request, so that it is placed where there is as much, or see what fills "
            "the node",
        )
    wanted = order.resources.memory_limit
    if wanted and amount(wanted) <= amount(limit):
        reason = f"its pods have a limit of {limit} (of a LimitRange), and it is killed at that"
        raise Refused(order.label, reason, f"Give more than {limit}")
    if limit and not wanted:
        reason = f"it is killed at its limit of {limit}, which stays as it is ({told})"
        raise Refused(order.label, reason, "Give memory_limit")


def refuse_unless_throttled(
    order: ContainerOrder, running: Mapping[str, Any], mine: Sequence[Ending], used: Sequence[str]
) -> None:
    """Refuse more CPU where want of it is not what makes the probes time out.

    CPU limits kill nothing by themselves: a container that is throttled answers its probe late.

    Args:
        order: what was asked for.
        running: its resources as a pod has them.
        mine: how it ended, in each pod, by a probe.
        used: the CPU each pod's container uses now; none where nobody measures it.

    Raises:
        Refused: its probes get an answer, it has no limit, or it uses far less than that.
    """
    told = "; ".join(map(str, mine[:3]))
    if not any(one.is_slow for one in mine):
        reason = f"its probe gets an answer in time, and a bad one: {told}"
        raise Refused(order.label, reason, "See why it answers so, in its previous log")
    limit = value_in(running, "limits", "cpu")
    if not limit:
        if order.resources.cpu_limit:
            reason = f"it has no CPU limit that could throttle it ({told})"
            remedy = "Give cpu_request, so that it gets its share of a busy node, or relax-probes"
            raise Refused(order.label, reason, remedy)
        return
    if not order.resources.cpu_limit:
        reason = f"it is throttled at its limit of {limit}, which stays as it is ({told})"
        raise Refused(order.label, reason, f"Give cpu_limit, or {NO_LIMIT} to remove it")
    if used and max(map(amount, used)) < amount(limit) * USED_MIN:
        reason = f"it uses {', '.join(used)} of its CPU limit {limit}: nothing throttles it"
        remedy = "See what it waits for (a store, a lock), in its log; relax-probes gives it time"
        raise Refused(order.label, reason, remedy)

"""Whether a pod that asks for more would be let in, and would find a node: computed beforehand."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from tasks.containers.quantities import amount
from tasks.containers.resources import KINDS, value_in
from tasks.volumes.placing import fits, pod_wishes, takes_pods

NAMES = ("memory", "cpu")
ENDED = {"Succeeded", "Failed"}
Objects = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Rollout:
    """How many pods are wanted, and how many beside those while they are replaced."""

    wanted: int
    surge: int


def pod_sum(spec: Mapping[str, Any], kind: str, name: str) -> Decimal:
    """How much of a resource the containers of a pod have together."""
    containers = [*(spec.get("containers") or [])]
    containers += [
        one for one in spec.get("initContainers") or [] if one.get("restartPolicy") == "Always"
    ]
    values = [value_in(one.get("resources") or {}, kind, name) for one in containers]
    return sum((amount(value) for value in values if value), Decimal(0))


def surge_of(read: Mapping[str, Any], wanted: int) -> int:
    """How many pods a Deployment makes beside those that run; none for what replaces in place."""
    strategy = read["spec"].get("strategy") or {}
    if read.get("kind") != "Deployment" or strategy.get("type") == "Recreate":
        return 0
    surge = str((strategy.get("rollingUpdate") or {}).get("maxSurge", "25%"))
    if surge.endswith("%"):
        return -(-wanted * int(surge[:-1]) // 100)
    return int(surge)


def limit_range_objections(
    ranges: Objects,
    container: Mapping[str, Any],
    spec: Mapping[str, Any],
    unlimited: Sequence[str] = (),
) -> list[str]:
    """What the LimitRanges of a namespace have against a container, and against its pod.

    Args:
        ranges: those of the namespace.
        container: as it is to be.
        spec: of its pod, as it is to be.
        unlimited: of what the container is to have no limit.
    """
    found = []
    for one in ranges:
        for item in one["spec"].get("limits") or []:
            if item.get("type") == "Container":
                found += _against(one, item, lambda kind, name: _of(container, kind, name))
                found += [
                    f"limitrange/{one['metadata']['name']} gives a container without a {which} "
                    f"limit one of {item['default'][which]}"
                    for which in unlimited
                    if which in (item.get("default") or {})
                ]
            elif item.get("type") == "Pod":
                found += _against(one, item, lambda kind, name: pod_sum(spec, kind, name))
    return found


def _of(container: Mapping[str, Any], kind: str, name: str) -> Decimal:
    value = value_in(container.get("resources") or {}, kind, name)
    return amount(value) if value else Decimal(0)


def _against(one: Mapping[str, Any], item: Mapping[str, Any], value: Any) -> list[str]:
    name, kind = one["metadata"]["name"], str(item["type"]).lower()
    found = []
    for which in NAMES:
        limit, request = value("limits", which), value("requests", which)
        most = (item.get("max") or {}).get(which)
        if most is not None and max(limit, request) > amount(most):
            found.append(f"limitrange/{name} allows a {kind} {most} of {which} at most")
        ratio = (item.get("maxLimitRequestRatio") or {}).get(which)
        if ratio is not None and request and limit / request > amount(ratio):
            found.append(
                f"limitrange/{name} allows a {which} limit of {ratio} times the request at most"
            )
    return found


def quota_objections(
    quotas: Objects, old: Mapping[str, Any], new: Mapping[str, Any], rollout: Rollout
) -> list[str]:
    """Which ResourceQuotas of a namespace would not let all pods in, not even while replaced."""
    found = []
    for one in quotas:
        status = one.get("status") or {}
        hard, used = status.get("hard") or one["spec"].get("hard") or {}, status.get("used") or {}
        for which in NAMES:
            for kind in KINDS:
                for key in (f"{kind}.{which}", *((which,) if kind == "requests" else ())):
                    if key not in hard:
                        continue
                    before, after = pod_sum(old, kind, which), pod_sum(new, kind, which)
                    more = (after - before) * rollout.wanted + after * rollout.surge
                    left = amount(hard[key]) - amount(used.get(key, "0"))
                    if after > before and more > left:
                        found.append(
                            f"resourcequota/{one['metadata']['name']} has {_shown(left)} of {key} "
                            f"left, and {_shown(more)} more are needed while pods are replaced"
                        )
    return found


def node_objections(
    nodes: Objects, pods: Objects, new: Mapping[str, Any], mine: set[str], rollout: Rollout
) -> list[str]:
    """Why the pods would find no node: what is free is what no other pod was promised.

    Args:
        nodes: all of the cluster.
        pods: all of the cluster.
        new: the pod's spec as it is to be.
        mine: uids of the pods that are replaced.
        rollout: how many are wanted.
    """
    able = [one for one in nodes if takes_pods(one, new.get("tolerations") or [])]
    for wish in pod_wishes(new):
        able = [one for one in able if fits(one, wish.terms)]
    if not able:
        return ["no node takes pods of it"]
    found = []
    for which in NAMES:
        limit, most = pod_sum(new, "limits", which), max(_allocatable(one, which) for one in able)
        if limit > most:
            found.append(
                f"a {which} limit of {_shown(limit)} is more than any node has ({_shown(most)})"
            )
    if found:
        return found
    rooms = {one["metadata"]["name"]: _fitting(one, pods, new, mine) for one in able}
    if sum(rooms.values()) < rollout.wanted:
        found.append(
            f"room for {sum(rooms.values())} of {rollout.wanted} such pods on {len(able)} nodes"
        )
    elif rollout.surge and not any(_fitting(one, pods, new, set()) for one in able):
        found.append("no node has room for one such pod beside those that run")
    return found


def _fitting(node: Mapping[str, Any], pods: Objects, new: Mapping[str, Any], mine: set[str]) -> int:
    """How many such pods fit on a node beside all others."""
    name, counts = node["metadata"]["name"], []
    others = [
        one["spec"]
        for one in pods
        if one["spec"].get("nodeName") == name
        and one["metadata"]["uid"] not in mine
        and (one.get("status") or {}).get("phase") not in ENDED
    ]
    for which in NAMES:
        each = pod_sum(new, "requests", which)
        taken = sum((pod_sum(spec, "requests", which) for spec in others), Decimal(0))
        if each:
            counts.append(int(max(Decimal(0), _allocatable(node, which) - taken) // each))
    room = int(_allocatable(node, "pods")) - len(others)
    return max(0, min([*counts, room]))


def _allocatable(node: Mapping[str, Any], which: str) -> Decimal:
    return amount((node["status"].get("allocatable") or {}).get(which, "0"))


def _shown(value: Decimal) -> str:
    for unit, factor in (("Gi", 1 << 30), ("Mi", 1 << 20)):
        if value >= factor:
            return f"{(value / factor).quantize(Decimal('0.1')).normalize():f}{unit}"
    return f"{value.normalize():f}"

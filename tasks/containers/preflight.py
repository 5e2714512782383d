"""Asking whether the changed pods would be let in and find a node, before anything is changed."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from blocks.kube.answer import ClusterForbidden
from blocks.kube.path import path_of
from blocks.kube.session import KubernetesSession
from recovery.errors import Refused
from tasks.containers.order import NO_LIMIT, Accepted, ContainerOrder
from tasks.containers.resources import wanted_resources
from tasks.containers.room import (
    Rollout,
    limit_range_objections,
    node_objections,
    quota_objections,
    surge_of,
)
from tasks.workloads.state import read_state
from tasks.workloads.target import Workload


@dataclass(frozen=True)
class Asking:
    """A workload, its pods, and which of its containers is changed."""

    read: Mapping[str, Any]
    pods: Sequence[Mapping[str, Any]]
    container: str
    place: str
    index: int

    @property
    def running(self) -> Mapping[str, Any]:
        """The resources of the container as its pods have them, defaults included."""
        specs = [*(pod["spec"] for pod in self.pods), self.read["spec"]["template"]["spec"]]
        for spec in specs:
            for one in spec.get(self.place) or []:
                if one["name"] == self.container:
                    return one.get("resources") or {}
        return {}

    def as_wanted(self, order: ContainerOrder) -> dict[str, Any]:
        """The spec of a pod as it is to be: what the namespace gives to pods of now stays."""
        template = self.read["spec"]["template"]["spec"]
        spec = copy.deepcopy(dict(self.pods[0]["spec"] if self.pods else template))
        wanted = wanted_resources(order, template[self.place][self.index])
        for one in spec.get(self.place) or []:
            if one["name"] == self.container:
                one["resources"] = wanted
        return spec


def refuse_without_room(
    session: KubernetesSession, order: ContainerOrder, workload: Workload, asking: Asking
) -> list[str]:
    """Refuse resources that a LimitRange, a ResourceQuota or the nodes leave no room for.

    Returns:
        What could not be looked at, where that was accepted.

    Raises:
        Refused: a pod would not be let in, or would find no node; or nobody may look.
    """
    if not order.resources.is_memory and not order.resources.is_cpu:
        return []
    new = asking.as_wanted(order)
    container = next(one for one in new[asking.place] if one["name"] == asking.container)
    unlimited = [name for name, one in order.resources.of("limits").items() if one == NO_LIMIT]
    wanted = read_state(workload, asking.read).wanted
    rollout = Rollout(wanted, surge_of(asking.read, wanted))
    old = asking.pods[0]["spec"] if asking.pods else asking.read["spec"]["template"]["spec"]
    mine = {str(pod["metadata"]["uid"]) for pod in asking.pods}
    told: list[str] = []

    def listed(resource: str, namespace: str = "") -> list[dict[str, Any]] | None:
        try:
            return session.objects(path_of("v1", resource, namespace=namespace))
        except ClusterForbidden as error:
            told.append(f"the account may not look at {resource} ({error.command})")
            return None

    ranges, quotas = (listed(one, workload.namespace) for one in ("limitranges", "resourcequotas"))
    nodes, pods = listed("nodes"), listed("pods")
    found = [
        *limit_range_objections(ranges or [], container, new, unlimited),
        *quota_objections(quotas or [], old, new, rollout),
    ]
    if nodes is not None and pods is not None:
        found += node_objections(nodes, pods, new, mine, rollout)
    if found:
        reason = f"its pods would not be let in or find no node: {'; '.join(found)}"
        raise Refused(order.label, reason, "Ask for less, or have that raised or a node added")
    if told and Accepted.ROOM_NOT_KNOWN not in order.accept:
        raise Refused(
            order.label,
            f"nobody could tell whether there is room: {'; '.join(told)}",
            f"Let the account list them, or accept={Accepted.ROOM_NOT_KNOWN}: pods that do not "
            "come up in time are taken back",
        )
    return told

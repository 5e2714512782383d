"""Replace nodes of a kubeadm cluster by kubeadm's own means."""

from dataclasses import dataclass

from blocks.inventory import HostsParameter
from recovery.declare import recovery
from recovery.verdict import Danger
from tasks.certificates import survey
from tasks.kubeadm_nodes import (
    cluster,
    joining,
    lost,
    membership,
    newcomer,
    order,
    removal,
)


@dataclass(frozen=True)
class NodeReplaced:
    """What was taken out, what took its place, and how etcd stands."""

    removed: str
    joined: str
    labels: dict[str, str]
    taints: list[str]
    etcd: str


@recovery(
    runbook="docs/runbooks/kubeadm-nodes.md",
    target=lambda node, hosts: f"{node} of {order.hosts_label(hosts)}",
    parts=order.leased,
    answers=["etcdMembersDown"],
    danger=Danger.DESTRUCTIVE,
)
def replace_control_plane_node_kubeadm(
    hosts: HostsParameter,
    node: str,
    new_host: HostsParameter,
    new_name: str = "",
    within_seconds: float = 900.0,
) -> NodeReplaced:
    """Take a lost control-plane node out of etcd and the cluster, and join a host in its place.

    Its labels and taints are given to the new one. Refused where the quorum of etcd would not stand
    it. A node that lives is not replaced.

    Args:
        hosts: Control-plane hosts that live: name of an inventory, its file, or ssh:// URLs.
        node: Name of the lost node, as kubectl shows it.
        new_host: Host to join: prepared for kubeadm, and of no cluster; it may be the old one anew.
        new_name: Name of the new node; empty takes that of the lost one.
        within_seconds: How long the join may take, and then the node to be Ready.

    Runbook: docs/runbooks/kubeadm-nodes.md.
    """
    wanted = order.replacement_of(
        hosts, node, new_host, new_name, within_seconds, is_control_plane=True
    )
    return _replaced(wanted)


@recovery(
    runbook="docs/runbooks/kubeadm-nodes.md",
    target=lambda node, hosts: f"{node} of {order.hosts_label(hosts)}",
    parts=order.leased,
    answers=(),
    danger=Danger.DESTRUCTIVE,
)
def replace_worker_node_kubeadm(
    hosts: HostsParameter,
    node: str,
    new_host: HostsParameter,
    new_name: str = "",
    within_seconds: float = 900.0,
) -> NodeReplaced:
    """Delete the Node of a lost worker, and join a host in its place.

    Its labels and taints are given to the new one. A node that lives is not replaced.

    Args:
        hosts: Control-plane hosts: name of an inventory, its file, or ssh:// URLs.
        node: Name of the lost node, as kubectl shows it.
        new_host: Host to join: prepared for kubeadm, and of no cluster; it may be the old one anew.
        new_name: Name of the new node; empty takes that of the lost one.
        within_seconds: How long the join may take, and then the node to be Ready.

    Runbook: docs/runbooks/kubeadm-nodes.md.
    """
    wanted = order.replacement_of(
        hosts, node, new_host, new_name, within_seconds, is_control_plane=False
    )
    return _replaced(wanted)


def _replaced(wanted: order.Replacement) -> NodeReplaced:
    """Look, refuse, take out, join, give back, prove."""
    survivors = survey.nodes_of(order.inventory_of(wanted), ())
    seen = cluster.cluster_seen(survivors, wanted)
    comer = newcomer.newcomer_seen(wanted)
    newcomer.refuse_unless_fit(wanted, seen, comer, survivors)
    gone = lost.lost_node(seen, wanted)
    if gone.member_id:
        membership.remove_member(wanted, gone)
    if gone.uid:
        removal.delete_node(wanted, gone)
    joining.join(wanted, gone, comer)
    if gone.labels or gone.taints:
        removal.put_back_labels(wanted, gone)
    ready = joining.node_is_ready(wanted, gone)
    joining.take_token_back(wanted, gone)
    etcd = membership.etcd_is_whole(wanted) if wanted.is_control_plane else ""
    taints = [f"{one.key}:{one.effect}" for one in gone.taints]
    return NodeReplaced(gone.name, ready, gone.labels, taints, etcd)

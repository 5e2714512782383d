"""The node that is lost: found once, with what the one in its place is to have of it."""

from collections.abc import Sequence
from dataclasses import dataclass

from recovery.errors import Refused, Unreachable
from recovery.steps import decision
from tasks.certificates.quorum import Member, members_of
from tasks.kubeadm_nodes.cluster import Cluster, Taint
from tasks.kubeadm_nodes.order import Replacement


@dataclass(frozen=True)
class Lost:
    """A node as it was before anything was changed.

    Attributes:
        name: its name.
        uid: of its Node; empty where there was none any more.
        member_id: number of its member of etcd; empty where there was none.
        labels, taints: what its successor is given.
        acting: label of the survivor on which everything is done.
        server: the address that is given to whoever joins.
        ca_sha256: of the public key of the cluster's authority.
    """

    name: str
    uid: str
    member_id: str
    labels: dict[str, str]
    taints: tuple[Taint, ...]
    acting: str
    server: str
    ca_sha256: str


@decision
def lost_node(cluster: Cluster, replacement: Replacement) -> Lost:
    """What was known of the lost node before the first change: labels, taints, member, Node.

    Raises:
        Refused: neither node nor member is known by that name.
        UnreadableOutput: a list of members cannot be read.
        Unreachable: a host gave no answer, or none of them lists the members just then.

    Runbook: docs/runbooks/kubeadm-nodes.md, step 3.
    """
    node = cluster.named(replacement.node)
    members: Sequence[Member] = ()
    if replacement.is_control_plane:
        members = members_of(replacement.survivors)
        if not any(one.id for one in members):
            raise Unreachable(replacement.label, "list members of etcd", "no survivor lists them")
    member = next((one for one in members if one.name == replacement.node), None)
    if node is None and member is None:
        raise Refused(
            replacement.label,
            "neither a node nor a member of etcd has that name",
            "Name it as `kubectl get nodes` does",
        )
    return Lost(
        replacement.node,
        node.uid if node else "",
        member.id if member else "",
        node.labels if node else {},
        node.taints if node else (),
        cluster.acting.label,
        cluster.server,
        cluster.ca_sha256,
    )

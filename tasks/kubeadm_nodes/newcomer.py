"""The host that is to join: what is on it, and what stands against it."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from blocks.ssh.host import SshHost
from recovery.errors import Refused
from recovery.steps import probe
from recovery.walk import current_fence
from tasks.certificates.catalogue import EtcdKind
from tasks.certificates.judging import Reason
from tasks.certificates.kubeadm import CONFIG_VERSIONS, Kubeadm, minor_of
from tasks.certificates.look_lines import Lines, runtime_in
from tasks.certificates.look_script import look_argv
from tasks.certificates.quorum import Health, Member, members_of, told
from tasks.certificates.seen import Runtime, RuntimeKind
from tasks.certificates.work import Node
from tasks.kubeadm_nodes.cluster import Cluster, tools_missing
from tasks.kubeadm_nodes.membership import (
    RECOVER_QUORUM,
    members_seen,
    why_no_join,
    why_not_removed,
)
from tasks.kubeadm_nodes.order import Replacement

WITHIN_SECONDS = 60.0
OLDEST = min(since for since in CONFIG_VERSIONS if since >= (1, 22))
TOOLS = ("kubeadm", "openssl", "systemctl")
CLOCK_OFF_MAX_SECONDS = 60.0
MARK = "/var/lib/recovery-pipelines.joining"  # names the recovery whose join has not ended
OF_A_CLUSTER = (
    "/etc/kubernetes/manifests/* /etc/kubernetes/*.conf /etc/kubernetes/pki/ca.crt "
    "/var/lib/etcd/member"
)
LEFT = rf"""
[ "$(cat "$1" 2>/dev/null)" = "$2" ] && printf 'ours\tyes\n'
for path in "$1" {OF_A_CLUSTER}; do [ -e "$path" ] && printf 'left\t%s\n' "$path"; done
[ "$(wc -l </proc/swaps)" -gt 1 ] && printf 'swap\tyes\n'
command -v kubelet >/dev/null && printf 'kubelet\tyes\n'
:
"""


@dataclass(frozen=True)
class Newcomer:
    """What was seen of the host that is to join.

    Attributes:
        host: its label.
        tools: where each tool is; empty where it is not.
        kubeadm: the one on it.
        runtime: what runs its containers.
        left: files of a cluster that are there already, but for those of this recovery's own join.
        has_swap, has_kubelet: what it has.
        clock_off_seconds: how far its clock is from the worker's.
    """

    host: str
    tools: dict[str, str]
    kubeadm: Kubeadm
    runtime: Runtime
    left: tuple[str, ...]
    has_swap: bool
    has_kubelet: bool
    clock_off_seconds: float

    @property
    def label(self) -> str:
        """The host, for the journal."""
        return self.host


def left_argv() -> list[str]:
    """What finds the files of a cluster on a host, and whether this recovery has left them."""
    return ["sh", "-c", LEFT, "look-at-newcomer", MARK, current_fence().recovery_id]


def look_at_newcomer(host: SshHost) -> Newcomer:
    """Look at a host that is to join.

    Raises:
        Unreachable: no answer.
        CommandFailed: it does not let us read as root.
    """
    with host.session():
        host.read(["true"], as_root=True)  # so that connecting does not count as its clock's
        asked_at = time.time()
        answer = host.read(look_argv("facts"), within_seconds=WITHIN_SECONDS, as_root=True)
        left = host.read(left_argv(), as_root=True)
    facts, more = Lines(answer.whole()), Lines(left.whole())
    tools = facts.under("tool")
    return Newcomer(
        host.label,
        tools,
        Kubeadm(tools.get("kubeadm", ""), facts.one("version")),
        runtime_in(facts),
        () if more.one("ours") else tuple(more.all("left")),
        bool(more.one("swap")),
        bool(more.one("kubelet")),
        float(facts.all("clock")[0]) - asked_at,
    )


def reasons_against(newcomer: Newcomer, version: str) -> list[Reason]:
    """Why this host cannot join a control plane of this version."""
    install = "Install what kubeadm needs there, of the release of the cluster"
    reasons = [
        Reason(f"there is no {tool} on it", install)
        for tool in TOOLS
        if not newcomer.tools.get(tool)
    ]
    if not newcomer.has_kubelet:
        reasons.append(Reason("there is no kubelet on it", install))
    if newcomer.runtime.kind is not RuntimeKind.CRI:
        why = "no container runtime with crictl and a socket is found on it"
        reasons.append(Reason(why, install))
    if newcomer.left:
        also = f"; {MARK} is of another recovery's join: remove it last"
        reasons.append(
            Reason(
                f"it has files of a cluster: {', '.join(newcomer.left)}",
                "Make sure that it is the host you mean, then `kubeadm reset` there; a data folder "
                f"of etcd is worth a look before{also if MARK in newcomer.left else ''}",
            )
        )
    if newcomer.has_swap:
        reasons.append(Reason("it swaps", "`swapoff -a` there, and take swap out of /etc/fstab"))
    if abs(newcomer.clock_off_seconds) > CLOCK_OFF_MAX_SECONDS:
        why = f"its clock is {newcomer.clock_off_seconds:+.0f} s off"
        reasons.append(Reason(why, "`recover run synchronise-clocks` with this host"))
    if newcomer.kubeadm.version and version:
        reasons += _against_version(newcomer.kubeadm.version, version)
    return reasons


def _against_version(own: str, version: str) -> list[Reason]:
    if minor_of(own) < OLDEST:
        why = f"kubeadm is {own}; before 1.22 a node is also in a list that is edited by hand"
        return [Reason(why, "Replace it by the procedure of that release")]
    if minor_of(own) != minor_of(version):
        why = f"kubeadm is {own}, the control plane {version}"
        return [Reason(why, "Install the kubeadm and kubelet of the control plane's release")]
    return []


@probe
def newcomer_seen(replacement: Replacement) -> Newcomer:
    """What is on the host that is to join.

    Raises:
        Unreachable: no answer.
        CommandFailed: it does not let us read as root.

    Runbook: docs/runbooks/kubeadm-nodes.md, step 1.
    """
    return look_at_newcomer(replacement.new_host)


@probe
def refuse_unless_fit(
    replacement: Replacement, cluster: Cluster, newcomer: Newcomer, survivors: Sequence[Node]
) -> None:
    """Refuse where the node is not lost, the host cannot join, or etcd would not stand it.

    Raises:
        Refused: names every reason at once.
        UnreadableOutput: a list of members cannot be read.

    Runbook: docs/runbooks/kubeadm-nodes.md, step 2.
    """
    members = members_seen(replacement) if replacement.is_control_plane else []
    version = survivors[0].seen.control_plane_version
    reasons = [
        *reasons_of_nodes(replacement, cluster),
        *reasons_against(newcomer, version),
        *(reasons_of_etcd(replacement, members) if replacement.is_control_plane else ()),
        *reasons_of_acting(cluster.acting),
        *reasons_of_survivors(replacement, survivors),
    ]
    if reasons:
        remedies = dict.fromkeys(reason.remedy for reason in reasons)
        whys = "; ".join(reason.why for reason in reasons)
        raise Refused(replacement.label, whys, ". ".join(remedies))


def reasons_of_nodes(replacement: Replacement, cluster: Cluster) -> list[Reason]:
    """A node that lives, one that has the new name, a way to join that leads to a lost host."""
    reasons = []
    node, taken = cluster.named(replacement.node), cluster.named(replacement.new_name)
    if node is not None and node.is_ready:
        reasons.append(
            Reason(
                f"the node {node.name} is Ready: it is not lost",
                f"To replace a node that lives, `kubectl drain {node.name}`, then `kubeadm reset` "
                "on its host, which also leaves etcd, and start again",
            )
        )
    if node is not None and node.is_control_plane is not replacement.is_control_plane:
        other = "control-plane" if node.is_control_plane else "worker"
        reasons.append(
            Reason(f"{node.name} is a {other} node", f"Start replace-{other}-node-kubeadm")
        )
    if taken is not None and taken is not node:
        why = f"there is a node {taken.name} already"
        reasons.append(Reason(why, "Give another new_name, or `kubectl delete node` it first"))
    host = cluster.server.removeprefix("https://").rpartition(":")[0].strip("[]")
    if node is not None and host in node.addresses:
        reasons.append(
            Reason(
                f"cluster-info leads whoever joins to {cluster.server}, which is the lost node",
                "Correct it: `kubectl -n kube-public edit cm cluster-info`, and "
                "controlPlaneEndpoint in `kubectl -n kube-system edit cm kubeadm-config`",
            )
        )
    return reasons


def reasons_of_etcd(replacement: Replacement, members: Sequence[Member]) -> list[Reason]:
    """A quorum that would not stand it: with the lost member removed, and while one joins."""
    lost = next((one for one in members if one.name == replacement.node), None)
    why = why_not_removed(members, lost.id if lost else "")
    rest = [one for one in members if lost is None or one.id != lost.id]
    stranger = next((one for one in rest if one.name in {"", replacement.new_name}), None)
    if stranger and not why:
        known = "already" if stranger.name else "that was added and never started"
        return [
            Reason(
                f"etcd has a member {stranger.name or stranger.peer} {known}: {told(members)}",
                f"Where nobody is about to start it, `etcdctl member remove {stranger.id_in_hex}`; "
                "or give another new_name where that is its name",
            )
        ]
    why = why or why_no_join(rest, replacement.new_name)
    return [Reason(f"{why}: {told(members)}", RECOVER_QUORUM)] if why else []


def reasons_of_acting(acting: Node) -> list[Reason]:
    """No kubectl, say, where things are done: on no host whose API server answers is all of it."""
    return [
        Reason(f"there is no {tool} on {acting.label}", "Install it there")
        for tool in tools_missing(acting)
    ]


def reasons_of_survivors(replacement: Replacement, survivors: Sequence[Node]) -> list[Reason]:
    """An etcd that is not kubeadm's."""
    foreign = [one.label for one in survivors if one.seen.etcd is not EtcdKind.STACKED]
    if not replacement.is_control_plane or not foreign:
        return []
    return [
        Reason(
            f"etcd is not kubeadm's on {', '.join(foreign)}",
            "Replace its member by its own means, and the node through what keeps the cluster "
            "(kubespray: its inventory)",
        )
    ]


def refuse_to_join_beside_another_loss(replacement: Replacement) -> None:
    """Refuse to let a member join while another one is missing; asked immediately before.

    Raises:
        Refused: one is missing.
        UnreadableOutput: a list of members cannot be read.
    """
    if not replacement.is_control_plane:
        return
    members = members_of(replacement.survivors)
    healthy = [one for one in members if one.health is Health.HEALTHY]
    if why := why_no_join(members, replacement.new_name):
        raise Refused(replacement.label, f"{why}: {told(members)}", RECOVER_QUORUM)
    if not healthy:
        raise Refused(replacement.label, "no member of etcd answers", RECOVER_QUORUM)

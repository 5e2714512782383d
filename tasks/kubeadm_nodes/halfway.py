"""What a join that came halfway has left, and what must not be taken for it.

`kubeadm reset` takes the member of its host out of etcd only while the Node of that host can be
read; without it the data is emptied all the same, and a member of that name is left that no longer
knows what it has voted for. So the reset comes first, and the Node is deleted after it.
"""

import time
from collections.abc import Sequence
from enum import StrEnum

from blocks.ssh.host import SshHost
from recovery.errors import Refused
from recovery.walk import current_fence
from tasks.certificates.quorum import Member, told
from tasks.kubeadm_nodes.cluster import node_now
from tasks.kubeadm_nodes.lost import Lost
from tasks.kubeadm_nodes.membership import acting, members_seen
from tasks.kubeadm_nodes.newcomer import MARK, OF_A_CLUSTER, Newcomer
from tasks.kubeadm_nodes.order import Replacement

# The mark says that what is there of a cluster was left by this recovery's own join. Nothing else
# is reset, and no mark is set beside it: the next attempt would take it for its own.
OTHERS = r"""
if [ -e "$1" ] && [ "$(cat "$1")" != "$2" ]; then
  echo "a join of recovery $(cat "$1") was here; see that host, then remove $1" >&2; exit 8
fi
""".strip()
UNLESS_OF_A_CLUSTER = (
    f'[ -e "$1" ] || for path in {OF_A_CLUSTER}; do [ ! -e "$path" ] || '
    '{ echo "it has files of a cluster: $path" >&2; exit 8; }; done'
)
CLEAR = (
    f'{OTHERS}\n{UNLESS_OF_A_CLUSTER}; [ ! -e "$1" ] || '
    'kubeadm reset --force --cri-socket "$3" || exit 8'
)
STATE = 'if [ -e "$1" ]; then echo halfway; elif [ -e "$2" ]; then echo joined; fi'
KUBELET_CONF = "/etc/kubernetes/kubelet.conf"
PAUSE_SECONDS = 0.5
HEARD_SECONDS = 10.0  # a member that lags behind still lists one that was removed just now


class HostState(StrEnum):
    """How far the host that joins has come."""

    OUT = ""
    HALFWAY = "halfway"
    JOINED = "joined"


def state_of(host: SshHost) -> HostState:
    """How far the host has come, whatever the cluster shows.

    Raises:
        Unreachable: it gave no answer.
    """
    argv = ["sh", "-c", STATE, "how-far", MARK, KUBELET_CONF]
    return HostState(host.read(argv, as_root=True).stdout.strip())


def clear_argv(newcomer: Newcomer) -> list[str]:
    """What resets the host where this recovery's join was cut off, and leaves others alone."""
    mark, socket = [MARK, current_fence().recovery_id], newcomer.runtime.endpoint
    return ["sh", "-c", CLEAR, "clear-newcomer", *mark, socket]


def left_behind(members: Sequence[Member], new_name: str, lost: Lost) -> list[Member]:
    """Members of the name of the one that is to join, beside the lost one."""
    return [one for one in members if one.name == new_name and one.id != lost.member_id]


def why_a_member_is_left(replacement: Replacement, lost: Lost) -> tuple[str, str]:
    """Members of which one has the name of the one that is to join, and the number of that one.

    Both are empty where there is none, as soon as every survivor has heard of that.

    Raises:
        UnreadableOutput: a list of members cannot be read.
    """
    ends = time.monotonic() + HEARD_SECONDS
    while replacement.is_control_plane:
        members = members_seen(replacement)
        left = left_behind(members, replacement.new_name, lost)
        if not left:
            break
        if time.monotonic() >= ends:
            return told(members), left[0].id_in_hex
        time.sleep(PAUSE_SECONDS)
    return "", ""


def refuse_if_a_member_is_left(replacement: Replacement, lost: Lost) -> None:
    """Refuse while etcd has a member of the name of the one that is to join.

    kubeadm adds none at an address that has one: its host would join as a member whose data is
    gone, and end at once, for ever.

    Raises:
        Refused: it has.
        UnreadableOutput: a list of members cannot be read.
    """
    members, number = why_a_member_is_left(replacement, lost)
    if members:
        raise Refused(
            replacement.label,
            f"etcd has a member {replacement.new_name}, of which no Node tells: {members}",
            f"Make sure that the others are healthy, `etcdctl member remove {number}`, then resume",
        )


def refuse_to_take_a_name(replacement: Replacement, lost: Lost) -> None:
    """Refuse where Node or member of the new name are not of a join that is to be done again.

    Raises:
        Refused: they are of another host, or of this one, which has joined.
        UnreadableOutput: a list of members cannot be read.
    """
    now = node_now(acting(replacement, lost), replacement.new_name)
    if now is None or now.uid == lost.uid:
        refuse_if_a_member_is_left(replacement, lost)
        return
    state = state_of(replacement.new_host)
    if state is HostState.OUT:
        raise Refused(
            replacement.label,
            f"there is a node {now.name}, and {replacement.new_host.label} has not joined as it",
            "Mostly the lost host has come back: switch it off, or `kubeadm reset` there; then "
            f"`kubectl delete node {now.name}`, and resume",
        )
    if state is HostState.JOINED:
        raise Refused(
            replacement.label,
            f"{replacement.new_host.label} has joined as {now.name}, and its member of etcd is not "
            "healthy, or has no vote",
            "See /var/log/pods/kube-system_etcd* there; resume when it is healthy, or go back by "
            "`recover undo`, which takes the host out again",
        )

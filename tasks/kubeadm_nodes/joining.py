"""Joining a host by kubeadm. Token and certificate key never leave memory but on standard input."""

import json
import secrets
import time
from collections.abc import Iterable

import yaml

from recovery.errors import NotVerified, Refused
from recovery.secrecy.secret import Secret
from recovery.steps import act, undo, verify
from recovery.verdict import Danger, Verdict
from recovery.walk import current_fence
from tasks.certificates.api import OK, ask_api
from tasks.certificates.cluster_config import CONFIG_MAP
from tasks.certificates.kubeadm import Kubeadm
from tasks.certificates.quorum import Health
from tasks.kubeadm_nodes.cluster import node_now
from tasks.kubeadm_nodes.halfway import (
    OTHERS,
    UNLESS_OF_A_CLUSTER,
    HostState,
    clear_argv,
    refuse_if_a_member_is_left,
    refuse_to_take_a_name,
    state_of,
    why_a_member_is_left,
)
from tasks.kubeadm_nodes.lost import Lost
from tasks.kubeadm_nodes.membership import acting, members_seen
from tasks.kubeadm_nodes.newcomer import MARK, Newcomer, refuse_to_join_beside_another_loss
from tasks.kubeadm_nodes.order import Replacement
from tasks.kubeadm_nodes.removal import KUBECTL

PAUSE_SECONDS = 2.0
REGISTERED_SECONDS = 60.0
COMMAND_SECONDS = 120.0
GROUP = "system:bootstrappers:kubeadm:default-node-token"
TOKEN_ID_CHARS = 6
ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"
KEPT = "umask 077; file=$(mktemp /run/recover.XXXXXX) || exit 6; trap 'rm -f \"$file\"' EXIT; "
# What each prints holds the secrets, so it goes nowhere; what went wrong is on standard error. A
# Node of the new name is that of a join that came halfway: kubeadm joins beside none.
INVITE = (
    KEPT + 'cat >"$file"; kubeadm token delete "$(printf %.6s "$1")" >/dev/null 2>&1; '
    'kubeadm token create --config "$file" >/dev/null || exit 7; '
    'kubectl --kubeconfig /etc/kubernetes/admin.conf delete node "$3" --ignore-not-found '
    '|| exit 7; [ "$2" = worker ] && exit 0; kubeadm init phase upload-certs --upload-certs '
    '--skip-certificate-key-print --config "$file" >/dev/null'
)
# The mark is on disk before kubeadm begins: a power cut takes it from what was joined otherwise.
JOIN = (
    f'{OTHERS}\n{KEPT}cat >"$file"; {UNLESS_OF_A_CLUSTER}; echo "$2" >"$1"; sync "$1"; '
    'kubeadm join --config "$file" || exit 9; rm -f "$1"'
)
# The mark stays until the Node is deleted too: cut off in between, both are done again.
LEAVE = (
    OTHERS + '\n[ "$4" = joined ] || [ -e "$1" ] || exit 0; echo "$2" >"$1"; sync "$1"; '
    'kubeadm reset --force --cri-socket "$3"'
)
UNMARK = ("rm", "-f", MARK)
FORGET = 'kubeadm token delete "$(printf %.6s "$1")" >/dev/null 2>&1; :'


def token_id() -> str:
    """The public half of the token: that of this recovery, so that a resume finds its own."""
    return current_fence().recovery_id[:TOKEN_ID_CHARS]


def invite_argv(replacement: Replacement) -> list[str]:
    """What makes the token known and, for a control plane, uploads its certificates encrypted."""
    kind = "control-plane" if replacement.is_control_plane else "worker"
    recovery_id = current_fence().recovery_id
    return ["sh", "-c", INVITE, "invite-node", recovery_id, kind, replacement.new_name]


def join_argv() -> list[str]:
    """What joins the host."""
    return ["sh", "-c", JOIN, "join-node", MARK, current_fence().recovery_id]


def leave_argv(newcomer: Newcomer, *, has_node: bool) -> list[str]:
    """What resets the host where it has joined, or where this recovery's join was cut off."""
    mark, socket = [MARK, current_fence().recovery_id], newcomer.runtime.endpoint
    return ["sh", "-c", LEAVE, "leave-cluster", *mark, socket, "joined" if has_node else ""]


def join_commands(replacement: Replacement, lost: Lost, newcomer: Newcomer) -> Iterable[str]:
    """What resets it where it came halfway, and joins it; token and key come on standard input."""
    return [
        replacement.new_host.command_line(clear_argv(newcomer), as_root=True),
        acting(replacement, lost).command_line(invite_argv(replacement), as_root=True),
        replacement.new_host.command_line(join_argv(), as_root=True),
    ]


def is_joined(replacement: Replacement, lost: Lost) -> Verdict:
    """Whether the new node is there and, of a control plane, its member of etcd votes.

    While the mark is on its host the join has not come to its end, whatever the cluster shows; and
    a Node that this host has not joined as is that of another one.
    """
    now = node_now(acting(replacement, lost), replacement.new_name)
    if now is None or now.uid == lost.uid:
        return Verdict.NOT_DONE
    state = state_of(replacement.new_host)
    if state is not HostState.JOINED:
        return Verdict.HALF_DONE if state is HostState.HALFWAY else Verdict.NOT_DONE
    if not replacement.is_control_plane:
        return Verdict.DONE
    own = [one for one in members_seen(replacement) if one.name == replacement.new_name]
    has_vote = any(one.health is Health.HEALTHY and not one.is_learner for one in own)
    return Verdict.DONE if has_vote else Verdict.HALF_DONE


@undo
def leave(replacement: Replacement, lost: Lost, newcomer: Newcomer) -> None:
    """Take the new node out again: reset its host, which also leaves etcd, then delete its Node.

    The lost node does not come back by this. Nothing is done where it never joined: a Node of that
    name is then another host's.

    Raises:
        CommandFailed: kubeadm or the API said no, or another recovery's join was on that host.
        NotVerified: its member is still in etcd.
        UnreadableOutput: a list of members cannot be read.
    """
    now = node_now(acting(replacement, lost), replacement.new_name)
    is_out = state_of(replacement.new_host) is HostState.OUT
    has_node = now is not None and now.uid != lost.uid and not is_out
    argv = leave_argv(newcomer, has_node=has_node)
    replacement.new_host.change(argv, within_seconds=replacement.within_seconds, as_root=True)
    if has_node:
        argv = [*KUBECTL, "delete", "node", replacement.new_name, "--ignore-not-found"]
        acting(replacement, lost).change(argv, within_seconds=COMMAND_SECONDS, as_root=True)
    if not is_out:
        replacement.new_host.change(UNMARK, within_seconds=COMMAND_SECONDS, as_root=True)
        members, number = why_a_member_is_left(replacement, lost)
        if members:
            raise NotVerified(
                replacement.label,
                f"no member {replacement.new_name} to be left in etcd",
                members,
                f"`etcdctl member remove {number}`: the data of that one is gone",
            )


@act(
    commands=join_commands,
    done_when=is_joined,
    refuse_if=(refuse_to_join_beside_another_loss, refuse_to_take_a_name),
    undo=leave,
    danger=Danger.DESTRUCTIVE,
    redo_half_done=True,
)
def join(replacement: Replacement, lost: Lost, newcomer: Newcomer) -> None:
    """Make a token and a certificate key, and have the host join with them.

    Both are made here, are sent on standard input, and are kept nowhere: done again, others are
    made, and what an earlier attempt of this recovery has left on the host is reset before its Node
    is deleted: without that the reset does not leave etcd. The token ends after an hour, and is
    taken back at the end.

    Raises:
        CommandFailed: kubeadm said no; carries what it printed.
        AnswerLost: not known whether it joined; it may still be doing so.
        Refused: kubeadm's configuration cannot be read any more, or the reset has left a member in
            etcd.

    Runbook: docs/runbooks/kubeadm-nodes.md, step 6.
    """
    host = acting(replacement, lost)
    half = Secret("".join(secrets.choice(ALPHABET) for _ in range(16)))
    token = Secret(f"{token_id()}.{half.reveal()}")
    key = Secret(secrets.token_hex(32))
    kubeadm = newcomer.kubeadm
    cluster = ""
    if replacement.is_control_plane:
        answer = ask_api(host, {"config": CONFIG_MAP})[0]["config"]
        if answer.status != OK:
            raise Refused(
                replacement.label, "kubeadm-config cannot be read", "Bring the API back, resume"
            )
        cluster = answer.parsed().get("data", {}).get("ClusterConfiguration", "")
    invitation = invitation_of(kubeadm, token, key, cluster)
    replacement.new_host.change(
        clear_argv(newcomer), within_seconds=replacement.within_seconds, as_root=True
    )
    refuse_if_a_member_is_left(replacement, lost)
    argv = invite_argv(replacement)
    host.change(argv, within_seconds=COMMAND_SECONDS, stdin=invitation, as_root=True)
    replacement.new_host.change(
        join_argv(),
        within_seconds=replacement.within_seconds,
        stdin=joining_of(replacement, lost, newcomer, token, key),
        as_root=True,
    )
    ends = time.monotonic() + REGISTERED_SECONDS  # kubeadm may end before the kubelet is heard of
    while is_joined(replacement, lost) is not Verdict.DONE and time.monotonic() < ends:
        time.sleep(PAUSE_SECONDS)


def invitation_of(kubeadm: Kubeadm, token: Secret, key: Secret, cluster: str) -> Secret:
    """The configuration that makes token and encrypted certificates."""
    init = {
        "apiVersion": kubeadm.config_version,
        "kind": "InitConfiguration",
        "bootstrapTokens": [
            {
                "token": token.reveal(),
                "ttl": "1h0m0s",
                "usages": ["signing", "authentication"],
                "groups": [GROUP],
                "description": "replacement of a node",
            }
        ],
        "certificateKey": key.reveal(),
    }
    return Secret(
        "\n---\n".join(_line(one) for one in (yaml.safe_load(cluster or ""), init) if one)
    )


def joining_of(
    replacement: Replacement, lost: Lost, newcomer: Newcomer, token: Secret, key: Secret
) -> Secret:
    """The configuration that the host joins with."""
    registration: dict[str, object] = {
        "name": replacement.new_name,
        "criSocket": newcomer.runtime.endpoint,
    }
    if lost.uid:  # else nobody knows what taints it had: kubeadm's own
        registration["taints"] = [one.as_object() for one in lost.taints]
    config: dict[str, object] = {
        "apiVersion": newcomer.kubeadm.config_version,
        "kind": "JoinConfiguration",
        "discovery": {
            "bootstrapToken": {
                "token": token.reveal(),
                "apiServerEndpoint": lost.server.removeprefix("https://"),
                "caCertHashes": [f"sha256:{lost.ca_sha256}"],
            }
        },
        "nodeRegistration": registration,
    }
    if replacement.is_control_plane:
        config["controlPlane"] = {"certificateKey": key.reveal()}
    return Secret(_line(config))


def _line(document: object) -> str:
    """A document in one line, which is YAML too: each line of a secret is masked for itself."""
    return json.dumps(document)


@verify
def node_is_ready(replacement: Replacement, lost: Lost) -> str:
    """What the new node says of itself: it is Ready.

    Raises:
        NotVerified: it is not in time.

    Runbook: docs/runbooks/kubeadm-nodes.md, step 8.
    """
    ends = time.monotonic() + replacement.within_seconds
    while True:
        now = node_now(acting(replacement, lost), replacement.new_name)
        if now is not None and now.uid != lost.uid and now.is_ready:
            return f"{now.name} is Ready"
        if time.monotonic() >= ends:
            raise NotVerified(
                replacement.label,
                f"the node {replacement.new_name} to be Ready",
                "it is not Ready" if now else "there is no such node",
                "See `journalctl -u kubelet` there: mostly the network plugin is not up yet. Then "
                "resume",
            )
        time.sleep(PAUSE_SECONDS)


def forget_argv() -> list[str]:
    """What takes the token back."""
    return ["sh", "-c", FORGET, "forget-token", current_fence().recovery_id]


def forget_commands(replacement: Replacement, lost: Lost) -> Iterable[str]:
    """What takes the token back."""
    return [acting(replacement, lost).command_line(forget_argv(), as_root=True)]


def is_forgotten(replacement: Replacement, lost: Lost) -> Verdict:
    """Whether the token of this recovery is gone, once the host has joined with it."""
    if is_joined(replacement, lost) is not Verdict.DONE:
        return Verdict.NOT_DONE
    name = f"bootstrap-token-{token_id()}"  # asked for by its name, and nothing but that shown
    argv = [
        *KUBECTL,
        "-n",
        "kube-system",
        "get",
        "secret",
        name,
        "--ignore-not-found",
        "-o",
        "name",
    ]
    return Verdict.of(not acting(replacement, lost).read(argv, as_root=True).stdout.strip())


@act(commands=forget_commands, done_when=is_forgotten)
def take_token_back(replacement: Replacement, lost: Lost) -> None:
    """Delete the token that the host joined with: nobody else can use it any more.

    Raises:
        CommandFailed: the host said no.

    Runbook: docs/runbooks/kubeadm-nodes.md, step 8.
    """
    acting(replacement, lost).change(forget_argv(), within_seconds=COMMAND_SECONDS, as_root=True)

"""The member of etcd that is lost: whether the others can do without it, and its removal."""

from collections.abc import Iterable, Sequence

from blocks.ssh.host import SshHost
from recovery.errors import NotVerified, Refused
from recovery.steps import act, verify
from recovery.verdict import Danger, Verdict
from tasks.certificates.quorum import Health, Member, majority_of, members_of, told
from tasks.kubeadm_nodes.lost import Lost
from tasks.kubeadm_nodes.order import Replacement

WITHIN_SECONDS = 60.0
GONE = 7
RECOVER_QUORUM = "Win the quorum back first, by `recover-etcd-quorum`"
REMOVE = r"""
manifests=/etc/kubernetes/manifests
flag() { sed -n "/^ *- --$2=/{s///;s/[\"']//g;p;q;}" "$manifests/$1.yaml"; }
pki=$(flag kube-apiserver tls-cert-file); pki=${pki%/*}
at=$(flag etcd listen-client-urls | tr , '\n' | sed -n 's,^https://,,p' | head -n 1)
body="{\"ID\":\"$1\"}"
head='POST /v3/cluster/member/remove HTTP/1.0\r\nHost: %s\r\nContent-Length: %s\r\n\r\n%s'
said=$(printf "$head" "$at" "${#body}" "$body" | timeout 20 openssl s_client -quiet -connect "$at" \
  -cert "$pki/etcd/healthcheck-client.crt" -key "$pki/etcd/healthcheck-client.key" 2>/dev/null)
case $said in *' 200 '*|*'member not found'*) exit 0;; esac
printf '%s\n' "$said" | tail -n 1; exit 7
""".strip()


def why_not_removed(members: Sequence[Member], member_id: str) -> str:
    """Why this member must not be removed; empty where it may. Unknown counts as failed.

    Removing one takes a quorum of all, and must leave a quorum of those that stay.
    """
    voters = [one for one in members if not one.is_learner]
    stay = [one for one in voters if one.id != member_id]
    lost = next((one for one in members if one.id == member_id), None)
    healthy = [one for one in stay if one.health is Health.HEALTHY]
    if lost is not None and lost.health is Health.HEALTHY:
        return "it is healthy, so it is not lost"
    if len(healthy) < majority_of(len(voters)):
        return f"etcd has no quorum: {len(healthy)} of {len(voters)} members are healthy"
    if len(healthy) < majority_of(len(stay)):
        return f"{len(healthy)} of {len(stay)} members that stay are healthy: no quorum"
    return ""


def why_no_join(members: Sequence[Member], new_name: str) -> str:
    """Why no member may join now; empty where one may. Unknown counts as failed.

    While a member is missing another one that joins costs the quorum when it does not start.
    """
    missing = [
        one.name or one.peer
        for one in members
        if one.health is not Health.HEALTHY and one.name not in {"", new_name}
    ]
    return f"another member of etcd is missing: {', '.join(missing)}" if missing else ""


def members_seen(replacement: Replacement) -> list[Member]:
    """All members, each with its health."""
    return members_of(replacement.survivors)


def remove_argv(member_id: str) -> list[str]:
    """What removes a member, by its number."""
    return ["sh", "-c", REMOVE, "remove-etcd-member", member_id]


def remove_commands(replacement: Replacement, lost: Lost) -> Iterable[str]:
    """What removes it."""
    return [acting(replacement, lost).command_line(remove_argv(lost.member_id), as_root=True)]


def acting(replacement: Replacement, lost: Lost) -> SshHost:
    """The survivor on which things are done."""
    return next(host for host in replacement.survivors if host.label == lost.acting)


def is_removed(replacement: Replacement, lost: Lost) -> Verdict:
    """Whether it is no member any more; unknown where nobody lists the members."""
    members = members_seen(replacement)
    if not any(one.id for one in members):
        return Verdict.UNKNOWN
    return Verdict.of(all(one.id != lost.member_id for one in members))


def refuse_to_lose_quorum(replacement: Replacement, lost: Lost) -> None:
    """Refuse where the quorum that would be left does not stand; asked immediately before.

    Raises:
        Refused: it does not, or the member lives.
        UnreadableOutput: a list of members cannot be read.
    """
    members = members_seen(replacement)
    if why := why_not_removed(members, lost.member_id):
        raise Refused(replacement.label, f"{why}: {told(members)}", RECOVER_QUORUM)


@act(
    commands=remove_commands,
    done_when=is_removed,
    refuse_if=(refuse_to_lose_quorum,),
    danger=Danger.DESTRUCTIVE,
)
def remove_member(replacement: Replacement, lost: Lost) -> None:
    """Remove the lost member from etcd, by its number.

    The data on its own disk is not touched, and cannot come back into this cluster. The members
    that stay go on serving. Done twice, the second finds it gone.

    Raises:
        CommandFailed: etcd said no; carries its answer.
        AnswerLost: not known whether it was removed.

    Runbook: docs/runbooks/kubeadm-nodes.md, step 4.
    """
    argv = remove_argv(lost.member_id)
    acting(replacement, lost).change(argv, within_seconds=WITHIN_SECONDS, as_root=True)


@verify
def etcd_is_whole(replacement: Replacement) -> str:
    """The members of etcd: each is healthy and has its vote.

    Raises:
        NotVerified: one is not.
        UnreadableOutput: a list of members cannot be read.

    Runbook: docs/runbooks/kubeadm-nodes.md, step 9.
    """
    members = members_seen(replacement)
    if any(one.health is not Health.HEALTHY or one.is_learner for one in members):
        raise NotVerified(
            replacement.label,
            "every member of etcd to be healthy and to vote",
            told(members),
            "See /var/log/pods/kube-system_etcd* on the host of the one that is not, then resume",
        )
    return told(members)

"""What an etcd lacks, and the recovery to run for it; nothing is changed."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from recovery.errors import Refused
from recovery.steps import probe
from tasks.etcd.electing import disagree
from tasks.etcd.evidence import MemberSeen, MemberState, members_seen
from tasks.etcd.extent import majority_of
from tasks.etcd.judging import Cure, judge
from tasks.etcd.space import in_use, is_wasteful
from tasks.etcd.target import EtcdCluster
from tasks.etcd.terms import Terms

NOTHING = "none"
QUORUM = "recover-etcd-quorum"
REPLACE = "replace-etcd-member"
DEFRAGMENT = "defragment-etcd"
BY_HAND = "by hand"
NOSPACE, CORRUPT = "NOSPACE", "CORRUPT"


class Advice(NamedTuple):
    """What is the matter, the recovery to run, and what to know before."""

    finding: str
    recovery: str
    why: str
    host: str = ""


@dataclass(frozen=True)
class EtcdFinding:
    """What a triage ends with.

    Attributes:
        finding: what is the matter, in a line.
        recovery: the recovery to run; `none` where nothing is, `by hand` where no recovery helps.
        why: what to know or to do before.
        command: shows the plan of that recovery; empty where none is to run.
        members: every member, as it is.
    """

    finding: str
    recovery: str
    why: str
    command: str
    members: tuple[str, ...]


@probe
def etcd_seen(cluster: EtcdCluster) -> list[MemberSeen]:
    """Every member as it is.

    Raises:
        CommandFailed: a host has no systemd.
        UnreadableOutput: a tool printed what we do not understand.
        Refused: a member is set up in a way that is not known here.

    Runbook: docs/runbooks/etcd.md, step 1.
    """
    return members_seen(cluster)


def finding_of(cluster: EtcdCluster, hosts: str, members: Sequence[MemberSeen]) -> EtcdFinding:
    """What is the matter, and the recovery that the runbook has for it.

    Args:
        cluster: the cluster.
        hosts: as they were named, for the command.
        members: as they were seen.
    """
    advice = _with_quorum(members) if _has_quorum(members) else _without_quorum(cluster, members)
    finding, recovery, why, host = advice
    command = ""
    if recovery not in {NOTHING, BY_HAND}:
        more = f" --set host={host}" if host else ""
        command = f"recover plan {recovery} --set {shlex.quote(f'hosts={hosts}')}{more}"
    return EtcdFinding(finding, recovery, why, command, tuple(map(str, members)))


def _has_quorum(members: Sequence[MemberSeen]) -> bool:
    """Whether there is a leader; one that is left alone says for some seconds that it still is."""
    if any(member.is_healthy for member in members):
        return True
    down = [m for m in members if m.state in {MemberState.STOPPED, MemberState.NO_DATA}]
    is_possible = len(members) - len(down) >= majority_of(len(members))
    return is_possible and any(member.status and member.status.leader for member in members)


def _with_quorum(members: Sequence[MemberSeen]) -> Advice:
    alarms = " ".join(error for m in members if m.status for error in m.status.errors)
    spare = spares(members)
    ill = [member for member in members if not member.is_healthy and member not in spare]
    other = _differing(members)
    if NOSPACE in alarms:
        finding = "its database has reached its quota, and takes no writes (alarm NOSPACE)"
        why = "Find out what grows, or it returns: events, leases, an operator that writes"
        return Advice(finding, DEFRAGMENT, why)
    if other:
        names = ", ".join(member.host for member in other)
        finding = f"{names} holds other data than the majority"
        why = "Its data is kept aside; disarm the alarm afterwards, if there is one"
        return Advice(finding, REPLACE, why, other[0].host)
    if CORRUPT in alarms:
        why = "Compare keys on each member, then replace the one that is wrong"
        return Advice("a member found its data damaged (alarm CORRUPT)", BY_HAND, why)
    if ill:
        return _ill(ill)
    if any(is_wasteful(member) for member in members):
        shares = ", ".join(f"{member.host} {in_use(member)}" for member in members)
        return Advice(f"half of a database or more is free: {shares}", DEFRAGMENT, "No haste")
    why = f"No member: {', '.join(m.host for m in spare)}; out of hosts, or in by" if spare else ""
    return Advice("all members are healthy and hold the same", NOTHING, why)


def spares(members: Sequence[MemberSeen]) -> list[MemberSeen]:
    """Hosts that were named, have no data, and run no member that is listed.

    Where an even number is listed, one was taken out and none let in for it: that is no spare.
    """
    listed = max((member.listed for member in members if member.is_healthy), key=len, default=())
    peers = {one.peer_url for one in listed}
    if len(listed) % 2 == 0:
        return []
    return [
        member
        for member in members
        if member.is_on_host and not member.has_data and member.settings.peer_url not in peers
    ]


def _ill(ill: Sequence[MemberSeen]) -> Advice:
    first = ill[0]
    finding = f"it has quorum, and is short of {', '.join(f'{m.host} ({m.state})' for m in ill)}"
    if first.state is MemberState.AWAY:
        why = f"Bring {first.host} up; where its data is gone, or it stays away, {REPLACE}"
        return Advice(finding, BY_HAND, why)
    if first.has_data:
        why = (
            f"See what it logged there, and start it (`{first.start_by_hand}`); where its data is "
            f"damaged, {REPLACE}"
        )
        return Advice(finding, BY_HAND, why)
    return Advice(finding, REPLACE, "The others hold all data", first.host)


def _without_quorum(cluster: EtcdCluster, members: Sequence[MemberSeen]) -> Advice:
    try:
        loss = judge(cluster.label, members, Terms())
    except Refused as refused:
        is_up = "elects no leader" in refused.reason
        why = f"As it stands: {refused.reason}. {refused.remedy}"
        return Advice("it has no quorum", BY_HAND if is_up else QUORUM, why)
    if loss.cure is Cure.START:
        return Advice("it has no quorum", QUORUM, f"It starts {', '.join(loss.starts)}")
    without = f", without {', '.join(loss.away)}" if loss.away else ""
    finding = "it has no quorum, and too few members with data to win it back"
    return Advice(finding, QUORUM, f"It rebuilds from {loss.survivor}{without}")


def _differing(members: Sequence[MemberSeen]) -> list[MemberSeen]:
    """The members whose hash is not that of a majority of all; none where no majority agrees."""
    known = [member for member in members if member.hash]
    for one in known:
        other = [member for member in known if disagree(one, member)]
        if len(known) - len(other) >= majority_of(len(members)):
            return other
    return []

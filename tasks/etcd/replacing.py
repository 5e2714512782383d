"""Taking a lost member out of a cluster that has quorum, so that another can take its place."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from recovery.errors import BadInput, Refused
from recovery.steps import act, decision
from recovery.verdict import Danger, Verdict
from tasks.etcd import etcdctl
from tasks.etcd.electing import disagree
from tasks.etcd.entries import (
    entry_of,
    refuse_data_of_another_address,
    refuse_one_that_came_back,
    refuse_unless_all_vote,
)
from tasks.etcd.etcdctl import Listed
from tasks.etcd.evidence import MemberSeen, members_now, members_seen, told
from tasks.etcd.extent import majority_of
from tasks.etcd.fitness import refuse_unless_fit, refuse_unless_told_by_file
from tasks.etcd.joining import change_by_etcdctl
from tasks.etcd.judging import refuse_strangers
from tasks.etcd.parts import Part
from tasks.etcd.settings import refuse_one_address_of_two
from tasks.etcd.standing_down import (
    lines,
    move_argv,
    put_out_of_the_way,
    stood,
    take_down_lines,
)
from tasks.etcd.target import EtcdCluster
from tasks.etcd.terms import Terms


@dataclass(frozen=True)
class Replacement:
    """Which member is replaced, by which, and who is asked to do it.

    Attributes:
        saw: every member, in a line.
        members: every member.
        lost: its host.
        by: the host of the one that takes its place; may be the same.
        asked: host of a healthy member, which lets it in.
        listed: how the cluster lists the lost member; `None` where it was taken out already.
        others: the entries of the other members, `NAME=URL`.
        is_reachable: whether the host of the lost member answers.
    """

    saw: str
    members: tuple[MemberSeen, ...]
    lost: str
    by: str
    asked: str
    listed: Listed | None
    others: tuple[str, ...]
    is_reachable: bool

    @property
    def has_moved(self) -> bool:
        """Whether the new member runs on another host."""
        return self.by != self.lost

    def of(self, host: str) -> MemberSeen:
        """The member on a host."""
        return next(member for member in self.members if member.host == host)


@decision
def replacement_found(
    cluster: EtcdCluster, lost: str, by: str, accept: Sequence[str]
) -> Replacement:
    """Which member is taken out, and which joins.

    Args:
        cluster: the cluster.
        lost: host of the member that is replaced.
        by: host of the new one; empty: the same.
        accept: names of what is accepted.

    Raises:
        BadInput: a host was not named in hosts.
        Refused: there is no quorum, or would be none without it; or it is well.
        CommandFailed: a host has no systemd.
        UnreadableOutput: a tool printed what we do not understand.

    Runbook: docs/runbooks/etcd.md, steps 1 and 14.
    """
    return judge_replacement(cluster.label, members_seen(cluster), lost, by or lost, accept)


def judge_replacement(
    target: str, members: Sequence[MemberSeen], lost: str, by: str, accept: Sequence[str]
) -> Replacement:
    """Decide who is taken out and who is asked; errors are those of `replacement_found`."""
    for field, host in (("host", lost), ("by", by)):
        if host not in {member.host for member in members}:
            names = ", ".join(member.host for member in members)
            raise BadInput(field, f"{host!r} is none of the hosts", f"Name one of {names}")
    saw = told(members)
    old, new = (next(m for m in members if m.host == host) for host in (lost, by))
    healthy = [m for m in members if m.is_healthy and m.host != lost]
    if not healthy:
        raise Refused(target, f"it has no quorum: {saw}", "Run `recover-etcd-quorum` first")
    listed = max((m.listed for m in healthy), key=len)
    if not listed:
        raise Refused(target, f"no member lists the others: {saw}", "See `etcdctl member list`")
    silent = [member.host for member in members if member.status is None]
    refuse_strangers(target, members, Terms(lost=(lost, *silent)))
    entry = entry_of(target, old, members, listed)
    if entry is None and f"unlisted:{lost}" not in accept:
        refuse_one_more(target, old, healthy, listed)
    others = [one for one in listed if entry is None or one.member_id != entry.member_id]
    if len(healthy) < majority_of(len(listed)):
        raise Refused(
            target,
            f"only {len(healthy)} of {len(listed)} members are healthy besides it: {saw}",
            "Bring the others up first; one is replaced at a time",
        )
    refuse_unless_all_vote(target, others, members)
    refuse_data_of_another_address(target, old, entry, accept)
    if old.is_healthy and not differs(old, healthy) and f"healthy:{lost}" not in accept:
        raise Refused(
            target,
            f"the member on {lost} is healthy and holds what the others do",
            f"See whether it is the one that is meant; to replace it, accept healthy:{lost}",
        )
    refuse_unless_new_fits(target, new, lost, others, accept)
    refuse_one_address_of_two(target, {m.host: m.settings for m in (*healthy, new)})
    if by != lost and old.is_on_host:  # it is set up to join, so that no boot begins another
        refuse_unless_told_by_file(target, old)
    asked = next((m for m in healthy if m.status and not m.status.is_leader), healthy[0])
    refuse_unless_fit(target, asked, is_survivor=True)
    return Replacement(
        saw,
        tuple(members),
        lost,
        by,
        asked.host,
        entry,
        tuple(f"{one.name}={one.peer_url}" for one in others),
        old.is_on_host,
    )


def refuse_one_more(
    target: str, old: MemberSeen, healthy: Sequence[MemberSeen], listed: Sequence[Listed]
) -> None:
    """Refuse to let in one for a member that the cluster does not list: none is taken out for it.

    Of an odd number, one was taken out by somebody who was cut off before another was let in.

    Raises:
        Refused: what is on its host may be of another cluster, or there would be one too many.
    """
    names = ", ".join(member.host for member in healthy)
    if old.has_data:
        raise Refused(
            target,
            f"those that are healthy ({names}) do not list the member on {old.host}, which has "
            "data: it is of another cluster, has another address, or was taken out",
            f"See which is the right one; to set its data aside, accept unlisted:{old.host}",
        )
    if len(listed) % 2:
        raise Refused(
            target,
            f"those that are healthy ({names}) list {len(listed)} members, and none on {old.host}: "
            "one more would make their number even",
            "Name the host of a member in host, and this one in by; to let one more in, accept "
            f"unlisted:{old.host}",
        )


def refuse_unless_new_fits(
    target: str, new: MemberSeen, lost: str, others: Sequence[Listed], accept: Sequence[str]
) -> None:
    """Refuse a host on which the new member could not run, or would put something aside.

    Raises:
        Refused: it gives no answer, is a member, has data, or could not join.
    """
    by = new.host
    if not new.is_on_host:
        raise Refused(
            target,
            f"{by} gives no answer or has no unit, and the new member is to run there",
            "Bring it up, with etcd installed and set up; or name another host in by (one of "
            "kubeadm: `replace-control-plane-node-kubeadm`)",
        )
    if by != lost and any(one.peer_url == new.settings.peer_url for one in others):
        raise Refused(target, f"{by} is a member already", "Name a host that is none in by")
    if by != lost and new.has_data and f"data:{by}" not in accept:
        raise Refused(
            target,
            f"{by} has data of an etcd: {new}",
            f"See whose it is (Patroni has an etcd of its own); to set it aside, accept data:{by}",
        )
    refuse_unless_others_vote(target, others, new)
    refuse_unless_fit(target, new, is_survivor=False)


def differs(member: MemberSeen, others: Sequence[MemberSeen]) -> bool:
    """Whether a member holds other keys than the others, which agree among themselves."""
    known = [other for other in others if other.hash]
    agree = not any(disagree(one, other) for one in known for other in known)
    return bool(member.hash and known) and agree and disagree(member, known[0])


def refuse_unless_others_vote(target: str, others: Sequence[Listed], new: MemberSeen) -> None:
    """Refuse while another one is on its way in: etcd lets in one at a time.

    Raises:
        Refused: one that is not the new one is a learner, or has never started.
    """
    odd = [
        one
        for one in others
        if (one.is_learner or not one.name) and one.peer_url != new.settings.peer_url
    ]
    if odd:
        named = ", ".join(f"{one.hex_id} at {one.peer_url}" for one in odd)
        raise Refused(
            target,
            f"{named} is a learner, or has never started",
            f"Promote it, or take it out: `etcdctl member remove {odd[0].hex_id}`",
        )


def asked_part(cluster: EtcdCluster, found: Replacement) -> Part:
    """The healthy member that is asked."""
    member = found.of(found.asked)
    entry = f"{member.settings.name}={member.settings.peer_url}"
    return Part(cluster, cluster.host(found.asked), member, entry, is_rebuilt=False)


def new_part(cluster: EtcdCluster, found: Replacement) -> Part:
    """The member that joins."""
    return _part(cluster, found, found.by)


def old_part(cluster: EtcdCluster, found: Replacement) -> Part:
    """The member that is taken out."""
    return _part(cluster, found, found.lost)


def _part(cluster: EtcdCluster, found: Replacement, host: str) -> Part:
    member = found.of(host)
    entries = (*found.others, f"{member.settings.name}={member.settings.peer_url}")
    return Part(
        cluster,
        cluster.host(host),
        member,
        ",".join(entries),
        asked_part(cluster, found),
        found.listed.member_id if found.listed else 0,
        is_rebuilt=False,
    )


def healthy_parts(cluster: EtcdCluster, found: Replacement) -> list[Part]:
    """All members that are to agree in the end, the one that is asked first."""
    first = asked_part(cluster, found)
    rest = [m for m in found.members if m.is_healthy and m.host not in {found.asked, found.lost}]
    return [first, *(_part(cluster, found, m.host) for m in rest), new_part(cluster, found)]


def remove_argv(first: Part, entry: Listed) -> list[str]:
    """What takes it out, asked of a healthy member."""
    return etcdctl.argv(first.settings, "member", "remove", entry.hex_id)


def remove_commands(first: Part, entry: Listed) -> Iterable[str]:
    """What takes it out."""
    return lines(first, remove_argv(first, entry))


def is_removed(first: Part, entry: Listed) -> Verdict:
    """Whether the cluster does not list it any more."""
    ids = {one.member_id for one in etcdctl.members(first.host, first.settings)}
    return Verdict.of(entry.member_id not in ids)


def refuse_to_lose_quorum(first: Part, entry: Listed, *, was_healthy: bool) -> None:
    """Refuse to take a member out where the rest would not stand; asked immediately before.

    Raises:
        Refused: fewer than a majority of the others is healthy now, or one of them is missing.
            Or the one that is to go was down, and is healthy by now.
    """
    members = members_now(first.cluster)
    if not was_healthy:
        refuse_one_that_came_back(first.cluster.label, entry, members)
    listed = etcdctl.members(first.host, first.settings)
    rest = [one for one in listed if one.member_id != entry.member_id]
    healthy = [
        m for m in members if m.is_healthy and m.settings.peer_url in {one.peer_url for one in rest}
    ]
    if len(healthy) < majority_of(len(listed)):
        raise Refused(
            first.cluster.label,
            f"only {len(healthy)} of {len(listed)} members are healthy besides it: {told(members)}",
            "Bring the others up first, then resume",
        )
    refuse_unless_all_vote(first.cluster.label, rest, members)


@act(
    commands=remove_commands,
    done_when=is_removed,
    refuse_if=(refuse_to_lose_quorum,),
    danger=Danger.DESTRUCTIVE,
)
def remove_member(first: Part, entry: Listed, *, was_healthy: bool) -> None:
    """Take the lost member out of the cluster. It cannot come back as the one it was.

    Nothing on its host is changed; where its etcd runs, it ends by itself. Done twice, the second
    does nothing.

    Raises:
        Refused: the rest would not stand, or it came back meanwhile.
        CommandFailed: etcd said no.
        Unreachable: no answer.

    Runbook: docs/runbooks/etcd.md, step 16.
    """
    del was_healthy  # for the reason to refuse
    change_by_etcdctl(first, remove_argv(first, entry))


def retire_commands(part: Part) -> Iterable[str]:
    """What sets it up to join, stops it and moves its data aside."""
    return [*take_down_lines(part), *lines(part, move_argv(part))]


def is_retired(part: Part) -> Verdict:
    """Whether it is stopped, has no data in place, and is set up to join."""
    return Verdict.of(stood(part).is_out_of_the_way)


@act(
    commands=retire_commands,
    done_when=is_retired,
    each=("part",),
    danger=Danger.DESTRUCTIVE,
    lasts_until="start_joining",
)
def retire(part: Part) -> None:
    """Stop what is no member any more, set it up to join, and move its data aside.

    Nothing is removed. Cut off anywhere, it is done to its end when done again.

    Raises:
        NotVerified: it did not stop.
        CommandFailed: its host said no.
        Unreachable: no answer.

    Runbook: docs/runbooks/etcd.md, step 17.
    """
    put_out_of_the_way(part)


def away_of(found: Replacement) -> int:
    """How many other members are listed and cannot be asked."""
    well = [m for m in found.members if m.is_healthy and m.host != found.lost]
    return len(found.others) - len(well)

"""What is to be done about an etcd, judged from what every member says; nothing is asked here."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from recovery.errors import Refused
from tasks.etcd.evidence import MemberSeen, MemberState
from tasks.etcd.extent import Extent, extent_of, majority_of, peers_of
from tasks.etcd.fitness import refuse_unless_fit
from tasks.etcd.settings import refuse_one_address_of_two


class Cure(StrEnum):
    """What helps."""

    NOTHING = "nothing"
    START = "start"  # the members that are stopped are a majority with the others
    REBUILD = "rebuild"  # from one member, or a snapshot


@dataclass(frozen=True)
class Terms:
    """What a person has said about it.

    Attributes:
        survivor: host whose data is to be used; empty: that which would be elected.
        lost: hosts whose members are given up though something is left of them.
        accept: names of what is accepted, as refusals print them.
        snapshot: a file is used instead of a member's data.
    """

    survivor: str = ""
    lost: tuple[str, ...] = ()
    accept: tuple[str, ...] = ()
    snapshot: str = ""


@dataclass(frozen=True)
class Loss:
    """How an etcd stands, and what is done about it.

    Attributes:
        cure: what helps.
        saw: every member, in a line.
        members: every member.
        survivor: host whose member begins the new cluster; empty where none is made.
        starts: hosts whose members are started.
        rejoins: hosts whose members join anew, in this order.
        away: hosts that gave no answer; they are left out.
        reaches: the last entry of the longest log among those that have data.
        lets_go_of_tail: whether entries that the survivor does not know to be committed are left
            out, by order.
    """

    cure: Cure
    saw: str
    members: tuple[MemberSeen, ...]
    survivor: str = ""
    starts: tuple[str, ...] = ()
    rejoins: tuple[str, ...] = ()
    away: tuple[str, ...] = ()
    reaches: int = 0
    lets_go_of_tail: bool = False

    @property
    def highest(self) -> int:
        """The highest revision that a member was seen at."""
        return max((m.status.revision for m in self.members if m.status is not None), default=0)

    @property
    def may_be_lost(self) -> int:
        """Entries of any log that a lost leader may have acknowledged, and the survivor has not."""
        if not self.survivor:
            return 0
        survivor = self.of(self.survivor)
        kept = survivor.committed if self.lets_go_of_tail else survivor.reaches
        return max(0, self.reaches - kept)

    def of(self, host: str) -> MemberSeen:
        """The member on a host."""
        return next(member for member in self.members if member.host == host)


def told(members: Sequence[MemberSeen]) -> str:
    """Every member, for people."""
    return "; ".join(map(str, members))


def judge(target: str, members: Sequence[MemberSeen], terms: Terms) -> Loss:
    """Decide what is done.

    Raises:
        Refused: nothing that is safe; says why, and what to do.
    """
    saw = told(members)
    refuse_strangers(target, members, terms)
    if any(member.is_healthy for member in members):
        return _with_quorum(target, members, terms, saw)
    refuse_unless_all_named(target, members)
    able = [member for member in members if member.has_data and member.host not in terms.lost]
    if terms.snapshot and able:
        raise Refused(
            target,
            f"a snapshot is given, and there are members with data: {told(able)}",
            "Recover from them, without snapshot_file; or give them up by name in lost: "
            f"[{', '.join(member.host for member in able)}]",
        )
    extent = extent_of(members, terms.lost)
    if may_be_majority(able, extent):
        return _startable(target, able, members, saw)
    refuse_return_of_the_old(target, members, terms, extent)
    survivor = _survivor(target, able, members, terms)
    rest = [m for m in members if m.is_on_host and m.host != survivor.host]
    for member in (survivor, *rest):
        refuse_unless_fit(target, member, is_survivor=member is survivor)
    refuse_one_address_of_two(target, {m.host: m.settings for m in (survivor, *rest)})
    return Loss(
        Cure.REBUILD,
        saw,
        tuple(members),
        survivor.host,
        rejoins=tuple(member.host for member in rest),
        away=tuple(m.host for m in members if not m.is_on_host),
        reaches=max((m.log.last for m in able if m.log is not None), default=0),
        lets_go_of_tail=survivor.tail_name in terms.accept,
    )


def _with_quorum(target: str, members: Sequence[MemberSeen], terms: Terms, saw: str) -> Loss:
    ill = [member for member in members if not member.is_healthy]
    if terms.snapshot:
        raise Refused(
            target,
            f"it has quorum, and would lose what was written since {terms.snapshot}: {saw}",
            "Stop its members first, if it is to go back all the same, and give them up in lost",
        )
    well = [member for member in members if member.is_healthy]
    healthy = [member.host for member in well]
    if set(healthy) <= set(terms.lost):
        raise Refused(
            target,
            f"{', '.join(healthy)} has quorum, and is given up in lost: {saw}",
            f"Where {healthy[0]} began a cluster of its own, stop its etcd there first "
            f"(`{well[0].stop_by_hand}`), then run this again; where it is the right one, take it "
            "out of lost",
        )
    if not ill:
        return Loss(Cure.NOTHING, saw, tuple(members))
    raise Refused(
        target,
        f"it has quorum, so there is nothing to rebuild: {saw}",
        f"Start what is stopped (`{ill[0].start_by_hand}` on {ill[0].host}), or replace it by "
        "`replace-etcd-member`",
    )


def may_be_majority(able: Sequence[MemberSeen], extent: Extent) -> bool:
    """Whether those with data are, or may well be, a majority: to start them costs nothing.

    One that is alone, and whose settings name no other, has been the survivor of a recovery.
    """
    if len(able) >= majority_of(extent.most):
        return True
    return len(able) > 1 and len(able) >= majority_of(extent.least)


def _startable(
    target: str, able: Sequence[MemberSeen], members: Sequence[MemberSeen], saw: str
) -> Loss:
    starts = [member.host for member in able if member.state is MemberState.STOPPED]
    if starts:
        return Loss(Cure.START, saw, tuple(members), starts=tuple(starts))
    running = ", ".join(member.host for member in able)
    raise Refused(
        target,
        f"a majority runs and elects no leader: {saw}",
        f"See why {running} do not reach each other: the network at their peer ports, "
        "certificates, clocks (see what etcd logs); nothing is lost as long as their data is "
        "there. To rebuild all the same, give up members by name in lost",
    )


def refuse_strangers(target: str, members: Sequence[MemberSeen], terms: Terms) -> None:
    """Refuse where members serve different clusters: one of them began anew by itself.

    Raises:
        Refused: they do, and those of all clusters but one are not given up.
    """
    serving = [m for m in members if m.status is not None and m.host not in terms.lost]
    clusters = {m.status.cluster_id for m in serving if m.status is not None}
    if len(clusters) > 1:
        raise Refused(
            target,
            f"its members are of {len(clusters)} clusters: "
            + ", ".join(f"{m.host} of {m.status.cluster_id:x}" for m in serving if m.status),
            "One began anew by itself, as a reinstalled host does: stop it there "
            f"(`{serving[-1].stop_by_hand}`), and give it up by name in lost",
        )


def refuse_unless_all_named(target: str, members: Sequence[MemberSeen]) -> None:
    """Refuse where the cluster has members that were not named: they may be its majority.

    Raises:
        Refused: it has; or a host is not told of the address that is known.
    """
    peers = {url: name for member in members if member.is_on_host for name, url in peers_of(member)}
    known = {member.settings.peer_url for member in members if member.is_on_host}
    unknown = [f"{name or 'unnamed'} at {url}" for url, name in peers.items() if url not in known]
    away = [member for member in members if not member.is_on_host]
    if len(unknown) > len(away):
        refuse_one_address_of_two(target, {m.host: m.settings for m in members if m.is_on_host})
        raise Refused(
            target,
            f"it has members that were not named: {', '.join(unknown)}; named and away: "
            f"{', '.join(m.host for m in away) or 'none'}",
            "Name the hosts of all members in hosts, also of those that are gone",
        )


def refuse_return_of_the_old(
    target: str, members: Sequence[MemberSeen], terms: Terms, extent: Extent
) -> None:
    """Refuse while hosts that are away may be a majority: back with their data, they would go on.

    There would be two clusters then, each of which takes writes. A host without the unit counts: it
    may run etcd in another way. One that is off for good counts for nothing as long as those that
    are not may be the members: it may be a spare.

    Raises:
        Refused: too few of them are said to be off for good.
    """
    away = [member.host for member in members if not member.is_on_host]
    open_ones = [host for host in away if f"off:{host}" not in terms.accept]
    if extent.can_go_on(len(open_ones)):
        names = " ".join(f"off:{host}" for host in open_ones)
        raise Refused(
            target,
            f"{', '.join(open_ones)} are away or have no such unit, and may be a majority of its "
            "members: with their data they go on as the old cluster beside the new one",
            "See to it that they stay off, or that their etcd does not start there, and accept "
            f"that by name: {names}",
        )


def _survivor(
    target: str, able: Sequence[MemberSeen], members: Sequence[MemberSeen], terms: Terms
) -> MemberSeen:
    if terms.survivor:
        chosen = [member for member in members if member.host == terms.survivor]
        if not chosen or not (chosen[0] in able or (terms.snapshot and chosen[0].is_on_host)):
            raise Refused(
                target,
                f"{terms.survivor!r} has no data that can be used: {told(members)}",
                f"Name one of {', '.join(m.host for m in able) or 'none'}, or give snapshot_file",
            )
        return chosen[0]
    if terms.snapshot:
        usable = [member for member in members if member.is_on_host]
        if not usable:
            raise Refused(target, f"no host answers: {told(members)}", "Bring one up, then resume")
        return usable[0]
    if not able:
        raise Refused(
            target,
            f"no member has data: {told(members)}",
            "Give the path of a snapshot on the worker in snapshot_file",
        )
    refuse_conflict(target, able)
    unread = [m.host for m in able if m.status is None and m.log is None]
    if unread and len(able) > 1:
        raise Refused(
            target,
            f"how far the log of {', '.join(unread)} reaches could not be read: {told(able)}",
            "Run it again; or name the one to use in survivor, or give those up in lost",
        )
    return _furthest(target, able)


def _furthest(target: str, able: Sequence[MemberSeen]) -> MemberSeen:
    """The member that the others would elect: whose log ends in the latest term, or is longest.

    Each entry that a leader has acknowledged is in the logs of a majority before, so that this one
    has most of them. Of equals, one that serves; where a log is not read, what is known of each.

    Raises:
        Refused: another one knows more to be committed than that one has.
    """
    logs = {member.host: member.log for member in able if member.log is not None}
    if len(logs) < len(able) or not all(log.term for log in logs.values()):
        return max(able, key=_ahead)
    first = max(able, key=lambda one: (logs[one.host].term, logs[one.host].last, *_ahead(one)))
    other = max(able, key=_ahead)
    if other.committed > logs[first.host].last:
        raise Refused(
            target,
            f"{first.host} would be elected, and {other.host} knows more to be committed than that "
            f"one has, which cannot be: {told(able)}",
            "One of them was copied, or put back from an older disk: find out which, and give it "
            "up by name in lost",
        )
    return first


def _ahead(member: MemberSeen) -> tuple[int, int, int, bool]:
    """Entries of the log are numbered alike on all members, and each revision is one of them."""
    revision = member.status.revision if member.status is not None else 0
    return (member.committed, member.reaches, revision, member.status is not None)


def disagree(one: MemberSeen, other: MemberSeen) -> bool:
    """Whether two members hold other keys.

    Nothing is said of two that have let go of different old revisions, nor of one whose hash could
    not be taken: its database may be large, or the revision gone there.
    """
    if not one.hash or not other.hash:
        return False
    return one.compacted == other.compacted and one.hash != other.hash


def refuse_conflict(target: str, able: Sequence[MemberSeen]) -> None:
    """Refuse to choose between members that hold different data.

    Raises:
        Refused: their hashes differ at the revision that all have.
    """
    corrupt = [m.host for m in able if m.status and "CORRUPT" in " ".join(m.status.errors)]
    serving = [member for member in able if member.status is not None]
    if corrupt or any(disagree(one, other) for one in serving for other in serving):
        seen = ", ".join(f"{m.host} {m.hash or 'none'} at {m.revision}" for m in serving)
        why = f"alarm CORRUPT of {', '.join(corrupt)}; " if corrupt else ""
        raise Refused(
            target,
            f"those that are left disagree about the data: {why}hashes {seen}",
            "Find out which is right (`etcdctl get --consistency=s` on each, a backup), and give "
            "up the others by name in lost",
        )

"""What is to be done about an etcd, judged from what every member says; nothing is asked here."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from recovery.errors import Refused
from tasks.etcd.electing import chosen_survivor
from tasks.etcd.evidence import MemberSeen, MemberState, told
from tasks.etcd.extent import Extent, extent_of, majority_of, peers_of
from tasks.etcd.fitness import refuse_forced, refuse_unless_fit
from tasks.etcd.settings import refuse_one_address_of_two
from tasks.etcd.terms import Terms


class Cure(StrEnum):
    """What helps."""

    NOTHING = "nothing"
    START = "start"  # the members that are stopped are a majority with the others
    REBUILD = "rebuild"  # from one member, or a snapshot


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
        is_behind: whether another one that has data has heard of a later leader.
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
    is_behind: bool = False

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
        is_tail_lost = self.lets_go_of_tail or self.is_behind
        kept = survivor.committed if is_tail_lost else survivor.reaches
        return max(0, self.reaches - kept)

    def of(self, host: str) -> MemberSeen:
        """The member on a host."""
        return next(member for member in self.members if member.host == host)


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
    survivor = chosen_survivor(target, able, members, terms)
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
        is_behind=any(one.log_term > survivor.log_term for one in able),
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
    for member in able:
        refuse_forced(target, member)
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
    """Refuse where members are of different clusters: one of them began anew by itself.

    Raises:
        Refused: they do, and those of all clusters but one are not given up.
    """
    known = [m for m in members if m.cluster_id and m.host not in terms.lost]
    clusters = {member.cluster_id for member in known}
    if len(clusters) > 1:
        raise Refused(
            target,
            f"its members are of {len(clusters)} clusters: "
            + ", ".join(f"{member.host} of {member.cluster_id:x}" for member in known),
            "One began anew by itself, as a reinstalled host does: stop it there "
            f"(`{known[-1].stop_by_hand}`), and give it up by name in lost",
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

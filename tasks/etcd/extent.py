"""How many of the named hosts are members of an etcd, as far as those that answer can tell."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from tasks.etcd.evidence import MemberSeen


def majority_of(count: int) -> int:
    """How many of so many members decide."""
    return count // 2 + 1


@dataclass(frozen=True)
class Extent:
    """How many members there are.

    Attributes:
        here: on hosts that answer and are set up to run one.
        off: hosts that are away, or have no such unit; some of them may be spares.
        unmatched: members that are known by their address, and run on none that answers.
        is_certain: whether a member lists them all; else settings tell, which are written once and
            may name one that was taken out since, or not name one that came later.
    """

    here: int
    off: int
    unmatched: int
    is_certain: bool

    @property
    def least(self) -> int:
        """The number of members, spares left out as far as they are known to be such."""
        return self.here + min(self.off, self.unmatched)

    @property
    def most(self) -> int:
        """The number of members, each host that is off being one; the same where all is certain."""
        return self.least if self.is_certain else self.here + self.off

    def can_go_on(self, coming_back: int) -> bool:
        """Whether so many of the hosts that are off could be a majority, which of them unknown."""
        members = min(self.off, self.unmatched)
        counts = (members,) if self.is_certain else range(self.off + 1)
        return any(min(coming_back, n) >= majority_of(self.here + n) for n in counts)


def extent_of(members: Sequence[MemberSeen], lost: Collection[str] = ()) -> Extent:
    """How many of the named hosts are members, as those know it that are not given up.

    One on a host that answers is a member if it has data, or its address is known; where no
    address is, each of them counts.
    """
    kept = [member for member in members if member.host not in lost]
    listing = [member for member in kept if member.listed]
    tellers = (
        listing
        or [member for member in kept if member.has_data]
        or [member for member in members if member.has_data]
        or [member for member in members if member.is_on_host]
    )
    peers = {url for member in tellers for _, url in peers_of(member)}
    on_host = [member for member in members if member.is_on_host]
    return Extent(
        sum(m.has_data or not peers or m.settings.peer_url in peers for m in on_host),
        len(members) - len(on_host),
        len(peers - {member.settings.peer_url for member in on_host}),
        bool(listing),
    )


def peers_of(member: MemberSeen) -> list[tuple[str, str]]:
    """The members as it lists them, or else as it was begun with."""
    if member.listed:
        return [(listed.name, listed.peer_url) for listed in member.listed]
    return list(member.settings.peers)

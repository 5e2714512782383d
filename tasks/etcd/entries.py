"""The members as a cluster lists them, beside those that were seen: who is which, who is down."""

from collections.abc import Collection, Sequence
from urllib.parse import urlsplit

from recovery.errors import Refused
from tasks.etcd.etcdctl import Listed
from tasks.etcd.evidence import MemberSeen


def missing(entries: Sequence[Listed], members: Sequence[MemberSeen]) -> list[Listed]:
    """The voters that are not seen to be healthy: down, or on a host that was not named."""
    healthy = {member.settings.peer_url for member in members if member.is_healthy}
    return [one for one in entries if not one.is_learner and one.peer_url not in healthy]


def refuse_unless_all_vote(
    target: str, others: Sequence[Listed], members: Sequence[MemberSeen]
) -> None:
    """Refuse to take one out while another is missing: etcd lets nobody in before that is back.

    etcd asks all voters to be connected, for a learner as well; a majority is not enough.

    Raises:
        Refused: another one is down, or its host was not named.
    """
    down = missing(others, members)
    if down:
        named = ", ".join(f"{one.name or 'unnamed'} ({one.hex_id})" for one in down)
        raise Refused(
            target,
            f"{named} is down as well, or its host was not named, and etcd lets nobody in "
            "meanwhile: one would be taken out, and none could take its place",
            "Bring it up and name its host in hosts; where it is lost too, take it out first "
            f"(`etcdctl member remove {down[0].hex_id}`)",
        )


def refuse_one_that_came_back(target: str, entry: Listed, members: Sequence[MemberSeen]) -> None:
    """Refuse to take out a member that was down when that was decided, and is healthy by now.

    Raises:
        Refused: it came back.
    """
    back = [m.host for m in members if m.is_healthy and m.settings.peer_url == entry.peer_url]
    if back:
        raise Refused(
            target,
            f"the member on {back[0]} was down, and is healthy now: {'; '.join(map(str, members))}",
            "Nothing was taken out. See `triage-etcd`; to replace it all the same, begin a new "
            f"recovery that accepts healthy:{back[0]}",
        )


def entry_of(
    target: str, old: MemberSeen, members: Sequence[MemberSeen], listed: Sequence[Listed]
) -> Listed | None:
    """The lost member as the cluster lists it; `None` where it is taken out already.

    Raises:
        Refused: members are listed that run on none of the named hosts, and nothing tells which of
            them ran on that one.
    """
    if old.is_on_host:
        return entry_on_host(target, old, members, listed)
    known = {m.settings.peer_url for m in members if m.is_on_host}
    unknown = [one for one in listed if one.peer_url not in known]
    by_name = [
        one
        for one in unknown
        if old.host in {one.name, urlsplit(one.peer_url).hostname, urlsplit(one.peer_url).netloc}
    ]
    away = [member for member in members if not member.is_on_host]
    if len(by_name) == 1:
        return by_name[0]
    if not unknown:
        return None
    if len(unknown) == len(away) == 1:
        return unknown[0]
    named = ", ".join(f"{m.name or 'unnamed'} ({m.hex_id}) at {m.peer_url}" for m in unknown)
    raise Refused(
        target,
        f"nothing tells which of {named} ran on {old.host}, which is away",
        "Name that host as the member's address has it, or bring the others up",
    )


def entry_on_host(
    target: str, old: MemberSeen, members: Sequence[MemberSeen], listed: Sequence[Listed]
) -> Listed | None:
    """The member of a host that answers; `None` where the cluster lists none of it.

    A host that was set up again may have another address than the one that is listed.

    Raises:
        Refused: members are listed that run on none of the named hosts, and none by its name.
    """
    at_address = [one for one in listed if one.peer_url == old.settings.peer_url]
    if at_address:
        return at_address[0]
    known = {member.settings.peer_url for member in members if member.is_on_host}
    unknown = [one for one in listed if one.peer_url not in known]
    by_name = [one for one in unknown if one.name == old.settings.name]
    if len(by_name) == 1:
        return by_name[0]
    away = [member.host for member in members if not member.is_on_host]
    if len(unknown) <= len(away):
        return None
    named = ", ".join(f"{m.name or 'unnamed'} ({m.hex_id}) at {m.peer_url}" for m in unknown)
    raise Refused(
        target,
        f"nothing tells whether {named} was the member on {old.host}, which is set up as "
        f"{old.settings.name} at {old.settings.peer_url}",
        "Give it the name of before (ETCD_NAME); or name the hosts of all members in hosts; or "
        f"take out what is lost (`etcdctl member remove {unknown[0].hex_id}`)",
    )


def refuse_data_of_another_address(
    target: str, old: MemberSeen, entry: Listed | None, accept: Collection[str]
) -> None:
    """Refuse to replace a member that has data and is listed at another address.

    Raises:
        Refused: it is so, and nobody accepted that by name.
    """
    if entry is None or not old.has_data or entry.peer_url == old.settings.peer_url:
        return
    url = old.settings.peer_url
    if f"unlisted:{old.host}" not in accept:
        raise Refused(
            target,
            f"the member on {old.host} has data and is at {url}; the others list {entry.name} at "
            f"{entry.peer_url}",
            f"Tell them of it: `etcdctl member update {entry.hex_id} --peer-urls={url}`; to move "
            f"its data aside, accept unlisted:{old.host}",
        )

"""The choice of the member whose data a new cluster begins with: the one that would be elected."""

from collections.abc import Sequence

from recovery.errors import Refused
from tasks.etcd.evidence import MemberSeen, told
from tasks.etcd.terms import Terms


def chosen_survivor(
    target: str, able: Sequence[MemberSeen], members: Sequence[MemberSeen], terms: Terms
) -> MemberSeen:
    """The one that is named, else the one that would be elected; with a snapshot, any.

    Args:
        target: how the cluster is called.
        able: those that have data and are not given up.
        members: all of them.
        terms: what a person has said.

    Raises:
        Refused: none can be used, or nothing tells which; says how to go on.
    """
    if terms.survivor:
        chosen = [member for member in members if member.host == terms.survivor]
        if not chosen or not (chosen[0] in able or (terms.snapshot and chosen[0].is_on_host)):
            raise Refused(
                target,
                f"{terms.survivor!r} has no data that can be used: {told(members)}",
                f"Name one of {', '.join(m.host for m in able) or 'none'}, or give snapshot_file",
            )
        if not terms.snapshot:
            refuse_unread(target, chosen, terms)
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
    refuse_unread(target, able, terms)
    return would_be_elected(target, able)


def refuse_unread(target: str, able: Sequence[MemberSeen], terms: Terms) -> None:
    """Refuse to choose where it is not known what a log holds, or in which term it ends.

    That of a single one that serves nobody is left to the copy that is run of it.

    Raises:
        Refused: it is not known, and nobody has accepted that by name.
    """
    unread = [member.host for member in able if not member.log_term]
    if not unread or (len(able) == 1 and able[0].status is None):
        return
    name = f"unread-log:{unread[0]}"
    if len(able) == 1 and name in terms.accept:
        return
    raise Refused(
        target,
        f"how far the log of {', '.join(unread)} reaches could not be read: {told(able)}",
        "Run it again; or name the one to use in survivor, or give those up in lost"
        if len(able) > 1
        else f"Run it again; or accept by name to have only what it serves: {name}",
    )


def would_be_elected(target: str, able: Sequence[MemberSeen]) -> MemberSeen:
    """The member that the others would elect: whose log ends in the latest term, or is longest.

    Each entry that a leader has acknowledged is in the logs of a majority before, so that this one
    has most of them. Of equals, one that serves.

    Raises:
        Refused: another one knows more to be committed than that one has.
    """
    first = max(able, key=lambda one: (one.log_term, one.reaches, *_ahead(one)))
    other = max(able, key=_ahead)
    if other.committed > first.reaches:
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

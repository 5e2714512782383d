"""Giving back the space of deleted keys, member by member, the leader last; and the alarm after it.

A member stands still while it is defragmented; the others serve meanwhile.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from blocks.ssh import detached as ssh_detached
from blocks.ssh.detached import DetachedCommand
from recovery.errors import Refused
from recovery.steps import act, decision, probe, verify
from recovery.verdict import Verdict
from recovery.walk import current_fence
from tasks.etcd import etcdctl
from tasks.etcd.evidence import MemberSeen, members_now, told
from tasks.etcd.joining import change_by_etcdctl
from tasks.etcd.parts import Part
from tasks.etcd.space import is_wasteful
from tasks.etcd.standing_down import lines
from tasks.etcd.target import EtcdCluster

DEFRAGMENT_SECONDS = 1800
NOSPACE = "NOSPACE"
GIVEN_MIN = 0.1  # of a database: less does not last


@dataclass(frozen=True)
class Space:
    """What is to be done about the space of an etcd.

    Attributes:
        saw: every member, in a line.
        members: every member.
        order: hosts of those that are defragmented, one after the other, the leader last.
        has_alarm: whether it takes no writes, for its database has reached its quota.
    """

    saw: str
    members: tuple[MemberSeen, ...]
    order: tuple[str, ...]
    has_alarm: bool


@decision
def space_found(cluster: EtcdCluster, *, is_ordered: bool) -> Space:
    """Which members have space to give back, and in which order.

    Args:
        cluster: the cluster.
        is_ordered: all of them, whether they need it or not.

    Raises:
        Refused: a member does not serve.
        CommandFailed: a host has no systemd.
        UnreadableOutput: a tool printed what we do not understand.

    Runbook: docs/runbooks/etcd.md, steps 1 and 20.
    """
    return judge_space(cluster.label, members_now(cluster), is_ordered=is_ordered)


def judge_space(target: str, members: list[MemberSeen], *, is_ordered: bool) -> Space:
    """Decide which members are defragmented; errors are those of `space_found`."""
    saw = told(members)
    down = [m.host for m in members if m.status is None or not m.status.leader]
    if down:
        raise Refused(
            target,
            f"a member stands still while it is defragmented, and {', '.join(down)} are down: "
            f"{saw}",
            "Bring all members up first: see `triage-etcd`",
        )
    has_alarm = any(NOSPACE in error for m in members if m.status for error in m.status.errors)
    due = [m for m in members if is_ordered or has_alarm or is_wasteful(m)]
    due.sort(key=lambda m: bool(m.status and m.status.is_leader))
    return Space(saw, tuple(members), tuple(m.host for m in due), has_alarm)


def parts_of(cluster: EtcdCluster, space: Space) -> list[Part]:
    """The members that are defragmented, in their order."""
    members = {member.host: member for member in space.members}
    return [
        Part(cluster, cluster.host(host), members[host], "", is_rebuilt=False)
        for host in space.order
    ]


def _defragmenting(part: Part) -> DetachedCommand:
    argv = etcdctl.argv(part.settings, "defrag", within_seconds=DEFRAGMENT_SECONDS)
    return DetachedCommand("etcd-defragment", tuple(argv), DEFRAGMENT_SECONDS + 60.0)


def defragment_commands(part: Part) -> Iterable[str]:
    """What defragments it."""
    return ssh_detached.run_lines(part.host, _defragmenting(part))


def refuse_unless_others_serve(part: Part) -> None:
    """Refuse to let a member stand still while another does not serve.

    Raises:
        Refused: one does not.
    """
    seen = members_now(part.cluster)
    down = [m for m in seen if m.host != part.member.host and not (m.status and m.status.leader)]
    if down:
        raise Refused(
            part.label,
            f"it would stand still, and others do not serve: {told(down)}",
            "Bring them up first, then resume",
        )


@act(
    commands=defragment_commands,
    without_probe="what was defragmented looks like what never needed it",
    redo_in_doubt=True,
    each=("part",),
    refuse_if=(refuse_unless_others_serve,),
)
def defragment(part: Part) -> None:
    """Defragment one member; it stands still meanwhile, for a second or so for each 100 MB.

    No key is changed. Done twice, the second takes as long and gives nothing back.

    Raises:
        Refused: another member does not serve.
        CommandFailed: etcd said no, or it took longer than half an hour.
        Unreachable: no answer.

    Runbook: docs/runbooks/etcd.md, step 21.
    """
    ssh_detached.run(part.host, _defragmenting(part))


@verify(each=("part",))
def serves_again(part: Part) -> int:
    """The size of its database, once it answers and follows or leads.

    Raises:
        Unreachable: no answer.
        Refused: it has lost its leader.

    Runbook: docs/runbooks/etcd.md, step 21.
    """
    said = etcdctl.status(part.host, part.settings)
    if not (part.run.is_up() and said.leader):
        raise Refused(part.label, "it has no leader after that", "See `triage-etcd`, then resume")
    return said.db_bytes


def gained(space: Space, now: Sequence[int]) -> int:
    """How many bytes were given back."""
    before = {m.host: m.status.db_bytes for m in space.members if m.status}
    given = sum(before[host] - size for host, size in zip(space.order, now, strict=True))
    return max(0, given)  # a database that was full of keys may grow by a page or two


@probe
def refuse_unless_room_was_made(cluster: EtcdCluster, space: Space, now: Sequence[int]) -> None:
    """Refuse to disarm the alarm of a database that is as full as before: it would be raised again.

    What is free is known only now: while no writes are taken, etcd counts as in use what a
    compaction has let go of.

    Raises:
        Refused: next to nothing was given back.

    Runbook: docs/runbooks/etcd.md, step 22.
    """
    before = sum(m.status.db_bytes for m in space.members if m.status and m.host in space.order)
    if not space.has_alarm or gained(space, now) >= GIVEN_MIN * before:
        return
    revision = min(m.status.revision for m in space.members if m.status)
    raise Refused(
        cluster.label,
        f"its database is full of what is in use: of {before} bytes, {gained(space, now)} were "
        "given back",
        f"Let go of old revisions, `etcdctl compact {revision} --physical` on any member (a "
        "kube-apiserver does so every five minutes), or delete what has grown; or raise "
        "--quota-backend-bytes. Then start this recovery again",
    )


def _disarm(part: Part) -> list[str]:
    return etcdctl.argv(part.settings, "alarm", "disarm")


def disarm_commands(part: Part) -> Iterable[str]:
    """What disarms the alarm."""
    return lines(part, _disarm(part))


def is_disarmed(part: Part) -> Verdict:
    """Whether there is no alarm of a full database."""
    return Verdict.of(NOSPACE not in etcdctl.ask(part.host, part.settings, "alarm", "list"))


def refuse_if_corrupt(part: Part) -> None:
    """Refuse to disarm where that would silence an alarm of damaged data as well.

    Raises:
        Refused: there is such an alarm.
    """
    if "CORRUPT" in etcdctl.ask(part.host, part.settings, "alarm", "list"):
        raise Refused(
            part.cluster.label,
            "an alarm CORRUPT is raised too, and would be disarmed with the other",
            "Replace the member that differs first: see `triage-etcd`",
        )


@act(commands=disarm_commands, done_when=is_disarmed, refuse_if=(refuse_if_corrupt,))
def disarm(part: Part) -> None:
    """Disarm the alarm, so that writes are taken again. Where it is still full, it is raised again.

    Raises:
        Refused: another alarm would be silenced, too.
        CommandFailed: etcd said no.
        Unreachable: no answer.

    Runbook: docs/runbooks/etcd.md, step 22.
    """
    change_by_etcdctl(part, _disarm(part))


def _writes(part: Part) -> tuple[list[str], list[str]]:
    key = f"recover/{current_fence().recovery_id}"
    return (
        etcdctl.argv(part.settings, "put", key, "written to prove that writes are taken"),
        etcdctl.argv(part.settings, "del", key),
    )


def write_commands(part: Part) -> Iterable[str]:
    """What writes a key of its own, and deletes it."""
    return lines(part, *_writes(part))


@act(
    commands=write_commands,
    without_probe="it leaves nothing behind",
    redo_in_doubt=True,
)
def prove_write(part: Part) -> None:
    """Write a key of its own and delete it, to see that writes are taken. Done twice, it does so.

    Raises:
        CommandFailed: etcd takes no writes.
        Unreachable: no answer.

    Runbook: docs/runbooks/etcd.md, step 22.
    """
    for argv in _writes(part):
        change_by_etcdctl(part, argv)

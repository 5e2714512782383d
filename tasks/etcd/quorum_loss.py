"""The decision on which a recovery of quorum rests, and the reasons that are asked for again."""

from recovery.errors import Refused, Unreachable
from recovery.steps import decision
from tasks.etcd.evidence import MemberSeen, members_now, members_seen, with_log
from tasks.etcd.judging import Loss, judge
from tasks.etcd.parts import Part
from tasks.etcd.target import EtcdCluster
from tasks.etcd.terms import Terms


@decision
def loss_found(cluster: EtcdCluster, terms: Terms) -> Loss:
    """How every member stands, and what is done about it.

    Raises:
        Refused: nothing that is safe; says why, and what to do.
        CommandFailed: a host has no systemd.
        UnreadableOutput: a tool printed what we do not understand.

    Runbook: docs/runbooks/etcd.md, steps 1 to 3.
    """
    return judge(cluster.label, members_seen(cluster), terms)


def refuse_if_quorum_came_back(part: Part) -> None:
    """Refuse to stop anything of a cluster that works again, or has worked meanwhile.

    A survivor that serves nobody, or is stopped, tells that by its log alone: it may have had
    quorum since, and be stopped again.

    Raises:
        Refused: a member answers a read that needs quorum, or the survivor was written to.
            Or its log cannot be read, or its data is gone and was not moved aside here.
        Unreachable: the survivor's host gave no answer.
    """
    seen = members_now(part.cluster)
    first = part.survivor or part
    if any(member.is_healthy for member in seen):
        raise Refused(
            part.cluster.label,
            f"it has quorum again: {'; '.join(map(str, seen))}",
            "Nothing was stopped. See `triage-etcd` for what is left to do",
        )
    now = next(member for member in seen if member.host == first.member.host)
    before = first.member
    if not now.is_on_host:
        raise Unreachable(
            part.cluster.label,
            f"what the survivor on {now.host} is at",
            str(now),
            "Nothing was stopped. Bring it up, then resume",
        )
    at: tuple[str, int, int] | None = None
    if now.status is not None and before.status is not None:
        at = ("revision", before.status.revision, now.status.revision)
    elif before.committed:
        at = ("entry", first.kept_of(before), max(first.kept_of(before), kept_now(first, now)))
    if at is not None and at[1] != at[2]:
        raise Refused(
            part.cluster.label,
            f"{now.host} was at {at[0]} {at[1]}, and is at {at[2]}",
            "Somebody has written since the snapshot: start this recovery again",
        )


def kept_now(first: Part, now: MemberSeen) -> int:
    """Up to which entry a snapshot would have its log; 0 where this recovery has moved it aside.

    Raises:
        Refused: nothing tells: its data is gone otherwise, or its log cannot be read.
        Unreachable: its host gave no answer.
    """
    read = with_log(first.host, now)
    if read.status is not None or read.log is not None:
        return first.kept_of(read)
    argv = ["test", "-e", f"{first.aside}/before"]
    if first.host.read(argv, accept=(0, 1), as_root=True).exit_code == 0:
        return 0
    raise Refused(
        first.cluster.label,
        f"nothing tells what {now.host} has done since it was at entry {first.member.committed}: "
        + ("its log cannot be read" if now.has_data else "its data is gone"),
        "Nothing was stopped. See what it logged, then resume; where its data is "
        "gone or damaged, start this recovery again",
    )

"""The decision on which a recovery of quorum rests, and the reasons that are asked for again."""

from recovery.errors import Refused
from recovery.steps import decision
from tasks.etcd.evidence import members_now, members_seen, with_log
from tasks.etcd.judging import Loss, Terms, judge
from tasks.etcd.parts import Part
from tasks.etcd.target import EtcdCluster


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
    at: tuple[str, int, int] | None = None
    if now.status is not None and before.status is not None:
        at = ("revision", before.status.revision, now.status.revision)
    elif before.committed:
        committed = with_log(first.host, now).committed  # 0 once its data is moved aside
        at = ("entry", before.committed, max(before.committed, committed))
    if at is not None and at[1] != at[2]:
        raise Refused(
            part.cluster.label,
            f"{now.host} was at {at[0]} {at[1]}, and is at {at[2]}",
            "Somebody has written since the snapshot: start this recovery again",
        )

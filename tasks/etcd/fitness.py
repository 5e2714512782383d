"""Whether a member can be rebuilt by this runbook, as it is set up and with what its host has."""

from recovery.errors import Refused
from tasks.etcd.evidence import MemberSeen

OLDEST = (3, 4)  # learners, and hashes up to a revision


def refuse_unless_fit(target: str, member: MemberSeen, *, is_survivor: bool) -> None:
    """Refuse a member that could not be rebuilt by this runbook.

    Raises:
        Refused: its etcd is too old, has nothing to restore with, or is set up by flags.
    """
    version = tuple(int(part) for part in member.version.split(".")[:2] if part.isdigit())
    comes_with_it = member.settings.is_static_pod and not (version or is_survivor)
    if version < OLDEST and not comes_with_it:
        raise Refused(
            target,
            f"etcdctl on {member.host} is {member.version or 'not there'}; this knows 3.4 and "
            "later",
            "Install etcdctl of the version of the cluster there; kubeadm has it in the image of "
            "etcd alone, and finds it there while its container runs",
        )
    if is_survivor and not member.tool:
        raise Refused(
            target,
            f"nothing on {member.host} restores a snapshot: etcdctl {member.version} does not",
            "Install etcdutl of that version there",
        )
    several = [one.peer_url for one in member.listed if one.has_several_urls]
    if several:
        raise Refused(
            target,
            f"members have several peer addresses: {', '.join(several)} and others",
            "Give each one alone (`etcdctl member update ID --peer-urls=…`), as its settings do",
        )
    refuse_unless_told_by_file(target, member)


def refuse_unless_told_by_file(target: str, member: MemberSeen) -> None:
    """Refuse a member that this runbook cannot tell of another cluster: it writes into a file.

    Raises:
        Refused: flags of its command line tell it of its cluster, or no file does.
    """
    refuse_forced(target, member)
    if member.settings.is_static_pod:
        refuse_unless_kubelet_can(target, member)
        return
    flags = [flag for flag in member.settings.flags if flag.startswith("initial-")]
    if flags or not member.settings.file:
        raise Refused(
            target,
            f"etcd on {member.host} is told of its cluster by {', '.join(flags) or 'no file'}",
            "Put that into an environment file of its unit, as ETCD_INITIAL_CLUSTER=…, and take "
            "it from the command line",
        )


def refuse_forced(target: str, member: MemberSeen) -> None:
    """Refuse a member that makes a cluster of its own at each start.

    Raises:
        Refused: it is set up so.
    """
    if member.settings.is_forced:
        raise Refused(
            target,
            f"etcd on {member.host} is set up with `--force-new-cluster`, with which each start "
            "makes a cluster of it alone and drops the other members",
            f"Take it out of {member.settings.file or 'its unit'} (also ETCD_FORCE_NEW_CLUSTER), "
            "then run this again",
        )


def refuse_unless_kubelet_can(target: str, member: MemberSeen) -> None:
    """Refuse a static pod that could not be stopped, or told of another cluster.

    Raises:
        Refused: another file describes it, the kubelet is down, or its manifest is odd.
    """
    if member.settings.obstacle:
        raise Refused(
            target,
            f"the static pod of etcd on {member.host}: {member.settings.obstacle}",
            member.settings.remedy,
        )

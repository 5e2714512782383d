"""Recover an etcd: its quorum, one member, its space; and say what it lacks."""

from dataclasses import dataclass, field

from blocks.inventory import HostsParameter
from recovery.declare import recovery
from recovery.verdict import Danger
from tasks.certificates.off_host import BackupKey
from tasks.etcd import (
    at_boot,
    defragmenting,
    given,
    joining,
    off_host,
    parts,
    placing,
    proving,
    quorum_loss,
    replacing,
    snapshot,
    standing_down,
    triage,
)
from tasks.etcd.joining import Agreed
from tasks.etcd.judging import Cure, Loss
from tasks.etcd.target import (
    COPIES,
    UNIT,
    EtcdCluster,
    absolute_path,
    etcd_cluster,
    etcd_hosts,
    etcd_target,
    triage_target,
)
from tasks.etcd.terms import Terms
from tasks.etcd.triage import EtcdFinding

RUNBOOK = "docs/runbooks/etcd.md"


@dataclass(frozen=True)
class QuorumRecovered:
    """What was found and what now holds.

    Attributes:
        found: every member, as it was.
        cure: what was done about it.
        now: what its members hold in common; `None` where it was only started.
        uncommitted: entries at the end of a longer log than the survivor's, or left out by order,
            that nobody knew to be committed; a leader that was lost may have acknowledged them.
        left_out: hosts that were away, for `replace-etcd-member` once they are back.
        kept: folders with the data of before, on their hosts, to be removed by hand.
        left_to_person: members that do not start at boot.
    """

    found: str
    cure: str
    now: Agreed | None = None
    uncommitted: int = 0
    left_out: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    left_to_person: list[str] = field(default_factory=list)


@recovery(
    runbook=RUNBOOK,
    target=etcd_target,
    parts=etcd_hosts,
    answers=["etcdInsufficientMembers", "etcdNoLeader"],
    danger=Danger.DESTRUCTIVE,
)
def recover_etcd_quorum(  # noqa: PLR0913, PLR0917 (each is a field of the form)
    hosts: HostsParameter,
    backup_key_file: str = "",
    survivor: str = "",
    lost: list[str] | None = None,
    accept: list[str] | None = None,
    snapshot_file: str = "",
    unit: str = UNIT,
    off_host_copy: bool = True,  # noqa: FBT001, FBT002 (a field of the form)
    copies_in: str = COPIES,
) -> QuorumRecovered:
    """Bring an etcd that has lost its quorum back from the member that has most, and let all join.

    Members that are only stopped are started, where that is enough. Else the survivor's snapshot is
    taken, copied off its host and proven by a restore, before anything is stopped. Data is moved
    aside, never removed.

    Args:
        hosts: Those of all members, also of members that are gone: inventory, file, or ssh:// URLs.
        backup_key_file: File on the worker with 64 hex digits, to encrypt the snapshot with.
        survivor: Host whose data is to be used; empty: the one that would be elected.
        lost: Hosts whose members are given up, though something is left of them.
        accept: Names of what to accept, as the refusal prints them: off:HOST, revisions:NUMBER,
            no-hash, uncommitted:NUMBER, unread-log:HOST.
        snapshot_file: Path on the worker of a snapshot to recover from, where no member has data.
        unit: The systemd unit of etcd on the hosts; kubelet: its static pod, where both are there.
        off_host_copy: False leaves the snapshot on the host alone.
        copies_in: Folder on the hosts for snapshot and former settings.

    Runbook: docs/runbooks/etcd.md, steps 1 to 13.
    """
    cluster = etcd_cluster(hosts, unit, copies_in)
    file = absolute_path("snapshot_file", snapshot_file)
    terms = Terms(survivor, tuple(lost or ()), tuple(accept or ()), file)
    loss = quorum_loss.loss_found(cluster, terms)
    if loss.cure is Cure.NOTHING:
        return QuorumRecovered(loss.saw, loss.cure)
    if loss.cure is Cure.START:
        return _start(cluster, loss)
    _keep(cluster, loss, terms, BackupKey(backup_key_file) if off_host_copy else None)
    return _rebuild(cluster, loss, terms)


def _start(cluster: EtcdCluster, loss: Loss) -> QuorumRecovered:
    """Step 3: a majority has its data, and some of it need only be started."""
    stopped = parts.stopped(cluster, loss)
    for part in stopped:
        placing.start_stopped(part)
    placing.has_quorum(stopped)
    return QuorumRecovered(loss.saw, loss.cure)


def _keep(cluster: EtcdCluster, loss: Loss, terms: Terms, key: BackupKey | None) -> None:
    """Steps 4 to 6: a snapshot, off the host as well, and proven; nothing is stopped."""
    first = parts.survivor_of(cluster, loss)
    if terms.snapshot:
        file = given.given_file(terms.snapshot)
        given.refuse_unless_hash_is_there(file, terms)
        given.send_snapshot(first, file)
    else:
        if key:
            off_host.refuse_unless_key_is_named(key)
        snapshot.take_snapshot(first)
        if key:
            off_host.copy_snapshot_off_host(first, key)
    proving.prove_snapshot(first)
    proving.refuse_if_older(first, terms, loss.highest)


def _rebuild(cluster: EtcdCluster, loss: Loss, terms: Terms) -> QuorumRecovered:
    """Steps 7 to 13: the old cluster out of the way, the survivor alone, then one by one."""
    first, others = parts.survivor_of(cluster, loss), parts.rejoining(cluster, loss)
    for part in others:
        standing_down.stand_down(part)
    placing.put_in_place(first)
    placing.start_survivor(first)
    placing.holds_what_was_seen(first, terms)
    for part in others:
        joining.let_in(part)
        joining.start_joining(part)
        joining.give_vote(part)
    agreed = joining.all_agree([first, *others])
    left = joining.left_to_person([first, *others])
    kept = tuple(f"{part.label}:{part.aside}" for part in (first, *others))
    return QuorumRecovered(loss.saw, loss.cure, agreed, loss.may_be_lost, loss.away, kept, left)


@dataclass(frozen=True)
class MemberReplaced:
    """What was found and what now holds; `kept` is where the data of before lies, if anywhere."""

    found: str
    host: str
    now: Agreed
    kept: str = ""
    left_to_person: list[str] = field(default_factory=list)


@recovery(
    runbook=RUNBOOK,
    target=etcd_target,
    parts=etcd_hosts,
    answers=["etcdMembersDown"],
    danger=Danger.DESTRUCTIVE,
)
def replace_etcd_member(  # noqa: PLR0913, PLR0917 (each is a field of the form)
    hosts: HostsParameter,
    host: str,
    backup_key_file: str = "",
    by: str = "",
    accept: list[str] | None = None,
    unit: str = UNIT,
    off_host_copy: bool = True,  # noqa: FBT001, FBT002 (a field of the form)
    copies_in: str = COPIES,
) -> MemberReplaced:
    """Take one lost member out of an etcd that has quorum, and let one join in its place.

    A snapshot of a healthy member is taken, copied off its host and proven first. The new member
    joins as a learner; the data of the old one is moved aside, never removed.

    Args:
        hosts: Those of all members, and that of the new one: inventory, file, or ssh:// URLs.
        host: Host of the member that is replaced, as in hosts.
        backup_key_file: File on the worker with 64 hex digits, to encrypt the snapshot with.
        by: Host of the new member, with etcd installed and set up; empty: the same.
        accept: Names of what to accept, as the refusal prints them: healthy:HOST.
        unit: The systemd unit of etcd on the hosts; kubelet: its static pod, where both are there.
        off_host_copy: False leaves the snapshot on the host alone.
        copies_in: Folder on the hosts for snapshot and former settings.

    Runbook: docs/runbooks/etcd.md, steps 14 to 19.
    """
    cluster = etcd_cluster(hosts, unit, copies_in)
    found = replacing.replacement_found(cluster, host, by, tuple(accept or ()))
    first, new = replacing.asked_part(cluster, found), replacing.new_part(cluster, found)
    key = BackupKey(backup_key_file) if off_host_copy else None
    if key:
        off_host.refuse_unless_key_is_named(key)
    snapshot.take_snapshot(first)
    if key:
        off_host.copy_snapshot_off_host(first, key)
    proving.prove_snapshot(first)
    if found.listed is not None:
        was_healthy = found.of(found.lost).is_healthy
        replacing.remove_member(first, found.listed, was_healthy=was_healthy)
    if found.has_moved and found.is_reachable:
        old = replacing.old_part(cluster, found)
        replacing.retire(old)
        at_boot.disable(old)
    replacing.retire(new)
    joining.let_in(new)
    joining.start_joining(new)
    joining.give_vote(new)
    if found.has_moved:
        at_boot.enable(new)
    agreed = joining.all_agree(replacing.healthy_parts(cluster, found), replacing.away_of(found))
    left = joining.left_to_person([new])
    return MemberReplaced(found.saw, found.by, agreed, f"{new.label}:{new.aside}", left)


@dataclass(frozen=True)
class Defragmented:
    """What was found, which members were defragmented in which order, and the bytes given back."""

    found: str
    hosts: tuple[str, ...] = ()
    gained_bytes: int = 0
    was_disarmed: bool = False


@recovery(
    runbook=RUNBOOK,
    target=etcd_target,
    parts=etcd_hosts,
    answers=["etcdDatabaseQuotaLowSpace", "etcdDatabaseHighFragmentationRatio"],
)
def defragment_etcd(
    hosts: HostsParameter,
    all_members: bool = False,  # noqa: FBT001, FBT002 (a field of the form)
    unit: str = UNIT,
) -> Defragmented:
    """Give back the space of deleted keys, member by member, the leader last; disarm the alarm.

    Each member stands still meanwhile, and the next one waits until it serves again. Nothing is
    done where less than half of a database is free, and no alarm is raised.

    Args:
        hosts: Those of all members: inventory, file, or ssh:// URLs.
        all_members: Defragment them all, whether they need it or not.
        unit: The systemd unit of etcd on the hosts; kubelet: its static pod, where both are there.

    Runbook: docs/runbooks/etcd.md, steps 20 to 22.
    """
    cluster = etcd_cluster(hosts, unit)
    space = defragmenting.space_found(cluster, is_ordered=all_members)
    parts_due = defragmenting.parts_of(cluster, space)
    sizes = []
    for part in parts_due:
        defragmenting.defragment(part)
        sizes.append(defragmenting.serves_again(part))
    defragmenting.refuse_unless_room_was_made(cluster, space, sizes)
    if space.has_alarm:
        defragmenting.disarm(parts_due[-1])
        defragmenting.prove_write(parts_due[-1])
    gained = defragmenting.gained(space, sizes)
    return Defragmented(space.saw, space.order, gained, space.has_alarm)


@recovery(
    runbook=RUNBOOK,
    target=triage_target,
    answers=["etcdMembersDown", "etcdHighNumberOfLeaderChanges", "etcdGRPCRequestsSlow"],
    danger=Danger.READ,
)
def triage_etcd(hosts: HostsParameter, unit: str = UNIT) -> EtcdFinding:
    """Look at every member of an etcd, say what is the matter, and name the recovery to run.

    Changes nothing; works without quorum and with hosts away.

    Args:
        hosts: Those of all members, also of members that are gone: inventory, file, or ssh:// URLs.
        unit: The systemd unit of etcd on the hosts; kubelet: its static pod, where both are there.

    Runbook: docs/runbooks/etcd.md, step 1 and the table of its diagnosis.
    """
    cluster = etcd_cluster(hosts, unit)
    return triage.finding_of(cluster, hosts, triage.etcd_seen(cluster))

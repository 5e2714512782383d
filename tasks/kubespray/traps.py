"""What is known to go wrong inside the roles, asked before they run. Pure; each has a way out."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tasks.kubespray.etcd import Etcd
from tasks.kubespray.layout import CONTROL_PLANE, ETCD, Layout

HOST_CERTIFICATE = re.compile(r"(admin|member|node)-(?P<host>.+?)(-key)?\.pem")

BY_HAND = (
    "Run `ansible-playbook -b cluster.yml --limit etcd,kube_control_plane -e etcd_retries=10` with "
    "this inventory by hand until every host of etcd is a healthy member"
)


@dataclass(frozen=True)
class Trap:
    """A reason not to let the role run, and the way out."""

    name: str
    seen: str
    remedy: str


@dataclass(frozen=True)
class Meant:
    """What recover-control-plane is about to be run with.

    Attributes:
        layout: the inventory as it will be.
        broken: hosts that are lost.
        names: the name in etcd of each host, as it will be.
        etcd: as it is now.
        snapshot: a snapshot that was given; empty: the role takes one.
        before: etcd as it was when this was decided; `None`: it is now.
    """

    layout: Layout
    broken: tuple[str, ...]
    names: dict[str, str]
    etcd: Etcd
    snapshot: str = ""
    before: Etcd | None = None

    @property
    def first(self) -> str:
        """The host of etcd from which the role does everything; empty: there is none."""
        return next(iter(self.layout.members(ETCD)), "")

    @property
    def counts_as_healthy(self) -> int:
        """How many addresses of the group the role will find healthy, with etcdctl of the first.

        Of those that were not asked themselves, members count where one says that all are healthy.
        """
        first = self.etcd.of(self.first)
        if first is not None and not first.tells_on_stdout:
            return 0
        healthy = set(self.etcd.healthy)
        if any(one.are_all_healthy for one in self.etcd.asked):
            names = {member.name for member in self.etcd.members}
            healthy |= {host for host, name in self.names.items() if name in names}
        return len([host for host in self.layout.members(ETCD) if host in healthy])

    @property
    def are_lost_ones_out(self) -> bool:
        """Whether etcd no longer has the members of the hosts that leave: the role has been here.

        Those that come back are no sign of it: their names are to be there in the end.
        """
        left = [host for host in self.broken if host not in self.layout.members(ETCD)]
        names = {member.name for member in self.etcd.members}
        return not any(self.names.get(host) in names for host in left)

    @property
    def role_sees_quorum(self) -> bool:
        """What the role will make of it: as many healthy as unhealthy are enough for it."""
        unhealthy = len(self.layout.members(ETCD)) - self.counts_as_healthy
        return self.counts_as_healthy >= unhealthy


def traps(meant: Meant) -> list[Trap]:
    """Every trap that this run would fall into; none: it may go on."""
    return [
        *_first_node(meant),
        *_quorum(meant),
        *_given(meant),
        *_restore(meant),
        *_names(meant),
        *_glob(meant),
    ]


def _first_node(meant: Meant) -> Iterable[Trap]:
    for group in (ETCD, CONTROL_PLANE):
        first = next(iter(meant.layout.members(group)), "")
        if not first:
            yield Trap("first-node", f"{group} would be empty", "Name the hosts that take over")
        elif first in meant.broken or meant.etcd.of(first) is None:
            yield Trap(
                "first-node",
                f"{first} would be the first of {group}, from which the role does everything, and "
                "it is broken, new, or was not asked",
                "Name in hosts a host of each group that lives: it is put first",
            )
    first = meant.first
    if (one := meant.etcd.of(first)) is not None and not meant.etcd.has_quorum:
        better = max(meant.etcd.asked, key=lambda other: other.revision)
        if better.revision > one.revision:
            yield Trap(
                "first-node",
                f"{first} would be the first of etcd with revision {one.revision}, and "
                f"{better.host} has {better.revision}: what is newer would be lost",
                f"Put {better.host} into both groups, or recover its member first",
            )


def _quorum(meant: Meant) -> Iterable[Trap]:
    if meant.etcd.has_quorum and not meant.role_sees_quorum:
        healthy, size = meant.counts_as_healthy, len(meant.layout.members(ETCD))
        yield Trap(
            "quorum-test",
            f"etcd has quorum, and the role would count {healthy} healthy of {size} and take it "
            "for lost: it would delete the data of the first host and restore "
            f"{'the given' if meant.snapshot else 'a'} snapshot over it",
            _quorum_remedy(meant),
        )
    led = [one.host for one in meant.etcd.asked if one.has_leader]
    if led and not meant.etcd.has_quorum:
        yield Trap(
            "quorum-test",
            f"no member is healthy, and that of {led[0]} has a leader: etcd has quorum and most "
            "likely an alarm, and the role would delete the data of the first host and restore a "
            "snapshot over it",
            f"See `etcdctl alarm list` on {led[0]}; `defragment-etcd` gives space back and disarms "
            "NOSPACE; then resume",
        )
    if not meant.etcd.has_quorum and meant.role_sees_quorum:
        yield Trap(
            "quorum-test",
            "etcd has no quorum, and the role would take it for whole",
            "Recover etcd first with `recover-etcd-quorum`, then go on here",
        )


def _quorum_remedy(meant: Meant) -> str:
    first = meant.etcd.of(meant.first)
    if first is not None and not first.tells_on_stdout:
        return (
            f"etcdctl {first.version} of {first.host} tells of the healthy among its errors, where "
            "the role does not look: put one of 3.5 in its place, which speaks to older etcd too"
        )
    if meant.are_lost_ones_out:
        return f"{BY_HAND}, then resume"
    return (
        "Name fewer new hosts at a time; or let `replace-control-plane-node` replace them one by "
        "one (old_is_gone), which does without that role"
    )


def _given(meant: Meant) -> Iterable[Trap]:
    """Without quorum the role restores a given snapshot each time: also over what it restored."""
    was = meant.before.of(meant.first) if meant.before is not None else None
    asked = meant.etcd.of(meant.first)
    if not meant.snapshot or meant.etcd.has_quorum or was is None or asked is None:
        return
    if was.cluster and asked.cluster != was.cluster:
        yield Trap(
            "given-snapshot",
            f"etcd of {meant.first} is {_of_cluster(asked.cluster)}, and was of "
            f"{was.cluster} when this began: the given snapshot may be restored there already, and "
            "the role would go back to it from what was written since",
            f"Recover etcd first with `recover-etcd-quorum`; then {BY_HAND[0].lower()}{BY_HAND[1:]}"
            ", then resume",
        )


def _of_cluster(cluster: str) -> str:
    return f"of the cluster {cluster}" if cluster else "of no cluster that it would tell"


def _restore(meant: Meant) -> Iterable[Trap]:
    if meant.etcd.has_quorum:
        return
    first = meant.first
    asked = meant.etcd.of(first)
    alive = [one.host for one in meant.etcd.asked if one.host in meant.layout.members(ETCD)]
    if len(alive) > 1:
        yield Trap(
            "restore",
            f"etcd has no quorum, and {' '.join(alive)} live: the role would restore {first} only, "
            "and the others would keep data of the cluster before, with which they cannot join it",
            "Recover etcd first with `recover-etcd-quorum`, then go on with "
            "`replace-control-plane-node` for the lost hosts",
        )
    if asked is not None and not asked.can_restore:
        yield Trap(
            "restore",
            f"etcd has no quorum, and etcdctl {asked.version or '(none)'} of {first} restores no "
            "snapshot: the role would delete the data and then fail",
            "Recover etcd first with `recover-etcd-quorum`, then go on with "
            "`replace-control-plane-node` for the lost hosts",
        )


def _names(meant: Meant) -> Iterable[Trap]:
    if not meant.etcd.has_quorum:
        return
    if unnamed := [member for member in meant.etcd.members if not member.name]:
        yield Trap(
            "member-names",
            f"the member {unnamed[0].id} at {unnamed[0].peer} was added and has never started: the "
            "role removes members by their name only",
            f"`etcdctl member remove {unnamed[0].id}` on a host that lives, then resume",
        )
    known = {member.name for member in meant.etcd.members if member.name}
    for host in meant.etcd.healthy:
        name = meant.names.get(host)
        if name and known and name not in known:
            yield Trap(
                "member-names",
                f"{host} is {name} by the inventory, and etcd knows {', '.join(sorted(known))}",
                "Set etcd_member_name of every host of etcd to its name in `etcdctl member list`",
            )


def _glob(meant: Meant) -> Iterable[Trap]:
    """The role deletes `*NAME*` of the certificates on the first host: node1 takes node10 along."""
    others = [host for host in meant.layout.hosts if host not in meant.broken]
    first = meant.etcd.of(meant.first)
    files = first.certificates if first else ()
    for host in [host for host in meant.broken if host in meant.names]:
        taken = [other for other in others if host in other]
        found = [file for file in files if host in file and not _is_of(file, host, taken)]
        if taken or found:
            yield Trap(
                "certificate-glob",
                f"the role would delete *{host}* of the certificates on the first host of etcd, "
                f"and with them those of {', '.join(taken) or ' '.join(found)}",
                f"Delete the certificates of {host} there by hand, and take it out of the "
                "inventory with `remove-node`; or rename it, so that no other name holds its own",
            )


def _is_of(file: str, host: str, taken: Sequence[str]) -> bool:
    match = HOST_CERTIFICATE.fullmatch(file)
    return match is not None and match["host"] == host and not taken

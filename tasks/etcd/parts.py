"""A member and its part in the rebuilding of the cluster: on which host, with which paths."""

from dataclasses import dataclass

from blocks.ssh.host import SshHost
from recovery.walk import current_fence
from tasks.etcd.evidence import MemberSeen
from tasks.etcd.judging import Loss
from tasks.etcd.running import Running, running
from tasks.etcd.settings import Settings
from tasks.etcd.target import EtcdCluster


@dataclass(frozen=True)
class Part:
    """One member of the cluster that is being rebuilt.

    Attributes:
        cluster: the cluster.
        host: where the member runs.
        member: as it was found.
        initial_cluster: the members when this one joins, itself last, as etcd wants them.
        survivor: the member that is asked to let it in; of that one itself, `None`.
        former_id: of the member that it takes the place of, at the same address or another.
        is_rebuilt: whether the cluster is begun anew; else it goes on.
        highest: the highest revision that any member was seen at; no client has seen a later one.
        lets_go_of_tail: whether entries that it does not know to be committed are left out.
    """

    cluster: EtcdCluster
    host: SshHost
    member: MemberSeen
    initial_cluster: str
    survivor: "Part | None" = None
    former_id: int = 0
    is_rebuilt: bool = True
    highest: int = 0
    lets_go_of_tail: bool = False

    @property
    def is_read_from_files(self) -> bool:
        """Whether its snapshot is made of its files: it serves nobody, or not all that it has."""
        has_more = bool(self.member.uncommitted) and not self.lets_go_of_tail
        return self.member.status is None or has_more

    def kept_of(self, seen: MemberSeen) -> int:
        """Up to which entry of its log a snapshot of it has them."""
        return seen.committed if self.lets_go_of_tail else seen.reaches

    @property
    def label(self) -> str:
        """The host, in the keys of steps."""
        return self.host.label

    @property
    def settings(self) -> Settings:
        """What the member is started with."""
        return self.member.settings

    @property
    def run(self) -> Running:
        """How the member is run, stopped, started and told of its cluster."""
        return running(self.host, self.cluster.unit, self.settings)

    @property
    def data(self) -> str:
        """What etcd keeps: the log, the snapshots and the database."""
        return f"{self.settings.data}/member"

    @property
    def aside(self) -> str:
        """Where its data is moved to: below its data directory, hence on the same file system."""
        return f"{self.settings.data}/recover-{current_fence().recovery_id}"

    @property
    def copies(self) -> str:
        """Where snapshot and former settings are kept on its host."""
        return self.cluster.folder


def survivor_of(cluster: EtcdCluster, loss: Loss) -> Part:
    """The member that the new cluster begins with."""
    member = loss.of(loss.survivor)
    host = cluster.host(loss.survivor)
    return Part(
        cluster,
        host,
        member,
        _entry(member),
        highest=loss.highest,
        lets_go_of_tail=loss.lets_go_of_tail,
    )


def rejoining(cluster: EtcdCluster, loss: Loss) -> list[Part]:
    """The members that join it, in the order in which they do."""
    survivor = survivor_of(cluster, loss)
    parts, listed = [], [survivor.initial_cluster]
    for host in loss.rejoins:
        member = loss.of(host)
        listed.append(_entry(member))
        parts.append(Part(cluster, cluster.host(host), member, ",".join(listed), survivor))
    return parts


def stopped(cluster: EtcdCluster, loss: Loss) -> list[Part]:
    """The members that only have to be started."""
    return [
        Part(cluster, cluster.host(host), loss.of(host), _entry(loss.of(host)))
        for host in loss.starts
    ]


def _entry(member: MemberSeen) -> str:
    return f"{member.settings.name}={member.settings.peer_url}"

"""What a restore of MongoDB was asked for: who stands still meanwhile, and which Jobs do it."""

from collections.abc import Sequence
from dataclasses import dataclass

from blocks.kube.cluster import KubernetesCluster
from recovery.errors import BadInput
from tasks.workloads.target import Workload, WorkloadOrder, workload_order

CLIENTS = ("statefulset/vantiq",)


@dataclass(frozen=True)
class MongoOrder:
    """The parameters of a restore. The label is what it leases.

    Attributes:
        cluster: where.
        namespace: where in it.
        clients: the workloads that write, and are stopped.
        given: how many replicas each had, by the word of a person; 0: nobody said.
        restores: names of the CronJobs that restore, in their order.
        backup: name of the CronJob that backs up first; empty: none does.
        accept: what a person accepts, by name.
        job_within_seconds: how long one Job may take.
    """

    cluster: KubernetesCluster
    namespace: str
    clients: tuple[WorkloadOrder, ...]
    given: tuple[int, ...]
    restores: tuple[str, ...]
    backup: str
    accept: tuple[str, ...]
    job_within_seconds: int

    @property
    def label(self) -> str:
        """The database of one namespace."""
        return f"{self.cluster.label}/{self.namespace}/mongodb"

    def of(self, workload: Workload) -> WorkloadOrder:
        """The order of a client that was found."""
        return next(one for one in self.clients if one.name == workload.name)

    def given_of(self, workload: Workload) -> int:
        """How many replicas a client had, by the word of a person; 0: nobody said."""
        return self.given[[one.name for one in self.clients].index(workload.name)]


@dataclass(frozen=True)
class RestoreWish:
    """Which Jobs are run, and what is accepted."""

    restores: tuple[str, ...]
    backup: str = ""
    accept: tuple[str, ...] = ()
    job_within_seconds: int = 14400


def mongo_order(
    cluster: str,
    namespace: str,
    clients: Sequence[str] | None,
    wish: RestoreWish,
    within_seconds: int = 600,
) -> MongoOrder:
    """Read the parameters of a restore; a client is `statefulset/vantiq` or `statefulset/vantiq=3`.

    Raises:
        BadInput: one is malformed, empty, or named twice.
    """
    if wish.job_within_seconds < 1:
        seen = str(wish.job_within_seconds)
        raise BadInput("restore_within_seconds", seen, "Give at least 1")
    if not wish.restores or not all(name.strip() for name in wish.restores):
        raise BadInput("restore_cronjob", "it is empty", "Name the CronJob that restores")
    meant, given = [], []
    for one in CLIENTS if clients is None else clients:
        name, _, count = one.partition("=")
        if "=" in one and not (count.isdigit() and int(count)):
            raise BadInput("clients", f"{one!r}", "After = stands how many replicas it had")
        meant.append(workload_order(cluster, name, namespace, within_seconds))
        given.append(int(count or 0))
    if not meant:
        remedy = "Empty means none, never all: name each workload that writes to the database"
        raise BadInput("clients", "it is empty", remedy)
    names = [one.name for one in meant]
    if len(set(names)) < len(names):
        raise BadInput("clients", f"{', '.join(names)}", "Name each once")
    return MongoOrder(
        meant[0].cluster,
        meant[0].namespace,
        tuple(meant),
        tuple(given),
        wish.restores,
        wish.backup,
        wish.accept,
        wish.job_within_seconds,
    )


def mongo_target(cluster: str, namespace: str = "") -> str:
    """What a restore leases: the database of one namespace."""
    block = KubernetesCluster.named(cluster)
    return f"{block.label}/{block.namespace_of(namespace)}/mongodb"


def mongo_parts(cluster: str, namespace: str = "", clients: list[str] | None = None) -> list[str]:
    """What it leases as well: each client, so that nobody restarts one meanwhile."""
    order = mongo_order(cluster, namespace, clients, RestoreWish(("any",)))
    return [one.label for one in order.clients]

"""Which metrics of which Grafana are to be seen again, and what is accepted for that."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from blocks.grafana.api import GrafanaApi
from blocks.kube.cluster import KubernetesCluster
from recovery.errors import BadInput
from tasks.datasources.order import one_of
from tasks.workloads.target import WorkloadKind, WorkloadOrder

ALL = "all"
ACCOUNTS = ("telegraf-ds", "telegraf-prom")
WORKLOADS = ("deployment/telegraf-prom", "daemonset/telegraf-ds")
MEASUREMENTS = ("kubernetes_pod_container", "nginx_ingress_controller_requests")


class Accepted(StrEnum):
    """What is refused unless it is accepted by this name."""

    NO_COUNTERPART = "no-counterpart"
    EMPTY_QUERIES = "empty-queries"
    PROVISIONED = "provisioned"


@dataclass(frozen=True)
class MetricsOrder:
    """What was asked for. The label is what is leased. No dashboard named means none."""

    grafana: GrafanaApi
    datasource: str
    dashboards: tuple[str, ...]
    measurements: tuple[str, ...]
    fresh_seconds: int
    accept: tuple[Accepted, ...]

    @property
    def label(self) -> str:
        """The metrics that are seen through one data source."""
        return f"{self.grafana.target}/metrics/{self.datasource}"


@dataclass(frozen=True)
class RightsOrder:
    """Whose rights on which cluster. The label is the binding that gives them."""

    cluster: KubernetesCluster
    namespace: str
    accounts: tuple[str, ...]
    workloads: tuple[str, ...]
    is_narrowed: bool
    within_seconds: int

    @property
    def label(self) -> str:
        """The cluster, and what is bound there."""
        return f"{self.cluster.label}/{self.namespace}/telegraf"

    @property
    def telegraf(self) -> WorkloadOrder:
        """What is restarted once it has more rights."""
        return self.workload_order(self.workloads[0])

    def workload_order(self, given: str) -> WorkloadOrder:
        """The order that steps of one of telegraf's workloads take."""
        kind, _, name = given.rpartition("/")
        meant = WorkloadKind(kind) if kind else None
        return WorkloadOrder(self.cluster, self.namespace, meant, name, self.within_seconds)

    def user_of(self, account: str) -> str:
        """How the API calls a service account."""
        return f"system:serviceaccount:{self.namespace}:{account}"


def metrics_order(
    place: tuple[str, str],
    dashboards: Sequence[str],
    measurements: Sequence[str],
    fresh_seconds: int,
    accept: Sequence[str],
) -> MetricsOrder:
    """Read the parameters about Grafana.

    Args:
        place: where Grafana answers, and the name of the data source.
        dashboards: uids, or `all` alone.
        measurements: what is to have fresh points; empty: those of telegraf on Kubernetes.
        fresh_seconds: how old the newest point may be.
        accept: names of `Accepted`.

    Raises:
        BadInput: one is malformed.
    """
    grafana_url, datasource = place
    if not datasource.strip():
        raise BadInput("datasource", "it is empty", "Give the name of the InfluxDB data source")
    if ALL in dashboards and len(dashboards) > 1:
        raise BadInput("dashboards", "all is given beside uids", "Give all alone, or the uids")
    if fresh_seconds < 1:
        raise BadInput("fresh_within_seconds", f"{fresh_seconds}", "Give at least 1")
    return MetricsOrder(
        GrafanaApi.from_url(grafana_url),
        datasource.strip(),
        tuple(dashboards),
        tuple(measurements or MEASUREMENTS),
        fresh_seconds,
        tuple(one_of(Accepted, "accept", one) for one in accept),
    )


def rights_order(
    place: tuple[str, str],
    accounts: Sequence[str],
    workloads: Sequence[str],
    within_seconds: int,
    *,
    narrow: bool,
) -> RightsOrder | None:
    """Read the parameters about the cluster; `None` where none is given.

    Args:
        place: the cluster and the namespace of telegraf.
        accounts: its service accounts; empty: those that the charts make.
        workloads: what runs it, likewise; the first is restarted once it has more rights.
        within_seconds: how long its pods may take to come up.
        narrow: whether it is to lose what it does not need.

    Raises:
        BadInput: one is malformed.
    """
    cluster, namespace = place
    if not cluster:
        return None
    workloads = workloads or WORKLOADS
    kinds = {str(one) for one in WorkloadKind}
    if wrong := [one for one in workloads if "/" in one and one.partition("/")[0] not in kinds]:
        raise BadInput("telegraf", f"{wrong[0]!r}", "Write deployment/NAME or daemonset/NAME")
    block = KubernetesCluster.named(cluster)
    return RightsOrder(
        block,
        block.namespace_of(namespace),
        tuple(accounts or ACCOUNTS),
        tuple(workloads),
        narrow,
        within_seconds,
    )


def metrics_target(grafana_url: str, datasource: str) -> str:
    """What is leased; errors are those of `metrics_order`."""
    return f"{GrafanaApi.from_url(grafana_url).target}/metrics/{datasource.strip()}"


def metrics_parts(cluster: str, namespace: str, telegraf: list[str] | None) -> list[str]:
    """What is leased besides: the rights of telegraf, and the workload that is restarted."""
    order = rights_order((cluster, namespace), (), telegraf or (), 1, narrow=False)
    return [order.label, order.telegraf.label] if order else []

"""Let the metrics of a platform be seen again: link by link, from the data source to the panel."""

from dataclasses import dataclass

from blocks.kube.cluster import ClusterParameter
from recovery.declare import recovery
from tasks.metrics import dashboards, granting, links, rights
from tasks.metrics.order import (
    MetricsOrder,
    RightsOrder,
    metrics_order,
    metrics_parts,
    metrics_target,
    rights_order,
)
from tasks.workloads import restarting, triage, waiting
from tasks.workloads.target import WorkloadOrder
from tasks.workloads.triage import Found


@dataclass(frozen=True)
class MetricsRestored:
    """What was found, what was done, what now holds, and what is left to others.

    Attributes:
        found: how each measurement stood.
        rights: what telegraf was given, and what it may do now.
        migrated: how many queries of each dashboard were changed, and whether they return rows.
        left_to_person: what else is to be looked at.
    """

    found: list[str]
    rights: list[str]
    migrated: list[str]
    left_to_person: list[str]


@dataclass(frozen=True)
class RightsGiven:
    """What was done about telegraf's rights, what was seen, and whether it was restarted."""

    done: list[str]
    told: list[str]
    is_restarted: bool


@recovery(runbook="docs/runbooks/grafana-metrics.md", target=metrics_target, parts=metrics_parts)
def restore_grafana_metrics(  # noqa: PLR0913, PLR0917 (fields of the form)
    grafana_url: str,
    datasource: str = "InfluxDB",
    dashboards: list[str] | None = None,
    measurements: list[str] | None = None,
    cluster: ClusterParameter = "",
    namespace: str = "shared",
    accounts: list[str] | None = None,
    telegraf: list[str] | None = None,
    narrow: bool = False,  # noqa: FBT001, FBT002 (a field of the form)
    fresh_within_seconds: int = 180,
    within_seconds: int = 300,
    accept: list[str] | None = None,
) -> MetricsRestored:
    """Find the broken link between what is measured and what Grafana shows, and mend it.

    Telegraf gets the rights that it needs and no more; dashboards that ask for docker's metrics
    ask for those of containerd, if these return rows.

    Args:
        grafana_url: https://host:port/?token_file=PATH of Grafana.
        datasource: The name of the data source of InfluxDB 1.x.
        dashboards: uids of the dashboards to migrate, or all; empty: none.
        measurements: What is to have fresh points; empty: those of telegraf on Kubernetes.
        cluster: kubeconfig:///path?context=NAME, in-cluster:, or a saved block; empty: not asked.
        namespace: Where telegraf runs.
        accounts: Its service accounts; empty: telegraf-ds and telegraf-prom.
        telegraf: What runs it, the one to restart first; empty: telegraf-prom and telegraf-ds.
        narrow: Take from telegraf what it may do and does not need.
        fresh_within_seconds: How old the newest point may be: three intervals of telegraf.
        within_seconds: How long pods and points may take to come.
        accept: Names of what is refused otherwise, as no-counterpart or empty-queries.

    Runbook: docs/runbooks/grafana-metrics.md, steps 1 to 6.
    """
    order = metrics_order(
        (grafana_url, datasource),
        dashboards or (),
        measurements or (),
        fresh_within_seconds,
        accept or (),
    )
    of_cluster = rights_order(
        (cluster, namespace),
        accounts or (),
        telegraf or (),
        within_seconds,
        narrow=narrow,
    )
    found = links.links_found(order)
    given = _rights_given(of_cluster) if of_cluster else RightsGiven([], [], is_restarted=False)
    seen = found.seen
    if given.is_restarted:
        seen = [*seen, links.is_flowing(order, within_seconds)]
    migrated = _dashboards_migrated(order)
    return MetricsRestored(seen, given.done, migrated, [*found.recommended, *given.told])


def _rights_given(order: RightsOrder) -> RightsGiven:
    """Give telegraf what it needs, and take what it does not where that was asked for."""
    found = rights.rights_found(order)
    narrowed = found.wide if order.is_narrowed else []
    service = None
    if found.missing:
        service = triage.service_found(order.telegraf, is_ordered=True)
        granting.give_role(order, found)
        granting.bind_role(order, found)
    for wide in narrowed:
        granting.narrow_role(order, wide)
    done = [granting.rights_hold(order)] if found.missing or narrowed else []
    if service is not None:  # it asks again for what it was denied only when it starts
        done.append(_telegraf_restarted(order.telegraf, service))
    return RightsGiven(done, found.told, is_restarted=service is not None)


def _telegraf_restarted(telegraf: WorkloadOrder, found: Found) -> str:
    restarting.restart(telegraf, found)
    went = restarting.how_it_went(telegraf, found)
    restarting.roll_back(telegraf, found, went)
    holds = waiting.is_out(telegraf, found.workload, went.seconds_more(telegraf))
    return f"{found.workload} was restarted: {holds}"


def _dashboards_migrated(order: MetricsOrder) -> list[str]:
    """Keep every dashboard first, then save each with its new queries, then ask these for rows."""
    due = dashboards.dashboards_found(order)
    for one in due:
        dashboards.keep_dashboard(order, one)
    for one in due:
        dashboards.migrate_dashboard(order, one)
    return [dashboards.queries_return_rows(order, one) for one in due]

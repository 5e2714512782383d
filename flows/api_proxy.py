"""Restart the local proxies to the API servers on workers."""

from dataclasses import dataclass

from blocks.inventory import HostsParameter, hosts_named, leased_places
from recovery.declare import recovery
from recovery.fan_out import FanOut
from tasks.api_proxy import finding, restarting


@dataclass(frozen=True)
class ProxiesRestarted:
    """Hosts looked at, proxies restarted and why, and what kubespray has still to write."""

    hosts: int
    restarted: list[str]
    notes: list[str]


@recovery(
    runbook="docs/runbooks/nginx-proxy.md",
    target=lambda hosts: hosts_named(hosts).label,
    parts=lambda hosts: leased_places(hosts_named(hosts).hosts),
)
def restart_nginx_proxy(
    hosts: HostsParameter,
    restart: bool = False,  # noqa: FBT001, FBT002 (a field of the form)
    serial: list[str] | None = None,
    max_fail: str = "0",
    within_seconds: float = 120.0,
) -> ProxiesRestarted:
    """Restart kubespray's nginx-proxy where it serves another configuration than the one on disk.

    One that serves is left alone. One whose configuration names no living API server is not taken
    down: kubespray has to write that first.

    Args:
        hosts: Workers: name of an inventory, its file, or ssh:// URLs.
        restart: Restart also those that serve.
        serial: Sizes of the batches, as numbers or percentages; the last one is repeated.
        max_fail: Hosts that may fail before no more are begun, as number or percentage.
        within_seconds: How long each may take to serve again.

    Runbook: docs/runbooks/nginx-proxy.md.
    """
    inventory, sizes = hosts_named(hosts), serial or ["1", "5", "25%"]
    within = finding.within_of(within_seconds)
    everywhere = FanOut(inventory.hosts, ("100%",), max_fail)
    found = finding.proxy_found.over(inventory.hosts)
    finding.refuse_unless_restarts_help(found, everywhere.fail_max)
    due = finding.proxies_due(found, is_ordered=restart)
    if due:
        for batch in FanOut(finding.restarts_of(inventory, due, within), sizes, max_fail):
            batch.do(restarting.restart_proxy)
    for all_hosts in everywhere:
        all_hosts.do(restarting.proxy_serves)
    restarted = [f"{one.host}: {one.why}" for one in due]
    return ProxiesRestarted(len(inventory.hosts), restarted, finding.notes_on(found))

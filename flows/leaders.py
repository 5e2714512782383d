"""Recover the controller manager or the scheduler of a cluster."""

from dataclasses import dataclass

from blocks.inventory import HostsParameter, hosts_named, leased_places
from recovery.declare import recovery
from tasks.certificates import survey
from tasks.certificates.catalogue import Component
from tasks.leaders import finding, restarting


@dataclass(frozen=True)
class LeaderRecovered:
    """What was found where, what was restarted, and who leads now."""

    found: list[str]
    restarted: list[str]
    leads: str


@recovery(
    runbook="docs/runbooks/control-plane-leaders.md",
    target=lambda hosts: hosts_named(hosts).label,
    parts=lambda hosts: leased_places(hosts_named(hosts).hosts),
    answers=["KubeControllerManagerDown", "KubeControllerManagerInstanceUnreachable"],
)
def recover_controller_manager(
    hosts: HostsParameter, within_seconds: float = 180.0
) -> LeaderRecovered:
    """Find out why nothing is reconciled, and restart the controller managers that are unwell.

    One that is well is left alone. What no restart mends is named, with what does.

    Args:
        hosts: Control-plane hosts that are up: name of an inventory, its file, or ssh:// URLs.
        within_seconds: How long each may take to be well again.

    Runbook: docs/runbooks/control-plane-leaders.md.
    """
    return _recovered(hosts, Component.CONTROLLER_MANAGER, within_seconds)


@recovery(
    runbook="docs/runbooks/control-plane-leaders.md",
    target=lambda hosts: hosts_named(hosts).label,
    parts=lambda hosts: leased_places(hosts_named(hosts).hosts),
    answers=["KubeSchedulerDown", "KubeSchedulerInstanceUnreachable"],
)
def recover_scheduler(hosts: HostsParameter, within_seconds: float = 180.0) -> LeaderRecovered:
    """Find out why no pod is placed, and restart the schedulers that are unwell.

    One that is well is left alone. What no restart mends is named, with what does.

    Args:
        hosts: Control-plane hosts that are up: name of an inventory, its file, or ssh:// URLs.
        within_seconds: How long each may take to be well again.

    Runbook: docs/runbooks/control-plane-leaders.md.
    """
    return _recovered(hosts, Component.SCHEDULER, within_seconds)


def _recovered(hosts: str, component: Component, within_seconds: float) -> LeaderRecovered:
    """Look, restart host after host, see who leads."""
    within = finding.within_of(within_seconds)
    nodes = survey.nodes_of(hosts_named(hosts), ())
    found = finding.instance_found.over(nodes, component)
    leader = finding.who_leads(nodes, component)
    due = finding.instances_due(nodes, found, leader)
    if not due:
        return LeaderRecovered([], [], leader.seen)
    for each in finding.restarts_of(nodes, due, component, within):
        restarting.restart_instance(each)
        restarting.stays_up(each)
    leads = restarting.somebody_leads(nodes, component)
    restarting.is_well.over(nodes, component)
    return LeaderRecovered(
        [f"{one.host}: {one.why}" for one in due], [one.host for one in due], leads
    )

"""Synchronise the clocks of hosts."""

from dataclasses import dataclass

from blocks.inventory import HostsParameter, hosts_named, leased_places
from recovery.declare import recovery
from recovery.fan_out import Batch, FanOut
from tasks.clocks import looking, mending
from tasks.clocks.mending import DueClock


@dataclass(frozen=True)
class ClocksSynchronised:
    """Hosts looked at, hosts mended, and seconds between the two clocks furthest apart now."""

    hosts: int
    mended: list[str]
    apart_seconds: float


@recovery(
    runbook="docs/runbooks/clocks.md",
    target=lambda hosts: hosts_named(hosts).label,
    parts=lambda hosts: leased_places(hosts_named(hosts).hosts),
    answers=["NodeClockSkewDetected", "NodeClockNotSynchronising"],
)
def synchronise_clocks(  # noqa: PLR0913, PLR0917 (each is a field of the form)
    hosts: HostsParameter,
    warn_seconds: float = 1.0,
    fail_seconds: float = 5.0,
    step: bool = True,  # noqa: FBT001, FBT002 (a field of the form)
    step_back_max_seconds: float = 5.0,
    accept: list[str] | None = None,
    serial: list[str] | None = None,
    max_fail: str = "0",
    within_seconds: float = 300.0,
) -> ClocksSynchronised:
    """Measure every clock, see that a daemon keeps it and reaches a source, and step it if it must.

    Nothing is changed where the worker's own clock is the odd one. etcd members go one by one.

    Args:
        hosts: Saved inventory, path of a YAML file on the worker, or ssh URLs with blanks between.
        warn_seconds: A clock further off than this is mended.
        fail_seconds: A clock further off than this is stepped; below it the daemon slews it.
        step: Whether clocks may be stepped at all.
        step_back_max_seconds: No clock goes back further than this unless that is accepted.
        accept: Names of what to accept, as the refusal prints them: worker-clock, step-back:HOST.
        serial: Sizes of the batches, as numbers or percentages; the last one is repeated.
        max_fail: Hosts that may fail before no more are begun, as number or percentage; of etcd
            members none may.
        within_seconds: How long each host may take to follow a source, and then to be right.

    Runbook: docs/runbooks/clocks.md.
    """
    inventory = hosts_named(hosts)
    limits = looking.limits_of(
        warn_seconds,
        fail_seconds,
        accept or [],
        may_step=step,
        step_back_max_seconds=step_back_max_seconds,
    )
    found = looking.clock_found.over(inventory.hosts)
    looking.refuse_unless_clear(found, limits)
    due = looking.hosts_due(found, limits)
    rest = looking.Round([], serial or ["1", "5", "25%"], max_fail)
    for each in looking.in_order(inventory, due, limits, within_seconds, rest):
        for batch in FanOut(each.clocks, each.serial, each.max_fail):
            _mend(batch)
    apart = looking.clocks_agree(inventory.hosts, limits)
    return ClocksSynchronised(len(inventory.hosts), [each.host for each in due], apart)


def _mend(batch: Batch[DueClock]) -> None:
    """Start, enable, ask and step, and see that it is kept, host by host of a batch."""
    for step in (
        mending.start_daemon,
        mending.enable_daemon,
        mending.ask_sources,
        mending.step_clock,
        mending.wait_until_kept,
    ):
        batch.do(step)

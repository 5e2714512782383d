"""Proof that the registry has its database again."""

import time

from recovery.errors import NotVerified, Unreachable
from recovery.steps import verify
from tasks.postgres_server.inside import STANDBYS, ask_inside
from tasks.registry_database.causes import Cause, Finding
from tasks.registry_database.order import DatabaseOrder
from tasks.registry_database.restarting import Standing
from tasks.registry_database.starting import place_of
from tasks.registry_database.triage import judge_connectable

HEALTHY_WITHIN_SECONDS = 180.0
STREAMING_WITHIN_SECONDS = 120.0
PROMOTED_WITHIN_SECONDS = 120.0  # Patroni's lock on the lead of a server that died runs out first
PAUSE_SECONDS = 2.0


@verify
def takes_reads_and_writes(order: DatabaseOrder, finding: Finding) -> str:
    """What the server is to the registry's own account: a row was written where nobody sees it.

    One that its supervisor has started is a standby until the supervisor promotes it.

    Raises:
        NotVerified: it takes no reads or writes, or is not what it is meant to be.
        Unreachable: no answer.

    Runbook: docs/runbooks/registry-database.md, step 8.
    """
    ends = time.monotonic() + PROMOTED_WITHIN_SECONDS
    while True:
        found = Finding.of(judge_connectable(order))
        if found.cause is Cause.CONNECTABLE:
            return found.seen
        is_awaited = finding.patroni is not None and found.cause is Cause.PATRONI_NO_LEADER
        if not is_awaited or time.monotonic() >= ends:
            raise NotVerified(
                order.label, "a server that takes reads and writes", str(found), found.advice
            )
        time.sleep(PAUSE_SECONDS)


@verify
def registry_is_healthy(order: DatabaseOrder) -> str:
    """What the registry says of its health.

    Raises:
        NotVerified: it does not say that it is healthy in time; it may need a restart itself.

    Runbook: docs/runbooks/registry-database.md, step 8.
    """
    if order.health is None:
        return "not asked: no registry_url was given"
    ends = time.monotonic() + HEALTHY_WITHIN_SECONDS
    while True:
        try:
            health = order.health.ask()
            told = health.told
            if health.is_healthy:
                return told
        except Unreachable as error:
            told = error.seen
        if time.monotonic() >= ends:
            raise NotVerified(
                order.health.label,
                f"the registry to say that it is healthy within {HEALTHY_WITHIN_SECONDS:g} s",
                told,
                "The database takes its writes: look at the log of the registry, and restart it "
                "where it keeps dead connections",
            )
        time.sleep(PAUSE_SECONDS)


@verify
def standbys_are_back(order: DatabaseOrder, finding: Finding, before: Standing) -> list[str]:
    """The standbys that were attached before and stream again.

    Raises:
        NotVerified: one of them does not.
        Unreachable: the host gave no answer.

    Runbook: docs/runbooks/registry-database.md, step 8.
    """
    host, cluster = place_of(order, finding)
    ends = time.monotonic() + STREAMING_WITHIN_SECONDS
    while True:
        inside = ask_inside(host, cluster, STANDBYS)
        streaming = [row for row in inside.rows if row["state"] == "streaming"]
        names = sorted(f"{row['name']} {row['client']}" for row in streaming)
        lacking = [name for name in before.standbys if name not in names]
        if not before.is_known:  # only how many there were shows in the titles of processes
            lacking = before.standbys[len(names) :]
        if not lacking:
            return names
        if time.monotonic() >= ends:
            raise NotVerified(
                order.label,
                f"the standbys to stream again within {STREAMING_WITHIN_SECONDS:g} s",
                f"without {', '.join(lacking)}; {inside.text}",
                "The primary takes writes: look at the log of these standbys",
            )
        time.sleep(PAUSE_SECONDS)

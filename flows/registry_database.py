"""Recover the database of the registry, and the last resort before that."""

from dataclasses import dataclass

from blocks.postgres.server import PostgresParameter, PostgresServer
from recovery.declare import recovery
from recovery.verdict import Danger
from tasks.postgres_server.leased import server_and_host
from tasks.registry_database import (
    evidence,
    forcing,
    lock_file,
    proof,
    restarting,
    starting,
    triage,
    waiting,
)
from tasks.registry_database.causes import Cause, Remedy
from tasks.registry_database.evidence import ForL3
from tasks.registry_database.order import database_order


@dataclass(frozen=True)
class DatabaseRecovered:
    """What was found, what was done about it, what now holds, and what L3 is handed."""

    cause: str
    seen: str
    done: str
    holds: str
    health: str
    for_l3: ForL3


@recovery(
    runbook="docs/runbooks/registry-database.md",
    target=lambda database: PostgresServer.named(database).label,
    parts=server_and_host,
    answers=["PostgresqlDown"],
)
def recover_registry_database(  # noqa: PLR0913, PLR0917 (each is a field of the form)
    database: PostgresParameter,
    host: str = "",
    unit: str = "",
    registry_url: str = "",
    standby: bool = False,  # noqa: FBT001, FBT002 (as above)
    accept: list[str] | None = None,
    crash_recovery_within_minutes: int = 120,
) -> DatabaseRecovered:
    """Find out why the registry cannot use its database, and start or restart it where that helps.

    A server that answers is not restarted, one that recovers from a crash is waited for, and every
    other cause is told by its name and remedy.

    Args:
        database: postgresql://user@host:port/db?password_file=PATH, or the name of a saved block.
        host: Host of the server, ssh://user@host?key_file=PATH; empty: look from outside only.
        unit: Unit of the cluster that is meant; empty: it is found by port and data folder.
        registry_url: Address of the registry, http://host:port, to ask for its health at the end.
        standby: The server is meant to be a standby.
        accept: Names of what to accept: open-transactions.
        crash_recovery_within_minutes: How long a recovery from a crash is waited for.

    Runbook: docs/runbooks/registry-database.md.
    """
    within = crash_recovery_within_minutes
    order = database_order(database, host, unit, registry_url, standby, accept or [], within)
    found = triage.find_cause(order)
    if found.cause is Cause.SHUTTING_DOWN:
        starting.goes_down(order, found)
    if found.cause is Cause.STALE_LOCK_FILE:
        lock_file.set_lock_file_aside(order, found)
    if found.remedy is Remedy.START:
        starting.start_server(order, found)
    before = restarting.standing(order, found) if found.remedy is Remedy.RESTART else None
    done: str = found.remedy
    if before is not None:
        restarting.restart_server(order, found, before)
        done = restarting.was_restarted(order, found, before)
    if found.remedy is not Remedy.NOTHING:
        waiting.comes_up(order)
    holds = proof.takes_reads_and_writes(order, found)
    if before is not None:
        proof.standbys_are_back(order, found, before)
    health = proof.registry_is_healthy(order)
    told = evidence.for_l3(order)
    return DatabaseRecovered(found.cause, found.seen, done, holds, health, told)


@recovery(
    runbook="docs/runbooks/registry-database.md",
    target=lambda database: PostgresServer.named(database).label,
    parts=server_and_host,
    danger=Danger.DESTRUCTIVE,
)
def force_registry_database_shutdown(database: str, host: str, unit: str = "") -> str:
    """End a database server whose fast shutdown does not end. Its next start is a crash recovery.

    Unlogged tables are emptied. Start it again with recover-registry-database.

    Args:
        database: postgresql://user@host:port/db?password_file=PATH, or the name of a saved block.
        host: Host of the server, ssh://user@host?key_file=PATH.
        unit: Unit of the cluster that is meant; empty: it is found by port and data folder.

    Runbook: docs/runbooks/registry-database.md, step 7.
    """
    order = database_order(database, host, unit)
    server = forcing.server_to_end(order)
    forcing.shut_down_immediately(order, server)
    return f"process {server.pid} of {server.cluster} is gone"

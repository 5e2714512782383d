"""Repair the indexes of the registry."""

from dataclasses import dataclass

from blocks.inventory import host_named
from blocks.postgres.server import PostgresParameter, PostgresServer
from recovery.declare import recovery
from tasks.postgres_server.leased import server_and_host
from tasks.registry_indexes import building, lookups, preflight
from tasks.registry_indexes.lookups import Lookup
from tasks.registry_indexes.wanted import index_repair


@dataclass(frozen=True)
class IndexesRepaired:
    """What a repair did, how the planner looks up now, and what a person should know besides."""

    built: list[str]
    leftovers_dropped: list[str]
    lookups: list[Lookup]
    notes: list[str]


@recovery(
    runbook="docs/runbooks/registry-indexes.md",
    target=lambda database: PostgresServer.named(database).label,
    parts=server_and_host,
    answers=["PostgresqlInvalidIndex"],
    resumes_itself="indexes are known by their definition, and reads and writes go on meanwhile",
)
def repair_registry_indexes(  # noqa: PLR0913, PLR0917 (each is a field of the form)
    database: PostgresParameter,
    host: str = "",
    table_schema: str = "public",
    table: str = "V_VaccinationCertificate",
    skip: list[str] | None = None,
    accept: list[str] | None = None,
    blocked_within_minutes: int = 30,
) -> IndexesRepaired:
    """Build the five indexes of the registry that are missing, and drop what broken builds left.

    One at a time, concurrently: reads and writes go on. Duplicates are looked for first.

    Args:
        database: postgresql://user@host:port/db?password_file=PATH, or the name of a saved block.
        host: Host of the server, to see how much disk is free: ssh://user@host?key_file=PATH.
        table_schema: Schema of the table.
        table: Name of the table, case and all, without quotes.
        skip: Columns to leave out.
        accept: Names of what to accept: little-disk, unknown-disk, long-transactions.
        blocked_within_minutes: How long one build may wait for the same session.

    Runbook: docs/runbooks/registry-indexes.md.
    """
    repair = index_repair(
        database,
        host_named(host) if host else None,
        table_schema,
        table,
        skip or [],
        accept or [],
        blocked_within_minutes,
    )
    preflight.refuse_unless_repairable(repair)
    left, due = preflight.leftovers(repair), preflight.columns_due(repair)
    if due:
        preflight.refuse_unless_buildable(repair, due)
    for name in left:
        building.drop_leftover(repair, name)
    built = [building.build_index(repair, column).name for column in due]
    if due:
        building.analyze_table(repair)
    return IndexesRepaired(built, left, lookups.lookups_use_indexes(repair), lookups.notes(repair))

"""What a database holds, in numbers that a restored copy of it must show again."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from blocks.postgres.session import PostgresSession, quote_name
from tasks.postgres_backup.canary import newest_canary

# What belongs to an extension is made by it anew, and is not dumped.
OURS = (
    "FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
    "WHERE n.nspname <> 'information_schema' AND n.nspname !~ '^pg_' "
    "AND NOT EXISTS (SELECT 1 FROM pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e')"
)
TABLES = f"SELECT n.nspname, c.relname {OURS} AND c.relkind = 'r' ORDER BY 1, 2"
INDEXES = (
    "SELECT count(*) FILTER (WHERE i.indisvalid), "  # noqa: S608 (ours)
    "coalesce(array_agg(i.indexrelid::regclass::text) FILTER (WHERE NOT i.indisvalid), '{}') "
    f"FROM pg_index i WHERE i.indrelid IN (SELECT c.oid {OURS} AND c.relkind IN ('r', 'm'))"
)
CONSTRAINTS = (
    "SELECT count(*), "  # noqa: S608 (ours)
    "coalesce(array_agg(o.conrelid::regclass::text || ' ' || o.conname) "
    "FILTER (WHERE NOT o.convalidated), '{}') FROM pg_constraint o "
    "WHERE o.contype IN ('c', 'f', 'p', 'u', 'x') "
    f"AND o.conrelid IN (SELECT c.oid {OURS} AND c.relkind = 'r')"
)
TOLD_MAX = 5


@dataclass(frozen=True)
class Contents:
    """What was counted.

    Attributes:
        rows: rows of each table, by its name in quotes.
        indexes: how many indexes answer queries.
        invalid_indexes: those that do not; they are not dumped.
        constraints: how many there are.
        unvalidated: constraints that were never held against the rows that stood before them.
        canary_at: when the newest canary was written, by the clock of the server.
    """

    rows: Mapping[str, int]
    indexes: int
    invalid_indexes: tuple[str, ...]
    constraints: int
    unvalidated: tuple[str, ...]
    canary_at: datetime | None


def counted(session: PostgresSession) -> Contents:
    """Count what is in the database of a session.

    Raises:
        CommandFailed: the account may not read a table.
        Unreachable: no answer.
    """
    rows = {}
    for schema, table in session.rows(TABLES):
        name = f"{quote_name(schema)}.{quote_name(table)}"
        rows[name] = int(session.value(f"SELECT count(*) FROM {name}"))  # noqa: S608 (quoted)
    ((indexes, invalid),) = session.rows(INDEXES)
    ((constraints, unvalidated),) = session.rows(CONSTRAINTS)
    return Contents(
        rows,
        int(indexes),
        tuple(sorted(invalid)),
        int(constraints),
        tuple(sorted(unvalidated)),
        newest_canary(session),
    )


def differences(then: Contents, now: Contents) -> list[str]:
    """What a restored copy has other than what was backed up, in sentences; empty: nothing."""
    found = []
    tables = sorted({*then.rows, *now.rows})
    other = [
        f"{table} had {then.rows.get(table, 'no')} rows and has {now.rows.get(table, 'no')}"
        if table in then.rows and table in now.rows
        else f"{table} {'was not backed up' if table in now.rows else 'is not there'}"
        for table in tables
        if then.rows.get(table) != now.rows.get(table)
    ]
    found += other[:TOLD_MAX]
    if len(other) > TOLD_MAX:
        found.append(f"{len(other) - TOLD_MAX} more tables differ")
    if then.canary_at != now.canary_at:
        found.append(f"the newest canary was of {then.canary_at} and is of {now.canary_at}")
    if then.indexes != now.indexes:
        found.append(f"there were {then.indexes} valid indexes and are {now.indexes}")
    if now.invalid_indexes:
        found.append(f"indexes that answer no query: {', '.join(now.invalid_indexes)}")
    if then.constraints != now.constraints:
        found.append(f"there were {then.constraints} constraints and are {now.constraints}")
    if lost := sorted(set(now.unvalidated) - set(then.unvalidated)):
        found.append(f"constraints that are not validated: {', '.join(lost)}")
    return found

"""The canary: a row with the time of the server, by which a restored copy tells how old it is."""

from collections.abc import Iterable
from datetime import UTC, datetime

from blocks.postgres.session import PostgresSession
from recovery.steps import act, undo
from recovery.verdict import Verdict
from tasks.postgres_backup.order import BackupOrder

SCHEMA, TABLE = "recovery", '"recovery"."canary"'
KEPT_DAYS = 90
IS_THERE = "SELECT to_regclass('recovery.canary') IS NOT NULL"
HAS_SCHEMA = f"SELECT to_regnamespace('{SCHEMA}') IS NOT NULL"
NEWEST = f"SELECT max(written_at) FROM {TABLE}"  # noqa: S608 (ours)
OWN = f"SELECT count(*) FROM {TABLE} WHERE recovery_id = %s"  # noqa: S608 (ours)
FORGET = (
    f"DELETE FROM {TABLE} "  # noqa: S608 (ours)
    f"WHERE written_at < clock_timestamp() - interval '{KEPT_DAYS} days'"
)
MAKE = (
    f'CREATE SCHEMA IF NOT EXISTS "{SCHEMA}"',
    f"CREATE TABLE IF NOT EXISTS {TABLE} (recovery_id text PRIMARY KEY, written_at timestamptz)",
)


def newest_canary(session: PostgresSession) -> datetime | None:
    """When the newest canary of a database was written; `None` where there is none."""
    if not session.value(IS_THERE):
        return None
    written_at: datetime | None = session.value(NEWEST)
    return None if written_at is None else written_at.astimezone(UTC)


def canary_commands(order: BackupOrder) -> Iterable[str]:
    """What writes the canary, and forgets those that no backup can need any more."""
    write = (
        f"INSERT INTO {TABLE} VALUES ('{order.own_id}', clock_timestamp()) "  # noqa: S608 (ours)
        "ON CONFLICT DO NOTHING"
    )
    return [*MAKE, write, FORGET]


def is_written(order: BackupOrder) -> Verdict:
    """Whether the canary of this recovery stands in the database."""
    with order.database.connect() as session:
        if not session.value(IS_THERE):
            return Verdict.NOT_DONE
        return Verdict.of(bool(session.value(OWN, (order.own_id,))))


@undo
def remove_canary(order: BackupOrder) -> None:
    """Take the canary of this recovery away; the table stays, for others may write to it."""
    with order.database.connect() as session:
        if session.value(IS_THERE):
            session.change(f"DELETE FROM {TABLE} WHERE recovery_id = '{order.own_id}'")  # noqa: S608 (ours)


@act(commands=canary_commands, done_when=is_written, undo=remove_canary)
def write_canary(order: BackupOrder) -> None:
    """Write a row with the time of the server into a small table of our own.

    Nothing else in the database is changed. Done twice, the second does nothing.

    Raises:
        CommandFailed: the account may not make the table, or not write to it.
        Unreachable: no answer; it may have been done.

    Runbook: docs/runbooks/postgres-backup.md, step 2.
    """
    with order.database.connect() as session:
        # IF NOT EXISTS wants the right to create also where there is nothing left to create.
        made = len(MAKE) if session.value(IS_THERE) else int(session.value(HAS_SCHEMA))
        for line in list(canary_commands(order))[made:]:
            session.change(line)

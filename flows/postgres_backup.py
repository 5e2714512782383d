"""Back up a PostgreSQL database, and exercise its restore."""

from dataclasses import dataclass
from datetime import datetime

from blocks.postgres.server import PostgresServer
from recovery.declare import recovery
from tasks.postgres_backup import (
    canary,
    dumping,
    measuring,
    order,
    preflight,
    proving,
    restoring,
    retention,
)
from tasks.postgres_backup.measuring import RestoreProven
from tasks.postgres_backup.proving import TakenBackup


@dataclass(frozen=True)
class BackedUp:
    """The backup that was taken, and those that were removed for it."""

    taken: TakenBackup
    removed: list[str]


@recovery(
    runbook="docs/runbooks/postgres-backup.md",
    target=lambda database, folder: order.backup_target(
        PostgresServer.named(database), order.folder_named(folder)
    ),
)
def back_up_postgres(
    database: str,
    folder: str,
    keep: int = 7,
    key_file: str = "",
    accept: list[str] | None = None,
) -> BackedUp:
    """Dump a database to the worker with a canary and a manifest, and prove that it is whole.

    Nothing in the database is changed but one row in a small table of our own.

    Args:
        database: postgresql://user@host:port/db?password_file=PATH, or the name of a saved block.
        folder: Folder on the worker that holds the backups.
        keep: How many backups of this database to keep, this one included.
        key_file: Key on the worker to encrypt with: 64 hexadecimal digits. Empty: not encrypted.
        accept: Names of what to accept: little-disk, much-smaller.

    Runbook: docs/runbooks/postgres-backup.md.
    """
    wanted = order.backup_order(database, folder, keep, key_file, accept or [])
    preflight.refuse_unless_dumpable(wanted)
    canary.write_canary(wanted)
    dumping.dump_database(wanted)
    taken = proving.backup_is_whole(wanted)
    removed = retention.surplus(wanted)
    for backup in removed:
        retention.remove_backup(wanted, backup)
    return BackedUp(taken, removed)


@recovery(
    runbook="docs/runbooks/postgres-backup.md",
    target=lambda folder, server: order.drill_target(
        order.folder_named(folder), PostgresServer.named(server, "server")
    ),
    drill=measuring.PHASES,
)
def drill_postgres_restore(  # noqa: PLR0913, PLR0917 (each is a field of the form)
    folder: str,
    server: str,
    backup: str = "",
    store: str = "",
    key_file: str = "",
    incident_at: datetime | None = None,
) -> RestoreProven:
    """Restore a backup into a database of the drill's own, compare it, time it, and destroy it.

    No other database on the server is touched.

    Args:
        folder: Folder on the worker that holds the backups.
        server: Where to restore: postgresql://user@host:port/db?password_file=PATH, or the name of
            a saved block. The database of the URL is only connected to.
        backup: Id of the backup to restore. Empty: the newest.
        store: The database whose backups are meant, as its manifests name it. Empty: the only one.
        key_file: Key on the worker, where the backup is encrypted.
        incident_at: When the incident is said to have happened. Empty: when the drill began.

    Runbook: docs/runbooks/postgres-backup.md.
    """
    drill = order.drill_order(folder, server, backup, store, key_file, incident_at)
    chosen = restoring.chosen_backup(drill)
    preflight.refuse_unless_restorable(drill, chosen)
    restoring.restore_backup(drill, chosen)
    found = proving.compare_with_manifest(drill, chosen)
    restoring.destroy_scratch(drill)
    return measuring.restore_is_proven(drill, found)

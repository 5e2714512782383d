"""Every reason not to take a backup, and not to restore one."""

import shutil
import statistics
from pathlib import Path

from blocks.postgres.programs import newest_program
from blocks.postgres.session import PostgresSession
from recovery.errors import Refused
from recovery.steps import probe
from tasks.postgres_backup.canary import SCHEMA, TABLE
from tasks.postgres_backup.manifest import Manifest, manifests, refuse_unless_whole
from tasks.postgres_backup.order import Acceptable, BackupOrder, DrillOrder
from tasks.postgres_server.disk import megabytes
from tasks.postgres_server.primary import primary_of, role_of

OLDEST_VERSION = 130000  # the first whose DROP DATABASE ends the sessions in it
ROOM_FACTOR = 1.2
MAY_MAKE_CANARY = (
    "SELECT CASE WHEN to_regclass('recovery.canary') IS NOT NULL "
    f"THEN has_table_privilege('{TABLE}', 'SELECT') AND has_table_privilege('{TABLE}', 'INSERT') "
    f"AND has_table_privilege('{TABLE}', 'DELETE') "
    f"WHEN to_regnamespace('{SCHEMA}') IS NOT NULL "
    f"THEN has_schema_privilege('{SCHEMA}', 'CREATE') "
    "ELSE has_database_privilege(current_database(), 'CREATE') END"
)
MAY_CREATE_DATABASE = "SELECT rolcreatedb OR rolsuper FROM pg_roles WHERE rolname = current_user"
SIZE = "SELECT pg_database_size(current_database())"


@probe
def refuse_unless_dumpable(order: BackupOrder) -> None:
    """Refuse where no backup can be taken, or none that a drill could prove.

    Raises:
        BadInput: pg_dump is not installed.
        Refused: pg_dump is older than the server, a standby, a pooler, rights, too little disk.
        Unreachable: the server gave no answer.

    Runbook: docs/runbooks/postgres-backup.md, step 1.
    """
    tool = newest_program("pg_dump")
    with order.database.connect() as session:
        role = _refuse_unless_primary(session, order.database.label)
        if tool.major < session.version // 10000:
            raise Refused(
                order.database.label,
                f"pg_dump {tool.version} of this worker is older than the server ({role})",
                f"Install postgresql-client-{session.version // 10000} on the worker",
            )
        if not session.value(MAY_MAKE_CANARY):
            raise Refused(
                order.database.label,
                f"{order.database.user} may not write the canary to {TABLE}",
                f"GRANT CREATE ON DATABASE to {order.database.user}, or make schema and table "
                "for it as the runbook says",
            )
    refuse_little_disk(order)


def refuse_little_disk(order: BackupOrder) -> None:
    """Refuse where the disk of the worker has no room for one more backup.

    What it will take is judged by the earlier ones, else by the size of the database.
    """
    if Acceptable.LITTLE_DISK in order.accept:
        return
    needed = usual_size(order)
    if not needed:
        with order.database.connect() as session:
            needed = float(session.value(SIZE))
    free = shutil.disk_usage(_nearest(order.folder.path)).free
    if free < needed * ROOM_FACTOR:
        raise Refused(
            order.folder.label,
            f"{megabytes(free)} are free there, and {megabytes(int(needed * ROOM_FACTOR))} may be "
            "needed",
            f"Make room, or accept=['{Acceptable.LITTLE_DISK}']",
        )


def usual_size(order: BackupOrder) -> float:
    """The median size of the earlier backups of this database in bytes; 0 where there is none."""
    sizes = [
        manifest.size_bytes
        for manifest in manifests(order.folder, order.database.label)
        if manifest.run_id != order.own_id
    ]
    return statistics.median(sizes) if sizes else 0.0


@probe
def refuse_unless_restorable(drill: DrillOrder, backup: str) -> None:
    """Read the backup whole and compare its hash; refuse where it cannot be restored there.

    Raises:
        BadInput: pg_restore is not installed.
        Refused: the backup has changed, the server or pg_restore is older than what it was taken
            of or by, a standby, a pooler, or the account may not make a database.
        Unreachable: the server gave no answer.

    Runbook: docs/runbooks/postgres-backup.md, step 6.
    """
    manifest = refuse_unless_whole(drill.folder, backup)
    tool = newest_program("pg_restore")
    if tool.major < manifest.tool_major:
        raise Refused(
            drill.folder.label,
            f"pg_restore {tool.version} of this worker is older than the pg_dump "
            f"({manifest.tool}) that took backup {backup}",
            f"Install postgresql-client-{manifest.tool_major} on the worker",
        )
    with drill.server.connect() as session:
        _refuse_unless_primary(session, drill.server.label)
        _refuse_old_server(session, drill, manifest)
        if not session.value(MAY_CREATE_DATABASE):
            raise Refused(
                drill.server.label,
                f"{drill.server.user} may not make a database to restore into",
                f"ALTER ROLE {drill.server.user} CREATEDB",
            )


def _refuse_old_server(session: PostgresSession, drill: DrillOrder, manifest: Manifest) -> None:
    major = session.version // 10000
    if session.version < OLDEST_VERSION or major < manifest.server_major:
        raise Refused(
            drill.server.label,
            f"it is of version {major}; the backup was taken of {manifest.server_version}",
            f"Restore on a server of version {max(manifest.server_major, 13)} or newer",
        )


def _refuse_unless_primary(session: PostgresSession, label: str) -> str:
    """Refuse a server that takes no writes; return its version."""
    if session.is_pooled:
        raise Refused(
            label,
            "a pooler stands between: its sessions share settings and processes",
            "Give host and port of the server itself",
        )
    role = role_of(session)
    if role.is_in_recovery or role.is_read_only:
        kind = f"a standby of {primary_of(session)}" if role.is_in_recovery else "read-only"
        raise Refused(
            label, f"it is {kind}, and takes no writes", "Give the address of the primary"
        )
    return role.version


def _nearest(path: Path) -> Path:
    """The folder itself, or what there is of the way to it."""
    return next(place for place in (path, *path.parents) if place.exists())

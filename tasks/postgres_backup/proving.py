"""Whether a backup is whole as it lies there, and whether what was restored is what was dumped."""

import re
import tempfile
from dataclasses import dataclass
from datetime import datetime

from blocks.local.program import run_program
from blocks.postgres.programs import newest_program, shown
from recovery.commands import reading
from recovery.errors import NotVerified, Refused
from recovery.steps import verify
from tasks.postgres_backup.contents import counted, differences
from tasks.postgres_backup.manifest import Manifest, pieces_of, read_manifest, refuse_unless_whole
from tasks.postgres_backup.order import BackupOrder, DrillOrder

LIST_WITHIN_SECONDS = 120.0
COUNTING = "SET statement_timeout = '12h'"  # a large table is not counted in minutes
ENTRIES = re.compile(r"^;\s+TOC Entries: (\d+)", re.MULTILINE)


@dataclass(frozen=True)
class TakenBackup:
    """A backup that was taken, in short."""

    backup: str
    file: str
    size_bytes: int
    sha256: str
    tables: int
    rows: int
    canary_at: datetime


@dataclass(frozen=True)
class Restored:
    """What was found in the restored copy."""

    backup: str
    tables: int
    rows: int
    newest_canary_at: datetime | None
    differences: tuple[str, ...]


@verify
def backup_is_whole(order: BackupOrder) -> TakenBackup:
    """Read the dump back: its hash, its list of contents, its canary.

    Raises:
        NotVerified: it cannot be listed, or lacks its canary.
        Refused: it is not there as it was written, or the key is missing.
        BadInput: pg_restore is not installed.

    Runbook: docs/runbooks/postgres-backup.md, step 4.
    """
    manifest = refuse_unless_whole(order.folder, order.own_id)
    label, path = order.folder.label, order.folder.dump_of(order.own_id)
    _list_contents(order, manifest)
    if manifest.contents.canary_at is None:
        raise NotVerified(label, "the canary in the dump", "there is none", "See who removes it")
    return TakenBackup(
        manifest.run_id,
        str(path),
        manifest.size_bytes,
        manifest.sha256,
        len(manifest.contents.rows),
        sum(manifest.contents.rows.values()),
        manifest.contents.canary_at,
    )


def _list_contents(order: BackupOrder, manifest: Manifest) -> None:
    program = newest_program("pg_restore")
    command = f"{shown(program, ['--list'])} < {order.folder.dump_of(manifest.run_id)}"
    with reading(command, order.folder.label) as call, tempfile.TemporaryFile() as printed:
        try:
            ended = run_program(
                [program.path, "--list"],
                within_seconds=LIST_WITHIN_SECONDS,
                stdin=pieces_of(order.folder, manifest),
                stdout=printed,
            )
        except TimeoutError:
            raise NotVerified(
                order.folder.label,
                "pg_restore to list what is in the dump",
                f"no end within {LIST_WITHIN_SECONDS:g} s",
                "Resume it once the worker is less busy",
            ) from None
        printed.seek(0)
        entries = ENTRIES.search(printed.read().decode(errors="replace"))
        call.exit_code = ended.code
        call.answer = entries[0] if entries else ended.errors
    if ended.code or entries is None:
        raise NotVerified(
            order.folder.label,
            "pg_restore to list what is in the dump",
            ended.errors.strip() or f"exit code {ended.code}",
            "Take another backup, and look at the disk of the worker",
        )


@verify
def compare_with_manifest(drill: DrillOrder, backup: str) -> Restored:
    """Count in the restored copy what was counted when it was dumped; return what differs.

    It does not raise for what differs: the scratch database is destroyed before that is told.

    Raises:
        Refused: the manifest is gone.
        CommandFailed: the server said no.
        Unreachable: no answer.

    Runbook: docs/runbooks/postgres-backup.md, step 8.
    """
    manifest = read_manifest(drill.folder.manifest_of(backup))
    if manifest is None:
        raise Refused(drill.folder.label, f"the manifest of {backup} is gone", "Bring it back")
    with drill.server.connect(drill.scratch) as session:
        session.stage(COUNTING)
        now = counted(session)
    found = differences(manifest.contents, now)
    if now.canary_at is None:
        found.append("there is no canary in it")
    return Restored(backup, len(now.rows), sum(now.rows.values()), now.canary_at, tuple(found))

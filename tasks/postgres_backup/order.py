"""Which database is backed up to where, which backup is restored in a drill, and on which terms."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from blocks.postgres.server import PostgresServer
from recovery.errors import BadInput
from recovery.walk import current_fence
from tasks.certificates import sealed

KEEP_MAX = 1000
OWN_ID = re.compile(r"[0-9a-f]{12}")


class Acceptable(StrEnum):
    """What a person may accept by name; anything else that is refused stays refused."""

    LITTLE_DISK = "little-disk"
    MUCH_SMALLER = "much-smaller"


@dataclass(frozen=True)
class BackupFolder:
    """A folder of this worker that holds backups, and the key of those that are encrypted."""

    path: Path
    key_file: str = ""

    @property
    def label(self) -> str:
        """The path."""
        return str(self.path)

    def dump_of(self, backup: str) -> Path:
        """The dump of a backup, by its id."""
        return self.path / f"{backup}.dump"

    def manifest_of(self, backup: str) -> Path:
        """The manifest beside it; it is written last."""
        return self.path / f"{backup}.json"


@dataclass(frozen=True)
class BackupOrder:
    """A backup to take: its id is that of the recovery."""

    database: PostgresServer
    folder: BackupFolder
    keep: int
    accept: tuple[str, ...]

    @property
    def label(self) -> str:
        """The database and the folder."""
        return backup_target(self.database, self.folder)

    @property
    def own_id(self) -> str:
        """Id of the backup that this recovery takes."""
        return current_fence().recovery_id


@dataclass(frozen=True)
class DrillOrder:
    """A drill of restoring: from which folder, into a database of its own on which server."""

    folder: BackupFolder
    server: PostgresServer
    backup: str
    store: str
    incident_at: datetime | None

    @property
    def label(self) -> str:
        """The folder and the server."""
        return drill_target(self.folder, self.server)

    @property
    def scratch(self) -> str:
        """Name of the database that this drill restores into; no other drill has the same."""
        return f"drill_{current_fence().recovery_id}"


def backup_target(database: PostgresServer, folder: BackupFolder) -> str:
    """What a backup is leased by: not the database, for a backup must keep nobody from repairs."""
    return f"backup of {database.label} in {folder.label}"


def drill_target(folder: BackupFolder, server: PostgresServer) -> str:
    """What a drill is leased by, and by which its earlier runs are known."""
    return f"restore drill of {folder.label} on {server.label}"


def folder_named(given: str, key_file: str = "") -> BackupFolder:
    """Read the parameter `folder`.

    Raises:
        BadInput: it is not an absolute path.
    """
    for field, text in (("folder", given), ("key_file", key_file)):
        if (text or field == "folder") and not text.startswith("/"):
            seen = f"{text!r} is not an absolute path"
            raise BadInput(field, seen, "Give a path on the worker that starts with /")
    return BackupFolder(Path(given), key_file)


def backup_order(
    database: str, folder: str, keep: int, key_file: str, accept: Sequence[str]
) -> BackupOrder:
    """Read the parameters of a backup.

    Raises:
        BadInput: one is malformed, out of range or unknown, or the key cannot be read.
        Refused: others may read the key.
    """
    if unknown := [name for name in accept if name not in list(Acceptable)]:
        known = ", ".join(Acceptable)
        raise BadInput("accept", f"{unknown[0]!r} is nothing to accept", f"Known are {known}")
    if not 1 <= keep <= KEEP_MAX:
        raise BadInput("keep", f"{keep} backups", f"Give 1 to {KEEP_MAX}")
    if key_file:
        sealed.load_key(Path(key_file))
    return BackupOrder(
        PostgresServer.named(database), folder_named(folder, key_file), keep, tuple(accept)
    )


def drill_order(  # noqa: PLR0913, PLR0917 (the fields of the form)
    folder: str,
    server: str,
    backup: str,
    store: str,
    key_file: str,
    incident_at: datetime | None,
) -> DrillOrder:
    """Read the parameters of a drill.

    Raises:
        BadInput: one is malformed, or the key cannot be read.
        Refused: others may read the key.
    """
    if backup and not OWN_ID.fullmatch(backup):
        remedy = "Give the 12 digits that a dump and its manifest are named by, or leave it out"
        raise BadInput("backup", f"{backup!r} is no id of a backup", remedy)
    if incident_at is not None and incident_at.tzinfo is None:
        remedy = "Write it as 2026-03-01T09:30:00Z"
        raise BadInput("incident_at", f"{incident_at} is in no time zone", remedy)
    if key_file:
        sealed.load_key(Path(key_file))
    return DrillOrder(
        folder_named(folder, key_file),
        PostgresServer.named(server, "server"),
        backup,
        store,
        incident_at,
    )

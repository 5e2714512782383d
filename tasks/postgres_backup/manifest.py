"""What is written down of a backup beside it, and which backups a folder holds."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from pydantic import ValidationError

from recovery.errors import Refused
from recovery.values import from_plain
from tasks.certificates import sealed
from tasks.kept_files import sha256_of
from tasks.postgres_backup.contents import Contents
from tasks.postgres_backup.order import BackupFolder

FORMAT = 1
PIECE_BYTES = 1 << 20
ANOTHER = "Choose another one with backup=ID, and find out what happened to this one"


@dataclass(frozen=True)
class Manifest:
    """One backup.

    Attributes:
        run_id: id of the recovery that took it, by which its files are named.
        store: the database, as it is named everywhere.
        lsn: where the write-ahead log of the server stood.
        contents: what was in the database at that point; the dump is of the very same one.
        sha256: of the file as it lies there.
        key_id: name of the key it is encrypted with; empty: it is not.
        tool: version of pg_dump.
    """

    format: int
    run_id: str
    store: str
    server_version: str
    tool: str
    encoding: str
    collation: str
    started_at: datetime
    ended_at: datetime
    lsn: str
    contents: Contents
    size_bytes: int
    sha256: str
    key_id: str = ""

    def as_text(self) -> str:
        """As it lies beside the dump."""
        return json.dumps(asdict(self), default=_plain, indent=1, ensure_ascii=False)

    @property
    def server_major(self) -> int:
        """Major version of the server that was dumped."""
        return int(self.server_version.partition(".")[0])

    @property
    def tool_major(self) -> int:
        """Major version of the program that dumped it."""
        return int(self.tool.partition(".")[0])


def read_manifest(path: Path) -> Manifest | None:
    """Read one; `None` where it is none of ours, was cut off, or is of a newer release."""
    try:
        manifest: Manifest = from_plain(Manifest, json.loads(path.read_text()))
    except (OSError, ValueError, ValidationError):
        return None
    return manifest if manifest.format <= FORMAT and manifest.run_id == path.stem else None


def manifests(folder: BackupFolder, store: str = "") -> list[Manifest]:
    """The backups that are whole by name and size, newest first; of one store, or of all."""
    found = []
    for path in folder.path.glob("*.json"):
        manifest = read_manifest(path)
        if manifest is None or (store and manifest.store != store):
            continue
        dump = folder.dump_of(manifest.run_id)
        if dump.is_file() and dump.stat().st_size == manifest.size_bytes:
            found.append(manifest)
    return sorted(found, key=lambda manifest: manifest.ended_at, reverse=True)


def refuse_unless_whole(folder: BackupFolder, backup: str) -> Manifest:
    """The manifest of a backup whose file is, bit for bit, what was written.

    Raises:
        Refused: it is gone, was cut off, or has changed.
    """
    manifest = read_manifest(folder.manifest_of(backup))
    path = folder.dump_of(backup)
    if manifest is None or not path.is_file():
        raise Refused(folder.label, f"there is no whole backup {backup}", ANOTHER)
    if (seen := sha256_of(path)) != manifest.sha256:
        reason = f"{path.name} was {manifest.sha256[:12]} and is {seen[:12]} now"
        raise Refused(folder.label, reason, ANOTHER)
    return manifest


def pieces_of(folder: BackupFolder, manifest: Manifest) -> Iterator[bytes]:
    """The dump as pg_dump wrote it, piece by piece.

    Raises:
        BadInput: the key cannot be read.
        Refused: it is encrypted and no key is named, or it cannot be decrypted.
    """
    path = folder.dump_of(manifest.run_id)
    if manifest.key_id:
        if not folder.key_file:
            reason = f"{path.name} is encrypted with key {manifest.key_id}, and none is named"
            raise Refused(folder.label, reason, "Give key_file=PATH, where that key lies")
        yield from sealed.opened(path, sealed.load_key(Path(folder.key_file)))
        return
    with path.open("rb") as file:
        yield from _read(file)


def _read(file: IO[bytes]) -> Iterator[bytes]:
    while piece := file.read(PIECE_BYTES):
        yield piece


def _plain(value: object) -> str:
    return value.astimezone(UTC).isoformat() if isinstance(value, datetime) else str(value)

"""A copy of Grafana's SQLite database, taken without ever opening the original.

Whoever opens a database in WAL mode may put the log into the main file when it closes. The original
is the only way back, so it is only ever read as plain files.
"""

import hashlib
import os
import sqlite3
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from recovery.commands import reading
from recovery.errors import BadInput, Refused
from tasks.grafana.acceptance import Grade, Hazard, refuse_unless_accepted
from tasks.kept_files import open_private, sha256_of

MAGIC = b"SQLite format 3\0"
HEADER_BYTES = 100
WRITE_VERSION_AT, WAL_VERSION = 18, 2
# The -shm is an index of the -wal that SQLite makes anew; a copied one could only be out of date.
COMPANIONS = ("-wal", "-journal")
ROUNDS_MAX = 5
CHUNK_BYTES = 1 << 20
TABLES_OF_GRAFANA = ("migration_log", "user", "org")
STOP_WRITER = "Stop Grafana (scale it to 0), then take the copy again"
ANOTHER_FILE = "Name the grafana.db of the Grafana that is to be moved"


@dataclass(frozen=True)
class SourceCopy:
    """A copy at rest: one file, its log already in it.

    Attributes:
        path: the copy.
        original: where it came from.
        sha256: of the copy as it lies there.
        original_sha256: of the main file it was made from.
        size_bytes: of the copy.
        companions: which of -wal and -journal lay beside the original and came along.
        was_wal: whether the original is in WAL mode.
        users: rows of `user`.
        orgs: rows of `org`.
        note: what a person should know of it; empty for nothing.
    """

    path: Path
    original: Path
    sha256: str
    original_sha256: str
    size_bytes: int
    companions: tuple[str, ...]
    was_wal: bool
    users: int
    orgs: int
    note: str


@dataclass(frozen=True)
class _FileState:
    """What tells one state of a file from another."""

    inode: int
    size: int
    modified_ns: int
    sha256: str


def take_copy(
    original: Path, directory: Path, accepted: Collection[str] = (), *, rounds_max: int = ROUNDS_MAX
) -> SourceCopy:
    """Copy a database, with its -wal or -journal, into a directory, and bring the copy to rest.

    The original is read, never opened by SQLite, and nothing is written beside it. The files are
    copied until they are the same before and after. Done twice, the second copy replaces the first.

    Args:
        original: the main file.
        directory: where the copy goes, under the name of the original; made with mode 0700.
        accepted: names of losses to take, such as `no-users:user`.
        rounds_max: how often a copy is tried while somebody writes.

    Raises:
        BadInput: there is no such file, it cannot be read, or it is no database of Grafana.
        Refused: it kept changing, is damaged, or holds no user.
    """
    if not original.is_file():
        seen = "it is no plain file" if original.exists() else "there is no such file"
        raise BadInput("source", f"{original}: {seen}", ANOTHER_FILE)
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = directory / original.name
    if path.exists() and path.samefile(original):
        raise BadInput(str(directory), "the original lies in it", "Name another directory")
    try:
        with reading(f"copy {original} and its log to {directory}", str(original)) as call:
            states = _copy_until_still(original, path, rounds_max)
            call.answer = f"sha256 {states[''].sha256}"
    except PermissionError as error:
        raise BadInput(
            "source", f"{error.filename or original}: the worker may not read or write it",
            "Give the user of the worker the right to, then resume",
        ) from None  # fmt: skip
    was_wal = refuse_unless_database(path, original)
    _settle(path)
    return inspect_copy(path, original, states, accepted, was_wal=was_wal)


def refuse_unless_database(path: Path, original: Path) -> bool:
    """Refuse what is not an SQLite database by its header; return whether it is in WAL mode.

    Raises:
        BadInput: it is empty, cut off, or something else.
    """
    with path.open("rb") as file:
        header = file.read(HEADER_BYTES)
    if not header:
        raise BadInput("source", f"{original}: the file is empty (0 bytes)", ANOTHER_FILE)
    if not header.startswith(MAGIC) or len(header) < HEADER_BYTES:
        raise BadInput("source", f"{original}: it is no SQLite database", ANOTHER_FILE)
    return header[WRITE_VERSION_AT] == WAL_VERSION


@contextmanager
def open_copy(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a copy for reading only; texts come as the bytes that are stored."""
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
    try:
        connection.text_factory = bytes
        connection.execute("PRAGMA query_only = ON")
        connection.execute("PRAGMA trusted_schema = OFF")
        yield connection
    finally:
        connection.close()


def inspect_copy(
    path: Path,
    original: Path,
    states: dict[str, _FileState],
    accepted: Collection[str],
    *,
    was_wal: bool,
) -> SourceCopy:
    """Look whether a copy at rest is whole, is Grafana's, and holds anything.

    Raises:
        BadInput: a table that every Grafana has is missing.
        Refused: it is damaged, or holds no user.
    """
    users, orgs = _count_people(path)
    companions = tuple(name for name in COMPANIONS if name in states)
    note = ""
    if was_wal and "-wal" not in companions:
        note = (
            "the database is in WAL mode and no -wal lay beside it: either it was closed in order, "
            "or only the main file was brought here. A main file without its -wal passes the "
            "integrity check and can lack the latest rows, up to all users"
        )
    if users == 0:
        hazard = Hazard(
            "no-users", "user", Grade.LOSS, 0, "", "",
            f"the database holds no user ({orgs} organisations)" + (f"; {note}" if note else ""),
            "Bring grafana.db together with grafana.db-wal, from the Grafana that people log in to",
        )  # fmt: skip
        refuse_unless_accepted(str(original), [hazard], accepted)
    return SourceCopy(
        path=path,
        original=original,
        sha256=sha256_of(path),
        original_sha256=states[""].sha256,
        size_bytes=path.stat().st_size,
        companions=companions,
        was_wal=was_wal,
        users=users,
        orgs=orgs,
        note=note,
    )


def refuse_if_copy_changed(copy: SourceCopy) -> None:
    """Go on only with the very copy that was looked at.

    Raises:
        Refused: it is gone or differs.
    """
    seen = sha256_of(copy.path) if copy.path.is_file() else "nothing"
    if seen != copy.sha256:
        raise Refused(
            str(copy.path), f"the copy was {copy.sha256} and is {seen} now",
            "Take the copy again, and look again",
        )  # fmt: skip


def _copy_until_still(original: Path, path: Path, rounds_max: int) -> dict[str, _FileState]:
    for _ in range(rounds_max):
        drafts = {name: Path(f"{path}.partial{name}") for name in ("", *COMPANIONS)}
        before = {name: _copy(original, name, draft) for name, draft in drafts.items()}
        after = {name: _state(original, name) for name in drafts}
        if before == after and before[""] is not None:
            for name in ("-wal", "-shm", "-journal"):  # a log of an older copy must not stay
                Path(f"{path}{name}").unlink(missing_ok=True)
            for name, draft in reversed(drafts.items()):  # the main file last: with it all is there
                if before[name] is not None:
                    draft.replace(f"{path}{name}")
            return {name: state for name, state in before.items() if state is not None}
        for draft in drafts.values():
            draft.unlink(missing_ok=True)
    raise Refused(str(original), f"it changed during each of {rounds_max} copies", STOP_WRITER)


def _copy(original: Path, suffix: str, draft: Path) -> _FileState | None:
    """Copy one file and tell the state that the copy has; `None` where there is none."""
    draft.unlink(missing_ok=True)
    with suppress(FileNotFoundError), Path(f"{original}{suffix}").open("rb") as source:
        about = os.fstat(source.fileno())
        digest = hashlib.sha256()
        with open_private(draft) as target:
            while chunk := source.read(CHUNK_BYTES):
                digest.update(chunk)
                target.write(chunk)
            target.flush()
            os.fsync(target.fileno())
        return _FileState(about.st_ino, about.st_size, about.st_mtime_ns, digest.hexdigest())
    return None


def _state(original: Path, suffix: str) -> _FileState | None:
    with suppress(FileNotFoundError), Path(f"{original}{suffix}").open("rb") as source:
        digest = hashlib.file_digest(source, "sha256").hexdigest()
        about = os.fstat(source.fileno())
        return _FileState(about.st_ino, about.st_size, about.st_mtime_ns, digest)
    return None


def _settle(path: Path) -> None:
    """Put the log of the copy into its main file and verify it, so that one file is everything."""
    try:
        connection = sqlite3.connect(path, isolation_level=None)
        try:
            connection.execute("PRAGMA journal_mode = DELETE").fetchall()
            found = [str(row[0]) for row in connection.execute("PRAGMA integrity_check(5)")]
        finally:
            connection.close()
    except sqlite3.DatabaseError as error:
        raise _damaged(path, str(error)) from None
    if found != ["ok"]:
        raise _damaged(path, "; ".join(found))


def _damaged(path: Path, why: str) -> Refused:
    return Refused(
        str(path), f"the database is damaged: {why}",
        "Copy it again from a stopped Grafana, or repair a copy with `sqlite3 COPY .recover`",
    )  # fmt: skip


def _count_people(path: Path) -> tuple[int, int]:
    with open_copy(path) as connection:
        found = {
            str(name, "utf-8", "replace")
            for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        }
        missing = [name for name in TABLES_OF_GRAFANA if name not in found]
        if missing:
            seen = f"it has no table {', '.join(missing)}, so it is no database of Grafana"
            raise BadInput("source", f"{path}: {seen}", ANOTHER_FILE)
        users = connection.execute('SELECT count(*) FROM "user"').fetchone()[0]
        orgs = connection.execute("SELECT count(*) FROM org").fetchone()[0]
    return int(users), int(orgs)

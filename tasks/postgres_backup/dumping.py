"""Taking the dump: of one point in time, into a file that has its name once it is whole."""

import os
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, cast

from blocks.postgres.programs import newest_program, place_of, run_on_server, shown
from blocks.postgres.session import PostgresSession
from recovery.commands import changing, reading
from recovery.errors import NotVerified, Refused
from recovery.steps import act, undo
from recovery.verdict import Verdict
from recovery.walk import step_logger
from tasks.certificates import sealed
from tasks.kept_files import open_private, sha256_of, write_durably
from tasks.postgres_backup.contents import counted
from tasks.postgres_backup.manifest import FORMAT, Manifest, read_manifest
from tasks.postgres_backup.order import Acceptable, BackupOrder
from tasks.postgres_backup.preflight import refuse_little_disk, usual_size
from tasks.postgres_server.disk import megabytes

WITHIN_SECONDS = 12 * 3600.0
SMALLER_BY = 0.5  # of the median of the earlier ones
SNAPSHOT = "SNAPSHOT"  # in plans; the real one is made when the dump begins
# Without row_security off, a policy would hide rows from the dump and from the counts alike.
ONE_POINT = (
    "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
    "SET LOCAL row_security = off",
    f"SET LOCAL statement_timeout = '{WITHIN_SECONDS:.0f}s'",  # to count takes as long as to dump
)
EXPORTED = "SELECT pg_export_snapshot(), pg_current_wal_lsn()::text"
ABOUT = (
    "SELECT current_setting('server_version'), pg_encoding_to_char(encoding), datcollate "
    "FROM pg_database WHERE datname = current_database()"
)


def dump_arguments(order: BackupOrder, snapshot: str = SNAPSHOT) -> list[str]:
    """The arguments of pg_dump."""
    return [
        *place_of(order.database),
        "--format=custom",
        "--compress=6",
        "--lock-wait-timeout=60s",
        f"--snapshot={snapshot}",
        f"--dbname={order.database.database}",
    ]


def dump_commands(order: BackupOrder) -> Iterable[str]:
    """What is run; the database is only read."""
    encrypted = f"encrypt with {order.folder.key_file} " if order.folder.key_file else ""
    line = shown(newest_program("pg_dump"), dump_arguments(order))
    pipe = f"| {encrypted}" if encrypted else ""
    return [f"{line} {pipe}> {order.folder.dump_of(order.own_id)}"]


def is_dumped(order: BackupOrder) -> Verdict:
    """Whether the manifest of this recovery lies beside a dump with the hash it names."""
    manifest = read_manifest(order.folder.manifest_of(order.own_id))
    path = order.folder.dump_of(order.own_id)
    if manifest is None or not path.is_file():
        return Verdict.NOT_DONE
    return Verdict.of(sha256_of(path) == manifest.sha256)


@undo
def remove_dump(order: BackupOrder) -> None:
    """Remove the files of this recovery's backup."""
    remove_files(order, order.own_id)


def remove_files(order: BackupOrder, backup: str) -> None:
    """Remove what a backup consists of, its manifest first, so that it never counts as whole."""
    dump = order.folder.dump_of(backup)
    for path in (order.folder.manifest_of(backup), dump, partial_of(dump)):
        if path.exists() or path != partial_of(dump):
            with changing(f"rm {path}", order.folder.label) as call:
                call.answer = "removed" if path.exists() else "it was not there"
                path.unlink(missing_ok=True)


def partial_of(path: Path) -> Path:
    """Where a dump is written until it is whole."""
    return path.with_name(f"{path.name}.part")


@act(
    commands=dump_commands,
    done_when=is_dumped,
    refuse_if=(refuse_little_disk,),
    undo=remove_dump,
    redo_stale=False,
)
def dump_database(order: BackupOrder) -> None:
    """Dump the database to the worker, and write down beside it what was in it.

    Dump and counts are of one snapshot, so that they agree while others write. The database is
    only read. Done twice, the second dump replaces the first; a manifest is written last.

    Raises:
        BadInput: pg_dump is not installed, or the password or key cannot be read.
        CommandFailed: pg_dump or the server said no.
        NotVerified: it is much smaller than the earlier ones, and nobody accepted that.
        Refused: this worker has not the space.
        Unreachable: no answer.

    Runbook: docs/runbooks/postgres-backup.md, step 3.
    """
    program, started_at = newest_program("pg_dump"), datetime.now(UTC)
    order.folder.path.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = order.folder.dump_of(order.own_id)
    order.folder.manifest_of(order.own_id).unlink(missing_ok=True)
    with order.database.connect() as session:
        for line in ONE_POINT:
            session.stage(line)
        ((snapshot, lsn),) = session.rows(EXPORTED)
        contents = counted(session)
        ((server_version, encoding, collation),) = session.rows(ABOUT)
        arguments = dump_arguments(order, str(snapshot))
        key_id = _write_dump(
            order,
            partial_of(path),
            f"{shown(program, arguments)} > {path}",
            lambda sink: run_on_server(
                program, arguments, order.database, WITHIN_SECONDS, sink=sink
            ),
        )
        _refuse_if_ended(session)
    _refuse_if_much_smaller(order, partial_of(path))
    partial_of(path).replace(path)
    manifest = Manifest(
        FORMAT,
        order.own_id,
        order.database.label,
        str(server_version).split()[0],
        program.version,
        str(encoding),
        str(collation),
        started_at,
        datetime.now(UTC),
        str(lsn),
        contents,
        path.stat().st_size,
        sha256_of(path),
        key_id,
    )
    write_durably(order.folder.manifest_of(order.own_id), manifest.as_text())
    step_logger().info("%s: %d bytes", path, manifest.size_bytes)


def _write_dump(
    order: BackupOrder,
    partial: Path,
    command: str,
    dump: Callable[[Callable[[bytes], object]], None],
) -> str:
    """Write what `dump` hands out, encrypted where a key is named; return the name of the key."""
    partial.unlink(missing_ok=True)
    try:
        with reading(command, order.database.label) as call, open_private(partial) as file:
            writer, key_id = None, ""
            if order.folder.key_file:
                key = sealed.load_key(Path(order.folder.key_file))
                writer, key_id = (
                    sealed.SealedWriter(cast("BinaryIO", file), key),
                    sealed.key_id(key),
                )
            dump(file.write if writer is None else writer.write)
            if writer is not None:
                writer.finish()
            file.flush()
            os.fsync(file.fileno())
            call.exit_code, call.answer = 0, f"{file.tell()} bytes"
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise Refused(
            order.folder.label,
            f"{partial.name} cannot be written: {error}",
            "Make room, then resume",
        ) from error
    return key_id


def _refuse_if_much_smaller(order: BackupOrder, partial: Path) -> None:
    """Let nothing become a backup that may be empty: it would be the next one's measure."""
    usual, size_bytes = usual_size(order), partial.stat().st_size
    if size_bytes >= usual * SMALLER_BY or Acceptable.MUCH_SMALLER in order.accept:
        return
    partial.unlink()
    raise NotVerified(
        order.folder.label,
        f"a dump of about {megabytes(int(usual))}, as the earlier ones are",
        f"{megabytes(size_bytes)}; it was thrown away",
        f"See whether the account still sees all tables. Where rows were deleted on purpose, begin "
        f"anew with accept=['{Acceptable.MUCH_SMALLER}']",
    )


def _refuse_if_ended(session: PostgresSession) -> None:
    """See that the snapshot was held to the end: a session that was ended says so here."""
    session.value("SELECT pg_current_wal_lsn()::text")

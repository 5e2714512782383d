"""The way back: a dump of the target, proven by loading it, and its restore.

A dump that was never loaded is a hope. So it is loaded into a scratch database on the same server,
and each table there must have the rows and the checksum of the original.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from blocks.mysql.server import MysqlServer
from blocks.mysql.session import MysqlSession, quote_name
from recovery.commands import changing, reading
from recovery.errors import CommandFailed, NotVerified, Refused, UnreadableOutput
from tasks.grafana.client import dump_program, load_program, run
from tasks.kept_files import open_private, sha256_of

COMPLETED = b"-- Dump completed"
TAIL_BYTES = 500
WITHIN_SECONDS = 3600.0
DENIED_CODES = frozenset({1044, 1142, 1227})
TABLES = """
SELECT table_name, table_type FROM information_schema.tables
WHERE table_schema = %s ORDER BY table_name"""


@dataclass(frozen=True)
class TableSum:
    """Rows and checksum of one table, as `CHECKSUM TABLE` gives it."""

    name: str
    rows: int
    checksum: int


@dataclass(frozen=True)
class Dump:
    """A dump on the worker, and what the database held when it was made."""

    path: Path
    sha256: str
    size_bytes: int
    database: str
    tables: tuple[TableSum, ...]


def take_dump(server: MysqlServer, path: Path, *, within_seconds: float = WITHIN_SECONDS) -> Dump:
    """Write a dump of the database into a file of mode 0600; the database is only read.

    The file appears under its name once it is whole. Done twice, the second replaces the first.

    Raises:
        BadInput: no dump program is installed, or the password cannot be read.
        Unreachable: no answer.
        CommandFailed: the program said no.
        UnreadableOutput: it ended well and yet the dump has no end.
        Refused: the database changed meanwhile.
    """
    program = dump_program(server)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    partial = path.with_name(path.name + ".partial")
    with server.connect() as session:
        before = table_sums(session, server.database)
        partial.unlink(missing_ok=True)
        with reading(f"{program.shown} > {path}", server.label) as call:
            with open_private(partial) as file:
                run(program, server, within_seconds=within_seconds, stdout=file)
                file.flush()
                os.fsync(file.fileno())
            refuse_unless_complete(partial, program.shown)
            call.exit_code, call.answer = 0, f"{partial.stat().st_size} bytes"
        if table_sums(session, server.database) != before:
            raise Refused(
                server.label, "the database changed while it was dumped",
                "Stop every Grafana that writes to it, then dump again",
            )  # fmt: skip
    partial.replace(path)
    return Dump(path, sha256_of(path), path.stat().st_size, server.database, before)


def refuse_unless_complete(path: Path, command: str) -> None:
    """Look for the last line of a whole dump: `-- Dump completed on 2026-11-21  2:44:10`.

    Raises:
        UnreadableOutput: it is not there.
    """
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - TAIL_BYTES, 0))
        tail = file.read()
    if not tail.rstrip().rpartition(b"\n")[2].startswith(COMPLETED):
        raise UnreadableOutput(command, tail.decode(errors="replace"))


def proof_commands(server: MysqlServer, scratch: str, dump: Dump) -> tuple[str, ...]:
    """The exact commands of `prove_dump`, in order."""
    name = quote_name(scratch)
    drop = f"DROP DATABASE IF EXISTS {name}"
    return (
        drop,
        f"CREATE DATABASE {name}",
        f"{load_program(server, scratch).shown} < {dump.path}",
        drop,
    )


def prove_dump(
    server: MysqlServer, dump: Dump, scratch: str, *, within_seconds: float = WITHIN_SECONDS
) -> None:
    """Load the dump into a scratch database, compare every table, and drop it again.

    The database itself is not touched. Done twice, or again after a kill, a scratch database left
    over is dropped first.

    Args:
        server: where the dump came from.
        dump: the dump.
        scratch: name of the scratch database; must start with `recover_` to be dropped.
        within_seconds: limit of the load.

    Raises:
        Refused: the dump changed, the name could be somebody's, or the account may not create a
            database.
        CommandFailed: the dump does not load.
        NotVerified: what was loaded differs.
    """
    refuse_if_dump_changed(dump)
    if not scratch.startswith("recover_") or scratch == server.database:
        raise Refused(
            server.label, f"a scratch database called {scratch!r} could be somebody's",
            "Let its name start with recover_",
        )  # fmt: skip
    drop, create, load, _ = proof_commands(server, scratch, dump)
    with server.connect() as session:
        try:
            session.change(drop)
            session.change(create)
        except CommandFailed as error:
            if error.code not in DENIED_CODES:
                raise
            raise Refused(
                server.label,
                f"the account {server.user} may not create a scratch database, so the dump cannot "
                f"be proven ({error.tail})",
                f"Run GRANT ALL ON `{scratch}`.* TO the account for the time of the migration",
            ) from None
        try:
            load_dump(server, dump, scratch, load, within_seconds)
            refuse_unless_same(scratch, dump, table_sums(session, scratch))
        finally:
            session.change(drop)


def restore_commands(server: MysqlServer, session: MysqlSession, dump: Dump) -> tuple[str, ...]:
    """The exact commands that `restore` would send now."""
    load = f"{load_program(server, dump.database).shown} < {dump.path}"
    return (*_drops(session, dump.database), load)


def restore(server: MysqlServer, dump: Dump, *, within_seconds: float = WITHIN_SECONDS) -> None:
    """Put the database back to what the dump holds.

    Whatever is in the database now is dropped, table by table, also tables the dump does not know.
    Done twice, or again after a kill in the middle, it ends in the same state.

    Raises:
        Refused: the dump changed, or is of another database; nothing was touched.
        Unreachable: no answer; do it again.
        CommandFailed: a drop or the load failed; do it again once the cause is mended.
        NotVerified: loaded, but not what it was.

    Runbook: docs/runbooks/grafana-sqlite-to-mysql.md, way back.
    """
    refuse_if_dump_changed(dump)
    if dump.database != server.database:
        raise Refused(
            server.label, f"the dump is of the database {dump.database}",
            "Name the database the dump was taken of",
        )  # fmt: skip
    *drops, load = _restore_steps(server, dump)
    with server.connect() as session:
        for command in drops:
            session.change(command)
        load_dump(server, dump, server.database, load, within_seconds)
        refuse_unless_same(server.label, dump, table_sums(session, server.database))


def _restore_steps(server: MysqlServer, dump: Dump) -> tuple[str, ...]:
    with server.connect() as session:
        return restore_commands(server, session, dump)


def refuse_if_dump_changed(dump: Dump) -> None:
    """Go on only with the very dump that was taken.

    Raises:
        Refused: it is gone or differs.
    """
    seen = sha256_of(dump.path) if dump.path.is_file() else "gone"
    if seen != dump.sha256:
        raise Refused(
            str(dump.path), f"the dump was {dump.sha256} and is {seen} now",
            "Find the dump of this recovery, and do not edit it",
        )  # fmt: skip


def load_dump(
    server: MysqlServer, dump: Dump, database: str, command: str, within_seconds: float
) -> None:
    """Feed a dump to the client program, which stops at the first error.

    Raises:
        Unreachable: no answer.
        CommandFailed: a statement failed.
    """
    with changing(command, server.label) as call, dump.path.open("rb") as file:
        run(load_program(server, database), server, within_seconds=within_seconds, stdin=file)
        call.exit_code = 0


def table_sums(session: MysqlSession, database: str) -> tuple[TableSum, ...]:
    """Rows and checksum of every table of a database, asked in two statements."""
    names = [str(name) for name, kind in session.rows(TABLES, (database,)) if kind == "BASE TABLE"]
    if not names:
        return ()
    full = [f"{quote_name(database)}.{quote_name(name)}" for name in names]
    counts = session.rows(
        " UNION ALL ".join(f"SELECT {n}, COUNT(*) FROM {f}" for n, f in enumerate(full))  # noqa: S608
    )
    rows = {int(n): int(count) for n, count in counts}
    sums = session.rows(f"CHECKSUM TABLE {', '.join(full)}")  # in the order asked
    return tuple(
        TableSum(name, rows[n], int(checksum or 0))
        for n, (name, (_, checksum)) in enumerate(zip(names, sums, strict=True))
    )


def refuse_if_changed_since(session: MysqlSession, dump: Dump, table: str) -> None:
    """Refuse to replace the rows of a table that are not those in the dump.

    Raises:
        Refused: somebody has written to it since; what they wrote is not in the dump.
    """
    known = next((each for each in dump.tables if each.name == table), None)
    full = quote_name(table)
    rows = int(session.rows(f"SELECT COUNT(*) FROM {full}")[0][0])  # noqa: S608
    checksum = int(session.rows(f"CHECKSUM TABLE {full}")[0][1] or 0)
    if known is None or (known.rows, known.checksum) != (rows, checksum):
        raise Refused(
            session.target,
            f"{table} was written to after the dump was taken, and its rows would be lost",
            "Stop what writes to the target (Grafana?), undo this recovery, and start anew",
        )


def refuse_unless_same(target: str, dump: Dump, held: Iterable[TableSum]) -> None:
    """Go on only if what was loaded is what was dumped.

    Raises:
        NotVerified: names the tables that differ.
    """
    wanted, there = {t.name: t for t in dump.tables}, {t.name: t for t in held}
    wrong = [
        name for name in sorted(wanted.keys() | there.keys()) if wanted.get(name) != there.get(name)
    ]
    if wrong:
        raise NotVerified(
            target, f"the {len(wanted)} tables of {dump.path.name}",
            f"other rows in {', '.join(wrong)}",
            "Keep the dump, stop every writer to the database, and do it again",
        )  # fmt: skip


def _drops(session: MysqlSession, database: str) -> Iterable[str]:
    """One statement for each table and view: a list made by the server would be cut in a name."""
    for name, kind in session.rows(TABLES, (database,)):
        what = "VIEW" if kind == "VIEW" else "TABLE"
        yield f"DROP {what} IF EXISTS {quote_name(str(name))}"

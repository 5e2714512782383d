"""One open connection to a MySQL or MariaDB database: reads, changes, streams and bulk inserts.

Every statement passes the gate of `recovery.commands`. A stream and a bulk insert pass it once,
whatever the number of rows, so that the evidence of a large table stays one line.
"""

import socket
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any, Self

import pymysql
from pymysql.constants import ER, SERVER_STATUS
from pymysql.cursors import SSCursor

from recovery.commands import changing, reading
from recovery.errors import BadInput, CommandFailed, RecoveryError, Unreachable, unanswered

RawRow = tuple[bytes | None, ...]

# NO_BACKSLASH_ESCAPES leaves one character to escape, the quote, and it has no other meaning in
# UTF-8. NO_AUTO_VALUE_ON_ZERO keeps an id of 0. There is no NO_ZERO_DATE: Go writes year 1.
SQL_MODE = "STRICT_TRANS_TABLES,NO_AUTO_VALUE_ON_ZERO,NO_ENGINE_SUBSTITUTION,NO_BACKSLASH_ESCAPES"
SESSION = (
    f"SET SESSION sql_mode='{SQL_MODE}', time_zone='+00:00', foreign_key_checks=0, "
    "unique_checks=1, net_read_timeout=600, net_write_timeout=600, "
    # The defaults of a day or a year would let an ALTER or DROP hang behind a forgotten reader.
    "lock_wait_timeout=60, innodb_lock_wait_timeout=30, "
    # Keys are sorted as bytes; beyond this length their order would not be defined.
    "max_sort_length=8192"
)
BATCH_BYTES_MAX = 1 << 20  # measured: larger statements are no faster
BATCH_ROWS_MAX = 1000
STATEMENT_ROOM_BYTES = 4096  # left below max_allowed_packet for the head of the statement
NO_ANSWER_CODES = frozenset(
    {0, 2002, 2003, 2005, 2006, 2013, 2014, 2055, ER.SERVER_SHUTDOWN, ER.CON_COUNT_ERROR, 1927}
)
LOST_REMEDY = "It may have been done or not: look before it is done again"
REMEDIES: dict[int, str] = {
    ER.ACCESS_DENIED_ERROR: "Correct the user or the password the worker holds, then resume",
    1698: "Correct the user or the password the worker holds, then resume",
    ER.DBACCESS_DENIED_ERROR: "Grant the account its rights on this database, then resume",
    ER.TABLEACCESS_DENIED_ERROR: "Grant the account this right on the database, then resume",
    ER.BAD_DB_ERROR: "Create the database, or correct its name",
    ER.LOCK_WAIT_TIMEOUT: "Another session holds the rows: end it (Grafana?), then resume",
    ER.LOCK_DEADLOCK: "Another session writes the same rows: end it, then resume",
    1153: "Raise max_allowed_packet of the server to 64M or more, then resume",
    1114: "Make room on the disk of the server, then resume",
}


def quote_name(name: str) -> str:
    """An identifier in backquotes, so that reserved words and odd names are names."""
    return "`" + name.replace("`", "``") + "`"


def quote_text(text: bytes) -> bytes:
    """A text literal for a session in NO_BACKSLASH_ESCAPES mode."""
    return b"'" + text.replace(b"'", b"''") + b"'"


def batches(rows: Iterable[bytes], bytes_max: int) -> Iterator[list[bytes]]:
    """Rows in batches of bounded size; one that is larger by itself is a batch of its own."""
    batch: list[bytes] = []
    size = 0
    for row in rows:
        if batch and (size + len(row) > bytes_max or len(batch) >= BATCH_ROWS_MAX):
            yield batch
            batch, size = [], 0
        batch.append(row)
        size += len(row) + 1
    if batch:
        yield batch


class MysqlSession:
    """An open session. Times are UTC, nothing is silently cut, zeros stay zeros."""

    def __init__(self, connection: "pymysql.connections.Connection[Any]", target: str) -> None:
        self._connection = connection
        self.target = target
        self.give_back: Callable[[MysqlSession], None] | None = None
        with reading(SESSION, target), self._answering(SESSION):
            connection.query(SESSION)
        escapes = SERVER_STATUS.SERVER_STATUS_NO_BACKSLASH_ESCAPES
        if not connection.server_status & escapes:  # type: ignore[attr-defined]
            raise CommandFailed(
                target, SESSION, 0, "the server did not take NO_BACKSLASH_ESCAPES",
                "Connect to the server itself, not through a proxy that rewrites statements",
            )  # fmt: skip
        found = self.rows("SELECT @@version, @@max_allowed_packet")[0]
        self.version = str(found[0])
        self.packet_max_bytes = int(found[1])

    @property
    def is_mariadb(self) -> bool:
        """Whether the server is a MariaDB rather than a MySQL."""
        return "mariadb" in self.version.lower()

    def __enter__(self) -> Self:
        """The session itself; it ends with the block."""
        return self

    def __exit__(self, error_type: object, *_: object) -> None:
        """Give the session back for the next block, or close it where something went wrong.

        What was not committed is rolled back by the server.
        """
        if error_type is None and self.give_back is not None:
            self.give_back(self)
        else:
            self.close()

    def is_alive(self) -> bool:
        """Whether the server still answers on it."""
        try:
            self._connection.ping(reconnect=False)
        except (pymysql.err.Error, OSError):
            return False
        return True

    def close(self) -> None:
        """Close the connection, also when it is already gone."""
        with suppress(pymysql.err.Error, OSError):
            self._connection.close()

    def rows(self, sql: str, args: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Read rows, all at once.

        Raises:
            Unreachable: no answer; asking again may help.
            CommandFailed: the server said no.
        """
        with reading(sql, self.target) as call, self._answering(sql):
            found = self._fetch(sql, args)
            call.answer = f"{len(found)} rows"
        return found

    def change(self, sql: str, args: Sequence[object] = ()) -> int:
        """Change something and return the number of rows affected.

        `args` are not part of the command that is shown and kept: name in `sql` what matters.

        Raises:
            Unreachable: no answer; it may have been done.
            CommandFailed: the server said no.
        """
        with changing(sql, self.target) as call, self._answering(sql, LOST_REMEDY):
            with self._connection.cursor() as cursor:
                affected = int(cursor.execute(sql, tuple(args) or None))
            call.answer = f"{affected} rows affected"
        return affected

    def stage(self, sql: str, args: Sequence[object] = ()) -> int:
        """Write into a temporary table of this session: nobody else sees it, so it is a read."""
        with reading(sql, self.target) as call, self._answering(sql):
            with self._connection.cursor() as cursor:
                affected = int(cursor.execute(sql, tuple(args) or None))
            call.answer = f"{affected} rows affected"
        return affected

    def stage_rows(self, head: str, rows: Iterable[bytes]) -> int:
        """Insert into a temporary table of this session, in batches; see `stage`."""
        with reading(head, self.target) as call:
            count = self._insert(head, rows)
            call.answer = f"{count} rows"
        return count

    def stream(self, sql: str) -> Generator[RawRow, None, None]:
        """Read rows one by one in bounded memory, each cell as the bytes the server printed.

        Raises:
            Unreachable: no answer, or it broke off.
            CommandFailed: the server said no.
        """
        with reading(sql, self.target) as call, self._answering(sql):
            count = 0
            with self._connection.cursor(SSCursor) as cursor:
                with self._undecoded():
                    cursor.execute(sql)
                for row in cursor.fetchall_unbuffered():
                    count += 1
                    yield row
            call.answer = f"{count} rows"

    def insert_rows(self, command: str, head: str, rows: Iterable[bytes]) -> int:
        """Insert many rows in batches and return how many; memory is bounded by one batch.

        Args:
            command: what is shown and kept as evidence, a template of the statement.
            head: the statement up to and including `VALUES`.
            rows: each row as `(literal,literal,…)`.

        Raises:
            Unreachable: no answer; the transaction may still be open on the server for a moment.
            CommandFailed: the server said no, or took a row with a warning.
        """
        with changing(command, self.target) as call:
            count = self._insert(head, rows, command)
            call.answer = f"{count} rows"
        return count

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit what is changed in the block, all of it or, on any error, nothing."""
        self.change("START TRANSACTION")
        try:
            yield
            self.change("COMMIT")
        except BaseException:
            # A lost connection is rolled back by the server; what went wrong first is what counts.
            with suppress(pymysql.err.Error, OSError):
                self._connection.rollback()
            raise

    def _insert(self, head: str, rows: Iterable[bytes], shown: str = "") -> int:
        """Send batches from a thread, so that the next is made while the server takes the last."""
        prefix = head.encode() + b" "
        bytes_max = max(min(BATCH_BYTES_MAX, self.packet_max_bytes - STATEMENT_ROOM_BYTES), 1)
        count = 0
        with ThreadPoolExecutor(1, "mysql-insert") as sender:
            on_its_way: Future[None] | None = None
            for batch in batches(rows, bytes_max):
                count += len(batch)
                statement = prefix + b",".join(batch)
                if on_its_way is not None:
                    on_its_way.result()
                on_its_way = sender.submit(self._send, statement, shown or head)
            if on_its_way is not None:
                on_its_way.result()
        return count

    def _send(self, statement: bytes, shown: str) -> None:
        with self._answering(shown, LOST_REMEDY), self._connection.cursor() as cursor:
            cursor.execute(statement)
            if not cursor.warning_count:
                return
            cursor.execute("SHOW WARNINGS")
            level, code, message = cursor.fetchone() or ("Warning", 0, "(not shown)")
        raise CommandFailed(
            self.target, shown, int(code), f"{level}: {message}",
            "A value would not be kept as it is; nothing of this table is committed. "
            "Mend the value at the source, then resume",
        )  # fmt: skip

    def _fetch(self, sql: str, args: Sequence[object]) -> list[tuple[Any, ...]]:
        with self._connection.cursor() as cursor:
            cursor.execute(sql, tuple(args) or None)
            return list(cursor.fetchall())

    @contextmanager
    def _undecoded(self) -> Iterator[None]:
        """Let the statement sent in the block describe its columns as plain bytes."""
        connection = self._connection
        before = connection.use_unicode, connection.decoders
        connection.use_unicode, connection.decoders = False, {}
        try:
            yield
        finally:
            connection.use_unicode, connection.decoders = before

    @contextmanager
    def _answering(self, sql: str, lost_remedy: str = "") -> Iterator[None]:
        try:
            yield
        except (pymysql.err.Error, OSError) as error:
            raise translated(error, self.target, sql, lost_remedy) from None


def translated(
    error: pymysql.err.Error | OSError, target: str, asked: str, lost_remedy: str = ""
) -> RecoveryError:
    """Say in our own words what the client library said."""
    if isinstance(error, OSError):
        why = "no answer in time" if isinstance(error, socket.timeout) else str(error)
        return Unreachable(target, asked, why, lost_remedy)
    code = error.args[0] if error.args and isinstance(error.args[0], int) else 0
    text = str(error.args[1]) if len(error.args) > 1 else str(error)
    if code in NO_ANSWER_CODES:
        seen = f"{text or 'the connection is closed'} ({code})"
        return unanswered(target, asked, seen, lost_remedy)
    if code == ER.BAD_DB_ERROR:
        return BadInput("database", f"{text} on {target}", REMEDIES[code])
    return CommandFailed(target, asked, code, text, REMEDIES.get(code, ""))

"""Alerts in the Postgres database that holds the journal, for receivers on several machines.

Writers take turns by an advisory lock, so that what one call does is as whole as in SQLite.
"""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg.rows import DictRow, dict_row

from operate.alerts.tables import TABLES
from recovery.journal.postgres_address import postgres_address
from recovery.journal.store import JournalUnavailable

SERIAL = "bigint generated always as identity primary key"
MADE = re.compile(r"if not exists (\w+)")
NAME = re.compile(r"(?<!:):([a-z_]+)")
ALONE = b"select pg_try_advisory_lock(hashtext('recover_alerts_starts')) as is_ours"
TURN = b"select pg_advisory_xact_lock(hashtext('recover_alerts'))"


class PostgresAlerts:
    """See Database. The tables are made where they are missing."""

    def __init__(self, url: str) -> None:
        address = postgres_address(url, "RECOVER_ALERTS")
        self._address, self.url = address, address.shown
        self._lock = threading.RLock()
        self._connection: psycopg.Connection[DictRow] | None = None
        self._depth = 0
        self._alone_on: psycopg.Connection[DictRow] | None = None
        if not self._are_tables_there():  # else no turn is waited for
            with self.writing():
                for statement in TABLES:
                    self.execute(statement.format(serial=SERIAL))

    def _are_tables_there(self) -> bool:
        names = ", ".join(f"to_regclass('{name}')" for name in MADE.findall(" ".join(TABLES)))
        rows = self.read(f"select num_nulls({names}) as missing")
        return not int(rows[0]["missing"])

    @contextmanager
    def writing(self) -> Iterator[None]:
        """See Database."""
        with self._lock:
            if self._depth:  # inside of another one of this thread
                yield
                return
            self._depth += 1
            try:
                with self._connected() as connection, connection.transaction():
                    connection.execute(TURN)
                    yield
            finally:
                self._depth -= 1

    @contextmanager
    def _connected(self) -> Iterator[psycopg.Connection[DictRow]]:
        try:
            if self._connection is None or self._connection.closed:
                self._connection = self._address.connected(dict_row)
            yield self._connection
        except psycopg.Error as error:
            if self._connection is not None and self._connection.broken:
                self._connection.close()
            raise JournalUnavailable(self.url, str(error)) from error

    def execute(self, sql: str, **values: object) -> int:
        """See Database."""
        with self._lock, self._connected() as connection:
            return connection.execute(_translated(sql), values).rowcount

    def read(self, sql: str, **values: object) -> list[dict[str, Any]]:
        """See Database."""
        with self._lock, self._connected() as connection:
            return connection.execute(_translated(sql), values).fetchall()

    def is_alone(self) -> bool:
        """See Database: a lock of the session, which is free again when the connection ends."""
        with self._lock, self._connected() as connection:
            if self._alone_on is not connection:
                row = connection.execute(ALONE).fetchone()
                self._alone_on = connection if row and row["is_ours"] else None
            return self._alone_on is connection

    def close(self) -> None:
        """See Database."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()


def _translated(sql: str) -> bytes:
    return NAME.sub(r"%(\1)s", sql).encode()

"""Alerts in a SQLite file beside the journal: WAL, synchronous FULL, one writer at a time."""

import fcntl
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from operate.alerts.tables import TABLES
from recovery.errors import BadInput
from recovery.journal.sqlite_file import connect, write_ahead
from recovery.journal.store import JournalUnavailable

SERIAL = "integer primary key autoincrement"


class SqliteAlerts:
    """See Database. The file is made where it is missing (mode 0600)."""

    def __init__(self, path: Path) -> None:
        self.url = str(path)
        self._lock = threading.RLock()
        self._mark = -1
        try:
            self._connection = connect(path)
            self._connection.row_factory = sqlite3.Row
            write_ahead(self._connection)
            self._connection.execute("pragma synchronous = full")
            with self.writing():
                for statement in TABLES:
                    self._connection.execute(statement.format(serial=SERIAL))
        except (OSError, sqlite3.OperationalError) as error:
            raise JournalUnavailable(self.url, str(error)) from error
        except sqlite3.DatabaseError as error:
            raise BadInput(
                "RECOVER_ALERTS", f"{path} is no SQLite file ({error})", "Name another file"
            ) from error

    @contextmanager
    def writing(self) -> Iterator[None]:
        """See Database."""
        with self._lock:
            if self._connection.in_transaction:  # inside of another one of this thread
                yield
                return
            try:
                self._connection.execute("begin immediate")
                try:
                    yield
                    self._connection.execute("commit")
                finally:
                    if self._connection.in_transaction:
                        self._connection.execute("rollback")
            except sqlite3.OperationalError as error:
                raise JournalUnavailable(self.url, str(error)) from error

    def execute(self, sql: str, **values: object) -> int:
        """See Database."""
        with self._lock:
            return self._connection.execute(sql, values).rowcount

    def read(self, sql: str, **values: object) -> list[dict[str, Any]]:
        """See Database."""
        with self._lock:
            try:
                return [dict(row) for row in self._connection.execute(sql, values)]
            except sqlite3.Error as error:
                raise JournalUnavailable(self.url, str(error)) from error

    def is_alone(self) -> bool:
        """See Database: a lock on a file beside it, which is free again when we end, however."""
        with self._lock:
            if self._mark >= 0:
                return True
            try:
                mark = os.open(f"{self.url}.starts", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            except OSError as error:
                raise JournalUnavailable(self.url, str(error)) from error
            try:
                fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(mark)
                return False
            self._mark = mark
            return True

    def close(self) -> None:
        """See Database."""
        with self._lock:
            if self._mark >= 0:
                os.close(self._mark)
                self._mark = -1
            self._connection.close()

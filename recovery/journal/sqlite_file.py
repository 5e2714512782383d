"""Opening a SQLite file that other processes may be opening at the same time."""

import os
import sqlite3
import time
from contextlib import suppress
from pathlib import Path

BUSY_SECONDS = 10.0
ASKED_AGAIN_SECONDS = 0.02


def connect(path: Path) -> sqlite3.Connection:
    """Connect to a file, which is made where it is missing (mode 0600, its folder 0700).

    Raises:
        OSError: it cannot be made.
        sqlite3.Error: it cannot be opened.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    # Only a file that is not there is opened by us: closing any descriptor of a database that this
    # process has open would drop the locks SQLite holds on it.
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    return sqlite3.connect(
        path, isolation_level=None, check_same_thread=False, timeout=BUSY_SECONDS
    )


def write_ahead(connection: sqlite3.Connection) -> None:
    """Have the file written by WAL. The timeout of a connection does not cover this first switch.

    Raises:
        sqlite3.OperationalError: others held the file for BUSY_SECONDS, or it cannot be written.
    """
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("pragma journal_mode = wal")
        except sqlite3.OperationalError as error:
            is_busy = error.sqlite_errorcode & 0xFF in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
            if not is_busy or time.monotonic() > deadline:
                raise
            time.sleep(ASKED_AGAIN_SECONDS)
        else:
            return

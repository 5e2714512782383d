"""The embedded journal: one SQLite file, for the recoveries of one machine.

WAL with synchronous FULL: an event is on disk when `append` returns; a look, with the next event
that is more than a look. Leases run on the clock since boot, and a lease of an earlier boot has run
out: its holder cannot be alive.
"""

import os
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from recovery.errors import BadInput
from recovery.journal.events import FIRST_HASH, FORMAT, Event, Kind, hash_of
from recovery.journal.store import (
    Holder,
    Journal,
    JournalUnavailable,
    Lease,
    LeaseLost,
    boot_clock,
    check_format,
    stored_text,
)

BUSY_SECONDS = 10.0
SCHEMA = """
create table if not exists events (
  recovery_id text not null, seq integer not null, attempt integer not null,
  epoch integer not null, at text not null, kind text not null, step text not null,
  body text not null, previous_hash text not null, hash text not null,
  primary key (recovery_id, seq)) without rowid;
create table if not exists heads (
  recovery_id text primary key, seq integer not null, hash text not null, at text not null);
create table if not exists leases (
  target text primary key, recovery_id text not null, epoch integer not null,
  owner text not null, boot text not null, expires real not null);
"""


def boot_id() -> str:
    """Which boot of the machine this is."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


class SqliteJournal(Journal):
    """Events and leases in a SQLite file, which is made where it is missing (mode 0600)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.url = str(path)
        self._boot = boot_id()
        self._lock = threading.RLock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            # Only a file that is not there is opened by us: closing any descriptor of a database
            # that this process has open would drop the locks SQLite holds on it.
            with suppress(FileExistsError):
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
            self._connection = sqlite3.connect(
                path, isolation_level=None, check_same_thread=False, timeout=BUSY_SECONDS
            )
            found = self._connection.execute("pragma user_version").fetchone()[0]
            check_format(self.url, found)
            if found == 0:
                self._refuse_foreign()
            self._connection.execute("pragma journal_mode = wal")
            if found == 0:
                self._make_tables()
        except (OSError, sqlite3.OperationalError) as error:
            raise JournalUnavailable(self.url, str(error)) from error
        except sqlite3.DatabaseError as error:
            raise BadInput(
                "RECOVER_JOURNAL", f"{path} is no SQLite file ({error})", "Name another file"
            ) from error

    def _refuse_foreign(self) -> None:
        names = {row[0] for row in self._connection.execute("select name from sqlite_master")}
        if names and "heads" not in names:
            raise BadInput(
                "RECOVER_JOURNAL",
                f"{self.path} is a SQLite database of something else",
                "Name another file; it was not touched",
            )

    def _make_tables(self) -> None:
        with self._writing():
            for statement in SCHEMA.split(";"):
                self._connection.execute(statement)
            self._connection.execute(f"pragma user_version = {FORMAT}")

    @contextmanager
    def _writing(self, *, is_synced: bool = True) -> Iterator[None]:
        """One transaction that holds the write lock from its first statement on.

        What is not synced survives the process, and the machine once anything later is synced: so
        are looks written, which are most events and can be taken again.
        """
        with self._lock:
            try:
                self._connection.execute(
                    f"pragma synchronous = {'full' if is_synced else 'normal'}"
                )
                self._connection.execute("begin immediate")
                try:
                    yield
                    self._connection.execute("commit")
                finally:
                    if self._connection.in_transaction:
                        self._connection.execute("rollback")
            except sqlite3.Error as error:
                raise JournalUnavailable(self.url, str(error)) from error

    def _read(self, sql: str, *arguments: object) -> list[tuple[Any, ...]]:
        with self._lock:
            try:
                return self._connection.execute(sql, arguments).fetchall()
            except sqlite3.Error as error:
                raise JournalUnavailable(self.url, str(error)) from error

    def append(  # noqa: PLR0913 (see Journal)
        self,
        recovery_id: str,
        kind: Kind,
        body: Mapping[str, Any],
        *,
        step: str = "",
        attempt: int = 0,
        lease: Lease | None = None,
        needs_live_lease: bool = False,
    ) -> Event:
        """See Journal."""
        body_text = stored_text(body)
        is_look = kind is Kind.SAW or (kind is Kind.COMMAND and not body.get("is_change"))
        with self._writing(is_synced=not is_look):
            epoch = 0
            if lease is not None:
                self._check_lease(lease, must_live=needs_live_lease)
                epoch = lease.epoch
            row = self._connection.execute(
                "select seq, hash from heads where recovery_id = ?", (recovery_id,)
            ).fetchone()
            seq, previous_hash = row or (0, FIRST_HASH)
            at = datetime.now(UTC).isoformat(timespec="microseconds")
            parts = (recovery_id, seq + 1, attempt, epoch, at, str(kind), step, body_text)
            unhashed = Event(*parts, previous_hash, "")
            event = Event(*parts, previous_hash, hash_of(unhashed))
            self._connection.execute(
                "insert into events values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (*parts, previous_hash, event.hash),
            )
            self._connection.execute(
                "insert into heads values (?, ?, ?, ?) on conflict (recovery_id) "
                "do update set seq = excluded.seq, hash = excluded.hash, at = excluded.at",
                (recovery_id, event.seq, event.hash, at),
            )
        return event

    def _check_lease(self, lease: Lease, *, must_live: bool) -> None:
        row = self._connection.execute(
            "select epoch, recovery_id, boot, expires from leases where target = ?", (lease.target,)
        ).fetchone()
        if row is None or row[:2] != (lease.epoch, lease.recovery_id):
            newer = f"epoch {row[0]} of recovery {row[1]} holds it" if row else "it is gone"
            raise LeaseLost(newer)
        if must_live and (row[2] != self._boot or row[3] <= boot_clock()):
            raise LeaseLost("it ran out before it was renewed")

    def events(self, recovery_id: str) -> list[Event]:
        """See Journal."""
        rows = self._read("select * from events where recovery_id = ? order by seq", recovery_id)
        return [Event(*row) for row in rows]

    def head(self, recovery_id: str) -> tuple[int, str]:
        """See Journal."""
        rows = self._read("select seq, hash from heads where recovery_id = ?", recovery_id)
        return (rows[0][0], rows[0][1]) if rows else (0, FIRST_HASH)

    def recovery_ids(self, starting_with: str = "", limit: int = 1000) -> list[str]:
        """See Journal."""
        rows = self._read(
            # Also those whose head is gone: that is a flaw to be found, not a recovery less.
            "select recovery_id, max(at) from (select recovery_id, at from heads union all "
            "select recovery_id, at from events where seq = 1) where substr(recovery_id, 1, ?) = ? "
            "group by recovery_id order by max(at) desc limit ?",
            len(starting_with),
            starting_with,
            limit,
        )
        return [row[0] for row in rows]

    def take_lease(
        self, target: str, recovery_id: str, owner: str, seconds: float, *, by_force: bool = False
    ) -> Lease | Holder:
        """See Journal."""
        with self._writing():
            now = boot_clock()
            row = self._connection.execute(
                "select recovery_id, epoch, owner, boot, expires from leases where target = ?",
                (target,),
            ).fetchone()
            if row is not None and row[3] == self._boot and row[4] > now and not by_force:
                return Holder(target, row[0], row[1], row[2], row[4] - now)
            epoch = (row[1] if row else 0) + 1
            self._connection.execute(
                "insert or replace into leases values (?, ?, ?, ?, ?, ?)",
                (target, recovery_id, epoch, owner, self._boot, now + seconds),
            )
        return Lease(target, recovery_id, epoch, seconds, now + seconds)

    def renew_lease(self, lease: Lease) -> Lease:
        """See Journal."""
        with self._writing():
            self._check_lease(lease, must_live=True)
            deadline = boot_clock() + lease.seconds
            self._connection.execute(
                "update leases set expires = ? where target = ?", (deadline, lease.target)
            )
        return Lease(lease.target, lease.recovery_id, lease.epoch, lease.seconds, deadline)

    def release_lease(self, lease: Lease) -> None:
        """See Journal."""
        with self._writing():
            self._connection.execute(
                "update leases set expires = 0 where target = ? and epoch = ? and recovery_id = ?",
                (lease.target, lease.epoch, lease.recovery_id),
            )

    def holder(self, target: str) -> Holder | None:
        """See Journal."""
        now = boot_clock()
        rows = self._read(
            "select recovery_id, epoch, owner, expires from leases "
            "where target = ? and boot = ? and expires > ?",
            target,
            self._boot,
            now,
        )
        if not rows:
            return None
        recovery_id, epoch, owner, expires = rows[0]
        return Holder(target, recovery_id, epoch, owner, expires - now)

    def close(self) -> None:
        """See Journal."""
        with self._lock:
            self._connection.close()

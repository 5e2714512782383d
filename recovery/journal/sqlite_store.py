"""The embedded journal: one SQLite file, for the recoveries of one machine.

WAL with synchronous FULL: an event is on disk when `append` returns; a look, with the next event
that is more than a look. Leases run on the clock since boot, and a lease of an earlier boot has run
out: its holder cannot be alive.
"""

import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from recovery.errors import BadInput
from recovery.journal.events import FIRST_HASH, FORMAT, Event, Kind, hash_of
from recovery.journal.sqlite_file import connect, write_ahead
from recovery.journal.store import (
    Holder,
    Journal,
    JournalUnavailable,
    Lease,
    LeaseLost,
    boot_clock,
    check_format,
    opened_by,
    opened_on,
    stored_text,
)

TABLES = {"events", "heads", "leases", "head_follows", "identity"}
SCHEMA = (
    """create table if not exists events (
      recovery_id text not null, seq integer not null, attempt integer not null,
      epoch integer not null, at text not null, kind text not null, step text not null,
      body text not null, previous_hash text not null, hash text not null,
      primary key (recovery_id, seq)) without rowid""",
    """create table if not exists heads (
      recovery_id text primary key, seq integer not null, hash text not null, at text not null)""",
    """create table if not exists leases (
      target text primary key, recovery_id text not null, epoch integer not null,
      owner text not null, boot text not null, expires real not null)""",
    """create trigger if not exists head_follows after insert on events begin
      insert into heads values (new.recovery_id, new.seq, new.hash, new.at)
      on conflict (recovery_id)
      do update set seq = excluded.seq, hash = excluded.hash, at = excluded.at; end""",
    "create table if not exists identity (id text not null)",
    """insert into identity select lower(hex(randomblob(6)))
      where not exists (select 1 from identity)""",
)
# From one id to the next by the primary key: a journal has many events for each.
ACTED_SINCE = """
with recursive known(id) as (
  select min(recovery_id) from events union all
  select (select min(recovery_id) from events where recovery_id > known.id)
  from known where known.id is not null)
select known.id from known
  cross join events first on first.recovery_id = known.id and first.seq = 1
  cross join events acted on acted.recovery_id = known.id
where instr(first.body, ?) > 0 and acted.kind in (?, ?) and acted.epoch > ?
group by known.id order by max(acted.epoch) desc
"""
HELD = "select 1 from leases where target = ? and epoch = ? and recovery_id = ?"


def boot_id() -> str:
    """Which boot of the machine this is."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


class SqliteJournal(Journal):
    """Events and leases in a SQLite file, which is made where it is missing (mode 0600)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.url = str(path)
        self._boot = boot_id()
        self._heads: dict[str, tuple[int, str]] = {}
        self._is_synced: bool | None = None
        self._lock = threading.RLock()
        try:
            self._connection = connect(path)
            found = self._connection.execute("pragma user_version").fetchone()[0]
            check_format(self.url, found)
            if found == 0:
                self._refuse_foreign()
            write_ahead(self._connection)
            self._make_tables()
            self.identity = self._connection.execute("select id from identity").fetchone()[0]
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
        made = {row[0] for row in self._connection.execute("select name from sqlite_master")}
        if made >= TABLES:
            return
        with self._writing():
            for statement in SCHEMA:
                self._connection.execute(statement)
            self._connection.execute(f"pragma user_version = {FORMAT}")

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """One transaction that holds the write lock from its first statement on."""
        with self._lock:
            try:
                self._sync(is_needed=True)
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
        epoch = lease.epoch if lease is not None else 0
        with self._lock:
            seq, previous_hash = self._heads.get(recovery_id) or self.head(recovery_id)
            while True:
                at = datetime.now(UTC).isoformat(timespec="microseconds")
                parts = (recovery_id, seq + 1, attempt, epoch, at, str(kind), step, body_text)
                unhashed = Event(*parts, previous_hash, "")
                event = Event(*parts, previous_hash, hash_of(unhashed))
                try:
                    self._sync(is_needed=not is_look)
                    is_written = self._insert(event, lease, must_live=needs_live_lease)
                except sqlite3.IntegrityError:  # another process has written since we last did
                    seq, previous_hash = self.head(recovery_id)
                    continue
                except sqlite3.Error as error:
                    raise JournalUnavailable(self.url, str(error)) from error
                if not is_written and lease is not None:
                    raise self._lease_lost(lease)
                self._heads[recovery_id] = (event.seq, event.hash)
                return event

    def _insert(self, event: Event, lease: Lease | None, *, must_live: bool) -> bool:
        """Write an event and, by the trigger, the head; whether the lease let it.

        One statement, which is a transaction by itself: with threads of Prefect's around, each
        further one waits for the interpreter longer than for the disk.
        """
        held: tuple[object, ...] = ()
        condition = ""
        if lease is not None:
            condition = f" where exists ({HELD})"
            held = (lease.target, lease.epoch, lease.recovery_id)
        if must_live and lease is not None:
            condition = f" where exists ({HELD} and boot = ? and expires > ?)"
            held = (*held, self._boot, boot_clock())
        written = self._connection.execute(
            f"insert into events select ?, ?, ?, ?, ?, ?, ?, ?, ?, ?{condition}",
            (
                event.recovery_id, event.seq, event.attempt, event.epoch, event.at, event.kind,
                event.step, event.body_text, event.previous_hash, event.hash, *held,
            ),
        )  # fmt: skip
        return written.rowcount == 1

    def _sync(self, *, is_needed: bool) -> None:
        """Have what is written next synced to disk, or not.

        What is not synced survives the process, and the machine once anything later is synced: so
        are looks written, which are most events and can be taken again.
        """
        if is_needed is not self._is_synced:
            self._connection.execute(f"pragma synchronous = {'full' if is_needed else 'normal'}")
            self._is_synced = is_needed

    def _lease_lost(self, lease: Lease) -> LeaseLost:
        rows = self._read("select epoch, recovery_id from leases where target = ?", lease.target)
        if rows == [(lease.epoch, lease.recovery_id)]:
            return LeaseLost("it ran out before it was renewed")
        return LeaseLost(
            f"epoch {rows[0][0]} of recovery {rows[0][1]} holds it" if rows else "it is gone"
        )

    def events(self, recovery_id: str) -> list[Event]:
        """See Journal."""
        rows = self._read("select * from events where recovery_id = ? order by seq", recovery_id)
        return [Event(*row) for row in rows]

    def head(self, recovery_id: str) -> tuple[int, str]:
        """See Journal."""
        rows = self._read("select seq, hash from heads where recovery_id = ?", recovery_id)
        return (rows[0][0], rows[0][1]) if rows else (0, FIRST_HASH)

    def recovery_ids(self, starting_with: str = "", limit: int = 1000, flow: str = "") -> list[str]:
        """See Journal."""
        rows = self._read(
            # Also those whose head is gone: that is a flaw to be found, not a recovery less.
            "select recovery_id, max(at) from (select recovery_id, at from heads union all "
            "select recovery_id, at from events where seq = 1) known "
            "where substr(recovery_id, 1, ?) = ? "
            "and (? = '' or exists (select 1 from events first where first.seq = 1 "
            "and first.recovery_id = known.recovery_id and instr(first.body, ?) > 0)) "
            "group by recovery_id order by max(at) desc limit ?",
            len(starting_with),
            starting_with,
            flow,
            opened_by(flow),
            limit,
        )
        return [row[0] for row in rows]

    def acted_since(self, target: str, epoch: int) -> list[str]:
        """See Journal."""
        acts = (str(Kind.INTENDED), str(Kind.UNDO_INTENDED))
        return [row[0] for row in self._read(ACTED_SINCE, opened_on(target), *acts, epoch)]

    def heads(self, limit: int = 1000) -> dict[str, int]:
        """See Journal."""
        sql = "select recovery_id, seq from heads order by at desc limit ?"
        return {row[0]: row[1] for row in self._read(sql, limit)}

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
        now = boot_clock()
        deadline = now + lease.seconds
        with self._writing():
            renewed = self._connection.execute(
                "update leases set expires = ? where target = ? and epoch = ? and recovery_id = ? "
                "and boot = ? and expires > ?",
                (deadline, lease.target, lease.epoch, lease.recovery_id, self._boot, now),
            )
        if renewed.rowcount != 1:
            raise self._lease_lost(lease)
        return Lease(lease.target, lease.recovery_id, lease.epoch, lease.seconds, deadline)

    def release_lease(self, lease: Lease) -> None:
        """See Journal."""
        with self._writing():
            self._connection.execute(
                "update leases set expires = 0 where target = ? and epoch = ? and recovery_id = ?",
                (lease.target, lease.epoch, lease.recovery_id),
            )

    def withdraw(self, target: str, recovery_id: str, epoch: int) -> bool:
        """See Journal."""
        acts = (recovery_id, str(Kind.INTENDED), str(Kind.UNDO_INTENDED))
        with self._writing():
            kept = self._connection.execute(
                "select 1 from events where recovery_id = ? and kind in (?, ?) union all "
                "select 1 from leases where target = ? and recovery_id = ? and epoch > ? "
                "and boot = ? and expires > ? limit 1",
                (*acts, target, recovery_id, epoch, self._boot, boot_clock()),
            ).fetchone()
            if kept is None:
                self._connection.execute(
                    "update leases set epoch = epoch + 1, expires = 0 "
                    "where target = ? and recovery_id = ?",
                    (target, recovery_id),
                )
        return kept is None

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

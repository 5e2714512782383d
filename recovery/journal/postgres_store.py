"""The shared journal: a Postgres database, for many workers.

An event costs one round trip: a single statement checks the lease, moves the head on and inserts,
or does none of it. The head is a compare-and-set, so that two writers cannot fork the chain, and a
write whose answer was lost is found again by its hash. Leases run on the server's clock.
"""

import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, LiteralString, TypeVar

import psycopg
from psycopg.rows import tuple_row

from recovery.journal.events import FIRST_HASH, FORMAT, Event, Kind, hash_of
from recovery.journal.postgres_address import postgres_address
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

ATTEMPTS_TO_APPEND = 50
SCHEMA: LiteralString = """
create table if not exists recover_format (format integer not null);
create table if not exists recover_events (
  recovery_id text not null, seq integer not null, attempt integer not null,
  epoch bigint not null, at text not null, kind text not null, step text not null,
  body text not null, previous_hash text not null, hash text not null,
  primary key (recovery_id, seq));
create table if not exists recover_heads (
  recovery_id text primary key, seq integer not null, hash text not null,
  at timestamptz not null default clock_timestamp());
create table if not exists recover_leases (
  target text primary key, recovery_id text not null, epoch bigint not null,
  owner text not null, expires timestamptz not null);
insert into recover_format select %s where not exists (select 1 from recover_format);
"""
APPEND: LiteralString = """
with lease as (
  select 1 from recover_leases where target = %(target)s and epoch = %(epoch)s
    and recovery_id = %(recovery_id)s
    and (not %(must_live)s or expires > clock_timestamp()) for update),
allowed as (select 1 where not %(has_lease)s or exists (select 1 from lease)),
first as (
  insert into recover_heads (recovery_id, seq, hash)
  select %(recovery_id)s, 1, %(hash)s from allowed where %(seq)s = 1
  on conflict do nothing returning 1),
later as (
  update recover_heads set seq = %(seq)s, hash = %(hash)s, at = clock_timestamp()
  where recovery_id = %(recovery_id)s and seq = %(seq)s - 1 and hash = %(previous_hash)s
    and exists (select 1 from allowed) returning 1)
insert into recover_events
  select %(recovery_id)s, %(seq)s, %(attempt)s, %(epoch)s, %(at)s, %(kind)s, %(step)s, %(body)s,
         %(previous_hash)s, %(hash)s
  where exists (select 1 from first) or exists (select 1 from later)
"""
TAKE: LiteralString = """
insert into recover_leases as held (target, recovery_id, epoch, owner, expires)
values (%(target)s, %(recovery_id)s, 1, %(owner)s,
        clock_timestamp() + make_interval(secs => %(seconds)s))
on conflict (target) do update set recovery_id = excluded.recovery_id, epoch = held.epoch + 1,
  owner = excluded.owner, expires = excluded.expires
  where held.expires <= clock_timestamp() or %(by_force)s
returning epoch
"""
# From one id to the next by the primary key: a journal has many events for each.
ACTED_SINCE: LiteralString = """
with recursive known(id) as (
  select min(recovery_id) from recover_events union all
  select (select min(recovery_id) from recover_events where recovery_id > known.id)
  from known where known.id is not null)
select known.id from known
  join recover_events first on first.recovery_id = known.id and first.seq = 1
  cross join lateral (
    select max(epoch) as epoch from recover_events
    where recovery_id = known.id and kind in (%s, %s)) acted
where strpos(first.body, %s) > 0 and acted.epoch > %s order by acted.epoch desc
"""

IDENTITY: LiteralString = """
create table if not exists recover_identity (id text not null);
insert into recover_identity select substr(md5(random()::text || clock_timestamp()::text), 1, 12)
  where not exists (select 1 from recover_identity);
"""

Answer = TypeVar("Answer")


class PostgresJournal(Journal):
    """Events and leases in the tables `recover_*` of a database, which are made where missing.

    Args:
        url: as libpq takes it; `password_file=PATH` among its options names the password's file.

    Raises:
        BadInput: it cannot be read, or the file cannot.
        JournalUnavailable: the database gives no answer.
    """

    def __init__(self, url: str) -> None:
        address = postgres_address(url, "RECOVER_JOURNAL")
        self._address, self.url = address, address.shown
        self._lock = threading.RLock()
        self._connection: psycopg.Connection[tuple[Any, ...]] | None = None
        self._heads: dict[str, tuple[int, str]] = {}
        self._is_closed = False
        self._ask(self._make_tables)

    def _make_tables(self, connection: psycopg.Connection[tuple[Any, ...]]) -> None:
        if not _are_there(connection):  # else no lock: whoever holds it must not keep us out
            with connection.transaction():
                connection.execute("select pg_advisory_xact_lock(hashtext('recover_format'))")
                known = connection.execute("select to_regclass('recover_format')").fetchone()
                if known is None or known[0] is None:
                    for statement in SCHEMA.split(";"):
                        if statement.strip():
                            values = (FORMAT,) if "%s" in statement else None
                            connection.execute(statement, values)
                named = connection.execute("select to_regclass('recover_identity')").fetchone()
                if named is None or named[0] is None:  # it was made by an earlier release
                    for statement in IDENTITY.split(";"):
                        if statement.strip():
                            connection.execute(statement)
        identity = connection.execute("select id from recover_identity").fetchone()
        self.identity = identity[0] if identity else ""
        row = connection.execute("select format from recover_format").fetchone()
        check_format(self.url, row[0] if row else FORMAT)

    def _ask(self, question: Callable[[psycopg.Connection[tuple[Any, ...]]], Answer]) -> Answer:
        """Ask on the kept connection; once more on a new one where that broke.

        Every question here may be asked twice: appends are found again by their hash, and leases
        are compared by epoch.
        """
        with self._lock:
            for is_last_try in (False, True):
                try:
                    if self._is_closed:
                        raise JournalUnavailable(self.url, "it was closed")
                    if self._connection is None or self._connection.closed:
                        self._connection = self._address.connected(tuple_row)
                    return question(self._connection)
                except psycopg.OperationalError as error:
                    if self._connection is not None:
                        self._connection.close()
                    if is_last_try:
                        raise JournalUnavailable(self.url, str(error)) from error
                except psycopg.Error as error:
                    raise JournalUnavailable(self.url, str(error)) from error
        raise AssertionError  # the second try returned or raised

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
        epoch = lease.epoch if lease else 0
        with self._lock:
            for _ in range(ATTEMPTS_TO_APPEND):
                seq, previous_hash = self._heads.get(recovery_id) or self.head(recovery_id)
                at = datetime.now(UTC).isoformat(timespec="microseconds")
                parts = (recovery_id, seq + 1, attempt, epoch, at, str(kind), step, body_text)
                event = Event(*parts, previous_hash, hash_of(Event(*parts, previous_hash, "")))
                if self._write(event, lease, must_live=needs_live_lease):
                    self._heads[recovery_id] = (event.seq, event.hash)
                    return event
                self._heads.pop(recovery_id, None)
                if lease is not None:
                    self._check_lease(lease, must_live=needs_live_lease)
        raise JournalUnavailable(self.url, f"other writers keep appending to {recovery_id}")

    def _write(self, event: Event, lease: Lease | None, *, must_live: bool) -> bool:
        values = {
            "target": lease.target if lease else "",
            "has_lease": lease is not None,
            "must_live": must_live,
            "recovery_id": event.recovery_id,
            "seq": event.seq,
            "attempt": event.attempt,
            "epoch": event.epoch,
            "at": event.at,
            "kind": event.kind,
            "step": event.step,
            "body": event.body_text,
            "previous_hash": event.previous_hash,
            "hash": event.hash,
        }

        def write(connection: psycopg.Connection[tuple[Any, ...]]) -> bool:
            if connection.execute(APPEND, values).rowcount == 1:
                return True
            found = connection.execute(
                "select 1 from recover_events where recovery_id = %s and seq = %s and hash = %s",
                (event.recovery_id, event.seq, event.hash),
            )
            return found.fetchone() is not None

        return self._ask(write)

    def _check_lease(self, lease: Lease, *, must_live: bool) -> None:
        row = self._ask(
            lambda connection: connection.execute(
                "select epoch, recovery_id, expires > clock_timestamp() from recover_leases "
                "where target = %s",
                (lease.target,),
            ).fetchone()
        )
        if row is None or row[:2] != (lease.epoch, lease.recovery_id):
            newer = f"epoch {row[0]} of recovery {row[1]} holds it" if row else "it is gone"
            raise LeaseLost(newer)
        if must_live and not row[2]:
            raise LeaseLost("it ran out before it was renewed")

    def events(self, recovery_id: str) -> list[Event]:
        """See Journal."""
        rows = self._ask(
            lambda connection: connection.execute(
                "select * from recover_events where recovery_id = %s order by seq", (recovery_id,)
            ).fetchall()
        )
        return [Event(*row) for row in rows]

    def head(self, recovery_id: str) -> tuple[int, str]:
        """See Journal."""
        row = self._ask(
            lambda connection: connection.execute(
                "select seq, hash from recover_heads where recovery_id = %s", (recovery_id,)
            ).fetchone()
        )
        return (row[0], row[1]) if row else (0, FIRST_HASH)

    def recovery_ids(self, starting_with: str = "", limit: int = 1000, flow: str = "") -> list[str]:
        """See Journal."""
        rows = self._ask(
            lambda connection: connection.execute(
                "select recovery_id, max(at) from (select recovery_id, at from recover_heads union "
                "all select recovery_id, at::timestamptz from recover_events where seq = 1) known "
                "where starts_with(recovery_id, %s) and (%s = '' or exists (select 1 from "
                "recover_events first where first.seq = 1 and first.recovery_id = "
                "known.recovery_id and strpos(first.body, %s) > 0)) "
                "group by 1 order by 2 desc limit %s",
                (starting_with, flow, opened_by(flow), limit),
            ).fetchall()
        )
        return [row[0] for row in rows]

    def acted_since(self, target: str, epoch: int) -> list[str]:
        """See Journal."""
        values = (str(Kind.INTENDED), str(Kind.UNDO_INTENDED), opened_on(target), epoch)
        rows = self._ask(lambda connection: connection.execute(ACTED_SINCE, values).fetchall())
        return [row[0] for row in rows]

    def heads(self, limit: int = 1000) -> dict[str, int]:
        """See Journal."""
        rows = self._ask(
            lambda connection: connection.execute(
                "select recovery_id, seq from recover_heads order by at desc limit %s", (limit,)
            ).fetchall()
        )
        return {row[0]: row[1] for row in rows}

    def take_lease(
        self, target: str, recovery_id: str, owner: str, seconds: float, *, by_force: bool = False
    ) -> Lease | Holder:
        """See Journal."""
        deadline = boot_clock() + seconds
        values = {
            "target": target,
            "recovery_id": recovery_id,
            "owner": owner,
            "seconds": seconds,
            "by_force": by_force,
        }
        row = self._ask(lambda connection: connection.execute(TAKE, values).fetchone())
        if row is not None:
            return Lease(target, recovery_id, row[0], seconds, deadline)
        return self.holder(target) or self.take_lease(target, recovery_id, owner, seconds)

    def renew_lease(self, lease: Lease) -> Lease:
        """See Journal."""
        deadline = boot_clock() + lease.seconds
        row = self._ask(
            lambda connection: connection.execute(
                "update recover_leases set "
                "expires = clock_timestamp() + make_interval(secs => %s) where target = %s "
                "and recovery_id = %s and epoch = %s and expires > clock_timestamp() returning 1",
                (lease.seconds, lease.target, lease.recovery_id, lease.epoch),
            ).fetchone()
        )
        if row is None:
            self._check_lease(lease, must_live=True)
            raise LeaseLost("it ran out before it was renewed")
        return Lease(lease.target, lease.recovery_id, lease.epoch, lease.seconds, deadline)

    def release_lease(self, lease: Lease) -> None:
        """See Journal."""
        self._ask(
            lambda connection: connection.execute(
                "update recover_leases set expires = clock_timestamp() "
                "where target = %s and recovery_id = %s and epoch = %s",
                (lease.target, lease.recovery_id, lease.epoch),
            )
        )

    def withdraw(self, target: str, recovery_id: str, epoch: int) -> bool:
        """See Journal."""
        acts = (recovery_id, str(Kind.INTENDED), str(Kind.UNDO_INTENDED))

        def take(connection: psycopg.Connection[tuple[Any, ...]]) -> bool:
            with connection.transaction():
                connection.execute(
                    "select 1 from recover_leases where target = %s for update", (target,)
                )
                kept = connection.execute(
                    "select 1 from recover_events where recovery_id = %s and kind in (%s, %s) "
                    "union all select 1 from recover_leases where target = %s "
                    "and recovery_id = %s and epoch > %s and expires > clock_timestamp() limit 1",
                    (*acts, target, recovery_id, epoch),
                ).fetchone()
                if kept is None:
                    connection.execute(
                        "update recover_leases set epoch = epoch + 1, "
                        "expires = clock_timestamp() where target = %s and recovery_id = %s",
                        (target, recovery_id),
                    )
            return kept is None

        return self._ask(take)

    def holder(self, target: str) -> Holder | None:
        """See Journal."""
        row = self._ask(
            lambda connection: connection.execute(
                "select recovery_id, epoch, owner, "
                "extract(epoch from expires - clock_timestamp())::float8 from recover_leases "
                "where target = %s and expires > clock_timestamp()",
                (target,),
            ).fetchone()
        )
        return Holder(target, *row) if row else None

    def close(self) -> None:
        """See Journal."""
        with self._lock:
            self._is_closed = True
            if self._connection is not None:
                self._connection.close()


def _are_there(connection: psycopg.Connection[tuple[Any, ...]]) -> bool:
    row = connection.execute(
        "select to_regclass('recover_format') is not null "
        "and to_regclass('recover_identity') is not null"
    ).fetchone()
    return bool(row and row[0])

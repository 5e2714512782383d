"""Who works on the table at the server: builds that run, and sessions that are in their way."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from blocks.postgres.session import PostgresSession
from recovery.errors import NeedsPerson, NotVerified
from recovery.walk import step_logger
from tasks.registry_indexes.wanted import IndexRepair, own_name_pattern

WITHIN_HOURS = 24.0
MINUTE_SECONDS = 60.0
PAUSE_SECONDS = 1.0
TOLD_EVERY_SECONDS = 15.0
OLD_MINUTES = 5

# Builds on the table, those that cannot be seen (of other accounts) counted as on it; and our own
# sessions that still wait for the lock of the table, which no progress view shows.
BUILDS = """
SELECT p.pid, coalesce(p.index_relid::bigint, 0), coalesce(p.phase, 'of another account'),
       coalesce(p.blocks_done, 0), coalesce(p.blocks_total, 0),
       coalesce(p.tuples_done, 0), coalesce(p.tuples_total, 0),
       coalesce(a.application_name, '') LIKE %(ours)s
FROM pg_stat_progress_create_index p LEFT JOIN pg_stat_activity a USING (pid)
WHERE p.datname = current_database() AND (p.relid = %(table)s OR p.relid IS NULL)
UNION ALL
SELECT a.pid, 0, 'waiting for the lock of the table', 0, 0, 0, 0, true
FROM pg_stat_activity a
WHERE a.datname = current_database() AND a.pid <> pg_backend_pid() AND a.state = 'active'
  AND a.application_name LIKE %(ours)s AND a.query ~ '^(CREATE (UNIQUE )?|DROP )INDEX'
  AND NOT EXISTS (SELECT 1 FROM pg_stat_progress_create_index p WHERE p.pid = a.pid)
ORDER BY 1
"""
BLOCKERS = """
SELECT b.pid, coalesce(a.usename, x.owner, 'unknown'), coalesce(a.application_name, ''),
       coalesce(a.state, 'prepared transaction'), coalesce(a.xact_start, x.prepared),
       coalesce(left(a.query, 120), x.gid, '')
FROM unnest(pg_blocking_pids(%s)) AS b(pid)
LEFT JOIN pg_stat_activity a ON a.pid = b.pid
LEFT JOIN pg_prepared_xacts x ON b.pid = 0 AND x.database = current_database()
ORDER BY 5 NULLS FIRST
"""
# Those a build waits for: they hold an old snapshot, or have written to the table.
OLD = """
SELECT a.pid, coalesce(a.usename, 'unknown'), coalesce(a.application_name, ''),
       coalesce(a.state, 'unknown'), a.xact_start, coalesce(left(a.query, 120), '')
FROM pg_stat_activity a
WHERE a.datname = current_database() AND a.pid <> pg_backend_pid()
  AND a.backend_type <> 'autovacuum worker'
  AND a.xact_start < clock_timestamp() - make_interval(mins => %(minutes)s)
  AND (a.backend_xmin IS NOT NULL OR EXISTS (
    SELECT 1 FROM pg_locks l WHERE l.pid = a.pid AND l.relation = %(table)s AND l.granted
      AND l.mode NOT IN ('AccessShareLock', 'RowShareLock')))
UNION ALL
SELECT 0, x.owner, '', 'prepared transaction', x.prepared, x.gid
FROM pg_prepared_xacts x
WHERE x.database = current_database()
  AND x.prepared < clock_timestamp() - make_interval(mins => %(minutes)s)
  AND EXISTS (SELECT 1 FROM pg_locks l WHERE l.relation = %(table)s AND l.pid IS NULL
    AND l.virtualtransaction = '-1/' || x.transaction)
ORDER BY 5
"""
UNSEEN = """
SELECT count(*) FROM pg_stat_activity a
WHERE a.datname = current_database() AND a.usename <> current_user AND a.state IS NULL
"""


@dataclass(frozen=True)
class Build:
    """A build as the server sees it. Blocks and tuples are those of the present phase."""

    pid: int
    index_oid: int
    phase: str
    blocks_done: int
    blocks_total: int
    tuples_done: int
    tuples_total: int
    is_ours: bool

    def __str__(self) -> str:
        """How far it is."""
        done, total, what = self.blocks_done, self.blocks_total, "blocks"
        if not total:
            done, total, what = self.tuples_done, self.tuples_total, "rows"
        if not total:
            return self.phase
        return f"{self.phase}: {done} of {total} {what}, {100 * done // total} %"


@dataclass(frozen=True)
class Session:
    """A session, or a prepared transaction (process 0), that others wait for."""

    pid: int
    user: str
    application: str
    state: str
    since: object
    query: str

    def __str__(self) -> str:
        """Who it is, since when, and what it did last."""
        what = f"process {self.pid}" if self.pid else f"prepared transaction {self.query!r}"
        application = f" ({self.application})" if self.application else ""
        since = f"{self.since:%Y-%m-%d %H:%M:%S} UTC" if self.since else "an unknown time"
        query = f", last statement {' '.join(self.query.split())!r}" if self.pid else ""
        return f"{what} of {self.user}{application}, {self.state} since {since}{query}"

    @property
    def remedy(self) -> str:
        """How to end it."""
        if not self.pid:
            return f"COMMIT PREPARED or ROLLBACK PREPARED '{self.query}'"
        return f"SELECT pg_terminate_backend({self.pid})"


def builds_on(session: PostgresSession, table_oid: int) -> list[Build]:
    """The builds that run on the table."""
    args = {"ours": own_name_pattern(), "table": table_oid}
    return [Build(*row) for row in session.rows(BUILDS, args)]


def old_sessions(session: PostgresSession, table_oid: int) -> list[Session]:
    """The transactions a build would wait for that are older than `OLD_MINUTES`."""
    args = {"table": table_oid, "minutes": OLD_MINUTES}
    return [Session(*row) for row in session.rows(OLD, args)]


@dataclass
class Watch:
    """Follows a statement at the server: tells how far it is, and who is in its way.

    Attributes:
        session: another one than the statement's.
        what: what is waited for, for the log and the errors.
        stands_within_seconds: how long it may wait for the same sessions.
    """

    session: PostgresSession
    repair: IndexRepair
    table_oid: int
    what: str
    stands_within_seconds: float = field(init=False)
    _began: float = field(default_factory=time.monotonic)
    _told: str = ""
    _told_at: float = 0.0
    _behind: tuple[int, ...] = ()
    _behind_since: float = 0.0

    def __post_init__(self) -> None:
        """Take the limit from the order."""
        self.stands_within_seconds = self.repair.blocked_within_minutes * MINUTE_SECONDS

    def until(self, is_over: Callable[[float], bool], pids: Callable[[], Sequence[int]]) -> None:
        """Wait until it is over.

        Args:
            is_over: whether it is, waited for that many seconds.
            pids: the processes that are followed.

        Raises:
            NeedsPerson: it stands behind the same sessions for too long. It goes on waiting.
            NotVerified: it is not over within a day.
        """
        args = {"ours": own_name_pattern(), "table": self.table_oid}
        with (
            self.session.repeated(BUILDS) as ask_builds,
            self.session.repeated(BLOCKERS) as ask_blockers,
        ):
            while not is_over(PAUSE_SECONDS):
                builds = [Build(*row) for row in ask_builds(args)]
                blockers = [Session(*row) for pid in pids() for row in ask_blockers([pid])]
                followed = set(pids())
                self._tell([b for b in builds if b.pid in followed], blockers)
                self._refuse_to_stand(blockers)

    def _tell(self, builds: Sequence[Build], blockers: Sequence[Session]) -> None:
        told = "; ".join([*map(str, builds), *(f"it waits for {one}" for one in blockers)])
        now = time.monotonic()
        if told and told != self._told and now - self._told_at >= TOLD_EVERY_SECONDS:
            step_logger().info("%s: %s", self.what, told)
            self._told, self._told_at = told, now

    def _refuse_to_stand(self, blockers: Sequence[Session]) -> None:
        now = time.monotonic()
        behind = tuple(sorted(one.pid for one in blockers))
        if behind != self._behind:
            self._behind, self._behind_since = behind, now
        if behind and now - self._behind_since >= self.stands_within_seconds:
            raise NeedsPerson(
                self.repair.label,
                f"{self.what} has waited {self.repair.blocked_within_minutes} minutes for "
                + "; ".join(map(str, blockers)),
                "Ask its owner, or end it with "
                + "; ".join(f"`{one.remedy}`" for one in blockers)
                + ". It goes on waiting at the server: resume, and it is waited for",
            )
        if now - self._began >= WITHIN_HOURS * 3600:
            raise NotVerified(
                self.repair.label,
                f"{self.what} to end within {WITHIN_HOURS:g} hours",
                self._told or "nothing of it",
                "It goes on at the server: find out what slows it, then resume",
            )


def wait_for_builds(session: PostgresSession, repair: IndexRepair, table_oid: int) -> list[Build]:
    """Wait until no build runs on the table; return those that ran at first.

    Raises:
        NeedsPerson: one stands still behind a session.
        NotVerified: one takes more than a day.
    """
    first = builds_on(session, table_oid)
    if not first:
        return []
    seen = first

    def is_over(within_seconds: float) -> bool:
        nonlocal seen
        time.sleep(within_seconds)
        seen = builds_on(session, table_oid)
        return not seen

    whose = "our own" if all(build.is_ours for build in first) else "another's"
    what = f"{whose} build that was found running on {repair.relation}"
    step_logger().info("%s is waited for: %s", what, "; ".join(map(str, first)))
    Watch(session, repair, table_oid, what).until(is_over, lambda: [build.pid for build in seen])
    return first

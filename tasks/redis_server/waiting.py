"""Waiting until a Redis has loaded, and looking whether it does its work again."""

import time
from dataclasses import dataclass

from blocks.redis_session import RedisSaidNo
from recovery.errors import NotVerified, Unreachable
from recovery.steps import verify
from recovery.walk import step_logger
from tasks.redis_server import logs, orders, units
from tasks.redis_server.contents import (
    NOT_COUNTED,
    SHRUNK_MAX,
    SOME,
    Before,
    refuse_fewer_keys,
)
from tasks.redis_server.settings import settings_of
from tasks.redis_server.status import Info, info_of, parse_info
from tasks.redis_server.target import RedisServer
from tasks.redis_server.triage import Due
from tasks.redis_server.units import Process

PAUSE_SECONDS = 0.1
LOADING_PAUSE_SECONDS = 0.3
TOLD_EVERY_SECONDS = 5.0
STANDSTILL_SECONDS = 120.0  # loading may take hours, as long as it goes on
LOADED_WITHIN_SECONDS = 6 * 3600.0
PROCESSES_MAX = 3  # more of them, one after the other, is a crash loop
FOLLOWS_WITHIN_SECONDS = 300.0  # a full copy of a large master takes its time
REPLICAS_WITHIN_SECONDS = 60.0


@dataclass(frozen=True)
class Serving:
    """What a Redis is that does its work again, and what may bring the next outage."""

    role: str
    keys: int
    run_id: str
    replicas_online: int
    clients: int
    warnings: tuple[str, ...]


@verify
def has_loaded(server: RedisServer, due: Due) -> str:
    """The run id, once it answers and has loaded its data.

    Raises:
        NotVerified: it ended, does not get on with loading, or crashes again and again.
        Unreachable: the host gives no answer.

    Runbook: docs/runbooks/redis.md, step 8.
    """
    watch = _Loading(server, due)
    while True:
        try:
            with server.session() as session, session.repeated("INFO") as ask:
                while (info := watch.noted(parse_info(str(ask())))).is_loading:
                    time.sleep(LOADING_PAUSE_SECONDS)
                return info.run_id
        except Unreachable:
            watch.refuse_unless_up()  # raises, too, where it is the host that is away
            time.sleep(PAUSE_SECONDS)


class _Loading:
    """Looks at how loading goes on, and gives up when it does not."""

    def __init__(self, server: RedisServer, due: Due) -> None:
        self._server, self._due = server, due
        self._ends = time.monotonic() + LOADED_WITHIN_SECONDS
        self._moved_at = self._told_at = time.monotonic()
        self._percent = 0.0
        self._processes: set[Process] = set()

    def noted(self, info: Info) -> Info:
        """The same; raises where it does not get on.

        Raises:
            NotVerified: it does not.
        """
        now = time.monotonic()
        if info.loaded_percent != self._percent:
            self._percent, self._moved_at = info.loaded_percent, now
        if now - self._told_at >= TOLD_EVERY_SECONDS:
            self._told_at = now
            left = info.loading_left_seconds
            step_logger().info("loading: %.0f %%, about %d s left", info.loaded_percent, left)
        self._refuse_standstill(now)
        return info

    def refuse_unless_up(self) -> None:
        """Refuse to wait for what has ended, or crashes again and again.

        Raises:
            NotVerified: it has.
            Unreachable: the host gives no answer.
        """
        unit = units.redis_unit(self._server.host, self._due.unit)
        if unit.process.pid and unit.process not in self._processes:
            self._processes.add(unit.process)
            self._moved_at = time.monotonic()
        if unit.status.is_at_rest or len(self._processes) > PROCESSES_MAX:
            raise NotVerified(
                self._server.label,
                f"{unit.name} to load its data",
                f"{unit.status}, restarted {unit.status.restarts} times. "
                f"{orders.told_by_log(self._server, unit)}",
                "See the table of docs/runbooks/redis.md for this cause; mend it, then resume",
            )
        self._refuse_standstill(time.monotonic())

    def _refuse_standstill(self, now: float) -> None:
        if now - self._moved_at > STANDSTILL_SECONDS or now > self._ends:
            raise NotVerified(
                self._server.label,
                "it to load its data",
                f"no progress for {now - self._moved_at:.0f} s ({self._percent:.0f} % loaded)",
                "See its log and its disk on the host, then resume",
            )


@verify
def serves(server: RedisServer, due: Due, keys_min: int = NOT_COUNTED) -> Serving:
    """What it is now, once it answers, saves, and holds the keys that were counted.

    Args:
        server: the server.
        due: what was found before.
        keys_min: keys that were counted on disk, or what `contents.keys_on_disk` has instead.

    Raises:
        NotVerified: it does not do its work; says what is missing.
        Unreachable: no answer.

    Runbook: docs/runbooks/redis.md, step 9.
    """
    info = _asked(server)
    if keys_min > 0 and info.total_keys < keys_min * (1 - SHRUNK_MAX) and info.is_master:
        raise NotVerified(
            server.label,
            f"the {keys_min} keys that were counted in its snapshot",
            f"{info.total_keys} keys",
            "Look at which files it has loaded before anything is written to it",
        )
    if keys_min == SOME and not info.total_keys:
        _refuse_nothing_loaded(server, due)
    return _serving(server, due, info)


def _refuse_nothing_loaded(server: RedisServer, due: Due) -> None:
    unit = units.redis_unit(server.host, due.unit)
    log = settings_of(server.host, unit.arguments, unit.name).log
    if not logs.has_loaded_files(server, unit, log):
        raise NotVerified(
            server.label,
            "it to have loaded its AOF, which had data",
            "no key, and nothing in its log of a file that it has loaded",
            "Stop it before anything is written to it, and see the copy of its files; `recover "
            "undo` puts that back",
        )


@verify
def serves_as_before(
    server: RedisServer, due: Due, before: Before, *, was_failed_over: bool
) -> Serving:
    """What it is now, once it has its role, its keys, and its replicas or master again.

    Raises:
        NotVerified: it does not do its work as before; says what is missing.
        Unreachable: no answer.

    Runbook: docs/runbooks/redis.md, step 9.
    """
    is_master_due = before.is_master and not was_failed_over
    info = _asked(server)
    # Its host may have booted between the two looks; then what was counted was the new one already.
    is_as_found = units.redis_unit(server.host, due.unit).process == due.process
    if info.run_id == before.run_id and is_as_found:
        raise NotVerified(
            server.label, "another run than the one before", f"run {info.run_id} still", ""
        )
    if info.is_master != is_master_due:
        raise NotVerified(
            server.label,
            f"role {'master' if is_master_due else 'slave'}, as before",
            f"role {info.role} {info.master}",
            "Find out who changed it: Sentinel, `replicaof` in its file, or a person",
        )
    # What a replica holds once it follows is what its master has.
    info = _with_replicas(server, before, info) if is_master_due else _following(server, info)
    refuse_fewer_keys(server, before.keys, info)
    return _serving(server, due, info)


def _asked(server: RedisServer) -> Info:
    with server.session() as session:
        try:
            session.read("PING")
        except RedisSaidNo as no:
            raise NotVerified(
                server.label, "PONG", f"{no.word} {no.tail}", "Start this recovery again: it "
                "looks for the cause anew",
            ) from no  # fmt: skip
        return info_of(session)


def _serving(server: RedisServer, due: Due, info: Info) -> Serving:
    if not (info.last_save_is_ok and info.aof_write_is_ok):
        raise NotVerified(
            server.label,
            "its data to be saved without error",
            f"last save {'ok' if info.last_save_is_ok else 'failed'}, "
            f"AOF {'ok' if info.aof_write_is_ok else 'cannot be written'}",
            "See its log and its disk; then start this recovery again",
        )
    return Serving(
        info.role,
        info.total_keys,
        info.run_id,
        info.replicas_online,
        info.clients,
        logs.warnings(server, units.redis_unit(server.host, due.unit)),
    )


def _with_replicas(server: RedisServer, before: Before, info: Info) -> Info:
    ends = time.monotonic() + REPLICAS_WITHIN_SECONDS
    while info.replicas_online < before.replicas_online:
        if time.monotonic() > ends:
            raise NotVerified(
                server.label,
                f"{before.replicas_online} replicas to be connected again",
                f"{info.replicas_online}",
                "See `INFO replication` at the replicas: their link to the master",
            )
        time.sleep(PAUSE_SECONDS)
        info = _asked(server)
    return info


def _following(server: RedisServer, info: Info) -> Info:
    ends = time.monotonic() + FOLLOWS_WITHIN_SECONDS
    while not info.is_link_up:
        if time.monotonic() > ends:
            raise NotVerified(
                server.label,
                f"its link to the master {info.master} to be up",
                "that it is down",
                "See its log; masterauth and the network between them",
            )
        time.sleep(PAUSE_SECONDS)
        info = _asked(server)
    return info

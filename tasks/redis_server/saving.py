"""Having Redis save its data, and waiting until that has ended well."""

import time

from blocks.redis_session import RedisSession
from recovery.errors import NotVerified, Refused
from recovery.steps import act
from recovery.walk import step_logger
from tasks.redis_server import logs, units
from tasks.redis_server.causes import Cause
from tasks.redis_server.contents import Before
from tasks.redis_server.settings import running_settings
from tasks.redis_server.status import Info, info_of, parse_info
from tasks.redis_server.storage import ROOM_BYTES, storage_of
from tasks.redis_server.target import RedisServer
from tasks.redis_server.triage import Due

PAUSE_SECONDS = 0.05
PAUSE_SECONDS_MAX = 1.0
SAVED_WITHIN_SECONDS = 3 * 3600.0
TOLD_EVERY_SECONDS = 5.0
IDLE_SECONDS = 2.0  # a save that was put off begins within a tenth of that
COMMAND = ("BGSAVE", "SCHEDULE")  # while the AOF is rewritten, it waits for that


def save_commands() -> list[str]:
    """What has it save."""
    return [" ".join(COMMAND)]


def is_saved(server: RedisServer, before: Before) -> bool:
    """Whether a save has ended well since the keys were counted."""
    with server.session() as session:
        return _is_saved(info_of(session), before)


def refuse_unless_save_fits(server: RedisServer, due: Due) -> None:
    """Refuse a save that would fail: with save points, a failed one makes Redis refuse writes.

    Raises:
        Refused: disk, permission or memory would not take it.

    Runbook: docs/runbooks/redis.md, step 5.
    """
    unit = units.redis_unit(server.host, due.unit)
    with server.session() as session:
        info = info_of(session)
        running, _ = running_settings(session)
    storage = storage_of(server.host, running, unit.user)
    if why := storage.why_not_writable(unit.user or "root", info.used_bytes + ROOM_BYTES):
        cause, text, remedy = why
        raise Refused(server.label, f"{cause}: a save would fail: {text}", remedy)
    if not logs.may_fork(server, info.used_bytes):
        raise Refused(
            server.label,
            f"{Cause.NO_FORK}: a save would fail: the kernel would not promise the memory for a "
            "fork",
            "`sysctl vm.overcommit_memory=1` (and in /etc/sysctl.conf), then resume",
        )


@act(
    commands=save_commands,
    done_when=is_saved,
    refuse_if=(refuse_unless_save_fits,),
    lasts_until="restart",
)
def save(server: RedisServer, due: Due, before: Before) -> None:
    """Have Redis save a snapshot in the background and wait until it has. It goes on serving.

    The snapshot that was there is replaced once the new one is whole. Done twice, it saves twice.

    Raises:
        Refused: disk, permission or memory would not take it.
        NotVerified: the save failed, or took too long; carries what the log says.
        RedisSaidNo: this account may not.
        Unreachable: no answer; it goes on saving.

    Runbook: docs/runbooks/redis.md, step 2 and step 5.
    """
    save_now(server, due, before)


def save_now(server: RedisServer, due: Due, before: Before) -> None:
    """Save and wait, within another step; errors are those of `save`."""
    with server.session() as session:
        info = _after_this_second(session, before)
        if not info.is_saving:
            session.change(*COMMAND)
        info = _until_saved(session, before)
    if not _is_saved(info, before):
        unit = units.redis_unit(server.host, due.unit)
        with server.session() as session:
            running, _ = running_settings(session)
        signs = logs.signs(server, unit, running.log)
        raise NotVerified(
            server.label,
            "a save to end well",
            signs[-1].text if signs else "that it failed, and its log does not say why",
            "Mend the cause, then resume: it takes no writes until a save succeeds",
        )


def _after_this_second(session: RedisSession, before: Before) -> Info:
    """Wait until a save can be told from the one before, which is known to the second only."""
    with session.repeated("TIME") as time_now:
        while int(time_now()[0]) <= before.last_save_at:
            time.sleep(PAUSE_SECONDS)
    return info_of(session)


def _until_saved(session: RedisSession, before: Before) -> Info:
    ends = time.monotonic() + SAVED_WITHIN_SECONDS
    pause, told_at = PAUSE_SECONDS, time.monotonic()
    busy_at = time.monotonic()
    with session.repeated("INFO") as ask:
        while True:
            info, now = parse_info(str(ask())), time.monotonic()
            is_busy = info.is_saving or info.is_rewriting
            busy_at = now if is_busy else busy_at
            has_failed = not is_busy and not info.last_save_is_ok
            if _is_saved(info, before) or has_failed or now - busy_at > IDLE_SECONDS or now > ends:
                return info
            if now - told_at > TOLD_EVERY_SECONDS:
                told_at = now
                step_logger().info("saving %d keys", info.total_keys)
            time.sleep(pause)
            pause = min(1.5 * pause, PAUSE_SECONDS_MAX)


def _is_saved(info: Info, before: Before) -> bool:
    is_newer = info.last_save_at > before.last_save_at or info.run_id != before.run_id
    return is_newer and info.last_save_is_ok and not info.is_saving

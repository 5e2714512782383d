"""A Redis that answers nobody: whether it is frozen indeed, and what ending it would lose."""

import time

from recovery.errors import Refused
from recovery.steps import decision
from tasks.redis_server import losses, units
from tasks.redis_server.losses import LAST_SECOND, MEMORY_ONLY, SINCE_LAST_SAVE, Loss
from tasks.redis_server.settings import Settings, settings_of
from tasks.redis_server.storage import Storage, storage_of
from tasks.redis_server.target import RedisServer
from tasks.redis_server.triage import PONG, SILENT, STOPPED, Due, Finding, ask, refuse_held
from tasks.redis_server.units import RedisUnit

LOOK_FOR_COPIES = "A replica or a copy may have it: look there first"


@decision
def frozen_process(server: RedisServer, accept: tuple[str, ...]) -> Due:
    """The process that is to be ended; well where it serves, for nothing is due then.

    What is lost by ending it must have been accepted by name.

    Raises:
        Refused: it answers, or something else helps, or a loss was not accepted.
        Unreachable: the host gives no answer.

    Runbook: docs/runbooks/redis.md, step 13 and step 14.
    """
    unit = units.find_unit(server)
    listeners = server.listeners()
    if not listeners or not unit.process.pid:
        raise Refused(
            server.label,
            f"{unit.status}, and nothing listens on its port: nothing is frozen",
            "Start recover-redis instead",
        )
    spoken = ask(server, listeners[0].address)
    if spoken.word == PONG:
        return Due(Finding.WELL, unit.name, unit.process, "it answers: it is not frozen")
    if spoken.word != SILENT:
        raise Refused(
            server.label,
            f"it answers ({spoken.word} {spoken.text}): it is not frozen",
            "Start recover-redis instead: it names the cause",
        )
    if refuse_held(server, unit) == STOPPED:
        raise Refused(
            server.label,
            f"process {unit.process.pid} is stopped by a signal, and loses nothing by going on",
            "Start recover-redis instead: it lets the process go on",
        )
    settings = settings_of(server.host, unit.arguments, unit.name)
    _refuse_other_folder(server, unit, settings)
    storage = storage_of(server.host, settings, unit.user)
    found = losses_of_frozen(settings, storage, time.time())
    losses.refuse_losses(server.label, found, accept)
    return Due(Finding.FROZEN, unit.name, unit.process, spoken.text)


def losses_of_frozen(settings: Settings, storage: Storage, now: float) -> list[Loss]:
    """What a process that can be asked nothing has in memory and not on disk, at the worst."""
    if settings.is_aof:
        if settings.fsync == "always" and storage.aof_files:
            return []
        what = "what was written in the last second before it froze, if not yet in the AOF"
        return [Loss(LAST_SECOND, what, LOOK_FOR_COPIES)]
    if not settings.is_persistent:
        what = "all keys: neither AOF nor save points are configured"
        return [Loss(MEMORY_ONLY, what, LOOK_FOR_COPIES)]
    if storage.snapshot is None:
        what = f"all keys: there is no {settings.rdb_path} yet"
    else:
        age = max(0.0, now - storage.snapshot.changed_at)
        what = f"what was written after the last save, {age:.0f} s ago"
    return [Loss(SINCE_LAST_SAVE, what, LOOK_FOR_COPIES)]


def _refuse_other_folder(server: RedisServer, unit: RedisUnit, settings: Settings) -> None:
    """Refuse where the process works in another folder than its file says: that one was changed."""
    argv = ["readlink", f"/proc/{unit.process.pid}/cwd"]
    folder = server.host.read(argv, within_seconds=20, as_root=True).whole().strip()
    if folder != settings.folder:
        raise Refused(
            server.label,
            f"it works in {folder}, and would load {settings.folder} after a start (CONFIG SET "
            "dir, or a file that was changed)",
            f"Correct `dir` in {settings.file}, then start again",
        )

"""What is in a Redis before it is touched and after: its keys, its role, and a canary."""

from dataclasses import dataclass

from recovery.errors import NotVerified, Refused
from recovery.steps import act, decision, verify
from recovery.walk import current_fence
from tasks.redis_server.files import snapshot_look
from tasks.redis_server.settings import settings_of
from tasks.redis_server.status import Info, Keys, info_of
from tasks.redis_server.storage import storage_of
from tasks.redis_server.target import RedisServer
from tasks.redis_server.triage import Due
from tasks.redis_server.units import redis_unit

CANARY_SECONDS = 86_400
SHRUNK_MAX = 0.1  # clients delete keys meanwhile; more than that is no coincidence
COUNTED_BYTES_MAX = 2 << 30  # a larger snapshot takes too long to be counted while it is down
NOT_COUNTED = -1
SOME = -2  # not counted, and more than none


@dataclass(frozen=True)
class Before:
    """What a Redis was before it was touched.

    Attributes:
        run_id: of that run; every start makes another.
        is_master: whether it took writes.
        keys: of each database.
        offset: how far it was in the stream of changes.
        replicas_online: how many followed it.
        last_save_at: seconds of the epoch of its last good save.
        save_seconds: how long that took.
    """

    run_id: str
    is_master: bool
    keys: tuple[Keys, ...]
    offset: int
    replicas_online: int
    last_save_at: int
    save_seconds: int

    @property
    def total_keys(self) -> int:
        """Of all databases."""
        return sum(keys.total for keys in self.keys)


@decision
def before_restart(server: RedisServer) -> Before:
    """What the server is and holds now; counted once, before anything is done to it.

    Raises:
        RedisSaidNo: this account may not ask.
        Unreachable: no answer.

    Runbook: docs/runbooks/redis.md, step 5.
    """
    return seen_now(server)


def seen_now(server: RedisServer) -> Before:
    """What the server is and holds; errors are those of `before_restart`."""
    with server.session() as session:
        info = info_of(session)
    return Before(
        info.run_id,
        info.is_master,
        info.keys,
        info.offset,
        info.replicas_online,
        info.last_save_at,
        max(0, info.last_save_seconds),
    )


@decision
def keys_on_disk(server: RedisServer, due: Due) -> int:
    """How many keys a start will load.

    -1 where they are too many to be counted or the AOF is empty, -2 where the AOF has data: how
    much is left of that is known once it is loaded.

    Raises:
        Refused: the snapshot cannot be read to its end.

    Runbook: docs/runbooks/redis.md, step 3.
    """
    unit = redis_unit(server.host, due.unit)
    settings = settings_of(server.host, unit.arguments, unit.name)
    storage = storage_of(server.host, settings, unit.user)
    if settings.is_aof:
        return SOME if storage.has_data_in_aof else NOT_COUNTED
    if storage.snapshot and storage.snapshot.size_bytes > COUNTED_BYTES_MAX:
        return NOT_COUNTED
    if storage.snapshot is None:
        return 0
    look = snapshot_look(server, unit, settings.rdb_path)
    if look.error:
        raise Refused(
            server.label,
            f"{settings.rdb_path} is damaged: {look.error}",
            "Put a backup in its place, or take it from a replica; then resume",
        )
    return look.keys - look.expired


def canary_key() -> str:
    """The key of ours that is written last before a restart."""
    return f"recover:canary:{current_fence().recovery_id}"


def canary_words() -> list[str]:
    """What writes the canary; it runs out by itself after a day."""
    recovery_id = current_fence().recovery_id
    return ["SET", canary_key(), recovery_id, "EX", str(CANARY_SECONDS)]


def canary_commands() -> list[str]:
    """What writes the canary, for the plan."""
    return [" ".join(canary_words())]


def canary_is_there(server: RedisServer) -> bool:
    """Whether the canary can be read, with the value that was written."""
    with server.session() as session:
        return str(session.read("GET", canary_key())) == current_fence().recovery_id


@act(commands=canary_commands, done_when=canary_is_there, lasts_until="restart")
def leave_canary(server: RedisServer) -> None:
    """Write a key of our own, so that its being there tells that what was written last is kept.

    Done twice, it is written anew. `prove_write` takes it away; else it runs out after a day.

    Raises:
        RedisSaidNo: it takes no writes, or this account may not.
        Unreachable: no answer.

    Runbook: docs/runbooks/redis.md, step 6.
    """
    with server.session() as session:
        session.change(*canary_words())


@verify
def canary_was_kept(server: RedisServer) -> str:
    """The canary's key, which was written last before the restart and is there after it.

    Raises:
        NotVerified: it is gone: what was written since the copy was taken is lost.

    Runbook: docs/runbooks/redis.md, step 9.
    """
    if not canary_is_there(server):
        raise NotVerified(
            server.label,
            f"the canary {canary_key()}, written just before the restart",
            "that it is not there: what was written since the last save is lost",
            "Look whether an AOF or a temp-*.rdb holds more than was loaded, before anything is "
            "written; `recover undo` puts back the copy that was taken",
        )
    return canary_key()


def write_commands() -> list[str]:
    """What proves that it takes a write, for the plan."""
    return [" ".join(canary_words()), f"DEL {canary_key()}"]


@act(
    commands=write_commands,
    without_probe="it leaves nothing behind that could tell",
    redo_in_doubt=True,
)
def prove_write(server: RedisServer) -> None:
    """Write a key of our own, read it and delete it; nothing is written to a replica.

    Done twice does no harm; a key that is left behind runs out after a day.

    Raises:
        RedisSaidNo: it takes no writes (MISCONF, OOM), or this account may not.
        NotVerified: what was written cannot be read.
        Unreachable: no answer.

    Runbook: docs/runbooks/redis.md, step 9.
    """
    with server.session() as session:
        if not info_of(session).is_master:
            return
        session.change(*canary_words())
        seen = str(session.read("GET", canary_key()))
        session.change("DEL", canary_key())
    if seen != current_fence().recovery_id:
        raise NotVerified(server.label, "to read back what was written", f"{seen!r}")


def refuse_fewer_keys(server: RedisServer, before: tuple[Keys, ...], info: Info) -> None:
    """Refuse to call it recovered where keys that do not expire are missing.

    Raises:
        NotVerified: a database has fewer than clients can have deleted meanwhile.
    """
    now = {keys.database: keys for keys in info.keys}
    for keys in before:
        left = now.get(keys.database, Keys(keys.database, 0, 0))
        if left.lasting < keys.lasting * (1 - SHRUNK_MAX):
            raise NotVerified(
                server.label,
                f"{keys.lasting} keys that do not expire in database {keys.database}, as before",
                f"{left.lasting}",
                "Find out whether clients deleted them; `recover undo` puts the copy back",
            )

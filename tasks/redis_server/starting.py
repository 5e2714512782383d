"""Whether a Redis may be started: what would keep it from it, and what a start would destroy."""

from collections.abc import Iterable, Sequence

from recovery.errors import UnreadableOutput
from tasks.redis_server import files, logs, losses
from tasks.redis_server.causes import Cause, Sign
from tasks.redis_server.losses import Loss
from tasks.redis_server.settings import Settings, settings_of
from tasks.redis_server.storage import MANIFEST, Storage, storage_of
from tasks.redis_server.target import RedisServer, refusal
from tasks.redis_server.units import RedisUnit

STATE_FIELD = 2
YOUNGER_SECONDS = 2.0  # files written by the same save differ by less
START_ROOM_BYTES = 1 << 20
LOADING_FAILED = {Cause.AOF_CUT, Cause.AOF_DAMAGED}
SNAPSHOT_FAILED = {Cause.RDB_DAMAGED, Cause.NEWER_RDB}
RESTORE = (
    "Do not start it: keep {rdb} elsewhere, set `appendonly no` in {file}, start, compare DBSIZE, "
    "`CONFIG SET appendonly yes`, wait for the rewrite, then correct the file"
)


def refuse_unless_startable(
    server: RedisServer, unit: RedisUnit, accept: Sequence[str] = ()
) -> None:
    """Refuse a start that cannot succeed, or that would load other files than hold the data.

    Args:
        server: the server.
        unit: its unit.
        accept: names of losses that a person accepts.

    Raises:
        Refused: names the cause and the remedy.
    """
    if unit.is_masked:
        raise refusal(server, Cause.MASKED, f"{unit.name} is masked", "Unmask it first")
    settings = settings_of(server.host, unit.arguments, unit.name)
    storage = storage_of(server.host, settings, unit.user)
    if why := storage.why_not_writable(unit.user or "root", START_ROOM_BYTES):
        cause, text, remedy = why
        raise refusal(server, cause, f"it cannot start: {text}", f"{remedy}. Then resume")
    refuse_other_files(server, settings, storage)
    found = [
        *_newer_dump(server, unit, settings, storage),
        *_no_files(server, unit, settings, storage),
    ]
    losses.refuse_losses(server.label, found, accept)
    for sign in logs.signs(server, unit, settings.log):
        _refuse_standing(server, unit, settings, storage, sign)


def refuse_other_files(server: RedisServer, settings: Settings, storage: Storage) -> None:
    """Refuse to load files that are not the ones that hold the data.

    Raises:
        Refused: the dump would be ignored and overwritten, or the newer AOF ignored.
    """
    if settings.is_aof and not storage.aof_files and storage.has_keys_in_snapshot:
        raise refusal(
            server, Cause.DUMP_IGNORED,
            f"{settings.file} says `appendonly yes`, and there is no AOF: Redis would start empty "
            f"and overwrite {settings.rdb_path} at its next save",
            RESTORE.format(rdb=settings.rdb_path, file=settings.file),
        )  # fmt: skip
    if settings.is_aof and storage.is_aof_unlisted:
        raise refusal(
            server, Cause.AOF_MISSING,
            f"{settings.folder}/{settings.aof_folder} has files of an AOF and no "
            f"{settings.aof}{MANIFEST}: Redis would start empty beside them",
            "Put the manifest back from a copy, or write it anew (`file NAME seq NUMBER type b` "
            "for the base, `type i` for each increment, in their order); then resume",
        )  # fmt: skip
    newest, snapshot_at = _changed_at(storage)
    if not settings.is_aof and newest > snapshot_at + YOUNGER_SECONDS:
        raise refusal(
            server, Cause.AOF_IGNORED,
            f"{settings.file} says `appendonly no`, and {storage.aof_path or storage.folder} is "
            "newer than the snapshot: Redis would come back without what was written since",
            f"Set `appendonly yes` in {settings.file}, or move the AOF away if it holds nothing",
        )  # fmt: skip


def _changed_at(storage: Storage) -> tuple[float, float]:
    """When the AOF and the snapshot were changed last; 0 where there is none."""
    newest = max((file.changed_at for file in storage.aof_files), default=0.0)
    return newest, storage.snapshot.changed_at if storage.snapshot else 0.0


def _newer_dump(
    server: RedisServer, unit: RedisUnit, settings: Settings, storage: Storage
) -> Iterable[Loss]:
    """An AOF that may have been left behind, and a newer snapshot that a start would overwrite."""
    newest, snapshot_at = _changed_at(storage)
    is_newer = storage.has_keys_in_snapshot and snapshot_at > newest + YOUNGER_SECONDS
    if not (settings.is_aof and storage.aof_files and is_newer):
        return
    if logs.ended_with_aof(server, unit, settings.log):
        return  # a stop saves, too, where nothing was written for long
    yield Loss(
        losses.NEWER_DUMP,
        f"{Cause.DUMP_IGNORED}: {settings.file} says `appendonly yes`, {settings.rdb_path} is "
        f"{snapshot_at - newest:.0f} s newer than the AOF, and its log does not say that the AOF "
        "was in use until the end: what is only in the snapshot would be overwritten",
        RESTORE.format(rdb=settings.rdb_path, file=settings.file)
        + ". Where nothing was written in that time, the AOF has all",
    )


def _no_files(
    server: RedisServer, unit: RedisUnit, settings: Settings, storage: Storage
) -> Iterable[Loss]:
    """A data folder without the files that were there: it would start empty, and overwrite none."""
    if storage.unmounted:
        yield Loss(
            losses.NO_FILES,
            f"{Cause.NO_FILES}: {storage.unmounted}, on which {settings.folder} lies, is in "
            "/etc/fstab and not mounted: it would start without the files there",
            f"`mount {storage.unmounted}`, then resume",
        )
        return
    is_empty = not (storage.snapshot or storage.aof_files or settings.replica_of)
    if is_empty and (said := logs.had_data(server, unit, settings.log)):
        yield Loss(
            losses.NO_FILES,
            f"{Cause.NO_FILES}: {settings.folder} has neither a snapshot nor an AOF, and its log "
            f"says `{said}`: it would start empty",
            "Find out where the files are: a disk that is not mounted, another `dir`, somebody "
            "who removed them. Put them back, then resume",
        )


def process_state(server: RedisServer, pid: int) -> str:
    """The state of a process as the kernel writes it: R, S, D, T, t, Z; empty where it is gone.

    Raises:
        UnreadableOutput: something else was printed.
    """
    argv = ["cat", f"/proc/{pid}/stat"]
    answer = server.host.read(argv, within_seconds=20, accept=(0, 1), as_root=True)
    if answer.exit_code:
        return ""
    return parse_state(answer.whole())


def parse_state(printed: str) -> str:
    """Read what `/proc/PID/stat` holds; the name may hold blanks and brackets.

        64 (redis-server) S 1 64 64 0 -1 4194560 …

    Raises:
        UnreadableOutput: it is something else.
    """
    words = printed.rpartition(")")[2].split()
    if not words or len(words[0]) != 1:
        raise UnreadableOutput("/proc/PID/stat", printed)
    return words[0]


def _refuse_standing(
    server: RedisServer, unit: RedisUnit, settings: Settings, storage: Storage, sign: Sign
) -> None:
    """Refuse where what was logged at the last start is so still; looked at anew where possible."""
    if sign.cause in LOADING_FAILED and storage.aof_path and settings.is_aof:
        damage = files.aof_damage(server, unit, storage.aof_path)
        is_cut_by_start = sign.cause is Cause.AOF_CUT and settings.loads_truncated
        if damage.lost_bytes and not is_cut_by_start:
            raise refusal(
                server, sign.cause, f"{sign.text}; {damage}",
                "`recover plan repair-redis-aof` with the same host and port shows what would be "
                "cut off; a replica or a backup may have it",
            )  # fmt: skip
    if sign.cause in SNAPSHOT_FAILED and storage.snapshot and not settings.is_aof:
        wrong = files.snapshot_look(server, unit, settings.rdb_path).error
        if wrong:
            remedy = (
                "Install the newer Redis that wrote it"
                if sign.cause is Cause.NEWER_RDB
                else f"Put a backup in its place, or take it from a replica; on a replica, move "
                f"{settings.rdb_path} away: its master has the data"
            )
            raise refusal(server, sign.cause, f"{sign.text}; {wrong}", remedy)
    if sign.cause is Cause.CONFIGURATION and not _is_changed_since(
        server, (settings.file, *unit.files), sign
    ):
        raise refusal(
            server, sign.cause, sign.text,
            f"Correct {settings.file or unit.name}, then resume",
        )  # fmt: skip
    is_short = unit.start_within_seconds < float("inf")
    if sign.cause is Cause.START_TIMEOUT and is_short:
        if _is_changed_since(server, unit.files, sign):
            return
        raise refusal(
            server, sign.cause,
            f"systemd gave it {unit.start_within_seconds:g} s to load its data, which is too short",
            f"`systemctl edit {unit.name}`: [Service] TimeoutStartSec=infinity; then resume",
        )  # fmt: skip


def _is_changed_since(server: RedisServer, files: Sequence[str], sign: Sign) -> bool:
    """Whether one of the files was changed after what was logged: it may be mended."""
    named = [file for file in files if file]
    if not named or not sign.at:
        return False
    argv = ["stat", "-c", "%Y", "--", *named]
    answer = server.host.read(argv, within_seconds=20, accept=(0, 1), as_root=True)
    return any(int(at) >= int(sign.at) for at in answer.stdout.split())

"""Keeping the files of a Redis in another folder of its host, and putting them back.

The copy is made under a unit of its own on the host, so that a lost connection does not end it, and
appears under its name only once it is whole. It is the way back.
"""

from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from blocks.ssh import detached as ssh_detached
from blocks.ssh.detached import DetachedCommand
from recovery.errors import NotVerified, Refused, UnreadableOutput
from recovery.steps import act, undo, verify
from recovery.walk import current_fence, step_logger
from tasks.redis_server import orders, saving, units, waiting
from tasks.redis_server.causes import Cause
from tasks.redis_server.contents import seen_now
from tasks.redis_server.files import aof_damage, snapshot_look
from tasks.redis_server.settings import ON_SIGTERM, Settings, running_settings, settings_of
from tasks.redis_server.status import info_of
from tasks.redis_server.storage import ROOM_BYTES, Storage, storage_of
from tasks.redis_server.target import RedisServer
from tasks.redis_server.triage import Due, Finding

COPY_WITHIN_SECONDS = 6 * 3600.0
STOP_WITHIN_SECONDS = 900.0  # it saves first
SUMS = "SHA256SUMS"
PUT_BACK = ".put-back"
SILENT_FINDINGS = {Finding.NOT_RUNNING, Finding.FROZEN}
# A rewrite of the AOF in the middle would leave half of two generations: then once more.
COPY = """set -eu
umask 077
from=$1 to=$2
shift 2
mkdir -p "$(dirname "$to")"
n=0
while :; do
  rm -rf "$to.partial"
  mkdir "$to.partial"
  before=$(cd "$from" && ls -d -- "$@" 2>/dev/null && cat -- */*.manifest 2>/dev/null || :)
  (cd "$from" && for one in "$@"; do
    [ ! -e "$one" ] || cp -a --reflink=auto -- "$one" "$to.partial/"
  done) && after=$(cd "$from" && ls -d -- "$@" 2>/dev/null && cat -- */*.manifest 2>/dev/null || :)
  [ "$before" != "$after" ] || break
  n=$((n + 1))
  [ "$n" -lt 5 ] || { echo "the files keep changing" >&2; exit 75; }
  sleep 1
done
cd "$to.partial"
find . -type f ! -name SHA256SUMS -exec sha256sum {} + >SHA256SUMS
sync -f .
mv -T "$to.partial" "$to"
cat "$to/SHA256SUMS"
"""
PUT = """set -eu
from=$1 to=$2 aside=$3
shift 3
mkdir -p "$aside"
(cd "$from" && sha256sum --quiet -c SHA256SUMS)
cd "$to"
for one in "$@"; do
  if [ -e "$one" ] && [ ! -e "$aside/$one" ]; then mv -T -- "$one" "$aside/$one"; fi
  rm -rf -- "./$one"
  [ ! -e "$from/$one" ] || cp -a --reflink=auto -- "$from/$one" ./
done
sync -f .
mv -T "$from" "$from.put-back"
"""


@dataclass(frozen=True)
class Kept:
    """Where the files of a Redis are and where their copy is."""

    folder: str
    copy: str
    names: tuple[str, ...]


def copy_folder(server: RedisServer) -> str:
    """Where the copy lies; it has the id of the recovery, so that no other one takes it for its."""
    return f"{server.copies}/redis-{server.port}-{current_fence().recovery_id}"


def kept(server: RedisServer, settings: Settings) -> Kept:
    """Which files are copied where."""
    names = tuple(name for name in (settings.rdb, settings.aof_folder, settings.aof) if name)
    return Kept(settings.folder, copy_folder(server), names)


def settings_now(server: RedisServer, due: Due) -> Settings:
    """What it runs with where it answered, else what its file says."""
    if due.finding not in SILENT_FINDINGS:
        with server.session() as session:
            return running_settings(session)[0]
    unit = units.redis_unit(server.host, due.unit)
    return settings_of(server.host, unit.arguments, unit.name)


def _copying(server: RedisServer, due: Due) -> DetachedCommand:
    found = kept(server, settings_now(server, due))
    argv = ("sh", "-c", COPY, "copy", found.folder, found.copy, *found.names)
    return DetachedCommand(f"copy-redis-{server.port}", argv, COPY_WITHIN_SECONDS)


def copy_commands(server: RedisServer, due: Due) -> list[str]:
    """What copies the files."""
    return ssh_detached.run_lines(server.host, _copying(server, due))


def is_copied(server: RedisServer, due: Due) -> bool:
    """Whether the copy is there and whole; a folder without its hashes is none."""
    del due
    return _is_there(server, f"{copy_folder(server)}/{SUMS}")


def refuse_unless_copy_fits(server: RedisServer, due: Due) -> None:
    """Refuse a copy that the disk would not take.

    Raises:
        Refused: there is no room.

    Runbook: docs/runbooks/redis.md, step 5.
    """
    settings = settings_now(server, due)
    storage = storage_of(server.host, settings, "root")
    free = _free_bytes(server)
    if free < storage.size_bytes + ROOM_BYTES:
        raise Refused(
            server.label,
            f"{Cause.DISK_FULL}: {server.copies} has {free} bytes free, and the copy of its files "
            f"takes {storage.size_bytes}",
            "Make room, or name another folder in copies_in; to go on without a way back, name "
            "no-copy in accept_loss",
        )


@undo
def put_back(server: RedisServer, due: Due) -> None:
    """Save and stop Redis, move its present files aside, put the copied ones in place, start it.

    What was written since the copy is then in the files that were moved aside only; the log says
    where. Begun and cut off, it ends in the same state when done again; where no copy was made, it
    does nothing.

    Raises:
        Refused: it is a replica, and would copy the data of its master over them; or it runs and
            does not answer, so that what it has in memory cannot be saved before.
        CommandFailed: the copy is not what it was, or cannot be put there.
        NotVerified: it cannot save, did not start, or does not load what was put back.
        Unreachable: no answer.

    Runbook: docs/runbooks/redis.md, way back.
    """
    if not is_copied(server, due):
        if _is_there(server, f"{copy_folder(server)}{PUT_BACK}/{SUMS}"):
            orders.begin(server, due)  # an earlier way back came as far as that
            waiting.has_loaded(server, due)
        return
    unit = units.redis_unit(server.host, due.unit)
    found = kept(server, settings_of(server.host, unit.arguments, unit.name))
    if unit.process.pid:
        _keep_newer(server, due, found)
    stop = orders.systemctl("stop", due.unit)
    server.host.change(stop, within_seconds=STOP_WITHIN_SECONDS, as_root=True)
    aside = f"{found.folder}/replaced-{current_fence().recovery_id}"  # the same file system
    argv = ("sh", "-c", PUT, "put", found.copy, found.folder, aside, *found.names)
    command = DetachedCommand(f"put-redis-{server.port}", argv, COPY_WITHIN_SECONDS)
    ssh_detached.run(server.host, command)
    step_logger().info("what was written since the copy is in %s on the host, only there", aside)
    orders.begin(server, due)
    waiting.has_loaded(server, due)


def _keep_newer(server: RedisServer, due: Due, found: Kept) -> None:
    """Have what was written since the copy saved, so that it is among the files moved aside.

    A stop need not save; what comes between the save and the stop is kept by save points. One that
    does not listen, or still loads its files, has taken no writes.

    Raises:
        Refused: it is a replica, or does not answer.
        NotVerified: it cannot save.
    """
    if not server.listeners():
        return
    if not server.answers():
        raise Refused(
            server.label,
            "it runs and does not answer: what was written since the copy may be in its memory "
            "only, and the way back would end it",
            "Have it save, or stop its unit where that is not wanted; then `recover undo` again",
        )
    with server.session() as session:
        info = info_of(session)
        if not info.is_master:
            raise Refused(
                server.label,
                f"it is a replica of {info.master} now, and would copy the data of that over what "
                "is put back",
                f"Put the copy in {copy_folder(server)} in place at the master by hand",
            )
        if info.is_loading:
            return
        running, _ = running_settings(session)
        if running.is_hasty:
            session.change("CONFIG", "SET", ON_SIGTERM, "default")
        if not running.is_persistent:
            session.change("CONFIG", "SET", "save", "3600 1")
    saving.save_now(server, due, seen_now(server))
    if running.rdb_path != f"{found.folder}/{found.names[0]}":
        step_logger().info("what was written since the copy was saved in %s", running.rdb_path)


@act(
    commands=copy_commands,
    done_when=is_copied,
    refuse_if=(refuse_unless_copy_fits,),
    undo=put_back,
)
def copy_aside(server: RedisServer, due: Due) -> None:
    """Copy the snapshot and the AOF to another folder of the host, with their hashes.

    The files themselves are only read. Done twice, the second finds the copy and does nothing.

    Raises:
        Refused: the disk would not take it.
        CommandFailed: the files keep changing, or cannot be read.
        Unreachable: no answer; the host goes on copying.

    Runbook: docs/runbooks/redis.md, step 3 and step 5.
    """
    ssh_detached.run(server.host, _copying(server, due))


@verify
def copy_can_be_loaded(server: RedisServer, due: Due) -> str:
    """Where the copy lies, once Redis's own tools have read it to its end.

    Raises:
        NotVerified: it is damaged, and so are the files it was copied from.

    Runbook: docs/runbooks/redis.md, step 5.
    """
    settings = settings_now(server, due)
    unit = units.redis_unit(server.host, due.unit)
    found = kept(server, settings)
    storage = _storage_at(server, settings, found.copy)
    if storage.snapshot is not None:
        look = snapshot_look(server, unit, f"{found.copy}/{settings.rdb}")
        if look.error:
            raise NotVerified(
                server.label,
                "a copy of the snapshot that can be loaded",
                look.error,
                f"{settings.rdb_path} itself is damaged: do not restart Redis, which still has the "
                "data; see its disk",
            )
    if settings.is_aof and storage.aof_path:
        damage = aof_damage(server, unit, storage.aof_path)
        if damage.good_bytes == 0 and damage.size_bytes:
            raise NotVerified(
                server.label,
                "a copy of the AOF that can be loaded",
                str(damage),
                "Do not restart Redis, which still has the data: `BGREWRITEAOF` writes a new one",
            )
    return found.copy


def _storage_at(server: RedisServer, settings: Settings, folder: str) -> Storage:
    return storage_of(server.host, replace(settings, folder=folder), "root")


def _free_bytes(server: RedisServer) -> int:
    """What the disk takes that the copies lie on; their folder need not exist yet.

    Raises:
        UnreadableOutput: df printed something else.
    """
    place = PurePosixPath(server.copies)
    places = [str(place), *(str(parent) for parent in place.parents)]
    script = 'for at in "$@"; do [ ! -d "$at" ] || break; done; df -P -B1 -- "$at" | tail -n 1'
    answer = server.host.read(["sh", "-c", script, "free", *places], within_seconds=20)
    try:
        return int(answer.whole().split()[3])
    except (IndexError, ValueError) as error:
        raise UnreadableOutput("df -P -B1", answer.stdout) from error


def _is_there(server: RedisServer, path: str) -> bool:
    argv = ["test", "-f", path]
    return server.host.read(argv, within_seconds=20, accept=(0, 1), as_root=True).exit_code == 0

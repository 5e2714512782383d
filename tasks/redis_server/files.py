"""What Redis's own tools say of its files; neither of them writes unless it is told to."""

import re
from dataclasses import dataclass
from pathlib import PurePosixPath

from recovery.errors import UnreadableOutput
from tasks.redis_server.target import RedisServer
from tasks.redis_server.units import RedisUnit

WITHIN_SECONDS = 3600.0  # the tools read the whole file
ANALYZED = re.compile(
    r"AOF analyzed: (?:filename=(?P<name>[^,]+), )?size=(?P<size>\d+), ok_up_to=(?P<good>\d+)"
    r"(?:, ok_up_to_line=\d+)?, diff=(?P<lost>\d+)"
)
KEYS_READ = re.compile(r"\[info\] (\d+) keys read")
EXPIRED = re.compile(r"\[info\] (\d+) already expired")
RDB_ERROR = re.compile(r"--- RDB ERROR DETECTED ---\s+\[offset (\d+)\] (.*)")
ENDED_BADLY = 1


@dataclass(frozen=True)
class AofDamage:
    """How far an AOF can be read. Nothing is lost where `lost_bytes` is 0."""

    name: str
    size_bytes: int
    good_bytes: int
    lost_bytes: int
    said: str

    @property
    def loss(self) -> str:
        """The name by which the loss is accepted."""
        return f"aof-bytes:{self.lost_bytes}"

    def __str__(self) -> str:
        """What an operator has to know."""
        if not self.lost_bytes:
            return "redis-check-aof finds no fault"
        return (
            f"redis-check-aof can read {self.good_bytes} of {self.size_bytes} bytes of {self.name}"
            + (f" ({self.said})" if self.said else "")
        )


@dataclass(frozen=True)
class SnapshotLook:
    """What redis-check-rdb found. `error` is empty where the file is sound."""

    keys: int
    expired: int
    error: str


def tool(unit: RedisUnit, name: str) -> str:
    """The tool that belongs to the server of a unit, which may not be on the PATH."""
    binary = PurePosixPath(unit.arguments.split()[0]) if unit.arguments else PurePosixPath(name)
    is_server = binary.is_absolute() and binary.name.endswith("-server")
    return str(binary.with_name(name)) if is_server else name


def aof_damage(server: RedisServer, unit: RedisUnit, path: str) -> AofDamage:
    """How much of an AOF can be read; `path` is its manifest, or the one file there was before 7.0.

    Raises:
        CommandFailed: the tool is not there, or root may not read the file.
        UnreadableOutput: it printed something else.
    """
    argv = [tool(unit, "redis-check-aof"), path]
    answer = server.host.read(
        argv, within_seconds=WITHIN_SECONDS, accept=(0, ENDED_BADLY), as_root=True
    )
    return parse_aof_check(answer.stdout + answer.stderr, has_failed=bool(answer.exit_code))


def parse_aof_check(printed: str, *, has_failed: bool) -> AofDamage:
    r"""Read what `redis-check-aof` prints (5.0 to 7.2); the last file it looked at counts.

        0x              61: Expected \r\n, got: 4741
        AOF analyzed: filename=appendonly.aof.1.incr.aof, size=355, ok_up_to=89, ok_up_to_line=22,
        diff=266

    Raises:
        UnreadableOutput: there is no such line, or it failed for another reason.
    """
    found = list(ANALYZED.finditer(printed))
    if not found or (has_failed and not int(found[-1]["lost"])):
        raise UnreadableOutput("redis-check-aof", printed)
    last = found[-1]
    before = [line for line in printed[: last.start()].splitlines() if line.startswith("0x")]
    said = " ".join(before[-1].split(":", 1)[1].split()) if before else ""
    name = last["name"] or "the AOF"
    return AofDamage(name, int(last["size"]), int(last["good"]), int(last["lost"]), said)


def snapshot_look(server: RedisServer, unit: RedisUnit, path: str) -> SnapshotLook:
    """What is in an RDB file, and whether it is sound.

    Raises:
        CommandFailed: the tool is not there, or root may not read the file.
        UnreadableOutput: it printed something else.
    """
    argv = [tool(unit, "redis-check-rdb"), path]
    answer = server.host.read(
        argv, within_seconds=WITHIN_SECONDS, accept=(0, ENDED_BADLY), as_root=True
    )
    return parse_rdb_check(answer.stdout + answer.stderr)


def parse_rdb_check(printed: str) -> SnapshotLook:
    """Read what `redis-check-rdb` prints (5.0 to 7.2).

        --- RDB ERROR DETECTED ---
        [offset 20] Unexpected EOF reading RDB file
        [info] 0 keys read
        [info] 0 already expired

    Raises:
        UnreadableOutput: it has no count of keys.
    """
    keys, expired = KEYS_READ.search(printed), EXPIRED.search(printed)
    error = RDB_ERROR.search(printed)
    if error:
        seen = int(keys[1]) if keys else 0
        return SnapshotLook(seen, 0, f"redis-check-rdb, at byte {error[1]}: {error[2]}")
    if not keys:
        raise UnreadableOutput("redis-check-rdb", printed)
    return SnapshotLook(int(keys[1]), int(expired[1]) if expired else 0, "")

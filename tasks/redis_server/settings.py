"""What a Redis is configured for: by its file and start command, and what it runs with now.

The two differ after a `CONFIG SET` or a `REPLICAOF`, and a restart goes by the file. Passwords
stand in the same file, so the host sends only the lines that are asked for.
"""

import posixpath
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from blocks.redis_session import RedisSaidNo, RedisSession
from blocks.ssh.host import SshHost
from recovery.errors import UnreadableOutput

PORT = 6379
SAVE_POINTS = "3600 1 300 100 60 10000"  # where the file has no line about it
NO_CONFIGURATION = ""
DEPTH_MAX = 5
ON_SIGTERM = "shutdown-on-sigterm"  # 7.0 on
HASTY = (
    "nosave",
    "now",
    "force",
)  # what it may say to stop without a save, or despite a failed one
AT_START = "/"  # where systemd starts what names no folder
DEFAULTS = {
    "port": str(PORT),
    "tls-port": "0",
    "dir": AT_START,
    "dbfilename": "dump.rdb",
    "appendonly": "no",
    "appendfilename": "appendonly.aof",
    "appenddirname": "appendonlydir",
    "appendfsync": "everysec",
    "aof-load-truncated": "yes",
    "save": SAVE_POINTS,
    "replicaof": "",
    "logfile": "",
    "cluster-enabled": "no",
    ON_SIGTERM: "default",
}
OTHER_NAMES = {"slaveof": "replicaof"}  # up to Redis 4 in files, and in CONFIG GET to this day
ASKED_WHEN_RUNNING = (
    *DEFAULTS, "stop-writes-on-bgsave-error", "maxmemory-policy", "min-replicas-to-write",
    "min-slaves-to-write",
)  # fmt: skip
PATTERN = rf"^[[:space:]]*({'|'.join([*DEFAULTS, *OTHER_NAMES, 'include'])})([[:space:]]|$)"
# Of the script that Redis's own installer writes (unit redis_6379): where its configuration is.
INIT_PATTERN = r"^(REDISPORT|CONF)="


@dataclass(frozen=True)
class Settings:
    """The settings that decide what survives a restart.

    `file` is empty where there is none, `folder` where it was deleted while the server runs.
    """

    file: str
    port: int
    folder: str
    rdb: str
    is_aof: bool
    aof: str
    aof_folder: str
    fsync: str
    loads_truncated: bool
    save_points: str  # empty: none
    replica_of: str  # empty: a master
    log: str  # empty: standard output
    is_cluster: bool
    on_sigterm: str  # what a stop does: default, or words as nosave, now, force

    @property
    def is_persistent(self) -> bool:
        """Whether anything is written to disk without being asked."""
        return self.is_aof or bool(self.save_points)

    @property
    def is_hasty(self) -> bool:
        """Whether a stop need not save all of it."""
        return bool({*self.on_sigterm.split()} & {*HASTY})

    @property
    def rdb_path(self) -> str:
        """Where the snapshot lies."""
        return f"{self.folder}/{self.rdb}"

    @property
    def aof_paths(self) -> tuple[str, str]:
        """Where the AOF lies: the folder of Redis 7, the file before."""
        return f"{self.folder}/{self.aof_folder}", f"{self.folder}/{self.aof}"


def settings_of(host: SshHost, arguments: str, unit: str = "") -> Settings:
    """What a unit's start command and the file it names say.

    Raises:
        CommandFailed: the file cannot be read.
        UnreadableOutput: a value is none.
    """
    words = arguments.split()
    if words[1:2] == ["start"] and "/init.d/" in words[0]:
        words = [words[0], _configuration_of_script(host, words[0])]
    file, options = split_arguments(words[1:])
    pairs = list(_lines_of(host, file, 0)) if file else []
    settings = read_settings(file, [*pairs, *options])
    digits = unit.removesuffix(".service").rpartition("_")[2].rpartition("@")[2]
    is_named = not any(name == "port" for name, _ in [*pairs, *options]) and digits.isdigit()
    return replace(settings, port=int(digits)) if is_named else settings


def running_settings(session: RedisSession) -> tuple[Settings, dict[str, str]]:
    """What the server runs with now, and the further settings asked for by name.

    Raises:
        RedisSaidNo: this account may not ask.
    """
    said: dict[str, str] = {}
    names = (*ASKED_WHEN_RUNNING, *OTHER_NAMES)
    try:
        reply = session.read("CONFIG", "GET", *names)
    except RedisSaidNo as no:
        if no.word != "ERR":
            raise
        reply = [part for name in names for part in session.read("CONFIG", "GET", name)]  # up to 6
    said.update(zip(reply[::2], reply[1::2], strict=True))
    pairs = [(name, value) for name, value in said.items() if name in {*DEFAULTS, *OTHER_NAMES}]
    return read_settings(NO_CONFIGURATION, pairs), said


def read_settings(file: str, pairs: Iterable[tuple[str, str]]) -> Settings:
    """Settle directives in the order Redis reads them: the last one counts, save points add up.

    Raises:
        UnreadableOutput: the port is no number.
    """
    said = dict(DEFAULTS)
    points: list[str] | None = None
    for given, value in pairs:
        name = OTHER_NAMES.get(given, given)
        if name == "save":
            points = [] if not value.strip('"') else [*(points or []), value]
        elif not (name == "replicaof" and given == "slaveof" and not value):
            said[name] = value
    if points is not None:
        said["save"] = " ".join(points)
    return _settings(file, said)


def _settings(file: str, said: Mapping[str, str]) -> Settings:
    try:
        port = int(said["port"]) or int(said["tls-port"])
    except ValueError as error:
        raise UnreadableOutput(f"port in {file}", said["port"]) from error
    replica_of = " ".join(said["replicaof"].split()).lower()
    return Settings(
        file=file,
        port=port,
        folder=posixpath.normpath(posixpath.join(AT_START, said["dir"])) if said["dir"] else "",
        rdb=said["dbfilename"],
        is_aof=said["appendonly"] == "yes",
        aof=said["appendfilename"],
        aof_folder=said["appenddirname"],
        fsync=said["appendfsync"],
        loads_truncated=said["aof-load-truncated"] == "yes",
        save_points=said["save"].strip(),
        replica_of="" if replica_of == "no one" else replica_of,
        log=said["logfile"],
        is_cluster=said["cluster-enabled"] == "yes",
        on_sigterm=said[ON_SIGTERM].lower(),
    )


def split_arguments(words: Iterable[str]) -> tuple[str, list[tuple[str, str]]]:
    """The configuration file among the arguments of redis-server, and the options after it.

    systemd shows arguments without quotes, so an empty one is none: `--save --port 1`.
    """
    file, options = "", []
    name, values = "", []  # type: ignore[var-annotated]
    for word in [*words, "--"]:
        if word.startswith("--"):
            if name:
                options.append((name, " ".join(values)))
            name, values = word[2:], []
        elif name:
            values.append(word.strip("\"'"))
        elif not word.startswith("-"):
            file = file or word
    return file, options


def parse_lines(printed: str) -> list[tuple[str, str]]:
    """Directives and their values, as they stand in redis.conf, quotes taken off."""
    found = []
    for line in printed.splitlines():
        name, _, rest = line.strip().partition(" ")
        name, _, tabbed = name.partition("\t")
        try:
            words = shlex.split(f"{tabbed} {rest}")
        except ValueError:  # quotes that do not end: Redis will refuse to start, and say so
            words = [f"{tabbed} {rest}".strip()]
        found.append((name.lower(), " ".join(words)))
    return found


def _lines_of(host: SshHost, file: str, depth: int) -> Iterable[tuple[str, str]]:
    argv = ["grep", "-ihE", "--", PATTERN, file]
    printed = host.read(argv, within_seconds=20, accept=(0, 1), as_root=True).whole()
    for name, value in parse_lines(printed):
        if name == "include" and depth < DEPTH_MAX:
            yield from _lines_of(host, value, depth + 1)
        elif name != "include":
            yield name, value


def _configuration_of_script(host: SshHost, script: str) -> str:
    argv = ["grep", "-hE", "--", INIT_PATTERN, script]
    printed = host.read(argv, within_seconds=20, accept=(0, 1), as_root=True).whole()
    said = dict(line.split("=", 1) for line in printed.splitlines())
    port = said.get("REDISPORT", "").strip("\"'")
    path = said.get("CONF", "").strip("\"'")
    return path.replace("${REDISPORT}", port).replace("$REDISPORT", port)

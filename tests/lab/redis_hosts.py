"""Lab hosts with Redis: filled, broken on purpose, and counted without any code of the recovery.

What is counted here is counted by `redis-cli` inside the host.
"""

import contextlib
import hashlib
import os
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import flows.redis_server  # noqa: F401 (what is run)
from recovery.declare import OPTION_NAMES, RECOVERIES
from recovery.journal.events import Event
from recovery.journal.sqlite_store import SqliteJournal
from recovery.launch import launch
from recovery.run import Ended, Options
from recovery.stage import PlainStage
from tests.lab.hosts import Lab, LabHost
from tests.lab.processes import LabError, wait_until

PORT = 6379
UNIT = "redis-server"
CONFIGURATION = "/etc/redis/redis.conf"
LOG = "/var/log/redis/redis-server.log"
DATA = "/var/lib/redis"
OURS = "recover:"  # keys that the recovery writes for itself

# A unit as an installer of its own makes it (DIVOC): forking, with a pid file, at another place.
BY_HAND = """[Unit]
Description=Redis on port {port}
[Service]
Type=forking
ExecStart=/usr/bin/redis-server /etc/redis/{port}.conf
PIDFile=/run/redis_{port}.pid
User=root
Restart=on-failure
[Install]
WantedBy=multi-user.target
"""


@dataclass(frozen=True)
class LabRedis:
    """One Redis on a lab host."""

    host: LabHost
    port: int = PORT
    unit: str = UNIT
    folder: str = DATA
    log: str = LOG
    file: str = CONFIGURATION
    password: str = ""

    def cli(self, *words: str, within_seconds: float = 20) -> str:
        """What redis-cli prints, run inside the host."""
        environment = f"REDISCLI_AUTH={shlex.quote(self.password)} " if self.password else ""
        return self.host.run(
            f"{environment}timeout {within_seconds} redis-cli -p {self.port} {shlex.join(words)}",
            within_seconds + 10,
        ).strip()

    def fill(self, count: int, prefix: str = "key", size: int = 10) -> None:
        """Write that many keys."""
        script = (
            "local v = string.rep('x', tonumber(ARGV[3])) "
            "for i = 1, tonumber(ARGV[1]) do redis.call('SET', ARGV[2] .. ':' .. i, i .. v) end"
        )
        self.cli("EVAL", script, "0", str(count), prefix, str(size), within_seconds=120)

    def contents(self) -> tuple[int, str]:
        """How many keys there are and a digest of all names and values, ours left out."""
        script = (
            "local names = redis.call('KEYS', '*') table.sort(names) local n, sums = 0, {} "
            "for _, name in ipairs(names) do if string.sub(name, 1, 8) ~= 'recover:' then "
            "n = n + 1 sums[#sums + 1] = name .. '=' .. redis.sha1hex(redis.call('GET', name)) "
            "end end return n .. ' ' .. redis.sha1hex(table.concat(sums, ' '))"
        )
        count, _, digest = self.cli("EVAL", script, "0", within_seconds=60).partition(" ")
        return int(count), digest

    def ours(self) -> list[str]:
        """Keys that the recovery has left."""
        return [name for name in self.cli("KEYS", f"{OURS}*").splitlines() if name]

    def info(self, name: str) -> str:
        """One line of INFO."""
        for line in self.cli("INFO", "everything").splitlines():
            if line.startswith(f"{name}:"):
                return line.partition(":")[2].strip()
        raise LabError(f"INFO has no {name}")

    @property
    def pid(self) -> int:
        """The process, as systemd knows it."""
        return int(self.host.run(f"systemctl show -p MainPID --value {self.unit}"))

    def starts(self) -> int:
        """How often it has started, by its own log, which outlives a power cut."""
        log = self.host.read_file(self.log).decode(errors="replace")
        return len(re.findall(r"Redis is starting", log))

    def state(self) -> str:
        """What systemd says of the unit."""
        return self.host.run(f"systemctl show -p ActiveState --value {self.unit}").strip()

    def start(self) -> None:
        """Start the unit and wait until it answers."""
        self.host.run(f"systemctl start {self.unit}")
        self.wait_until_answering()

    def wait_until_answering(self) -> None:
        """Wait for PONG."""
        wait_until(lambda: self.cli("PING") == "PONG", "PONG", within_seconds=30)

    def stop(self) -> None:
        """Stop the unit."""
        self.host.run(f"systemctl stop {self.unit}")

    def configure(self, *lines: str) -> None:
        """Add lines to its configuration file; the last one of a kind counts."""
        for line in lines:
            self.host.run(f"printf '%s\\n' {shlex.quote(line)} >> {self.file}")

    def files(self) -> str:
        """A digest of its data files."""
        listed = self.host.run(
            f"cd {self.folder} && find . -type f ! -name 'temp-*' -exec sha256sum {{}} + | sort"
        )
        return hashlib.sha256(listed.encode()).hexdigest()

    def on_small_disk(self, size: str) -> None:
        """Put a disk of that size in the place of its data folder; it must not run."""
        self.host.run(
            f"mount -t tmpfs -o size={size},mode=750 tmpfs {self.folder} && "
            f"chown redis:redis {self.folder}"
        )

    def drop_in(self, *lines: str) -> None:
        """Add lines to the service of its unit."""
        # The unit of the package lets nothing but redis-server be executed.
        text = "\n".join(["[Service]", "NoExecPaths=", *lines, ""])
        self.host.write(f"etc/systemd/system/{self.unit}.service.d/more.conf", text)
        self.host.run("systemctl daemon-reload")

    def parameters(self, login: str = "root", **more: object) -> dict[str, object]:
        """What a recovery of it is given; `login` is the account on the host."""
        return {"host": url_of(self.host, login), "port": self.port, **more}


def url_of(host: LabHost, user: str = "root") -> str:
    """The address by which a recovery is told of a host."""
    keys = host.keys
    return f"ssh://{user}@{host.address}?key_file={keys.client_key}&known_hosts={keys.known_hosts}"


def debian_redis(host: LabHost, *lines: str, password: str = "") -> LabRedis:
    """The Redis of the package, started with these lines in its configuration."""
    redis = LabRedis(host, password=password)
    if password:
        quoted = password.replace("\\", "\\\\").replace('"', '\\"')
        redis.configure(f'requirepass "{quoted}"')
    redis.configure("save 3600 1", *lines)
    redis.start()
    return redis


def second_redis(host: LabHost, port: int, unit: str = "") -> LabRedis:
    """One more Redis on the host, installed by hand as unit `redis_PORT`, and started."""
    name, folder = unit or f"redis_{port}", f"{DATA}/{port}"
    host.write(f"etc/systemd/system/{name}.service", BY_HAND.format(port=port))
    host.write(
        f"etc/redis/{port}.conf",
        f"port {port}\ndaemonize yes\npidfile /run/redis_{port}.pid\ndir {folder}\n"
        f"logfile /var/log/redis_{port}.log\nsave 3600 1\n",
    )
    host.run(f"mkdir -p {folder} && systemctl daemon-reload")
    redis = LabRedis(
        host, port, name, folder, f"/var/log/redis_{port}.log", f"/etc/redis/{port}.conf"
    )
    redis.start()
    return redis


@dataclass(frozen=True)
class SentinelTrio:
    """A master, two replicas, and a sentinel beside each."""

    lab: Lab
    redis: tuple[LabRedis, ...]

    def master(self) -> str:
        """The address of the master, as the first sentinel that answers says."""
        for redis in self.redis:
            with contextlib.suppress(LabError):
                said = redis.host.run(
                    "timeout 5 redis-cli -p 26379 SENTINEL GET-MASTER-ADDR-BY-NAME divoc"
                )
                return said.split()[0]
        raise LabError("no sentinel answers")

    def roles(self) -> list[str]:
        """The role of each server."""
        return [redis.info("role") for redis in self.redis]


def sentinel_trio(lab: Lab) -> SentinelTrio:
    """Make three hosts a master, two replicas and three sentinels, and wait until all see all.

    The replicas must be online before the sentinels start, or these know none for a while.
    """
    first = lab.hosts[0]
    redis = []
    for host in lab.hosts:
        lines = [
            f"bind {host.address} 127.0.0.1",
            "protected-mode no",
            "repl-diskless-sync-delay 0",
        ]
        if host is not first:
            lines.append(f"replicaof {first.address} {PORT}")
        redis.append(debian_redis(host, *lines))
    wait_until(
        lambda: redis[0].cli("INFO", "replication").count("state=online") == len(redis) - 1,
        "replicas to be online",
        within_seconds=30,
    )
    for host in lab.hosts:
        host.write(
            "etc/redis/sentinel.conf",
            "port 26379\nprotected-mode no\ndir /var/lib/redis\ndaemonize yes\n"
            "pidfile /run/sentinel/redis-sentinel.pid\nlogfile /var/log/redis/redis-sentinel.log\n"
            f"bind {host.address} 127.0.0.1\n"
            f"sentinel monitor divoc {first.address} {PORT} 2\n"
            "sentinel down-after-milliseconds divoc 5000\n",
        )
        host.run("chown redis:redis /etc/redis/sentinel.conf && systemctl start redis-sentinel")
    ask = "redis-cli -p 26379 SENTINEL CKQUORUM divoc"
    for host in lab.hosts:
        wait_until(lambda at=host: at.run(ask).startswith("OK 3"), "quorum", within_seconds=60)
    return SentinelTrio(lab, tuple(redis))


@contextlib.contextmanager
def writer(redis: LabRedis, folder: str = "/root") -> Iterator[Path]:
    """Let a client inside the host write key after key, and note each that was confirmed."""
    script = (
        "i=0; while :; do i=$((i+1)); "
        f'[ "$(redis-cli -p {redis.port} SET written:$i $i 2>/dev/null)" = OK ] && '
        f"echo written:$i >> {folder}/confirmed; done"
    )
    redis.host.run(f"systemd-run --quiet --unit=writer sh -c {shlex.quote(script)}")
    try:
        yield Path(folder) / "confirmed"
    finally:
        redis.host.run("systemctl stop writer")


@dataclass
class Recoveries:
    """Runs recoveries with a journal of their own, in this process, asking again at once."""

    folder: Path

    def run(self, flow: str, parameters: dict[str, object], **options: object) -> Ended:
        """Run a recovery and return how it ended."""
        declared = RECOVERIES[flow]
        given = {name: default for name, (_, default) in declared.parameters.items()} | parameters
        os.environ["RECOVER_JOURNAL"] = str(self.folder / "journal.sqlite")
        return launch(declared, given, Options(**options), PlainStage((0.1, 0.3)), str(uuid4()))

    def redis(self, redis: LabRedis, flow: str = "recover-redis", **more: object) -> Ended:
        """Recover a Redis; options of every recovery are told from its parameters by their name."""
        options = {name: more.pop(name) for name in list(more) if name in OPTION_NAMES}
        return self.run(flow, redis.parameters(**more), **options)

    def events(self, recovery_id: str) -> list[Event]:
        """What the journal has of a recovery."""
        journal = SqliteJournal(self.folder / "journal.sqlite")
        try:
            return journal.events(recovery_id)
        finally:
            journal.close()

    def changes(self, recovery_id: str) -> list[str]:
        """The changing commands that were sent, in order."""
        return [
            event.body["command"]
            for event in self.events(recovery_id)
            if event.kind == "command" and event.body["is_change"]
        ]

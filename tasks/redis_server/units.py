"""Which systemd unit a Redis belongs to, and how that unit stops and starts it.

The name is found and never assumed: by the process that listens on the port, or else by the unit
whose configuration names the port.
"""

import re
from dataclasses import dataclass

from blocks.ssh.host import SshHost
from recovery.errors import Refused, UnreadableOutput
from tasks import services
from tasks.redis_server import settings
from tasks.redis_server.target import RedisServer
from tasks.services import UnitState, UnitStatus

KINDS = ("redis", "valkey", "keydb")
NAMES = tuple(f"{kind}*" for kind in KINDS)
MORE_PROPERTIES = (
    "Type",
    "User",
    "Restart",
    "Job",
    "FreezerState",
    "TimeoutStartUSec",
    "TimeoutStopUSec",
    "SendSIGKILL",
    "PIDFile",
    "FragmentPath",
    "DropInPaths",
    "ExecMainStartTimestampMonotonic",
    "ExecStart",
    "ExecStop",
    "KillSignal",
    "RestartKillSignal",
)
SIGTERM = 15
# A password can stand among the arguments, which systemd shows without their quotes: all up to the
# next option is masked before it leaves the host, and of a stop command only what ends in a loss.
MASK = r"""
s/^ExecStop=.*(nosave|kill +(-s +|-)(SIG)?(KILL|9)).*/ExecStop=\1/I
t
s/^ExecStop=.*/ExecStop=/
s/ (--[a-z]|; ignore_errors=)/\n\1/Ig
s/(--([a-z-]*(pas|auth|req)[a-z-]*|user|sentinel)[ \t=]+)[^\n]*/\1***/Ig
s/\n/ /g
"""
SPAN = re.compile(r"(\d+(?:\.\d+)?)(us|ms|s|min|h|d|w|month|y)\b")
SPAN_SECONDS = {
    "us": 1e-6, "ms": 1e-3, "s": 1, "min": 60, "h": 3600, "d": 86400, "w": 604800,
    "month": 2629800, "y": 31557600,
}  # fmt: skip
ARGUMENTS = re.compile(r"argv\[\]=(.*?) ; ignore_errors=")
AT_REST = {UnitState.INACTIVE, UnitState.FAILED}


@dataclass(frozen=True)
class Process:
    """One run of a unit's main process, which no other one is equal to.

    Attributes:
        pid: its process id; 0 where none was seen.
        started_us: microseconds from the boot of the host to its start.
    """

    pid: int
    started_us: int


@dataclass(frozen=True)
class RedisUnit:
    """A unit, and how systemd stops and starts it."""

    status: UnitStatus
    process: Process
    arguments: str  # of its start command; passwords masked
    type: str
    user: str
    restart: str
    stop_within_seconds: float  # infinite where systemd waits for ever
    start_within_seconds: float
    kills_at_the_end: bool
    is_known_by_file: bool  # the main process, where it forks
    is_frozen: bool  # by the freezer of control groups
    has_job: bool
    files: tuple[str, ...]  # the unit file and what is dropped in
    stops_otherwise: str  # how, where a stop is more than SIGTERM and waiting

    @property
    def name(self) -> str:
        """Its name with the suffix."""
        return self.status.unit

    @property
    def is_masked(self) -> bool:
        """Whether somebody made it unstartable."""
        return self.status.load_state == "masked" or self.status.file_state.startswith("masked")

    @property
    def is_redis(self) -> bool:
        """Whether its start command, or its name where that tells nothing, is that of a Redis."""
        return any(kind in (self.arguments or self.name) for kind in KINDS)

    @property
    def is_sentinel(self) -> bool:
        """Whether it runs a sentinel."""
        return "sentinel" in self.arguments or "sentinel" in self.name


def redis_unit(host: SshHost, name: str) -> RedisUnit:
    """All that is asked of systemd about a unit; errors are those of `services.unit_status`."""
    unit = services.checked_name(name)
    wanted = ",".join((*services.PROPERTIES, *MORE_PROPERTIES))
    script = 'systemctl show --no-pager -p "$1" -- "$2" | sed -E "$3"'
    argv = ["sh", "-c", script, "show", wanted, unit, MASK]
    return parse_redis_unit(unit, host.read(argv, within_seconds=20).whole())


def parse_redis_unit(asked: str, printed: str) -> RedisUnit:
    """Read what `systemctl show` prints (systemd 219 to 257), beyond `services.parse_unit`.

        Type=notify
        TimeoutStopUSec=infinity
        ExecMainStartTimestampMonotonic=12729696546
        ExecStart={ path=/usr/bin/redis-server ; argv[]=/usr/bin/redis-server /etc/redis/redis.conf
        --supervised systemd ; ignore_errors=no ; start_time=[…] ; pid=64 ; … }

    Raises:
        UnreadableOutput: a number or a span of time is none.
    """
    status = services.parse_unit(asked, printed)
    said = dict(line.split("=", 1) for line in printed.splitlines() if "=" in line)
    arguments = ARGUMENTS.search(said.get("ExecStart", ""))
    try:
        started_us = int(said.get("ExecMainStartTimestampMonotonic") or 0)
    except ValueError as error:
        raise UnreadableOutput(f"systemctl show {asked}", printed) from error
    return RedisUnit(
        status=status,
        process=Process(status.main_pid, started_us),
        arguments=arguments[1] if arguments else "",
        type=said.get("Type", ""),
        user=said.get("User", ""),
        restart=said.get("Restart", ""),
        stop_within_seconds=parse_span(said.get("TimeoutStopUSec", "")),
        start_within_seconds=parse_span(said.get("TimeoutStartUSec", "")),
        kills_at_the_end=said.get("SendSIGKILL", "yes") == "yes",
        is_known_by_file=bool(said.get("PIDFile")),
        is_frozen=said.get("FreezerState", "running") in {"frozen", "freezing"},
        has_job=said.get("Job", "") not in {"", "0"},
        files=(said.get("FragmentPath", ""), *said.get("DropInPaths", "").split()),
        stops_otherwise=_stops_otherwise(printed),
    )


def _stops_otherwise(printed: str) -> str:
    """How a unit is stopped, where that is more than SIGTERM; several lines of a name may stand."""
    for line in printed.splitlines():
        name, _, value = line.partition("=")
        if name == "ExecStop" and value:
            return f"an ExecStop with {value}"
        if name in {"KillSignal", "RestartKillSignal"} and value not in {"", str(SIGTERM)}:
            return f"{name} {value}"
    return ""


def parse_span(printed: str) -> float:
    """Seconds of a span as systemd writes it, as `1min 30s`; infinite where it says so.

    Raises:
        UnreadableOutput: it is none.
    """
    if printed in {"", "infinity"}:
        return float("inf")
    spans = SPAN.findall(printed)
    if not spans or SPAN.sub("", printed).strip():
        raise UnreadableOutput("systemctl show -p TimeoutStopUSec", printed)
    return sum(float(number) * SPAN_SECONDS[unit] for number, unit in spans)


def find_unit(server: RedisServer) -> RedisUnit:
    """The unit that a Redis belongs to: the one given, that of its process, or of its port.

    Raises:
        Refused: there is none, or several could be meant, or the process belongs to none, or
            systemd does not know the process.
    """
    unit = _found(server)
    if unit.is_sentinel:
        raise Refused(
            server.label,
            f"{unit.name} runs a sentinel, which keeps no keys",
            "Name the port of the Redis it watches; a sentinel is simply restarted",
        )
    if unit.type == "forking" and not unit.is_known_by_file and not unit.process.pid:
        raise Refused(
            server.label,
            f"systemd does not know which process belongs to {unit.name}: it forks and names no "
            "PIDFile",
            f"Name it with `systemctl edit {unit.name}`: [Service] PIDFile=, as `pidfile` in its "
            "redis.conf; then `systemctl daemon-reload`",
        )
    return unit


def _found(server: RedisServer) -> RedisUnit:
    if server.unit:
        unit = redis_unit(server.host, server.unit)
        services.refuse_unless_unit_exists(server.host, unit.name)
        return unit
    for listener in server.listeners():
        if listener.pid:
            return _unit_of_listener(server, unit_of_process(server, listener.pid))
    return _unit_of_port(server)


def _unit_of_listener(server: RedisServer, owner: RedisUnit) -> RedisUnit:
    """The owner of the port, unless that runs something else and a Redis is meant to have it."""
    if owner.is_redis:
        return owner
    try:
        return _unit_of_port(server)
    except Refused:
        return owner


def unit_of_process(server: RedisServer, pid: int) -> RedisUnit:
    """The unit that a process belongs to.

    Raises:
        Refused: it belongs to none.
    """
    answer = server.host.read(["cat", f"/proc/{pid}/cgroup"], within_seconds=20, as_root=True)
    name = parse_unit_of_cgroup(answer.whole())
    if not name:
        raise Refused(
            server.label,
            f"process {pid} listens on port {server.port} and belongs to no unit of systemd: "
            "somebody started it by hand, or it runs in a container",
            "Stop it the way it was started, after it has saved, then start its unit",
        )
    return redis_unit(server.host, name)


def parse_unit_of_cgroup(printed: str) -> str:
    r"""The service in what `/proc/PID/cgroup` holds; empty where there is none.

    1:name=systemd:/system.slice/system-redis\x2dserver.slice/redis-server@6380.service
    0::/system.slice/redis-server.service
    """
    for line in printed.splitlines():
        hierarchy, _, path = line.partition(":")[2].partition(":")
        services_in_path = [part for part in path.split("/") if part.endswith(".service")]
        is_of_a_user = "/user@" in path or path.startswith("/user.slice")
        if hierarchy in {"", "name=systemd"} and services_in_path and not is_of_a_user:
            return services_in_path[-1]
    return ""


def _unit_of_port(server: RedisServer) -> RedisUnit:
    candidates = [redis_unit(server.host, name) for name in _names(server.host)]
    fits: dict[str, RedisUnit] = {}
    for unit in candidates:
        is_none = unit.status.state is UnitState.NOT_FOUND or not unit.is_redis
        if is_none or unit.is_sentinel:
            continue
        if _port_of(server.host, unit) == server.port:
            fits[unit.name] = unit
    if len(fits) == 1:
        return next(iter(fits.values()))
    others = ", ".join(sorted({unit.name for unit in candidates})) or "none at all"
    if not fits:
        raise Refused(
            server.label,
            f"nothing listens on port {server.port}, and no unit is configured for it "
            f"(units of Redis there: {others})",
            "Name the unit in `unit`, or correct the port",
        )
    raise Refused(
        server.label,
        f"several units are configured for port {server.port}: {', '.join(sorted(fits))}",
        "Name the one that is meant in `unit`",
    )


def _names(host: SshHost) -> list[str]:
    """Units that may run a Redis, templates left out; those never loaded among them."""
    script = (
        'systemctl list-units --all --plain --no-legend --no-pager --type=service -- "$@"; '
        'systemctl list-unit-files --no-legend --no-pager --type=service -- "$@"'
    )
    printed = host.read(["sh", "-c", script, "list", *NAMES], within_seconds=20).whole()
    return parse_unit_names(printed)


def parse_unit_names(printed: str) -> list[str]:
    """First words of `systemctl list-units` and `list-unit-files`, each once.

    redis-server.service   masked failed failed  redis-server.service
    redis-server@.service  disabled enabled
    redis.service          alias enabled
    """
    names = []
    for line in printed.splitlines():
        name = line.strip().lstrip("●* ").split(maxsplit=1)[0] if line.strip() else ""
        is_template = name.partition("@")[2].startswith(".")
        if name.endswith(".service") and not is_template and name not in names:
            names.append(name)
    return names


def _port_of(host: SshHost, unit: RedisUnit) -> int:
    """The port a unit that does not run is configured for; 0 where nobody can tell."""
    said = settings.settings_of(host, unit.arguments, unit.name)
    return said.port

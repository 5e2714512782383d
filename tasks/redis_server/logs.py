"""What the journal, Redis's own log and the kernel tell of a Redis that has trouble."""

from collections import Counter

from recovery.errors import UnreadableOutput
from tasks.redis_server.causes import Sign, signs_in
from tasks.redis_server.target import RedisServer
from tasks.redis_server.units import RedisUnit

LINES = 200
LINES_BACK = 20_000  # of the journal, where an older line counts
PEERS_TOLD = 3
# A wrong line of the configuration is quoted, with all that stands on it.
SECRETS = r"""
s/(>>> .[ \t]*[a-z-]*(pas|auth|req)[a-z-]*[ \t]+).*/\1***/I
s/((requirepass|[a-z-]*auth|auth-(pass|user)|[a-z-]*-pass)[ \t]+).*/\1***/I
s/(>>> .*\<user[ \t]+).*/\1***/I
s/(\<user[ \t].*)[ \t][]><#!)].*/\1 ***/I
"""
SETTINGS_OF_KERNEL = """
echo "overcommit $(cat /proc/sys/vm/overcommit_memory)"
cat /sys/kernel/mm/transparent_hugepage/enabled 2>/dev/null
exit 0
"""
HAD_DATA = "DB saved on disk|Background saving terminated with success|DB loaded from"
SERVED = "Ready to accept connections"
ENDED_WITH_AOF = "Calling fsync() on the AOF file"  # said by a stop, only where it is in use
LOADED = "DB loaded from"  # disk, append only file, base file, incr file
FOUND_IN_LOG = 'grep -hE "$1" -- "$2.1" "$2" 2>/dev/null | tail -n 1 | sed -E "$3"'
FOUND_IN_JOURNAL = (
    f'journalctl --no-pager -q -n {LINES_BACK} -u "$2" | grep -E "$1" | tail -n 1 | sed -E "$3"'
)
TAIL = 'tail -n "$1" -- "$2" 2>/dev/null | sed -E "$3"'
JOURNAL = 'journalctl --no-pager -q -o short-unix -n "$1" -u "$2" | sed -E "$3"'


def signs(server: RedisServer, unit: RedisUnit, log: str) -> list[Sign]:
    """Causes named since the last start, those of Redis's own log after those of the journal.

    Raises:
        CommandFailed: root may not read them.
    """
    found = signs_in(_read(server, JOURNAL, unit.name))
    if log.startswith("/"):
        found += signs_in(_read(server, TAIL, log))
    return found


def had_data(server: RedisServer, unit: RedisUnit, log: str) -> str:
    """The last line by which it has saved or loaded files at any time; empty where there is none.

    Raises:
        CommandFailed: root may not read the logs.
    """
    found = ""
    if log.startswith("/"):
        found = _printed(server, FOUND_IN_LOG, HAD_DATA, log).strip()
    return found or _printed(server, FOUND_IN_JOURNAL, HAD_DATA, unit.name).strip()


def ended_with_aof(server: RedisServer, unit: RedisUnit, log: str) -> bool:
    """Whether the run that served last was stopped in order and used the AOF until then."""
    return _text(server, unit, log).rpartition(SERVED)[2].find(ENDED_WITH_AOF) >= 0


def has_loaded_files(server: RedisServer, unit: RedisUnit, log: str) -> bool:
    """Whether the run that serves now says that it has loaded anything."""
    return LOADED in _text(server, unit, log).rpartition("Redis is starting")[2]


def peers(server: RedisServer) -> str:
    """Where most of the connections to it come from, with their numbers."""
    argv = ["ss", "-Htn", "state", "established", f"sport = :{server.port}"]
    return parse_peers(server.host.read(argv, within_seconds=20).whole())


def parse_peers(printed: str) -> str:
    """Count the addresses in what `ss -Htn state established` prints.

    0      0      127.0.0.1:6379  127.0.0.1:41234
    """
    places = [line.split()[-1].rpartition(":")[0] for line in printed.splitlines() if line.strip()]
    most = Counter(places).most_common(PEERS_TOLD)
    return ", ".join(f"{place} ({count})" for place, count in most) or "nowhere"


def available_memory_bytes(server: RedisServer) -> int:
    """What the kernel says that can be had without swapping.

    Raises:
        UnreadableOutput: /proc/meminfo has no MemAvailable (a kernel before 3.14).
    """
    printed = server.host.read(["cat", "/proc/meminfo"], within_seconds=20).whole()
    for line in printed.splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return int(value.split()[0]) * 1024
    raise UnreadableOutput("/proc/meminfo", printed[:500])


def may_fork(server: RedisServer, used_bytes: int) -> bool:
    """Whether the kernel would let it fork now: it need not have the memory, only promise it."""
    argv = ["cat", "/proc/sys/vm/overcommit_memory"]
    if server.host.read(argv, within_seconds=20).whole().strip() == "1":
        return True
    return available_memory_bytes(server) > used_bytes


def warnings(server: RedisServer, unit: RedisUnit) -> tuple[str, ...]:
    """What is no trouble today and may be the next: Redis logs the same at each start."""
    found = []
    argv = ["sh", "-c", SETTINGS_OF_KERNEL]
    printed = server.host.read(argv, within_seconds=20).stdout
    if "overcommit 0" in printed or "overcommit 2" in printed:
        found.append(
            "vm.overcommit_memory is not 1: a fork, and with it a save, can fail while memory is "
            "short (`sysctl vm.overcommit_memory=1`)"
        )
    if "[always]" in printed:
        found.append(
            "transparent huge pages are always on: latency and memory rise while it saves "
            "(echo madvise > /sys/kernel/mm/transparent_hugepage/enabled)"
        )
    if unit.status.file_state == "disabled":
        found.append(f"{unit.name} is not enabled: it will not start with the host")
    if unit.status.restarts:
        found.append(f"systemd has restarted {unit.name} {unit.status.restarts} times by itself")
    return tuple(found)


def _text(server: RedisServer, unit: RedisUnit, log: str) -> str:
    """The end of its log, wherever it writes that."""
    return _read(server, TAIL, log) if log.startswith("/") else _read(server, JOURNAL, unit.name)


def _read(server: RedisServer, script: str, what: str) -> str:
    return _printed(server, script, str(LINES), what)


def _printed(server: RedisServer, script: str, first: str, what: str) -> str:
    argv = ["sh", "-c", script, "log", first, what, SECRETS]
    return server.host.read(argv, within_seconds=30, as_root=True).stdout

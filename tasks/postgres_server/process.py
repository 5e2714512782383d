"""The server's processes on its host: who holds the data folder, and whether the lock file lies."""

from collections.abc import Sequence
from dataclasses import dataclass

from blocks.ssh.host import SshHost
from recovery.errors import UnreadableOutput
from tasks.postgres_server.clusters import Cluster

LOCK_FILE = "postmaster.pid"
STOPPING = "stopping"
OTHER_PROCESS = 75  # EX_TEMPFAIL: another process is the server by now
# Carries a command out only while the server of a data folder is this process, or none is.
BOUND = (
    'pid=$(head -n 1 -- "$1/postmaster.pid" 2>/dev/null | tr -d -); '
    'began=$(sed "s/.*) //" "/proc/${pid:-none}/stat" 2>/dev/null | cut -d " " -f 20); '
    '[ -z "$began" ] || [ "$(cat /proc/sys/kernel/random/boot_id)/$pid/$began" = "$2" ] || exit 75;'
    ' shift 2; exec "$@"'
)
STOPPED_STATES = ("T", "t")


@dataclass(frozen=True)
class Process:
    """One process. `started` is in clock ticks since boot: with the id it names one process."""

    pid: int
    parent: int
    state: str
    started: int
    title: str

    @property
    def is_paused(self) -> bool:
        """Whether somebody stopped it, by a signal or a debugger."""
        return self.state in STOPPED_STATES


@dataclass(frozen=True)
class LockFile:
    """`postmaster.pid`, as far as the server had written it."""

    pid: int
    port: int
    socket_folder: str
    listens_on: str
    status: str


@dataclass(frozen=True)
class Holders:
    """Who holds the data folder.

    Attributes:
        lock: the lock file; `None` where there is none.
        postmaster: the server, as far as it lives.
        others: its children, or what they left when it died.
        imposter: what runs under the number in the lock file and is no server of this folder.
    """

    lock: LockFile | None
    postmaster: Process | None
    others: tuple[Process, ...]
    imposter: Process | None

    @property
    def is_going_down(self) -> bool:
        """Whether the server has taken an order to shut down (PostgreSQL 10 and later say so)."""
        is_told = self.lock is not None and self.lock.status == STOPPING
        return self.postmaster is not None and is_told

    @property
    def is_orphaned(self) -> bool:
        """Whether children of a server that is gone still hold the folder."""
        return self.postmaster is None and bool(self.others)


def parse_lock_file(printed: str) -> LockFile:
    """Read `postmaster.pid` (PostgreSQL 9.6 to 18); a server that just began has written less.

        62
        /var/lib/postgresql/15/main
        1795241236
        5432
        /var/run/postgresql
        localhost
          5449352         0
        ready

    Raises:
        UnreadableOutput: its first line is no number.
    """
    lines = [line.strip() for line in printed.splitlines()] + [""] * 8
    pid = lines[0].removeprefix("-")  # of a server in single-user mode
    if not pid.isdigit():
        raise UnreadableOutput(f"cat {LOCK_FILE}", printed)
    port = int(lines[3]) if lines[3].isdigit() else 0
    return LockFile(int(pid), port, lines[4], lines[5], lines[7])


def parse_processes(printed: str) -> list[Process]:
    """Read `/proc/PID/stat` of some processes, one a line; titles may hold blanks and brackets.

    62 (postgres) S 1 62 62 0 -1 4194560 1733 … 1795241 …
    """
    found = []
    for line in printed.splitlines():
        head, _, rest = line.rpartition(") ")
        pid, _, title = head.partition(" (")
        fields = rest.split()
        if pid.isdigit() and len(fields) > 19:  # noqa: PLR2004 (the 22nd field is the start)
            found.append(Process(int(pid), int(fields[1]), fields[0], int(fields[19]), title))
    return found


def holders_of(host: SshHost, cluster: Cluster) -> Holders:
    """Who holds the data folder of a cluster.

    Every process of a server has the data folder as its working directory; the postmaster is the
    one whose parent is none of them.

    Raises:
        UnreadableOutput: the lock file holds something else.
        Unreachable: the host gave no answer.
    """
    folder = host.read(
        ["readlink", "-f", "--", cluster.data_folder], accept=(0, 1), as_root=True
    ).stdout.strip()
    printed = host.read(
        ["cat", "--", f"{cluster.data_folder}/{LOCK_FILE}"], accept=(0, 1), as_root=True
    )
    lock = parse_lock_file(printed.whole()) if printed.exit_code == 0 and printed.stdout else None
    argv = ["find", "/proc", "-mindepth", "2", "-maxdepth", "2", "-name", "cwd"]
    argv += ["-lname", folder or cluster.data_folder, "-printf", "%h\n"]
    places = host.read(argv, accept=(0, 1), as_root=True, within_seconds=30).whole().split()
    mine = processes(host, [int(place.rpartition("/")[2]) for place in places])
    pids = {process.pid for process in mine}
    servers = [one for one in mine if one.title in {"postgres", "postmaster"}]
    heads = [one for one in servers if one.parent not in pids]
    named = next((one for one in heads if lock and one.pid == lock.pid), None)
    imposter = None
    if lock and named is None and not any(one.pid == lock.pid for one in mine):
        imposter = next(iter(processes(host, [lock.pid])), None)
    others = tuple(one for one in servers if one is not named)
    return Holders(lock, named, others, imposter)


def processes(host: SshHost, pids: list[int]) -> list[Process]:
    """What runs under these numbers; those that have ended meanwhile are left out."""
    if not pids:
        return []
    files = [f"/proc/{pid}/stat" for pid in pids]
    return parse_processes(host.read(["cat", "--", *files], accept=(0, 1), as_root=True).whole())


def identity_of(host: SshHost, process: Process | None) -> str:
    """What names one process for ever, over reboots: boot, number and start. Empty for none."""
    if process is None:
        return ""
    boot = host.read(["cat", "/proc/sys/kernel/random/boot_id"]).stdout.strip()
    return f"{boot}/{process.pid}/{process.started}"


def bound(cluster: Cluster, identity: str, argv: Sequence[str]) -> list[str]:
    """A command that does nothing and exits with `OTHER_PROCESS` where another server runs."""
    return ["sh", "-c", BOUND, "bound", cluster.data_folder, identity, *argv]


def titles_of(host: SshHost, held: Holders) -> list[str]:
    """What the processes of a server say of themselves, as `postgres: 15/main: walwriter`."""
    pids = [one.pid for one in (held.postmaster, *held.others) if one is not None]
    if not pids:
        return []
    argv = ["ps", "-o", "args=", "-ww", "-p", ",".join(map(str, pids))]
    printed = host.read(argv, accept=(0, 1), within_seconds=30).whole()
    return [line.strip() for line in printed.splitlines() if line.strip()]

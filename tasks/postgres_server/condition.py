"""What keeps a stopped server from starting, looked for where it is, not in old lines of a log."""

import posixpath
import re
from dataclasses import dataclass

from blocks.ssh.host import SshHost
from tasks import services
from tasks.postgres_server.clusters import Cluster, as_owner
from tasks.postgres_server.disk import FileSystem, is_out_of_inodes, read_df
from tasks.postgres_server.process import Holders, holders_of
from tasks.postgres_server.server_log import ServerLog, read_log
from tasks.services import UnitStatus

SEGMENT_BYTES = 16 << 20  # what a start needs of write-ahead log at least
CLOSED_MODE = 0o027  # bits the server does not accept on its data folder
MORE_OF_UNIT = "Job,TimeoutStartUSec"


@dataclass(frozen=True)
class Folder:
    """The data folder: `owner` is empty where there is no such folder.

    `changed_at` is when its control file was last put there or written, in seconds of the epoch.
    """

    owner: str
    mode: int
    is_readable: bool
    has_database: bool
    is_read_only: bool
    changed_at: float = 0.0


@dataclass(frozen=True)
class Condition:
    """A server that does not answer, as it is found on its host.

    Attributes:
        start_timeout: how long systemd lets it start, as it prints it; `infinity` is right.
        is_job_queued: whether systemd has been told to start or stop it and has not ended that.
        disks: where the data folder and its write-ahead log lie; empty where there is none.
        control: what `pg_controldata` says is wrong; empty for nothing.
        state: what the control file says of the last run, as `in production`.
        misconfigured: what the server says of its configuration; empty where it takes it.
        on_its_port: another program that listens where this server would; empty for none.
    """

    unit: UnitStatus
    start_timeout: str
    is_job_queued: bool
    held: Holders
    folder: Folder
    disks: tuple[FileSystem, ...]
    is_out_of_inodes: bool
    control: str
    state: str
    misconfigured: str
    on_its_port: str
    log: ServerLog


def condition_of(host: SshHost, cluster: Cluster) -> Condition:
    """Look at everything that keeps a server from starting.

    Raises:
        Unreachable: the host gave no answer.
        UnreadableOutput: a tool printed something else than it does.
    """
    with host.session():
        held = holders_of(host, cluster)
        folder = _folder(host, cluster)
        control, state = _control(host, cluster) if folder.has_database else ("", "")
        places = [cluster.data_folder, f"{cluster.data_folder}/pg_wal/."]
        has_disks = folder.has_database
        timeout, job = _more_of_unit(host, cluster.unit)
        return Condition(
            unit=services.unit_status(host, cluster.unit),
            start_timeout=timeout,
            is_job_queued=job,
            held=held,
            folder=folder,
            disks=tuple(read_df(host, places)) if has_disks else (),
            is_out_of_inodes=has_disks and is_out_of_inodes(_inodes(host, places)),
            control=control,
            state=state,
            misconfigured=_misconfigured(host, cluster) if folder.is_readable else "",
            on_its_port=_other_on_port(host, cluster, held),
            log=read_log(host, cluster),
        )


def _folder(host: SshHost, cluster: Cluster) -> Folder:
    place = cluster.data_folder
    stat = host.read(["stat", "-L", "-c", "%U %a", "--", place], accept=(0, 1), as_root=True)
    owner, _, mode = stat.stdout.strip().partition(" ")
    version = f"{place}/PG_VERSION"
    has = host.read(["test", "-s", version], accept=(0, 1), as_root=True).exit_code == 0
    reads = as_owner(cluster.owner, ["test", "-r", version, "-a", "-w", place])
    can_read = host.read(reads, accept=(0, 1), as_root=True).exit_code == 0
    argv = ["findmnt", "-n", "-o", "OPTIONS", "-T", place]
    options = host.read(argv, accept=(0, 1, 127), as_root=True).stdout.strip().split(",")
    control = ["stat", "-c", "%Z", "--", f"{place}/global/pg_control"]
    changed = host.read(control, accept=(0, 1), as_root=True).stdout.strip()
    is_read_only = "ro" in options
    return Folder(owner, int(mode or "0", 8), can_read, has, is_read_only, float(changed or 0))


def _control(host: SshHost, cluster: Cluster) -> tuple[str, str]:
    """What is wrong with the control file, and the state it tells.

    pg_controldata 9.6 to 18 prints `Database cluster state:               in production`; of a file
    whose checksum is wrong it says so and goes on, with exit code 0.
    """
    argv = [
        "env",
        "LC_ALL=C",
        posixpath.join(cluster.binaries, "pg_controldata"),
        "-D",
        cluster.data_folder,
    ]
    printed = host.read(as_owner(cluster.owner, argv), accept=(0, 1, 126, 127), as_root=True)
    state = re.search(r"^Database cluster state:\s+(.+)$", printed.stdout, re.MULTILINE)
    everything = " ".join((printed.stderr + printed.stdout).split())
    if printed.exit_code != 0:
        is_permission = "Permission denied" in everything  # told by the folder itself
        return ("" if is_permission else " ".join(printed.stderr.split()), "")
    if "CRC checksum does not match" in everything or "byte ordering mismatch" in everything:
        return "the checksum of global/pg_control does not match its content", ""
    return "", state[1].strip() if state else ""


def _misconfigured(host: SshHost, cluster: Cluster) -> str:
    argv = ["env", "LC_ALL=C", posixpath.join(cluster.binaries, "postgres"), "-C", "port"]
    argv += ["-D", cluster.data_folder]
    argv += ["-c", f"config_file={cluster.config}"] if cluster.config else []
    printed = host.read(as_owner(cluster.owner, argv), accept=(0, 1, 2, 126, 127), as_root=True)
    return "" if printed.exit_code == 0 else " ".join(printed.stderr.split())


def _inodes(host: SshHost, places: list[str]) -> str:
    return host.read(["df", "-P", "-i", "--", *places], within_seconds=30, as_root=True).whole()


def _other_on_port(host: SshHost, cluster: Cluster, held: Holders) -> str:
    """Who listens on the server's port and is not the server."""
    mine = {one.pid for one in (held.postmaster, *held.others) if one is not None}
    for address, port, told in listeners(host):
        pids = {int(pid) for pid in re.findall(r"pid=(\d+)", told)}
        if port == cluster.port and pids and not pids & mine:
            return f"{told} on {address}:{port}"
    return ""


def listeners(host: SshHost) -> list[tuple[str, int, str]]:
    """Address, port and program of everything that listens on TCP; see `parse_ss`."""
    return parse_ss(host.read(["ss", "-ltnpH"], as_root=True, within_seconds=30).whole())


def parse_ss(printed: str) -> list[tuple[str, int, str]]:
    """Read what `ss -ltnpH` prints (iproute2 4 to 6).

    LISTEN 0 244 127.0.0.1:5432 0.0.0.0:* users:(("postgres",pid=62,fd=5))
    """
    found = []
    for line in printed.splitlines():
        fields = line.split(None, 5)
        if len(fields) > 4:  # noqa: PLR2004 (the last one is missing for other accounts)
            address, _, port = fields[3].rpartition(":")
            told = fields[5].strip() if len(fields) > 5 else ""  # noqa: PLR2004
            found.append((address.strip("[]"), int(port) if port.isdigit() else 0, told))
    return found


def _more_of_unit(host: SshHost, unit: str) -> tuple[str, bool]:
    argv = ["systemctl", "show", "--no-pager", "-p", MORE_OF_UNIT, "--", unit]
    printed = host.read(argv, within_seconds=20).whole()
    said = dict(line.split("=", 1) for line in printed.splitlines() if "=" in line)
    return said.get("TimeoutStartUSec", ""), said.get("Job", "0") not in {"", "0"}

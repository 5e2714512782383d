"""Why a server that does not run does not run, and whether it may be started."""

from blocks.ssh.host import SshHost
from tasks import services
from tasks.postgres_server.clusters import Cluster
from tasks.postgres_server.condition import CLOSED_MODE, SEGMENT_BYTES, Condition
from tasks.postgres_server.disk import megabytes
from tasks.postgres_server.patroni import Patroni, members_of
from tasks.postgres_server.process import LOCK_FILE
from tasks.postgres_server.server_log import read_journal
from tasks.registry_database.causes import Cause, Finding, Reason
from tasks.services import UnitState

DAMAGED_LOG = (
    r"could not locate a valid checkpoint record|invalid (primary )?checkpoint record"
    r"|could not locate required checkpoint record|incorrect checksum in control file"
    r"|database files are incompatible|could not find redo location|recovery ended before"
    r"|requested timeline .* is not a child|WAL ends before (end of online backup|consistent)"
)
ENDLESS = ("infinity", "")
GIVEN_UP, GIVEN_UP_LINE = "start-limit-hit", "Start request repeated too quickly"
STILL_UP = "in production"  # of a control file whose server is gone: it crashed


def judge_stopped(
    host: SshHost, cluster: Cluster, patroni: Patroni | None, found: Condition
) -> Finding:
    """Why it does not run: first what would keep it from starting, then how it went down."""
    wrong = (
        judge_folder(cluster, found)
        or judge_processes(cluster, found)
        or judge_disk(host, cluster, found)
        or judge_files(cluster, found)
        or (None if patroni else judge_unit(found))
    )
    if wrong is not None:
        return Finding.of(wrong, cluster, patroni)
    if found.held.imposter is not None:
        other = found.held.imposter
        seen = (
            f"{LOCK_FILE} names process {other.pid}, which is {other.title!r} and no server of "
            f"{cluster.data_folder}; no process has that folder"
        )
        return Finding(Cause.STALE_LOCK_FILE, seen, "", cluster, patroni)
    if patroni is not None:
        return Finding.of(judge_patroni(host, patroni), cluster, patroni)
    return Finding.of(judge_end(host, found), cluster)


def judge_folder(cluster: Cluster, found: Condition) -> Reason | None:
    """What is wrong with the data folder."""
    folder, place = found.folder, cluster.data_folder
    if not folder.has_database:
        return Reason(
            Cause.DATA_FOLDER_MISSING,
            f"{place} holds no database" if folder.owner else f"there is no {place}",
            f"Mount what belongs there (`findmnt -T {place}`, /etc/fstab); where it is lost, L3 "
            "restores a backup",
        )
    if folder.is_read_only:
        return Reason(
            Cause.DATA_FOLDER_READ_ONLY,
            f"the file system of {place} is mounted read-only",
            "The kernel does that after errors of the disk: see `dmesg`, save what is there, then "
            "check the file system",
        )
    if folder.owner != cluster.owner or folder.mode & CLOSED_MODE:
        return Reason(
            Cause.DATA_FOLDER_PERMISSION,
            f"{place} belongs to {folder.owner} with mode {folder.mode:04o}; the server takes "
            f"{cluster.owner} with 0700 or 0750",
            f"`chown -R {cluster.owner}: {place} && chmod 0700 {place}`, then resume",
        )
    if not folder.is_readable:
        return Reason(
            Cause.DATA_FOLDER_PERMISSION,
            f"{cluster.owner} cannot read {place}/PG_VERSION, or not write to {place}",
            f"`namei -l {place}/PG_VERSION` shows what is closed on the way there; then resume",
        )
    return None


def judge_processes(cluster: Cluster, found: Condition) -> Reason | None:
    """Who is in the way of a start."""
    if found.held.is_orphaned:
        pids = " ".join(str(one.pid) for one in found.held.others)
        return Reason(
            Cause.ORPHANED_PROCESSES,
            f"the server is gone, and its processes {pids} still hold {cluster.data_folder}",
            f"They end by themselves within seconds; if not, `kill {pids}` (never -9), then resume",
        )
    if found.on_its_port:
        return Reason(
            Cause.PORT_TAKEN,
            f"port {cluster.port} is taken by {found.on_its_port}",
            "Stop that program, or correct the port of one of the two, then resume",
        )
    return None


def judge_disk(host: SshHost, cluster: Cluster, found: Condition) -> Reason | None:
    """What is full."""
    data, wal = found.disks
    log = wal_told(host, cluster)
    if found.is_out_of_inodes:
        return Reason(
            Cause.DISK_FULL,
            f"no inode is left on {data.mount} or {wal.mount}",
            "Find the folder with millions of files (`df -i`), make room there, then resume",
        )
    if wal.free_bytes < SEGMENT_BYTES and wal.mount != data.mount:
        return Reason(
            Cause.WAL_DISK_FULL,
            f"{megabytes(wal.free_bytes)} are left on {wal.mount}, where {log}",
            "Enlarge that file system, or mend what keeps the log there (the archive command, a "
            "replication slot whose standby is gone); never delete in pg_wal. Then resume",
        )
    if data.free_bytes < SEGMENT_BYTES:
        return Reason(
            Cause.DISK_FULL,
            f"{megabytes(data.free_bytes)} are left on {data.mount}, where {log}",
            "Enlarge that file system, or move something else away from it (`du -xh`, old logs); "
            "never delete in pg_wal. Then resume",
        )
    return None


def wal_told(host: SshHost, cluster: Cluster) -> str:
    """How much write-ahead log there is, and what may keep it."""
    place = f"{cluster.data_folder}/pg_wal"
    find = ["find", "-H", place, "-maxdepth", "1", "-type", "f", "-printf", "%s\n"]
    sizes = host.read(find, accept=(0, 1), as_root=True).stdout.split()
    ready = ["find", f"{place}/archive_status/", "-name", "*.ready", "-printf", "x\n"]
    waiting = len(host.read(ready, accept=(0, 1), as_root=True).stdout.split())
    slots = ["ls", "-1", f"{cluster.data_folder}/pg_replslot"]
    names = host.read(slots, accept=(0, 1, 2), as_root=True).stdout.split()
    return (
        f"pg_wal holds {len(sizes)} files of {megabytes(sum(map(int, sizes)))}, {waiting} of them "
        f"wait to be archived, and the replication slots are {', '.join(names) or 'none'}"
    )


def judge_files(cluster: Cluster, found: Condition) -> Reason | None:
    """What is damaged, or wrong in the configuration."""
    advice = (
        f"L3: copy {cluster.data_folder} as it is before anything else, then restore a backup; "
        "pg_resetwal loses data and is the last resort"
    )
    if found.control:
        return Reason(Cause.CONTROL_FILE_DAMAGED, found.control, advice)
    last = found.log.last_severe
    is_same_folder = found.folder.changed_at <= found.log.written_at  # else it was restored since
    if is_same_folder and (damaged := found.log.with_word(DAMAGED_LOG)):
        is_of_last_run = damaged in found.log.last_run
        if is_of_last_run and "ready to accept" not in "\n".join(found.log.last_run):
            return Reason(Cause.WILL_NOT_START, f"{damaged} ({last})", advice)
    if found.misconfigured:
        return Reason(
            Cause.CONFIGURATION_WRONG,
            found.misconfigured,
            f"Correct {cluster.config or cluster.data_folder + '/postgresql.conf'}, then resume",
        )
    return None


def judge_unit(found: Condition) -> Reason | None:
    """What systemd has against a start."""
    unit = found.unit
    if unit.load_state == "masked":
        return Reason(
            Cause.UNIT_MASKED,
            f"{unit.unit} is masked: somebody has forbidden to start it",
            f"Find out why; then `systemctl unmask {unit.unit}` and resume",
        )
    if unit.state is UnitState.NOT_FOUND:
        return Reason(
            Cause.UNKNOWN,
            f"systemd has no unit {unit.unit}",
            "Find the unit that runs this data folder, and give unit=NAME",
        )
    if unit.result == "timeout" and found.start_timeout not in ENDLESS:
        return Reason(
            Cause.START_TIMES_OUT,
            f"systemd gives {unit.unit} {found.start_timeout} to start, and ended it in the middle "
            "of its recovery",
            f"`systemctl edit {unit.unit}` with [Service] TimeoutStartSec=infinity, then resume",
        )
    return None


def judge_end(host: SshHost, found: Condition) -> Reason:
    """How it went down; each of these is mended by a start."""
    last = found.log.last_severe or "its log tells no reason"
    if found.unit.state is UnitState.FAILED and is_given_up(host, found):
        seen = f"systemd has given {found.unit.unit} up after too many starts; {last}"
        return Reason(Cause.START_LIMIT, seen)
    if found.unit.state is UnitState.FAILED or found.state == STILL_UP:
        killed = found.log.with_word(r"was terminated by signal \d+")
        seen = f"{found.unit}; the control file says {found.state!r}; {killed or last}"
        return Reason(Cause.CRASHED, seen)
    return Reason(Cause.STOPPED, f"{found.unit}; it was {found.state}")


def is_given_up(host: SshHost, found: Condition) -> bool:
    """Whether systemd refuses to start it again.

    Its result then often stays that of the last real failure (seen with systemd 252).
    """
    if found.unit.result == GIVEN_UP:
        return True
    lines = read_journal(host, found.unit.unit, 5).lines
    return any(GIVEN_UP_LINE in line for line in lines)


def judge_patroni(host: SshHost, patroni: Patroni) -> Reason:
    """Who starts a server that Patroni supervises: Patroni, once it runs itself."""
    if not patroni.is_running:
        return judge_stopped_patroni(host, patroni)
    members = members_of(host, patroni)
    if members.refusal:
        return Reason(
            Cause.PATRONI_NO_STORE,
            f"the store Patroni keeps the leader in does not answer: {members.refusal}",
            "Recover the store (etcd): Patroni starts the server by itself then",
        )
    if members.is_paused:
        resume = " ".join(patroni.argv("resume", patroni.scope))
        return Reason(
            Cause.PATRONI_PAUSED,
            "Patroni is in maintenance mode and starts nothing",
            f"Find out who works on it; then `{resume}`",
        )
    mine = members.named(patroni.name)
    if members.has_program and mine is None:
        return Reason(
            Cause.PATRONI_MEMBER_MISSING,
            f"Patroni knows no member {patroni.name!r}: {'; '.join(map(str, members.members))}",
            f"See `journalctl -u {patroni.unit}`",
        )
    seen = f"Patroni runs and is to start it: {mine or 'it is not shown'}"
    return Reason(Cause.PATRONI_STARTS_IT, seen)


def judge_stopped_patroni(host: SshHost, patroni: Patroni) -> Reason:
    """Whether Patroni, which starts the server, may be started."""
    if not patroni.unit:
        return Reason(
            Cause.PATRONI_MEMBER_MISSING,
            f"{patroni.config} says that Patroni supervises it, and no unit runs Patroni",
            "Start Patroni in the way it is started here, then resume",
        )
    status = services.unit_status(host, patroni.unit)
    if status.load_state == "masked":
        return Reason(
            Cause.UNIT_MASKED,
            f"{patroni.unit} is masked: somebody has forbidden to start it",
            f"Find out why; then `systemctl unmask {patroni.unit}` and resume",
        )
    seen = f"Patroni, which starts it, does not run: {status}"
    return Reason(Cause.PATRONI_STOPPED, seen)

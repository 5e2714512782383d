"""What can be known of the members of an etcd without changing anything: asked of every host."""

import contextlib
import contextvars
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TypeVar

from blocks.inventory import place_of
from blocks.ssh.host import SshHost
from recovery.errors import CommandFailed, Unreachable, UnreadableOutput
from recovery.secrecy.redaction import redacted_tail
from tasks.etcd import etcdctl
from tasks.etcd.as_static_pod import START_BY_HAND, STOP_BY_HAND
from tasks.etcd.etcdctl import Listed, Status
from tasks.etcd.running import found_on
from tasks.etcd.settings import Settings
from tasks.etcd.target import EtcdCluster
from tasks.etcd.tools import FIND_TOOLS
from tasks.etcd.wal import LogEnd, log_end

WITHIN_SECONDS = 30.0
SHOWN_MAX = 200  # characters of an error
# What lies on the disk, and what this host restores a snapshot with: etcdutl where it is there,
# since etcdctl has lost that in 3.6. A database without a log is none: etcd makes one before it
# finds that it has no place in its cluster, and is started over and over.
ON_DISK = f"""
{FIND_TOOLS}
find_tools "$1"
db=$1/member/snap/db
has_log() {{ # or it lies behind a link, on a disk that is not there
  [ "$(ls "$1"/*.wal 2>/dev/null)" ] || {{ [ -L "$1" ] && [ ! -e "$1" ]; }}
}}
[ ! -e "$db" ] || ! has_log "$1/member/wal" || echo "db=$(stat -c %s "$db")"
[ ! -e "$1/member/wal" ] || echo "log=$(du -skL "$1/member/wal" | cut -f 1)"
free() {{ # where this is, or is to be
  near=$1; while [ ! -e "$near" ]; do near=$(dirname "$near"); done
  df -P -B1 -- "$near" | awk "END {{ print \\$4 }}"
}}
echo "free=$(free "$1")"
echo "copies_free=$(free "$2")"
if command -v etcdutl >/dev/null; then tool=etcdutl
elif etcdctl snapshot restore --help 2>/dev/null | grep -q -e --initial-cluster; then tool=etcdctl
else tool=; fi
echo "tool=$tool"
help=$($tool snapshot restore --help 2>/dev/null || :)
case $help in *bump-revision*) echo bumps=1 ;; esac
etcdctl version 2>/dev/null | sed -n "s/^etcdctl version: /version=/p"
""".strip()
Answered = TypeVar("Answered")


class MemberState(StrEnum):
    """What is left of a member."""

    SERVING = "serving"  # it answers reads that need no quorum
    SILENT = "silent"  # it runs and answers nothing, as after a start without quorum
    STOPPED = "stopped"  # it does not run; its data is there
    NO_DATA = "no-data"
    NO_UNIT = "no-unit"
    AWAY = "away"  # the host gave no answer


@dataclass(frozen=True)
class MemberSeen:
    """A member as it was found.

    Attributes:
        host: its host, without the account that logs in.
        state: what is left of it.
        settings: what it is started with; empty where the host is away.
        unit: what runs it, and how that is.
        version: of etcdctl there.
        tool: what restores a snapshot there; empty where nothing does.
        can_bump: whether that can put the revision ahead.
        db_bytes: size of its database.
        log_bytes: size of its log.
        free_bytes: room where its data is.
        copies_free_bytes: room where its snapshot goes.
        status: what it says of itself, where it serves.
        is_healthy: whether it answers a read that needs quorum.
        listed: the members that it lists, where it does.
        revision: up to which the hash was taken; the lowest of those that serve.
        hash: of all keys up to there.
        compacted: up to where old revisions are gone; hashes can be compared where that is equal.
        log: where its log on the disk ends; `None` where it has quorum, or it was not read.
        failure: why it gave no answer, or its hash could not be taken; empty where neither is so.
    """

    host: str
    state: MemberState
    settings: Settings = field(default_factory=Settings)
    unit: str = ""
    version: str = ""
    tool: str = ""
    can_bump: bool = False
    db_bytes: int = 0
    log_bytes: int = 0
    free_bytes: int = 0
    copies_free_bytes: int = 0
    status: Status | None = None
    is_healthy: bool = False
    listed: tuple[Listed, ...] = ()
    revision: int = 0
    hash: int = 0
    compacted: int = 0
    log: LogEnd | None = None
    failure: str = ""

    def __str__(self) -> str:
        """As an operator would say it."""
        entries = "entry" if self.uncommitted == 1 else "entries"
        beyond = f", {self.uncommitted} {entries} not known to be committed"
        log = beyond if self.uncommitted else ""
        failure = f", etcdctl: {self.failure}" if self.failure else ""
        if self.status is None:
            at = f" with its log committed to {self.log.committed}" if self.log else ""
            unit = f" ({self.unit})" if self.unit else ""
            return f"{self.host} {self.state}{at}{log}{unit}{failure}"
        led = "leads" if self.status.is_leader else f"leader {self.status.leader:x}"
        errors = f", {'; '.join(self.status.errors)}" if self.status.errors else ""
        return (
            f"{self.host} {self.state} at revision {self.status.revision}, "
            f"term {self.status.raft_term}, {led if self.status.leader else 'no leader'}"
            f"{errors}{log}{f', hash not taken{failure}' if failure else ''}"
        )

    @property
    def committed(self) -> int:
        """Up to which entry of the log it knows that a majority had it; the same on all members."""
        on_disk = self.log.committed if self.log else 0
        return max(self.status.raft_index if self.status else 0, on_disk)

    @property
    def reaches(self) -> int:
        """The last entry of its log, as far as that is known."""
        return max(self.committed, self.log.last if self.log else 0)

    @property
    def log_term(self) -> int:
        """In which term its log ends; 0 where that is not known."""
        return self.log.term if self.log else 0

    @property
    def uncommitted(self) -> int:
        """Entries beyond what it knows: a leader that is lost may have acknowledged them."""
        return self.reaches - self.committed

    @property
    def cluster_id(self) -> int:
        """Of which cluster it is; 0 where nothing tells."""
        return self.status.cluster_id if self.status else self.log.cluster_id if self.log else 0

    @property
    def tail_name(self) -> str:
        """By which name a person accepts to let go of those."""
        return f"uncommitted:{self.uncommitted}"

    @property
    def has_data(self) -> bool:
        """Whether anything is left of its data."""
        return self.state in {MemberState.SERVING, MemberState.SILENT, MemberState.STOPPED}

    @property
    def start_by_hand(self) -> str:
        """What a person types on its host to start it."""
        return START_BY_HAND if self.settings.is_static_pod else "systemctl start etcd"

    @property
    def stop_by_hand(self) -> str:
        """What a person types on its host to stop it, so that no boot starts it again."""
        return STOP_BY_HAND if self.settings.is_static_pod else "systemctl disable --now etcd"

    @property
    def is_on_host(self) -> bool:
        """Whether its host answers, and is set up to run it."""
        return self.state not in {MemberState.AWAY, MemberState.NO_UNIT}


def told(members: Sequence[MemberSeen]) -> str:
    """Every member, for people."""
    return "; ".join(map(str, members))


def members_now(cluster: EtcdCluster) -> list[MemberSeen]:
    """Every member as it is, asked side by side, without a look at logs and hashes."""
    return side_by_side(cluster.hosts, lambda host: _seen(host, cluster.unit, cluster.copies))


def members_seen(cluster: EtcdCluster) -> list[MemberSeen]:
    """Every member as it is, asked side by side; hashes are of the revision that all have."""
    asked = list(zip(cluster.hosts, members_now(cluster), strict=True))
    seen = side_by_side(asked, lambda pair: with_log(*pair))
    revisions = [one.status.revision for one in seen if one.status is not None]
    if not revisions:
        return seen
    pairs = list(zip(cluster.hosts, seen, strict=True))
    return side_by_side(pairs, lambda pair: _hashed(*pair, min(revisions)))


def side_by_side(
    targets: Sequence[Answered], ask: Callable[[Answered], MemberSeen]
) -> list[MemberSeen]:
    """Ask all at once; answers come in the order of the targets."""
    contexts = [contextvars.copy_context() for _ in targets]
    with ThreadPoolExecutor(max(1, len(targets))) as pool:
        futures = [
            pool.submit(context.run, ask, target)
            for context, target in zip(contexts, targets, strict=True)
        ]
        return [future.result() for future in futures]


def _seen(host: SshHost, unit: str, copies: str) -> MemberSeen:
    try:
        with host.session():
            found, told = found_on(host, unit)
            if found is None:
                return MemberSeen(place_of(host), MemberState.NO_UNIT, unit=told)
            argv = ["sh", "-c", ON_DISK, "on-disk", found.settings.data, copies]
            printed = host.read(argv, within_seconds=WITHIN_SECONDS, as_root=True).whole()
            on_disk = parse_on_disk(printed)
            seen = replace(on_disk, host=place_of(host), settings=found.settings, unit=told)
            if not found.is_running:
                state = MemberState.STOPPED if seen.db_bytes else MemberState.NO_DATA
                return replace(seen, state=state)
            if found.is_starting:  # of Type=notify: it serves nobody yet
                return _silent(seen)
            return _answering(host, seen)
    except Unreachable:
        return MemberSeen(place_of(host), MemberState.AWAY)


def _answering(host: SshHost, seen: MemberSeen) -> MemberSeen:
    try:
        said = etcdctl.status(host, seen.settings)
    except (Unreachable, CommandFailed) as error:
        is_not_run = isinstance(error, CommandFailed) and error.code in etcdctl.NOT_RUN
        if is_not_run and not seen.settings.is_static_pod:  # that of a container goes with it
            raise
        host.read(["true"], within_seconds=WITHIN_SECONDS)  # raises where it is the host
        return replace(_silent(seen), failure=_last_line(error))
    listed: list[Listed] = []
    with contextlib.suppress(Unreachable, CommandFailed):
        listed = etcdctl.members(host, seen.settings)
    healthy = bool(said.leader) and etcdctl.is_healthy(host, seen.settings)
    return replace(
        seen, state=MemberState.SERVING, status=said, listed=tuple(listed), is_healthy=healthy
    )


def _silent(seen: MemberSeen) -> MemberSeen:
    """A member that runs and serves nobody; one that has no data is started over and over."""
    return replace(seen, state=MemberState.SILENT if seen.db_bytes else MemberState.NO_DATA)


def with_log(host: SshHost, seen: MemberSeen) -> MemberSeen:
    """A member with the end of its log, read from its disk unless it has quorum."""
    if not seen.has_data or seen.is_healthy:
        return seen
    try:
        with host.session():
            end = log_end(host, f"{seen.settings.data}/member")
        return replace(seen, log=end)
    except (
        Unreachable,
        CommandFailed,
        UnreadableOutput,
    ):  # damaged: whatever is chosen has to stand its proof
        return seen


def _hashed(host: SshHost, seen: MemberSeen, revision: int) -> MemberSeen:
    if seen.status is None:
        return seen
    try:
        found = etcdctl.hash_at(host, seen.settings, revision)
    except (Unreachable, CommandFailed) as error:  # compacted past it, or too slow
        return replace(seen, failure=_last_line(error))
    return replace(seen, revision=revision, hash=found.hash, compacted=found.compacted)


def _last_line(error: Unreachable | CommandFailed) -> str:
    said = error.seen if isinstance(error, Unreachable) else error.tail
    return redacted_tail((said.strip().splitlines() or [""])[-1], SHOWN_MAX)


def parse_on_disk(printed: str) -> MemberSeen:
    """Read what ON_DISK prints: one `name=value` a line; what is not there is left out.

        db=20480
        log=125016
        free=1045245952
        copies_free=1045245952
        tool=etcdctl
        version=3.4.23

    Raises:
        UnreadableOutput: a number is none.
    """
    said = dict(line.split("=", 1) for line in printed.splitlines() if "=" in line)
    try:
        return MemberSeen(
            "",
            MemberState.NO_DATA,
            version=said.get("version", ""),
            tool=said.get("tool", ""),
            can_bump="bumps" in said,
            db_bytes=int(said.get("db", 0)),
            log_bytes=int(said.get("log", 0)) * 1024,
            free_bytes=int(said["free"]),
            copies_free_bytes=int(said.get("copies_free", said["free"])),
        )
    except (LookupError, ValueError) as error:
        raise UnreadableOutput("look at the data of etcd", printed) from error

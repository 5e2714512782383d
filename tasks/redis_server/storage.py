"""The files a Redis keeps its data in, the disk under them, and who may write there."""

from dataclasses import dataclass

from blocks.ssh.host import SshHost
from recovery.errors import UnreadableOutput
from tasks.redis_server.causes import Cause
from tasks.redis_server.settings import AT_START, Settings

MANIFEST = ".manifest"
FIELDS = 5
EMPTY_RDB_BYTES = 120  # a snapshot without a key has 89 to 104 bytes in 7.0
ROOM_BYTES = 16 << 20  # left free beside what is written
LOOK = r"""
[ -n "$1" ] && cd -- "$1" 2>/dev/null || { echo "absent"; exit 0; }
stat -c 'folder %U %a' .
df -P -B1 . | awk 'NR == 2 { print "free", $4 }'
df -P -i . | awk 'NR == 2 && $2 > 0 { print "inodes", $4 }'
user=$2
if runuser -u "$user" -- test -w . -a -x . 2>/dev/null; then echo "writable"; fi
if awk -v at="$(stat -c %m .)" '$2 == at { o = $4 } END { exit o !~ /(^|,)ro(,|$)/ }' /proc/mounts
then echo "read-only"; fi
awk -v at="$(pwd -P)/" 'NR == FNR { is[$2] = 1; next } { sub(/\/$/, "", $2) }
  $1 !~ /^#/ && $2 ~ /^\/./ && !($2 in is) && index(at, $2 "/") == 1 { print "unmounted", $2 }
' /proc/mounts /etc/fstab 2>/dev/null
shift 2
find "$@" -maxdepth 1 -type f -printf 'file\t%s\t%T@\t%u\t%p\n' 2>/dev/null
runuser -u "$user" -- find "$@" -maxdepth 1 -type f ! -readable -printf 'closed\t%p\n' \
  2>/dev/null
exit 0
"""


@dataclass(frozen=True)
class DataFile:
    """A file of the data. The path is within the data folder."""

    path: str
    size_bytes: int
    changed_at: float
    owner: str


@dataclass(frozen=True)
class Storage:
    """What lies where the configuration says, and what the disk under it would take."""

    folder: str
    is_there: bool
    owner: str
    mode: str
    free_bytes: int
    free_inodes: int | None  # unknown where the file system counts none
    is_writable: bool  # by the account that Redis runs as
    is_read_only: bool
    files: tuple[DataFile, ...]
    closed_files: tuple[str, ...]  # to the account that Redis runs as
    rdb: str
    aof: str
    aof_folder: str
    unmounted: str  # a place on the way to the folder that /etc/fstab mounts and nobody has mounted

    @property
    def snapshot(self) -> DataFile | None:
        """The RDB file, where there is one."""
        return next((file for file in self.files if file.path == self.rdb), None)

    @property
    def has_keys_in_snapshot(self) -> bool:
        """Whether the RDB file is larger than one without keys."""
        return self.snapshot is not None and self.snapshot.size_bytes > EMPTY_RDB_BYTES

    @property
    def aof_files(self) -> tuple[DataFile, ...]:
        """The files of the AOF: those in its folder (7.0 on), or the one there was before."""
        folder = f"{self.aof_folder}/"
        within = tuple(file for file in self.files if file.path.startswith(folder))
        return within or tuple(file for file in self.files if file.path == self.aof)

    @property
    def aof_path(self) -> str:
        """What redis-check-aof is given; empty where there is no AOF."""
        names = {file.path for file in self.files}
        for path in (f"{self.aof_folder}/{self.aof}{MANIFEST}", self.aof):
            if path in names:
                return f"{self.folder}/{path}"
        return ""

    @property
    def is_aof_unlisted(self) -> bool:
        """Whether the AOF's folder has files that no manifest names: Redis 7 loads none of them."""
        return bool(self.aof_files) and not self.aof_path

    @property
    def has_data_in_aof(self) -> bool:
        """Whether a start on the AOF loads anything: a base with keys, or writes after it."""
        return any(
            file.size_bytes > (EMPTY_RDB_BYTES if file.path.endswith(".rdb") else 0)
            for file in self.aof_files
            if not file.path.endswith(MANIFEST)
        )

    @property
    def size_bytes(self) -> int:
        """Of all files."""
        return sum(file.size_bytes for file in self.files)

    def why_not_writable(self, user: str, needed_bytes: int = 0) -> tuple[Cause, str, str] | None:
        """What keeps Redis from saving there, with the remedy; `None` where nothing does."""
        if not self.is_there:
            return (
                Cause.FOLDER,
                f"its folder {self.folder or '(deleted while it runs)'} does not exist",
                "Find out whether its disk is mounted; else create it for Redis, or correct `dir`",
            )
        if self.is_read_only:
            return (
                Cause.READ_ONLY,
                f"{self.folder} lies on a file system that is mounted read-only",
                "See `dmesg` for why (a failing disk?), and mount it writable again",
            )
        if self.free_bytes < needed_bytes or self.free_inodes == 0:
            what = "inodes" if self.free_inodes == 0 else "bytes"
            free = self.free_inodes if self.free_inodes == 0 else self.free_bytes
            return (
                Cause.DISK_FULL,
                (
                    f"the disk of {self.folder} has {free} {what} free, and {needed_bytes} bytes "
                    "are needed"
                ),
                "Make room on it: see `df`, old logs, `temp-*.rdb` that nobody writes any more",
            )
        return self._why_closed(user)

    def _why_closed(self, user: str) -> tuple[Cause, str, str] | None:
        if not self.is_writable and self.folder == AT_START:
            return (
                Cause.FOLDER,
                "its folder is /, because no other one is set",
                "Set `dir` in its configuration to the folder that holds its data",
            )
        if not self.is_writable:
            return (
                Cause.PERMISSION,
                f"{user} may not write in {self.folder} (owner {self.owner}, mode {self.mode})",
                (
                    f"`chown {user}: {self.folder}` and `chmod u+rwx {self.folder}`; with SELinux, "
                    f"`restorecon -R {self.folder}`"
                ),
            )
        if self.closed_files:
            return (
                Cause.PERMISSION,
                f"{user} may not read {', '.join(self.closed_files[:3])} in {self.folder}",
                f"`chown -R {user}: {self.folder}`",
            )
        return None


def storage_of(host: SshHost, settings: Settings, user: str) -> Storage:
    """Look at the data folder and the disk under it.

    Raises:
        CommandFailed: root may not look there.
        UnreadableOutput: something else was printed.
    """
    paths = [settings.rdb, settings.aof, settings.aof_folder]
    argv = ["sh", "-c", LOOK, "look", settings.folder, user or "root", *paths]
    printed = host.read(argv, within_seconds=30, as_root=True).whole()
    return parse_storage(printed, settings)


def parse_storage(printed: str, settings: Settings) -> Storage:
    """Read what `LOOK` prints.

        folder redis 750
        free 74483728384
        inodes 16000000
        writable
        file	104	1795240544.2480000000	redis	dump.rdb

    Raises:
        UnreadableOutput: it is something else.
    """
    words: dict[str, list[str]] = {}
    files, closed = [], []
    for line in printed.splitlines():
        parts = line.split("\t")
        if parts[0] == "file" and len(parts) == FIELDS:
            files.append(DataFile(parts[4], int(parts[1]), float(parts[2]), parts[3]))
        elif parts[0] == "closed":
            closed.append(parts[-1])
        elif line.strip():
            name, *rest = line.split()
            words[name] = rest
    is_there = "absent" not in words
    try:
        owner, mode = words["folder"] if is_there else ("", "")
        free = int(words["free"][0]) if is_there else 0
        inodes = int(words["inodes"][0]) if "inodes" in words else None
    except (KeyError, ValueError, IndexError) as error:
        raise UnreadableOutput("stat, df and find of the data folder", printed) from error
    return Storage(
        folder=settings.folder,
        is_there=is_there,
        owner=owner,
        mode=mode,
        free_bytes=free,
        free_inodes=inodes,
        is_writable="writable" in words,
        is_read_only="read-only" in words,
        files=tuple(files),
        closed_files=tuple(closed),
        rdb=settings.rdb,
        aof=settings.aof,
        aof_folder=settings.aof_folder,
        unmounted=" ".join(words.get("unmounted", [])),
    )

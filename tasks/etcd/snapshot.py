"""A snapshot of the member that is to survive: taken on its host, before anything is stopped."""

import contextlib
import re
from collections.abc import Iterable, Iterator

from blocks.ssh import detached as ssh_detached
from blocks.ssh.detached import DetachedCommand, DetachedState
from recovery.errors import CommandFailed, Refused, Unreachable, UnreadableOutput
from recovery.steps import act
from recovery.verdict import Verdict
from tasks.etcd import etcdctl, from_files
from tasks.etcd.from_files import KEEP, SUMS, TAKE_SECONDS
from tasks.etcd.parts import Part

ROOM_BYTES = 64 * 1024 * 1024
TAKE = f"""# take a snapshot, and note its SHA-256
set -eu
umask 077
to=$1
shift
mkdir -p "$to"
rm -f "$to"/snapshot.partial*
trap 'rm -f "$to"/snapshot.partial*' EXIT
"$@" "$to/snapshot.partial"
cd "$to"
{KEEP}"""
# What etcd and its tools say of data that is damaged; of all else, nothing is concluded.
DAMAGED = re.compile(
    r"panic|fatal|corrupt|crc|checksum|sha256|integrity|invalid|Input/output", re.IGNORECASE
)
IS_WHOLE = f'cd "$1" && exec sha256sum --quiet --check {SUMS}'


def taking(part: Part) -> DetachedCommand:
    """What takes it of a member that serves, on the host, whatever becomes of the connection."""
    save = etcdctl.argv(part.settings, "snapshot", "save", within_seconds=TAKE_SECONDS)
    argv = ("sh", "-c", TAKE, "take", part.copies, *save)
    return DetachedCommand("etcd-snapshot", argv, TAKE_SECONDS + 120.0)


def take_commands(part: Part) -> Iterable[str]:
    """What takes the snapshot; of the last member that serves also what does once it does not."""
    by_asking = [] if part.is_read_from_files else ssh_detached.run_lines(part.host, taking(part))
    return [*by_asking, *(from_files.commands(part) if part.is_rebuilt else [])]


def is_taken(part: Part) -> Verdict:
    """Whether it lies on the host, byte by byte as it was taken."""
    argv = ["sh", "-c", IS_WHOLE, "is-whole", part.copies]
    answer = part.host.read(argv, accept=(0, 1, 2), within_seconds=300, as_root=True)
    return Verdict.of(answer.exit_code == 0)


def refuse_if_disk_is_full(part: Part) -> None:
    """Refuse a snapshot, and a copy restored from it, for which there is no room.

    Raises:
        Refused: there is none.
    """
    needed = 4 * part.member.db_bytes + ROOM_BYTES
    if part.is_read_from_files:  # the log is copied as well, and etcd begins segments of its own
        needed += part.member.log_bytes + 3 * ROOM_BYTES
    rooms = {
        part.settings.data: part.member.free_bytes,
        part.copies: part.member.copies_free_bytes,
    }
    for folder, free in rooms.items():
        if free < needed:
            raise Refused(
                part.label,
                f"{folder} has {free} bytes free, and a snapshot with what is restored from it "
                f"takes {needed}",
                "Make room there, or name another folder in copies_in; the data of etcd itself "
                "stays",
            )


@act(
    commands=take_commands,
    done_when=is_taken,
    refuse_if=(refuse_if_disk_is_full,),
    lasts_until="put_in_place",
)
def take_snapshot(part: Part) -> None:
    """Take a snapshot of the survivor, as it is; nothing of etcd is changed or stopped.

    One that serves nobody, or whose log ends with entries that it does not know to be committed, is
    copied, and its copy is run apart from it; also one that served when it was looked at, and does
    not any more. Done twice, the second replaces the first.

    Raises:
        Refused: there is no room for it.
            Or a copy of its data does not run: it is damaged.
        Unreachable: no answer.

    Runbook: docs/runbooks/etcd.md, step 4.
    """
    with refusing(part):
        if part.is_read_from_files or not _serves(part):
            from_files.take(part)
        else:
            ssh_detached.run(part.host, taking(part))


def _serves(part: Part) -> bool:
    """Whether a member that served still does: since a boot of its host it would not.

    Raises:
        Unreachable: it does not, and is no survivor of a cluster that is rebuilt.
    """
    if ssh_detached.state(part.host, taking(part)) is DetachedState.RUNNING:
        return True
    try:
        etcdctl.status(part.host, part.settings)
    except Unreachable:
        if not part.is_rebuilt:
            raise
        return False
    return True


def run_or_refuse(part: Part, command: DetachedCommand) -> None:
    """Run what only works with data that is whole; nothing was stopped yet.

    Raises:
        Refused: it does not; where its data is damaged, says how to go on without this member.
        Unreachable: no answer.
    """
    with refusing(part):
        ssh_detached.run(part.host, command)


@contextlib.contextmanager
def refusing(part: Part) -> Iterator[None]:
    """Refuse where what only works with data that is whole fails; nothing was stopped yet.

    Raises:
        Refused: it does not; where its data is damaged, says how to go on without this member.
        Unreachable: no answer.
    """
    try:
        yield
    except UnreadableOutput as error:
        raise Refused(
            part.label,
            f"its log cannot be used, and nothing was stopped: {error}",
            "Resume once, for it may have been read while it was written to. "
            f"{_without_copy(part)}; to go on without this member, begin a new recovery with "
            f"lost=[{part.member.host}], from another one or by snapshot_file",
        ) from error
    except CommandFailed as failed:
        if "no space left" in failed.tail.lower():
            raise Refused(
                part.label,
                f"there is no room for the snapshot: {failed.tail.strip()}",
                f"Make room where {part.copies} is, then resume",
            ) from failed
        said = failed.tail.strip()
        if failed.code == from_files.NO_PROGRAM:
            raise Refused(
                part.label,
                f"a copy of its data cannot be run, and nothing was stopped: {said}",
                f"{_without_copy(part)}; or have the unit start the program of etcd itself, or put "
                "that of the same version on the host, then begin a new recovery",
            ) from failed
        is_damaged = bool(DAMAGED.search(said)) and "downgrade" not in said  # by an older tool
        if failed.code == from_files.CHANGING or not is_damaged:
            raise Refused(
                part.label,
                f"its snapshot was not taken or not proven, and nothing was stopped: {said}",
                "Nothing says that its data is damaged: mend what is named, then resume. "
                f"{_without_copy(part)}, where that cannot be",
            ) from failed
        raise Refused(
            part.label,
            f"its data cannot be used, and nothing was stopped: {said}",
            f"See whether its disk is full or damaged. To go on without it, begin a new recovery "
            f"with lost=[{part.member.host}], from another member or by snapshot_file",
        ) from failed


def _without_copy(part: Part) -> str:
    """How a snapshot can be had of this cluster where no copy can be run."""
    if part.member.status is None or not part.member.uncommitted:
        return "Name a member that serves in survivor"
    return (
        f"Begin a new recovery that accepts {part.member.tail_name}, which lets go of what a lost "
        "leader may have acknowledged last"
    )

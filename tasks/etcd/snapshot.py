"""A snapshot of the member that is to survive: taken on its host, before anything is stopped."""

from collections.abc import Iterable

from blocks import ssh_detached
from blocks.ssh_detached import DetachedCommand
from recovery.errors import Refused
from recovery.steps import act
from recovery.verdict import Verdict
from tasks.etcd import etcdctl
from tasks.etcd.parts import Part

TAKE_SECONDS = 1800
ROOM_BYTES = 64 * 1024 * 1024
FILE = "snapshot.db"
SUMS = "SHA256SUMS"
TAKE = f"""set -eu
umask 077
to=$1
shift
mkdir -p "$to"
rm -f "$to"/snapshot.partial*
"$@" "$to/snapshot.partial"
cd "$to"
mv snapshot.partial {FILE}
sha256sum {FILE} >{SUMS}.new
sync -f .
mv {SUMS}.new {SUMS}
sync -f .
cat {SUMS}
"""
IS_WHOLE = f'cd "$1" && exec sha256sum --quiet --check {SUMS}'


def taking(part: Part) -> DetachedCommand:
    """What takes it, on the host, whatever becomes of the connection."""
    save = etcdctl.argv(part.settings, "snapshot", "save", within_seconds=TAKE_SECONDS)
    argv = ("sh", "-c", TAKE, "take", part.copies, *save)
    return DetachedCommand("etcd-snapshot", argv, TAKE_SECONDS + 120.0)


def take_commands(part: Part) -> Iterable[str]:
    """What takes the snapshot."""
    return ssh_detached.run_lines(part.host, taking(part))


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
    needed = 3 * part.member.db_bytes + ROOM_BYTES
    if part.member.free_bytes < needed:
        raise Refused(
            part.label,
            f"{part.settings.data} has {part.member.free_bytes} bytes free, and a snapshot with "
            f"what is restored from it takes {needed}",
            "Make room there; the data of etcd itself stays",
        )


@act(commands=take_commands, done_when=is_taken, refuse_if=(refuse_if_disk_is_full,))
def take_snapshot(part: Part) -> None:
    """Take a snapshot of the survivor, as it is; nothing of etcd is changed or stopped.

    Done twice, the second replaces the first.

    Raises:
        Refused: there is no room for it.
        CommandFailed: etcdctl or the disk said no.
        Unreachable: no answer.

    Runbook: docs/runbooks/etcd.md, step 4.
    """
    ssh_detached.run(part.host, taking(part))

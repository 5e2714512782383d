"""A snapshot of the member that is to survive: taken on its host, before anything is stopped."""

import re
from collections.abc import Iterable

from blocks.ssh import detached as ssh_detached
from blocks.ssh.detached import DetachedCommand
from recovery.errors import CommandFailed, Refused
from recovery.steps import act
from recovery.verdict import Verdict
from tasks.etcd import etcdctl
from tasks.etcd.parts import Part

TAKE_SECONDS = 1800
ROOM_BYTES = 64 * 1024 * 1024
FILE = "snapshot.db"
SUMS = "SHA256SUMS"
CHANGING, NO_PROGRAM = 75, 78  # exit codes, none of which etcdctl has
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
mv snapshot.partial {FILE}
sha256sum {FILE} >{SUMS}.new
sync -f .
mv {SUMS}.new {SUMS}
sync -f .
cat {SUMS}
"""
# A member that serves nobody is copied, and its copy is run alone on sockets in a folder of root's:
# its log is replayed up to what it knows to be committed, which a copy of the database has not.
# What starts etcd in a container sees neither that folder nor those sockets.
TAKE_FROM_FILES = f"""# copy the data, run the copy apart, take a snapshot of it
set -eu
umask 077
PATH={etcdctl.PATH}
to=$1 data=$2 etcd=$3 name=$4
found=$(command -v "$etcd") || found=$etcd
[ "$(head -c 4 "$found" | od -An -tx1 | tr -d " ")" = 7f454c46 ] || {{
  echo "$found is not the program of etcd but what starts it, as in a container" >&2
  exit {NO_PROGRAM}
}}
run=$to/run
rm -rf "$run" "$to"/snapshot.partial*
mkdir -p "$run/data"
cd "$run"
ask="etcdctl --endpoints=unix://localhost:1 --command-timeout=5s"
server=
end() {{
  [ -z "$server" ] || kill -9 "$server" 2>/dev/null || :
  rm -rf "$run" "$to"/snapshot.partial*
}}
trap end EXIT
before=$(sha256sum <"$data/snap/db")
cp -a --reflink=auto "$data" "$run/data/member"
after=$(sha256sum <"$run/data/member/snap/db")
[ "$before" = "$after" ] && [ "$before" = "$(sha256sum <"$data/snap/db")" ] || {{
  echo "its database changes while it is copied" >&2
  exit {CHANGING}
}}
url=http://localhost:2380
env -i PATH="$PATH" "$etcd" --name "$name" --data-dir "$run/data" --force-new-cluster \
  --listen-client-urls unix://localhost:1 --advertise-client-urls unix://localhost:1 \
  --listen-peer-urls unix://localhost:2 --initial-advertise-peer-urls "$url" \
  --initial-cluster "$name=$url" >"$run/log" 2>&1 &
server=$!
n=0
until $ask endpoint health >/dev/null 2>&1; do
  n=$((n + 1))
  kill -0 "$server" 2>/dev/null && [ "$n" -lt 100 ] || {{
    grep -aE "panic|fatal|corrupt|crc|invalid" "$run/log" | tail -n 3 | cut -c 1-200 >&2
    echo "a copy of its data does not run" >&2
    exit 1
  }}
  sleep 0.2
done
timeout {TAKE_SECONDS} etcdctl --endpoints=unix://localhost:1 snapshot save "$to/snapshot.partial"
kill "$server"
wait "$server" || :
server=
cd "$to"
rm -rf "$run"
mv snapshot.partial {FILE}
sha256sum {FILE} >{SUMS}.new
sync -f .
mv {SUMS}.new {SUMS}
sync -f .
cat {SUMS}
"""
# What etcd and its tools say of data that is damaged; of all else, nothing is concluded.
DAMAGED = re.compile(
    r"panic|fatal|corrupt|crc|checksum|sha256|integrity|invalid|Input/output", re.IGNORECASE
)
IS_WHOLE = f'cd "$1" && exec sha256sum --quiet --check {SUMS}'


def taking(part: Part) -> DetachedCommand:
    """What takes it, on the host, whatever becomes of the connection."""
    if part.member.status is None:
        settings = part.settings
        files = (part.copies, part.data, settings.program, settings.name)
        argv: tuple[str, ...] = ("sh", "-c", TAKE_FROM_FILES, "take", *files)
        return DetachedCommand("etcd-snapshot", argv, TAKE_SECONDS + 120.0)
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
    needed = 4 * part.member.db_bytes + ROOM_BYTES
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

    One that serves nobody is copied, and its copy is run apart from it. Done twice, the second
    replaces the first.

    Raises:
        Refused: there is no room for it.
            Or a copy of its data does not run: it is damaged.
        Unreachable: no answer.

    Runbook: docs/runbooks/etcd.md, step 4.
    """
    run_or_refuse(part, taking(part))


def run_or_refuse(part: Part, command: DetachedCommand) -> None:
    """Run what only works with data that is whole; nothing was stopped yet.

    Raises:
        Refused: it does not; where its data is damaged, says how to go on without this member.
        Unreachable: no answer.
    """
    try:
        ssh_detached.run(part.host, command)
    except CommandFailed as failed:
        if "No space left" in failed.tail:
            raise Refused(
                part.label,
                f"there is no room for the snapshot: {failed.tail.strip()}",
                f"Make room where {part.copies} is, then resume",
            ) from failed
        said = failed.tail.strip()
        if failed.code == NO_PROGRAM:
            raise Refused(
                part.label,
                f"a copy of its data cannot be run, and nothing was stopped: {said}",
                "Name a member that serves in survivor; or have the unit start the program of etcd "
                "itself, then begin a new recovery",
            ) from failed
        if failed.code == CHANGING or not DAMAGED.search(said):
            raise Refused(
                part.label,
                f"its snapshot was not taken or not proven, and nothing was stopped: {said}",
                "Nothing says that its data is damaged: mend what is named, then resume",
            ) from failed
        raise Refused(
            part.label,
            f"its data cannot be used, and nothing was stopped: {said}",
            f"See whether its disk is full or damaged. To go on without it, begin a new recovery "
            f"with lost=[{part.member.host}], from another member or by snapshot_file",
        ) from failed

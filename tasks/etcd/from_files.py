"""A snapshot of what lies on the disk of a member: a copy of its data is run apart, and asked.

That is for one that serves nobody, and for one that has entries at the end of its log of which it
does not know whether a majority had them: a lost leader may have acknowledged them.
"""

import gzip
from collections.abc import Iterable

from blocks.ssh import detached as ssh_detached
from blocks.ssh.detached import DetachedCommand, DetachedState
from recovery.errors import UnreadableOutput
from tasks.etcd import etcdctl
from tasks.etcd.parts import Part
from tasks.etcd.tools import FIND_TOOLS
from tasks.etcd.wal import committed_to_its_end

TAKE_SECONDS = 1800
FILE = "snapshot.db"
SUMS = "SHA256SUMS"
CHANGING, NO_PROGRAM = 75, 78  # exit codes, none of which etcdctl has
KEEP = f"""mv snapshot.partial {FILE}
sha256sum {FILE} >{SUMS}.new
sync -f .
mv {SUMS}.new {SUMS}
sync -f .
cat {SUMS}
"""
COPY = f"""# where it serves nobody, or not all that it has: copy the data
set -eu
umask 077
{FIND_TOOLS}
find_tools "$(dirname "$2")"
to=$1 data=$2 etcd=$3
found=$(command -v "$etcd") || found=$etcd
[ "$(head -c 4 "$found" | od -An -tx1 | tr -d " ")" = 7f454c46 ] || {{
  echo "$found is not the program of etcd but what starts it, as in a container" >&2
  exit {NO_PROGRAM}
}}
run=$to/run
rm -rf "$run" "$to"/snapshot.partial*
trap 'rm -rf "$run"' EXIT
mkdir -p "$run/data"
before=$(sha256sum <"$data/snap/db")
cp -aL --reflink=auto "$data" "$run/data/member" # also of a log that lies elsewhere by a link
after=$(sha256sum <"$run/data/member/snap/db")
[ "$before" = "$after" ] && [ "$before" = "$(sha256sum <"$data/snap/db")" ] || {{
  echo "its database changes while it is copied" >&2
  exit {CHANGING}
}}
trap - EXIT
"""
# The copy is run alone, on sockets in a folder of root's: its log is replayed up to what it says to
# be committed, which a copy of the database has not. What starts etcd in a container sees neither
# that folder nor those sockets.
RUN = f"""# run the copy apart, take a snapshot of it
set -eu
umask 077
{FIND_TOOLS}
find_tools "$4"
to=$1 etcd=$2 name=$3
run=$to/run
cd "$run"
ask="etcdctl --endpoints=unix://localhost:1 --command-timeout=5s"
server=
end() {{
  [ -z "$server" ] || kill -9 "$server" 2>/dev/null || :
  rm -rf "$run" "$to"/snapshot.partial*
}}
trap end EXIT
if [ -e segment.gz ]; then
  gzip -dc segment.gz >segment
  cat segment >"$(ls data/member/wal/*.wal | tail -n 1)"
  rm segment segment.gz
fi
url=http://localhost:2380
env -i PATH="$PATH" "$etcd" --name "$name" --data-dir "$run/data" --force-new-cluster \
  --listen-client-urls unix://localhost:1 --advertise-client-urls unix://localhost:1 \
  --listen-peer-urls unix://localhost:2 --initial-advertise-peer-urls "$url" \
  --initial-cluster "$name=$url" >"$run/log" 2>&1 &
server=$!
n=0
answers() {{ # a full one is not called healthy, and one that wants a password reads for nobody
  $ask get {etcdctl.NO_KEY} --keys-only || $ask endpoint health
}}
until answers >/dev/null 2>&1; do
  n=$((n + 1))
  kill -0 "$server" 2>/dev/null && [ "$n" -lt 100 ] || {{
    {{ grep -aE "panic|fatal|corrupt|crc|invalid" "$run/log" || cat "$run/log"; }} |
      tail -n 3 | cut -c 1-200 >&2
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
{KEEP}"""


def copying(part: Part) -> DetachedCommand:
    """What copies the data, on the host, whatever becomes of the connection."""
    argv = ("sh", "-c", COPY, "copy", part.copies, part.data, part.settings.program)
    return DetachedCommand("etcd-copy", argv, TAKE_SECONDS)


def running(part: Part) -> DetachedCommand:
    """What runs the copy and takes a snapshot of it."""
    settings = part.settings
    places = (part.copies, settings.program, settings.name, settings.data)
    argv = ("sh", "-c", RUN, "run", *places)
    return DetachedCommand("etcd-run", argv, TAKE_SECONDS + 120.0)


def commands(part: Part) -> Iterable[str]:
    """What takes the snapshot; the log is sent only where its end has to be told of."""
    return [
        *ssh_detached.run_lines(part.host, copying(part)),
        part.host.put_line(_segment(part), as_root=True),
        part.host.command_line(_removing(part), as_root=True),
        *ssh_detached.run_lines(part.host, running(part)),
    ]


def take(part: Part) -> None:
    """Copy the data, have the copy keep all of its log, run it, and take a snapshot of that.

    Where a copy runs already, left by a worker that is gone, only its end is waited for. One whose
    log cannot be read is removed.

    Raises:
        CommandFailed: the data does not run, or changes.
        UnreadableOutput: its log is damaged.
        Unreachable: no answer.
    """
    host = part.host
    gone = {DetachedState.NOT_FOUND, DetachedState.UNKNOWN}
    if ssh_detached.state(host, running(part)) in gone:
        ssh_detached.run(host, copying(part))
        try:
            segment = committed_to_its_end(host, f"{part.copies}/run/data/member")
        except UnreadableOutput:
            host.change(_removing(part), as_root=True)
            raise
        if segment and not part.lets_go_of_tail:
            host.put(gzip.compress(segment, 1), _segment(part), as_root=True)
    ssh_detached.run(host, running(part))


def _removing(part: Part) -> list[str]:
    return ["rm", "-rf", "--one-file-system", "--", f"{part.copies}/run"]


def _segment(part: Part) -> str:
    return f"{part.copies}/run/segment.gz"

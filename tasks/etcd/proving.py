"""Proving a snapshot by restoring it beside the data: what is proven is what is put in place.

`snapshot status` takes a file with a flipped byte for whole (3.5); a restore compares the SHA-256
that etcd has appended, and a walk over what came of it finds pages that are damaged.
"""

import json
from collections.abc import Iterable

from blocks.ssh import detached as ssh_detached
from blocks.ssh.detached import DetachedCommand
from recovery.errors import NotVerified, Refused, UnreadableOutput
from recovery.steps import act, probe
from recovery.verdict import Verdict
from recovery.walk import current_fence
from tasks.etcd.data_home import MAKE_HOME
from tasks.etcd.from_files import FILE, SUMS
from tasks.etcd.parts import Part
from tasks.etcd.snapshot import run_or_refuse
from tasks.etcd.terms import Terms
from tasks.etcd.tools import FIND_TOOLS

PROVE_SECONDS = 1800.0
PROOF = "proof.json"
MARK = "recovered-by"  # in the data that was restored: tells it from all other
BUMP = 1_000_000_000  # by how much the revision is put ahead
PROVE = f"""# restore the snapshot beside the data, and walk over it
set -eu
umask 077
{FIND_TOOLS}
find_tools "$(dirname "$3")"
from=$1 aside=$2 data=$3 tool=$4 mark=$5 unit=$6
shift 6
if [ "$(cat "$data/{MARK}" 2>/dev/null)" = "$mark" ]; then
  echo "it is in place already" >&2
  exit 75
fi
(cd "$from" && sha256sum --quiet --check {SUMS})
{MAKE_HOME}
mkdir -p "$aside"
rm -rf "$aside/restored"
checked=
[ "$(($(stat -c %s "$from/{FILE}") % 512))" = 32 ] || checked=--skip-hash-check
"$tool" snapshot restore "$from/{FILE}" $checked --data-dir "$aside/restored" "$@"
timeout 600 "$tool" snapshot status "$aside/restored/member/snap/db" -w json >/dev/null
timeout 600 "$tool" snapshot status "$from/{FILE}" -w json >"$from/{PROOF}.new"
echo "$mark" >"$aside/restored/member/{MARK}"
near=$data
[ -e "$near" ] || near=$(dirname "$data")
chown -R --reference="$near" "$aside/restored/member"
sync -f "$aside"
mv "$from/{PROOF}.new" "$from/{PROOF}"
sync -f "$from"
cat "$from/{PROOF}"
"""
# Where nothing is put in place, what was restored goes again.
AND_GO = """
rm -rf "$aside/restored"
rmdir "$aside"
"""
IS_TRIED = f'[ -e "$1/{PROOF}" ]'
IS_PROVEN = f'[ -e "$1/{PROOF}" ] && [ -e "$2/restored/member/{MARK}" ]'


def bump_past(highest: int) -> int:
    """How far a revision is put ahead, to be past this one wherever it begins.

    A snapshot from before an earlier recovery is behind by as much as that one put it ahead.
    """
    return (highest // BUMP + 1) * BUMP


def proving(part: Part) -> DetachedCommand:
    """What restores it, on the host, whatever becomes of the connection."""
    settings, mark, unit = part.settings, current_fence().recovery_id, part.run.unit
    ahead = ("--bump-revision", str(bump_past(part.highest)), "--mark-compacted")
    bump = ahead if part.member.can_bump else ()
    script = PROVE if part.is_rebuilt else PROVE + AND_GO
    argv = (
        *("sh", "-c", script, "prove", part.copies, part.aside, part.data, part.member.tool),
        *(mark, unit),
        *("--name", settings.name, "--initial-cluster", part.initial_cluster),
        *("--initial-advertise-peer-urls", settings.peer_url),
        *("--initial-cluster-token", f"recover-{mark}", *bump),
    )
    return DetachedCommand("etcd-prove", argv, PROVE_SECONDS)


def prove_commands(part: Part) -> Iterable[str]:
    """What restores the snapshot beside the data."""
    return ssh_detached.run_lines(part.host, proving(part))


def is_proven(part: Part) -> Verdict:
    """Whether it was restored and walked over, and lies beside the data where it is to."""
    script = IS_PROVEN if part.is_rebuilt else IS_TRIED
    argv = ["sh", "-c", script, "is-proven", part.copies, part.aside]
    answer = part.host.read(argv, accept=(0, 1), as_root=True)
    return Verdict.of(answer.exit_code == 0)


@act(commands=prove_commands, done_when=is_proven, lasts_until="put_in_place")
def prove_snapshot(part: Part) -> None:
    """Restore the snapshot beside the survivor's data, and walk over all that came of it.

    Nothing of etcd is changed or stopped. Done twice, the second replaces the first.

    Raises:
        Refused: the snapshot is damaged, or there is no room.
        Unreachable: no answer.

    Runbook: docs/runbooks/etcd.md, step 6.
    """
    run_or_refuse(part, proving(part))


@probe
def refuse_if_older(part: Part, terms: Terms, highest: int) -> None:
    """Refuse to go on where what was restored holds less than what was seen.

    Args:
        part: the survivor.
        terms: what a person accepts.
        highest: the highest revision that a member was seen at.

    Raises:
        Refused: a member was seen that holds more, and nobody accepted that by name.
        NotVerified: the snapshot just taken is older than what it was taken of.
        UnreadableOutput: what etcdctl printed is not understood.

    Runbook: docs/runbooks/etcd.md, step 6.
    """
    argv = ["cat", "--", f"{part.copies}/{PROOF}"]
    answer = part.host.read(argv, accept=(0, 1), as_root=True)
    if answer.exit_code:  # not restored yet: a plan
        return
    found = parse_proof(answer.whole())
    own = part.member.status.revision if part.member.status is not None else 0
    if not terms.snapshot and found < own:
        raise NotVerified(
            part.label,
            f"the snapshot to hold revision {own}",
            f"revision {found}",
            "Nothing was stopped. Start this recovery again",
        )
    name = f"revisions:{highest - found}"
    if found < highest and name not in terms.accept:
        raise Refused(
            part.label,
            f"{terms.snapshot or 'its snapshot'} is at revision {found}, and a member was seen at "
            f"{highest}: what was written between is lost",
            "Recover from that member, without snapshot_file, survivor or lost; or accept it by "
            f"name: {name}",
        )


def parse_proof(printed: str) -> int:
    """Read the revision that `snapshot status -w json` prints (3.4 to 3.6).

        {"hash":1642319,"revision":204,"totalKey":210,"totalSize":53248}

    Raises:
        UnreadableOutput: it is something else.
    """
    try:
        return int(json.loads(printed)["revision"])
    except (ValueError, LookupError, TypeError) as error:
        raise UnreadableOutput("snapshot status", printed) from error

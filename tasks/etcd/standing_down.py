"""Taking the members that do not survive out of the way, so that the old cluster cannot go on.

Their data is moved aside on the same disk and stays there. First they are set up to join a cluster
that exists: with an empty directory and `new`, two of them that boot would begin an empty one.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from recovery.errors import NotVerified
from recovery.steps import act, undo
from recovery.verdict import Danger, Verdict
from tasks.etcd.data_home import MAKE_HOME
from tasks.etcd.parts import Part
from tasks.etcd.quorum_loss import refuse_if_quorum_came_back

SETTINGS = "settings-before"
EMPTIED = "emptied"  # a mark: nothing of before is in place any more
STOP_SECONDS = 150.0
MOVE_SECONDS = 60.0
# Keeps comments, order, owner and mode; a name that is not there yet is written at the end.
SET = """# set these in the environment file; the former one is kept
set -eu
umask 077
file=$1 keep=$2
shift 2
mkdir -p "$(dirname "$keep")"
[ -e "$keep" ] || { cp -p "$file" "$keep.new"; sync -f "$keep.new"; mv "$keep.new" "$keep"; }
cp -p "$file" "$file.recover"
awk "
BEGIN { for (i = 2; i < ARGC; i++) { n = index(ARGV[i], \\"=\\"); name = substr(ARGV[i], 1, n - 1)
  order[i] = name; value[name] = ARGV[i]; ARGV[i] = \\"\\" } count = ARGC }
{ name = \\$0; sub(/^[ \\t]*(export )?/, \\"\\", name); sub(/=.*/, \\"\\", name) }
!(name in value) { print; next }
!(name in seen) { print value[name]; seen[name] = 1 }
END { for (i = 2; i < count; i++) if (!(order[i] in seen)) print value[order[i]] }
" "$keep" "$@" >"$file.recover"
sync -f "$file.recover"
mv "$file.recover" "$file"
sync -f "$file"
"""
# Never over what lies there: a second one gets a number.
MOVE = f"""# move the data aside
set -eu
data=$1 aside=$2 unit=$3
umask 077
{MAKE_HOME}
mkdir -p "$aside"
if [ -e "$data" ]; then
  to=$aside/before n=1
  while [ -e "$to" ]; do to=$aside/before.$n n=$((n + 1)); done
  mv -T "$data" "$to"
fi
: >"$aside/{EMPTIED}"
sync -f "$aside"
"""
# What is in place once data was moved aside is of the new cluster, or was begun at a boot then,
# before the mark was there. A member that had no data is not started again, nor set up as it was:
# two of them with `new` would begin an empty cluster. It may have had a directory all the same, and
# that was moved as if it held something.
GO_BACK = f"""# move the data of before back, with its settings, and start it
set -eu
data=$1 aside=$2 file=$3 keep=$4 unit=$5 had=$6
if [ -e "$aside/before" ] || [ -e "$aside/{EMPTIED}" ]; then
  to=$aside/after n=1
  while [ -e "$to" ]; do to=$aside/after.$n n=$((n + 1)); done
  [ ! -e "$data" ] || mv -T "$data" "$to"
  rm -f "$aside/{EMPTIED}"
fi
[ -e "$data" ] || [ ! -e "$aside/before" ] || mv -T "$aside/before" "$data"
[ "$had" = yes ] && [ -e "$data" ] || exit 0
sync -f "$data"
if [ -e "$keep" ]; then
  cp -p "$keep" "$file.recover"
  sync -f "$file.recover"
  mv "$file.recover" "$file"
fi
systemctl reset-failed "$unit" 2>/dev/null || :
exec systemctl --no-ask-password start --no-block -- "$unit"
"""
LOOK = f"""
systemctl show -p ActiveState -p MainPID -- "$1"
[ ! -e "$2" ] || echo data=there
[ ! -e "$3/before" ] || echo before=there
[ ! -e "$3/{EMPTIED}" ] || echo emptied=yes
! {{ grep -qxF "$5" "$4" && grep -qxF "$6" "$4"; }} || echo set=yes
"""


@dataclass(frozen=True)
class Stood:
    """How far a member is out of the way."""

    is_at_rest: bool
    has_data: bool
    has_former: bool
    was_emptied: bool
    is_set: bool

    @property
    def is_out_of_the_way(self) -> bool:
        """Whether it is stopped, was emptied here, and would not begin a cluster of its own."""
        return self.is_at_rest and self.is_set and self.was_emptied and not self.has_data


def wanted_settings(part: Part) -> tuple[str, str]:
    """What a member is told of its cluster: that it exists, and who is in it."""
    listed = f"ETCD_INITIAL_CLUSTER={part.initial_cluster}"  # `docker --env-file` keeps quotes
    return ("ETCD_INITIAL_CLUSTER_STATE=existing", listed)


def set_argv(part: Part) -> list[str]:
    """What writes that into the environment file, the former one kept."""
    keep = f"{part.copies}/{SETTINGS}"
    return ["sh", "-c", SET, "set", part.settings.file, keep, *wanted_settings(part)]


def stop_argv(part: Part) -> list[str]:
    """What stops the member."""
    return ["systemctl", "--no-ask-password", "stop", "--", part.cluster.unit]


def move_argv(part: Part) -> list[str]:
    """What moves its data aside."""
    return ["sh", "-c", MOVE, "move-aside", part.data, part.aside, part.cluster.unit]


def lines(part: Part, *argvs: list[str]) -> list[str]:
    """The exact texts of commands that root runs on a part's host."""
    return [part.host.command_line(argv, as_root=True) for argv in argvs]


def change(part: Part, argv: list[str], within_seconds: float = MOVE_SECONDS) -> None:
    """Run a command that changes something on a part's host, as root."""
    part.host.change(argv, within_seconds=within_seconds, as_root=True)


def stood(part: Part) -> Stood:
    """How far a member is out of the way."""
    argv = ["sh", "-c", LOOK, "look", part.cluster.unit, part.data, part.aside]
    argv += [part.settings.file, *wanted_settings(part)]
    printed = part.host.read(argv, accept=(0, 1, 2), as_root=True).whole()
    said = dict(line.split("=", 1) for line in printed.splitlines() if "=" in line)
    return Stood(
        said.get("ActiveState") in {"inactive", "failed"} and said.get("MainPID") == "0",
        "data" in said,
        "before" in said,
        "emptied" in said,
        "set" in said,
    )


def is_stood_down(part: Part) -> Verdict:
    """Whether it is stopped, has no data in place, and would not begin a cluster of its own."""
    return Verdict.of(stood(part).is_out_of_the_way)


def stand_down_commands(part: Part) -> Iterable[str]:
    """What sets it up anew, stops it and moves its data aside."""
    return lines(part, set_argv(part), stop_argv(part), move_argv(part))


def refuse_unless_old_has_no_quorum(part: Part) -> None:
    """Refuse to stop a member of a cluster that works again; errors as of the function it asks.

    One that was emptied here, also of nothing, is none of the old cluster any more: what it has got
    since it has begun by itself, as at a boot, while the new one serves already.
    """
    seen = stood(part)
    if not (seen.has_former or seen.was_emptied):
        refuse_if_quorum_came_back(part)


def put_out_of_the_way(part: Part) -> None:
    """Set a member up to join, stop it, and move its data aside.

    Raises:
        NotVerified: it did not stop.
        CommandFailed: its host said no.
        Unreachable: no answer.
    """
    with part.host.session():
        change(part, set_argv(part))
        change(part, stop_argv(part), STOP_SECONDS)
        if not stood(part).is_at_rest:
            raise NotVerified(
                part.label,
                f"{part.cluster.unit} to be stopped",
                "that it runs",
                f"See `systemctl status {part.cluster.unit}` there: what starts it again? Then "
                "resume",
            )
        change(part, move_argv(part))


@undo
def stand_up(part: Part) -> None:
    """Put settings and data of a member back as they were, and start it.

    What it has got since is moved aside as well, and stays. One that had no data has none again,
    and is not started: it would begin a cluster of its own. Done twice, the second does nothing.

    Raises:
        CommandFailed: its host said no.
        Unreachable: no answer.

    Runbook: docs/runbooks/etcd.md, way back.
    """
    change(part, stop_argv(part), STOP_SECONDS)
    keep, file = f"{part.copies}/{SETTINGS}", part.settings.file
    had = "yes" if part.member.has_data else "no"
    argv = ["sh", "-c", GO_BACK, "go-back", part.data, part.aside, file, keep, part.cluster.unit]
    change(part, [*argv, had])


@act(
    commands=stand_down_commands,
    done_when=is_stood_down,
    each=("part",),
    refuse_if=(refuse_unless_old_has_no_quorum,),
    undo=stand_up,
    danger=Danger.DESTRUCTIVE,
    lasts_until="start_joining",
)
def stand_down(part: Part) -> None:
    """Set a member up to join, stop it, and move its data aside; nothing is removed.

    Cut off anywhere, it is done to its end when done again.

    Raises:
        Refused: the cluster has quorum again, or was written to.
        NotVerified: it did not stop.
        CommandFailed: its host said no.
        Unreachable: no answer.

    Runbook: docs/runbooks/etcd.md, step 7.
    """
    put_out_of_the_way(part)

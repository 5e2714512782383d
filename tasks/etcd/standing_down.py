"""Taking the members that do not survive out of the way, so that the old cluster cannot go on.

Their data is moved aside on the same disk and stays there. First they are set up to join a cluster
that exists: with an empty directory and `new`, two of them that boot would begin an empty one.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from recovery.errors import NotVerified
from recovery.steps import act, undo
from recovery.verdict import Danger, Verdict
from tasks.etcd.data_home import EMPTIED, MAKE_HOME
from tasks.etcd.parts import Part
from tasks.etcd.quorum_loss import refuse_if_quorum_came_back

SETTINGS = "settings-before"
MOVE_SECONDS = 60.0
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
LOOK = f"""
[ ! -e "$1" ] || echo data=there
[ ! -e "$2/before" ] || echo before=there
[ ! -e "$2/{EMPTIED}" ] || echo emptied=yes
""".strip()


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


def wanted_settings(part: Part) -> dict[str, str]:
    """What a member is told of its cluster: that it exists, and who is in it."""
    return {"initial-cluster-state": "existing", "initial-cluster": part.initial_cluster}


def kept_settings(part: Part) -> str:
    """Where its former settings are kept."""
    return f"{part.copies}/{SETTINGS}"


def take_down_lines(part: Part) -> list[str]:
    """What sets a member up to join, and stops it."""
    return part.run.take_down_lines(wanted_settings(part), kept_settings(part))


def take_down(part: Part) -> None:
    """Set a member up to join, and stop it; errors are those of `Running.take_down`."""
    part.run.take_down(wanted_settings(part), kept_settings(part))


def move_argv(part: Part) -> list[str]:
    """What moves its data aside."""
    return ["sh", "-c", MOVE, "move-aside", part.data, part.aside, part.run.unit]


def lines(part: Part, *argvs: list[str]) -> list[str]:
    """The exact texts of commands that root runs on a part's host."""
    return [part.host.command_line(argv, as_root=True) for argv in argvs]


def change(part: Part, argv: list[str], within_seconds: float = MOVE_SECONDS) -> None:
    """Run a command that changes something on a part's host, as root."""
    part.host.change(argv, within_seconds=within_seconds, as_root=True)


def stood(part: Part) -> Stood:
    """How far a member is out of the way."""
    argv = ["sh", "-c", LOOK, "look", part.data, part.aside]
    printed = part.host.read(argv, as_root=True).whole()
    said = dict(line.split("=", 1) for line in printed.splitlines() if "=" in line)
    return Stood(
        part.run.is_at_rest(),
        "data" in said,
        "before" in said,
        "emptied" in said,
        part.run.is_told(wanted_settings(part)),
    )


def is_stood_down(part: Part) -> Verdict:
    """Whether it is stopped, has no data in place, and would not begin a cluster of its own."""
    return Verdict.of(stood(part).is_out_of_the_way)


def stand_down_commands(part: Part) -> Iterable[str]:
    """What sets it up anew, stops it and moves its data aside."""
    return [*take_down_lines(part), *lines(part, move_argv(part))]


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
        take_down(part)
        if not part.run.is_at_rest():
            raise NotVerified(
                part.label,
                "its etcd to be stopped",
                "that it runs",
                f"See `systemctl status {part.run.unit}` there: what starts it again? Then resume",
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
    part.run.stop()
    keep, had = kept_settings(part), part.member.has_data
    change(part, part.run.go_back_argv(part.data, part.aside, keep, had_data=had))


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

"""Running a playbook: detached on the machine of the checkout, followed, and adopted on a resume.

Two of one checkout never run at a time: each holds a lock on the folder while it lives.
"""

import json
import shlex
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

from blocks.ssh.detached import DetachedCommand, DetachedState, UnitGone
from recovery.errors import CommandFailed, NotVerified, Refused
from recovery.secrecy.redaction import redacted_head, redacted_tail
from recovery.steps import act
from recovery.verdict import Danger
from recovery.walk import step_logger
from tasks.kubespray.callback import PLUGIN, SOURCE, Progress
from tasks.kubespray.edits import sha256
from tasks.kubespray.target import Kubespray, encoded

TAKEN = 75
TIMED_OUT = 124
SLACK_SECONDS = 90.0
POLL_SECONDS, POLL_SECONDS_MAX = 0.5, 10.0
EVENTS_BYTES = 60_000
FOLLOWED = {DetachedState.RUNNING, DetachedState.SUCCEEDED, DetachedState.FAILED}
Value = str | int | bool
# Success is noted by the run itself: nobody else may have been there to see it.
RUN = """set -eu
umask 077
kept=$1 name=$2 project=$3
shift 3
mkdir -p "$kept/plugins"
cd "$project"
[ -z "$HOME_OF_LOGIN" ] || export HOME=$HOME_OF_LOGIN
unset HOME_OF_LOGIN
export LC_ALL=C.UTF-8 ANSIBLE_NOCOLOR=1 ANSIBLE_FORCE_COLOR=0 PYTHONUNBUFFERED=1
export ANSIBLE_CALLBACK_PLUGINS="$kept/plugins" ANSIBLE_CALLBACKS_ENABLED=@plugin@
export RECOVER_EVENTS="$kept/$name.events"
rm -f "$RECOVER_EVENTS" "$kept/$name.succeeded"
flock -n -E 75 "$project" "$@" >"$kept/$name.log" 2>&1
: >"$kept/$name.succeeded"
""".replace("@plugin@", PLUGIN)
PUT = """set -eu
umask 077
mkdir -p "$1/plugins"
base64 -d >"$1/plugins/@plugin@.new"
[ "$(sha256sum <"$1/plugins/@plugin@.new" | cut -d " " -f 1)" = "$2" ]
mv "$1/plugins/@plugin@.new" "$1/plugins/@plugin@.py"
""".replace("@plugin@", PLUGIN)
# Whole lines only, up to so many bytes: what is cut comes with the next look.
FOLLOW = 'tail -c "+$(($2 + 1))" "$1" 2>/dev/null | head -c "$3" || :'
LOG_TAIL = 'tail -n 25 "$1" 2>/dev/null || :'
# Those of any account: the program itself, alone or by its interpreter, whose folder is in the
# checkout or cannot be seen, or that names the inventory.
OTHERS = """inventory=$1
project=$(readlink -f -- "$2") || project=$2
tab=$(printf "\\t")
for entry in /proc/[0-9]*; do
  line=$(tr "\\0\\n" "\\t " <"$entry/cmdline" 2>/dev/null) || continue
  first=${line%%"$tab"*}
  rest=${line#*"$tab"}
  second=${rest%%"$tab"*}
  case $second in
  -*) rest=${rest#*"$tab"} && second=${rest%%"$tab"*} ;;
  esac
  case ${first##*/}:${second##*/} in
  ansible-playbook:* | python*:ansible-playbook) ;;
  *) continue ;;
  esac
  folder=$(readlink "$entry/cwd" 2>/dev/null) || folder=
  case $folder/ in
  / | "$project"/*) ;;
  *) case $line in *"$inventory"*) ;; *) continue ;; esac ;;
  esac
  echo "$line" | tr "\\t" " "
done
"""


@dataclass(frozen=True)
class Playbook:
    """A playbook of the checkout and what it is run with.

    Attributes:
        name: tells it from the other runs of the same recovery.
        file: in the checkout, as `cluster.yml`.
        limit: hosts or groups, separated by commas; empty: all.
        variables: typed extra variables.
        within_seconds: after so long the machine itself ends it.
    """

    name: str
    file: str
    limit: str = ""
    variables: tuple[tuple[str, Value], ...] = ()
    within_seconds: float = 4 * 3600.0

    @property
    def label(self) -> str:
        """Its name."""
        return self.name

    def argv(self, order: Kubespray) -> list[str]:
        """The command."""
        more = ["--limit", self.limit] if self.limit else []
        values: Mapping[str, Value] = dict(self.variables)
        if values:
            more += ["-e", json.dumps(values, sort_keys=True)]
        return [order.program, "-i", order.inventory, "-b", self.file, *more]


class PlaybookFailed(CommandFailed):
    """A playbook ended with failures; names task and host. Fields as of CommandFailed."""


def command_of(order: Kubespray, playbook: Playbook) -> DetachedCommand:
    """What is run detached."""
    script = f"HOME_OF_LOGIN={shlex.quote(order.home)}\n{RUN}"
    argv = ("sh", "-c", script, "playbook", order.kept, playbook.name, order.project)
    name = f"playbook-{playbook.name}"
    return DetachedCommand(name, (*argv, *playbook.argv(order)), playbook.within_seconds)


def run_commands(order: Kubespray, playbook: Playbook) -> list[str]:
    """The playbook in one line, what puts the plugin there, what starts and settles the run."""
    told = f"# in {order.project}: {shlex.join(playbook.argv(order))}"
    put = order.machine.line(_put_argv(order))
    return [told, put, *order.machine.detached_lines(command_of(order, playbook))]


def has_succeeded(order: Kubespray, playbook: Playbook) -> bool:
    """Whether this run of this recovery has ended well, by its own note."""
    argv = ["test", "-f", f"{order.kept}/{playbook.name}.succeeded"]
    is_noted = order.machine.read(argv, accept=(0, 1)).exit_code == 0
    # A note is there an instant before the command is seen to have ended: then it is waited for.
    state = order.machine.look(command_of(order, playbook)).state
    return is_noted and state is DetachedState.NOT_FOUND


def refuse_unless_alone(order: Kubespray, playbook: Playbook) -> None:
    """Refuse while another playbook of this inventory runs, started by whomever.

    Raises:
        Refused: one does.

    Runbook: docs/runbooks/kubespray.md, step 7.
    """
    if is_begun(order, playbook):
        return
    if others := running_now(order):
        raise Refused(
            order.label,
            f"another playbook of this inventory runs: {redacted_head(others[0], 300)}",
            "Let it end, or find out who started it; then resume",
        )


def refuse_unless_understood(order: Kubespray, playbook: Playbook) -> None:
    """Refuse a playbook that Ansible cannot even read, with the inventory as it is now.

    Raises:
        Refused: carries what Ansible says.

    Runbook: docs/runbooks/kubespray.md, step 7.
    """
    if is_begun(order, playbook):
        return
    script = 'cd "$1" && shift && LC_ALL=C.UTF-8 exec "$@" --syntax-check'
    unlimited = replace(playbook, limit="")  # in a plan, a host that comes in is not there yet
    argv = ["sh", "-c", script, "syntax", order.project, *unlimited.argv(order)]
    answer = order.machine.read(argv, within_seconds=300, accept=tuple(range(256)))
    if answer.exit_code:
        said = redacted_tail((answer.stdout + answer.stderr).strip(), 800)
        raise Refused(
            order.label,
            f"{playbook.file} cannot be run: {said}",
            "Install what the checkout asks for (requirements.txt), or take its own tag",
        )


def is_begun(order: Kubespray, playbook: Playbook) -> bool:
    """Whether a run of it goes on or has ended unsettled: it is followed, and not begun again.

    One that was ended from outside is begun anew, so that everything has to be asked again.
    """
    return order.machine.look(command_of(order, playbook)).state in FOLLOWED


def running_now(order: Kubespray) -> list[str]:
    """The playbooks of this inventory or checkout that run there now, as they were called."""
    argv = ["sh", "-c", OTHERS, "others", order.inventory, order.project]
    return order.machine.read(argv).whole().splitlines()


@act(
    commands=run_commands,
    done_when=has_succeeded,
    refuse_if=(refuse_unless_alone, refuse_unless_understood),
    each=("playbook",),
    redo_stale=False,
    danger=Danger.DESTRUCTIVE,
)
def run_playbook(order: Kubespray, playbook: Playbook) -> None:
    """Run a playbook to its end, or go on following one that an earlier attempt has started.

    What it does cannot be taken back. It goes on when the worker is lost. One that has failed is
    run anew by the next attempt, from its beginning, as its authors mean it.

    Raises:
        PlaybookFailed: tasks failed; names them with their hosts.
        UnitGone: there is no trace of how it ended; resuming runs it anew.
        NotVerified: it runs past the time it was given.
        Unreachable: no answer from the machine; the playbook goes on there.

    Runbook: docs/runbooks/kubespray.md, step 8.
    """
    machine, command = order.machine, command_of(order, playbook)
    with machine.session():
        machine.change(_put_argv(order), stdin=encoded(SOURCE))
        machine.start(command)
        progress = _follow(order, playbook, command)
        ended = machine.look(command)
        if ended.state is DetachedState.SUCCEEDED:
            machine.settle(command)
            return
        if ended.state is not DetachedState.FAILED:
            raise UnitGone(
                machine.label,
                f"to find how {playbook.file} ended",
                f"no trace of it; last it was at {progress}",
                "The machine may have booted, or somebody ended it: look at the cluster, then "
                "resume, which runs it anew",
            )
        failed = _failed(order, playbook, progress, ended.exit_code)
        machine.settle(command)
        raise failed


def _follow(order: Kubespray, playbook: Playbook, command: DetachedCommand) -> Progress:
    """Tell what the run tells, until it has ended and all of it is told."""
    progress, offset, pause, shown = Progress(), 0, POLL_SECONDS, ""
    until = time.monotonic() + playbook.within_seconds + SLACK_SECONDS
    while True:
        state = order.machine.look(command).state
        offset, is_more = _take_events(order, playbook, progress, offset)
        for failure in progress.failures[len(shown.splitlines()) :]:
            step_logger().warning("%s", failure)
        shown = "\n".join(f.host for f in progress.failures)
        step_logger().info("%s: %s", playbook.file, progress)
        if state is not DetachedState.RUNNING and not is_more:
            return progress
        if state is DetachedState.RUNNING and time.monotonic() > until:
            raise NotVerified(
                order.machine.label,
                f"{playbook.file} to have ended within {playbook.within_seconds:g} s",
                f"it still runs, at {progress}",
                f"See {order.kept}/{playbook.name}.log there; resuming waits for it again",
            )
        if is_more:
            continue
        time.sleep(pause)
        pause = min(POLL_SECONDS_MAX, pause * 1.1)


def _take_events(
    order: Kubespray, playbook: Playbook, progress: Progress, offset: int
) -> tuple[int, bool]:
    """Take in whole lines from there on: how far they go, and whether more is there already."""
    path, size = f"{order.kept}/{playbook.name}.events", EVENTS_BYTES
    while True:
        argv = ["sh", "-c", FOLLOW, "follow", path, str(offset), str(size)]
        printed = order.machine.text_of(argv).encode()
        whole = printed[: printed.rfind(b"\n") + 1]
        is_more = len(printed) >= size
        if whole or not is_more:
            break
        size *= 2  # one event is longer: that in the end has a word for each host
    progress.take(whole.decode(errors="replace").splitlines())
    return offset + len(whole), is_more


def _failed(
    order: Kubespray, playbook: Playbook, progress: Progress, code: int | None
) -> PlaybookFailed:
    """What is said of a run that failed."""
    log = f"{order.kept}/{playbook.name}.log"
    if progress.failures:
        said = "; ".join(map(str, progress.failures[:5]))
    else:
        said = order.machine.read(["sh", "-c", LOG_TAIL, "log", log]).stdout.strip()
    remedy = f"The whole output is in {log} on {order.machine.label}. Mend the cause, then resume"
    if code == TAKEN:
        remedy = "Another playbook of this checkout runs: let it end, then resume"
    if code == TIMED_OUT:
        remedy = f"It took longer than {playbook.within_seconds:g} s. {remedy}"
    return PlaybookFailed(
        order.machine.label,
        shlex.join(playbook.argv(order)),
        "none" if code is None else code,
        said,
        remedy,
    )


def _put_argv(order: Kubespray) -> list[str]:
    return ["sh", "-c", PUT, "put", order.kept, sha256(SOURCE)]

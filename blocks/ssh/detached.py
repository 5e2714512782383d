"""Commands that go on at the host when the connection or the worker is lost.

Each runs as a transient unit of the host's systemd (219 to 257), named by the recovery and the
command: `recover-<recovery id>-<name>.service`. Whoever starts it again adopts what is there. Its
output and exit code lie under /run/recover/units/<unit>/, for root alone, until it is settled or
the host boots.
"""

import re
import shlex
import time
from dataclasses import dataclass
from enum import StrEnum

from blocks.ssh.command import TAIL_LINES
from blocks.ssh.deadline import Deadline
from blocks.ssh.detached_scripts import (
    FAST_LOOKS,
    KILL_AFTER_SECONDS,
    LOOK,
    OUTPUT_BYTES_MAX,
    READ_TAIL,
    SETTLE,
    START,
    STATUS,
)
from blocks.ssh.host import SshHost
from recovery.errors import CommandFailed, NotVerified, Unreachable, UnreadableOutput
from recovery.walk import current_fence

NAME = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?")
SLACK_SECONDS = 30.0  # what a worker waits longer than the host does
START_WITHIN_SECONDS = 90.0
LOOK_SECONDS = 10  # one look lasts this long while nothing ends
PAUSE_SECONDS = 1.0
GOING_DOWN_SECONDS = 60.0  # so long a host that says no may only be shutting down
CHUNK_BYTES_MAX = 100_000
TIMED_OUT = 124  # what timeout(1) ends with


class DetachedState(StrEnum):
    """How far a detached command came."""

    NOT_FOUND = "not-found"  # no trace: it was never started, was settled, or the host has booted
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    UNKNOWN = "unknown"  # it began, and was ended from outside before it said how it went


@dataclass(frozen=True)
class DetachedCommand:
    """What is to be run as root. After `within_seconds` the host itself ends it (exit code 124).

    The name tells it from the other detached commands of the same recovery on the same host.
    """

    name: str
    argv: tuple[str, ...]
    within_seconds: float

    def __post_init__(self) -> None:
        """Refuse what is a mistake in the step."""
        if not NAME.fullmatch(self.name):
            raise ValueError(f"{self.name!r} is no name: use small letters, digits, dots, dashes")
        if not self.argv:
            raise ValueError("a detached command is empty")
        if self.within_seconds <= 0:
            raise ValueError("a detached command needs a deadline")

    @property
    def unit(self) -> str:
        """Its unit; in a plan with the placeholder of the recovery's id."""
        return f"recover-{current_fence().recovery_id}-{self.name}.service"


@dataclass(frozen=True)
class Detached:
    """A detached command as the host knows it.

    Attributes:
        state: how far it came.
        exit_code: of the command; `None` while it has none, and where a signal ended it.
        output: what it printed, both streams; the middle of a long one is left out.
        result: systemd's word for how the unit ended: success, exit-code, signal, oom-kill.
    """

    unit: str
    state: DetachedState
    exit_code: int | None = None
    output: str = ""
    result: str = ""


class UnitGone(NotVerified):
    """No trace of how a detached command ended. Fields as of NotVerified."""


def start_line(host: SshHost, command: DetachedCommand) -> str:
    """The exact text of `start`, for the plan."""
    return host.command_line(_start_argv(command), as_root=True)


def settle_line(host: SshHost, command: DetachedCommand) -> str:
    """The exact text of `settle`, for the plan."""
    return host.command_line(_settle_argv(command), as_root=True)


def run_lines(host: SshHost, command: DetachedCommand) -> list[str]:
    """The exact texts of `run`, for the plan."""
    return [start_line(host, command), settle_line(host, command)]


def start(host: SshHost, command: DetachedCommand) -> None:
    """Start the command, or adopt it where it runs or has ended and is not settled yet.

    Done twice, the second does nothing. One that was ended from outside is begun anew, and what
    it left is put aside beside it.

    Raises:
        CommandFailed: the host has no systemd, or another recovery runs a command of this name.
        AnswerLost: not known whether it began; starting it again adopts it.
    """
    host.change(_start_argv(command), within_seconds=START_WITHIN_SECONDS, as_root=True)


def state(host: SshHost, command: DetachedCommand) -> DetachedState:
    """How far the command came, without waiting; errors are those of `SshHost.read`."""
    return look(host, command).state


def look(host: SshHost, command: DetachedCommand) -> Detached:
    """The command as the host knows it now, with the beginning of its output.

    Raises:
        CommandFailed: the host has no systemd; that is not "not found".
        Unreachable: no answer.
    """
    return _look(host, command.unit, 0, 0)[0]


def wait(host: SshHost, command: DetachedCommand) -> Detached:
    """Wait until the command has succeeded; what it prints is heard meanwhile.

    A connection that is lost is opened anew, up to the command's own deadline and a little more.

    Raises:
        CommandFailed: it failed; carries its last lines. `settle` it before it is started again.
        UnitGone: there is no trace of how it ended, as after a boot: look at what it was to do.
        NotVerified: it runs past the deadline at which the host should have ended it.
        Unreachable: no answer until then.
    """
    unit = command.unit
    deadline = Deadline(command.within_seconds + KILL_AFTER_SECONDS + SLACK_SECONDS)
    going_down = deadline.at_most(GOING_DOWN_SECONDS)
    printed, offset = "", 0
    while True:
        try:
            seen, until, size = _look(host, unit, offset, LOOK_SECONDS)
        except (Unreachable, CommandFailed) as error:
            if (deadline if error.is_retried else going_down).is_over:
                raise
            time.sleep(PAUSE_SECONDS)
            continue
        going_down = deadline.at_most(GOING_DOWN_SECONDS)
        is_all = until >= size or (size >= OUTPUT_BYTES_MAX and until == offset)
        printed, offset = printed + seen.output, until
        if seen.state is DetachedState.RUNNING and deadline.is_over:
            raise NotVerified(
                host.target,
                f"{unit} to have ended within {command.within_seconds:g} s",
                f"still running; it printed: {_last_lines(printed) or 'nothing'}",
                f"See `systemctl status {unit}` there; resuming waits for it again",
            )
        if seen.state is not DetachedState.RUNNING and is_all:
            break
    if size >= OUTPUT_BYTES_MAX:
        printed += _tail(host, unit)
    return _require_success(
        host, command, Detached(unit, seen.state, seen.exit_code, printed, seen.result)
    )


def settle(host: SshHost, command: DetachedCommand) -> None:
    """Take an ended command away: its traces if it succeeded, else they are put aside and kept.

    What it left running in the background ends with it. The same name can then be started anew.
    Done twice, or where there is none, it does nothing.

    Raises:
        CommandFailed: it still runs.
    """
    host.change(_settle_argv(command), within_seconds=START_WITHIN_SECONDS, as_root=True)


def run(host: SshHost, command: DetachedCommand) -> Detached:
    """Start or adopt the command, wait for it, settle it; return how it went.

    For acts with a probe. Killed between success and the journal, an act without one would run its
    command again: such a one calls `start` and `wait`, and a later act settles.

    Raises:
        CommandFailed: it failed, now or before an earlier worker could tell; the next run of it
            begins anew, and what this one printed is kept at the host.
        UnitGone: as of `wait`; so are NotVerified and Unreachable.
    """
    with host.session():
        start(host, command)
        try:
            ended = wait(host, command)
        except CommandFailed:
            settle(host, command)
            raise
        settle(host, command)
    return ended


def parse_look(unit: str, printed: str) -> tuple[Detached, int, int]:
    """Read what LOOK prints: the output, an end of line of its own, and a line on the unit.

        done.

        recover-unit LoadState=loaded ActiveState=active SubState=exited Result=success Began=yes \
            ExitCode=0 Size=6 Until=6

    Returns:
        The command, how far its output was read, and how long that is in bytes.

    Raises:
        UnreadableOutput: a word is missing, or a number is none.
    """
    output, _, status = printed.rpartition(f"\n{STATUS} ")
    said = dict(word.split("=", 1) for word in status.split() if "=" in word)
    try:
        code = int(said["ExitCode"]) if said["ExitCode"] else None
        until, size = int(said["Until"]), int(said["Size"])
        judged = _judge(said, code)
    except (KeyError, ValueError) as error:
        raise UnreadableOutput(f"look at {unit}", printed) from error
    return Detached(unit, judged, code, output, said.get("Result", "")), until, size


def _judge(said: dict[str, str], code: int | None) -> DetachedState:
    if code is not None:
        return DetachedState.SUCCEEDED if code == 0 else DetachedState.FAILED
    active, is_loaded = said["ActiveState"], said["LoadState"] == "loaded"
    if active == "failed":
        return DetachedState.FAILED
    if active == "inactive" or said["SubState"] == "exited":
        if said["Began"]:
            return DetachedState.UNKNOWN
        return DetachedState.RUNNING if is_loaded else DetachedState.NOT_FOUND
    return DetachedState.RUNNING


def _require_success(host: SshHost, command: DetachedCommand, ended: Detached) -> Detached:
    if ended.state is DetachedState.SUCCEEDED:
        return ended
    if ended.state is DetachedState.FAILED:
        remedy = ""
        if ended.exit_code == TIMED_OUT:
            remedy = (
                f"124 is how the host ends what takes longer than {command.within_seconds:g} s; "
                "find out what it waited for, then resume"
            )
        raise CommandFailed(
            host.target,
            shlex.join(command.argv),
            f"none, {ended.result}" if ended.exit_code is None else ended.exit_code,
            _last_lines(ended.output),
            remedy,
        )
    raise UnitGone(
        host.target,
        f"to find how {ended.unit} ended",
        "no trace of it"
        if ended.state is DetachedState.NOT_FOUND
        else f"that it was ended from outside; it printed: {_last_lines(ended.output)}",
        "The host may have booted, or somebody stopped it: resume, and the step's probe tells "
        "whether it is done",
    )


def _look(host: SshHost, unit: str, offset: int, seconds: int) -> tuple[Detached, int, int]:
    chunk = max(1, min(CHUNK_BYTES_MAX, host.output_max_bytes // 4))
    looks = FAST_LOOKS + seconds if seconds else 0
    argv = ["sh", "-c", LOOK, "look", unit, str(looks), str(offset), str(chunk)]
    answer = host.read(argv, within_seconds=seconds + START_WITHIN_SECONDS, as_root=True)
    return parse_look(unit, answer.whole())


def _tail(host: SshHost, unit: str) -> str:
    tail = host.read(["sh", "-c", READ_TAIL, "tail", unit], as_root=True).stdout
    return f"[… some left out …]\n{tail}"


def _start_argv(command: DetachedCommand) -> list[str]:
    seconds, text = f"{command.within_seconds:g}", f"exec {shlex.join(command.argv)}"
    return ["sh", "-c", START, "start", command.unit, seconds, text, command.name]


def _settle_argv(command: DetachedCommand) -> list[str]:
    return ["sh", "-c", SETTLE, "settle", command.unit]


def _last_lines(text: str) -> str:
    return "\n".join(text.strip().splitlines()[-TAIL_LINES:])

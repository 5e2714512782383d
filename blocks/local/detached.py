"""Commands on the worker's own machine that go on when the worker is killed, and are adopted.

The counterpart of `ssh_detached` where there is neither SSH nor systemd in between. A machine that
boots, or a container that ends, ends them: then there is no trace of how, and they are begun anew.
"""

import shlex
from pathlib import Path

from blocks.local.detached_scripts import LOOK, SETTLE, START
from blocks.local.machine import LocalMachine
from blocks.ssh.detached import START_WITHIN_SECONDS, Detached, DetachedCommand, DetachedState
from blocks.ssh.detached_scripts import STATUS
from recovery.errors import UnreadableOutput


def start_line(machine: LocalMachine, command: DetachedCommand) -> str:
    """The exact text of `start`, for the plan."""
    return machine.command_line(_start_argv(machine, command))


def settle_line(machine: LocalMachine, command: DetachedCommand) -> str:
    """The exact text of `settle`, for the plan."""
    return machine.command_line(_settle_argv(machine, command))


def start(machine: LocalMachine, command: DetachedCommand) -> None:
    """Start the command, or adopt it where it runs or has ended and is not settled yet.

    Raises:
        CommandFailed: a later attempt has been here, or it cannot be started.
    """
    machine.change(_start_argv(machine, command), within_seconds=START_WITHIN_SECONDS)


def look(machine: LocalMachine, command: DetachedCommand) -> Detached:
    """The command as the machine knows it now, with the end of its output."""
    argv = ["sh", "-c", LOOK, "look", str(_folder(machine, command))]
    return parse_look(command.unit, machine.read(argv).whole())


def settle(machine: LocalMachine, command: DetachedCommand) -> None:
    """Take an ended command away: its traces if it succeeded, else they are put aside and kept.

    Raises:
        CommandFailed: it still runs.
    """
    machine.change(_settle_argv(machine, command), within_seconds=START_WITHIN_SECONDS)


def parse_look(unit: str, printed: str) -> Detached:
    """Read what LOOK prints: the output, an end of line of its own, and a line on the command.

        recover-unit Lives=yes Began=yes ExitCode=

    Raises:
        UnreadableOutput: a word is missing, or the number is none.
    """
    output, _, status = printed.rpartition(f"\n{STATUS} ")
    said = dict(word.split("=", 1) for word in status.split() if "=" in word)
    try:
        code = int(said["ExitCode"]) if said["ExitCode"] else None
        lives, began = said["Lives"], said["Began"]
    except (KeyError, ValueError) as error:
        raise UnreadableOutput(f"look at {unit}", printed) from error
    if code is not None:
        state = DetachedState.FAILED if code else DetachedState.SUCCEEDED
    elif lives:
        state = DetachedState.RUNNING
    else:
        state = DetachedState.UNKNOWN if began else DetachedState.NOT_FOUND
    return Detached(unit, state, code, output)


def _folder(machine: LocalMachine, command: DetachedCommand) -> Path:
    return machine.jobs / command.unit.removesuffix(".service")


def _start_argv(machine: LocalMachine, command: DetachedCommand) -> list[str]:
    seconds, text = f"{command.within_seconds:g}", f"exec {shlex.join(command.argv)}"
    return ["sh", "-c", START, "start", str(_folder(machine, command)), seconds, text]


def _settle_argv(machine: LocalMachine, command: DetachedCommand) -> list[str]:
    return ["sh", "-c", SETTLE, "settle", str(_folder(machine, command))]

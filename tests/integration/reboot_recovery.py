"""A recovery that changes a host by a detached command and then reboots it.

`python -m tests.integration.reboot_recovery run URL` runs it by the command line, `resume` goes on
with what the journal holds: on the worker of a test, or on the host that is rebooted itself.
"""

import contextlib
import sys

from blocks.inventory import host_named
from blocks.ssh import detached
from blocks.ssh.detached import DetachedCommand
from blocks.ssh.host import SshHost
from operate.cli import app
from recovery.declare import recovery
from recovery.journal.opening import open_journal
from recovery.steps import act
from recovery.verdict import Danger
from tasks.reboot import boot_id_before, came_back, reboot

LINES = "/root/lines"  # a line for each time the command ran; a disk keeps it over a boot
NOTE = DetachedCommand("note", ("sh", "-c", f"sleep 0.2; echo noted >>{LINES}; sync {LINES}"), 30)


def has_noted(host: SshHost) -> bool:
    return host.read(["test", "-s", LINES], accept=(0, 1)).exit_code == 0


def note_commands(host: SshHost) -> list[str]:
    return detached.run_lines(host, NOTE)


@act(commands=note_commands, done_when=has_noted, each=("host",))
def note(host: SshHost) -> None:
    """Append a line, detached."""
    detached.run(host, NOTE)


@recovery(
    runbook="docs/runbooks/none.md",
    target=lambda host: host_named(host).label,
    danger=Danger.DESTRUCTIVE,
)
def note_and_reboot(
    host: str,
    units: tuple[str, ...] = ("ssh",),
    within_seconds: float = 60.0,
) -> str:
    """Append a line, reboot, and see that it came back."""
    machine = host_named(host)
    before = boot_id_before(machine)
    note(machine)
    reboot(machine, before, within_seconds)
    return came_back(machine, before, units, within_seconds)


def main(verb: str, *url: str) -> None:
    if verb == "run":
        arguments = ["run", "note-and-reboot", "--set", f"host={url[0]}"]
        arguments += ["--break-glass", "test", "--by", "tester"]
    else:
        with contextlib.closing(open_journal()) as journal:
            (recovery_id,) = journal.recovery_ids()
        arguments = ["resume", recovery_id]
    app([*arguments, "--json"], prog_name="recover")


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Recoveries that stand in for real ones, and the command that runs them.

Their world is a folder of files, so that what they did can be looked at.
"""

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

from typer.testing import CliRunner

from operate.cli import app
from recovery.commands import changing
from recovery.declare import recovery
from recovery.errors import CommandFailed, RecoveryError, Refused
from recovery.journal.opening import find_recovery, open_journal
from recovery.steps import act, probe, undo, verify
from recovery.verdict import Danger, Verdict

ROOT = Path(__file__).resolve().parents[2]
ENTRY = f"import {__name__}; from operate.cli import app; app(prog_name='recover')"
SECONDS = 55


def has_file(folder: Path, name: str) -> Verdict:
    if (folder / f"unknown-{name}").exists():
        return Verdict.UNKNOWN
    return Verdict.of((folder / name).exists())


def touch_command(folder: Path, name: str) -> list[str]:
    return [f"touch {folder / name}"]


@undo
def remove(folder: Path, name: str) -> None:
    with changing(f"rm {folder / name}", str(folder)):
        (folder / name).unlink(missing_ok=True)


@probe
def refuse_if_frozen(folder: Path) -> None:
    if (folder / "frozen").exists():
        raise Refused(str(folder), "it is frozen", "Thaw it")


@act(commands=touch_command, done_when=has_file, undo=remove, each=("name",))
def touch(folder: Path, name: str) -> None:
    with changing(touch_command(folder, name)[0], str(folder)):
        while (folder / f"hold-{name}").exists():
            time.sleep(0.05)
        if (folder / f"break-{name}").exists():
            raise CommandFailed(str(folder), f"touch {name}", 1, "no space left\non device")
        (folder / name).write_text(str(os.getpid()))


@act(commands=touch_command, done_when=has_file, each=("name",), danger=Danger.DESTRUCTIVE)
def overwrite(folder: Path, name: str) -> None:
    with changing(touch_command(folder, name)[0], str(folder)):
        (folder / name).write_text("")


@verify
def wait_until_all_there(folder: Path, names: list[str]) -> None:
    assert all((folder / name).exists() for name in names)


def folder_named(folder: Path) -> str:
    return str(folder)


@recovery(runbook="docs/runbooks/touch.md", target=folder_named, answers=["Gone"])
def touch_files(folder: Path, names: list[str] = ["a", "b", "c"], days: int = 30) -> int:  # noqa: B006
    """Touch files."""
    refuse_if_frozen(folder)
    for name in names:
        touch(folder, name)
    wait_until_all_there(folder, names)
    return days


@recovery(
    runbook="docs/runbooks/overwrite.md",
    target=folder_named,
    danger=Danger.DESTRUCTIVE,
)
def overwrite_files(folder: Path) -> None:
    """Overwrite a file."""
    overwrite(folder, "a")


class Command:
    """The command with a journal and a world of its own. `env` counts for the next call.

    Prefect takes two seconds to import: called, the command runs in this process, unless it is to
    be a process of its own; started, it always is one.
    """

    def __init__(self, folder, env=None, *, is_process=False):
        self.is_process = is_process
        self.world = folder / "world"
        self.world.mkdir()
        self.journal = folder / "journal.sqlite"
        self.env = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "RECOVER_"))},
            "PREFECT_HOME": os.environ["PREFECT_HOME"],
            "PYTHONPATH": str(ROOT),
            "RECOVER_JOURNAL": str(self.journal),
            "RECOVER_LEASE_SECONDS": "4",
            "USER": "tester",
            **(env or {}),
        }

    def start(self, *arguments):
        return subprocess.Popen(
            [sys.executable, "-c", ENTRY, *map(str, arguments)],
            cwd=self.world,
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __call__(self, *arguments, exits=0):
        if self.is_process:
            process = self.start(*arguments)
            stdout, stderr = process.communicate(timeout=SECONDS)
            code = process.returncode
        else:
            with contextlib.chdir(self.world), mock.patch.dict(os.environ, self.env, clear=True):
                called = CliRunner().invoke(app, list(map(str, arguments)), prog_name="recover")
            stdout, stderr, code = called.stdout, called.stderr, called.exit_code
        assert code == exits, stdout + stderr
        return stdout, stderr

    def json(self, *arguments, exits=0):
        stdout, _ = self(*arguments, "--json", exits=exits)
        return json.loads(stdout)

    def touch(self, *more, exits=0):
        return self.json("run", "touch-files", "--set", f"folder={self.world}", *more, exits=exits)

    def put(self, name):
        (self.world / name).write_text("")

    def take_away(self, name):
        (self.world / name).unlink()

    def made(self):
        return sorted(path.name for path in self.world.iterdir() if len(path.name) == 1)

    def killed_in(self, step, *more):
        """Start a run, kill it inside of a step, and return the id of its recovery."""
        self.put(f"hold-{step}")
        process = self.start("run", "touch-files", "--set", f"folder={self.world}", *more)
        self.wait_for_intent(f"touch[{step}]")
        process.kill()
        process.communicate()
        self.take_away(f"hold-{step}")
        return self.ids()[0]

    def wait_for_intent(self, key):
        deadline = time.monotonic() + SECONDS / 2
        while time.monotonic() < deadline:
            with contextlib.suppress(RecoveryError):  # it is only being made
                for each in self.ids():
                    if any(e.kind == "intended" and e.step == key for e in self.events(each)):
                        return
            time.sleep(0.05)
        raise AssertionError(f"{key} never began")

    def ids(self):
        with contextlib.closing(open_journal(str(self.journal))) as journal:
            return journal.recovery_ids()

    def events(self, recovery_id):
        with contextlib.closing(open_journal(str(self.journal))) as journal:
            return journal.events(find_recovery(journal, recovery_id))

"""The control groups of a host: where they are, and how it is frozen and thawed by them.

A machine may have one hierarchy (v2), several (v1), or both beside each other. Where systemd runs
the machine it gives out the group, as a scope.
"""

import contextlib
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.lab.processes import LabError, wait_until

TOP = Path("/sys/fs/cgroup")
HIERARCHIES = ("systemd", "unified", "pids", "freezer")  # of a machine that is not on v2 alone
SLICE = "system.slice"
SCOPE = ("systemd-run", "--quiet", "--scope", "--collect", f"--slice={SLICE}")
CHANGE_WITHIN_SECONDS = 60
ENTER = r"""
for folder in $0; do
    mkdir -p "$folder"
    echo $$ > "$folder/cgroup.procs"
done
exec "$@"
"""


def runs_systemd() -> bool:
    """Whether systemd runs this machine too, and gives out its control groups."""
    return Path("/run/systemd/system").is_dir()


def is_unified() -> bool:
    """Whether this machine has v2 alone."""
    return (TOP / "cgroup.controllers").exists()


def hierarchies() -> list[Path]:
    """Return the tops of the hierarchies that a host has its group in."""
    if is_unified():
        return [TOP]
    return [TOP / name for name in HIERARCHIES if (TOP / name).is_dir()]


def missing() -> str:
    """Return why groups cannot be made; empty when they can."""
    if not hierarchies():
        return f"there are no control groups in {TOP}"
    if not runs_systemd():
        try:
            for top in hierarchies():
                Path(tempfile.mkdtemp(dir=top)).rmdir()
        except OSError as error:
            return f"control groups cannot be made: {error}"
    return ""


@dataclass(frozen=True)
class Freezer:
    """The file of a group that freezes it, what to write there, and where the outcome is read."""

    switch: str
    frozen: str
    thawed: str
    state: str
    is_frozen: str


VERSION_2 = Freezer("cgroup.freeze", "1", "0", "cgroup.events", "frozen 1")
VERSION_1 = Freezer("freezer.state", "FROZEN", "THAWED", "freezer.state", "FROZEN")


def freezer_missing() -> str:
    """Return why processes cannot be frozen; empty when they can."""
    for top in hierarchies():
        with contextlib.suppress(OSError):
            probe = Path(tempfile.mkdtemp(dir=top))  # a top has no switch of its own
            is_there = any((probe / each.switch).exists() for each in (VERSION_2, VERSION_1))
            probe.rmdir()
            if is_there:
                return ""
    return "the control groups of this machine have no freezer"


class ControlGroups:
    """The groups of one host, of one name in every hierarchy."""

    def __init__(self, name: str) -> None:
        self.name = name
        place = f"{SLICE}/{name}.scope" if runs_systemd() else name
        self.folders = [top / place for top in hierarchies()]

    @property
    def entered(self) -> list[str]:
        """The start of a command that is to run in them."""
        if runs_systemd():
            return [*SCOPE, "--property=Delegate=yes", f"--unit={self.name}"]
        return ["sh", "-ec", ENTER, " ".join(map(str, self.folders))]

    def freeze(self) -> None:
        """Stop every process in them where it is.

        Raises:
            LabError: they are not there, or one goes on.
        """
        folder, freezer = self._freezer()
        (folder / freezer.switch).write_text(freezer.frozen)
        wait_until(
            lambda: freezer.is_frozen in (folder / freezer.state).read_text(),
            f"every process of {self.name} to be frozen",
            within_seconds=CHANGE_WITHIN_SECONDS,
        )

    def thaw(self) -> None:
        """Let them go on; nothing when they are not frozen or not there.

        Raises:
            LabError: one does not.
        """
        with contextlib.suppress(LabError):
            folder, freezer = self._freezer()
            (folder / freezer.switch).write_text(freezer.thawed)
            wait_until(
                lambda: freezer.is_frozen not in (folder / freezer.state).read_text(),
                f"the processes of {self.name} to go on",
                within_seconds=CHANGE_WITHIN_SECONDS,
            )

    def _freezer(self) -> tuple[Path, Freezer]:
        for freezer in (VERSION_2, VERSION_1):
            for folder in self.folders:
                if (folder / freezer.switch).exists():
                    return folder, freezer
        raise LabError(f"{self.name} has no freezer, or is not there: {self.folders}")

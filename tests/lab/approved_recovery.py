"""A destructive recovery of a folder, whose plan follows from what lies there.

Where a file `die-before` names a kind of event, the process that is about to journal one is killed.
"""

import os
import signal
from pathlib import Path
from typing import Any

import recovery.launch
from recovery.commands import changing
from recovery.declare import recovery as declared
from recovery.journal.events import Event, Kind
from recovery.journal.opening import open_journal
from recovery.journal.store import Journal
from recovery.steps import act, decision, probe, undo
from recovery.verdict import Danger


class DyingJournal:
    """Kills this process before it journals what the folder's `die-before` names, once."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._folder = Path(os.environ["APPROVED_FOLDER"])

    def __getattr__(self, name: str) -> Any:
        return getattr(self._journal, name)

    def append(self, recovery_id: str, kind: Kind, *args: Any, **kwargs: Any) -> Event:
        order = self._folder / "die-before"
        if order.exists() and order.read_text() == kind:
            order.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        return self._journal.append(recovery_id, kind, *args, **kwargs)


if "APPROVED_FOLDER" in os.environ:
    recovery.launch.open_journal = lambda: DyingJournal(open_journal())  # type: ignore[assignment]


@probe
def files_there(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.old"))


@decision
def due(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.old"))


@probe
def is_gone(folder: Path, name: str) -> bool:
    return not (folder / name).exists()


@undo
def put_back(folder: Path, name: str) -> None:
    with changing(f"touch {folder / name}", str(folder)):
        (folder / name).touch()


@act(
    commands=lambda folder, name: [f"rm {folder / name}"],
    done_when=is_gone,
    undo=put_back,
    each=("name",),
    danger=Danger.DESTRUCTIVE,
)
def remove(folder: Path, name: str) -> None:
    with changing(f"rm {folder / name}", str(folder)), (folder / "removed").open("a") as log:
        log.write(f"{name}\n")
        (folder / name).unlink()


@declared(
    runbook="docs/runbooks/remove.md",
    target=lambda folder: f"folder {folder.name}",
    danger=Danger.DESTRUCTIVE,
)
def remove_files(folder: Path) -> list[str]:
    """Remove old files.

    Args:
        folder: where they lie.
    """
    names = due(folder)
    files_there(folder)
    for name in names:
        remove(folder, name)
    return names

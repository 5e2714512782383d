"""The copy of the source that is loaded: taken once, kept with its hash, looked at ever after."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path

from recovery.errors import NotVerified
from recovery.steps import act, verify
from recovery.values import from_plain
from recovery.verdict import Verdict
from tasks.grafana.migration import SourceFile, WorkFolder, fresh_scratch_copy, scratch_copy
from tasks.grafana.source import SourceCopy
from tasks.kept_files import sha256_of, write_durably

NOTE = "copy.json"


@dataclass(frozen=True)
class KeptCopy:
    """Where the copy of a source is kept for this recovery, once it has been taken."""

    source: SourceFile
    folder: WorkFolder
    accept: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """What it is a copy of; not where it is kept, which may differ from worker to worker."""
        return f"copy of {self.source.label}"

    @property
    def note(self) -> Path:
        """The file that tells of it; it is written last."""
        return self.folder.path / NOTE

    def kept(self) -> SourceCopy | None:
        """The copy as it was noted when it was taken; `None` before that."""
        try:
            written_at = self.note.stat().st_mtime_ns
        except FileNotFoundError:
            return None
        copy = _read_note(self.note, written_at)
        # Beside its note, wherever that was brought to since.
        return None if copy is None else replace(copy, path=self.folder.path / copy.path.name)

    def now(self) -> SourceCopy:
        """The kept copy; before it is taken, one that is only looked at."""
        return self.kept() or scratch_copy(self.source, self.accept)


@lru_cache(maxsize=4)
def _read_note(note: Path, written_at: int) -> SourceCopy | None:
    del written_at  # so that a note written anew is read anew
    try:
        copy: SourceCopy = from_plain(SourceCopy, json.loads(note.read_text()))
    except ValueError:  # cut off with the machine: the copy is then taken again
        return None
    return copy


def copy_commands(copy: KeptCopy) -> Iterable[str]:
    """What taking the copy does; the source is only read."""
    return [f"copy {copy.source.label} with its -wal or -journal to {copy.folder.label}"]


def is_kept(copy: KeptCopy) -> Verdict:
    """Whether the copy lies where it is kept, as it was taken."""
    kept = copy.kept()
    if kept is None or not kept.path.is_file():
        return Verdict.NOT_DONE
    return Verdict.of(sha256_of(kept.path) == kept.sha256)


@act(commands=copy_commands, done_when=is_kept)
def take_copy(copy: KeptCopy) -> None:
    """Copy the database with its log to the worker, and bring the copy to rest.

    The source is read as plain files, never opened by SQLite, and not changed. Done twice, the
    second copy replaces the first; tables loaded from another copy are then loaded again.

    Raises:
        BadInput: there is no such file, or it is no database of Grafana.
        Refused: it kept changing, is damaged, or holds no user that is not accepted.
        Unreachable: the host of the source gave no answer.

    Runbook: docs/runbooks/grafana-sqlite-to-mysql.md, step 3.
    """
    copy.note.unlink(missing_ok=True)
    copy.folder.path.mkdir(parents=True, exist_ok=True, mode=0o700)
    taken = _same_as_looked_at(copy) or copy.source.copy_to(copy.folder.path, copy.accept)
    write_durably(copy.note, json.dumps(asdict(taken), default=str, indent=1))


def _same_as_looked_at(copy: KeptCopy) -> SourceCopy | None:
    """Keep the copy that was looked at, where the source is still the very same file."""
    looked_at = scratch_copy(copy.source, copy.accept)
    if not copy.source.is_at_rest_as(looked_at):
        return None
    kept = copy.folder.path / looked_at.path.name
    kept.unlink(missing_ok=True)
    kept.hardlink_to(looked_at.path)
    return replace(looked_at, path=kept)


@verify
def source_has_not_changed(copy: KeptCopy) -> None:
    """Return once the source is seen to be what was copied.

    Raises:
        NotVerified: somebody wrote to it since: what they wrote is not in the target.

    Runbook: docs/runbooks/grafana-sqlite-to-mysql.md, step 8.
    """
    kept = copy.now()
    if copy.source.is_at_rest_as(kept):
        return
    again = fresh_scratch_copy(copy.source, copy.accept)
    if again.sha256 != kept.sha256:
        raise NotVerified(
            copy.source.label,
            f"the source as it was copied ({kept.sha256[:12]})",
            f"it has changed since ({again.sha256[:12]})",
            "Stop what writes to it (Grafana?), then undo this recovery and start anew",
        )

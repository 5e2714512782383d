"""The dump of the target as it was before the first write, kept for the way back."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from blocks.mysql.server import MysqlServer
from recovery.errors import Refused
from recovery.steps import act
from recovery.values import from_plain
from recovery.verdict import Verdict
from recovery.walk import current_fence
from tasks.grafana import fence
from tasks.grafana.client import dump_program
from tasks.grafana.dump import Dump, proof_commands, refuse_if_dump_changed
from tasks.grafana.dump import prove_dump as prove
from tasks.grafana.dump import take_dump as take
from tasks.grafana.migration import WorkFolder
from tasks.kept_files import write_durably


@dataclass(frozen=True)
class KeptDump:
    """Where this recovery keeps its dump, once it has been taken."""

    folder: WorkFolder

    @property
    def label(self) -> str:
        """What it is; not where it is kept, which may differ from worker to worker."""
        return "dump of the target"

    @property
    def path(self) -> Path:
        """The dump itself."""
        return self.folder.path / "target-before.sql"

    @property
    def note(self) -> Path:
        """The file that tells of it; it is written last."""
        return self.folder.path / "target-before.json"

    @property
    def proof(self) -> Path:
        """The file that holds the hash of the dump that was loaded and compared."""
        return self.folder.path / "target-before.proven"

    def taken(self) -> Dump:
        """The dump as it was noted when it was taken.

        Raises:
            Refused: it is not on this worker.
        """
        if not self.note.is_file():
            raise Refused(
                self.label,
                f"there is none in {self.folder.path} on this worker",
                "Go on where it was taken, or bring its folder here",
            )
        try:
            dump: Dump = from_plain(Dump, json.loads(self.note.read_text()))
        except ValueError as error:
            raise Refused(
                self.label,
                f"{self.note} cannot be read",
                "Find the note and the dump of this recovery in a backup of that folder",
            ) from error
        return replace(dump, path=self.path)  # beside its note, wherever that was brought to


def scratch_database() -> str:
    """Name of the database that the dump of this recovery is proven in."""
    return f"recover_{current_fence().recovery_id}"


def dump_commands(target: MysqlServer, kept: KeptDump) -> Iterable[str]:
    """What taking the dump runs; the target is only read."""
    return [f"{dump_program(target).shown} > {kept.path}"]


def is_dumped(kept: KeptDump) -> Verdict:
    """Whether the dump lies where it is kept, as it was taken."""
    if not kept.note.is_file():
        return Verdict.NOT_DONE
    try:
        refuse_if_dump_changed(kept.taken())
    except Refused:
        return Verdict.NOT_DONE
    return Verdict.DONE


def refuse_if_rows_were_moved(target: MysqlServer) -> None:
    """Refuse to dump a target that a recovery has begun to fill: that is no way back.

    Raises:
        Refused: a fence stands there.
    """
    with target.connect() as session:
        standing = fence.raised(session)
    if standing is not None:
        raise Refused(
            target.label,
            f"recovery {standing.recovery_id} has begun to fill it: a dump would not be a way back",
            "Bring the folder of the dump that was taken before here, or undo where it is",
        )


@act(
    commands=dump_commands,
    done_when=is_dumped,
    redo_stale=False,
    refuse_if=(refuse_if_rows_were_moved,),
)
def dump_target(target: MysqlServer, kept: KeptDump) -> None:
    """Dump the target to the worker; it is only read.

    Done again once rows were moved, it would dump what was moved: so when the dump is missing
    later, a person is asked.

    Raises:
        BadInput: no dump program is installed on the worker.
        CommandFailed: the program said no.
        Refused: the target changed while it was dumped.
        Unreachable: no answer.

    Runbook: docs/runbooks/grafana-sqlite-to-mysql.md, step 5.
    """
    told = json.dumps(asdict(take(target, kept.path)), default=str, indent=1)
    write_durably(kept.note, told)


def prove_commands(target: MysqlServer, kept: KeptDump) -> Iterable[str]:
    """What proving the dump sends: a scratch database comes and goes."""
    dump = Dump(kept.path, "", 0, target.database, ())
    return proof_commands(target, scratch_database(), dump)


def is_proven(kept: KeptDump) -> bool:
    """Whether the very dump that is kept was loaded and compared."""
    return kept.proof.is_file() and kept.proof.read_text() == kept.taken().sha256


@act(commands=prove_commands, done_when=is_proven)
def prove_dump(target: MysqlServer, kept: KeptDump) -> None:
    """Load the dump into a scratch database beside the target, compare it, and drop that again.

    The target itself is not touched. Done twice, what is left of the first time is dropped first.

    Raises:
        Refused: the account may not make a scratch database; says what to grant.
        CommandFailed: the dump does not load.
        NotVerified: what was loaded is not what was dumped.

    Runbook: docs/runbooks/grafana-sqlite-to-mysql.md, step 5.
    """
    dump = kept.taken()
    prove(target, dump, scratch_database())
    write_durably(kept.proof, dump.sha256)

"""Moving the rows: the fence, one table after the other, and every cell compared."""

from collections.abc import Iterable

from blocks.mysql.server import MysqlServer
from blocks.mysql.session import MysqlSession, quote_name
from recovery.steps import act, undo, verify
from recovery.verdict import Danger, Verdict
from recovery.walk import current_fence
from tasks.grafana import dump, fence, load
from tasks.grafana.acceptance import refuse_unless_accepted
from tasks.grafana.compare import compare_table, refuse_unless_equal
from tasks.grafana.dump import refuse_if_changed_since
from tasks.grafana.kept_copy import KeptCopy
from tasks.grafana.kept_dump import KeptDump
from tasks.grafana.preflight import look, pair_of


def fence_commands() -> Iterable[str]:
    """What raising the fence sends."""
    return fence.RAISE_COMMANDS


def is_fence_ours(target: MysqlServer) -> bool:
    """Whether the fence lets this attempt write; it is raised anew by each attempt."""
    with target.connect() as session:
        return fence.raised(session) == current_fence()


@undo
def restore_target(target: MysqlServer, kept: KeptDump) -> None:
    """Put the target back to what the dump holds, the fence removed.

    Safe when nothing was loaded, and when it is done twice or was broken off.

    Raises:
        CommandFailed: the server or its client refused; the target is half restored, do it again.
        Refused: the dump is not the one that was taken.

    Runbook: docs/runbooks/grafana-sqlite-to-mysql.md, way back.
    """
    with target.connect() as session:
        fence.raise_to(session, current_fence())
    dump.restore(target, kept.taken())
    with target.connect() as session:
        session.change(fence.DROP)


@act(
    commands=fence_commands,
    done_when=is_fence_ours,
    undo=restore_target,
    lasts_until="remove_fence",
)
def raise_fence(target: MysqlServer, kept: KeptDump) -> None:
    """Let this attempt write to the target and no older one.

    Makes one table, `recover_fence`; no row of Grafana is touched. Sessions in which an older
    attempt of this recovery was loading are ended, which rolls back what they had begun. Done
    twice, nothing more happens.

    Raises:
        Refused: another recovery's fence stands there.
        CommandFailed: the account may not make a table.

    Runbook: docs/runbooks/grafana-sqlite-to-mysql.md, step 6.
    """
    del kept  # it is what the way back needs
    with target.connect() as session:
        fence.raise_to(session, current_fence())


def load_commands(target: MysqlServer, copy: KeptCopy, table: str) -> Iterable[str]:
    """The exact statements of a load, those of the fence among them."""
    numbering_and_load = load.load_commands(pair_of(copy.now(), target, table))
    return [fence.NOTE_SESSION, *numbering_and_load[:-1], fence.NOTE_TABLE, numbering_and_load[-1]]


def refuse_unless_still_looked_at(target: MysqlServer, copy: KeptCopy) -> None:
    """Refuse to load what nobody has looked at: another copy, or another schema, than before.

    Raises:
        Refused: something would be lost now that was not accepted by name.
    """
    now = copy.now()
    hazards = look(now, target, copy.skip).hazards
    # What the target holds is by now partly what this recovery has put there.
    mattering = [hazard for hazard in hazards if hazard.kind != "replaced-rows"]
    refuse_unless_accepted(target.label, mattering, copy.accept)


def is_loaded(target: MysqlServer, copy: KeptCopy, table: str) -> Verdict:
    """Whether the table holds the rows of the copy.

    The marker and the rows were committed together; where there is no marker of ours, every cell
    is compared.
    """
    now = copy.now()
    pair = pair_of(now, target, table)
    with target.connect() as session:
        marker = fence.loaded(session, table, current_fence())
        rows = int(session.rows(f"SELECT COUNT(*) FROM {quote_name(table)}")[0][0])  # noqa: S608
        if rows != pair.source.rows:
            return Verdict.NOT_DONE
        if marker is not None:
            return Verdict.of(marker == (now.sha256, rows))
        return Verdict.of(compare_table(now.path, session, pair).is_equal)


@act(
    commands=load_commands,
    done_when=is_loaded,
    undo=restore_target,
    refuse_if=(refuse_unless_still_looked_at,),
    danger=Danger.DESTRUCTIVE,
    each=("table",),
    lasts_until="remove_fence",
)
def load_table(target: MysqlServer, kept: KeptDump, copy: KeptCopy, table: str) -> None:
    """Replace all rows of one table by those of the copy, in one transaction.

    What the table held before is in the dump alone from then on. No other table of Grafana is
    touched. Done twice, the same rows are written again.

    Raises:
        Refused: a newer attempt has its fence there, or a cell does not fit; nothing is committed.
        CommandFailed: the server refused a row; nothing is committed.
        Unreachable: no answer; the marker tells whether it was committed.

    Runbook: docs/runbooks/grafana-sqlite-to-mysql.md, step 7.
    """
    now, mine, dumped = copy.now(), current_fence(), kept.taken()
    pair = pair_of(now, target, table)

    def lock_and_look(session: MysqlSession) -> None:
        fence.lock(session, mine)
        if fence.loaded(session, table, mine) is None:  # what it holds is still that of before
            refuse_if_changed_since(session, dumped, table)

    with target.connect() as session:
        fence.enter(session, mine)
        load.load_table(
            now.path,
            session,
            pair,
            first=lock_and_look,
            last=lambda session: fence.note_table(
                session, mine, table, now.sha256, pair.source.rows
            ),
        )


@verify(each=("table",))
def every_cell_is_equal(target: MysqlServer, copy: KeptCopy, table: str) -> dict[str, int]:
    """How many cells of the table were compared by value on both sides; all are equal.

    Their number has its unit beside it, since that is what the report shows.

    Raises:
        NotVerified: some differ; names the first.
        Unreachable: no answer; asking again may help.

    Runbook: docs/runbooks/grafana-sqlite-to-mysql.md, step 8.
    """
    now = copy.now()
    with target.connect() as session:
        found = compare_table(now.path, session, pair_of(now, target, table))
    refuse_unless_equal(target.label, [found])
    return {"cells": found.cells}


def removal_commands() -> Iterable[str]:
    """What removing the fence sends."""
    return [fence.DROP]


def is_fence_gone(target: MysqlServer) -> bool:
    """Whether there is no fence."""
    with target.connect() as session:
        return fence.raised(session) is None


@act(commands=removal_commands, done_when=is_fence_gone)
def remove_fence(target: MysqlServer) -> None:
    """Drop the fence: the load is closed, and Grafana may change what was loaded.

    No row of Grafana is touched. Done twice, nothing more happens.

    Raises:
        CommandFailed: the account may not drop the table.

    Runbook: docs/runbooks/grafana-sqlite-to-mysql.md, step 9.
    """
    with target.connect() as session:
        session.change(fence.DROP)

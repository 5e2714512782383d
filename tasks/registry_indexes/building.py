"""Dropping what broken builds left, building what is missing, and the way back."""

from collections.abc import Iterable
from dataclasses import dataclass

from blocks.postgres.session import PostgresSession
from recovery.errors import CommandFailed
from recovery.steps import act, undo
from recovery.verdict import Verdict
from recovery.walk import step_logger
from tasks.registry_indexes.catalog import FoundIndex, found_indexes, found_table, is_leftover
from tasks.registry_indexes.preflight import (
    refuse_little_disk,
    refuse_old_transactions,
    refuse_unfit_values,
)
from tasks.registry_indexes.sessions import Watch, builds_on, wait_for_builds
from tasks.registry_indexes.wanted import IndexRepair, end_older_line, own_name_pattern

# lock_timeout would also end the waits for older transactions, and leave an INVALID index; the
# check of the client would end a build whose worker was killed, which is better finished.
UNLIMITED = (
    "SELECT set_config('lock_timeout', '0', false), set_config('statement_timeout', '0', false)"
)
GO_ON_ALONE = "SET client_connection_check_interval = 0"
GO_ON_ALONE_SINCE = 140000
SORT_MEMORY = (
    "SELECT set_config('maintenance_work_mem', '256MB', false) "
    "WHERE pg_size_bytes(current_setting('maintenance_work_mem')) < 256 * 1024 * 1024"
)
OWN_IDLE = (
    "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE %s "
    "AND pid <> pg_backend_pid() AND state IS DISTINCT FROM 'active'"
)
CANCEL_OURS = (
    "SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity "
    "WHERE application_name LIKE '{ours}' AND pid <> pg_backend_pid() AND state = 'active'"
)
UNIQUE_VIOLATION = "23505"


@dataclass(frozen=True)
class Built:
    """The index that serves a column now, and whether this recovery made it."""

    name: str
    made_here: bool


def drop_commands(repair: IndexRepair, name: str) -> Iterable[str]:
    """What drops a leftover."""
    return [end_older_line(), repair.drop_line(name)]


def build_commands(repair: IndexRepair, column: str) -> Iterable[str]:
    """What builds an index; the first two only where an earlier attempt broke off."""
    name = repair.name_of(column)
    return [end_older_line(), repair.drop_line(name), repair.create_line(column)]


def is_cleared(repair: IndexRepair, name: str) -> bool:
    """Whether no INVALID index of the name is left on the table."""
    with repair.database.connect() as session:
        indexes = found_indexes(session, found_table(session, repair))
    return not any(index.name == name and is_leftover(index, repair) for index in indexes)


def index_state(repair: IndexRepair, column: str) -> Verdict:
    """Done where look-ups are served; half done where an INVALID one stands or is being built."""
    with repair.database.connect() as session:
        table = found_table(session, repair)
        indexes = found_indexes(session, table)
        if _serving(indexes, repair, column) is not None:
            return Verdict.DONE
        is_begun = any(index.name == repair.name_of(column) for index in indexes)
        if is_begun or any(build.is_ours for build in builds_on(session, table.oid)):
            return Verdict.HALF_DONE
    return Verdict.NOT_DONE


def built_so(repair: IndexRepair, column: str) -> Built:
    """What a build returns, foretold."""
    return Built(repair.name_of(column), made_here=True)


def refuse_no_room(repair: IndexRepair, column: str) -> None:
    """Refuse where the disk has no room for this one."""
    refuse_little_disk(repair, [column])


@act(commands=drop_commands, done_when=is_cleared, each=("name",))
def drop_leftover(repair: IndexRepair, name: str) -> None:
    """Drop an INVALID index that serves nobody; one that has become valid meanwhile is kept.

    Waits first for every build on the table, because an index that is being built is INVALID too.
    Done twice, the second does nothing. It is not made again by the way back.

    Raises:
        NeedsPerson: it waits for the same session for too long; it goes on waiting at the server.
        CommandFailed: the server said no.
        Unreachable: no answer; it may have been done.

    Runbook: docs/runbooks/registry-indexes.md, step 4.
    """
    with repair.database.connect() as session:
        _end_older_sessions(session)
        _drop_if_invalid(session, repair, name)


@undo
def drop_made_index(repair: IndexRepair, column: str, result: Built | None) -> None:
    """Drop the index this recovery made; a build of ours that still runs is cancelled before."""
    if result is not None and not result.made_here:
        return
    name = repair.name_of(column)
    with repair.database.connect() as session:
        table = found_table(session, repair)
        _end_older_sessions(session)
        if any(build.is_ours for build in builds_on(session, table.oid)):
            session.change(CANCEL_OURS.format(ours=own_name_pattern()))
        wait_for_builds(session, repair, table.oid)
        if any(index.name == name for index in found_indexes(session, table)):
            _change_watched(session, repair, repair.drop_line(name), f"dropping {name}")


@act(
    commands=build_commands,
    done_when=index_state,
    each=("column",),
    expected=built_so,
    refuse_if=(refuse_old_transactions, refuse_no_room),
    undo=drop_made_index,
    redo_half_done=True,
)
def build_index(repair: IndexRepair, column: str) -> Built:
    """Build the index on a column while reads and writes go on.

    A build that runs already is waited for: our own of a killed attempt, or somebody else's. What
    is INVALID afterwards is dropped and built anew. Done twice, the second does nothing.

    Raises:
        NeedsPerson: it waits for the same session for too long; it goes on waiting at the server.
        Refused: duplicates came up while it was built; what it left was dropped.
        CommandFailed: the server said no; what it left was dropped.
        Unreachable: the connection broke, and the server has not finished it.

    Runbook: docs/runbooks/registry-indexes.md, step 5.
    """
    name = repair.name_of(column)
    with repair.database.connect() as session:
        table = found_table(session, repair)
        _end_older_sessions(session)
        waited_for = wait_for_builds(session, repair, table.oid)
        found = _serving(found_indexes(session, table), repair, column)
        if found is not None:
            return Built(found.name, any(build.is_ours for build in waited_for))
        _drop_if_invalid(session, repair, name)
        try:
            _change_watched(session, repair, repair.create_line(column), f"building {name}")
        except CommandFailed as failed:
            step_logger().warning("%s: what it left is dropped. %s", name, failed)
            _drop_if_invalid(session, repair, name)
            if failed.code == UNIQUE_VIOLATION:
                refuse_unfit_values(repair, column)
            raise
    return Built(name, made_here=True)


def analyze_commands(repair: IndexRepair) -> Iterable[str]:
    """What tells the planner."""
    return [repair.analyze_line]


@act(
    commands=analyze_commands,
    without_probe="it changes statistics only, and does no harm when it is done twice",
    redo_in_doubt=True,
)
def analyze_table(repair: IndexRepair) -> None:
    """Collect the statistics of the table anew, so that the planner judges by what is there.

    Raises:
        NeedsPerson: it waits for the same session for too long.
        CommandFailed: the server said no.
        Unreachable: no answer.

    Runbook: docs/runbooks/registry-indexes.md, step 6.
    """
    with repair.database.connect() as session:
        what = f"ANALYZE of {repair.relation}"
        _change_watched(session, repair, repair.analyze_line, what)


def _serving(indexes: list[FoundIndex], repair: IndexRepair, column: str) -> FoundIndex | None:
    wanted = repair.wanted_on(column)
    return next((index for index in indexes if index.serves(wanted)), None)


def _end_older_sessions(session: PostgresSession) -> None:
    if session.value(OWN_IDLE, (own_name_pattern(),)):
        session.change(end_older_line())


def _drop_if_invalid(session: PostgresSession, repair: IndexRepair, name: str) -> None:
    table = found_table(session, repair)
    wait_for_builds(session, repair, table.oid)
    indexes = found_indexes(session, table)
    if any(index.name == name and is_leftover(index, repair) for index in indexes):
        _change_watched(session, repair, repair.drop_line(name), f"dropping {name}")


def _change_watched(session: PostgresSession, repair: IndexRepair, line: str, what: str) -> None:
    """Send a long statement through a session of its own, and watch it through this one."""
    table = found_table(session, repair)
    with repair.database.connect() as own:
        own.rows(UNLIMITED)
        own.rows(SORT_MEMORY)
        if own.version >= GO_ON_ALONE_SINCE:
            own.stage(GO_ON_ALONE)
        with own.long_change(line) as statement:
            Watch(session, repair, table.oid, what).until(
                statement.is_over, lambda: [statement.pid]
            )

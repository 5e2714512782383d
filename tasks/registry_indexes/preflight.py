"""What is looked at before an index is built, and every reason not to build it."""

from blocks.postgres.session import PostgresSession, quote_name
from recovery.errors import Refused
from recovery.steps import decision, probe
from tasks.postgres_server.clusters import cluster_on_port
from tasks.postgres_server.disk import megabytes
from tasks.postgres_server.primary import primary_of, role_of
from tasks.registry_indexes.catalog import (
    COLUMNS,
    NAMED_SO,
    FoundIndex,
    FoundTable,
    found_indexes,
    found_table,
    is_leftover,
)
from tasks.registry_indexes.sessions import OLD_MINUTES, builds_on, old_sessions
from tasks.registry_indexes.sizes import FOLDERS, index_bytes, room_on
from tasks.registry_indexes.wanted import Acceptable, IndexRepair, WantedIndex

OLDEST_VERSION = 120000  # the first that shows a build at work
TOLD_MAX = 20
ENTRY_BYTES_MAX = 2690  # of 2704 in a btree of version 4, header and padding taken off


@probe
def refuse_unless_repairable(repair: IndexRepair) -> None:
    """Refuse where indexes of this table cannot or must not be built through this connection.

    Raises:
        Refused: a standby, a read-only database, a pooler, another owner, no such table or column.
        Unreachable: the server gave no answer.

    Runbook: docs/runbooks/registry-indexes.md, steps 1 and 2.
    """
    with repair.database.connect() as session:
        refuse_other_server(session, repair)
        table = found_table(session, repair)
        refuse_other_owner(repair, table)
        columns = {str(name) for name, _, _ in session.rows(COLUMNS, (table.oid,))}
        if lacking := [index.column for index in repair.wanted if index.column not in columns]:
            raise Refused(
                repair.label,
                f"it has no column {', '.join(map(quote_name, lacking))}",
                "It is another table, or of another release of the registry: give the right one, "
                f"or leave these out with skip={lacking}",
            )
        indexes = found_indexes(session, table)
        for wanted in repair.wanted:
            refuse_taken_name(session, repair, indexes, wanted)


@decision(none_is_fine=True)
def leftovers(repair: IndexRepair) -> list[str]:
    """Names of the INVALID indexes that broken builds of ours and of REINDEX have left.

    Raises:
        Unreachable: the server gave no answer.

    Runbook: docs/runbooks/registry-indexes.md, step 4.
    """
    with repair.database.connect() as session:
        indexes = found_indexes(session, found_table(session, repair))
    return [index.name for index in indexes if is_leftover(index, repair)]


@decision(none_is_fine=True)
def columns_due(repair: IndexRepair) -> list[str]:
    """Columns that no usable index of the wanted definition serves.

    Raises:
        Unreachable: the server gave no answer.

    Runbook: docs/runbooks/registry-indexes.md, step 2.
    """
    with repair.database.connect() as session:
        indexes = found_indexes(session, found_table(session, repair))
    return [
        wanted.column
        for wanted in repair.wanted
        if not any(index.serves(wanted) for index in indexes)
    ]


@probe
def refuse_unless_buildable(repair: IndexRepair, due: list[str]) -> None:
    """Refuse all builds where one of them would fail, or could not be finished.

    Raises:
        Refused: duplicates, values too long, transactions in the way, too little disk.
        Unreachable: the server or its host gave no answer.

    Runbook: docs/runbooks/registry-indexes.md, step 3.
    """
    for column in due:
        refuse_unfit_values(repair, column)
    refuse_old_transactions(repair)
    refuse_little_disk(repair, due)


def refuse_other_server(session: PostgresSession, repair: IndexRepair) -> None:
    """Refuse a server that cannot build, or through which a build could not be followed."""
    if session.is_pooled:
        raise Refused(
            repair.database.label,
            "a pooler stands between: its sessions share settings and processes",
            "Give host and port of the server itself",
        )
    role = role_of(session)
    if role.is_in_recovery:
        raise Refused(
            repair.database.label,
            f"this server is a standby; its primary is {primary_of(session)}",
            "Indexes are built on the primary and follow from there: give its address",
        )
    if role.is_read_only:
        raise Refused(
            repair.database.label,
            "default_transaction_read_only is on for this account, database or server",
            "Find out who wanted it read-only and why before anything is built",
        )
    if session.version < OLDEST_VERSION:
        raise Refused(
            repair.database.label,
            f"PostgreSQL {role.version} does not show whether a build is running",
            "Before version 12 a person must watch: do it by hand along the runbook",
        )


def refuse_other_owner(repair: IndexRepair, table: FoundTable) -> None:
    """Refuse an account that may not build indexes on the table."""
    if not table.is_ours:
        raise Refused(
            repair.database.label,
            f"{repair.relation} belongs to {table.owner}, and {repair.database.user} is no member",
            f"Connect as {table.owner}, or GRANT {quote_name(table.owner)} TO "
            f"{quote_name(repair.database.user)}",
        )
    if not table.may_create:
        raise Refused(
            repair.database.label,
            f"{repair.database.user} may not create anything in schema {repair.schema}",
            f"GRANT CREATE ON SCHEMA {quote_name(repair.schema)} TO "
            f"{quote_name(repair.database.user)}",
        )


def refuse_taken_name(
    session: PostgresSession, repair: IndexRepair, indexes: list[FoundIndex], wanted: WantedIndex
) -> None:
    """Refuse where the name of a missing index belongs to something that may not be dropped."""
    if any(index.serves(wanted) for index in indexes):
        return
    name = repair.name_of(wanted.column)
    mine = next((index for index in indexes if index.name == name), None)
    if mine is not None and not mine.is_usable:
        return  # a leftover, which is dropped
    if mine is not None:
        seen = f"{quote_name(name)} is there, and is another index: {mine.definition}"
    elif rows := session.rows(NAMED_SO, (repair.schema, name)):
        kind, other = rows[0]
        seen = f"the name {quote_name(name)} is taken by a relation of kind {kind} {other}".strip()
    else:
        return
    raise Refused(
        repair.label,
        seen,
        "L3 must say whether it is needed: rename or drop it, or leave this one out with "
        f"skip=['{wanted.column}']",
    )


def refuse_unfit_values(repair: IndexRepair, column: str) -> None:
    """Refuse a column whose values the wanted index cannot take."""
    name, wanted = quote_name(column), repair.wanted_on(column)
    without = f"meanwhile skip=['{column}'] repairs the others"
    with repair.database.connect() as session:
        session.stage("SET statement_timeout = 0")
        if wanted.is_unique:
            twice = session.rows(
                f"SELECT {name}::text, count(*) FROM {repair.relation} "  # noqa: S608 (quoted names)
                f"WHERE {name} IS NOT NULL GROUP BY {name} HAVING count(*) > 1 "
                f"ORDER BY 2 DESC, 1 LIMIT {TOLD_MAX + 1}"
            )
            if twice:
                raise Refused(repair.label, told_duplicates(column, twice), f"L3; {without}")
        long = session.rows(
            f"SELECT count(*), max(pg_column_size({name})) FROM {repair.relation} "  # noqa: S608
            f"WHERE pg_column_size({name}) > {ENTRY_BYTES_MAX}"
        )[0]
    if long[0]:
        raise Refused(
            repair.label,
            f"{long[0]} values of {name} are too long for a btree (up to {long[1]} bytes, "
            f"{ENTRY_BYTES_MAX} fit)",
            f"L3 must say what they are; {without}",
        )


def told_duplicates(column: str, twice: list[tuple[object, int]]) -> str:
    """The values that stand there more than once, as far as they are told."""
    more = " and more" if len(twice) > TOLD_MAX else ""
    values = ", ".join(f"{value} ({count} times)" for value, count in twice[:TOLD_MAX])
    return f"{quote_name(column)} must be unique, and is not: {values}{more}"


def refuse_old_transactions(repair: IndexRepair) -> None:
    """Refuse to begin a build that would wait for old transactions, unless that is accepted.

    A build of ours that already runs waits for them anyway: nothing new is begun then.
    """
    if Acceptable.LONG_TRANSACTIONS in repair.accept:
        return
    with repair.database.connect() as session:
        table = found_table(session, repair)
        old = old_sessions(session, table.oid)
        if not old or any(build.is_ours for build in builds_on(session, table.oid)):
            return
    raise Refused(
        repair.label,
        f"a build would wait for transactions older than {OLD_MINUTES} minutes: "
        + "; ".join(map(str, old)),
        "Ask their owners, or end them with "
        + "; ".join(f"`{one.remedy}`" for one in old)
        + f"; or accept to wait with accept=['{Acceptable.LONG_TRANSACTIONS}']",
    )


def refuse_little_disk(repair: IndexRepair, due: list[str]) -> None:
    """Refuse builds that the disk of the server has no room for, unless that is accepted."""
    if Acceptable.LITTLE_DISK in repair.accept:
        return
    with repair.database.connect() as session:
        table = found_table(session, repair)
        needed = sum(index_bytes(session, repair, table, column) for column in due)
        data, index = session.rows(FOLDERS)[0]
    if repair.host is None:
        if Acceptable.UNKNOWN_DISK in repair.accept:
            return
        raise Refused(
            repair.label,
            f"the builds may take {megabytes(2 * needed)} of disk, and how much is free is not "
            "known: no host was given",
            f"Give host=ssh://…, or look yourself and accept=['{Acceptable.UNKNOWN_DISK}']",
        )
    data = data or cluster_on_port(repair.host, repair.database.port).data_folder
    if lacking := room_on(repair.host, data, index or data).shortfall(needed):
        raise Refused(
            repair.label,
            lacking,
            f"Make room on {repair.host.target}, or accept=['{Acceptable.LITTLE_DISK}']",
        )

"""What the planner makes of the look-ups, and what is worth telling besides."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from blocks.postgres.session import PostgresSession, quote_name
from recovery.errors import NotVerified, UnreadableOutput
from recovery.steps import probe, verify
from tasks.registry_indexes.catalog import COLUMNS, found_indexes, found_table, is_leftover
from tasks.registry_indexes.sessions import UNSEEN
from tasks.registry_indexes.wanted import IndexRepair


@dataclass(frozen=True)
class Lookup:
    """How the look-up by a column is carried out. Empty `chosen`: the whole table is read."""

    column: str
    usable: tuple[str, ...]
    chosen: str


def lookup_line(repair: IndexRepair, column: str) -> str:
    """The look-up by a value that is there, without telling the value."""
    name = quote_name(column)
    return (
        f"EXPLAIN (FORMAT JSON) SELECT * FROM {repair.relation} WHERE {name} = "  # noqa: S608
        f"(SELECT {name} FROM {repair.relation} WHERE {name} IS NOT NULL LIMIT 1)"
    )


def indexes_in(plan: Mapping[str, Any]) -> Iterator[str]:
    """Names of the indexes a plan uses, leaving out how the value to look for is found.

    EXPLAIN (FORMAT JSON) of PostgreSQL 9.6 to 18:
    `[{"Plan": {"Node Type": "Index Scan", "Index Name": "...", "Plans": [...]}}]`
    """
    if "Index Name" in plan:
        yield str(plan["Index Name"])
    for inner in plan.get("Plans", []):
        if inner.get("Parent Relationship") != "InitPlan":
            yield from indexes_in(inner)


@verify
def lookups_use_indexes(repair: IndexRepair) -> list[Lookup]:
    """How the planner looks up by each column.

    Raises:
        NotVerified: an index is missing, or the planner cannot use it even where it must.
        Unreachable: the server gave no answer.

    Runbook: docs/runbooks/registry-indexes.md, step 7.
    """
    with repair.database.connect() as session:
        indexes = found_indexes(session, found_table(session, repair))
        left = [index.name for index in indexes if is_leftover(index, repair)]
        if left:
            raise NotVerified(
                repair.label,
                "no INVALID index",
                f"{', '.join(left)} INVALID",
                "Somebody broke off another build since: resume, or run this once more",
            )
        found = []
        for wanted in repair.wanted:
            usable = tuple(index.name for index in indexes if index.serves(wanted))
            found.append(_looked_up(session, repair, wanted.column, usable))
    return found


def _looked_up(
    session: PostgresSession, repair: IndexRepair, column: str, usable: tuple[str, ...]
) -> Lookup:
    line = lookup_line(repair, column)
    chosen = _indexes_of(session, line)
    session.stage("SET enable_seqscan = off")
    forced = _indexes_of(session, line)
    session.stage("RESET enable_seqscan")
    if not set(forced) & set(usable):
        raise NotVerified(
            repair.label,
            f"the look-up by {quote_name(column)} to be able to use an index of its own",
            f"usable: {', '.join(usable) or 'none'}; the planner takes "
            f"{', '.join(forced) or 'the whole table'} even where it should not",
            "Somebody dropped or changed it since: look at the table, then run this once more",
        )
    return Lookup(column, usable, ", ".join(chosen))


def _indexes_of(session: PostgresSession, line: str) -> list[str]:
    explained = session.value(line)
    try:
        return list(indexes_in(explained[0]["Plan"]))
    except (LookupError, TypeError) as error:
        raise UnreadableOutput(line, json.dumps(explained)) from error


@probe
def notes(repair: IndexRepair) -> list[str]:
    """What a person should know of the table besides; nothing is done about it.

    Raises:
        Unreachable: the server gave no answer.

    Runbook: docs/runbooks/registry-indexes.md, how we know it worked.
    """
    with repair.database.connect() as session:
        table = found_table(session, repair)
        told = [
            f"{quote_name(name)} is a list ({kind}): a btree finds whole lists only, and a search "
            "for one element (@>) needs a GIN index, which was not asked for"
            for name, kind, is_array in session.rows(COLUMNS, (table.oid,))
            if is_array and name in {wanted.column for wanted in repair.wanted}
        ]
        told += [
            f"{quote_name(index.name)} is INVALID and none of ours: it slows every write; find out "
            f"whose it is ({index.definition})"
            for index in found_indexes(session, table)
            if not index.is_usable and not is_leftover(index, repair)
        ]
        if unseen := int(session.value(UNSEEN)):
            told.append(
                f"{unseen} sessions of other accounts could not be looked into: grant "
                "pg_read_all_stats to see for whom a build waits"
            )
    return told

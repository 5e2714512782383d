"""What the catalogue of the server says of the table and of its indexes."""

import re
from dataclasses import dataclass

from blocks.postgres.session import PostgresSession
from recovery.errors import Refused
from tasks.registry_indexes.wanted import IndexRepair, WantedIndex

LEFT_BY_REINDEX = re.compile(r"_cc(new|old)\d*$")

# The columns in the order of `FoundTable`.
TABLE = """
SELECT c.oid::bigint, c.relkind::text, c.reltuples::bigint, c.relpages::bigint,
       pg_get_userbyid(c.relowner), pg_has_role(c.relowner, 'USAGE'),
       has_schema_privilege(n.oid, 'CREATE')
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %s AND c.relname = %s
"""
COLUMNS = """
SELECT a.attname, format_type(a.atttypid, a.atttypmod), t.typcategory = 'A'
FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
WHERE a.attrelid = %s AND a.attnum > 0 AND NOT a.attisdropped
"""
# One key column, nothing left out, the operators and the order every `=` look-up can use.
INDEXES = """
SELECT i.indexrelid::bigint, c.relname,
       CASE WHEN i.indnkeyatts = 1 THEN coalesce(a.attname, '') ELSE '' END,
       i.indisunique, i.indisvalid AND i.indisready AND i.indislive,
       am.amname = 'btree' AND i.indpred IS NULL AND i.indexprs IS NULL AND o.opcdefault
         AND coalesce(i.indcollation[0] = a.attcollation, false),
       pg_get_indexdef(i.indexrelid)
FROM pg_index i
JOIN pg_class c ON c.oid = i.indexrelid
JOIN pg_am am ON am.oid = c.relam
JOIN pg_opclass o ON o.oid = i.indclass[0]
LEFT JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0] AND a.attnum > 0
WHERE i.indrelid = %s
ORDER BY c.relname
"""
NAMED_SO = """
SELECT c.relkind::text, coalesce(t.relname, '')
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_index i ON i.indexrelid = c.oid LEFT JOIN pg_class t ON t.oid = i.indrelid
WHERE n.nspname = %s AND c.relname = %s
"""
KINDS = {"v": "a view", "m": "a materialized view", "p": "partitioned", "f": "a foreign table"}


@dataclass(frozen=True)
class FoundTable:
    """The table as the catalogue has it. `rows` is -1 where nothing was ever counted."""

    oid: int
    kind: str
    rows: int
    pages: int
    owner: str
    is_ours: bool
    may_create: bool


@dataclass(frozen=True)
class FoundIndex:
    """An index of the table.

    Attributes:
        column: its only key column; empty where it has several, or an expression.
        is_usable: valid, ready and live: look-ups may use it.
        is_plain: a btree over all rows with the default operators and collation.
    """

    oid: int
    name: str
    column: str
    is_unique: bool
    is_usable: bool
    is_plain: bool
    definition: str

    def has_shape_of(self, wanted: WantedIndex) -> bool:
        """Whether it is what is wanted, or more: a unique index serves look-ups as well."""
        return (
            self.is_plain
            and self.column == wanted.column
            and (self.is_unique or not wanted.is_unique)
        )

    def serves(self, wanted: WantedIndex) -> bool:
        """Whether look-ups by the column are served, and uniqueness kept where wanted."""
        return self.is_usable and self.has_shape_of(wanted)


def found_table(session: PostgresSession, repair: IndexRepair) -> FoundTable:
    """The table.

    Raises:
        Refused: there is none, or it is none whose indexes are built concurrently.
    """
    rows = session.rows(TABLE, (repair.schema, repair.table))
    if not rows:
        raise Refused(
            repair.database.label,
            f"there is no table {repair.relation}",
            "The registry makes it at its first request: send one, or give the right schema and "
            "table (case counts)",
        )
    table = FoundTable(*rows[0])
    if table.kind != "r":
        raise Refused(
            repair.database.label,
            f"{repair.relation} is {KINDS.get(table.kind, f'of kind {table.kind}')}, and indexes "
            "are built concurrently on ordinary tables only",
            "L3 must decide how its indexes are made",
        )
    return table


def found_indexes(session: PostgresSession, table: FoundTable) -> list[FoundIndex]:
    """Every index of the table, usable or not."""
    return [FoundIndex(*row) for row in session.rows(INDEXES, (table.oid,))]


def is_leftover(index: FoundIndex, repair: IndexRepair) -> bool:
    """Whether it is what a broken build of a wanted index, or of REINDEX, left behind."""
    ours = {repair.name_of(wanted.column) for wanted in repair.wanted}
    return not index.is_usable and (index.name in ours or bool(LEFT_BY_REINDEX.search(index.name)))

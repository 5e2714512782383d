"""Keys that differ in SQLite and are equal to the server: case, accents, blanks at the end.

Which those are depends on the collation, the server and its version. So the server is asked: the
keys go into a temporary table with the collations of the real columns, and the server groups them.
"""

import sqlite3
from collections.abc import Iterator

from blocks.mysql.session import MysqlSession, quote_name
from tasks.grafana.acceptance import Grade, Hazard, shown_cell
from tasks.grafana.columns import Column, Kind, Misfit
from tasks.grafana.schema import UniqueIndex, quote_sqlite
from tasks.grafana.tables import TablePair
from tasks.grafana.values import literal_form, stored_form

SCRATCH = "recover_keys"  # temporary: it belongs to the session and ends with it
REMEDY = "Rename one of them in a copy of the source (in Grafana, before the copy is taken)"


def colliding_keys(
    source: sqlite3.Connection, session: MysqlSession, pair: TablePair, unusable: set[str]
) -> list[Hazard]:
    """Unique indexes of the target that would refuse rows of the source.

    Args:
        source: the copy.
        session: to the target.
        pair: the table.
        unusable: columns with cells that no column takes, which are told of already.

    Raises:
        CommandFailed: the account may not create temporary tables.
    """
    if pair.source.rows < 2:  # noqa: PLR2004 - it takes two to collide
        return []
    shared = {column.name: column for column in pair.columns}
    hazards = []
    for index in pair.target.unique:
        if not set(index.columns) <= shared.keys() or unusable.intersection(index.columns):
            continue
        columns = [shared[name] for name in index.columns]
        if _has_text(columns):
            hazards += _asked_of_server(source, session, pair, index, columns)
        elif not _is_row_id(pair, columns):
            hazards += _asked_of_copy(source, pair, index)
    return hazards


def _has_text(columns: list[Column]) -> bool:
    return any(column.kind is not Kind.INTEGER for column in columns)


def _is_row_id(pair: TablePair, columns: list[Column]) -> bool:
    """Whether SQLite itself keeps it unique."""
    return len(columns) == 1 and columns[0].is_automatic and pair.source.sequence > 0


def _asked_of_copy(source: sqlite3.Connection, pair: TablePair, index: UniqueIndex) -> list[Hazard]:
    names = ", ".join(map(quote_sqlite, index.columns))
    given = " AND ".join(f"{quote_sqlite(name)} IS NOT NULL" for name in index.columns)
    found = source.execute(
        f"SELECT count(*), {names} FROM {quote_sqlite(pair.source.name)} WHERE {given} "  # noqa: S608
        f"GROUP BY {names} HAVING count(*) > 1"
    ).fetchall()
    if not found:
        return []
    key = ", ".join(
        f"{name}={shown_cell(pair.name, name, cell)}"
        for name, cell in zip(index.columns, found[0][1:], strict=True)
    )
    return [_hazard(pair, index, len(found), key, key)]


def _asked_of_server(
    source: sqlite3.Connection,
    session: MysqlSession,
    pair: TablePair,
    index: UniqueIndex,
    columns: list[Column],
) -> list[Hazard]:
    parts = [f"k{n}" for n in range(len(columns))]
    types = ", ".join(f"{p} {_type(column)}" for p, column in zip(parts, columns, strict=True))
    session.stage(f"DROP TEMPORARY TABLE IF EXISTS {SCRATCH}")
    session.stage(f"CREATE TEMPORARY TABLE {SCRATCH} ({types}, place bigint) ENGINE=InnoDB")
    head = f"INSERT INTO {SCRATCH} ({', '.join(parts)}, place) VALUES"
    session.stage_rows(head, _keys(source, pair, index, columns))
    compared = ", ".join(
        f"LEFT({p}, {length})" if length else p
        for p, length in zip(parts, index.prefixes, strict=True)
    )
    found = session.rows(
        f"SELECT MIN(place), MAX(place) FROM {SCRATCH} "  # noqa: S608
        f"GROUP BY {compared} HAVING COUNT(*) > 1"
    )
    session.stage(f"DROP TEMPORARY TABLE {SCRATCH}")
    if not found:
        return []
    first, second = (_row_at(source, pair, index, place) for place in found[0])
    return [_hazard(pair, index, len(found), first, f"{first} and {second}")]


def _type(column: Column) -> str:
    """The column's type, but of any length: a key that is too long is told of elsewhere."""
    if column.kind is Kind.TEXT:
        charset, collation = quote_name(column.charset), quote_name(column.collation)
        return f"longtext CHARACTER SET {charset} COLLATE {collation}"
    return "longblob" if column.kind is Kind.BYTES else column.column_type


def _keys(
    source: sqlite3.Connection, pair: TablePair, index: UniqueIndex, columns: list[Column]
) -> Iterator[bytes]:
    """The keys as literals, each with the place of its row; a NULL collides with nothing."""
    stores = [(stored_form(column), literal_form(column)) for column in columns]
    names = ", ".join(map(quote_sqlite, index.columns))
    table = quote_sqlite(pair.source.name)
    for place, row in enumerate(source.execute(f"SELECT {names} FROM {table} ORDER BY rowid")):  # noqa: S608
        literals = []
        for (store, literal), cell in zip(stores, row, strict=True):
            try:
                stored = store(cell)
            except Misfit:
                stored = None
            if stored is None:
                break
            literals.append(literal(stored))
        else:
            yield b"(%b,%d)" % (b",".join(literals), place)


def _row_at(source: sqlite3.Connection, pair: TablePair, index: UniqueIndex, place: int) -> str:
    key = pair.target.primary_key if pair.target.primary_key != index.columns else ()
    shared = {column.name for column in pair.columns}
    wanted = [name for name in (*key, *index.columns) if name in shared]
    names = ", ".join(map(quote_sqlite, wanted))
    row = source.execute(
        f"SELECT {names} FROM {quote_sqlite(pair.source.name)} ORDER BY rowid LIMIT 1 OFFSET ?",  # noqa: S608
        (place,),
    ).fetchone()
    return ", ".join(
        f"{name}={shown_cell(pair.name, name, cell)}"
        for name, cell in zip(wanted, row, strict=True)
    )


def _hazard(pair: TablePair, index: UniqueIndex, groups: int, row: str, sample: str) -> Hazard:
    return Hazard(
        "collision", f"{pair.name}.{index.name}", Grade.OBSTACLE, groups, row, sample,
        f"the unique index over {', '.join(index.columns)} takes them for the same", REMEDY,
    )  # fmt: skip

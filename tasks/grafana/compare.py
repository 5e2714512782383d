"""Compare one table cell by cell, by value, on both sides.

Both sides are read once, in the order of the primary key, and merged; memory is bounded by one row
of each. A table without a primary key is compared as a bag of rows: hashes in a scratch file.
"""

import hashlib
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from blocks.mysql.session import MysqlSession, RawRow, quote_name
from recovery.commands import reading
from recovery.errors import NotVerified
from tasks.grafana.acceptance import shown, shown_cell
from tasks.grafana.columns import Cell, Column, Kind, Misfit
from tasks.grafana.schema import quote_sqlite
from tasks.grafana.source import open_copy
from tasks.grafana.tables import TablePair
from tasks.grafana.values import printed_form, stored_form

Key = tuple[int | bytes, ...]
SourceRow = tuple[Cell, ...]
SAMPLES_MAX = 10
DIGEST_BYTES = 16
ORDERED = frozenset({Kind.INTEGER, Kind.BOOLEAN, Kind.TEXT, Kind.BYTES})


@dataclass(frozen=True)
class Difference:
    """One cell that differs, or one row that one side lacks (`column` is empty then)."""

    table: str
    row: str
    column: str
    source: str
    target: str

    def __str__(self) -> str:
        """Where, and both values."""
        where = f"{self.table}.{self.column}" if self.column else self.table
        return f"{where} ({self.row}): {self.source} in the copy, {self.target} in the target"


@dataclass(frozen=True)
class TableComparison:
    """What a comparison found; `differences` are the first few only, the numbers are of all."""

    table: str
    rows: int
    cells: int
    differing_cells: int
    rows_only_in_source: int
    rows_only_in_target: int
    differences: tuple[Difference, ...]

    @property
    def is_equal(self) -> bool:
        """Whether every row and cell is there and is the same."""
        return not (self.differing_cells or self.rows_only_in_source or self.rows_only_in_target)


@dataclass
class _Tally:
    pair: TablePair
    rows: int = 0
    differing_cells: int = 0
    only_in_source: int = 0
    only_in_target: int = 0
    differences: list[Difference] = field(default_factory=list)

    def note(self, row: str, column: str, source: str, target: str) -> None:
        if len(self.differences) < SAMPLES_MAX:
            self.differences.append(Difference(self.pair.name, row, column, source, target))

    def result(self) -> TableComparison:
        return TableComparison(
            table=self.pair.name,
            rows=self.rows,
            cells=self.rows * len(self.pair.columns),
            differing_cells=self.differing_cells,
            rows_only_in_source=self.only_in_source,
            rows_only_in_target=self.only_in_target,
            differences=tuple(self.differences),
        )


def compare_table(copy: Path, session: MysqlSession, pair: TablePair) -> TableComparison:
    """Compare every cell of one table; changes nothing.

    Raises:
        Unreachable: no answer, or it broke off.
        CommandFailed: the account may not read the table.
    """
    tally = _Tally(pair)
    with reading(f"read {pair.source.name}", str(copy)) as call, open_copy(copy) as source:
        if _has_ordered_key(pair):
            _merge(source, session, tally)
        else:
            _compare_bags(source, session, tally)
        call.answer = f"{tally.rows} rows"
    return tally.result()


def refuse_unless_equal(target: str, found: list[TableComparison]) -> None:
    """Go on only if every table is equal.

    Raises:
        NotVerified: names the first cells that differ.
    """
    wrong = [comparison for comparison in found if not comparison.is_equal]
    if not wrong:
        return
    numbers = "; ".join(
        f"{c.table}: {c.differing_cells} cells differ, {c.rows_only_in_source} rows only in the "
        f"copy, {c.rows_only_in_target} only in the target"
        for c in wrong
    )
    first = "; ".join(map(str, wrong[0].differences[:3]))
    raise NotVerified(
        target, "every cell equal on both sides", f"{numbers}. First: {first}",
        "Find out who else writes to the target (Grafana?), then load these tables again",
    )  # fmt: skip


def _has_ordered_key(pair: TablePair) -> bool:
    shared = {column.name: column for column in pair.columns}
    key = pair.target.primary_key
    return bool(key) and all(name in shared and shared[name].kind in ORDERED for name in key)


def _merge(source: sqlite3.Connection, session: MysqlSession, tally: _Tally) -> None:
    pair = tally.pair
    key_columns = [next(c for c in pair.columns if c.name == n) for n in pair.target.primary_key]
    source_order = ", ".join(_source_order(column) for column in key_columns)
    target_order = ", ".join(_target_order(column) for column in key_columns)
    mine = _source_rows(source, pair, source_order)
    theirs = session.stream(f"{_target_query(pair)} ORDER BY {target_order}")
    to_key = _key_maker(pair, key_columns)
    with closing(theirs):
        left, right = next(mine, None), next(theirs, None)
        while left is not None and right is not None:
            # Nearly all rows end here: the same bytes, so the same key and the same cells.
            if left == right:
                tally.rows += 1
                left, right = next(mine, None), next(theirs, None)
                continue
            my_key, their_key = to_key(left), to_key(right)
            if my_key == their_key:
                tally.rows += 1
                _compare_cells(tally, left, right)
                left, right = next(mine, None), next(theirs, None)
            elif my_key < their_key:
                _only_in_source(tally, left)
                left = next(mine, None)
            else:
                _only_in_target(tally, right)
                right = next(theirs, None)
        while left is not None:
            _only_in_source(tally, left)
            left = next(mine, None)
        while right is not None:
            _only_in_target(tally, right)
            right = next(theirs, None)


def _source_rows(
    source: sqlite3.Connection, pair: TablePair, order: str = ""
) -> Iterator[SourceRow]:
    """Rows of the copy with whole numbers as digits, as the server prints them."""
    names = ", ".join(
        f"CASE typeof({name}) WHEN 'integer' THEN CAST({name} AS TEXT) ELSE {name} END"
        if column.kind in (Kind.INTEGER, Kind.BOOLEAN)
        else name
        for column in pair.columns
        for name in (quote_sqlite(column.name),)
    )
    ordered = f" ORDER BY {order}" if order else ""
    return source.execute(f"SELECT {names} FROM {quote_sqlite(pair.source.name)}{ordered}")  # noqa: S608


def _target_query(pair: TablePair) -> str:
    names = ", ".join(
        # A FLOAT is printed with six digits; as a DOUBLE it shows all it holds.
        f"{name} + 0e0" if column.kind is Kind.FLOAT else name
        for column in pair.columns
        for name in (quote_name(column.name),)
    )
    return f"SELECT {names} FROM {quote_name(pair.name)}"  # noqa: S608


def _source_order(column: Column) -> str:
    name = quote_sqlite(column.name)
    return name if column.kind in (Kind.INTEGER, Kind.BOOLEAN) else f"CAST({name} AS BLOB)"


def _target_order(column: Column) -> str:
    name = quote_name(column.name)
    if column.kind in (Kind.INTEGER, Kind.BOOLEAN):
        return name
    if column.kind is Kind.BYTES:
        return f"CAST({name} AS BINARY)"
    return f"CAST(CONVERT({name} USING utf8mb4) AS BINARY)"


def _key_maker(pair: TablePair, columns: list[Column]) -> Callable[[SourceRow], Key]:
    places = [(pair.columns.index(column), column) for column in columns]

    def to_key(row: SourceRow) -> Key:
        return tuple(_key_part(column, row[place]) for place, column in places)

    return to_key


def _key_part(column: Column, cell: Cell) -> int | bytes:
    if column.kind in (Kind.INTEGER, Kind.BOOLEAN):
        return int(cell or 0)
    return cell if isinstance(cell, bytes) else str(cell).encode()


def _row_name(pair: TablePair, row: SourceRow) -> str:
    key = pair.target.primary_key or tuple(column.name for column in pair.columns[:3])
    return ", ".join(
        f"{column.name}={shown(cell)}"
        for column, cell in zip(pair.columns, row, strict=True)
        if column.name in key
    )


def _only_in_source(tally: _Tally, row: SourceRow) -> None:
    tally.only_in_source += 1
    tally.note(_row_name(tally.pair, row), "", "a row", "no row")


def _only_in_target(tally: _Tally, row: SourceRow) -> None:
    tally.only_in_target += 1
    tally.note(_row_name(tally.pair, row), "", "no row", "a row")


def _compare_cells(tally: _Tally, mine: SourceRow, theirs: RawRow) -> None:
    for column, cell, held in zip(tally.pair.columns, mine, theirs, strict=True):
        if cell == held:
            continue
        expected, found = _expected(column, cell), _printed(column, held)
        if expected != found:
            tally.differing_cells += 1
            source, target = _shown_apart(tally.pair.name, column.name, cell, held)
            tally.note(_row_name(tally.pair, mine), column.name, source, target)


def _expected(column: Column, cell: Cell) -> bytes | None:
    try:
        return stored_form(column)(cell)
    except Misfit as misfit:
        return b"(does not fit: %b)" % str(misfit).encode()


def _printed(column: Column, held: bytes | None) -> bytes | None:
    read = printed_form(column)
    return read(held) if read is not None and held is not None else held


def _shown_apart(table: str, column: str, cell: Cell, held: bytes | None) -> tuple[str, str]:
    """Both values, from shortly before the first byte that differs."""
    start = 0
    if isinstance(cell, bytes) and held is not None:
        shorter = min(len(cell), len(held))
        first = next((n for n in range(shorter) if cell[n] != held[n]), shorter)
        start = max(first - 20, 0)
        cell, held = cell[start:], held[start:]
    at = f" from byte {start}" if start else ""
    return f"{shown_cell(table, column, cell)}{at}", f"{shown_cell(table, column, held)}{at}"


def _compare_bags(source: sqlite3.Connection, session: MysqlSession, tally: _Tally) -> None:
    """Count each row up on one side and down on the other; what is not zero differs."""
    pair = tally.pair
    stores = [stored_form(column) for column in pair.columns]
    reads = [printed_form(column) for column in pair.columns]
    count = "INSERT INTO bag VALUES (?, ?, ?) ON CONFLICT (digest) DO UPDATE SET n = n + excluded.n"
    with closing(sqlite3.connect("")) as bag:  # without a name it is a scratch file of its own
        bag.execute("CREATE TABLE bag (digest BLOB PRIMARY KEY, n INTEGER, row TEXT) WITHOUT ROWID")
        for row in _source_rows(source, pair):
            try:
                cells = [store(cell) for store, cell in zip(stores, row, strict=True)]
            except Misfit:
                cells = [cell if isinstance(cell, bytes) else shown(cell).encode() for cell in row]
            bag.execute(count, (_digest(cells), 1, _row_name(pair, row)))
            tally.rows += 1
        for held in session.stream(_target_query(pair)):
            cells = [
                read(cell) if read is not None and cell is not None else cell
                for read, cell in zip(reads, held, strict=True)
            ]
            bag.execute(count, (_digest(cells), -1, _row_name(pair, held)))
        for n, name in bag.execute("SELECT n, row FROM bag WHERE n <> 0 ORDER BY row"):
            if n > 0:
                tally.only_in_source += n
            else:
                tally.only_in_target -= n
            tally.note(name, "", f"{max(n, 0)} more of it", f"{max(-n, 0)} more of it")
    tally.rows -= tally.only_in_source


def _digest(cells: list[bytes | None]) -> bytes:
    digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
    for cell in cells:
        digest.update(b"N" if cell is None else b"%d:" % len(cell))
        digest.update(cell or b"")
    return digest.digest()

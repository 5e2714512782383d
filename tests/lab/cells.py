"""Compare a SQLite database with a MySQL one, cell by cell and by value, slowly and plainly.

This is the second opinion on a migration. It shares no code with what migrates: the rules are read
anew from the procedure (truth values as 0 and 1, dates as UTC, texts and blobs byte by byte, NULL
is not empty), so that a mistake there is not made here again.
"""

import re
import shutil
import sqlite3
import struct
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

WHOLE = frozenset({"tinyint", "smallint", "mediumint", "int", "bigint", "year"})
TEXT = frozenset({"char", "varchar", "tinytext", "text", "mediumtext", "longtext", "enum", "set"})
BYTES = frozenset({"binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob"})
MOMENT = frozenset({"datetime", "timestamp"})
TRUTH = {b"true": 1, b"false": 0, b"t": 1, b"f": 0}
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MILLISECONDS_FROM = 100_000_000_000
BESIDE = ("-wal", "-journal")  # without its -wal a database can lack its last, or all, rows
SHOWN_CHARACTERS = 80
Value = Any


class Unreadable(ValueError):
    """A cell that no column of this type can stand for."""


@dataclass(frozen=True)
class Difference:
    """One cell, row or column that is not the same on both sides."""

    table: str
    key: str
    column: str
    source: Value
    target: Value
    why: str

    def __str__(self) -> str:
        place = ".".join(filter(None, (self.table, self.column)))
        row = f" ({self.key})" if self.key else ""
        return f"{place}{row}: {self.why}; source {shown(self.source)}, target {shown(self.target)}"


@dataclass
class Comparison:
    """How many cells were compared, in how many rows, and everything that differs."""

    cells: int = 0
    rows: int = 0
    differences: list[Difference] = field(default_factory=list)


@dataclass(frozen=True)
class Column:
    """A column that both sides have, by its type in MySQL."""

    name: str
    type: str  # datetime
    whole_type: str  # datetime(6)
    digits: int  # of a fraction: of a second, or of a number

    @property
    def is_truth(self) -> bool:
        """Whether it holds truth values, as MySQL declares them."""
        return self.whole_type.startswith("tinyint(1)")

    @property
    def expression(self) -> str:
        """What to select so that no client and no character set has a say in the value."""
        if self.type in TEXT:
            return f"CAST(CONVERT({tick(self.name)} USING utf8mb4) AS BINARY)"
        if self.type in MOMENT or self.type == "decimal":
            return f"CAST({tick(self.name)} AS CHAR)"
        if self.type in {"float", "double"}:
            return f"({tick(self.name)} + 0e0)"  # a float printed as it is has six digits only
        return tick(self.name)


def compare(
    sqlite_path: Path, connection: Any, tables: Iterable[str], *, tolerate: Collection[str] = ()
) -> Comparison:
    """Compare every cell of these tables.

    Args:
        sqlite_path: the source; a copy of it is read, never the file itself.
        connection: of PyMySQL, with the database chosen; its session is set to UTC.
        tables: names as MySQL has them.
        tolerate: losses by the names an operator accepts them by, such as
            `truncated-fraction:annotation.created` or `truncated-fraction:*`. Also known are
            `trailing-blanks`, `rounded-number` and `no-target-column`.

    Raises:
        sqlite3.Error: the source cannot be read.
        ValueError: a column of MySQL has a type that is not known here.
    """
    found = Comparison()
    with copied(sqlite_path) as source, closing(connection.cursor()) as cursor:
        cursor.execute("SET time_zone = '+00:00'")
        for table in tables:
            TableComparison(source, cursor, table, frozenset(tolerate), found).run()
    return found


@contextmanager
def copied(sqlite_path: Path) -> Iterator[sqlite3.Connection]:
    """Open a copy of a SQLite file, with what lies beside it; texts are read as bytes."""
    with tempfile.TemporaryDirectory(prefix="lab-cells-") as scratch:
        copy = Path(scratch) / "copy.db"
        shutil.copyfile(sqlite_path, copy)
        for suffix in BESIDE:
            beside = sqlite_path.with_name(sqlite_path.name + suffix)
            if beside.exists():
                shutil.copyfile(beside, f"{copy}{suffix}")
        with closing(sqlite3.connect(copy)) as connection:
            connection.text_factory = bytes
            yield connection


@dataclass
class TableComparison:
    """The comparison of one table; what it finds is added to `found`."""

    source: sqlite3.Connection
    cursor: Any
    table: str
    tolerate: frozenset[str]
    found: Comparison
    columns: list[Column] = field(default_factory=list)

    def run(self) -> None:
        """Compare it."""
        mine, (theirs, key) = self._columns_of_source(), self._columns_of_target()
        if not (mine and theirs):
            side = "source" if theirs else "target"
            self._differ("", "", None, None, f"the {side} has no such table")
            return
        self.columns = [column for name, column in theirs.items() if name in mine]
        for name in mine.keys() - theirs.keys():
            self._look_for_lost_column(mine[name])
        here = self._rows_of_source([mine[column.name.lower()] for column in self.columns])
        there = self._rows_of_target()
        self.found.rows += len(here)
        self.found.cells += len(here) * len(self.columns)
        places = [n for n, column in enumerate(self.columns) if column.name.lower() in key]
        if key and len(places) == len(key):
            self._compare_by_key(here, there, places)
        else:
            self._compare_as_heaps(here, there)

    def _columns_of_target(self) -> tuple[dict[str, Column], list[str]]:
        self.cursor.execute(
            "SELECT column_name, data_type, column_type, COALESCE(datetime_precision, "
            "numeric_scale, 0), column_key FROM information_schema.columns "
            "WHERE table_schema = DATABASE() AND table_name = %s ORDER BY ordinal_position",
            (self.table,),
        )
        columns, key = {}, []
        for name, kind, whole_kind, digits, column_key in self.cursor.fetchall():
            columns[name.lower()] = Column(name, kind, whole_kind, int(digits))
            if column_key == "PRI":
                key.append(name.lower())
        return columns, key

    def _columns_of_source(self) -> dict[str, str]:
        listed = self.source.execute(f"PRAGMA table_info({quoted(self.table)})").fetchall()
        return {row[1].decode().lower(): row[1].decode() for row in listed}

    def _rows_of_source(self, names: list[str]) -> list[tuple[Value, ...]]:
        listed = ", ".join(map(quoted, names))
        return self.source.execute(f"SELECT {listed} FROM {quoted(self.table)}").fetchall()  # noqa: S608

    def _rows_of_target(self) -> list[tuple[Value, ...]]:
        listed = ", ".join(column.expression for column in self.columns)
        self.cursor.execute(f"SELECT {listed} FROM {tick(self.table)}")  # noqa: S608
        readers = [printed(column) for column in self.columns]
        rows = (zip(readers, row, strict=True) for row in self.cursor.fetchall())
        return [tuple(None if cell is None else read(cell) for read, cell in row) for row in rows]

    def _look_for_lost_column(self, name: str) -> None:
        if self._is_tolerated("no-target-column", name):
            return
        row = self.source.execute(
            f"SELECT {quoted(name)} FROM {quoted(self.table)} "  # noqa: S608
            f"WHERE {quoted(name)} IS NOT NULL LIMIT 1"
        ).fetchone()
        if row:
            self._differ("", name, row[0], None, "the target has no such column")

    def _compare_by_key(self, here: list, there: list, places: list[int]) -> None:
        waiting = {tuple(row[n] for n in places): row for row in there}
        for row in here:
            try:
                key = tuple(self._canonical(self.columns[n], row[n]) for n in places)
            except Unreadable as error:
                self._differ(f"{row[places[0]]}", "", row, None, str(error))
                continue
            named = ", ".join(
                f"{self.columns[n].name}={shown(part)}" for n, part in zip(places, key, strict=True)
            )
            other = waiting.pop(key, None)
            if other is None:
                self._differ(named, "", row, None, "the row is missing")
                continue
            for column, cell, stored in zip(self.columns, row, other, strict=True):
                self._compare_cell(named, column, cell, stored)
        for key, row in waiting.items():
            self._differ(f"{key}", "", None, row, "nobody has such a row in the source")

    def _compare_as_heaps(self, here: list, there: list) -> None:
        """Compare rows that nothing tells apart: each must be there as often as it is here."""
        left = Counter(there)
        for row in here:
            try:
                wanted = tuple(map(self._canonical, self.columns, row))
            except Unreadable as error:
                self._differ("", "", row, None, str(error))
                continue
            if left[wanted]:
                left[wanted] -= 1
                for column, cell, stored in zip(self.columns, row, wanted, strict=True):
                    self._compare_cell("", column, cell, stored)
            else:
                self._differ("", "", row, None, "the row is missing")
        for row in left.elements():
            self._differ("", "", None, row, "nobody has such a row in the source")

    def _compare_cell(self, key: str, column: Column, cell: Value, stored: Value) -> None:
        try:
            wanted = self._canonical(column, cell)
        except Unreadable as error:
            self._differ(key, column.name, cell, stored, str(error))
            return
        if (wanted is None) != (stored is None):
            self._differ(key, column.name, cell, stored, "NULL is not a value")
        elif wanted != stored:
            self._differ(key, column.name, cell, stored, "the values differ")
        elif loss := lost(column, cell):
            name, why = loss
            if not self._is_tolerated(name, column.name):
                self._differ(key, column.name, cell, stored, why)

    def _canonical(self, column: Column, cell: Value) -> Value:
        """What the column must hold for this cell of the source."""
        if cell is None:
            return None
        value = meant(column)(column, cell)
        if column.type == "char" and self._is_tolerated("trailing-blanks", column.name):
            return value.rstrip(b" ")
        return value

    def _is_tolerated(self, loss: str, column: str) -> bool:
        return not self.tolerate.isdisjoint({f"{loss}:*", f"{loss}:{self.table}.{column}"})

    def _differ(self, key: str, column: str, source: Value, target: Value, why: str) -> None:
        self.found.differences.append(Difference(self.table, key, column, source, target, why))


def printed(column: Column) -> Callable[[Value], Value]:
    """How to read what the server gives for a column, as `meant` writes it."""
    if column.type in WHOLE:
        return int
    if column.type in TEXT | BYTES:
        return bytes
    if column.type in MOMENT:
        return str
    if column.type in {"float", "double"}:
        return float
    if column.type == "decimal":
        return Decimal
    raise ValueError(f"{column.name} is of a type that is not known here: {column.whole_type}")


def meant(column: Column) -> Callable[[Column, Value], Value]:
    """How to turn a cell of the source into what a column must hold."""
    if column.type in WHOLE:
        return whole_number
    if column.type in TEXT | BYTES:
        return plain_bytes
    if column.type in MOMENT:
        return lambda col, cell: as_printed(*moment(cell), col.digits)
    return real_number


def whole_number(column: Column, cell: Value) -> int:
    """Return a whole number, also of a text; a truth value may be a word."""
    if isinstance(cell, bytes) and column.is_truth and cell.strip().lower() in TRUTH:
        return TRUTH[cell.strip().lower()]
    try:
        number = Decimal(cell.decode("ascii") if isinstance(cell, bytes) else cell)
        if number == number.to_integral_value():
            return int(number)
    except (InvalidOperation, OverflowError, UnicodeDecodeError, ValueError) as error:
        raise Unreadable("a number is wanted") from error
    raise Unreadable("a whole number is wanted")


def real_number(column: Column, cell: Value) -> float | Decimal:
    """Return a number as exactly as the column holds it."""
    try:
        number = Decimal(cell.decode("ascii") if isinstance(cell, bytes) else str(cell))
        if column.type == "decimal":
            return round(number, column.digits)
        if column.type == "float":
            return struct.unpack("f", struct.pack("f", float(number)))[0]
    except (InvalidOperation, UnicodeDecodeError, OverflowError) as error:
        raise Unreadable("a number is wanted") from error
    return float(number)


def plain_bytes(_: Column, cell: Value) -> bytes:
    """Return a text or blob as it is; a number in such a column as its text."""
    return cell if isinstance(cell, bytes) else str(cell).encode()


def moment(cell: Value) -> tuple[datetime, str]:
    """Return a date in UTC, whole seconds, and the digits of its fraction apart.

    Forms: `2024-03-31 02:30:00.123456789+02:00`, with `T` or `Z`, `2023-06-01 10:00:00 +0000 UTC`,
    a date alone, and numbers of seconds or milliseconds since 1970. No zone means UTC.
    """
    try:
        if isinstance(cell, int):
            in_milliseconds = abs(cell) >= MILLISECONDS_FROM
            seconds, rest = divmod(cell, 1000) if in_milliseconds else (cell, 0)
            return EPOCH + timedelta(seconds=seconds), f"{rest:03d}"
        text = cell.decode("ascii").strip().replace("T", " ", 1)
        day, _, rest = text.partition(" ")
        clock, fraction, zone = split_time(rest)
        read = datetime.fromisoformat(f"{day} {clock}{zone}")
        return read.astimezone(UTC), fraction
    except (AttributeError, ValueError, OverflowError) as error:
        raise Unreadable("a date is wanted") from error


def split_time(text: str) -> tuple[str, str, str]:
    """Split `02:30:00.123456789+02:00` or `10:00:00 +0000 UTC m=+0.1` into clock, digits, zone."""
    if not text:
        return "00:00:00", "", "+00:00"
    first, *others = text.split(" ")
    parts = re.match(r"([0-9:]+)(?:[.,]([0-9]+))?(.*)", first)
    if parts is None:
        raise Unreadable("a date is wanted")
    clock, fraction, zone = parts.groups()
    if not zone and others:
        zone = others[0]
    if zone in {"", "Z", "UTC"}:
        zone = "+00:00"
    return clock, fraction or "", zone


def as_printed(when: datetime, fraction: str, digits: int) -> str:
    """Return a date as MySQL prints it in a column with so many digits of a fraction."""
    text = when.replace(tzinfo=None).isoformat(sep=" ", timespec="seconds")
    return f"{text}.{fraction[:digits].ljust(digits, '0')}" if digits else text


def lost(column: Column, cell: Value) -> tuple[str, str] | None:
    """Name what the column cannot hold of a cell, even where it holds what it can."""
    if cell is None:
        return None
    if column.type in MOMENT and moment(cell)[1][column.digits :].strip("0"):
        return "truncated-fraction", "the fraction of a second is gone"
    if column.type in {"float", "decimal"}:
        exact = Decimal(cell.decode("ascii") if isinstance(cell, bytes) else str(cell))
        if Decimal(str(real_number(column, cell))) != exact and (
            column.type == "decimal" or real_number(column, cell) != float(exact)
        ):
            return "rounded-number", "digits of the number are gone"
    return None


def shown(value: Value) -> str:
    """Return a value for people, not too long."""
    text = repr(value)
    if len(text) <= SHOWN_CHARACTERS:
        return text
    return f"{text[:SHOWN_CHARACTERS]}… ({len(text)} characters)"


def tick(name: str) -> str:
    """Return an identifier as MySQL takes it."""
    return "`" + name.replace("`", "``") + "`"


def quoted(name: str) -> str:
    """Return an identifier as SQLite takes it."""
    return '"' + name.replace('"', '""') + '"'

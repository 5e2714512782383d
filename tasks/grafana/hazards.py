"""Find everything that a migration would lose, before its first write.

Every cell of every table that is moved is converted as it will be at the load. What the server
knows better, which keys it takes for equal, is asked of the server itself.
"""

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from blocks.mysql.session import STATEMENT_ROOM_BYTES, MysqlSession
from recovery.commands import reading
from tasks.grafana.acceptance import Grade, Hazard, shown, shown_cell
from tasks.grafana.collisions import colliding_keys
from tasks.grafana.columns import Cell, Column, Misfit
from tasks.grafana.schema import quote_sqlite
from tasks.grafana.source import open_copy
from tasks.grafana.tables import SchemaComparison, TablePair
from tasks.grafana.values import losses_of, stored_form

ROW_OVERHEAD_BYTES = 16  # quotes, commas and an introducer of one cell in a statement
LOSSES: dict[str, tuple[Grade, str, str]] = {
    "truncated-fraction": (
        Grade.LOSS, "the column keeps no such fraction of a second, it is cut off",
        "Accept it, as every Grafana on MySQL does",
    ),
    "rounded-number": (
        Grade.LOSS, "the column keeps fewer digits", "Widen the column, or accept the rounding",
    ),
    "trailing-blanks": (
        Grade.LOSS, "the column drops blanks at the end", "Accept it, or trim the value",
    ),
    "bool-text": (Grade.NOTICE, "a truth value is text, it becomes 1 or 0", ""),
    "epoch-date": (Grade.NOTICE, "a date is a number, it becomes a date", ""),
    "early-year": (
        Grade.NOTICE, "the year is below 1000, as of Go's zero time, and is kept", "",
    ),
    "zero-id": (Grade.NOTICE, "an id is 0 and is kept", ""),
}  # fmt: skip
OBSTACLES = {
    "null": "Give it a value in a copy of the source",
    "not-a-number": "Correct the value in a copy of the source",
    "out-of-range": "Correct the value in a copy of the source, or widen the column",
    "invalid-date": "Correct the date in a copy of the source",
    "invalid-utf8": "Correct the value in a copy of the source: Grafana cannot read it either",
    "four-byte-characters": "Convert the column to utf8mb4",
    "too-long": "Shorten the value in a copy of the source, or widen the column",
    "invalid-json": "Correct the value in a copy of the source",
    "unsupported-type": "Change the type of the column to that of Grafana's own schema",
}


@dataclass
class _Tally:
    """How often one hazard was seen in one column, and where first."""

    rows: int
    row: str
    sample: str
    reason: str


@dataclass(frozen=True)
class _Look:
    """How one column is looked at."""

    column: Column
    store: Callable[[Cell], bytes | None]
    loss: Callable[[Cell], str] | None
    tallies: dict[str, _Tally] = field(default_factory=dict)


def find_hazards(
    copy: Path, session: MysqlSession, comparison: SchemaComparison
) -> tuple[Hazard, ...]:
    """Everything that speaks against the migration, the schemas' differences first.

    Raises:
        Unreachable: the server gave no answer.
        CommandFailed: the account may not create temporary tables, or not read the schema.
    """
    hazards = list(comparison.hazards)
    with reading("look at every cell", str(copy)) as call, open_copy(copy) as source:
        for pair in comparison.copied:
            hazards += _columns_only_in_source(source, pair)
            found = _cells(source, pair, session.packet_max_bytes)
            hazards += found
            unusable = {h.place.rpartition(".")[2] for h in found if h.grade is Grade.OBSTACLE}
            hazards += colliding_keys(source, session, pair, unusable)
            hazards += _replaced_rows(source, session, pair)
        call.answer = f"{len(hazards)} findings"
    return tuple(hazards)


def _columns_only_in_source(source: sqlite3.Connection, pair: TablePair) -> list[Hazard]:
    known = {column.name.lower() for column in pair.target.columns}
    hazards = []
    for column in pair.source.columns:
        if column.name.lower() in known:
            continue
        name, table = quote_sqlite(column.name), quote_sqlite(pair.source.name)
        count, sample = source.execute(
            f"SELECT count(*), min({name}) FROM {table} WHERE {name} IS NOT NULL"  # noqa: S608
        ).fetchone()
        if count:
            hazards.append(
                Hazard(
                    "no-target-column", f"{pair.name}.{column.name}", Grade.LOSS, int(count),
                    _first_row(source, pair, f"{name} IS NOT NULL"),
                    shown_cell(pair.name, column.name, sample),
                    "the target has no such column, what it holds would be lost",
                    "Run the same version on both sides",
                )
            )  # fmt: skip
    return hazards


def _first_row(source: sqlite3.Connection, pair: TablePair, where: str) -> str:
    names = ", ".join(map(quote_sqlite, _key_of(pair)))
    table = quote_sqlite(pair.source.name)
    row = source.execute(f"SELECT {names} FROM {table} WHERE {where} LIMIT 1").fetchone()  # noqa: S608
    return _named_row(_key_of(pair), row) if row else ""


def _key_of(pair: TablePair) -> tuple[str, ...]:
    shared = [column.name for column in pair.columns]
    if pair.target.primary_key and set(pair.target.primary_key) <= set(shared):
        return pair.target.primary_key
    return tuple(shared[:3])


def _named_row(key: tuple[str, ...], row: tuple[Cell, ...]) -> str:
    return ", ".join(f"{name}={shown(value)}" for name, value in zip(key, row, strict=True))


def _cells(source: sqlite3.Connection, pair: TablePair, packet_max_bytes: int) -> list[Hazard]:
    """Convert every cell and keep what does not fit, does not fit whole, or is worth knowing."""
    if not pair.source.rows or not pair.columns:
        return []
    looks = [_Look(column, stored_form(column), losses_of(column)) for column in pair.columns]
    key = _key_of(pair)
    places = [next(n for n, c in enumerate(pair.columns) if c.name == name) for name in key]
    names = ", ".join(quote_sqlite(column.name) for column in pair.columns)
    row_bytes_max = packet_max_bytes - STATEMENT_ROOM_BYTES
    largest, largest_row = 0, ""
    for row in source.execute(f"SELECT {names} FROM {quote_sqlite(pair.source.name)}"):  # noqa: S608
        size = 0
        for look, cell in zip(looks, row, strict=True):
            kind, reason = _seen_in(look, cell)
            if isinstance(cell, bytes):
                size += len(cell)
            if kind:
                tally = look.tallies.get(kind)
                if tally is None:
                    first = _named_row(key, tuple(row[n] for n in places))
                    look.tallies[kind] = _Tally(
                        1, first, shown_cell(pair.name, look.column.name, cell), reason
                    )
                else:
                    tally.rows += 1
        if size > row_bytes_max // 2:  # only then quotes, doubled, can make it too large
            quotes = sum(cell.count(b"'") for cell in row if isinstance(cell, bytes))
            size += quotes + len(row) * ROW_OVERHEAD_BYTES
        if size > largest:
            largest, largest_row = size, _named_row(key, tuple(row[n] for n in places))
    hazards = [
        _as_hazard(pair, look.column, kind, tally)
        for look in looks
        for kind, tally in look.tallies.items()
    ]
    if largest > row_bytes_max:
        hazards.append(
            Hazard(
                "packet-too-small", pair.name, Grade.OBSTACLE, 1, largest_row, f"{largest} bytes",
                f"the row is larger than the server takes (max_allowed_packet {packet_max_bytes})",
                f"Set max_allowed_packet of the server to {2 * largest} bytes or more",
            )
        )  # fmt: skip
    return hazards


def _seen_in(look: _Look, cell: Cell) -> tuple[str, str]:
    """The kind of a hazard in one cell and why, both empty for none."""
    column = look.column
    if cell is None:
        if column.is_nullable:
            return "", ""
        return "null", "the target takes no NULL there"
    try:
        look.store(cell)
        kind = look.loss(cell) if look.loss else ""
    except Misfit as misfit:
        return misfit.kind, misfit.why
    if column.is_automatic and cell == 0:
        kind = "zero-id"
    return kind, LOSSES[kind][1] if kind else ""


def _as_hazard(pair: TablePair, column: Column, kind: str, tally: _Tally) -> Hazard:
    if kind in OBSTACLES:
        grade, reason, remedy = Grade.OBSTACLE, tally.reason, OBSTACLES[kind]
    else:
        grade, reason, remedy = LOSSES[kind]
    place = f"{pair.name}.{column.name}"
    return Hazard(kind, place, grade, tally.rows, tally.row, tally.sample, reason, remedy)


# What people made in a Grafana, and the column they would know it by.
MADE_BY_PEOPLE = {
    "dashboard": "title", "data_source": "name", "folder": "title", "alert_rule": "title",
    "user": "login", "team": "name", "library_element": "name", "org": "name", "api_key": "name",
    "playlist": "name", "short_url": "uid", "annotation": "text", "dashboard_snapshot": "name",
    "dashboard_public": "uid", "query_history": "uid", "correlation": "uid", "temp_user": "email",
    "alert": "name", "alert_notification": "name", "plugin_setting": "plugin_id",
    "tag": "key", "dashboard_tag": "term", "ngalert_configuration": "id",
}  # fmt: skip
MADE_BY_FIRST_START = {"user": {b"admin"}, "org": {b"Main Org."}}


def as_text(cell: object) -> bytes:
    """A cell as both sides can say it: SQLite gives numbers, the stream of MySQL their digits."""
    return cell if isinstance(cell, bytes) else str(cell).encode()


def _replaced_rows(
    source: sqlite3.Connection, session: MysqlSession, pair: TablePair
) -> list[Hazard]:
    """What people made on the target and the source does not have: the load deletes it."""
    column = MADE_BY_PEOPLE.get(pair.name)
    if column is None or column not in {shared.name for shared in pair.columns}:
        return []
    table = quote_sqlite(pair.source.name)
    kept = {
        as_text(cell)
        for (cell,) in source.execute(f"SELECT DISTINCT {quote_sqlite(column)} FROM {table}")  # noqa: S608
    } | MADE_BY_FIRST_START.get(pair.name, set())
    lost = [
        cell
        for (cell,) in session.stream(f"SELECT `{column}` FROM `{pair.name}`")  # noqa: S608
        if cell is not None and as_text(cell) not in kept
    ]
    if not lost:
        return []
    return [
        Hazard(
            "replaced-rows", pair.name, Grade.LOSS, len(lost), f"{column}={shown(lost[0])}",
            shown(lost[0]), "the target holds what the source does not, and the load deletes it",
            "Look whether somebody works with the target already; the dump keeps it",
        )
    ]  # fmt: skip

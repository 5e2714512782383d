"""Fill one table of the target with the rows of the copy, all of them or none.

Values go by name of column, never by place, in batches bounded by the server's packet size, and so
is memory.
"""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from blocks.mysql.session import MysqlSession, quote_name
from recovery.errors import Refused
from tasks.grafana.acceptance import shown, shown_cell
from tasks.grafana.columns import Cell, Misfit
from tasks.grafana.schema import quote_sqlite
from tasks.grafana.source import open_copy
from tasks.grafana.tables import TablePair
from tasks.grafana.values import literal_form, stored_form

Hook = Callable[[MysqlSession], None]


@dataclass(frozen=True)
class TableLoad:
    """What one load did; `deleted` counts the rows that were there before."""

    table: str
    rows: int
    deleted: int


def nothing_more(_: MysqlSession) -> None:
    """Run no further statement in the transaction."""


def load_commands(pair: TablePair) -> tuple[str, ...]:
    """The exact commands of `load_table`, in order, without those of its hooks."""
    commands = ["START TRANSACTION", _delete(pair)]
    if pair.source.rows:
        commands.append(_template(pair))
    commands.append("COMMIT")
    return (*_numbering(pair), *commands)


def load_table(
    copy: Path,
    session: MysqlSession,
    pair: TablePair,
    *,
    first: Hook = nothing_more,
    last: Hook = nothing_more,
) -> TableLoad:
    """Replace all rows of one table by those of the copy, in one transaction.

    What the table held before is gone once this is committed; the dump keeps it. No other table is
    touched. Done twice, the second load writes the same rows again. Ids that were given and deleted
    in SQLite are not given again: permissions may still name them.

    Args:
        copy: the copy of the source, at rest.
        session: to the target.
        pair: the table.
        first: run at the start of the transaction; may refuse.
        last: run before the commit.

    Raises:
        Unreachable: no answer; it may or may not be committed.
        CommandFailed: the server refused a row; nothing is committed.
        Refused: a cell does not fit, or the number of rows differs; nothing is committed.

    Runbook: docs/runbooks/grafana-sqlite-to-mysql.md, step 7.
    """
    # Before the transaction: an ALTER would commit it. Rows of before keep the counter where it is
    # when they reach higher, which harms nobody.
    for command in _numbering(pair):
        session.change(command)
    with open_copy(copy) as source, session.transaction():
        first(session)
        deleted = session.change(_delete(pair))
        rows = 0
        if pair.source.rows:
            rows = session.insert_rows(
                _template(pair), _head(pair), _literals(source, pair, session.target)
            )
        (held,) = session.rows(f"SELECT COUNT(*) FROM {quote_name(pair.name)}")[0]  # noqa: S608
        if not rows == held == pair.source.rows:
            raise Refused(
                session.target,
                f"{pair.name}: the copy has {pair.source.rows} rows, {rows} were sent and "
                f"{held} are there; all was rolled back",
                "Look for a trigger on the table or a changed copy, then resume",
            )
        last(session)
    return TableLoad(pair.name, rows, deleted)


def _numbering(pair: TablePair) -> tuple[str, ...]:
    if not pair.source.sequence or not any(column.is_automatic for column in pair.columns):
        return ()
    next_id = pair.source.sequence + 1
    return (f"ALTER TABLE {quote_name(pair.name)} AUTO_INCREMENT = {next_id}",)


def _delete(pair: TablePair) -> str:
    # Not TRUNCATE: that commits, and the rows would be gone before the new ones are there.
    return f"DELETE FROM {quote_name(pair.name)}"  # noqa: S608


def _head(pair: TablePair) -> str:
    names = ", ".join(quote_name(column.name) for column in pair.columns)
    return f"INSERT INTO {quote_name(pair.name)} ({names}) VALUES"


def _template(pair: TablePair) -> str:
    return f"{_head(pair)} ({', '.join('?' * len(pair.columns))})"


def _literals(source: sqlite3.Connection, pair: TablePair, target: str) -> Iterator[bytes]:
    """Each row of the copy as `(literal,literal,…)`."""
    forms = [(stored_form(column), literal_form(column)) for column in pair.columns]
    names = ", ".join(quote_sqlite(column.name) for column in pair.columns)
    for row in source.execute(f"SELECT {names} FROM {quote_sqlite(pair.source.name)}"):  # noqa: S608
        try:
            yield b"(%b)" % b",".join(
                [
                    b"NULL" if (stored := store(cell)) is None else literal(stored)
                    for (store, literal), cell in zip(forms, row, strict=True)
                ]
            )
        except Misfit:
            raise _refusal(target, pair, row) from None


def _refusal(target: str, pair: TablePair, row: tuple[Cell, ...]) -> Refused:
    for column, cell in zip(pair.columns, row, strict=True):
        try:
            stored_form(column)(cell)
        except Misfit as misfit:
            seen = f"{pair.name}.{column.name} cannot hold "
            seen += f"{shown_cell(pair.name, column.name, cell)}: {misfit}"
            with suppress(StopIteration):
                key = pair.target.primary_key[:1]
                place = next(n for n, c in enumerate(pair.columns) if c.name in key)
                seen += f" (row {key[0]}={shown(row[place])})"
            return Refused(
                target, f"{seen}; nothing of the table is committed",
                "Correct the value in a copy of the source, then start anew",
            )  # fmt: skip
    raise AssertionError(pair.name)

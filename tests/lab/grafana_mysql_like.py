"""Make up a MySQL schema that a foreign Grafana database fits, where the real one is not to be had.

The true schema is what the same version of Grafana makes when it first starts on MySQL. This one is
derived from the types and unique indexes that the SQLite file declares, and has its logs of
migrations, so that both sides are of one version. It is good for a rehearsal and for nothing else:
Grafana must not be started on it.
"""

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.lab.cells import copied, quoted
from tests.lab.grafana_schema import tick, ticks

LOG_SUFFIX = "migration_log"
KEY_CHARACTERS_MAX = 768  # a key of InnoDB has 3072 bytes, a character of utf8mb4 up to four
USUAL_CHARACTERS = 190
TYPES = {
    "INTEGER": "bigint",
    "BOOLEAN": "tinyint(1)",
    "DATETIME": "datetime",
    "REAL": "double",
    "BLOB": "longblob",
}
INTERNAL = "sqlite_"


def make_mysql_like(sqlite_path: Path, connection: Any) -> int:
    """Make the tables in the current database of a PyMySQL connection; return how many.

    Raises:
        sqlite3.Error: the source cannot be read.
        pymysql.MySQLError: the server does not take the schema.
    """
    with copied(sqlite_path) as source, connection.cursor() as cursor:
        source.text_factory = lambda raw: raw.decode(errors="backslashreplace")
        names = table_names(source)
        for name in names:
            cursor.execute(table_statement(source, name))
        for name in names:
            if name.endswith(LOG_SUFFIX):
                rows = source.execute(f"SELECT * FROM {quoted(name)}").fetchall()  # noqa: S608
                marks = ", ".join(["%s"] * len(rows[0])) if rows else ""
                if rows:
                    cursor.executemany(f"INSERT INTO {tick(name)} VALUES ({marks})", rows)  # noqa: S608
    connection.commit()
    return len(names)


def table_names(source: sqlite3.Connection) -> list[str]:
    """Return the names of all tables but SQLite's own."""
    listed = source.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")
    return [name for (name,) in listed if not name.startswith(INTERNAL)]


def table_statement(source: sqlite3.Connection, table: str) -> str:
    """Return the statement that makes a table with its keys in MySQL."""
    columns = source.execute(f"PRAGMA table_info({quoted(table)})").fetchall()
    primary = [row[1] for row in sorted(columns, key=lambda row: row[5]) if row[5]]
    unique = dict(unique_indexes(source, table))
    in_keys: dict[str, int] = {}
    for key in (*unique.values(), primary):
        in_keys |= {name: max(len(key), in_keys.get(name, 0)) for name in key}
    lines = [column_definition(source, table, row, primary, in_keys) for row in columns]
    if primary:
        lines.append(f"PRIMARY KEY ({ticks(primary)})")
    lines += [f"UNIQUE KEY {tick(name)} ({ticks(key)})" for name, key in unique.items()]
    body = ",\n  ".join(lines)
    return (
        f"CREATE TABLE {tick(table)} (\n  {body}\n) ENGINE=InnoDB ROW_FORMAT=DYNAMIC "
        "DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci"
    )


def unique_indexes(source: sqlite3.Connection, table: str) -> Iterator[tuple[str, list[str]]]:
    """Yield name and columns of each unique index that is no primary key and has no condition."""
    for _, name, is_unique, origin, is_partial in source.execute(
        f"PRAGMA index_list({quoted(table)})"
    ).fetchall():
        if is_unique and origin != "pk" and not is_partial:
            listed = source.execute(f"PRAGMA index_info({quoted(name)})").fetchall()
            yield name, [column for _, _, column in listed]


def column_definition(
    source: sqlite3.Connection,
    table: str,
    column: tuple[Any, ...],
    primary: list[str],
    in_keys: dict[str, int],
) -> str:
    """Return the definition of one column; `in_keys` has the length of the longest key it is in."""
    _, name, declared, is_required, default, _ = column
    is_key = name in in_keys
    type_ = column_type(source, table, (name, declared.upper()), in_keys.get(name, 0))
    words = [tick(name), type_]
    if is_required or name in primary:
        words.append("NOT NULL")
    if primary == [name] and type_ == "bigint":
        words.append("AUTO_INCREMENT")
    elif default is not None and (is_key or "text" not in type_) and "blob" not in type_:
        words.append(f"DEFAULT {default}")
    return " ".join(words)


def column_type(
    source: sqlite3.Connection, table: str, column: tuple[str, str], columns_in_key: int
) -> str:
    """Return the type of one column: texts are long unless a key wants them short."""
    name, declared = column
    if declared == "INTEGER" and has_words_of_truth(source, table, name):
        return TYPES["BOOLEAN"]
    if declared in TYPES and not (declared == "BLOB" and columns_in_key):
        return TYPES[declared]
    if not columns_in_key:
        return "longtext"
    longest = source.execute(
        f"SELECT max(length({quoted(name)})) FROM {quoted(table)}"  # noqa: S608
    ).fetchone()[0]
    fits = min(USUAL_CHARACTERS, KEY_CHARACTERS_MAX // columns_in_key)
    return f"varchar({max(fits, longest or 0)})"


def has_words_of_truth(source: sqlite3.Connection, table: str, name: str) -> bool:
    """Whether a column of numbers holds `true` or `false`, as some clients write them."""
    found = source.execute(
        f"SELECT 1 FROM {quoted(table)} WHERE typeof({quoted(name)}) = 'text' "  # noqa: S608
        f"AND lower({quoted(name)}) IN ('true', 'false') LIMIT 1"
    )
    return found.fetchone() is not None

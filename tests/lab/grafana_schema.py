"""The tables of Grafana 11 in both dialects, and a writer that fills the SQLite ones."""

import functools
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

DEFINITIONS = Path(__file__).with_name("grafana_11.yaml")


@dataclass(frozen=True)
class Table:
    """One table: columns with their type in each dialect, and its keys."""

    name: str
    sqlite: dict[str, str]
    mysql: dict[str, str]
    primary_key: tuple[str, ...]
    unique: dict[str, list[str]]
    indexes: dict[str, list[str]]

    @property
    def has_automatic_id(self) -> bool:
        """Whether the server numbers the rows."""
        return any("AUTOINCREMENT" in type_ for type_ in self.sqlite.values())

    def sqlite_statements(self) -> list[str]:
        """Return the statements that create the table and its indexes in SQLite."""
        lines = [f"{tick(name)} {type_}" for name, type_ in self.sqlite.items()]
        if not self.has_automatic_id and self.primary_key:
            lines.append(f"PRIMARY KEY ({ticks(self.primary_key)})")
        statements = ["CREATE TABLE {} (\n{}\n)".format(tick(self.name), "\n, ".join(lines))]
        for kind, keys in (("UNIQUE INDEX", self.unique), ("INDEX", self.indexes)):
            statements += [
                f"CREATE {kind} {tick(name)} ON {tick(self.name)} ({ticks(columns)})"
                for name, columns in keys.items()
            ]
        return statements

    def mysql_statement(self) -> str:
        """Return the statement that creates the table with its keys in MySQL."""
        lines = [f"{tick(name)} {type_}" for name, type_ in self.mysql.items()]
        if self.primary_key:
            lines.append(f"PRIMARY KEY ({ticks(self.primary_key)})")
        lines += [f"UNIQUE KEY {tick(n)} ({ticks(columns)})" for n, columns in self.unique.items()]
        lines += [f"KEY {tick(n)} ({ticks(columns)})" for n, columns in self.indexes.items()]
        return (
            "CREATE TABLE {} (\n  {}\n) ENGINE=InnoDB "
            "DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci"
        ).format(tick(self.name), ",\n  ".join(lines))


@dataclass(frozen=True)
class Schema:
    """Every table of one Grafana version, and the migrations its logs name."""

    version: str
    tables: dict[str, Table]
    migrations: dict[str, list[str]]


@functools.cache
def grafana_11() -> Schema:
    """Return what `grafana_11.yaml` defines."""
    read = yaml.safe_load(DEFINITIONS.read_text(encoding="utf-8"))
    return Schema(
        read["version"],
        {name: table_from(name, given) for name, given in read["tables"].items()},
        read["migrations"],
    )


def table_from(name: str, given: dict[str, Any]) -> Table:
    """Make a table of its definition."""
    columns: dict[str, list[str]] = given["columns"]
    sqlite = {column: types[0] for column, types in columns.items()}
    automatic = tuple(column for column, type_ in sqlite.items() if "AUTOINCREMENT" in type_)
    return Table(
        name,
        sqlite,
        {column: columns[column][1] for column in given.get("mysql_order", columns)},
        automatic or tuple(given.get("primary_key", ())),
        given.get("unique", {}),
        given.get("indexes", {}),
    )


def tick(name: str) -> str:
    """Return an identifier as both dialects take it."""
    return "`" + name.replace("`", "``") + "`"


def ticks(names: Iterable[str]) -> str:
    """Return a list of identifiers."""
    return ", ".join(tick(name) for name in names)


class Rows:
    """Writes rows into the tables of an open SQLite database and remembers their ids."""

    def __init__(self, connection: sqlite3.Connection, schema: Schema) -> None:
        self.connection = connection
        self.schema = schema
        self.counts: Counter[str] = Counter()
        self.ids: defaultdict[str, list[int]] = defaultdict(list)

    def add(self, table: str, **values: object) -> int:
        """Insert one row and return its id; a column not named gets its default."""
        marks = ", ".join("?" * len(values))
        cursor = self.connection.execute(
            f"INSERT INTO {tick(table)} ({ticks(values)}) VALUES ({marks})",  # noqa: S608
            tuple(values.values()),
        )
        self.counts[table] += 1
        row_id = cursor.lastrowid or 0
        self.ids[table].append(row_id)
        return row_id

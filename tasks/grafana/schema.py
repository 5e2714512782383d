"""The schema on both sides as it is: tables, columns, indexes, and the logs of migrations."""

import sqlite3
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blocks.mysql.session import MysqlSession
from recovery.commands import reading
from tasks.grafana.columns import Column
from tasks.grafana.source import open_copy

LOG_SUFFIX = "migration_log"
# The first migration that each Grafana was seen to bring. A guess for people; decides nothing.
LANDMARKS = (
    ("create dashboard acl table", "5.0"),
    ("create server_lock table", "6.0"),
    ("create user auth token table", "6.0"),
    ("create cache_data table", "6.2"),
    ("create alert_rule_tag table v1", "6.4"),
    ("Add column secure_settings in alert_notification", "7.2"),
    ("create library_element table v1", "7.5"),
    ("create alert_rule table", "8.0"),
    ("create kv_store table v1", "8.1"),
    ("create secrets table", "8.3"),
    ("create permission table", "8.3"),
    ("create correlation table v1", "9.2"),
    ("create folder table", "9.3"),
    ("create signing_key table", "10.1"),
    ("create sso_setting table", "10.3"),
    ("create cloud_migration table v1", "11.0"),
    ("create user_external_session table", "11.4"),
    ("add guid column to alert_rule table", "11.6"),
    ("Add is_provisioned column to user", "12.0"),
)


@dataclass(frozen=True)
class SourceColumn:
    """One column in SQLite. Its declared type binds nothing."""

    name: str
    declared: str


@dataclass(frozen=True)
class SourceTable:
    """One table in SQLite; `sequence` is the highest id it ever gave, 0 where it gives none."""

    name: str
    columns: tuple[SourceColumn, ...]
    rows: int
    sequence: int = 0


@dataclass(frozen=True)
class UniqueIndex:
    """One unique index on the server, the primary key among them; 0 is no prefix length."""

    name: str
    columns: tuple[str, ...]
    prefixes: tuple[int, ...]


@dataclass(frozen=True)
class TargetTable:
    """One table on the server; `row_format_max` is not bounded here, the engine is named."""

    name: str
    engine: str
    columns: tuple[Column, ...]
    unique: tuple[UniqueIndex, ...]

    @property
    def primary_key(self) -> tuple[str, ...]:
        """Its columns; empty where the table has none."""
        return next((index.columns for index in self.unique if index.name == "PRIMARY"), ())


@dataclass(frozen=True)
class MigrationLog:
    """One log of migrations: what was applied, and what was tried without success."""

    name: str
    applied: tuple[str, ...]
    failed: tuple[str, ...]


@dataclass(frozen=True)
class SourceSchema:
    """All of one SQLite database but its rows."""

    tables: tuple[SourceTable, ...]
    logs: tuple[MigrationLog, ...]


@dataclass(frozen=True)
class TargetSchema:
    """All of one MySQL database but its rows."""

    tables: tuple[TargetTable, ...]
    logs: tuple[MigrationLog, ...]


def guessed_version(logs: tuple[MigrationLog, ...]) -> str:
    """About which Grafana wrote these logs, for people: `8.1 or later`."""
    applied = {name for log in logs for name in log.applied}
    versions = [version for migration, version in LANDMARKS if migration in applied]
    return f"{versions[-1]} or later" if versions else "4.x or earlier"


def quote_sqlite(name: str) -> str:
    """An identifier as SQLite takes it."""
    return '"' + name.replace('"', '""') + '"'


def read_source_schema(copy: Path) -> SourceSchema:
    """Tables, columns, row counts and migrations of a copy at rest."""
    with reading("read the schema", str(copy)) as call, open_copy(copy) as connection:
        connection.text_factory = str
        names = [
            name
            for (name,) in connection.execute(
                "SELECT name FROM sqlite_master WHERE type = 'table' "
                "AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY name"
            )
        ]
        sequences: dict[str, object] = {}
        if connection.execute(
            "SELECT 1 FROM sqlite_master WHERE name = 'sqlite_sequence'"
        ).fetchone():
            sequences = dict(connection.execute("SELECT name, seq FROM sqlite_sequence"))
        tables = tuple(_source_table(connection, name, sequences) for name in names)
        logs = tuple(
            _log(
                name,
                connection.execute(
                    f"SELECT migration_id, success FROM {quote_sqlite(name)} ORDER BY id"  # noqa: S608
                ).fetchall(),
            )
            for name in names
            if name.endswith(LOG_SUFFIX)
        )
        call.answer = f"{len(tables)} tables"
    return SourceSchema(tables, logs)


def _source_table(
    connection: sqlite3.Connection, name: str, sequences: dict[str, object]
) -> SourceTable:
    columns = tuple(
        SourceColumn(str(row[1]), str(row[2]))
        for row in connection.execute(f"PRAGMA table_xinfo({quote_sqlite(name)})")
    )
    (rows,) = connection.execute(f"SELECT count(*) FROM {quote_sqlite(name)}").fetchone()  # noqa: S608
    sequence = sequences.get(name, 0)
    return SourceTable(name, columns, int(rows), sequence if isinstance(sequence, int) else 0)


def _log(name: str, found: list[Any]) -> MigrationLog:
    """Sort a log by what came of each migration last: one that failed is tried again."""
    last = {str(migration): bool(success) for migration, success in found}
    return MigrationLog(
        name,
        tuple(migration for migration, success in last.items() if success),
        tuple(migration for migration, success in last.items() if not success),
    )


COLUMNS = """
SELECT table_name, column_name, data_type, column_type, is_nullable, column_default,
 character_maximum_length, character_octet_length, character_set_name, collation_name,
 datetime_precision, numeric_precision, numeric_scale, extra
FROM information_schema.columns WHERE table_schema = DATABASE()
ORDER BY table_name, ordinal_position"""
INDEXES = """
SELECT table_name, index_name, column_name, sub_part
FROM information_schema.statistics WHERE table_schema = DATABASE() AND non_unique = 0
ORDER BY table_name, index_name, seq_in_index"""
TABLES = """
SELECT table_name, engine FROM information_schema.tables
WHERE table_schema = DATABASE() AND table_type = 'BASE TABLE' ORDER BY table_name"""
JSON_CHECKS = """
SELECT table_name, check_clause FROM information_schema.check_constraints
WHERE constraint_schema = DATABASE() AND check_clause LIKE 'json_valid(%'"""


def read_target_schema(session: MysqlSession) -> TargetSchema:
    """Tables, columns, unique indexes and migrations of the database of a session.

    Raises:
        Unreachable: no answer.
        CommandFailed: the account may not read it.
    """
    checked: set[tuple[str, str]] = set()
    if session.is_mariadb:  # its JSON is a longtext with this check
        checked = {
            (str(table), str(clause).removeprefix("json_valid(`").removesuffix("`)"))
            for table, clause in session.rows(JSON_CHECKS)
        }
    columns: dict[str, list[Column]] = defaultdict(list)
    for row in session.rows(COLUMNS):
        columns[str(row[0])].append(_target_column(row, is_json=(row[0], row[1]) in checked))
    indexes: dict[str, dict[str, list[tuple[str, int]]]] = defaultdict(lambda: defaultdict(list))
    for table, index, column, prefix in session.rows(INDEXES):
        indexes[str(table)][str(index)].append((str(column), int(prefix or 0)))
    tables = tuple(
        TargetTable(
            str(name),
            str(engine),
            tuple(columns[name]),
            tuple(
                UniqueIndex(index, tuple(c for c, _ in parts), tuple(p for _, p in parts))
                for index, parts in indexes[name].items()
            ),
        )
        for name, engine in session.rows(TABLES)
    )
    logs = tuple(
        _log(
            table.name,
            session.rows(f"SELECT migration_id, success FROM `{table.name}` ORDER BY id"),  # noqa: S608
        )
        for table in tables
        if table.name.endswith(LOG_SUFFIX)
    )
    return TargetSchema(tables, logs)


def _target_column(row: tuple[Any, ...], *, is_json: bool) -> Column:
    data_type, extra = str(row[2]).lower(), str(row[13]).lower()
    # MariaDB prints a default of NULL as the word, MySQL as no default; a nullable column has one.
    has_default = row[5] is not None or row[4] == "YES" or "auto_increment" in extra
    is_counted_in_characters = data_type in ("char", "varchar")
    return Column(
        name=str(row[1]),
        data_type="json" if is_json else data_type,
        column_type=str(row[3]).lower(),
        is_nullable=row[4] == "YES",
        has_default=has_default,
        length_max=int((row[6] if is_counted_in_characters else row[7]) or 0),
        charset=str(row[8] or ""),
        collation=str(row[9] or ""),
        precision=int(row[10] or 0),
        digits=int(row[11] or 0),
        scale=int(row[12] or 0),
        is_automatic="auto_increment" in extra,
        is_generated="generated" in extra and "default_generated" not in extra,
    )

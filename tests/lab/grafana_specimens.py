"""Grafana databases of real installations, read where they lie, and targets of the same version.

The data is not part of the project: `RECOVER_TEST_DATA` names its directory. Where no dump has the
version of a source, its schema is rebuilt: a newer dump keeps the SQL of every migration it went
through, and those that the source has had too are replayed in their order.
"""

import lzma
import os
import re
import sqlite3
import subprocess
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pymysql
from pymysql.constants import ER

from tests.lab.mariadb import MariadbServer
from tests.lab.processes import bare_environment, find_binary

ROOT = Path(__file__).parents[2]
STATEMENT = re.compile(r"\s*(?:CREATE|ALTER|DROP|RENAME|INSERT|UPDATE|DELETE)\s", re.IGNORECASE)
CODE_WITH_TABLES = {  # what migrations written in Go do to the tables of MySQL
    "add primary key to seed_assigment": (
        "ALTER TABLE seed_assignment ADD COLUMN id INT NOT NULL AUTO_INCREMENT PRIMARY KEY"
    ),
}


@dataclass(frozen=True)
class Specimen:
    """One real database, and the dump its target is made of."""

    source: str  # how the file's name begins
    dump: str  # what the dump's name contains
    is_exact: bool  # the dump is of that version; else its migrations are replayed


SPECIMENS = (
    Specimen("g4.6.x", "ballab1", is_exact=True),
    Specimen("g5.1.x", "novanve", is_exact=False),
    Specimen("g6.5.2", "novanve", is_exact=False),
    Specimen("g7.2.1", "jessect", is_exact=False),
    Specimen("g8.1.5", "jessect", is_exact=True),
    Specimen("g9.0.9", "silverfoxy", is_exact=True),
    Specimen("g10.0.2", "isithin", is_exact=False),
    Specimen("g10.4.0", "isithin", is_exact=False),
    Specimen("g11.5.1", "isithin", is_exact=True),
    Specimen("g12.0.x", "vanhieuhp", is_exact=True),
)


def data_directory() -> Path:
    """Return where the data lies, whether or not it does."""
    return Path(os.environ.get("RECOVER_TEST_DATA", ROOT.parent / "shared" / "data"))


def unpack_source(specimen: Specimen, directory: Path) -> Path:
    """Decompress a database into a directory; the specimen itself is only read."""
    (packed,) = (data_directory() / "grafana-sqlite").glob(f"{specimen.source}*.db.xz")
    path = directory / packed.name.removesuffix(".xz")
    path.write_bytes(lzma.decompress(packed.read_bytes()))
    return path


def make_target(server: MariadbServer, specimen: Specimen, source: Path, database: str) -> None:
    """Make the database a Grafana of the version of the source would have in MySQL."""
    if specimen.is_exact:
        load_dump(server, specimen.dump, database)
        return
    newer = f"{database}_newer"
    load_dump(server, specimen.dump, newer)
    server.create_database(database)
    for log in logs_of(source):
        replay(server, newer, database, log, migrations_of(source, log))
    server.execute(f"DROP DATABASE {newer}")


def load_dump(server: MariadbServer, name: str, database: str) -> None:
    """Load a dump into a new database, whatever database and collation it names."""
    (packed,) = (data_directory() / "grafana-mysql").glob(f"*{name}.sql.xz")
    text = lzma.decompress(packed.read_bytes()).decode("utf-8", "surrogateescape")
    text = re.sub(r"(?im)^(?:CREATE DATABASE|USE) .*$", "", text)
    text = text.replace("utf8mb4_0900_ai_ci", "utf8mb4_unicode_520_ci")  # MariaDB 10 has no 0900
    server.create_database(database)
    subprocess.run(
        [find_binary("mariadb"), "--no-defaults", "-h", server.host, f"-P{server.port}",
         f"-u{server.user}", "--default-character-set=utf8mb4", "--binary-mode", database],
        input=text.encode("utf-8", "surrogateescape"),
        env=bare_environment(MYSQL_PWD=server.password),
        capture_output=True,
        check=True,
    )  # fmt: skip


def logs_of(source: Path) -> list[str]:
    """Return the logs of migrations that a source keeps."""
    with closing(sqlite3.connect(f"file:{source}?mode=ro", uri=True)) as connection:
        found = connection.execute(
            "SELECT name FROM sqlite_master WHERE name LIKE '%migration_log'"
        )
        return [name for (name,) in found]


def migrations_of(source: Path, log: str) -> list[str]:
    """Return the migrations a source has had, in their order."""
    query = f"SELECT migration_id FROM {log} ORDER BY id"  # noqa: S608
    with closing(sqlite3.connect(f"file:{source}?mode=ro", uri=True)) as connection:
        return [name for (name,) in connection.execute(query)]


def replay(server: MariadbServer, newer: str, database: str, log: str, wanted: list[str]) -> None:
    """Do to a database what the log of a newer one says, as far as the source went too."""
    query = f"SELECT migration_id, `sql` FROM {log} ORDER BY id"  # noqa: S608
    done = server.execute(query, database=newer)
    statements = []
    for name, sql in done:
        if name in wanted:
            text = CODE_WITH_TABLES.get(name, sql)
            statements += [part for part in re.split(r";\s*(?:\n|$)", text) if is_sql(part)]
    with closing(server.connect(database)) as connection, connection.cursor() as cursor:
        cursor.execute("SET sql_mode = ''")
        cursor.execute(f"CREATE TABLE IF NOT EXISTS {log} LIKE {newer}.{log}")
        for statement in statements:
            try:
                cursor.execute(statement)
            except pymysql.err.OperationalError as error:
                if error.args[0] != ER.CANT_DROP_FIELD_OR_KEY:  # made by a migration in Go
                    raise
        insert = f"INSERT INTO {log} (migration_id, `sql`, success, error, timestamp) VALUES "  # noqa: S608
        row = "(%s, '', 1, '', '2024-01-01 00:00:00')"
        cursor.executemany(insert + row, [(name,) for name in wanted])


def is_sql(text: str) -> bool:
    """Whether a log holds a statement there, not the words that stand for a migration in Go."""
    return bool(STATEMENT.match(text)) and "migration_log" not in text

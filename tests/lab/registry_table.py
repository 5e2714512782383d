"""The table in which the registry keeps certificates, filled with made-up people."""

# ruff: noqa: S608 (the names in the statements are ours)

from contextlib import contextmanager, suppress
from urllib.parse import quote

import psycopg

TABLE = 'public."V_VaccinationCertificate"'
COLUMNS = ("preEnrollmentCode", "certificateId", "contact", "mobile", "osid")
NAMES = {column: f"public_V_VaccinationCertificate_{column}_sqlgIdx" for column in COLUMNS}
CREATE = f"""
CREATE TABLE {TABLE} (
  "ID" bigserial PRIMARY KEY, "osid" text, "preEnrollmentCode" text, "certificateId" text,
  "contact" text[], "mobile" text, "name" text, "certificate" text, "_osCreatedAt" text)
"""
FILL = f"""
INSERT INTO {TABLE}
  ("osid", "preEnrollmentCode", "certificateId", "contact", "mobile", "name", "certificate")
SELECT '1-' || md5('o' || n), 'enr-' || n, (9876500000 + n)::text,
       ARRAY['tel:' || (9000000000 + n), 'mailto:p' || n || '@example.test'],
       (9000000000 + n)::text, 'Person ' || n, md5('c' || n)
FROM generate_series(1, {{rows}}) AS n
"""
INDEXES = f"""
SELECT c.relname, i.indisvalid AND i.indisready AND i.indislive, i.indisunique, i.indexrelid::bigint
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
WHERE i.indrelid = '{TABLE}'::regclass AND NOT i.indisprimary
"""


class RegistryTable:
    """A database with the table, and what tests do to it."""

    def __init__(self, server, database):
        self.server, self.database = server, database
        self.dsn = server.dsn_of(database)

    @property
    def url(self):
        """As a recovery is told of it."""
        return self.url_as(self.server.user, self.server.password_file)

    def url_as(self, user, password_file):
        place = f"{self.server.host}:{self.server.port}/{self.database}"
        return f"postgresql://{user}@{place}?password_file={quote(str(password_file))}"

    def make(self, rows=1000):
        self.execute(CREATE)
        self.execute(FILL.format(rows=rows))

    def execute(self, statement):
        return self.server.execute(statement, self.database)

    def indexes(self):
        """Name to (valid, unique, oid) of every index but the primary key's."""
        return {name: (valid, unique, oid) for name, valid, unique, oid in self.execute(INDEXES)}

    def invalid(self):
        return [name for name, (valid, _, _) in self.indexes().items() if not valid]

    def builds(self):
        """Process, name of the index and phase of every build that runs."""
        return self.execute(
            "SELECT pid, index_relid::regclass::text, phase FROM pg_stat_progress_create_index"
        )

    def leave_invalid(self, column, name=None, unique=""):
        """Break a build off, as somebody did before."""
        with self.holding(), psycopg.connect(self.dsn, autocommit=True) as connection:
            connection.execute("SET lock_timeout = '100ms'")
            with suppress(psycopg.errors.LockNotAvailable):
                connection.execute(
                    f'CREATE {unique} INDEX CONCURRENTLY "{name or NAMES[column]}" '
                    f'ON {TABLE} ("{column}")'
                )

    @contextmanager
    def holding(self, statement=f"UPDATE {TABLE} SET name = name WHERE false"):
        """Be in the middle of a transaction that has written to the table: a build waits for it."""
        connection = psycopg.connect(self.dsn, autocommit=True)
        try:
            connection.execute("BEGIN")
            connection.execute(statement)
            yield connection.info.backend_pid
        finally:
            connection.close()  # its end is a rollback, also where the server is gone by then

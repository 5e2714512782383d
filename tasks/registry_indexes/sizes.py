"""How large an index becomes, and whether the disk of the server has room for it."""

import math
from dataclasses import dataclass

from blocks.postgres.session import PostgresSession, quote_name
from blocks.ssh.host import SshHost
from tasks.postgres_server.disk import megabytes, read_df
from tasks.registry_indexes.catalog import FoundTable
from tasks.registry_indexes.wanted import IndexRepair

PAGE_BYTES = 8192
ENTRY_BYTES = 12  # item pointer and tuple header
FILL = 0.9
WIDTH_UNKNOWN_BYTES = 40
SPARE_FACTOR = 2  # the sort spills about as much as the index is large

WIDTH = "SELECT avg_width FROM pg_stats WHERE schemaname = %s AND tablename = %s AND attname = %s"
# The data folder, empty for accounts that may not see it; where new indexes go, empty for there.
FOLDERS = """
SELECT coalesce((SELECT setting FROM pg_settings WHERE name = 'data_directory'), ''),
       coalesce(pg_tablespace_location(coalesce(
         (SELECT oid FROM pg_tablespace WHERE spcname = current_setting('default_tablespace')),
         (SELECT dattablespace FROM pg_database WHERE datname = current_database()))), '')
"""


@dataclass(frozen=True)
class Room:
    """What is free on the file systems a build writes to."""

    index_folder: str
    index_free_bytes: int
    wal_free_bytes: int
    is_wal_apart: bool

    def shortfall(self, index_bytes: int) -> str:
        """What there is too little of for indexes of this size; empty where nothing is."""
        here, wal = SPARE_FACTOR * index_bytes, index_bytes if self.is_wal_apart else 0
        if self.index_free_bytes < here:
            return (
                f"{megabytes(self.index_free_bytes)} are free under {self.index_folder}, and the "
                f"builds may take {megabytes(here)}"
            )
        if self.wal_free_bytes < wal:
            return (
                f"{megabytes(self.wal_free_bytes)} are free where the write-ahead log lies, and "
                f"the builds write {megabytes(wal)} of it"
            )
        return ""


def estimated_bytes(rows: int, width_bytes: float) -> int:
    """The size of a btree over so many values of this average width; never below two pages."""
    entry = ENTRY_BYTES + 8 * math.ceil(max(width_bytes, 1) / 8)
    return 2 * PAGE_BYTES + math.ceil(rows * entry / FILL)


def index_bytes(
    session: PostgresSession, repair: IndexRepair, table: FoundTable, column: str
) -> int:
    """The estimated size of the index on a column."""
    rows = table.rows
    if rows < 0 or (rows == 0 and table.pages == 0):  # nobody has counted yet
        rows = int(session.value(f"SELECT count(*) FROM {repair.relation}"))  # noqa: S608
    known = session.rows(WIDTH, (repair.schema, repair.table, column))
    if known:
        return estimated_bytes(rows, float(known[0][0]))
    sampled = session.value(
        f"SELECT avg(pg_column_size({quote_name(column)})) "  # noqa: S608 (quoted names)
        f"FROM (SELECT {quote_name(column)} FROM {repair.relation} LIMIT 1000) AS sample"
    )
    return estimated_bytes(rows, float(sampled or WIDTH_UNKNOWN_BYTES))


def room_on(host: SshHost, data_folder: str, index_folder: str) -> Room:
    """What is free on the host where indexes go, and where the write-ahead log lies.

    Raises:
        CommandFailed: there is no such folder on the host.
        UnreadableOutput: df printed something else.
    """
    index, wal = read_df(host, [index_folder, f"{data_folder}/pg_wal/."])
    is_apart = index.mount != wal.mount
    return Room(index_folder, index.free_bytes, wal.free_bytes, is_wal_apart=is_apart)

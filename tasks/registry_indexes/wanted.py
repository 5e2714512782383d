"""Which indexes the registry needs, and what a repair of them was asked to do."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from blocks.postgres.server import PostgresServer
from blocks.postgres.session import NAME_BYTES_MAX, quote_name
from blocks.ssh.host import SshHost
from recovery.errors import BadInput
from recovery.walk import current_fence

MINUTES_MAX = 24 * 60


@dataclass(frozen=True)
class WantedIndex:
    """A btree on one column of the table."""

    column: str
    is_unique: bool = False


WANTED = (
    WantedIndex("preEnrollmentCode"),
    WantedIndex("certificateId", is_unique=True),
    WantedIndex("contact"),
    WantedIndex("mobile"),
    WantedIndex("osid"),
)


class Acceptable(StrEnum):
    """What a person may accept by name; anything else that is refused stays refused."""

    LITTLE_DISK = "little-disk"
    UNKNOWN_DISK = "unknown-disk"
    LONG_TRANSACTIONS = "long-transactions"


@dataclass(frozen=True)
class IndexRepair:
    """The table whose indexes are repaired, and on which terms."""

    database: PostgresServer
    host: SshHost | None
    schema: str
    table: str
    skip: tuple[str, ...]
    accept: tuple[str, ...]
    blocked_within_minutes: int

    @property
    def label(self) -> str:
        """Database and table."""
        return f"{self.database.label} {self.schema}.{self.table}"

    @property
    def relation(self) -> str:
        """The table as SQL names it, quotes and all."""
        return f"{quote_name(self.schema)}.{quote_name(self.table)}"

    @property
    def wanted(self) -> tuple[WantedIndex, ...]:
        """The indexes to repair: all that the registry needs but those to be left out."""
        return tuple(index for index in WANTED if index.column not in self.skip)

    def wanted_on(self, column: str) -> WantedIndex:
        """The wanted index on a column."""
        return next(index for index in self.wanted if index.column == column)

    def name_of(self, column: str) -> str:
        """What the registry itself calls its index on a column."""
        return f"{self.schema}_{self.table}_{column}_sqlgIdx"

    def drop_line(self, name: str) -> str:
        """The statement that takes a leftover away."""
        index = f"{quote_name(self.schema)}.{quote_name(name)}"
        return f"DROP INDEX CONCURRENTLY IF EXISTS {index} /* only while it is INVALID */"

    def create_line(self, column: str) -> str:
        """The statement that builds the index on a column."""
        unique = "UNIQUE " if self.wanted_on(column).is_unique else ""
        return (
            f"CREATE {unique}INDEX CONCURRENTLY {quote_name(self.name_of(column))} "
            f"ON {self.relation} ({quote_name(column)})"
        )

    @property
    def analyze_line(self) -> str:
        """The statement that tells the planner what is in the table."""
        return f"ANALYZE {self.relation}"


def own_name_pattern() -> str:
    """What the application names of all sessions of this recovery are like, for LIKE."""
    return f"recover {current_fence().recovery_id} %"


def end_older_line() -> str:
    """The statement that ends idle sessions which earlier attempts of this recovery left open.

    A worker that was paused and wakes up has then no session to send anything through. A session
    that still builds is left alone: it is waited for.
    """
    return (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "  # noqa: S608 (our own id)
        f"WHERE application_name LIKE '{own_name_pattern()}' "
        "AND pid <> pg_backend_pid() AND state IS DISTINCT FROM 'active' "
        "/* left open by an earlier attempt, if any */"
    )


def index_repair(  # noqa: PLR0913, PLR0917 (the fields of the form)
    database: str,
    host: SshHost | None,
    schema: str,
    table: str,
    skip: Sequence[str],
    accept: Sequence[str],
    blocked_within_minutes: int,
) -> IndexRepair:
    """Read the parameters of a repair.

    Raises:
        BadInput: a name is unknown, empty or too long, or the number is out of range.
    """
    columns = [index.column for index in WANTED]
    if unknown := [name for name in skip if name not in columns]:
        raise BadInput("skip", f"no index on {unknown[0]!r} is wanted", f"It is of {columns}")
    if set(skip) >= set(columns):
        raise BadInput("skip", "every column is left out", "Leave out some, or do not run it")
    if unknown := [name for name in accept if name not in list(Acceptable)]:
        known = ", ".join(Acceptable)
        raise BadInput("accept", f"{unknown[0]!r} is nothing to accept", f"Known are {known}")
    if not 1 <= blocked_within_minutes <= MINUTES_MAX:
        seen = f"{blocked_within_minutes} minutes"
        raise BadInput("blocked_within_minutes", seen, f"Give 1 to {MINUTES_MAX}")
    for field, name in (("table_schema", schema), ("table", table)):
        if not name.strip():
            raise BadInput(field, "it is empty", "Give its name without quotes, case and all")
    repair = IndexRepair(
        PostgresServer.named(database),
        host,
        schema,
        table,
        tuple(skip),
        tuple(accept),
        blocked_within_minutes,
    )
    for name in map(repair.name_of, columns):
        if len(name.encode()) > NAME_BYTES_MAX:
            seen = f"{name} would be cut: it has more than {NAME_BYTES_MAX} bytes"
            raise BadInput("table", seen, "The names of its indexes must be chosen by a person")
    return repair

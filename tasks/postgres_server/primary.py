"""Whether a session is on a primary that takes writes, and who the primary of a standby is."""

from dataclasses import dataclass

from blocks.postgres.session import PostgresSession

SERVER = (
    "SELECT pg_is_in_recovery(), current_setting('transaction_read_only') = 'on', "
    "current_setting('server_version')"
)
# Empty for accounts that may not see it.
PRIMARY = (
    "SELECT coalesce((SELECT sender_host || ':' || sender_port FROM pg_stat_wal_receiver LIMIT 1), "
    "(SELECT substring(setting from 'host=''?([^'' ]+)') FROM pg_settings "
    "WHERE name = 'primary_conninfo'), '') AS source"
)
NOT_SHOWN = "not shown to this account"
SCRATCH = (
    "CREATE TEMPORARY TABLE recover_scratch (n integer)",
    "INSERT INTO pg_temp.recover_scratch VALUES (1)",
    "DROP TABLE pg_temp.recover_scratch",
)


@dataclass(frozen=True)
class Role:
    """What a server is to the session that asks."""

    is_in_recovery: bool
    is_read_only: bool
    version: str


def role_of(session: PostgresSession) -> Role:
    """What the server is."""
    return Role(*session.rows(SERVER)[0])


def primary_of(session: PostgresSession) -> str:
    """Where a standby gets its changes from, as far as this account may see it."""
    return str(session.value(PRIMARY)) or NOT_SHOWN


def write_scratch(session: PostgresSession) -> None:
    """Write a row that nobody else sees, and take it away again.

    Raises:
        CommandFailed: the server takes no writes; the code says why.
    """
    for line in SCRATCH:
        session.stage(line)

"""How a Postgres database of ours is reached: a URL, whose password may lie in a file.

A machine that is cut off while it holds a lock must not keep all others waiting for hours: both
sides notice a peer that is gone within seconds, and no lock is waited for or held without end.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, LiteralString
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import Row, RowFactory

from recovery.errors import BadInput
from recovery.secrecy.secret import Secret

NOTICING_A_DEAD_PEER = {  # a worker cut off from the database must not wait for hours
    "connect_timeout": 5,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
# The server's side of it. What the URL, the role or the database says goes first, and what an older
# server does not know is left out. Not among the options of the connection: poolers refuse these.
PREPARE: LiteralString = """
select set_config(known.name, wanted.value, false) from (values
  ('tcp_keepalives_idle', '5'), ('tcp_keepalives_interval', '2'), ('tcp_keepalives_count', '3'),
  ('tcp_user_timeout', '10000'), ('idle_in_transaction_session_timeout', '30000'),
  ('lock_timeout', '30000')) wanted (name, value)
join pg_settings known using (name)
where known.source not in ('client', 'user', 'database', 'database user')
"""


@dataclass(frozen=True, repr=False)
class PostgresAddress:
    """Where a database is: `conninfo` for libpq, password and all; `shown` without it."""

    conninfo: str
    shown: str

    def connected(self, rows: RowFactory[Row]) -> psycopg.Connection[Row]:
        """Open a session that holds nobody up for long once its machine is gone.

        Args:
            rows: what makes the rows it gives.

        Raises:
            psycopg.Error: it cannot be opened.
        """
        connection = psycopg.connect(self.conninfo, autocommit=True, row_factory=rows)
        try:
            connection.execute(PREPARE)
        except psycopg.Error:
            connection.close()
            raise
        return connection


def postgres_address(url: str, field: str) -> PostgresAddress:
    """Read a `postgresql://` URL; `password_file=PATH` among its options names the password's file.

    Args:
        url: as libpq takes it, but for that option.
        field: where the URL comes from, as errors name it.

    Raises:
        BadInput: it cannot be read, names two passwords, or the file cannot be read.
    """
    server, options, password = _password_apart(url, field)
    try:
        parts = conninfo_to_dict(server + options)
    except psycopg.ProgrammingError:
        raise BadInput(  # what psycopg says of it may quote the password
            field,
            "it is no readable postgresql:// URL",
            "Write it as postgresql://user@host:port/database?password_file=PATH",
        ) from None
    if parts.get("password"):
        password = Secret(str(parts["password"]))  # known from here on, hence masked everywhere
    more: dict[str, Any] = {n: value for n, value in NOTICING_A_DEAD_PEER.items() if n not in parts}
    more["client_encoding"] = "UTF8"  # else text of a SQL_ASCII database would come as bytes
    if password is not None:
        more["password"] = password.reveal()
    return PostgresAddress(
        make_conninfo(server + options, **more),
        f"postgresql://{parts.get('host', 'localhost')}:{parts.get('port', 5432)}"
        f"/{parts.get('dbname', '')}",
    )


def _password_apart(url: str, field: str) -> tuple[str, str, Secret | None]:
    """The URL up to its options, those that libpq knows, and the password of the file."""
    server, mark, query = url.partition("?")
    options = parse_qsl(query, keep_blank_values=True)
    named = [value for name, value in options if name == "password_file"]
    if not named:
        return server, mark + query, None
    has_other = "password" in dict(options) or ":" in urlsplit(server).netloc.rpartition("@")[0]
    if len(named) > 1 or has_other:
        raise BadInput(field, "it names more than one password", "Keep one password_file alone")
    known = [(name, value) for name, value in options if name != "password_file"]
    others = urlencode(known, quote_via=quote)  # libpq takes a plus for a plus
    return server, f"?{others}" if others else "", Secret.from_file(Path(named[0]))

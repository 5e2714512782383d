"""What a PostgreSQL server answers to somebody who wants to connect, told apart by cause.

libpq gives a failed connection as a text without its SQLSTATE. Texts of libpq itself are English;
those of the server are in the language of its `lc_messages`. Where the text is in no language known
here, the server is greeted once more by hand: what it says before it asks for a password carries
the code.
"""

import re
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum

PROTOCOL = 196608  # 3.0
ERROR, AUTHENTICATION = b"E", b"R"
GREETING_BYTES_MAX = 8192


class ConnectionAnswer(StrEnum):
    """How an attempt to connect ended."""

    ACCEPTED = "accepted"
    NAME_NOT_RESOLVED = "name-not-resolved"
    REFUSED = "connection-refused"
    TIMED_OUT = "connection-timed-out"
    NO_ROUTE = "no-route"
    SILENT = "accepted-but-silent"
    CLOSED = "closed-without-an-answer"
    NOT_POSTGRES = "not-postgres"
    TLS_NOT_OFFERED = "tls-not-offered"
    TLS_FAILED = "tls-failed"
    NO_HBA_ENTRY = "no-pg-hba-entry"
    LOGIN_REFUSED = "login-refused"
    PASSWORD_REFUSED = "password-refused"  # noqa: S105 (no password)
    DATABASE_MISSING = "database-missing"
    STARTING_UP = "starting-up"
    CRASH_RECOVERY = "crash-recovery"
    STANDBY_CLOSED = "standby-not-open"
    SHUTTING_DOWN = "shutting-down"
    NOT_ACCEPTING = "not-accepting-connections"
    TOO_MANY_CLIENTS = "too-many-clients"
    DISK_FULL = "disk-full"
    OUT_OF_MEMORY = "out-of-memory"
    OTHER = "other-answer"


@dataclass(frozen=True)
class Greeting:
    """What a server said first. An empty `sqlstate` with `asks_login` is a server at work."""

    sqlstate: str
    text: str
    asks_login: bool = False


# What libpq 9.6 to 18, psycopg and sshd print of themselves; then what servers 9.6 to 18 print.
# The first that is found counts.
PATTERNS = {
    ConnectionAnswer.NAME_NOT_RESOLVED: r"could not translate host name|failed to resolve host"
    r"|name resolution|Name or service not known",
    ConnectionAnswer.TIMED_OUT: r"timeout expired|Connection timed out|Operation timed out",
    ConnectionAnswer.REFUSED: r"Connection refused|\.s\.PGSQL\.\d+\" failed: No such file",
    ConnectionAnswer.NO_ROUTE: r"No route to host|Network (is )?unreachable|Host is down",
    ConnectionAnswer.TLS_NOT_OFFERED: r"server does not support SSL",
    ConnectionAnswer.NOT_POSTGRES: r"invalid response to|expected authentication request",
    ConnectionAnswer.TLS_FAILED: r"SSL error|certificate verify failed|server certificate for"
    r"|root certificate file|sslmode",
    ConnectionAnswer.NO_HBA_ENTRY: r"no pg_hba\.conf entry|pg_hba\.conf rejects",
    ConnectionAnswer.PASSWORD_REFUSED: r"password authentication failed|no password supplied"
    r"|SASL authentication failed",
    ConnectionAnswer.LOGIN_REFUSED: r"role \".*\" does not exist|not permitted to log in"
    r"|authentication failed for user|permission denied for database"
    r"|not currently accepting connections",
    ConnectionAnswer.DATABASE_MISSING: r"database \".*\" does not exist",
    ConnectionAnswer.CRASH_RECOVERY: r"database system is in recovery mode",
    ConnectionAnswer.STARTING_UP: r"database system is (starting up|not yet accepting connections)",
    ConnectionAnswer.SHUTTING_DOWN: r"database system is shutting down",
    ConnectionAnswer.STANDBY_CLOSED: r"database system is not accepting connections"
    r"|Hot standby mode is disabled",
    ConnectionAnswer.TOO_MANY_CLIENTS: r"too many clients|too many connections"
    r"|remaining connection slots|no more connections allowed",
    ConnectionAnswer.DISK_FULL: r"No space left on device",
    ConnectionAnswer.OUT_OF_MEMORY: r"out of memory|Cannot allocate memory",
    ConnectionAnswer.CLOSED: r"server closed the connection unexpectedly|Connection reset by peer"
    r"|Broken pipe|EOF detected",
}

BY_SQLSTATE = {
    "28000": ConnectionAnswer.LOGIN_REFUSED,
    "28P01": ConnectionAnswer.PASSWORD_REFUSED,
    "3D000": ConnectionAnswer.DATABASE_MISSING,
    "42501": ConnectionAnswer.LOGIN_REFUSED,
    "57P03": ConnectionAnswer.NOT_ACCEPTING,  # only the text tells why
    "53300": ConnectionAnswer.TOO_MANY_CLIENTS,
    "53100": ConnectionAnswer.DISK_FULL,
    "53200": ConnectionAnswer.OUT_OF_MEMORY,
}
IN_ENGLISH = {
    "28000": {ConnectionAnswer.NO_HBA_ENTRY, ConnectionAnswer.LOGIN_REFUSED},
    "57P03": {
        ConnectionAnswer.CRASH_RECOVERY,
        ConnectionAnswer.STARTING_UP,
        ConnectionAnswer.SHUTTING_DOWN,
        ConnectionAnswer.STANDBY_CLOSED,
    },
}


def answer_in(text: str, sqlstate: str = "") -> ConnectionAnswer:
    """Tell from what was printed, and the code where there is one, how a connection ended."""
    found = (answer for answer, pattern in PATTERNS.items() if re.search(pattern, text))
    told = next(found, ConnectionAnswer.OTHER)
    if not sqlstate or sqlstate not in BY_SQLSTATE or told in IN_ENGLISH.get(sqlstate, set()):
        return told
    return BY_SQLSTATE[sqlstate]


def parse_error(body: bytes) -> Greeting:
    r"""Read the body of an ErrorResponse: fields of one letter and a text, each ended by a zero.

    `SFATAL\0VFATAL\0C57P03\0Mthe database system is starting up\0...\0\0`
    """
    fields = {field[:1]: field[1:].decode(errors="replace") for field in body.split(b"\0") if field}
    severity = fields.get(b"V") or fields.get(b"S", "")
    return Greeting(fields.get(b"C", ""), f"{severity}:  {fields.get(b'M', '')}")


def greet(host: str, port: int, user: str, database: str, within_seconds: float) -> Greeting | None:
    """Say who one is, without a password, and return what the server says first.

    `None` where it is not reached, or says nothing that is PostgreSQL.
    """
    names = ("user", user, "database", database)
    parameters = b"".join(name.encode() + b"\0" for name in names) + b"\0"
    hello = struct.pack("!ii", len(parameters) + 8, PROTOCOL) + parameters
    try:
        with _reach(host, port, within_seconds) as connection:
            connection.sendall(hello)
            head = _take(connection, 5)
            kind, length = head[:1], struct.unpack("!i", head[1:])[0] - 4
            if kind == ERROR and 0 < length <= GREETING_BYTES_MAX:
                return parse_error(_take(connection, length))
            return Greeting("", "", asks_login=True) if kind == AUTHENTICATION else None
    except (OSError, EOFError, struct.error):
        return None


def takes_connections(host: str, port: int, within_seconds: float) -> bool:
    """Whether anything accepts a connection there, whatever it says then."""
    with suppress(OSError), _reach(host, port, within_seconds):
        return True
    return False


def _reach(host: str, port: int, within_seconds: float) -> socket.socket:
    if host.startswith("/"):
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(within_seconds)
        try:
            connection.connect(f"{host}/.s.PGSQL.{port}")
        except OSError:
            connection.close()
            raise
        return connection
    return socket.create_connection((host, port), timeout=within_seconds)


def _take(connection: socket.socket, count: int) -> bytes:
    taken = b""
    while len(taken) < count:
        chunk = connection.recv(count - len(taken))
        if not chunk:
            raise EOFError
        taken += chunk
    return taken

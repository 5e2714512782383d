"""What the log of a Keycloak says of its database, and what helps where no password does."""

import re

from blocks.postgres.answer import ConnectionAnswer, answer_in
from recovery.secrecy.redaction import redacted_head

LOCKED = "change-log-locked"
# What the JDBC driver and Liquibase print; the server's own words in it are those libpq passes on.
IN_JAVA = {
    ConnectionAnswer.NAME_NOT_RESOLVED: r"UnknownHostException",
    ConnectionAnswer.REFUSED: r"Connection to \S+ refused|ConnectException",
    ConnectionAnswer.TIMED_OUT: r"SocketTimeoutException|connect timed out",
    ConnectionAnswer.TLS_NOT_OFFERED: r"server does not support SSL",
    ConnectionAnswer.TLS_FAILED: r"SSLHandshakeException|PKIX path",
}
WAITS_FOR_LOCK = re.compile(r"[Ww]aiting for change ?log lock|Could not acquire change ?log lock")
TELLING = re.compile(r"ERROR|FATAL|Caused by|Exception|[Cc]hange ?log lock|password|pg_hba")
CREDENTIALS = {ConnectionAnswer.PASSWORD_REFUSED, ConnectionAnswer.LOGIN_REFUSED}
SHOWN_CHARACTERS = 200

REMEDIES: dict[str, str] = {
    ConnectionAnswer.NO_HBA_ENTRY: "Let pg_hba.conf take this user from the pods, or use TLS where "
    "its rule is hostssl (sslmode=require in the JDBC URL)",
    ConnectionAnswer.DATABASE_MISSING: "Create the database for this user, or correct its name by "
    "set-config-value",
    ConnectionAnswer.TOO_MANY_CLIENTS: "See in pg_stat_activity who holds the connections, and "
    "lower the pools or raise max_connections",
    ConnectionAnswer.TLS_FAILED: "Correct sslmode, or the authority the pod trusts",
    ConnectionAnswer.TLS_NOT_OFFERED: "Switch TLS on at the server, or correct sslmode",
    LOCKED: "An upgrade was killed: see that no Keycloak runs, then "
    "`UPDATE databasechangeloglock SET locked = false` in its database",
}
NOT_REACHED = (
    "Name the address that the worker reaches it by, as database=postgresql://USER@HOST:PORT/NAME"
    "?password_file=…&via=ssh://…, so that the login can be tried"
)


def cause_in(log: str) -> tuple[str, str]:
    """The last cause that a log tells, and its line; both empty where it tells none.

    `Caused by: org.postgresql.util.PSQLException: FATAL: password authentication failed for user …`
    """
    for line in reversed(log.splitlines()):
        if not TELLING.search(line):
            continue
        if (cause := _cause_of(line)) != ConnectionAnswer.OTHER:
            return cause, redacted_head(line.strip(), SHOWN_CHARACTERS)
    return "", ""


def remedy_for(cause: str) -> str:
    """What helps where the password is not the cause."""
    return REMEDIES.get(cause, "Mend that; see the log in the report")


def _cause_of(line: str) -> str:
    if WAITS_FOR_LOCK.search(line):
        return LOCKED
    found = (answer for answer, pattern in IN_JAVA.items() if re.search(pattern, line))
    return next(found, None) or answer_in(line)

"""One open connection to a PostgreSQL database, in autocommit: reads, changes, one long statement.

Every statement passes the gate of `recovery.commands`. What is asked again and again while
something is waited for passes it once, so that the evidence of a long wait stays one line.
"""

import select
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, Self

import psycopg
from psycopg import pq
from psycopg.errors import error_from_result

from blocks.postgres.answer import ConnectionAnswer, answer_in
from recovery.commands import changing, reading
from recovery.errors import BadInput, CommandFailed, RecoveryError, Unreachable, unanswered
from recovery.secrecy.secret import MASK, Secret

Args = Sequence[object] | Mapping[str, object]
NAME_BYTES_MAX = 63
LOST_REMEDY = "It may have been done, or go on at the server: look before it is done again"
# search_path, so that no function in a schema of the users' can pose as a built-in.
SETTINGS = (
    "SELECT set_config('search_path', 'pg_catalog', false), set_config('timezone', 'UTC', false), "
    "set_config('lock_timeout', '10s', false), "
    "set_config('idle_in_transaction_session_timeout', '0', false), "
    "set_config('statement_timeout', '{seconds}s', false), "
    "pg_backend_pid(), current_setting('server_version_num')::int"
)
NO_ANSWER_CLASSES = ("08", "57P01", "57P02", "57P03", "57P05", "53300", "58000")
REMEDIES = {
    "28000": "Correct the account, or pg_hba.conf on the server, then resume",
    "28P01": "Correct the user or the password the worker holds, then resume",
    "42501": "Let the owner of the object do it, or grant the account the right, then resume",
    "25006": "Only a primary takes writes: name the primary, then resume",
    "53100": "Make room on the disk of the server, then resume",
    "53200": "The server has no memory left: see what takes it, then resume",
    "55P03": "Another session holds the lock: see pg_locks, end it, then resume",
    "40P01": "Another session locked the same things in another order: end it, then resume",
    "57014": "Somebody or a timeout cancelled it: find out who, then resume",
}


def quote_name(name: str) -> str:
    """An identifier in quotes, so that mixed case and odd names are what they are."""
    return '"' + name.replace('"', '""') + '"'


def quote_text(text: str) -> str:
    """A text literal, whatever standard_conforming_strings says."""
    quoted = "'" + text.replace("'", "''").replace("\\", "\\\\") + "'"
    return f"E{quoted}" if "\\" in text else quoted


def password_text(role: str) -> str:
    """What `PostgresSession.set_password` sends, as plans and evidence show it."""
    return f"ALTER ROLE {quote_name(role)} PASSWORD '{MASK}'"


class LongStatement:
    """A statement on its way that may take hours; the server goes on when nobody listens."""

    def __init__(self, connection: psycopg.Connection[Any], target: str, sql: str) -> None:
        self._pgconn, self._target, self._sql = connection.pgconn, target, sql
        self._connection = connection
        self.pid = self._pgconn.backend_pid
        with translating(target, sql, LOST_REMEDY):
            self._pgconn.send_query(sql.encode())

    def is_over(self, within_seconds: float) -> bool:
        """Whether it ended well, waited for that long.

        Raises:
            CommandFailed: the server said no.
            Unreachable: the connection broke; the server may go on.
        """
        with translating(self._target, self._sql, LOST_REMEDY):
            if self._pgconn.is_busy():
                select.select([self._pgconn.socket], [], [], max(0.0, within_seconds))
                self._pgconn.consume_input()
            if self._pgconn.is_busy():
                return False
            failed: psycopg.Error | None = None
            while (result := self._pgconn.get_result()) is not None:
                if result.status not in {pq.ExecStatus.COMMAND_OK, pq.ExecStatus.TUPLES_OK}:
                    failed = error_from_result(result)
            if failed is not None:
                raise failed
        return True

    def cancel(self) -> None:
        """Ask the server to stop it; `is_over` then raises what it says."""
        with translating(self._target, f"cancel {self._sql}"):
            self._connection.cancel_safe(timeout=10)


class PostgresSession:
    """An open session, each statement a transaction of its own."""

    def __init__(
        self,
        connection: "psycopg.Connection[tuple[Any, ...]]",
        target: str,
        answer_within_seconds: int,
    ) -> None:
        self._connection, self.target = connection, target
        self._resources = ExitStack()
        settings = SETTINGS.format(seconds=int(answer_within_seconds))
        row = self.rows(settings)[0]
        self.pid, self.version = int(row[5]), int(row[6])

    @property
    def is_pooled(self) -> bool:
        """Whether a pooler stands between: it tells another process than the one that answers."""
        return self._connection.info.backend_pid != self.pid

    def __enter__(self) -> Self:
        """The session itself; it ends with the block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def keep(self, resources: ExitStack) -> None:
        """Let these end with the session: what the connection goes through."""
        self._resources = resources

    def close(self) -> None:
        """Close the connection, also when it is already gone."""
        with suppress(psycopg.Error, OSError):
            self._connection.close()
        self._resources.close()

    def rows(self, sql: str, args: Args = ()) -> list[tuple[Any, ...]]:
        """Read rows, all at once.

        Raises:
            Unreachable: no answer; asking again may help.
            CommandFailed: the server said no.
        """
        with reading(sql, self.target) as call:
            found = self._fetch(sql, args)
            call.answer = f"{len(found)} rows"
            if len(found) == 1:
                call.answer = "\t".join(map(str, found[0]))
        return found

    def value(self, sql: str, args: Args = ()) -> Any:
        """Read one value; errors are those of `rows`."""
        return self.rows(sql, args)[0][0]

    def secret(self, sql: str, args: Args = ()) -> Secret | None:
        """Read one value that is told nowhere; `None` where it is null, or there is no row."""
        with reading(sql, self.target) as call:
            found = self._fetch(sql, args)
            value = Secret(str(found[0][0])) if found and found[0][0] is not None else None
            call.answer = "none" if value is None else "a value that is not told"
        return value

    @contextmanager
    def repeated(self, sql: str) -> Iterator[Callable[[Args], list[tuple[Any, ...]]]]:
        """Read the same rows again and again, as one line of evidence; `rows` says what is raised.

        What is yielded takes the arguments of the statement.
        """
        with reading(sql, self.target) as call:
            times = 0

            def ask(args: Args = ()) -> list[tuple[Any, ...]]:
                nonlocal times
                times += 1
                found = self._fetch(sql, args)
                call.answer = f"asked {times} times, at last: {found}"
                return found

            yield ask

    def change(self, sql: str) -> str:
        """Change something and return what the server calls it, as `DROP INDEX`.

        Raises:
            Unreachable: no answer; it may have been done.
            CommandFailed: the server said no.
        """
        with changing(sql, self.target) as call, translating(self.target, sql, LOST_REMEDY):
            call.answer = self._execute(sql).statusmessage or ""
        return call.answer

    def set_password(
        self, role: str, password: Secret | str | None, *, is_verifier: bool = False
    ) -> None:
        """Give a role a password; its text is `password_text`. `None` takes it away.

        The server is sent what the password is checked by, made here in the way it is set to.

        Args:
            role: whose password.
            password: the password, or what it is checked by; a text is one that is no secret.
            is_verifier: it is the latter, as pg_authid has it.

        Raises:
            CommandFailed: the account may not.
            Unreachable: no answer; it may have been done.
        """
        command = password_text(role)
        with changing(command, self.target) as call, translating(self.target, command, LOST_REMEDY):
            bare = password.reveal() if isinstance(password, Secret) else password
            if bare is not None and not is_verifier:
                made = self._connection.pgconn.encrypt_password(bare.encode(), role.encode())
                bare = Secret(made.decode()).reveal()
            value = "NULL" if bare is None else quote_text(bare)
            sql = f"ALTER ROLE {quote_name(role)} PASSWORD {value}"
            call.answer = self._execute(sql).statusmessage or ""

    @contextmanager
    def long_change(self, sql: str) -> Iterator[LongStatement]:
        """Send a change that may take hours, and ask for its end in the block."""
        with changing(sql, self.target) as call:
            statement = LongStatement(self._connection, self.target, sql)
            yield statement
            call.answer = "it ended well"

    def stage(self, sql: str) -> None:
        """Set something for this session, or make what nobody else sees: it counts as a read."""
        with reading(sql, self.target) as call, translating(self.target, sql):
            call.answer = self._execute(sql).statusmessage or ""

    def _fetch(self, sql: str, args: Args) -> list[tuple[Any, ...]]:
        with translating(self.target, sql):
            return list(self._execute(sql, args))

    def _execute(self, sql: str, args: Args = ()) -> "psycopg.Cursor[tuple[Any, ...]]":
        return self._connection.execute(sql.encode(), args or None)


@contextmanager
def translating(target: str, asked: str, lost_remedy: str = "") -> Iterator[None]:
    """Raise what the client library raises in the block in our own words."""
    try:
        yield
    except (psycopg.Error, OSError) as error:
        raise translated(error, target, asked, lost_remedy) from None


def translated(
    error: psycopg.Error | OSError, target: str, asked: str, lost_remedy: str = ""
) -> RecoveryError:
    """Say in our own words what the client library said of a session that was open."""
    code = getattr(error, "sqlstate", None) or ""
    text = message_of(error)
    if not code or code.startswith(NO_ANSWER_CLASSES):
        shown = f"{text} ({code})" if code else text
        return Unreachable(target, asked, shown or "the connection is closed", lost_remedy)
    return CommandFailed(target, asked, code, text, REMEDIES.get(code, ""))


def not_connected(answer: ConnectionAnswer, text: str, target: str, asked: str) -> RecoveryError:
    """Say in our own words why no session could be opened."""
    if answer is ConnectionAnswer.DATABASE_MISSING:
        return BadInput("database", f"{text} on {target}", "Create it, or correct its name")
    no = {
        ConnectionAnswer.NO_HBA_ENTRY: "28000",
        ConnectionAnswer.LOGIN_REFUSED: "28000",
        ConnectionAnswer.PASSWORD_REFUSED: "28P01",
    }
    if answer in no:
        return CommandFailed(target, asked, no[answer], text, REMEDIES[no[answer]])
    if answer in {ConnectionAnswer.TLS_FAILED, ConnectionAnswer.TLS_NOT_OFFERED}:
        remedy = "Correct sslmode and tls_ca_file, or the certificate of the server, then resume"
        return CommandFailed(target, asked, str(answer), text, remedy)
    return unanswered(target, asked, f"{text} ({answer})")


def message_of(error: psycopg.Error | OSError) -> str:
    """What was said, in one line: message, detail and hint of the server where it gave them."""
    if isinstance(error, psycopg.Error) and error.diag.message_primary:
        parts = (error.diag.message_primary, error.diag.message_detail, error.diag.message_hint)
        return ". ".join(part.rstrip(".") for part in parts if part)
    text = str(error).replace("connection failed: ", "").replace("connection is bad: ", "")
    # With and without TLS, or by each address, libpq may be told the same.
    lines = dict.fromkeys(" ".join(line.split()) for line in text.splitlines())
    return " ".join(line for line in lines if line)


def answer_of(error: psycopg.Error | OSError) -> ConnectionAnswer:
    """How an attempt to connect ended, as far as its error tells."""
    return answer_in(str(error), getattr(error, "sqlstate", None) or "")

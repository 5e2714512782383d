"""A PostgreSQL database as a Prefect block: where it is and where its password is kept."""

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlsplit

import psycopg
from prefect.blocks.core import Block
from psycopg.conninfo import make_conninfo
from pydantic import Field, PrivateAttr, ValidationError, field_validator, model_validator

from blocks.machines import names_of
from blocks.postgres import answer as postgres_answer
from blocks.postgres.answer import ConnectionAnswer
from blocks.postgres.session import (
    NAME_BYTES_MAX,
    PostgresSession,
    answer_of,
    message_of,
    not_connected,
)
from blocks.saved import saved_block
from blocks.ssh.host import SshHost
from recovery.commands import reading
from recovery.errors import BadInput, Unreachable
from recovery.forms import Saved
from recovery.secrecy.secret import Secret
from recovery.walk import current_fence

PORT = 5432
PORTS = "Give a number from 1 to 65535; a password is never part of a URL"
LOOPBACK = ("localhost", "127.0.0.1", "::1")
SSL_MODES = ("disable", "prefer", "require", "verify-ca", "verify-full")
OPTIONS = ("password_file", "password_env", "sslmode", "tls_ca_file", "via")
PATHS = ("password_file", "tls_ca_file")
SHAPE = "Write postgresql://USER@HOST:PORT/DATABASE?password_file=/path/on/the/worker"
TAKEN_OUT = "Take it out and name password_file=/path or password_env=NAME instead"
NOTICING_A_DEAD_PEER: dict[str, Any] = {
    "keepalives_idle": 15,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}


@dataclass(frozen=True)
class Knock:
    """How an attempt to connect ended, and what was said."""

    answer: ConnectionAnswer
    text: str = ""


class PostgresServer(Block):
    """One database on a PostgreSQL server.

    The block holds references only. The password stays on the worker, in a file that nobody else
    may read or in an environment variable, and is read anew at each connection. Where only the
    host itself reaches the server, `via` names that host: the connection then goes through SSH.
    """

    _block_type_name: ClassVar[str | None] = "PostgreSQL database"
    _block_type_slug: ClassVar[str | None] = "postgresql-database"
    _description: ClassVar[str | None] = (
        "One database on a PostgreSQL server; the password stays on the worker."
    )
    _code_example: ClassVar[str | None] = (
        'PostgresServer.from_url("postgresql://registry@db:5432/registry?password_env=DB_PASSWORD")'
    )

    host: str = Field(
        default="localhost", description="Name or address of the server, or the folder of a socket."
    )
    port: int = Field(default=PORT, ge=1, le=65535)
    user: str = Field(min_length=1, description="The account that connects.")
    database: str = Field(min_length=1)
    password_file: Path | None = Field(
        default=None, description="Path on the worker of a file that holds the password alone."
    )
    password_env: str | None = Field(
        default=None, description="Environment variable of the worker that holds the password."
    )
    sslmode: str = Field(default="prefer", description=f"One of {', '.join(SSL_MODES)}.")
    tls_ca_file: Path | None = Field(
        default=None, description="CA that must have signed the server's certificate."
    )
    via: str = Field(
        default="",
        description="ssh://user@host?… through which the server is reached; empty: directly.",
    )
    connect_within_seconds: int = Field(default=10, ge=2)
    answer_within_seconds: int = Field(
        default=600, ge=1, description="Longest time one statement may take."
    )

    _given: Secret | str | None = PrivateAttr(default=None)  # a password read from elsewhere

    @field_validator("sslmode")
    @classmethod
    def _is_ssl_mode(cls, mode: str) -> str:
        if mode not in SSL_MODES:
            raise ValueError(f"{mode!r} is none of {', '.join(SSL_MODES)}")
        return mode

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.password_file is not None and self.password_env is not None:
            raise ValueError("name password_file or password_env, not both")
        if self.via and (self.tls_ca_file is not None or self.sslmode in SSL_MODES[2:]):
            raise ValueError("via goes through SSH, where the client uses no TLS: drop sslmode")
        if len(self.database.encode()) > NAME_BYTES_MAX:
            raise ValueError(f"a database's name has at most {NAME_BYTES_MAX} bytes")
        return self

    @classmethod
    def from_url(cls, url: str) -> Self:
        """Read `postgresql://user@host:port/database?password_file=…`, parts percent-encoded.

        Other options: `password_env`, `sslmode`, `tls_ca_file`, `via`.

        Raises:
            BadInput: a part is missing, malformed or unknown, or there is a password in it.
        """
        parts = _split(url)
        options = _options_of(parts)
        values: dict[str, Any] = {
            "host": unquote(parts.hostname or ""),
            "port": _port_of(parts),
            "user": unquote(parts.username or ""),
            "database": unquote(parts.path.removeprefix("/")),
            **options,
        }
        for name in ("host", "user", "database"):
            if not values[name].strip():
                raise BadInput(name, "there is none", SHAPE)
        if "tls_ca_file" in options and "sslmode" not in options:
            values["sslmode"] = "verify-full"
        if "via" in options:
            SshHost.from_url(options["via"])
        try:
            return cls(**values)
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(map(str, first["loc"])) or "database URL"
            raise BadInput(field, str(first["msg"]), SHAPE) from None

    @classmethod
    def named(cls, given: str, field: str = "database") -> Self:
        """Read a parameter: a `postgresql://` URL, or the name of a saved block of this kind.

        Raises:
            BadInput: the URL is malformed, or there is no such block.
        """
        if "://" not in given:
            return saved_block(cls, given, field, SHAPE.removeprefix("Write "))
        try:
            return cls.from_url(given)
        except BadInput as wrong:
            raise BadInput(f"{field} ({wrong.field})", wrong.seen, wrong.remedy) from None

    @property
    def label(self) -> str:
        """The database as it is named everywhere: no user, no secret."""
        host = f"[{self.host}]" if ":" in self.host else quote(self.host, safe="")
        label = f"postgresql://{host}:{self.port}/{quote(self.database, safe='')}"
        return f"{label} via {SshHost.from_url(self.via).target}" if self.via else label

    @property
    def places(self) -> list[str]:
        """The server, whatever database on it is meant, by all the names that are known of it."""
        names: tuple[str, ...] = (self.host,)
        if not self.via:
            names = names_of(self.host)
        elif self.host in LOOPBACK:
            via = SshHost.from_url(self.via)
            names = (via.address,) if via.jump else names_of(via.address)
        return [f"postgresql server {name} port {self.port}" for name in names]

    def for_account(self, user: str, password: Secret | str, database: str) -> Self:
        """The same server for another account, whose password was read from elsewhere.

        It lives for as long as the step that tries it; the password is in no field of it.
        """
        fields = {"user": user, "database": database, "password_file": None, "password_env": None}
        other = self.model_copy(update=fields)
        other._given = password  # noqa: SLF001 (its own class)
        return other

    def password(self) -> Secret | None:
        """The password, read now; `None` where no source is named: libpq then looks in ~/.pgpass.

        Raises:
            BadInput: the file or the variable is missing, empty or open to others.
        """
        if self.password_file is not None:
            return Secret.from_file(self.password_file)
        if self.password_env is not None:
            return Secret.from_env(self.password_env)
        return None

    def knock(self) -> Knock:
        """Try to connect, and tell how that ended; what a server says no to is an answer too.

        Raises:
            BadInput: the password cannot be read.
            Unreachable: the host to go through cannot be reached; the server was not asked.
        """
        with ExitStack() as resources:
            asked = f"connect as {self.user}"
            with reading(asked, self.label) as call:
                connection, knock = self._open(resources)
                call.answer = f"{knock.answer} {knock.text}"
            if connection is not None:
                connection.close()
        return knock

    def connect(self, database: str | None = None) -> PostgresSession:
        """Open a session; use it as a context manager.

        Args:
            database: another database on the same server than the block's own.

        Raises:
            BadInput: the password cannot be read, or there is no such database.
            Unreachable: no answer within `connect_within_seconds`, or it takes nobody in now.
            CommandFailed: the server refused the account, or TLS.
        """
        asked = f"connect as {self.user}"
        with ExitStack() as resources:
            with reading(asked, self.label) as call:
                connection, knock = self._open(resources, database)
                call.answer = f"{knock.answer} {knock.text}"
                if connection is None:
                    raise not_connected(knock.answer, knock.text, self.label, asked)
            resources.callback(connection.close)
            session = PostgresSession(connection, self.label, self.answer_within_seconds)
            session.keep(resources.pop_all())
            return session

    def _open(
        self, resources: ExitStack, database: str | None = None
    ) -> tuple["psycopg.Connection[tuple[Any, ...]] | None", Knock]:
        given = self._given if self._given is not None else self.password()
        password = given.reveal() if isinstance(given, Secret) else given
        host = self.host
        if self.via:
            ssh = SshHost.from_url(self.via)
            try:
                socket = resources.enter_context(ssh.forwarded(self.host, self.port))
                host = str(socket.parent)  # libpq wants the folder
            except Unreachable as error:
                ssh.read(["true"])  # raises where it is the SSH host that gives no answer
                return None, Knock(ConnectionAnswer.REFUSED, error.seen)
        try:
            connection = psycopg.connect(
                self._conninfo(host, database or self.database),
                password=password,
                autocommit=True,
            )
        except (psycopg.Error, OSError) as error:
            return None, self._told(error, host, database or self.database)
        return connection, Knock(ConnectionAnswer.ACCEPTED)

    def _conninfo(self, host: str, database: str) -> str:
        fence = current_fence()
        return make_conninfo(
            host=host,
            port=self.port,
            user=self.user,
            dbname=database,
            connect_timeout=self.connect_within_seconds,
            application_name=f"recover {fence.recovery_id} {fence.epoch}",
            sslmode=self.sslmode,
            sslrootcert=str(self.tls_ca_file) if self.tls_ca_file else None,
            client_encoding="UTF8",  # else text of a SQL_ASCII database would come as bytes
            **NOTICING_A_DEAD_PEER,
        )

    def _told(self, error: psycopg.Error | OSError, host: str, database: str) -> Knock:
        """What a failed attempt means, asked once more in a plainer way where its text hides it."""
        answer, text = answer_of(error), message_of(error)
        within = self.connect_within_seconds
        if answer is ConnectionAnswer.TIMED_OUT:
            if postgres_answer.takes_connections(host, self.port, within):
                answer = ConnectionAnswer.SILENT
        elif answer is ConnectionAnswer.OTHER:
            greeting = postgres_answer.greet(host, self.port, self.user, database, within)
            if greeting is not None and greeting.sqlstate:
                answer = postgres_answer.answer_in(greeting.text, greeting.sqlstate)
                text = f"{text} ({greeting.sqlstate})"
        return Knock(answer, text)


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url.strip())
    except ValueError:  # its text may hold a password
        raise BadInput("database URL", "it cannot be split", SHAPE) from None
    if parts.scheme not in ("postgresql", "postgres"):
        raise BadInput("scheme", f"{parts.scheme or 'none'!r} is not postgresql", SHAPE)
    if parts.password is not None:
        seen = "there is a password in the URL, where logs and forms show it"
        raise BadInput("password", seen, TAKEN_OUT)
    if parts.fragment:
        raise BadInput("database URL", "there is a # in it", "Write # as %23")
    if "/" in parts.path.removeprefix("/"):
        raise BadInput("database", "there is a second / in it", "Write it as %2F")
    return parts


def _options_of(parts: SplitResult) -> dict[str, str]:
    """The part behind the question mark; in a path and a fingerprint a plus is a plus."""
    try:
        pairs = parse_qsl(
            parts.query.replace("+", "%2B"),
            keep_blank_values=True,
            strict_parsing=bool(parts.query),
        )
    except ValueError:
        raise BadInput("options", "what follows ? is not name=value", SHAPE) from None
    options: dict[str, str] = {}
    for name, value in pairs:
        if name == "password":
            seen = "there is a password in the URL, where logs and forms show it"
            raise BadInput("password", seen, TAKEN_OUT)
        if name not in OPTIONS:
            known = ", ".join(OPTIONS)
            remedy = f"Known are {known}; in via=ssh://…, write & as %26"
            raise BadInput(name, "this option is not known", remedy)
        if name in options:
            raise BadInput(name, "it is given twice", "Give it once")
        if not value:
            raise BadInput(name, "it is empty", "Give it a value, or leave it out")
        if name in PATHS and not value.startswith("/"):
            raise BadInput(name, f"{value!r} is not an absolute path", "Start it with /")
        options[name] = value
    return options


def _port_of(parts: SplitResult) -> int:
    try:
        port = parts.port
    except ValueError:  # its text may hold a password with a slash in it
        raise BadInput("port", "it is none", PORTS) from None
    if port == 0:
        raise BadInput("port", "it is 0", PORTS)
    return PORT if port is None else port


PostgresParameter = Annotated[str, Saved(PostgresServer)]

"""A MySQL or MariaDB database as a Prefect block: where it is and where its password is kept."""

import os
from collections import deque
from pathlib import Path
from typing import Annotated, Any, Self
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlsplit

import pymysql
from prefect.blocks.core import Block
from pydantic import Field, ValidationError, model_validator

from blocks.mysql.session import MysqlSession, translated
from recovery.commands import reading
from recovery.errors import BadInput
from recovery.forms import Saved
from recovery.secrecy.secret import Secret

PORT = 3306
PORTS = "Give a number from 1 to 65535; a password is never part of a URL"
NAME_CHARACTERS_MAX = 64
OPTIONS = ("password_file", "password_env", "socket", "tls_ca_file")
SESSIONS_KEPT_MAX = 8
SHAPE = "Write mysql://USER@HOST:PORT/DATABASE?password_file=/path/on/the/worker"

_kept_sessions: dict[tuple[int, str, str, str], deque[MysqlSession]] = {}


class MysqlServer(Block):
    """One database on a MySQL or MariaDB server.

    The block holds references only. The password stays on the worker, in a file that nobody else
    may read or in an environment variable, and is read anew at each connection.
    """

    _block_type_name = "MySQL database"
    _block_type_slug = "mysql-database"
    _description = "One database on a MySQL or MariaDB server; the password stays on the worker."
    _code_example = (
        'MysqlServer.from_url("mysql://grafana@db:3306/grafana?password_env=DB_PASSWORD")'
    )

    host: str = Field(default="localhost", description="Name or address of the server.")
    port: int = Field(default=PORT, ge=1, le=65535)
    user: str = Field(min_length=1, description="The account that connects.")
    database: str = Field(min_length=1, max_length=NAME_CHARACTERS_MAX)
    password_file: Path | None = Field(
        default=None, description="Path on the worker of a file that holds the password alone."
    )
    password_env: str | None = Field(
        default=None, description="Environment variable of the worker that holds the password."
    )
    unix_socket: Path | None = Field(
        default=None, description="Path of a local socket, used instead of host and port."
    )
    tls_ca_file: Path | None = Field(
        default=None, description="CA that must have signed the server's certificate; demands TLS."
    )
    connect_within_seconds: int = Field(default=10, ge=1)
    answer_within_seconds: int = Field(
        default=600, ge=1, description="Longest silence of the server within one statement."
    )

    @model_validator(mode="after")
    def _has_one_password_source(self) -> Self:
        if self.password_file is not None and self.password_env is not None:
            raise ValueError("name password_file or password_env, not both")
        return self

    @classmethod
    def from_url(cls, url: str) -> Self:
        """Read `mysql://user@host:port/database?password_file=…`, parts percent-encoded.

        Other options: `password_env`, `socket` (instead of the host), `tls_ca_file`.

        Raises:
            BadInput: a part is missing, malformed or unknown, or there is a password in it.
        """
        parts = split(url)
        options = options_of(parts)
        values: dict[str, Any] = {
            "host": host_of(parts, options),
            "port": port_of(parts),
            "user": user_of(parts),
            "database": database_of(parts),
        }
        for option in OPTIONS:
            if option in options:
                values["unix_socket" if option == "socket" else option] = options[option]
        try:
            return cls(**values)
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(map(str, first["loc"])) or "database URL"
            raise BadInput(field, str(first["msg"]), SHAPE) from None

    @property
    def label(self) -> str:
        """The database as it is named everywhere: no user, no secret."""
        if self.unix_socket is not None:
            database = quote(self.database, safe="")
            return f"mysql://localhost/{database}?socket={quote(str(self.unix_socket))}"
        return label_of(self.host, self.port, self.database)

    def password(self) -> Secret | None:
        """The password, read now; `None` where no source is named.

        Raises:
            BadInput: the file or the variable is missing, empty or open to others.
        """
        if self.password_file is not None:
            return Secret.from_file(self.password_file)
        if self.password_env is not None:
            return Secret.from_env(self.password_env)
        return None

    def connect(self, database: str | None = None) -> MysqlSession:
        """Open a session, or take up one that was given back; use it as a context manager.

        Sessions are kept because every new one costs a handshake: with TLS, some 30 ms.

        Args:
            database: another database on the same server than the block's own.

        Raises:
            BadInput: the password cannot be read, or there is no such database.
            Unreachable: no answer within `connect_within_seconds`.
            CommandFailed: the server refused the account.
        """
        key = (os.getpid(), self.label, self.user, database or self.database)
        while kept := _kept_sessions.get(key):
            session = kept.pop()
            if session.is_alive():
                return session
            session.close()
        session = self._connect_anew(database)
        session.give_back = _kept_sessions.setdefault(key, deque(maxlen=SESSIONS_KEPT_MAX)).append
        return session

    def _connect_anew(self, database: str | None) -> MysqlSession:
        secret = self.password()
        asked = f"connect as {self.user}"
        with reading(asked, self.label) as call:
            try:
                connection = pymysql.connect(
                    host=None if self.unix_socket else self.host,
                    port=self.port,
                    unix_socket=str(self.unix_socket) if self.unix_socket else None,
                    user=self.user,
                    password=secret.reveal().encode() if secret else b"",
                    database=database or self.database,
                    charset="utf8mb4",
                    autocommit=True,
                    local_infile=False,
                    connect_timeout=self.connect_within_seconds,
                    read_timeout=self.answer_within_seconds,
                    write_timeout=self.answer_within_seconds,
                    max_allowed_packet=1 << 30,
                    **self._tls(),
                )
            except (pymysql.err.Error, OSError) as error:
                raise translated(error, self.label, asked) from None
            call.answer = str(connection.get_server_info())  # type: ignore[no-untyped-call]
        return MysqlSession(connection, self.label)

    def _tls(self) -> dict[str, Any]:
        if self.tls_ca_file is None:
            return {}
        return {
            "ssl_ca": str(self.tls_ca_file),
            "ssl_verify_cert": True,
            "ssl_verify_identity": True,
        }


def label_of(host: str, port: int, database: str) -> str:
    """A database as it is named everywhere, where it is reached by host and port."""
    shown = f"[{host}]" if ":" in host else host
    return f"mysql://{shown}:{port}/{quote(database, safe='')}"


def split(url: str) -> SplitResult:
    """Split a URL and refuse what no database URL has."""
    try:
        parts = urlsplit(url.strip())
    except ValueError:  # its text may hold a password
        raise BadInput("database URL", "it cannot be split", SHAPE) from None
    if parts.scheme not in ("mysql", "mariadb"):
        raise BadInput("scheme", f"{parts.scheme or 'none'!r} is not mysql", SHAPE)
    if parts.password is not None:
        raise BadInput(
            "password", "there is a password in the URL, where logs and forms show it",
            "Take it out and name password_file=/path or password_env=NAME instead",
        )  # fmt: skip
    if parts.fragment:
        raise BadInput("database URL", "there is a # in it", "Write # as %23")
    return parts


def options_of(parts: SplitResult) -> dict[str, str]:
    """The part behind the question mark."""
    try:
        # In a path a plus is a plus; only %20 is a blank.
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
            raise BadInput(
                "password", "there is a password in the URL, where logs and forms show it",
                "Take it out and name password_file=/path or password_env=NAME instead",
            )  # fmt: skip
        if name not in OPTIONS:
            raise BadInput(name, "this option is not known", f"Known are {', '.join(OPTIONS)}")
        if name in options:
            raise BadInput(name, "it is given twice", "Give it once")
        if not value:
            raise BadInput(name, "it is empty", "Give it a value, or leave it out")
        if name != "password_env" and not value.startswith("/"):
            raise BadInput(name, f"{value!r} is not an absolute path", "Start it with /")
        options[name] = value
    if {"password_file", "password_env"} <= options.keys():
        raise BadInput("password_file", "password_env is given as well", "Keep one of the two")
    return options


def host_of(parts: SplitResult, options: dict[str, str]) -> str:
    """The host, which a socket makes needless."""
    host = unquote(parts.hostname or "")
    if not host and "socket" not in options:
        raise BadInput("host", "there is none", SHAPE)
    return host or "localhost"


def port_of(parts: SplitResult) -> int:
    """The port, 3306 unless given."""
    try:
        port = parts.port
    except ValueError:  # its text may hold a password with a slash in it
        raise BadInput("port", "it is none", PORTS) from None
    if port == 0:
        raise BadInput("port", "it is 0", PORTS)
    return PORT if port is None else port


def user_of(parts: SplitResult) -> str:
    """The account."""
    user = unquote(parts.username or "")
    if not user:
        raise BadInput("user", "there is none", SHAPE)
    return user


def database_of(parts: SplitResult) -> str:
    """The database, as one path segment."""
    segment = parts.path.removeprefix("/")
    if "/" in segment:
        raise BadInput("database", "there is a / in it", "Write a / in the name as %2F")
    name = unquote(segment)
    if not name.strip():
        raise BadInput("database", "there is none", SHAPE)
    if len(name) > NAME_CHARACTERS_MAX:
        seen = f"{len(name)} characters, more than a name may have ({NAME_CHARACTERS_MAX})"
        raise BadInput("database", seen, "Give the name of the database")
    return name


MysqlParameter = Annotated[str, Saved(MysqlServer)]

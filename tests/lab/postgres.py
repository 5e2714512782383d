"""A private PostgreSQL server with a real password."""

import contextlib
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import LiteralString, cast
from urllib.parse import quote

import psycopg
from psycopg import sql

from tests.lab.ports import LOOPBACK, free_port
from tests.lab.processes import (
    LabError,
    Server,
    ServerMissing,
    account_ids,
    bare_environment,
    find_binary,
    made_up_password,
    scratch_directory,
    service_user,
    write_secret,
)

USER = "lab"
OPTIONS = {
    "fsync": "off",  # survives the death of the server, not of the machine
    "max_connections": "60",
    "shared_buffers": "32MB",
    "timezone": "UTC",
}
ACCESS = f"local all all trust\nhost all all {LOOPBACK}/32 scram-sha-256\n"


def binaries() -> Path:
    """Return the folder of the newest PostgreSQL that is installed, else of the one on PATH.

    Raises:
        ServerMissing: there is none.
    """
    packaged = [b for b in Path("/usr/lib/postgresql").glob("*/bin") if (b / "postgres").exists()]
    if packaged:
        return max(packaged, key=lambda folder: float(folder.parent.name))
    try:
        return Path(find_binary("postgres")).resolve().parent
    except ServerMissing as error:
        raise ServerMissing("postgres is not installed") from error


class PostgresServer(Server):
    """A PostgreSQL of our own on a free loopback port."""

    name = "postgres"
    stop_signal = signal.SIGINT  # a fast shutdown: does not wait for clients

    def __init__(
        self, directory: Path, scratch: Path, *, user: str, options: Mapping[str, str]
    ) -> None:
        super().__init__(directory, user=user, scratch=scratch)
        self.host = LOOPBACK
        self.port = free_port()
        self.user = USER
        self.password = made_up_password()
        self.password_file = directory / "postgres.password"
        write_secret(self.password_file, self.password)
        self.data_directory = scratch / "d"
        self.socket_directory = scratch
        self.options = {**OPTIONS, **options}  # changes count from the next start

    def command(self) -> list[str]:
        return [
            str(binaries() / "postgres"),
            *("-D", str(self.data_directory)),
            *("-p", str(self.port)),
            *("-k", str(self.socket_directory)),
            *("-c", f"listen_addresses={self.host}"),
            *(part for name, value in self.options.items() for part in ("-c", f"{name}={value}")),
        ]

    def answers(self) -> bool:
        with psycopg.connect(self._through_socket, connect_timeout=5):
            return True

    @property
    def _through_socket(self) -> str:
        return f"host={self.socket_directory} port={self.port} user=postgres dbname=postgres"

    @property
    def dsn(self) -> str:
        """The address of the database of the lab's user, password and all."""
        return self.dsn_of(self.user)

    def dsn_of(self, database: str) -> str:
        """Return the address of any database."""
        password, name = quote(self.password, safe=""), quote(database, safe="")
        return f"postgresql://{self.user}:{password}@{self.host}:{self.port}/{name}"

    def execute(self, statement: str, database: str | None = None) -> list[tuple]:
        """Run one statement as the lab's user and return its rows."""
        with psycopg.connect(self.dsn_of(database or self.user), autocommit=True) as connection:
            cursor = connection.execute(cast("LiteralString", statement))
            return cursor.fetchall() if cursor.description else []

    def execute_local(self, statement: str) -> None:
        """Run one statement as the server's own account, which needs no password."""
        with psycopg.connect(self._through_socket, autocommit=True) as connection:
            connection.execute(cast("LiteralString", statement))

    def create_database(self, name: str) -> str:
        """Create an empty database, dropping one of that name, and return its address."""
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            for statement in ("DROP DATABASE IF EXISTS {} WITH (FORCE)", "CREATE DATABASE {}"):
                connection.execute(sql.SQL(statement).format(sql.Identifier(name)))
        return self.dsn_of(name)

    def set_password(self) -> None:
        """Create the lab's user, a superuser, with its password and its database."""
        with psycopg.connect(self._through_socket, autocommit=True) as connection:
            connection.execute(
                sql.SQL("CREATE ROLE {} SUPERUSER LOGIN PASSWORD {}").format(
                    sql.Identifier(self.user), sql.Literal(self.password)
                )
            )
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(self.user)))


def template(user: str) -> Path:
    """Return an initialised data directory to copy, made once for this machine and version."""
    folder = binaries()
    asked = subprocess.run([folder / "postgres", "-V"], capture_output=True, text=True, check=True)
    mark = asked.stdout.split()[2]
    ready = Path(tempfile.gettempdir()) / f"lab-postgres-template-{os.geteuid()}-{mark}"
    if not ready.is_dir():
        with scratch_directory("postgres-init", user) as scratch:
            made = scratch / "d"
            result = subprocess.run(
                [
                    folder / "initdb",
                    *("-D", made),
                    *("-U", "postgres"),
                    *("-A", "trust"),
                    *("-E", "UTF8"),
                    "--locale=C.UTF-8",
                    "--no-sync",
                ],
                capture_output=True,
                text=True,
                env=bare_environment(),
                cwd=scratch,
                timeout=120,
                check=False,
                **(
                    {"user": user, "group": account_ids(user)[1], "extra_groups": []}
                    if user
                    else {}
                ),
            )
            if result.returncode != 0:
                raise LabError(f"initdb failed:\n{result.stdout}{result.stderr}")
            (made / "pg_hba.conf").write_text(ACCESS)
            with contextlib.suppress(OSError):  # another process was first
                made.rename(ready)
    if ready.stat().st_uid != account_ids(user)[0]:
        raise LabError(f"{ready} belongs to somebody else")
    return ready


@contextlib.contextmanager
def private_postgres(
    directory: Path, *, options: Mapping[str, str] | None = None
) -> Iterator[PostgresServer]:
    """Run a private PostgreSQL until the end of the block.

    Args:
        directory: where its log and its password file go; the tables lie in a scratch directory.
        options: settings on top of `OPTIONS`.

    Raises:
        ServerMissing: it is not installed.
        LabError: it did not start.
    """
    user = service_user("postgres")
    directory.mkdir(parents=True, exist_ok=True)
    with scratch_directory("postgres", user) as scratch:
        server = PostgresServer(directory, scratch, user=user, options=options or {})
        subprocess.run(["cp", "-a", template(user), server.data_directory], check=True)
        try:
            server.start()
            server.set_password()
            yield server
        finally:
            server.close()

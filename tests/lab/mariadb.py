"""A private MariaDB server with a real password."""

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import quote

import pymysql

from tests.lab.ports import LOOPBACK, free_port
from tests.lab.processes import (
    LabError,
    Server,
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
    "character_set_server": "utf8mb4",
    "collation_server": "utf8mb4_unicode_ci",
    "max_allowed_packet": "64M",
    "innodb_flush_log_at_trx_commit": "2",  # survives the death of the server, not of the machine
    "innodb_buffer_pool_size": "64M",
    "innodb_log_file_size": "32M",
    "performance_schema": "OFF",
    "skip_name_resolve": "ON",
}


class MariadbServer(Server):
    """A MariaDB of our own on a free loopback port."""

    name = "mariadb"

    def __init__(
        self, directory: Path, scratch: Path, *, user: str, options: Mapping[str, str]
    ) -> None:
        super().__init__(directory, user=user, scratch=scratch)
        self._first_start = scratch / "first.sql"
        self.host = LOOPBACK
        self.port = free_port()
        self.user = USER
        self.password = made_up_password()
        self.password_file = directory / "mariadb.password"
        write_secret(self.password_file, self.password)
        self.data_directory = scratch / "d"
        self.socket = scratch / "s"
        self.options = {**OPTIONS, **options}  # changes count from the next start

    def command(self) -> list[str]:
        return [
            find_binary("mariadbd"),
            "--no-defaults",
            f"--datadir={self.data_directory}",
            f"--bind-address={self.host}",
            f"--port={self.port}",
            f"--socket={self.socket}",
            f"--tmpdir={self.data_directory.parent}",  # not one that others tidy up
            f"--pid-file={self.data_directory / 'pid'}",
            *(f"--{name}={value}" for name, value in self.options.items()),
            *([f"--init-file={self._first_start}"] if self._first_start.exists() else []),
        ]

    def set_password_at_first_start(self) -> None:
        """Leave statements for the next start that give every account the password."""
        secret = quoted(self.password)
        # A new data directory also lets root in from 127.0.0.1, ::1 and its own name, unasked.
        write_secret(
            self._first_start,
            "DELETE FROM mysql.global_priv WHERE Host != 'localhost' OR User = '';\n"  # noqa: S608
            "FLUSH PRIVILEGES;\n"
            f"ALTER USER root@localhost IDENTIFIED BY {secret};\n"
            f"CREATE USER {USER}@'%' IDENTIFIED BY {secret};\n"
            f"GRANT ALL PRIVILEGES ON *.* TO {USER}@'%' WITH GRANT OPTION;\n",
        )
        os.chown(self._first_start, *account_ids(self._place.user))

    def answers(self) -> bool:
        with contextlib.closing(self.connect()):
            return True

    def start(self) -> None:
        super().start()
        self._first_start.unlink(missing_ok=True)  # a password changed later stays

    def connect(self, database: str | None = None) -> pymysql.connections.Connection:
        """Open a connection as the lab's user, autocommit on."""
        return pymysql.connect(
            host=self.host,
            port=self.port,
            user=self.user,
            password=self.password,
            database=database,
            charset="utf8mb4",
            autocommit=True,
            connect_timeout=5,
            read_timeout=60,
            write_timeout=60,
            max_allowed_packet=1 << 30,
        )

    def url(self, database: str = "") -> str:
        """Return the address of a database, the password by file only."""
        password_file = quote(str(self.password_file.absolute()), safe="/")
        place = f"{self.user}@{self.host}:{self.port}/{quote(database, safe='')}"
        return f"mysql://{place}?password_file={password_file}"

    def execute(self, *statements: str, database: str | None = None) -> tuple[tuple, ...]:
        """Run statements one by one and return the rows of the last."""
        rows: tuple[tuple, ...] = ()
        with contextlib.closing(self.connect(database)) as connection:
            for statement in statements:
                with connection.cursor() as cursor:
                    cursor.execute(statement)
                    rows = tuple(cursor.fetchall())
        return rows

    def create_database(self, name: str, *, collation: str = "utf8mb4_unicode_ci") -> str:
        """Create an empty database, dropping one of that name, and return its URL."""
        quoted = "`" + name.replace("`", "``") + "`"
        charset = collation.partition("_")[0]
        self.execute(
            f"DROP DATABASE IF EXISTS {quoted}",
            f"CREATE DATABASE {quoted} CHARACTER SET {charset} COLLATE {collation}",
        )
        return self.url(name)


def quoted(text: str) -> str:
    """Return an SQL literal."""
    return "'" + text.replace("\\", "\\\\").replace("'", "''") + "'"


def template(user: str) -> Path:
    """Return an initialised data directory to copy, made once for this machine and version.

    It holds no password and no tables but the server's own. Two processes that make it at the
    same time both succeed: the second to finish finds the place taken and uses what is there.
    """
    server = find_binary("mariadbd")
    version = subprocess.run([server, "--version"], capture_output=True, text=True, check=True)
    mark = "".join(c if c.isalnum() or c in ".-" else "_" for c in version.stdout.split()[2])
    ready = Path(tempfile.gettempdir()) / f"lab-mariadb-template-{os.geteuid()}-{mark}"
    if not ready.is_dir():
        with scratch_directory("mariadb-init", user) as scratch:
            made = scratch / "d"
            result = subprocess.run(
                [
                    find_binary("mariadb-install-db"),
                    "--no-defaults",
                    f"--datadir={made}",
                    "--auth-root-authentication-method=normal",
                    "--skip-test-db",
                    f"--innodb-log-file-size={OPTIONS['innodb_log_file_size']}",
                    *([f"--user={user}"] if user else []),
                ],
                capture_output=True,
                text=True,
                env=bare_environment(),
                timeout=120,
                check=False,
            )
            if result.returncode != 0:
                said = f"{result.stderr}{result.stdout}".strip() or "nothing"
                about = f"in {scratch}, as {user}" if user else f"in {scratch}"
                raise LabError(f"mariadb-install-db failed {about}; it said: {said}")
            with contextlib.suppress(OSError):  # another process was first
                made.rename(ready)
    if ready.stat().st_uid != account_ids(user)[0]:
        raise LabError(f"{ready} belongs to somebody else")
    return ready


@contextlib.contextmanager
def private_mariadb(
    directory: Path, *, options: Mapping[str, str] | None = None
) -> Iterator[MariadbServer]:
    """Run a private MariaDB until the end of the block.

    Args:
        directory: where its log and its password file go; the tables lie in a scratch directory.
        options: server variables on top of `OPTIONS`, such as `{"sql_mode": ""}`.

    Raises:
        ServerMissing: it is not installed.
        LabError: it did not start.
    """
    user = service_user("mysql")
    directory.mkdir(parents=True, exist_ok=True)
    with scratch_directory("mariadb", user) as scratch:
        server = MariadbServer(directory, scratch, user=user, options=options or {})
        subprocess.run(["cp", "-a", template(user), server.data_directory], check=True)
        server.set_password_at_first_start()
        try:
            server.start()
            yield server
        finally:
            server.close()

"""A private InfluxDB 1.x that asks for a password."""

import contextlib
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import httpx

from tests.lab.ports import LOOPBACK, free_port
from tests.lab.processes import (
    Server,
    bare_environment,
    find_binary,
    scratch_directory,
    service_user,
    write_secret,
)

USER = "lab-reader"


class InfluxdbServer(Server):
    """An InfluxDB of our own on a free loopback port."""

    name = "influxdb"

    def __init__(self, directory: Path, scratch: Path, *, user: str) -> None:
        super().__init__(directory, user=user, scratch=scratch)
        self.scratch = scratch
        self.port, self._rpc_port = free_port(), free_port()
        self.password = secrets.token_hex(8) + "'\"\\%#:&$x"
        self.password_file = directory / "influxdb.password"
        write_secret(self.password_file, self.password)

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://{LOOPBACK}:{self.port}"

    def block_url(self, database: str) -> str:
        """The address of a database as a parameter has it: the password by file only."""
        password_file = quote(str(self.password_file.absolute()), safe="/")
        place = f"{USER}@{LOOPBACK}:{self.port}/{database}"
        return f"http://{place}?password_file={password_file}"

    def command(self) -> list[str]:
        return [find_binary("influxd")]

    def environment(self) -> dict[str, str]:
        settings = {
            "META_DIR": str(self.scratch / "meta"),
            "DATA_DIR": str(self.scratch / "data"),
            "DATA_WAL_DIR": str(self.scratch / "wal"),
            "DATA_QUERY_LOG_ENABLED": "false",
            "HTTP_BIND_ADDRESS": f"{LOOPBACK}:{self.port}",
            "HTTP_AUTH_ENABLED": "true",
            "HTTP_LOG_ENABLED": "false",
            "BIND_ADDRESS": f"{LOOPBACK}:{self._rpc_port}",
            "REPORTING_DISABLED": "true",
            "MONITOR_STORE_ENABLED": "false",
        }
        named = {f"INFLUXDB_{name}": value for name, value in settings.items()}
        return bare_environment(HOME=str(self.scratch), **named)

    def answers(self) -> bool:
        return httpx.get(f"{self.url}/ping", timeout=5).status_code == 204

    def create_user(self) -> None:
        """Create the only account, which InfluxDB lets anybody do while there is none."""
        value = self.password.replace("\\", "\\\\").replace("'", "\\'")
        statement = f"CREATE USER \"{USER}\" WITH PASSWORD '{value}' WITH ALL PRIVILEGES"
        httpx.post(f"{self.url}/query", data={"q": statement}, timeout=10).raise_for_status()

    def execute(self, statement: str, database: str = "") -> list[dict]:
        """Run a statement of InfluxQL and return the series of its first result."""
        answer = httpx.post(
            f"{self.url}/query",
            data={"q": statement, "db": database, "epoch": "s"},
            auth=(USER, self.password),
            timeout=30,
        )
        answer.raise_for_status()
        (result,) = answer.json()["results"]
        assert "error" not in result, result
        return result.get("series") or []

    def create_database(self, name: str) -> str:
        """Create an empty database, dropping one of that name, and return its name."""
        self.execute(f'DROP DATABASE "{name}"')
        self.execute(f'CREATE DATABASE "{name}"')
        return name

    def write(self, database: str, *lines: str, seconds_ago: int = 0) -> None:
        """Write points, each `measurement,tag=value field=1`, of one moment."""
        at = int(time.time()) - seconds_ago
        httpx.post(
            f"{self.url}/write",
            params={"db": database, "precision": "s"},
            content="\n".join(f"{line} {at}" for line in lines).encode(),
            auth=(USER, self.password),
            timeout=30,
        ).raise_for_status()


@contextlib.contextmanager
def private_influxdb(directory: Path) -> Iterator[InfluxdbServer]:
    """Run a private InfluxDB until the end of the block.

    Raises:
        ServerMissing: it is not installed.
        LabError: it did not start.
    """
    find_binary("influxd")
    user = service_user("influxdb")
    directory.mkdir(parents=True, exist_ok=True)
    with scratch_directory("influxdb", user) as scratch:
        server = InfluxdbServer(directory, scratch, user=user)
        try:
            server.start()
            server.create_user()
            yield server
        finally:
            server.close()

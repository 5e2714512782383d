"""A private Prefect server with its UI, and real process workers for it."""

import contextlib
import json
import os
import shutil
import sqlite3
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tests.lab.ports import LOOPBACK, free_port
from tests.lab.processes import LabError, Server, bare_environment

PREFECT = [sys.executable, "-m", "prefect"]
ENGINE = f"{sys.executable} -m prefect.engine"
LOCKED_AT_MOST_SECONDS = 20.0
Json = Any


def prefect_environment(home: Path, api_url: str, settings: Mapping[str, str]) -> dict[str, str]:
    """Return a whole environment for a Prefect process, with nothing of the caller's Prefect."""
    return bare_environment(
        HOME=str(home),
        TMPDIR=str(home),  # a runner keeps its storage there, owned by the first who ran one
        PATH=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
        PYTHONUNBUFFERED="1",
        DO_NOT_TRACK="1",
        PREFECT_HOME=str(home),
        PREFECT_API_URL=api_url,
        PREFECT_SERVER_ANALYTICS_ENABLED="false",
        PREFECT_CLI_PROMPT="false",
        PREFECT_CLI_COLORS="false",
        PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT="false",
    ) | dict(settings)


def template() -> Path:
    """Return where a database that has had all migrations is kept for this Prefect."""
    name = f"lab-prefect-template-{os.geteuid()}-{version('prefect')}.db"
    return Path(tempfile.gettempdir()) / name


def keep_as_template(database: Path, ready: Path) -> None:
    """Keep a copy of the database of a server that runs; the first to do so wins."""
    with tempfile.TemporaryDirectory(dir=ready.parent, prefix="lab-prefect-") as draft:
        copy = Path(draft) / "prefect.db"
        with (
            contextlib.closing(sqlite3.connect(database)) as source,
            contextlib.closing(sqlite3.connect(copy)) as target,
        ):
            source.backup(target)
        copy.chmod(0o600)
        copy.replace(ready)


class PrefectServer(Server):
    """A Prefect server of our own on a free loopback port, its database in its directory."""

    name = "prefect-server"
    start_within_seconds = 60.0

    def __init__(self, directory: Path, settings: Mapping[str, str]) -> None:
        super().__init__(directory)
        self.home = directory / "home"
        self.home.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.ui_url = f"http://{LOOPBACK}:{self.port}"
        self.api_url = f"{self.ui_url}/api"
        self.database = directory / "prefect.db"
        self.settings = dict(settings)  # changes count from the next start

    def command(self) -> list[str]:
        return [*PREFECT, "server", "start", "--host", LOOPBACK, "--port", str(self.port)]

    def environment(self) -> dict[str, str]:
        """Return the whole environment for a client of this server, and for the server itself."""
        return prefect_environment(
            self.home,
            self.api_url,
            {
                "PREFECT_API_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{self.database}",
                "PREFECT_UI_STATIC_DIRECTORY": str(self.directory / "ui"),
                "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": self.ui_url,
                **self.settings,
            },
        )

    def start(self) -> None:
        """Start it as any server; a new database is a copy of one that has had its migrations."""
        ready = template()
        ours = ready.exists() and ready.stat().st_uid == os.geteuid()
        if ours and not self.database.exists():
            shutil.copyfile(ready, self.database)
        super().start()
        if not ready.exists():
            keep_as_template(self.database, ready)

    def answers(self) -> bool:
        page = self.opened(urllib.request.Request(self.ui_url), within_seconds=5)  # noqa: S310
        return b"<html" in page and self.request("GET", "/health") is True

    def request(self, method: str, path: str, body: Json = None) -> Json:
        """Call the API and return what it answers, `None` for an empty answer.

        A 503 is asked again for some seconds, as Prefect's own client does: it is how the server
        says that its SQLite was locked by another of its own writers.

        Raises:
            urllib.error.HTTPError: it said no.
        """
        request = urllib.request.Request(  # noqa: S310
            self.api_url + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"content-type": "application/json"},
        )
        deadline = time.monotonic() + LOCKED_AT_MOST_SECONDS
        while True:
            try:
                received = self.opened(request, within_seconds=30)
            except urllib.error.HTTPError as error:
                if error.code != HTTPStatus.SERVICE_UNAVAILABLE or time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
            else:
                return json.loads(received) if received else None

    def opened(self, request: urllib.request.Request, within_seconds: float) -> bytes:
        """Return the body of the answer to a request to this server."""
        with urllib.request.urlopen(request, timeout=within_seconds) as response:  # noqa: S310
            return response.read()

    def create_process_pool(self, name: str) -> None:
        """Create or change a process work pool whose runs start the engine directly.

        Without a command of its own the pool would start a second Python process before the
        engine, which costs half a second a run.
        """
        workers = self.request("GET", "/collections/views/aggregate-worker-metadata")
        template = workers["prefect"]["process"]["default_base_job_configuration"]
        template["variables"]["properties"]["command"]["default"] = ENGINE
        pool = {"name": name, "type": "process", "base_job_template": template}
        if self.request("POST", "/work_pools/filter", {"work_pools": {"name": {"any_": [name]}}}):
            self.request("PATCH", f"/work_pools/{quote(name)}", {"base_job_template": template})
        else:
            self.request("POST", "/work_pools/", pool)


class ProcessWorker(Server):
    """A worker that runs each flow run as a process of its own."""

    start_within_seconds = 60.0

    def __init__(
        self, server: PrefectServer, pool: str, directory: Path, settings: Mapping[str, str]
    ) -> None:
        self.name = f"worker-{pool}-{free_port()}"
        super().__init__(directory)
        self.server = server
        self.pool = pool
        self.home = directory / "home"
        self.home.mkdir(parents=True, exist_ok=True)
        self.settings = dict(settings)
        self._heartbeat_before: str | None = None

    def command(self) -> list[str]:
        return [
            *PREFECT, "worker", "start", "--type", "process", "--pool", self.pool,
            "--name", self.name,
        ]  # fmt: skip

    def environment(self) -> dict[str, str]:
        """Return the whole environment of this worker, which its flow runs inherit."""
        settings = {"PREFECT_WORKER_QUERY_SECONDS": "1", **self.settings}
        return prefect_environment(self.home, self.server.api_url, settings)

    def start(self) -> None:
        self._heartbeat_before = self.last_heartbeat()
        super().start()

    def last_heartbeat(self) -> str | None:
        """Return when the server last heard of this worker."""
        known = self.server.request("POST", f"/work_pools/{quote(self.pool)}/workers/filter", {})
        return next((w["last_heartbeat_time"] for w in known if w["name"] == self.name), None)

    def answers(self) -> bool:
        return self.last_heartbeat() not in {None, self._heartbeat_before}


@contextlib.contextmanager
def private_prefect_server(
    directory: Path, *, settings: Mapping[str, str] | None = None
) -> Iterator[PrefectServer]:
    """Run a private Prefect server with UI until the end of the block.

    Args:
        directory: where its database, its `PREFECT_HOME` and its log go; may be used again.
        settings: Prefect settings by the name of their variable.

    Raises:
        LabError: it did not start.
    """
    directory.mkdir(parents=True, exist_ok=True)
    server = PrefectServer(directory, settings or {})
    try:
        server.start()
        send_events_anew()
        yield server
    finally:
        send_events_anew()
        server.close()


def send_events_anew() -> None:
    """Have this process send its events to the server that it is set to: it keeps to its first."""
    if (worker := sys.modules.get("prefect.events.worker")) is not None:
        worker.EventsWorker.drain_all(timeout=5, at_exit=False)


@contextlib.contextmanager
def process_worker(
    server: PrefectServer,
    pool: str,
    directory: Path,
    *,
    settings: Mapping[str, str] | None = None,
) -> Iterator[ProcessWorker]:
    """Run a process worker until the end of the block, creating the pool where it is missing.

    Args:
        server: a running one.
        pool: name of the work pool.
        directory: where its `PREFECT_HOME` and its log go.
        settings: variables on top of those of `environment()`; flow runs inherit them.

    Raises:
        LabError: it did not start.
    """
    if not server.is_running:
        raise LabError("A worker wants a running server")
    directory.mkdir(parents=True, exist_ok=True)
    server.create_process_pool(pool)
    worker = ProcessWorker(server, pool, directory, settings or {})
    try:
        worker.start()
        yield worker
    finally:
        worker.close()

"""The alert receiver as a process that may be killed, for the recoveries of the tests."""

import contextlib
import secrets
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import yaml

from operate.alerts.opening import open_alerts
from operate.alerts.store import AlertStore
from tests.lab.ports import LOOPBACK, free_port
from tests.lab.processes import Server, write_secret

ROOT = Path(__file__).resolve().parents[2]
ENTRY = (
    "import tests.integration.toy_recoveries; from operate.cli import app; app(prog_name='recover')"
)


class AlertReceiver(Server):
    """A receiver on a free loopback port that takes a bearer token."""

    name = "alert-receiver"
    start_within_seconds = 60.0

    def __init__(
        self, directory: Path, routes: Mapping[str, Any], environment: Mapping[str, str]
    ) -> None:
        super().__init__(directory)
        self.port = free_port()
        self.url = f"http://{LOOPBACK}:{self.port}"
        self.token = secrets.token_hex(16)
        self.token_file = directory / "token"
        write_secret(self.token_file, self.token)
        self.routes = directory / "routes.yaml"
        self.write_routes(routes)
        self.journal = directory / "journal.sqlite"
        self._environment = dict(environment)
        self.more: list[str] = []

    def write_routes(self, routes: Mapping[str, Any]) -> None:
        """Write the routes that count from the next start."""
        self.routes.write_text(yaml.safe_dump({"version": 1, **routes}))

    def command(self) -> list[str]:
        return [
            sys.executable, "-c", ENTRY, "alerts", "serve", "--port", str(self.port),
            "--routes", str(self.routes), "--bearer-file", str(self.token_file), *self.more,
        ]  # fmt: skip

    def environment(self) -> dict[str, str]:
        return {
            **self._environment,
            "PYTHONPATH": str(ROOT),
            "RECOVER_JOURNAL": str(self.journal),
        }

    def answers(self) -> bool:
        return httpx.get(f"{self.url}/healthz", timeout=5).status_code == 200

    @property
    def headers(self) -> dict[str, str]:
        """What lets one post."""
        return {"Authorization": f"Bearer {self.token}"}

    def post(self, body: Any, path: str = "/alertmanager") -> httpx.Response:
        """Post a payload."""
        return httpx.post(f"{self.url}{path}", json=body, headers=self.headers, timeout=30)

    def store(self) -> AlertStore:
        """Its alerts, opened beside it."""
        return open_alerts(str(self.directory / "alerts.sqlite"))

    def status(self) -> dict[str, Any]:
        """How it says that it stands."""
        return httpx.get(f"{self.url}/status", headers=self.headers, timeout=30).json()


@contextlib.contextmanager
def private_receiver(
    directory: Path, routes: Mapping[str, Any], environment: Mapping[str, str]
) -> Iterator[AlertReceiver]:
    """Run a receiver until the end of the block.

    Args:
        directory: where its routes, its token, its alerts and its log go.
        routes: what its file holds.
        environment: a whole one, which names the Prefect server.

    Raises:
        LabError: it did not start.
    """
    directory.mkdir(parents=True, exist_ok=True)
    server = AlertReceiver(directory, routes, environment)
    try:
        server.start()
        yield server
    finally:
        server.close()

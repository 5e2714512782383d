"""The alert receiver as a process that may be killed, for the recoveries of the tests."""

import contextlib
import secrets
import ssl
import sys
from collections.abc import Iterator, Mapping
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import httpx
import yaml

from operate.alerts.opening import open_alerts
from operate.alerts.store import AlertStore
from tests.lab.pki import SERVER, Validity, Wanted, authority, new_key
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
        self,
        directory: Path,
        routes: Mapping[str, Any],
        environment: Mapping[str, str],
        *,
        is_secure: bool,
    ) -> None:
        super().__init__(directory)
        self.port = free_port()
        self.url = f"http{'s' if is_secure else ''}://{LOOPBACK}:{self.port}"
        self.authority = directory / "authority.pem"
        self.more: list[str] = self._make_certificate() if is_secure else []
        self.token = secrets.token_hex(16)
        self.token_file = directory / "token"
        write_secret(self.token_file, self.token)
        self.routes = directory / "routes.yaml"
        self.write_routes(routes)
        self.journal = directory / "journal.sqlite"
        self._environment = dict(environment)
        trusted = ssl.create_default_context(cafile=self.authority) if is_secure else True
        self.client = httpx.Client(verify=trusted, timeout=30)

    def _make_certificate(self) -> list[str]:
        validity = Validity.with_left(timedelta(days=2), timedelta(days=3))
        root = authority("lab-alerts", validity, new_key())
        wanted = Wanted("receiver", usages=(SERVER,), addresses=(ip_address(LOOPBACK),))
        pair = root.issue(wanted, validity, new_key())
        self.authority.write_bytes(root.certificate_pem)
        certificate, key = self.directory / "certificate.pem", self.directory / "key.pem"
        certificate.write_bytes(pair.certificate_pem)
        write_secret(key, pair.key_pem.decode())
        return ["--tls-certificate", str(certificate), "--tls-key", str(key)]

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
        return self.client.get(f"{self.url}/healthz", timeout=5).status_code == 200

    @property
    def headers(self) -> dict[str, str]:
        """What lets one post."""
        return {"Authorization": f"Bearer {self.token}"}

    def post(self, body: Any, path: str = "/alertmanager") -> httpx.Response:
        """Post a payload."""
        return self.client.post(f"{self.url}{path}", json=body, headers=self.headers)

    def store(self) -> AlertStore:
        """Its alerts, opened beside it."""
        return open_alerts(str(self.directory / "alerts.sqlite"))

    def status(self) -> dict[str, Any]:
        """How it says that it stands."""
        return self.client.get(f"{self.url}/status", headers=self.headers).json()


@contextlib.contextmanager
def private_receiver(
    directory: Path,
    routes: Mapping[str, Any],
    environment: Mapping[str, str],
    *,
    is_secure: bool = False,
) -> Iterator[AlertReceiver]:
    """Run a receiver until the end of the block.

    Args:
        directory: where its routes, its token, its alerts and its log go.
        routes: what its file holds.
        environment: a whole one, which names the Prefect server.
        is_secure: with TLS, of an authority whose file `authority` names.

    Raises:
        LabError: it did not start.
    """
    directory.mkdir(parents=True, exist_ok=True)
    server = AlertReceiver(directory, routes, environment, is_secure=is_secure)
    try:
        server.start()
        yield server
    finally:
        server.close()
        server.client.close()

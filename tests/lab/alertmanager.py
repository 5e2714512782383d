"""A private Alertmanager that sends to a webhook as soon as it may."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.lab.ports import LOOPBACK, free_port
from tests.lab.processes import Server, find_binary

BINARIES = ("prometheus-alertmanager", "alertmanager")  # as Debian names it, and everybody else


class Alertmanager(Server):
    """An Alertmanager of our own, alone in its cluster, on a free loopback port."""

    name = "alertmanager"

    def __init__(self, directory: Path, webhook: Mapping[str, Any]) -> None:
        super().__init__(directory)
        self.port = free_port()
        self.url = f"http://{LOOPBACK}:{self.port}"
        self.file = directory / "alertmanager.yml"
        self.file.write_text(
            yaml.safe_dump(
                {
                    "route": {
                        "receiver": "recoveries",
                        "group_by": ["alertname"],
                        "group_wait": "0s",
                        "group_interval": "1s",
                        "repeat_interval": "5s",
                    },
                    "receivers": [{"name": "recoveries", "webhook_configs": [dict(webhook)]}],
                }
            )
        )

    def command(self) -> list[str]:
        binary = next(
            (one for one in BINARIES if _is_there(one)),
            BINARIES[0],
        )
        return [
            find_binary(binary),
            f"--config.file={self.file}",
            f"--storage.path={self.directory / 'alertmanager'}",
            f"--web.listen-address={LOOPBACK}:{self.port}",
            "--cluster.listen-address=",
        ]

    def answers(self) -> bool:
        return httpx.get(f"{self.url}/-/ready", timeout=5).status_code == 200

    def fire(self, labels: Mapping[str, str], *, starts_at: str = "", ends_at: str = "") -> None:
        """Tell it of an alert, as Prometheus does; one that has an end in the past is resolved."""
        alert = {"labels": dict(labels), "startsAt": starts_at, "endsAt": ends_at}
        given = {name: value for name, value in alert.items() if value}
        httpx.post(f"{self.url}/api/v2/alerts", json=[given], timeout=10).raise_for_status()

    def fingerprints(self) -> list[str]:
        """The fingerprints of the alerts it knows."""
        return [one["fingerprint"] for one in httpx.get(f"{self.url}/api/v2/alerts").json()]


def _is_there(binary: str) -> bool:
    with contextlib.suppress(Exception):
        return bool(find_binary(binary))
    return False


@contextlib.contextmanager
def private_alertmanager(directory: Path, webhook: Mapping[str, Any]) -> Iterator[Alertmanager]:
    """Run a private Alertmanager until the end of the block.

    Args:
        directory: where its configuration, its state and its log go.
        webhook: the settings of its only receiver, as in `webhook_configs`.

    Raises:
        LabError: it did not start.
    """
    directory.mkdir(parents=True, exist_ok=True)
    server = Alertmanager(directory, webhook)
    try:
        server.start()
        yield server
    finally:
        server.close()

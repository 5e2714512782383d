"""The processes that `recover up` runs: one table, in the order in which they are started."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

from operate.stack.place import LOOPBACK, Place
from operate.stack.pools import read_pools

PREFECT = [sys.executable, "-m", "prefect"]
ANSWERS_WITHIN_SECONDS = 5.0
SILENT_AFTER = timedelta(seconds=100)  # a worker tells of itself every 30 s


@dataclass(frozen=True)
class Process:
    """One process of the stack.

    Attributes:
        name: what it is called, also in the name of its log.
        what: what it is there for, as a sentence part.
        command: runs it in the foreground.
        where: its address, where it has one.
        answers: whether it does its work since it was started, asked again and again; without it,
            running is enough.
        is_vital: nothing goes on without it: where it dies again and again it is given up, and the
            stack with it. All else is started again for as long as the stack runs.
    """

    name: str
    what: str
    command: list[str]
    where: str = ""
    answers: Callable[[datetime], bool] = lambda _since: True
    is_vital: bool = False


def processes(place: Place) -> list[Process]:
    """Return what a stack consists of; the first is the server, which all others lean on."""
    return [
        _server(place),
        *[_worker(place, pool.name, pool.description) for pool in read_pools(place.pools_file)],
        Process(
            "alert-receiver",
            f"starts what alerts are routed to; posted with the token in {place.alerts_token}",
            ours(
                "operate.alerts",
                f"--port={place.alerts_port}",
                f"--bearer-file={place.alerts_token}",
            ),
            where=place.alerts_url,
            answers=lambda _since: bool(_asked("GET", f"{place.alerts_url}/healthz")),
        ),
        Process(
            "orphan-watch",
            "finds attempts whose worker is gone, and resumes where that is declared safe",
            ours("operate.orphans"),
        ),
    ]


def ours(module: str, *arguments: str) -> list[str]:
    """Return the command that runs a module of this project."""
    return [sys.executable, "-m", module, *arguments]


def _server(place: Place) -> Process:
    started = ["server", "start", "--host", LOOPBACK, "--port", str(place.port)]
    return Process(
        "prefect-server",
        "Prefect's API and its UI",
        [*PREFECT, *started],
        where=place.ui_url,
        answers=lambda _since: _asked("GET", f"{place.api_url}/health") is True,
        is_vital=True,
    )


def _worker(place: Place, pool: str, description: str) -> Process:
    name = f"worker-{pool}"
    started = ["worker", "start", "--type", "process", "--pool", pool, "--name", name]
    return Process(
        name,
        description,
        [*PREFECT, *started],
        where=f"{place.ui_url}/work-pools/work-pool/{pool}",
        answers=lambda since: _was_heard(place, pool, name, since),
    )


def _was_heard(place: Place, pool: str, worker: str, since: datetime) -> bool:
    known = _asked("POST", f"{place.api_url}/work_pools/{pool}/workers/filter", {})
    heard = [
        datetime.fromisoformat(one["last_heartbeat_time"])
        for one in known
        if one["name"] == worker and one["last_heartbeat_time"]
    ]
    return any(at > max(since, datetime.now(UTC) - SILENT_AFTER) for at in heard)


def _asked(method: str, url: str, body: Any = None) -> Any:
    response = httpx.request(method, url, json=body, timeout=ANSWERS_WITHIN_SECONDS)
    response.raise_for_status()
    return response.json()

"""The receiver as a process: settings, what is refused before it listens, and its threads."""

import ipaddress
import logging
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn

from operate.alerts.accepting import Acceptance
from operate.alerts.authentication import Authentication
from operate.alerts.dispatcher import Dispatcher
from operate.alerts.notices import Notifier, PeopleNotifier
from operate.alerts.opening import open_alerts
from operate.alerts.prefect_runs import PrefectRuns
from operate.alerts.receiver import Gate, make_app
from operate.alerts.routes_file import read_routes
from operate.alerts.turned_away import TurnedAway
from operate.alerts.watchdog import HEARD
from operate.server import api_url
from recovery.errors import BadInput
from recovery.journal.store import JournalUnavailable
from recovery.notices.channels import load_blocks
from recovery.notices.sending import wait_until_sent
from recovery.secrecy.log_redaction import install_log_redaction

PORT = 9095
CONNECTIONS_MAX = 200
logger = logging.getLogger("recovery.alerts")


@dataclass(frozen=True)
class Settings:
    """How it listens."""

    host: str = "127.0.0.1"
    port: int = PORT
    routes: Path | None = None
    authentication: Authentication = field(default_factory=Authentication)
    without_authentication: bool = False
    certificate: Path | None = None
    key: Path | None = None
    store: str = ""

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach it."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def url(self) -> str:
        """Where it is reached."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http{'s' if self.certificate else ''}://{host}:{self.port}"

    def refuse_unsafe(self) -> None:
        """Refuse to listen without authentication, or with half of what TLS needs.

        Raises:
            BadInput: it would; names the option.
        """
        wanted = "Give --bearer-file, --basic-file or --hmac-file"
        if not self.authentication.is_wanted and not self.is_local:
            raise BadInput("--host", f"everybody could post to {self.host}", wanted)
        if not self.authentication.is_wanted and not self.without_authentication:
            remedy = f"{wanted}; on this machine alone, --without-authentication says you mean it"
            raise BadInput("--bearer-file", "nobody would have to say who they are", remedy)
        if self.authentication.is_wanted and self.without_authentication:
            remedy = "Leave one of the two out"
            raise BadInput("--without-authentication", "files of secrets are given too", remedy)
        if (self.certificate is None) != (self.key is None):
            raise BadInput("--tls-certificate", "it goes with --tls-key", "Give both or neither")
        for option, file in (("--tls-certificate", self.certificate), ("--tls-key", self.key)):
            if file is not None and not file.is_file():
                raise BadInput(option, f"there is no file {file}", "Name a file in PEM")
        if not api_url():
            remedy = "Set it to the API of the Prefect server, as http://127.0.0.1:4200/api"
            raise BadInput("PREFECT_API_URL", "it is not set, so nothing could be started", remedy)
        self.authentication.refuse_unreadable()


def serve(settings: Settings, notifier: Notifier | None = None) -> None:
    """Listen until the process is told to end. What was accepted by then is kept.

    Raises:
        BadInput: a setting, a secret or the routes are wrong; nothing listens.
        JournalUnavailable: alerts cannot be kept.
    """
    _log_to_stderr()
    settings.refuse_unsafe()
    routes = read_routes(settings.routes)
    for remark in routes.remarks:
        logger.warning("%s: %s", routes.file, remark)
    if settings.certificate is None and not settings.is_local:
        logger.warning("secrets and alerts cross the network unencrypted: give --tls-certificate")
    notifier = notifier or PeopleNotifier()
    load_blocks()
    store = open_alerts(settings.store)
    dispatcher = Dispatcher(store, routes, PrefectRuns(), notifier)
    acceptance = Acceptance(store, routes, notifier, news=dispatcher.news.set)
    gate = Gate(settings.authentication, TurnedAway(notifier))
    app = make_app(acceptance, gate, lambda: standing(dispatcher))
    thread = threading.Thread(target=dispatcher.run, name="dispatcher", daemon=True)
    thread.start()
    logger.info(
        "%d routes of %s; alerts are kept in %s", len(routes.routes), routes.file, store.url
    )
    logger.info("listening on %s", settings.url)
    try:
        uvicorn.run(
            app,
            host=settings.host,
            port=settings.port,
            ssl_certfile=settings.certificate,
            ssl_keyfile=settings.key,
            limit_concurrency=CONNECTIONS_MAX,
            timeout_graceful_shutdown=10,
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,  # a stranger's word on who they are
            ws="none",
        )
    finally:
        dispatcher.end()
        thread.join(timeout=10)
        wait_until_sent(5.0)
        store.close()


def _log_to_stderr() -> None:
    """Write what we and the server below say, apart from what Prefect makes of logs."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    for name in ("recovery", "uvicorn"):
        ours = logging.getLogger(name)
        ours.handlers, ours.propagate = [handler], False
        ours.setLevel(logging.INFO)
    install_log_redaction()


def standing(dispatcher: Dispatcher) -> dict[str, Any]:
    """Say how the receiver stands."""
    try:
        counts, heard_at = dispatcher.store.counts(), dispatcher.store.last_beat(HEARD)
    except JournalUnavailable:
        return {"status": "cannot keep alerts", "store": "unavailable"}
    return {
        "status": "ok",
        "store": "ok",
        "alerts": counts,
        "dispatcher": dispatcher.last_error or dispatcher.other.stands or "ok",
        "watchdog_heard_seconds_ago": round(time.time() - heard_at) if heard_at else None,
    }

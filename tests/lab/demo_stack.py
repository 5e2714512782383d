"""What a demo runs on: a MariaDB, a Prefect server with UI and a worker, a source, a target."""

import contextlib
import getpass
import hashlib
import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pymysql

from blocks.mysql_server import MysqlServer
from recovery.errors import RecoveryError
from recovery.journal import Journal, open_journal
from tests.lab.cells import BESIDE, copied, quoted
from tests.lab.demo_wish import BadWish, DemoFailed, DemoRefused, Wish, say
from tests.lab.grafana_database import make_grafana_database, make_grafana_mysql_schema
from tests.lab.grafana_mysql_like import make_mysql_like
from tests.lab.mariadb import MariadbServer, private_mariadb
from tests.lab.prefect_server import (
    PREFECT,
    PrefectServer,
    ProcessWorker,
    private_prefect_server,
    process_worker,
)

PROJECT = Path(__file__).resolve().parents[2]
PREFECT_FILE = "deployments/prefect.yaml"
FLOW, DEPLOYMENT, POOL = "move-grafana-to-mysql", "recoveries", "recoveries"
DATABASE = "grafana"
DASHBOARDS, SIZE_MB = 300, 32
LEASE_SECONDS = 10  # enough for a machine that is busy, short enough to wait for
FRACTIONS = "truncated-fraction:*"
REFUSED = 5
COMMAND_WITHIN_SECONDS = 300


@dataclass
class Stage:
    """Everything that was started or prepared, by where it is."""

    wish: Wish
    home: Path
    source: Path
    accept: tuple[str, ...]
    target_url: str = ""
    plan: dict[str, Any] = field(default_factory=dict)
    mariadb: MariadbServer | None = None
    _server: PrefectServer | None = None
    _worker: ProcessWorker | None = None

    @property
    def server(self) -> PrefectServer:
        """The Prefect server."""
        if self._server is None:
            raise DemoFailed("the Prefect server was not started")
        return self._server

    @property
    def worker(self) -> ProcessWorker:
        """The worker."""
        if self._worker is None:
            raise DemoFailed("the worker was not started")
        return self._worker

    @property
    def journal_path(self) -> Path:
        """Where the worker and the command line keep the journal."""
        return self.home / "journal.sqlite"

    @property
    def parameters(self) -> dict[str, Any]:
        """What the recovery is started with, here and on the worker alike."""
        return {
            "source": str(self.source),
            "target": self.target_url,
            "accept": list(self.accept) or None,
        }

    @property
    def settings(self) -> dict[str, str]:
        """What a process that runs recoveries must know."""
        return {
            "RECOVER_JOURNAL": str(self.journal_path),
            "RECOVER_WORK_DIR": str(self.home / "work"),
            "RECOVER_LEASE_SECONDS": str(LEASE_SECONDS),
        }

    def recover(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the command `recover` as a person beside the worker would."""
        environment = MariadbServer.environment if self._worker is None else None
        variables = self.worker.environment() if environment is None else {}
        return subprocess.run(
            [str(Path(sys.executable).with_name("recover")), *arguments],
            env=variables,
            cwd=self.home,
            capture_output=True,
            text=True,
            timeout=COMMAND_WITHIN_SECONDS,
            check=False,
        )

    def journal(self) -> Journal:
        """Open the journal that the worker writes."""
        return open_journal(str(self.journal_path))

    def connect(self) -> pymysql.connections.Connection:
        """Open a connection to the target database that has nothing to do with the recovery's."""
        target = MysqlServer.from_url(self.target_url)
        secret = target.password()
        return pymysql.connect(
            host=None if target.unix_socket else target.host,
            port=target.port,
            unix_socket=str(target.unix_socket) if target.unix_socket else None,
            user=target.user,
            password=secret.reveal() if secret else "",
            database=target.database,
            charset="utf8mb4",
            autocommit=True,
            connect_timeout=10,
            max_allowed_packet=1 << 30,
            ssl={"ca": str(target.tls_ca_file)} if target.tls_ca_file else None,
        )

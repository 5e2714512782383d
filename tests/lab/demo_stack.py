"""What a demo runs on: a source, a target, and a Prefect server with UI and a worker."""

import getpass
import hashlib
import json
import os
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pymysql

from blocks.mysql.server import MysqlServer
from recovery.journal.opening import open_journal
from recovery.journal.store import Journal
from tests.lab.cells import BESIDE, copied, quoted
from tests.lab.demo_wish import BadWish, DemoFailed, DemoRefused, Wish, say
from tests.lab.grafana_database import make_grafana_database, make_grafana_mysql_schema
from tests.lab.grafana_mysql_like import make_mysql_like
from tests.lab.mariadb import MariadbServer, private_mariadb
from tests.lab.prefect_server import (
    PrefectServer,
    ProcessWorker,
    prefect_environment,
    private_prefect_server,
    process_worker,
)

PROJECT = Path(__file__).resolve().parents[2]
PREFECT_FILE = str(PROJECT / "deployments" / "prefect.yaml")
FLOW = DEPLOYMENT = "move-grafana-to-mysql"
POOL = "recoveries-destructive"
DATABASE = "grafana"
DASHBOARDS, SIZE_MB = 300, 32
LEASE_SECONDS = 10  # enough for a machine that is busy, short enough to wait for
FRACTIONS = "truncated-fraction:*"
REFUSED, BAD_INPUT = 5, 2
COMMAND_WITHIN_SECONDS = 600


@dataclass
class Stack:
    """Everything that was started or prepared for one demo, all of it below `home`."""

    wish: Wish
    home: Path
    source: Path
    accept: tuple[str, ...]
    fingerprint: str = ""
    target_url: str = ""
    plan: dict[str, Any] = field(default_factory=dict)
    deployment_id: str = ""
    mariadb: MariadbServer | None = None
    started: dict[str, Any] = field(default_factory=dict)

    @property
    def server(self) -> PrefectServer:
        """The Prefect server."""
        server: PrefectServer = self.started["server"]
        return server

    @property
    def worker(self) -> ProcessWorker:
        """The worker."""
        worker: ProcessWorker = self.started["worker"]
        return worker

    @property
    def parameters(self) -> dict[str, Any]:
        """What the recovery is started with, from the command line and on the worker alike."""
        return {
            "source": str(self.source),
            "target": self.target_url,
            "accept": list(self.accept) or None,
        }

    @property
    def settings(self) -> dict[str, str]:
        """Variables of every process that runs or looks at recoveries."""
        return {
            "RECOVER_JOURNAL": str(self.home / "journal.sqlite"),
            "RECOVER_WORK_DIR": str(self.home / "work"),
            "RECOVER_LEASE_SECONDS": str(LEASE_SECONDS),
        }

    def recover(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the command `recover` as a person on the worker's machine would."""
        environment = prefect_environment(self.home / "person", "", self.settings)
        del environment["PREFECT_API_URL"]
        return subprocess.run(
            [str(Path(sys.executable).with_name("recover")), *arguments],
            env=environment,
            cwd=self.home,
            capture_output=True,
            text=True,
            timeout=COMMAND_WITHIN_SECONDS,
            check=False,
        )

    def journal(self) -> Journal:
        """Open the journal that the worker writes."""
        return open_journal(self.settings["RECOVER_JOURNAL"])

    def connect(self) -> pymysql.connections.Connection:
        """Open a connection to the target that the recovery knows nothing of."""
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
            ssl_ca=str(target.tls_ca_file) if target.tls_ca_file else None,
        )

    def run_on_worker(self) -> str:
        """Start the recovery as a run of its deployment; return the id of the flow run."""
        options = {"approve": self.plan["hash"], "approved_by": user_name()}
        run = self.server.request(
            "POST",
            f"/deployments/{self.deployment_id}/create_flow_run",
            {"parameters": {**self.parameters, **options}},
        )
        return str(run["id"])

    def flow_run(self, flow_run_id: str) -> dict[str, Any]:
        """Return what Prefect says of a flow run."""
        found: dict[str, Any] = self.server.request("GET", f"/flow_runs/{flow_run_id}")
        return found


def user_name() -> str:
    """Return who runs this, also where no account has the id."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


def bring_up(stack: Stack, everything: ExitStack) -> None:
    """Start and prepare all of it, the two halves side by side; `everything` ends it.

    Raises:
        ServerMissing: MariaDB is not installed.
        BadWish, DemoRefused: SOURCE or TARGET are not to be moved like this.
        DemoFailed, LabError: something did not start.
    """
    data, orchestration = ExitStack(), ExitStack()
    everything.push(orchestration)
    everything.push(data)
    with ThreadPoolExecutor(2) as pool:
        halves = [
            pool.submit(prepare_data, stack, data),
            pool.submit(start_prefect, stack, orchestration),
        ]
    for half in halves:
        half.result()


def prepare_data(stack: Stack, ends: ExitStack) -> None:
    """Make or look at the source, make or take the target, and make the plan."""
    own = stack.wish.source
    if not stack.wish.target:
        (stack.home / "mariadb").mkdir()
        stack.mariadb = ends.enter_context(private_mariadb(stack.home / "mariadb"))
        stack.target_url = stack.mariadb.create_database(DATABASE)
        stack.accept = tuple(dict.fromkeys((*stack.accept, FRACTIONS)))
        say(f"MariaDB is up on port {stack.mariadb.port}")
    else:
        stack.target_url = stack.wish.target
    if own is None:
        made = make_grafana_database(
            stack.source, dashboards=DASHBOARDS, size_mb=SIZE_MB, in_wal=True
        )
        rows = sum(made.counts.values())
        say(
            f"source: Grafana 11 in {stack.source.name} with {rows} rows in {len(made.counts)} "
            f"tables, {len(made.awkward)} awkward cells, the last rows in its -wal only"
        )
    stack.fingerprint = fingerprint(stack.source)
    if stack.mariadb is not None:
        make_schema(stack, stack.mariadb)
    stack.plan = make_plan(stack)


def make_schema(stack: Stack, mariadb: MariadbServer) -> None:
    """Make the tables that a first start of Grafana would make."""
    connection = mariadb.connect(DATABASE)
    try:
        if stack.wish.source is None:
            make_grafana_mysql_schema(connection)
            say("target: the tables and rows that a first start of Grafana 11 leaves in MySQL")
        else:
            count = make_mysql_like(stack.source, connection)
            say(f"target: {count} tables of MySQL, derived from those of SOURCE for this rehearsal")
    except sqlite3.Error as error:
        raise BadWish(f"SOURCE: {stack.source} is no database of SQLite ({error})") from error
    finally:
        connection.close()


def make_plan(stack: Stack) -> dict[str, Any]:
    """Make the plan as a person would, by the command line.

    Raises:
        BadWish: the recovery says that the input is wrong.
        DemoRefused: it would refuse.
        DemoFailed: there is no plan.
    """
    file = stack.home / "parameters.json"  # every JSON is YAML
    file.write_text(json.dumps(stack.parameters))
    answer = stack.recover("plan", FLOW, "--params", str(file), "--json")
    told = json_of(answer.stdout)
    if answer.returncode == BAD_INPUT:
        raise BadWish(last_line(answer.stderr))
    if told.get("refusals"):
        for refusal in dict.fromkeys(told["refusals"]):
            say(f"refused: {refusal}")
        raise DemoRefused("nothing was changed; losses are accepted by name: ACCEPT='NAME NAME'")
    if answer.returncode != 0 or not told.get("hash"):
        raise DemoFailed(f"`recover plan` ended with {answer.returncode}: {answer.stderr.strip()}")
    return told


def start_prefect(stack: Stack, ends: ExitStack) -> None:
    """Start server and worker, and register the deployment."""
    server = ends.enter_context(private_prefect_server(stack.home / "prefect"))
    stack.started["server"] = server
    say(f"Prefect is up: {server.ui_url}")
    server.create_process_pool(POOL)
    # A worker keeps files in a folder of TMPDIR that belongs to the first account that ran one.
    scratch = stack.home / "tmp"
    scratch.mkdir()
    settings = {**stack.settings, "TMPDIR": str(scratch)}
    worker = process_worker(server, POOL, stack.home / "worker", settings=settings)
    with ThreadPoolExecutor(1) as pool:
        registering = pool.submit(register, stack)
        stack.started["worker"] = ends.enter_context(worker)
    registering.result()
    say(f"a worker is up; deployment {FLOW}/{DEPLOYMENT} is registered")


def register(stack: Stack) -> None:
    """Register all deployments as `deployments/README.md` says."""
    answer = subprocess.run(
        [sys.executable, "-m", "operate.stack.registration", PREFECT_FILE],
        env=stack.server.environment(),
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=COMMAND_WITHIN_SECONDS,
        check=False,
    )
    (stack.home / "deploy.log").write_text(answer.stdout + answer.stderr)
    if answer.returncode != 0:
        raise DemoFailed(f"registering ended with {answer.returncode}; see deploy.log")
    found = stack.server.request("GET", f"/deployments/name/{FLOW}/{DEPLOYMENT}")
    stack.deployment_id = found["id"]


def fingerprint(source: Path) -> str:
    """Hash the source as it lies there, with what belongs to it."""
    whole = hashlib.sha256()
    for suffix in ("", *BESIDE, "-shm"):
        part = source.with_name(source.name + suffix)
        whole.update(f"{suffix}:".encode())
        if part.exists():
            with part.open("rb") as file:
                whole.update(hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()


def largest_table(stack: Stack, tables: list[str]) -> tuple[str, int]:
    """Return which of these tables holds the most bytes, and its number of rows."""
    sizes = {}
    with copied(stack.source) as source:
        for table in tables:
            columns = source.execute(f"PRAGMA table_info({quoted(table)})").fetchall()
            lengths = " + ".join(
                f"COALESCE(LENGTH({quoted(column[1].decode())}), 0)" for column in columns
            )
            sizes[table] = source.execute(
                f"SELECT COALESCE(SUM({lengths}), 0), COUNT(*) FROM {quoted(table)}"  # noqa: S608
            ).fetchone()
    table = max(sizes, key=lambda name: sizes[name][0])
    return table, sizes[table][1]


def json_of(text: str) -> dict[str, Any]:
    """Read the answer of a command, or nothing where it is no JSON."""
    try:
        read = json.loads(text)
    except ValueError:
        return {}
    return read if isinstance(read, dict) else {}


def last_line(text: str) -> str:
    """Return the last line that says something."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "(nothing)")

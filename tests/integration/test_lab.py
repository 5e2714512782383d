"""The servers of the lab are real: they answer, keep what they were given, and leave nothing."""

# ruff: noqa: S608 - the names in the statements are our own

import contextlib
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import textwrap
import urllib.error
from pathlib import Path

import pymysql
import pytest

from tests.conftest import POOL, PROJECT
from tests.lab import ports
from tests.lab.grafana_awkward import LOSSY
from tests.lab.grafana_database import make_grafana_database, make_grafana_mysql_schema
from tests.lab.grafana_schema import grafana_11, tick, ticks
from tests.lab.mariadb import private_mariadb
from tests.lab.ports import accepts_connections, free_port
from tests.lab.postgres import private_postgres
from tests.lab.prefect_server import private_prefect_server, process_worker
from tests.lab.processes import (
    GuardedProcess,
    LabError,
    Place,
    ServerMissing,
    bare_environment,
    wait_until,
)
from tests.lab.session import started_or_skipped

pytestmark = pytest.mark.timeout(120)


def is_alive(pid):
    """Whether a process runs; a zombie does not."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def killed_parent(tmp_path, body):
    """Run a script that prints process ids and is killed -9 then; return the ids."""
    script = tmp_path / "parent.py"
    script.write_text(
        "import os, signal\nfrom pathlib import Path\n"
        f"HERE = Path({str(tmp_path)!r})\n{textwrap.dedent(body)}"
    )
    result = subprocess.run(
        [sys.executable, script],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        timeout=60,
        check=False,
    )
    assert result.returncode == -signal.SIGKILL, result.stderr
    return [int(pid) for pid in result.stdout.split()]


def test_free_ports_differ_and_nobody_listens_on_them():
    ports = {free_port() for _ in range(50)}

    assert len(ports) == 50
    assert not any(accepts_connections(port) for port in list(ports)[:5])


def test_a_port_that_another_process_was_given_is_given_to_nobody_else(monkeypatch):
    script = "from tests.lab.ports import free_port; print(free_port(), flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
    ) as other:
        theirs = int(other.stdout.readline())
        with socket.create_server((ports.LOOPBACK, 0)) as listener:
            ours = listener.getsockname()[1]
        monkeypatch.setattr(ports, "PORTS", (theirs, ours))

        assert free_port() == ours

        other.communicate("\n", timeout=30)
    monkeypatch.setattr(ports, "PORTS", (theirs,))
    assert free_port() == theirs


def test_waiting_in_vain_says_what_was_seen_and_shows_the_log(tmp_path):
    log = tmp_path / "log"
    log.write_text("the reason\n")

    with pytest.raises(LabError, match=r"(?s)a miracle.*'still water'.*the reason"):
        wait_until(lambda: {}["still water"], "a miracle", within_seconds=0.05, log=log)


def test_a_server_that_ends_at_once_is_not_waited_for(tmp_path):
    place = Place(tmp_path / "log", tmp_path)
    process = GuardedProcess(["sh", "-c", "echo no; exit 3"], bare_environment(), place)

    with pytest.raises(LabError, match="the process has ended"):
        wait_until(
            lambda: False, "it", within_seconds=30, still_worth_it=lambda: process.is_running
        )
    assert process.wait(5) == 3
    assert place.log.read_text() == "no\n"
    process.close()


def test_nothing_outlives_a_killed_parent_not_even_grandchildren_in_sessions_of_their_own(tmp_path):
    pids = killed_parent(
        tmp_path,
        """
        from tests.lab.processes import GuardedProcess, Place, bare_environment, wait_until
        scratch = HERE / "scratch"
        scratch.mkdir()
        process = GuardedProcess(
            ["sh", "-c", "setsid sleep 600 & echo $! > grandchild; sleep 600"],
            bare_environment(), Place(HERE / "log", scratch, scratch=scratch),
        )
        grandchild = scratch / "grandchild"
        wait_until(lambda: grandchild.read_text().strip(), "grandchild", within_seconds=10)
        print(process.pid, grandchild.read_text(), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
        """,
    )

    assert len(pids) == 2
    wait_until(lambda: not any(map(is_alive, pids)), "both to be gone", within_seconds=10)
    wait_until(lambda: not (tmp_path / "scratch").exists(), "no scratch", within_seconds=10)


@pytest.mark.parametrize("server", ["mariadb", "postgres"])
def test_a_database_server_dies_with_its_parent(server, tmp_path, request):
    request.getfixturevalue(server)  # skips where it is not installed

    pids = killed_parent(
        tmp_path,
        f"""
        from tests.lab.{server} import private_{server}
        with private_{server}(HERE / "server") as server:
            print(server.pid, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        """,
    )

    wait_until(lambda: not any(map(is_alive, pids)), "the server to be gone", within_seconds=10)


@pytest.mark.parametrize("private", [private_mariadb, private_postgres])
def test_a_database_server_keeps_what_it_has_through_restart_and_kill(private, tmp_path):
    with started_or_skipped(private(tmp_path)) as server:
        server.execute("CREATE DATABASE kept")
        server.execute("CREATE TABLE t (a INT)", database="kept")
        server.execute("INSERT INTO t VALUES (7)", database="kept")
        first = server.pid
        server.restart()
        server.kill()
        assert not server.is_running
        assert not accepts_connections(server.port)
        server.start()

        assert server.execute("SELECT a FROM t", database="kept")[0][0] == 7
        assert server.pid != first
        assert server.password_file.stat().st_mode & 0o777 == 0o600
        assert server.password_file.read_text() == server.password
    assert not accepts_connections(server.port)


def test_mariadb_wants_the_password_and_takes_options(tmp_path):
    options = {"sql_mode": "ANSI", "max_allowed_packet": "1M"}
    with started_or_skipped(private_mariadb(tmp_path, options=options)) as server:
        seen = server.execute("SELECT @@max_allowed_packet, @@sql_mode LIKE '%ANSI%'")

        assert seen == ((1 << 20, 1),)
        for user in (server.user, "root", ""):
            with pytest.raises(pymysql.err.OperationalError):
                pymysql.connect(host=server.host, port=server.port, user=user, password="")


def test_a_missing_server_skips_on_a_laptop_and_fails_in_ci(monkeypatch):
    @contextlib.contextmanager
    def absent():
        raise ServerMissing("mariadbd is not installed")
        yield

    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="mariadbd"), started_or_skipped(absent()):
        pass
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="mariadbd"), started_or_skipped(absent()):
        pass


def test_no_prefect_setting_of_this_machine_reaches_the_tests():
    from prefect.settings import PREFECT_API_URL, PREFECT_HOME  # noqa: PLC0415 - after conftest

    assert PREFECT_API_URL.value() is None
    assert PREFECT_HOME.value() == Path(os.environ["PREFECT_HOME"])
    assert not (PREFECT_HOME.value() / "profiles.toml").exists()


def test_grafana_mysql_has_every_table_and_the_rows_of_a_first_start(mariadb, mariadb_url):
    name = name_in(mariadb_url)
    with contextlib.closing(mariadb.connect(name)) as connection:
        make_grafana_mysql_schema(connection)

    tables = {table for (table,) in mariadb.execute("SHOW TABLES", database=name)}
    logged = mariadb.execute("SELECT migration_id FROM migration_log ORDER BY id", database=name)
    assert tables == set(grafana_11().tables)
    assert [m for (m,) in logged] == grafana_11().migrations["migration_log"]
    assert mariadb.execute("SELECT login FROM `user`", database=name) == (("admin",),)
    assert mariadb.execute("SELECT count(*) FROM dashboard_acl", database=name) == ((2,),)


FLOW = """
import os, time
from pathlib import Path
from prefect import flow

@flow
def write(out: str, seconds: float = 0):
    Path(out).write_text(str(os.getpid()))
    time.sleep(seconds)
    Path(out + ".done").touch()
"""


def deploy(server, directory):
    """Deploy the flow above to the lab's pool; return the id of the deployment."""
    (directory / "written.py").write_text(FLOW)
    flow = server.request("POST", "/flows/", {"name": "write"})
    deployment = {
        "name": "lab",
        "flow_id": flow["id"],
        "work_pool_name": POOL,
        "entrypoint": "written.py:write",
        "pull_steps": [
            {"prefect.deployments.steps.set_working_directory": {"directory": str(directory)}}
        ],
    }
    return server.request("POST", "/deployments/", deployment)["id"]


def test_a_worker_runs_flows_and_what_it_leaves_behind_when_killed_ends_with_the_lab(
    prefect_server, tmp_path
):
    with process_worker(prefect_server, POOL, tmp_path / "worker") as worker:
        deployment = deploy(prefect_server, tmp_path)
        path = f"/deployments/{deployment}/create_flow_run"
        prefect_server.request("POST", path, {"parameters": {"out": str(tmp_path / "one")}})
        wait_until(
            (tmp_path / "one.done").exists, "the run to end", within_seconds=40, log=worker.log
        )
        slow = {"out": str(tmp_path / "two"), "seconds": 600}
        prefect_server.request("POST", path, {"parameters": slow})
        pid = int(
            wait_until(
                (tmp_path / "two").read_text,
                "the run to start",
                within_seconds=40,
                log=worker.log,
            )
        )
        assert pid != worker.pid
        worker.kill()

        assert not worker.is_running
        assert is_alive(pid)
        worker.start()
    wait_until(lambda: not is_alive(pid), "what it left behind to end", within_seconds=60)


def test_a_prefect_server_keeps_its_runs_through_restart_and_kill(tmp_path):
    with private_prefect_server(tmp_path) as server:
        server.create_process_pool("kept")
        server.create_process_pool("kept")
        server.restart()
        server.kill()
        with pytest.raises(urllib.error.URLError):
            server.request("GET", "/health")
        server.start()

        pools = server.request("POST", "/work_pools/filter", {})
        command = pools[0]["base_job_template"]["variables"]["properties"]["command"]["default"]
        assert [pool["name"] for pool in pools] == ["kept"]
        assert command.endswith("-m prefect.engine")
        assert server.environment()["PREFECT_API_URL"] == server.api_url
        server.stop()
        assert not accepts_connections(server.port)


NOT_CELLS = {  # a plain copy of the tables that both have goes through, and something is missing
    "sqlite-only-column", "sqlite-only-table", "newer-schema", "failed-migration", "unified-storage"
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(set(LOSSY) - NOT_CELLS))
def test_mysql_cannot_hold_a_lossy_cell(name, mariadb, mariadb_url, tmp_path):
    made = make_grafana_database(tmp_path / "g.db", dashboards=2, awkward=False, lossy={name})
    planted = made.lossy[name]
    table = grafana_11().tables[planted.table]
    with contextlib.closing(mariadb.connect(name_in(mariadb_url))) as connection:
        with connection.cursor() as cursor:
            cursor.execute(table.mysql_statement())
        try:
            copy_plainly(made.path, table, connection)
        except (pymysql.err.MySQLError, UnicodeError):
            return
        where, values = f"{tick(next(iter(planted.key)))} = %s", tuple(planted.key.values())
        with connection.cursor() as cursor:
            cursor.execute(
                f"SELECT {tick(planted.column)} FROM {tick(table.name)} WHERE {where}", values
            )
            held = cursor.fetchall()

    assert held != ((planted.stored,),)


def name_in(url):
    """Return the database that a URL names."""
    return url.split("?")[0].rpartition("/")[2]


def copy_plainly(path, table, connection):
    """Copy one table cell by cell, in the strict mode of MySQL."""
    statement = "INSERT INTO {} ({}) VALUES ({})".format(
        tick(table.name), ticks(table.sqlite), ", ".join(["%s"] * len(table.sqlite))
    )
    with contextlib.closing(sqlite3.connect(path)) as source, connection.cursor() as cursor:
        source.text_factory = lambda raw: raw.decode(errors="surrogateescape")
        cursor.execute("SET sql_mode = 'STRICT_ALL_TABLES,NO_AUTO_VALUE_ON_ZERO'")
        for row in source.execute(f"SELECT {ticks(table.sqlite)} FROM {tick(table.name)}"):
            cursor.execute(statement, row)

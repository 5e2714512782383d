"""Moving a 100 MB Grafana, beside sqlite3-to-mysql, which verifies nothing; and what either alters.

Both run as whole processes, in turn, into a database that is made anew each time. Ours looks at
every cell before, dumps the target and proves the dump, journals each step, and compares every cell
afterwards; the peer only inserts, into the same tables.
"""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.lab.cells import compare
from tests.lab.grafana_database import make_grafana_database, make_grafana_mysql_schema
from tests.lab.grafana_schema import grafana_11
from tests.lab.mariadb import MariadbServer, private_mariadb

ROUNDS = 5
DASHBOARDS = 5000
SIZE_MB = 100
LEFT_ALONE = frozenset(
    [
        "migration_log",
        "server_lock",
        "session",
        "user_auth_token",
        "login_attempt",
        "cache_data",
        "entity_event",
        "test_data",
    ]
)
PEER = Path(os.environ.get("PEERS_PYTHON", sys.executable)).with_name("sqlite3mysql")


def ours(server: MariadbServer, source: Path, database: str, state: Path) -> list[str]:
    """The command that moves it with everything this project does about it."""
    del server, state
    return [
        str(Path(sys.executable).with_name("recover")), "run", "move-grafana-to-mysql", "--json",
        "--set", f"source={source}", "--set", f"target={database}",
        "--set", 'accept=["truncated-fraction:*"]', "--break-glass", "benchmark",
        "--by", "benchmark",
    ]  # fmt: skip


def peers(server: MariadbServer, source: Path, database: str) -> list[str]:
    """The command that moves it with the peer, into tables that are there, data only."""
    return [
        str(PEER), "--sqlite-file", str(source), "--mysql-database", database,
        "--mysql-user", server.user, "--mysql-password", server.password,
        "--mysql-host", server.host, "--mysql-port", str(server.port),
        "--mysql-skip-create-tables", "--mysql-truncate-tables", "--exclude-sqlite-tables",
        " ".join(sorted(LEFT_ALONE)), "--quiet",
    ]  # fmt: skip


def timed(command: list[str], environment: dict[str, str]) -> tuple[float, int]:
    """Run it; seconds and exit code."""
    started = time.monotonic()
    done = subprocess.run(command, env=environment, capture_output=True, check=False)
    return time.monotonic() - started, done.returncode


def fresh(server: MariadbServer, name: str) -> str:
    """An empty target with the schema of a started Grafana; its URL."""
    server.execute(f"DROP DATABASE IF EXISTS `{name}`")
    url = server.create_database(name)
    with server.connect(name) as connection:
        make_grafana_mysql_schema(connection)
    return url


def environment_of(state: Path) -> dict[str, str]:
    """Ours without a server, with a journal of its own."""
    shutil.rmtree(state, ignore_errors=True)
    state.mkdir()
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "RECOVER_"))}
    return {
        **kept,
        "RECOVER_JOURNAL": str(state / "journal.sqlite"),
        "RECOVER_WORK_DIR": str(state),
    }


def altered(server: MariadbServer, source: Path, database: str) -> tuple[int, int, str]:
    """Cells compared and differing by the independent comparison, and where."""
    tables = [name for name in grafana_11().tables if name not in LEFT_ALONE]
    with server.connect(database) as connection:
        found = compare(source, connection, tables, tolerate=["truncated-fraction:*"])
    where = sorted({f"{d.table}.{d.column}" for d in found.differences})
    return found.cells, len(found.differences), ", ".join(where[:8])


def main() -> None:
    """Measure, and print what came of it."""
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as scratch,
        private_mariadb(Path(scratch) / "server", options={"max_allowed_packet": "256M"}) as server,
    ):
        folder = Path(scratch)
        large, awkward = folder / "large.db", folder / "awkward.db"
        make_grafana_database(
            large, dashboards=DASHBOARDS, versions_each=0, awkward=False, size_mb=SIZE_MB
        )
        make_grafana_database(awkward)
        print(f"source: {large.stat().st_size / 1e6:.0f} MB, {DASHBOARDS} dashboards")
        mine, theirs = [], []
        for _ in range(ROUNDS):
            url = fresh(server, "ours")
            seconds, code = timed(
                ours(server, large, url, folder), environment_of(folder / "state")
            )
            if code != 0:
                raise SystemExit(f"ours ended with {code}")
            mine.append(seconds)
            fresh(server, "theirs")
            seconds, code = timed(peers(server, large, "theirs"), dict(os.environ))
            theirs.append(seconds)
            print(f"  ours {mine[-1]:.2f} s, sqlite3-to-mysql {seconds:.2f} s (exit code {code})")
        ratio = statistics.median(a / b for a, b in zip(mine, theirs, strict=True))
        print(
            f"median: ours {statistics.median(mine):.2f} s, sqlite3-to-mysql "
            f"{statistics.median(theirs):.2f} s; ratio by pairs {ratio:.2f} (worst "
            f"{max(a / b for a, b in zip(mine, theirs, strict=True)):.2f})"
        )
        url = fresh(server, "ours")
        _, code = timed(ours(server, awkward, url, folder), environment_of(folder / "state"))
        cells, wrong, where = altered(server, awkward, "ours")
        print(f"awkward source, ours: exit code {code}, {wrong} of {cells} cells differ {where}")
        fresh(server, "theirs")
        _, code = timed(peers(server, awkward, "theirs"), dict(os.environ))
        cells, wrong, where = altered(server, awkward, "theirs")
        print(
            f"awkward source, sqlite3-to-mysql: exit code {code}, "
            f"{wrong} of {cells} cells differ: {where}"
        )


if __name__ == "__main__":
    main()

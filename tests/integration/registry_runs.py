"""Recoveries of a registry's database on a real host, and how it is brought into trouble."""

import threading
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

import flows.registry_database
from blocks.postgres.server import PostgresServer
from recovery.declare import RECOVERIES, run_plainly
from recovery.errors import Refused
from recovery.journal.opening import open_journal
from recovery.run import Options
from tasks.registry_database import (
    forcing,
    proof,
    restarting,
    starting,
    waiting,
)
from tests.lab.hosts import lab_hosts
from tests.lab.processes import wait_until
from tests.lab.registry_host import CONFIG, UNIT, RegistryHost
from tests.lab.session import started_or_skipped

RECOVER = RECOVERIES["recover-registry-database"]
FORCE = RECOVERIES["force-registry-database-shutdown"]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("registry")
    with started_or_skipped(lab_hosts(folder, 1, names=("db1",))) as lab:
        registry = RegistryHost(lab.hosts[0], folder)
        registry.prepare()
        yield registry


@pytest.fixture
def stopped(prepared):
    """The server as new, and not running."""
    prepared.reset()
    return prepared


@pytest.fixture
def running(stopped):
    stopped.start()
    return stopped


SILENT_FOR = "7s"  # longer than a server is waited for here


def be_impatient(monkeypatch):
    """Wait for a server that says nothing for some seconds only, on its host and from outside."""
    from_url = PostgresServer.from_url

    def opened(url):
        return from_url(url).model_copy(update={"connect_within_seconds": 5})

    monkeypatch.setattr(PostgresServer, "from_url", staticmethod(opened))
    monkeypatch.setattr("tasks.postgres_server.inside.CONNECT_WITHIN_SECONDS", 2)


@pytest.fixture(autouse=True)
def _quick(tmp_path, monkeypatch):
    monkeypatch.setenv("RECOVER_JOURNAL", str(tmp_path / "journal.sqlite"))
    monkeypatch.setenv("RECOVER_LEASE_SECONDS", "8")
    be_impatient(monkeypatch)
    for module in (starting, waiting, restarting, proof, forcing):
        monkeypatch.setattr(module, "PAUSE_SECONDS", 0.1, raising=False)


def recover(registry, options=None, **parameters):
    defaults = {name: default for name, (_, default) in RECOVER.parameters.items()}
    given = {"database": registry.url(), "host": registry.ssh_url(), **parameters}
    return run_plainly(RECOVER, {**defaults, **given}, Options(**(options or {})))


def resume(registry, ended, **parameters):
    return recover(registry, {"resume": ended.recovery_id}, **parameters)


def refused(registry, cause, **parameters):
    """Recover, and return the reason why that was refused."""
    ended = recover(registry, **parameters)
    assert isinstance(ended.error, Refused), ended
    text = str(ended.error)
    assert f": {cause}: " in text, text
    return text


@contextmanager
def in_background(registry, options=None, **parameters):
    """Recover beside the test; what it ended with is in `.ended` when the block has ended."""
    told = SimpleNamespace(ended=None)

    def work():
        told.ended = recover(registry, options, **parameters)

    thread = threading.Thread(target=work)
    thread.start()
    yield told
    thread.join(120)


def starting_order(registry):
    return flows.registry_database.database_order(registry.url(), registry.ssh_url())


def has_decided():
    journal = open_journal()
    return [
        event
        for recovery_id in journal.recovery_ids()
        for event in journal.events(recovery_id)
        if event.kind == "decided"
    ]


def cluster_of(registry):
    order = starting_order(registry)
    return flows.registry_database.triage.cluster_on_port(order.host, 5432)


@contextmanager
def recovering_from_a_crash(registry):
    """Be in the middle of a crash recovery, for as long as the block lasts."""
    with registry.connect() as connection:
        connection.execute("CREATE TABLE big AS SELECT n, repeat('x', 500) FROM "
                           "generate_series(1, 200000) AS n")  # fmt: skip
    registry.kill()
    registry.stop_redo(f"systemctl start --no-block {UNIT}")
    assert registry.run("ps -o stat= -C postgres").count("T") == 1
    yield
    registry.run("kill -CONT $(pgrep -f 'postgres: 15/main: [s]tartup') 2>/dev/null || true")


@contextmanager
def shutting_down(registry):
    """Be in the middle of a fast shutdown that waits for a session that is stopped."""
    with registry.transaction() as connection:
        backend = connection.info.backend_pid
        registry.run(f"kill -STOP {backend}; systemctl stop --no-block {UNIT}")
        wait_until(
            lambda: "received fast shutdown" in registry.log(), "the shutdown", within_seconds=20
        )
        yield backend


@contextmanager
def hung(registry):
    """Let nobody in any more, though the configuration is right again."""
    registry.configure(pre_auth_delay=SILENT_FOR)
    registry.psql("SELECT pg_reload_conf()")
    registry.run(f"sed -i '/pre_auth_delay/d' {CONFIG}/postgresql.conf")
    yield

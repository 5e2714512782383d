"""Real servers for the tests, started when first asked for, one of each per test process."""

import os
import signal
from pathlib import Path

import pytest

from tests.lab.session import forget, isolate_prefect, started_or_skipped

PREFECT_HOME = isolate_prefect()  # before anything imports Prefect

# ruff: noqa: E402
from tests.lab.mariadb import private_mariadb
from tests.lab.postgres import private_postgres
from tests.lab.prefect_server import private_prefect_server, process_worker

PROJECT = Path(__file__).resolve().parent.parent
POOL = "lab"


def pytest_configure():
    # A run in the background of a script has SIGINT ignored, and so would all it starts.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_unconfigure():
    forget(PREFECT_HOME)


@pytest.fixture(scope="session")
def mariadb(tmp_path_factory):
    """A MariaDB server, shared: use a database of your own, and leave it running."""
    with started_or_skipped(private_mariadb(tmp_path_factory.mktemp("mariadb"))) as server:
        yield server


@pytest.fixture
def mariadb_url(mariadb, request):
    """The URL of an empty database of this test's own."""
    name = f"t{abs(hash(request.node.nodeid)):x}"
    yield mariadb.create_database(name)
    mariadb.execute(f"DROP DATABASE IF EXISTS `{name}`")


@pytest.fixture(scope="session")
def postgres(tmp_path_factory):
    """A PostgreSQL server, shared: use a database of your own, and leave it running."""
    with started_or_skipped(private_postgres(tmp_path_factory.mktemp("postgres"))) as server:
        yield server


@pytest.fixture
def postgres_dsn(postgres, request):
    """The address of an empty database of this test's own."""
    name = f"t{abs(hash(request.node.nodeid)):x}"
    yield postgres.create_database(name)
    postgres.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory):
    """A Prefect server with UI, shared: leave it running."""
    with private_prefect_server(tmp_path_factory.mktemp("prefect")) as server:
        yield server


@pytest.fixture(scope="session")
def prefect_worker(prefect_server, tmp_path_factory):
    """A process worker of the pool `lab`, shared: leave it running."""
    with process_worker(prefect_server, POOL, tmp_path_factory.mktemp("worker")) as worker:
        yield worker


@pytest.fixture(scope="session")
def recover_test_data():
    """The folder of real input, which is read where it lies."""
    given = os.environ.get("RECOVER_TEST_DATA")
    folder = Path(given) if given else PROJECT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"RECOVER_TEST_DATA: there is no {folder}")
    return folder

"""Real servers for the tests, started when first asked for, one of each per test process."""

import contextlib
import functools
import itertools
import multiprocessing
import os
import signal
from pathlib import Path

import pytest

from tests.lab.session import forget, isolate_prefect, started_or_skipped

PREFECT_HOME = isolate_prefect()  # before anything imports Prefect

# ruff: noqa: E402
from recovery.secrecy.redaction import known
from tests.lab.hosts import BACKENDS, DOCKER, capabilities_of, lab_hosts
from tests.lab.influxdb import private_influxdb
from tests.lab.kubernetes_api import REAL, STAND_IN, kubernetes_api, used_here
from tests.lab.kubernetes_kubelet import pods_api
from tests.lab.kubernetes_roles import ARE_RECORDED, HEARD
from tests.lab.mariadb import private_mariadb
from tests.lab.postgres import private_postgres
from tests.lab.prefect_server import private_prefect_server, process_worker

PROJECT = Path(__file__).resolve().parent.parent
POOL = "lab"


def pytest_configure():
    # Processes are forked from one server, whoever starts it: what that has not imported by then,
    # each of them imports anew.
    multiprocessing.set_forkserver_preload(["tests.lab.counted_recovery"])
    # A run in the background of a script has SIGINT ignored, and so would all it starts.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_report_header():
    return used_here()


def pytest_unconfigure():
    if ARE_RECORDED:
        HEARD.write()
    forget(PREFECT_HOME)


@pytest.fixture(autouse=True)
def _forgets_new_secrets():
    """What one test calls a secret is an ordinary word to the next in the same process."""
    before = known.values
    yield
    known.set(before)


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
def influxdb(tmp_path_factory):
    """An InfluxDB 1.x, shared: use a database of your own, and leave it running."""
    with started_or_skipped(private_influxdb(tmp_path_factory.mktemp("influxdb"))) as server:
        yield server


@pytest.fixture(scope="session")
def kubernetes(tmp_path_factory):
    """A Kubernetes API, real where it is installed: take a namespace and images of your own."""
    with kubernetes_api(tmp_path_factory.mktemp("kubernetes")) as api:
        yield api


@pytest.fixture(scope="module", params=[REAL, STAND_IN])
def either_kubernetes(request, tmp_path_factory):
    """Each of the two Kubernetes APIs in turn: for what is to hold of either."""
    usual = request.getfixturevalue("kubernetes")
    if usual.kind == request.param:
        yield usual
        return
    if ARE_RECORDED:
        pytest.skip("rights are recorded on the stand-in")
    api = kubernetes_api(tmp_path_factory.mktemp("kubernetes"), request.param)
    with started_or_skipped(api, is_optional=True) as other:
        yield other


@pytest.fixture(scope="module")
def pods_kubernetes(tmp_path_factory):
    """A Kubernetes API whose node really runs pods: take a namespace of your own."""
    api = pods_api(tmp_path_factory.mktemp("pods"))
    with started_or_skipped(api, is_optional=True) as pods:
        yield pods
        if ARE_RECORDED:
            HEARD.note_audit(pods.server.audit_log)


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


@pytest.fixture
def lab_network(tmp_path):
    """A factory of real hosts: `lab_network(3)` returns a lab of this test's own, closed after it.

    The options are those of `lab_hosts`. The first use on a machine builds the root file system
    (half a minute): give the test a timeout of 240 s.
    """
    with contextlib.ExitStack() as stack:
        numbers = itertools.count(1)

        def make(count=1, **options):
            folder = tmp_path / f"lab{next(numbers)}"
            return stack.enter_context(started_or_skipped(lab_hosts(folder, count, **options)))

        yield make


@pytest.fixture(scope="module", params=BACKENDS, ids=lambda backend: backend.name)
def host_backend(request):
    """What hosts are made by, each in turn: for what is to hold of the hosts of either."""
    reason = capabilities_of(request.param).ssh
    if reason and request.param is DOCKER:
        pytest.skip(f"hosts in containers: {reason}")
    return request.param


@pytest.fixture(scope="module")
def host_trio(tmp_path_factory, host_backend):
    """Three hosts, shared: leave each of them up, and the network between them whole."""
    directory = tmp_path_factory.mktemp("trio")
    with started_or_skipped(lab_hosts(directory, 3, backend=host_backend)) as lab:
        yield lab


@pytest.fixture
def host_network(lab_network, host_backend):
    """As `lab_network`, with each backend in turn."""
    return functools.partial(lab_network, backend=host_backend)

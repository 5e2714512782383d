"""A registry's database with a real standby, and indexes on hosts with real, small disks."""

from types import SimpleNamespace

import pytest

import flows.registry_database
import flows.registry_indexes  # noqa: F401 (declares the recovery)
from recovery.declare import RECOVERIES, run_plainly
from recovery.errors import CommandFailed, NotVerified, Refused
from recovery.journal.history import RecoveryState
from recovery.run import Options
from tasks.registry_database import proof, restarting, starting
from tasks.registry_database.causes import Cause, Finding
from tasks.registry_indexes import preflight
from tests.lab.hosts import lab_hosts
from tests.lab.processes import wait_until
from tests.lab.registry_host import CONFIG, UNIT, RegistryHost
from tests.lab.registry_table import CREATE, FILL, NAMES
from tests.lab.session import started_or_skipped

pytestmark = pytest.mark.timeout(300)  # the first use of the lab builds its root file system
RECOVER = RECOVERIES["recover-registry-database"]
REPAIR = RECOVERIES["repair-registry-indexes"]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("registry")
    with started_or_skipped(lab_hosts(folder, 2, names=("db1", "db2"))) as lab:
        pair = [RegistryHost(host, folder) for host in lab.hosts]
        for registry in pair:
            registry.password, registry.password_file = pair[0].password, pair[0].password_file
            registry.prepare()
        yield pair


@pytest.fixture
def pair(prepared):
    """A primary and a standby that streams from it."""
    for registry in prepared:
        registry.reset()
    primary, standby = prepared
    primary.start()
    standby.follow(primary)
    return prepared


@pytest.fixture
def alone(prepared):
    prepared[0].reset()
    prepared[0].start()
    return prepared[0]


@pytest.fixture(autouse=True)
def _quick(tmp_path, monkeypatch):
    monkeypatch.setenv("RECOVER_JOURNAL", str(tmp_path / "journal.sqlite"))
    monkeypatch.setenv("RECOVER_LEASE_SECONDS", "8")
    for module in (starting, restarting, proof):
        monkeypatch.setattr(module, "PAUSE_SECONDS", 0.1)


def run(declared, registry, options=None, **parameters):
    defaults = {name: default for name, (_, default) in declared.parameters.items()}
    given = {"database": registry.url(), "host": registry.ssh_url(), **parameters}
    return run_plainly(declared, {**defaults, **given}, Options(**(options or {})))


def make_deaf(registry):
    """Let it listen on loopback only, though it is configured otherwise by now."""
    registry.run(f"sed -i \"s/^listen_addresses.*/listen_addresses = 'localhost'/\" "
                 f"{CONFIG}/postgresql.conf; systemctl restart {UNIT}")  # fmt: skip
    registry.configure(listen_addresses="*")


def test_a_standby_in_recovery_is_as_it_should_be_and_no_primary(pair):
    primary, standby = pair
    server = standby.postmaster()

    meant = run(RECOVER, standby, standby=True)

    assert meant.state is RecoveryState.RECOVERED, meant.error
    assert "as it is meant to be" in meant.result.seen
    mistaken = run(RECOVER, standby)
    assert isinstance(mistaken.error, Refused)
    assert ": not-a-primary: this server is a standby and takes no writes; its primary is " in str(
        mistaken.error
    )
    assert primary.address in str(mistaken.error)
    assert standby.postmaster() == server


def test_a_stopped_standby_is_started_and_follows_again(pair):
    primary, standby = pair
    standby.run(f"systemctl stop {UNIT}")

    ended = run(RECOVER, standby, standby=True)

    assert ended.state is RecoveryState.RECOVERED, ended.error
    wait_until(
        lambda: primary.psql("SELECT state FROM pg_stat_replication") == "streaming",
        "it to stream again",
        within_seconds=30,
    )


def test_a_standby_that_was_attached_streams_again_after_a_restart(pair):
    primary, _ = pair
    make_deaf(primary)
    primary.run("iptables -V >/dev/null 2>&1 || true")
    order = flows.registry_database.database_order(primary.url(), primary.ssh_url())
    found = SimpleNamespace(
        cluster=flows.registry_database.triage.cluster_on_port(order.host, 5432), patroni=None
    )
    run(RECOVER, primary)
    wait_until(
        lambda: primary.psql("SELECT state FROM pg_stat_replication") == "streaming",
        "the standby to come back",
        within_seconds=30,
    )

    before = restarting.standing.fn(order, found)

    assert before.standbys == [f"db2 {pair[1].address}"]
    assert proof.standbys_are_back.fn(order, found, before) == before.standbys


def test_a_standby_that_does_not_come_back_is_told(pair, monkeypatch):
    monkeypatch.setattr(proof, "STREAMING_WITHIN_SECONDS", 2.0)
    primary, standby = pair
    order = flows.registry_database.database_order(primary.url(), primary.ssh_url())
    found = SimpleNamespace(
        cluster=flows.registry_database.triage.cluster_on_port(order.host, 5432), patroni=None
    )
    before = restarting.standing.fn(order, found)
    standby.run(f"systemctl stop {UNIT}")

    with pytest.raises(NotVerified, match=f"without db2 {standby.address}"):
        proof.standbys_are_back.fn(order, found, before)


def test_writes_that_stopped_being_taken_are_not_verified(alone):
    alone.psql("ALTER DATABASE registry SET default_transaction_read_only = on")
    order = flows.registry_database.database_order(alone.url(), alone.ssh_url())

    with pytest.raises(NotVerified, match="read-only"):
        proof.takes_reads_and_writes.fn(order, Finding(Cause.STOPPED, ""))


# -- indexes -------------------------------------------------------------------------------------


def fill(registry, rows=20_000):
    with registry.connect() as connection:
        connection.execute(CREATE)
        connection.execute(FILL.format(rows=rows))


def indexes(registry):
    """Name and validity of each index but the primary key's."""
    with registry.connect() as connection:
        return dict(
            connection.execute(
                "SELECT c.relname, i.indisvalid FROM pg_index i "
                "JOIN pg_class c ON c.oid = i.indexrelid WHERE NOT i.indisprimary "
                "AND i.indrelid = 'public.\"V_VaccinationCertificate\"'::regclass"
            ).fetchall()
        )


def test_indexes_are_refused_on_a_standby_and_built_on_its_primary(pair):
    primary, standby = pair
    fill(primary)

    wait_until(lambda: indexes(standby) == {}, "the table to arrive", within_seconds=30)
    mistaken = run(REPAIR, standby)
    assert isinstance(mistaken.error, Refused)
    assert "this server is a standby" in str(mistaken.error)

    built = run(REPAIR, primary)

    assert built.state is RecoveryState.RECOVERED, built.error
    whole = dict.fromkeys(NAMES.values(), True)
    wait_until(lambda: indexes(standby) == whole, "them to follow", within_seconds=30)


def tiny_disk(registry, megabytes):
    """Let new indexes of the registry go to a disk of this size."""
    registry.run(
        f"mkdir -p /mnt/tiny && mount -t tmpfs -o size={megabytes}m tmpfs /mnt/tiny && "
        "chown postgres: /mnt/tiny && chmod 700 /mnt/tiny"
    )
    registry.psql("CREATE TABLESPACE tiny LOCATION '/mnt/tiny'")
    registry.psql("GRANT CREATE ON TABLESPACE tiny TO registry")
    registry.psql("ALTER DATABASE registry SET default_tablespace = tiny")


def test_a_disk_without_room_is_refused_and_what_it_breaks_is_cleaned_up(alone):
    fill(alone, rows=100_000)
    tiny_disk(alone, megabytes=3)

    ended = run(REPAIR, alone)

    assert isinstance(ended.error, Refused)
    assert "are free under /mnt/tiny" in str(ended.error)
    assert indexes(alone) == {}

    accepted = run(REPAIR, alone, accept=["little-disk"])

    assert isinstance(accepted.error, CommandFailed)
    assert "No space left on device" in str(accepted.error)
    assert indexes(alone) == {}

    alone.psql("ALTER DATABASE registry RESET default_tablespace")
    resumed = run(REPAIR, alone, {"resume": accepted.recovery_id}, accept=["little-disk"])
    assert resumed.state is RecoveryState.RECOVERED, resumed.error
    assert indexes(alone) == dict.fromkeys(NAMES.values(), True)


def test_the_room_is_looked_up_on_the_host_where_the_account_may_not_ask(alone):
    fill(alone, rows=10)
    with alone.connect() as connection:
        data, index = connection.execute(preflight.FOLDERS).fetchone()
    assert (data, index) == ("", "")

    ended = run(REPAIR, alone)

    assert ended.state is RecoveryState.RECOVERED, ended.error
    assert len(indexes(alone)) == 5

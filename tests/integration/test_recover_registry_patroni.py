"""Recovering the database of a registry that a real Patroni supervises, with a real etcd."""

import pytest

import flows.registry_database  # noqa: F401 (declares the recoveries)
from recovery.declare import RECOVERIES, run_plainly
from recovery.errors import Refused
from recovery.journal.history import RecoveryState
from recovery.journal.opening import open_journal
from recovery.run import Options
from tasks.registry_database import restarting, starting, waiting
from tests.integration.registry_runs import SILENT_FOR, be_impatient
from tests.lab.hosts import lab_hosts
from tests.lab.processes import wait_until
from tests.lab.registry_host import DATA, UNIT
from tests.lab.registry_patroni import CONFIG, SCOPE, PatroniPair
from tests.lab.session import started_or_skipped

pytestmark = pytest.mark.timeout(400)  # the first use of the lab builds its root file system
RECOVER = RECOVERIES["recover-registry-database"]
FORCE = RECOVERIES["force-registry-database-shutdown"]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("patroni")
    with started_or_skipped(lab_hosts(folder, 2, names=("db1", "db2"))) as lab:
        pair = PatroniPair(lab, folder)
        pair.prepare()
        yield pair


@pytest.fixture
def pair(prepared):
    prepared.restore()
    yield prepared
    assert not prepared.leader.run(f"systemctl is-active {UNIT} || true").startswith("active")


@pytest.fixture(autouse=True)
def _quick(tmp_path, monkeypatch):
    monkeypatch.setenv("RECOVER_JOURNAL", str(tmp_path / "journal.sqlite"))
    monkeypatch.setenv("RECOVER_LEASE_SECONDS", "8")
    be_impatient(monkeypatch)
    for module in (starting, waiting, restarting):
        monkeypatch.setattr(module, "PAUSE_SECONDS", 0.2, raising=False)


def recover(registry, options=None, **parameters):
    defaults = {name: default for name, (_, default) in RECOVER.parameters.items()}
    given = {"database": registry.url(), "host": registry.ssh_url(), **parameters}
    return run_plainly(RECOVER, {**defaults, **given}, Options(**(options or {})))


def refused(registry, cause, **parameters):
    ended = recover(registry, **parameters)
    assert isinstance(ended.error, Refused), ended
    text = str(ended.error)
    assert f": {cause}: " in text, text
    return text


def changes_of(ended):
    return [
        event.body["command"]
        for event in open_journal().events(ended.recovery_id)
        if event.kind == "command" and event.body["is_change"]
    ]


def test_a_leader_that_answers_is_left_alone(pair):
    server = pair.leader.postmaster()

    ended = recover(pair.leader)

    assert ended.state is RecoveryState.RECOVERED, ended.error
    assert ended.result.cause == "connectable"
    assert pair.leader.postmaster() == server


def test_a_replica_is_no_primary_and_the_leader_is_named(pair):
    wait_until(lambda: pair.state_of("db2") in {"running", "streaming"}, "db2", within_seconds=60)

    text = refused(pair.replica, "not-a-primary")

    assert f"db1 ({pair.leader.address}) Leader" in text
    ended = recover(pair.replica, standby=True)
    assert ended.state is RecoveryState.RECOVERED, ended.error
    assert "as it is meant to be" in ended.result.seen
    wait_until(lambda: not pair.in_recovery(), "db1 to lead", within_seconds=60)
    assert "Two primaries" in refused(pair.leader, "not-a-standby", standby=True)


def test_a_stopped_supervisor_is_started_and_postgresql_never_behind_its_back(pair):
    pair.leader.run("systemctl stop patroni")
    wait_until(lambda: not pair.leader.pids(), "the server to be gone", within_seconds=60)

    ended = recover(pair.leader)

    assert ended.state is RecoveryState.RECOVERED, ended.error
    assert ended.result.cause == "patroni-stopped"
    assert changes_of(ended) == ["systemctl --no-ask-password --no-block start -- patroni.service"]
    assert pair.members()["db1"]["Role"] == "Leader"


def test_a_server_that_died_is_started_by_its_supervisor(pair):
    before = pair.leader.postmaster()
    pair.leader.run(
        "systemctl kill --kill-who=main -s STOP patroni; "
        f"kill -9 $(head -n 1 {DATA}/postmaster.pid)"
    )
    wait_until(lambda: not pair.leader.pids(), "the server to be gone", within_seconds=60)
    pair.leader.run("(sleep 4; systemctl kill --kill-who=main -s CONT patroni) >/dev/null 2>&1 &")

    ended = recover(pair.leader)

    assert ended.state is RecoveryState.RECOVERED, ended.error
    assert changes_of(ended) == []
    assert pair.leader.postmaster() != before


def make_hung(registry):
    registry.psql(f"ALTER SYSTEM SET pre_auth_delay = '{SILENT_FOR}'")
    registry.psql("SELECT pg_reload_conf()")
    registry.run(f"sed -i '/pre_auth_delay/d' {DATA}/postgresql.auto.conf")


def test_a_server_that_hangs_is_restarted_by_patronictl_once(pair):
    before = pair.leader.postmaster()
    make_hung(pair.leader)

    ended = recover(pair.leader, accept=["open-transactions"])

    assert ended.state is RecoveryState.RECOVERED, ended.error
    assert ended.result.cause == "hung"
    (restart,) = changes_of(ended)
    assert restart.endswith(f" patronictl -c {CONFIG} restart --force {SCOPE} db1")
    assert f" bound {DATA} " in restart
    assert pair.leader.postmaster() != before
    assert pair.members()["db1"]["Role"] == "Leader"


def test_without_patronictl_the_command_is_told_and_nothing_done(pair):
    before = pair.leader.postmaster()
    make_hung(pair.leader)
    pair.leader.run("mv /usr/bin/patronictl /usr/bin/patronictl.away")

    ended = recover(pair.leader, accept=["open-transactions"])

    assert isinstance(ended.error, Refused)
    assert f"`patronictl -c {CONFIG} restart --force {SCOPE} db1`" in str(ended.error)
    assert pair.leader.postmaster() == before


def test_a_lost_store_is_told_as_the_cause_of_read_only(pair):
    pair.leader.run("systemctl stop etcd")
    wait_until(pair.in_recovery, "Patroni to demote", within_seconds=90)

    text = refused(pair.leader, "patroni-no-dcs")

    assert "Recover the store (etcd)" in text


def test_a_paused_supervisor_is_told_with_the_command(pair):
    pair.leader.run(f"patronictl -c {CONFIG} pause {SCOPE} --wait")
    pair.leader.run(f"kill -INT $(head -n 1 {DATA}/postmaster.pid)")
    wait_until(lambda: not pair.leader.pids(), "the server to be gone", within_seconds=60)

    text = refused(pair.leader, "patroni-paused")

    assert f"`patronictl -c {CONFIG} resume {SCOPE}`" in text
    assert not pair.leader.pids()


def test_a_masked_supervisor_is_told(pair):
    pair.leader.run("systemctl stop patroni; systemctl mask patroni")
    wait_until(lambda: not pair.leader.pids(), "the server to be gone", within_seconds=60)

    assert "systemctl unmask patroni.service" in refused(pair.leader, "unit-masked")


def test_nothing_is_forced_behind_the_back_of_the_supervisor(pair):
    given = {"database": pair.leader.url(), "host": pair.leader.ssh_url(), "unit": ""}

    ended = run_plainly(FORCE, given, Options())

    assert isinstance(ended.error, Refused)
    assert f"patronictl -c {CONFIG} pause {SCOPE}" in str(ended.error)


def test_no_password_of_the_configuration_is_read(pair, tmp_path):
    recover(pair.leader)

    for file in tmp_path.iterdir():
        content = file.read_bytes()
        assert pair.superuser_password.encode() not in content
        assert pair.replication_password.encode() not in content

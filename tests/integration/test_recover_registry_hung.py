"""A database of a registry that shuts down or hangs: waited for, restarted once, forced."""

import pytest

from recovery.declare import run_plainly
from recovery.errors import NeedsPerson, NotVerified, Refused
from recovery.journal.history import RecoveryState
from recovery.run import Options
from tasks.registry_database import (
    evidence,
    restarting,
    starting,
    triage,
)
from tests.integration.registry_runs import (
    FORCE,
    has_decided,
    hung,
    in_background,
    recover,
    refused,
    resume,
    shutting_down,
)
from tests.integration.registry_runs import _quick as _quick  # noqa: PLC0414 (the fixture)
from tests.integration.registry_runs import prepared as prepared  # noqa: PLC0414 (the fixture)
from tests.integration.registry_runs import running as running  # noqa: PLC0414 (the fixture)
from tests.integration.registry_runs import stopped as stopped  # noqa: PLC0414 (the fixture)
from tests.lab.processes import wait_until
from tests.lab.registry_host import CONFIG, UNIT

pytestmark = pytest.mark.timeout(240)  # the first use of the lab builds its root file system


def test_a_server_that_shuts_down_is_waited_for_and_then_started(running):
    with shutting_down(running) as backend:
        server = running.postmaster()
        with in_background(running) as told:
            wait_until(has_decided, "it to find the cause", within_seconds=30)
            assert running.postmaster() == server
            running.run(f"kill -CONT {backend}")

    assert told.ended.state is RecoveryState.RECOVERED, told.ended.error
    assert told.ended.result.cause == "shutting-down"
    assert running.answers()
    assert running.postmaster() != server


def test_a_shutdown_that_does_not_end_is_told_and_forced_only_with_consent(running, monkeypatch):
    monkeypatch.setattr(starting, "DOWN_WITHIN_SECONDS", 3.0)
    with running.connect() as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1 AS n")
    with shutting_down(running):
        server = running.postmaster()
        ended = recover(running)

        assert isinstance(ended.error, NotVerified)
        assert "idle in transaction" in str(ended.error)
        assert "force-registry-database-shutdown" in str(ended.error)
        assert running.postmaster() == server

        given = {"database": running.url(), "host": running.ssh_url(), "unit": ""}
        unasked = run_plainly(FORCE, given, Options())
        assert isinstance(unasked.error, NeedsPerson)
        assert running.postmaster() == server

        plan = run_plainly(FORCE, given, Options(plan_only=True)).plan
        forced = run_plainly(FORCE, given, Options(approve=plan.hash, approved_by="test"))
        assert forced.state is RecoveryState.RECOVERED, forced.error
    wait_until(lambda: not running.pids(), "the processes to be gone", within_seconds=20)

    resumed = resume(running, ended)

    assert resumed.state is RecoveryState.RECOVERED, resumed.error
    assert "automatic recovery in progress" in running.log()
    with running.connect() as connection:
        assert connection.execute("SELECT n FROM kept").fetchone() == (1,)
    again = run_plainly(FORCE, given, Options(resume=forced.recovery_id))
    assert again.state is RecoveryState.RECOVERED
    assert running.answers()


def test_nothing_is_forced_where_nothing_runs_or_no_host_is_known(stopped):
    given = {"database": stopped.url(), "host": stopped.ssh_url(), "unit": ""}

    nothing = run_plainly(FORCE, given, Options())
    assert isinstance(nothing.error, Refused)
    assert "no server runs" in str(nothing.error)
    nowhere = run_plainly(FORCE, {**given, "host": ""}, Options())
    assert "no host was given" in str(nowhere.error)


def test_a_server_that_lets_nobody_in_is_restarted_once(running):
    server, starts = running.postmaster(), running.starts()
    with hung(running):
        ended = recover(running)

    assert ended.state is RecoveryState.RECOVERED, ended.error
    assert ended.result.cause == "hung"
    assert running.postmaster() != server
    assert running.starts() == starts + 1
    assert "received fast shutdown request" in running.log()


def test_a_server_that_was_slow_for_a_moment_is_not_restarted(running, monkeypatch):
    server, judge = running.postmaster(), triage.judge_running

    def judge_and_recover(*seen):
        reason = judge(*seen)
        running.run(f"kill -HUP {server.split()[0]}")
        removed = 'parameter "pre_auth_delay" removed'
        wait_until(lambda: removed in running.log(), "the reload", within_seconds=20)
        return reason

    monkeypatch.setattr(triage, "judge_running", judge_and_recover)
    with hung(running):
        ended = recover(running)

    assert ended.state is RecoveryState.RECOVERED, ended.error
    assert ended.result.cause == "connectable"
    assert running.postmaster() == server


def test_open_transactions_are_told_before_a_restart_rolls_them_back(running):
    server = running.postmaster()
    with running.transaction(), hung(running):
        ended = recover(running)

        assert isinstance(ended.error, Refused)
        assert "idle in transaction" in str(ended.error)
        assert "accept=['open-transactions']" in str(ended.error)
        assert running.postmaster() == server

        accepted = recover(running, accept=["open-transactions"])

    assert accepted.state is RecoveryState.RECOVERED, accepted.error
    assert running.postmaster() != server


def test_a_server_that_does_not_listen_where_it_should_is_restarted(running):
    running.run(f"sed -i \"s/^listen_addresses.*/listen_addresses = 'localhost'/\" "
                f"{CONFIG}/postgresql.conf; systemctl restart {UNIT}")  # fmt: skip
    server = running.postmaster()

    assert "listen_addresses = 'localhost'" in refused(running, "listens-elsewhere")
    assert running.postmaster() == server

    running.configure(listen_addresses="*")
    ended = recover(running)

    assert ended.state is RecoveryState.RECOVERED, ended.error
    assert ended.result.cause == "not-listening"
    assert running.answers()
    assert running.postmaster() != server


def test_a_restart_that_does_not_end_is_told_and_goes_on_by_itself(running, monkeypatch):
    monkeypatch.setattr(restarting, "SHUTDOWN_WITHIN_SECONDS", 4.0)
    with running.transaction() as connection, hung(running):
        backend = connection.info.backend_pid
        running.run(f"kill -STOP {backend}")
        server, starts = running.postmaster(), running.starts()
        ended = recover(running, accept=["open-transactions"])

        assert isinstance(ended.error, NotVerified)
        assert "still there" in str(ended.error)
        assert running.postmaster() == server
        running.run(f"kill -CONT {backend}")
    wait_until(running.answers, "systemd to have restarted it", within_seconds=90)

    resumed = resume(running, ended, accept=["open-transactions"])

    assert resumed.state is RecoveryState.RECOVERED, resumed.error
    assert running.starts() == starts + 1


def test_a_server_that_answers_is_not_restarted_and_its_long_transactions_are_told(
    running, monkeypatch
):
    monkeypatch.setattr(evidence, "LONG", evidence.LONG.replace("5 minutes", "0 seconds"))
    server = running.postmaster()
    with running.transaction():
        ended = recover(running)

    assert ended.state is RecoveryState.RECOVERED, ended.error
    assert ended.result.cause == "connectable"
    assert any("idle in transaction" in line for line in ended.result.for_l3.transactions)
    assert any("ready to accept" in line for line in ended.result.for_l3.log)
    assert running.postmaster() == server
    outside = recover(running, host="")
    assert outside.state is RecoveryState.RECOVERED, outside.error
    assert running.postmaster() == server

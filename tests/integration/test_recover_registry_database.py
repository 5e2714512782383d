"""A database of a registry that is stopped or recovers from a crash, on a real host."""

import logging
from types import SimpleNamespace

import pytest

import flows.registry_database
from recovery.errors import CommandFailed, NotVerified, Refused
from recovery.evidence.status import verify_journal
from recovery.journal.history import RecoveryState
from recovery.journal.opening import open_journal
from tasks.registry_database import (
    waiting,
)
from tests.integration.registry_runs import _quick as _quick  # noqa: PLC0414 (the fixture)
from tests.integration.registry_runs import (
    cluster_of,
    has_decided,
    in_background,
    recover,
    recovering_from_a_crash,
    resume,
    starting_order,
)
from tests.integration.registry_runs import prepared as prepared  # noqa: PLC0414 (the fixture)
from tests.integration.registry_runs import running as running  # noqa: PLC0414 (the fixture)
from tests.integration.registry_runs import stopped as stopped  # noqa: PLC0414 (the fixture)
from tests.lab.processes import wait_until
from tests.lab.registry_host import CONFIG, DATA, UNIT

pytestmark = pytest.mark.timeout(240)  # the first use of the lab builds its root file system


def test_a_stopped_server_is_started_once_and_a_second_run_does_nothing(stopped):
    ended = recover(stopped)

    assert ended.state is RecoveryState.RECOVERED, ended.error
    assert ended.result.cause == "stopped"
    assert stopped.answers()
    server = stopped.postmaster()

    again = recover(stopped)

    assert again.state is RecoveryState.RECOVERED
    assert (again.result.cause, again.result.done) == ("connectable", "nothing")
    assert stopped.postmaster() == server
    journal = open_journal()
    assert verify_journal(journal, ended.recovery_id) == {ended.recovery_id: []}


def test_a_plan_names_the_unit_that_was_found_and_starts_nothing(stopped):
    ended = recover(stopped, {"plan_only": True})

    commands = [line for step in ended.plan.steps for line in step.commands]
    assert commands == [f"systemctl --no-ask-password --no-block start -- {UNIT}"]
    assert not stopped.pids()


def test_an_account_that_is_not_root_recovers_by_sudo(stopped):
    ended = recover(stopped, host=stopped.ssh_url("ops"))

    assert ended.state is RecoveryState.RECOVERED, ended.error
    assert stopped.answers()


def test_a_server_that_was_killed_recovers_what_was_committed(running):
    with running.connect() as connection:
        connection.execute("CREATE TABLE kept AS SELECT generate_series(1, 5000) AS n")
    running.kill()

    ended = recover(running)

    assert ended.state is RecoveryState.RECOVERED, ended.error
    assert ended.result.cause == "crashed"
    with running.connect() as connection:
        assert connection.execute("SELECT count(*) FROM kept").fetchone() == (5000,)


def test_a_unit_that_systemd_has_given_up_is_set_free_and_started(stopped):
    stopped.run(
        f"mkdir -p /etc/systemd/system/{UNIT}.d && printf '[Unit]\\nStartLimitBurst=2\\n"
        f"StartLimitIntervalSec=1h\\n' > /etc/systemd/system/{UNIT}.d/limit.conf;"
        f"chmod 777 {DATA}; systemctl daemon-reload;"
        f"for n in 1 2 3 4; do systemctl start {UNIT} 2>/dev/null; done; chmod 700 {DATA}"
    )
    assert "repeated too quickly" in stopped.run(f"journalctl -n 3 -u {UNIT}")

    ended = recover(stopped)

    assert ended.state is RecoveryState.RECOVERED, ended.error
    assert ended.result.cause == "start-limit-hit"


def test_a_lock_file_that_lies_is_set_aside_and_kept(running):
    running.kill()
    impostor = running.run(
        "systemd-run -q --uid=postgres --unit=impostor sleep 600;"
        "systemctl show -p MainPID --value impostor"
    ).strip()
    try:
        running.run(
            f"printf '{impostor}\\n{DATA}\\n1\\n5432\\n/run/postgresql\\n*\\n' "
            f"> {DATA}/postmaster.pid; chown postgres: {DATA}/postmaster.pid;"
            f"chmod 600 {DATA}/postmaster.pid"
        )

        ended = recover(running)

        assert ended.state is RecoveryState.RECOVERED, ended.error
        assert ended.result.cause == "stale-lock-file"
        kept = running.run(f"head -n 1 {DATA}/postmaster.pid.{ended.recovery_id}").strip()
        assert kept == impostor
        assert running.run(f"cat /proc/{impostor}/comm").strip() == "sleep"
    finally:
        running.run("systemctl stop impostor")


def test_a_lock_file_of_a_server_that_lives_is_never_touched(running):
    order = starting_order(running)
    found = SimpleNamespace(cluster=cluster_of(running))

    with pytest.raises(Refused, match="not proven stale"):
        flows.registry_database.lock_file.refuse_live_lock(order, found)
    with pytest.raises(CommandFailed):
        order.host.change(
            flows.registry_database.lock_file.rename_argv(
                found.cluster, int(running.postmaster().split()[0])
            ),
            as_root=True,
        )
    assert running.answers()


def test_a_unit_of_another_distribution_is_found_by_its_data_folder(stopped):
    stopped.run(
        f"systemctl mask {UNIT} 2>/dev/null; mv {CONFIG} /etc/postgresql/kept;"
        f"cp /etc/postgresql/kept/*.conf {DATA}/; chown postgres: {DATA}/*.conf;"
        "sed -i '/^data_directory\\|^hba_file\\|^ident_file\\|^external_pid/d' "
        f"{DATA}/postgresql.conf;"
        f'sed -i "s/^include_dir.*//" {DATA}/postgresql.conf'
    )
    stopped.host.write(
        "etc/systemd/system/lab-pg.service",
        "[Service]\nType=notify\nUser=postgres\nEnvironment=PGDATA=/var/lib/postgresql/15/main/\n"
        "ExecStart=/usr/lib/postgresql/15/bin/postgres -D ${PGDATA}\n"
        "KillMode=mixed\nKillSignal=SIGINT\nTimeoutSec=0\nRuntimeDirectory=postgresql\n",
    )
    stopped.run("cp /etc/systemd/system/lab-pg.service /etc/systemd/system/postgresql-15.service;"
                "systemctl daemon-reload")  # fmt: skip
    try:
        ended = recover(stopped)

        assert ended.state is RecoveryState.RECOVERED, ended.error
        assert stopped.run("systemctl is-active postgresql-15.service").strip() == "active"
    finally:
        stopped.run("systemctl stop postgresql-15.service; rm /etc/systemd/system/postgresql-15.*;"
                    "rm -rf /etc/postgresql/kept; systemctl daemon-reload")  # fmt: skip


PROGRESS = ("replaying segment", "no replay shown")


def test_a_crash_recovery_is_waited_for_and_never_restarted(running, caplog):
    with caplog.at_level(logging.INFO):
        with recovering_from_a_crash(running):
            server, starts = running.postmaster(), running.starts()
            with in_background(running) as told:
                wait_until(
                    # It may have been stopped before its title named a segment.
                    lambda: any(told in caplog.text for told in PROGRESS),
                    "progress",
                    within_seconds=60,
                )
                assert running.postmaster() == server
                running.run("kill -CONT $(pgrep -f 'postgres: 15/main: [s]tartup')")

        assert told.ended.state is RecoveryState.RECOVERED, told.ended.error
    assert told.ended.result.cause in {"starting-up", "crash-recovery"}
    assert told.ended.result.done == "wait"
    assert (running.postmaster(), running.starts()) == (server, starts)
    with running.connect() as connection:
        assert connection.execute("SELECT count(*) FROM big").fetchone() == (200000,)


def test_a_crash_recovery_that_takes_too_long_is_left_alone_and_resumed(running, monkeypatch):
    monkeypatch.setattr(waiting, "MINUTE_SECONDS", 0.05)
    with recovering_from_a_crash(running):
        server = running.postmaster()
        ended = recover(running, crash_recovery_within_minutes=20)

        assert isinstance(ended.error, NotVerified)
        assert "never restart it" in str(ended.error)
        assert running.postmaster() == server
    monkeypatch.setattr(waiting, "MINUTE_SECONDS", 60.0)

    resumed = resume(running, ended)

    assert resumed.state is RecoveryState.RECOVERED, resumed.error
    assert running.postmaster() == server


def test_a_crash_recovery_is_waited_for_from_outside_as_well(running):
    with recovering_from_a_crash(running):
        server = running.postmaster()
        with in_background(running, host="") as told:
            wait_until(has_decided, "it to find the cause", within_seconds=30)
            running.run("kill -CONT $(pgrep -f 'postgres: 15/main: [s]tartup')")

    assert told.ended.state is RecoveryState.RECOVERED, told.ended.error
    assert running.postmaster() == server

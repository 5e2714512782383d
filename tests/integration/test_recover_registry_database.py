"""Recovering the database of a registry on a real host: systemd, Debian's units, real failures."""

import logging
import secrets
import threading
from contextlib import contextmanager
from types import SimpleNamespace
from urllib.parse import quote

import psycopg
import pytest

import flows.registry_database
from recovery.declare import RECOVERIES, run_plainly
from recovery.errors import CommandFailed, NeedsPerson, NotVerified, Refused
from recovery.evidence.status import verify_journal
from recovery.journal.history import RecoveryState
from recovery.journal.opening import open_journal
from recovery.run import Options
from tasks.registry_database import (
    evidence,
    forcing,
    proof,
    restarting,
    starting,
    triage,
    waiting,
)
from tests.lab.hosts import lab_hosts
from tests.lab.processes import wait_until
from tests.lab.registry_host import CONFIG, DATA, LOG, UNIT, RegistryHost
from tests.lab.session import started_or_skipped

pytestmark = pytest.mark.timeout(240)  # the first use of the lab builds its root file system
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


@pytest.fixture(autouse=True)
def _quick(tmp_path, monkeypatch):
    monkeypatch.setenv("RECOVER_JOURNAL", str(tmp_path / "journal.sqlite"))
    monkeypatch.setenv("RECOVER_LEASE_SECONDS", "8")
    monkeypatch.setattr("tasks.postgres_server.inside.CONNECT_WITHIN_SECONDS", 2)
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


# -- what a start mends --------------------------------------------------------------------------


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


# -- what is waited for --------------------------------------------------------------------------


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


# -- what a restart mends ------------------------------------------------------------------------


@contextmanager
def hung(registry):
    """Let nobody in any more, though the configuration is right again."""
    registry.configure(pre_auth_delay="13s")
    registry.psql("SELECT pg_reload_conf()")
    registry.run(f"sed -i '/pre_auth_delay/d' {CONFIG}/postgresql.conf")
    yield


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


# -- what is refused -----------------------------------------------------------------------------


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


BROKEN = {
    "unit-masked": f"systemctl mask {UNIT}",
    "data-folder-missing": f"mv {DATA} {DATA}.away && mkdir {DATA}",
    "data-folder-permission": f"chmod 777 {DATA}",
    "data-folder-permission (owner)": f"chown -R root: {DATA}",
    "data-folder-permission (above)": "chmod 700 /var/lib/postgresql/15 && "
    "chown root: /var/lib/postgresql/15",
    "data-folder-read-only": f"mount --bind {DATA} {DATA} && mount -o remount,bind,ro {DATA}",
    "control-file-damaged": f"printf x | dd of={DATA}/global/pg_control conv=notrunc "
    "bs=1 seek=24 2>/dev/null",
    "control-file-damaged (gone)": f"rm {DATA}/global/pg_control",
    "configuration-wrong": f"echo 'nonesuch = on' >> {CONFIG}/postgresql.conf",
    "port-taken": "systemd-run -q --unit=thief python3 -c 'import socket,time\n"
    's=socket.create_server(("0.0.0.0",5432)); c=s.accept(); time.sleep(600)\'; '
    "timeout 30 sh -c 'until ss -Hltn sport = :5432 | grep -q .; do sleep 0.1; done'",
    "disk-full": f"mkdir -p /mnt/tiny && cp -a {DATA} {DATA}.full && "
    f"mount -t tmpfs -o size=80m tmpfs {DATA} && cp -a {DATA}.full/. {DATA}/ && "
    f"chown postgres: {DATA} && chmod 700 {DATA}; "
    f"dd if=/dev/zero of={DATA}/filler bs=1M 2>/dev/null; rm -rf {DATA}.full",
    "wal-disk-full": f"cp -a {DATA}/pg_wal /root/wal && "
    f"mount -t tmpfs -o size=40m tmpfs {DATA}/pg_wal && cp -a /root/wal/. {DATA}/pg_wal/ && "
    f"chown postgres: {DATA}/pg_wal; "
    f"dd if=/dev/zero of={DATA}/pg_wal/filler bs=1M 2>/dev/null; rm -rf /root/wal",
    "disk-full (inodes)": f"cp -a {DATA} {DATA}.full && "
    f"mount -t tmpfs -o nr_inodes=2000,size=1g tmpfs {DATA} && cp -a {DATA}.full/. {DATA}/ && "
    f"chown postgres: {DATA} && chmod 700 {DATA}; rm -rf {DATA}.full;"
    f"cd {DATA}/pg_stat_tmp && seq 2000 | xargs touch 2>/dev/null || true",
}
MENDED = {
    "data-folder-missing": f"rmdir {DATA} && mv {DATA}.away {DATA}",
    "data-folder-permission (above)": "chmod 755 /var/lib/postgresql/15 && "
    "chown postgres: /var/lib/postgresql/15",
    "port-taken": "systemctl stop thief",
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_no_start_mends_is_refused_by_name_and_nothing_is_done(stopped, name):
    stopped.run(BROKEN[name])
    try:
        text = refused(stopped, name.partition(" (")[0])

        assert not stopped.pids()
        assert text.count("resume") >= 1 or "L3" in text or "Mount" in text or "dmesg" in text
    finally:
        stopped.run(MENDED.get(name, "true"))


def test_a_full_disk_that_was_emptied_is_recovered_by_a_resume(stopped):
    stopped.run(BROKEN["wal-disk-full"])
    ended = recover(stopped)
    assert isinstance(ended.error, Refused)
    stopped.run(f"rm {DATA}/pg_wal/filler")

    resumed = resume(stopped, ended)

    assert resumed.state is RecoveryState.RECOVERED, resumed.error
    assert stopped.answers()


def test_a_server_whose_checkpoint_is_gone_is_for_l3(running):
    running.kill()
    running.run(f"rm {DATA}/pg_wal/0000*; systemctl start {UNIT} || true")
    wait_until(lambda: not running.pids(), "the attempt to end", within_seconds=30)

    text = refused(running, "will-not-start")

    assert "pg_resetwal loses data" in text


def test_processes_of_a_server_that_is_gone_are_told(stopped):
    stopped.run(
        f"mkdir -p /etc/systemd/system/{UNIT}.d; printf '[Service]\\nKillMode=process\\n' "
        f"> /etc/systemd/system/{UNIT}.d/kill.conf; systemctl daemon-reload"
    )
    stopped.start()
    with stopped.transaction() as connection:
        backend = str(connection.info.backend_pid)
        stopped.run(f"kill -STOP {backend}; kill -9 $(head -n 1 {DATA}/postmaster.pid)")
        wait_until(lambda: stopped.pids() == [backend], "one to be left", within_seconds=20)

        text = refused(stopped, "orphaned-processes")

        assert f"`kill {backend}`" in text
        stopped.run(f"kill -9 {backend}")
    wait_until(stopped.is_settled, "the unit to settle", within_seconds=60)
    assert recover(stopped).state is RecoveryState.RECOVERED


def test_a_server_that_somebody_paused_is_not_restarted(running):
    pid = running.postmaster().split()[0]
    running.run(f"kill -STOP {pid}")
    try:
        assert f"kill -CONT {pid}" in refused(running, "paused")
    finally:
        running.run(f"kill -CONT {pid}")
    assert running.answers()


def test_a_start_that_systemd_cuts_short_is_told_with_the_setting(stopped):
    stopped.run(
        f"mkdir -p /etc/systemd/system/{UNIT}.d; printf '[Service]\\nTimeoutStartSec=1s\\n"
        "ExecStart=\\nExecStart=/bin/sleep 5\\n' "
        f"> /etc/systemd/system/{UNIT}.d/short.conf; systemctl daemon-reload;"
        f"systemctl start {UNIT} || true"
    )

    assert "TimeoutStartSec=infinity" in refused(stopped, "start-times-out")


def test_a_start_that_fails_all_the_same_carries_what_the_log_says(stopped):
    stopped.configure(huge_pages="on")  # of which this machine has none

    ended = recover(stopped)

    assert isinstance(ended.error, CommandFailed)
    assert "memory" in str(ended.error)
    assert not stopped.pids()
    stopped.run(f"sed -i '/huge_pages/d' {CONFIG}/postgresql.conf")
    assert resume(stopped, ended).state is RecoveryState.RECOVERED


def test_a_unit_that_starts_nothing_is_told(stopped, monkeypatch):
    monkeypatch.setattr(starting, "APPEARS_WITHIN_SECONDS", 2.0)
    stopped.run(
        f"mkdir -p /etc/systemd/system/{UNIT}.d; printf '[Service]\\nType=oneshot\\n"
        "RemainAfterExit=yes\\nPIDFile=\\nExecStart=\\nExecStart=/bin/true\\n' "
        f"> /etc/systemd/system/{UNIT}.d/none.conf; systemctl daemon-reload"
    )

    ended = recover(stopped)

    assert isinstance(ended.error, NotVerified)
    assert "journalctl -u" in str(ended.error)


def test_a_server_that_goes_again_is_not_waited_for_in_vain(stopped, monkeypatch):
    monkeypatch.setattr(waiting, "GONE_WITHIN_SECONDS", 2.0)
    order = starting_order(stopped)

    with pytest.raises(NotVerified, match="Nothing runs"):
        waiting.comes_up(order)


def test_a_server_that_came_up_and_keeps_the_registry_out_is_told(running):
    running.psql("ALTER ROLE registry NOLOGIN")
    try:
        with pytest.raises(NotVerified, match="login-refused"):
            waiting.comes_up(starting_order(running))
    finally:
        running.psql("ALTER ROLE registry LOGIN")


def test_what_is_wrong_at_the_door_is_told_without_a_look_at_the_host(running, tmp_path):
    wrong = tmp_path / "wrong"
    wrong.write_text(secrets.token_hex(8))
    wrong.chmod(0o600)
    server = running.postmaster()

    refused(running, "password-refused", database=running.url(password_file=wrong))
    refused(running, "database-missing", database=running.url(database="nonesuch"))
    refused(running, "tls-failed", database=running.url(more="sslmode=verify-full"))
    refused(running, "name-not-resolved", database=running.url(address="nonesuch.invalid"))
    running.psql("ALTER ROLE registry NOLOGIN")
    refused(running, "login-refused")
    running.psql("ALTER ROLE registry LOGIN")
    running.run(f"sed -i '/samenet/d' {CONFIG}/pg_hba.conf")
    running.psql("SELECT pg_reload_conf()")
    assert "pg_reload_conf" in refused(running, "no-pg-hba-entry")
    assert running.postmaster() == server


def test_a_network_in_between_is_told_and_the_server_left_alone(running):
    server = running.postmaster()
    running.run("nft 'table inet lab { chain in { type filter hook input priority 0; "
                "iif != lo tcp dport 5432 drop; }; }'")  # fmt: skip
    try:
        assert "firewalls" in refused(running, "network-blocked")
    finally:
        running.run("nft delete table inet lab")
    assert "port 5433" in refused(running, "listens-elsewhere", database=running.url(port=5433))
    assert "host=ssh://" in refused(
        running, "no-host-given", database=running.url(port=5433), host=""
    )
    assert running.postmaster() == server


def test_too_many_clients_are_told_by_name_and_not_restarted(running):
    running.configure(max_connections="8", superuser_reserved_connections="3")
    running.run(f"systemctl restart {UNIT}")
    wait_until(running.answers, "it to answer", within_seconds=20)
    server = running.postmaster()
    connections = []
    try:
        with pytest.raises(psycopg.OperationalError):
            connections.extend(running.connect() for _ in range(9))
        text = refused(running, "too-many-clients")
        assert "of registry from" in text
        assert "give host" in refused(running, "too-many-clients", host="").lower()
    finally:
        for connection in connections:
            connection.close()
    assert running.postmaster() == server


def test_a_database_that_takes_no_writes_is_told(running):
    running.psql("ALTER DATABASE registry SET default_transaction_read_only = on")

    assert "who made it read-only" in refused(running, "read-only")


def test_a_disk_that_is_full_while_it_runs_is_told(running):
    running.run("mkdir -p /mnt/tiny && mount -t tmpfs -o size=1m tmpfs /mnt/tiny && "
                "chown postgres: /mnt/tiny && chmod 700 /mnt/tiny")  # fmt: skip
    running.psql("CREATE TABLESPACE tiny LOCATION '/mnt/tiny'")
    running.psql("ALTER DATABASE registry SET temp_tablespaces = tiny")
    running.psql("GRANT CREATE ON TABLESPACE tiny TO registry")
    running.run("dd if=/dev/zero of=/mnt/tiny/filler bs=1k 2>/dev/null || true")

    text = refused(running, "disk-full")

    assert "No space left" in text
    running.run("rm /mnt/tiny/filler")
    assert recover(running).state is RecoveryState.RECOVERED


def test_the_umbrella_of_debian_is_no_cluster(stopped):
    ended = recover(stopped, unit="postgresql.service")

    assert isinstance(ended.error, Refused)
    assert "no cluster that postgresql.service runs" in str(ended.error)
    assert recover(stopped, unit="postgresql@15-main").state is RecoveryState.RECOVERED


def test_a_server_that_only_its_host_reaches_is_asked_through_it(stopped):
    stopped.run(f"sed -i \"s/^listen_addresses.*/listen_addresses = 'localhost'/\" "
                f"{CONFIG}/postgresql.conf")  # fmt: skip
    via = f"via={quote(stopped.ssh_url(), safe=':/@?=')}"
    through = stopped.url(address="127.0.0.1", more=via)

    ended = recover(stopped, database=through)

    assert ended.state is RecoveryState.RECOVERED, ended.error
    assert stopped.psql("SELECT 1") == "1"
    assert "via root@" in open_journal().events(ended.recovery_id)[0].body["target"]


def test_the_registry_itself_has_the_last_word(running, monkeypatch, httpserver_saying):
    monkeypatch.setattr(proof, "HEALTHY_WITHIN_SECONDS", 1.0)

    well = recover(running, registry_url=httpserver_saying('{"result": {"healthy": true}}'))
    assert well.state is RecoveryState.RECOVERED, well.error
    assert "healthy" in well.result.health
    ill = recover(running, registry_url=httpserver_saying('{"result": {"healthy": false}}'))
    assert isinstance(ill.error, NotVerified)
    assert "look at the log of the registry" in str(ill.error)
    gone = recover(running, registry_url="http://127.0.0.1:9")
    assert isinstance(gone.error, NotVerified)


@pytest.fixture
def httpserver_saying():
    from http.server import BaseHTTPRequestHandler, HTTPServer  # noqa: PLC0415

    servers = []

    def start(body):
        class Says(BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200 if self.path == "/health" else 404)
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, *_):
                pass

        server = HTTPServer(("127.0.0.1", 0), Says)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_no_secret_is_written_anywhere(stopped, tmp_path, capsys, caplog):
    with caplog.at_level(logging.DEBUG):
        assert recover(stopped).state is RecoveryState.RECOVERED

    assert stopped.password not in caplog.text + "".join(capsys.readouterr())
    for file in tmp_path.iterdir():
        assert stopped.password.encode() not in file.read_bytes()
    assert stopped.run(f"ls {LOG}")

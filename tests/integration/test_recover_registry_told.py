"""What no start or restart of the database of a registry mends: told by name, and left alone."""

import logging
import secrets
import threading
from urllib.parse import quote

import psycopg
import pytest

from recovery.errors import CommandFailed, NotVerified, Refused
from recovery.journal.history import RecoveryState
from recovery.journal.opening import open_journal
from tasks.registry_database import (
    proof,
    starting,
    waiting,
)
from tests.integration.registry_runs import _quick as _quick  # noqa: PLC0414 (the fixture)
from tests.integration.registry_runs import prepared as prepared  # noqa: PLC0414 (the fixture)
from tests.integration.registry_runs import recover, refused, resume, starting_order
from tests.integration.registry_runs import running as running  # noqa: PLC0414 (the fixture)
from tests.integration.registry_runs import stopped as stopped  # noqa: PLC0414 (the fixture)
from tests.lab.processes import wait_until
from tests.lab.registry_host import CONFIG, DATA, LOG, UNIT

pytestmark = pytest.mark.timeout(240)  # the first use of the lab builds its root file system
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

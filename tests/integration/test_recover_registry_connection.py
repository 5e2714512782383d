"""What a real PostgreSQL answers at the door, and sessions to it."""

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import threading
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest

from blocks.postgres.answer import ConnectionAnswer, greet
from blocks.postgres.server import PostgresServer
from recovery.errors import BadInput, CommandFailed, Unreachable
from tests.lab.ports import LOOPBACK, free_port
from tests.lab.postgres import private_postgres
from tests.lab.processes import find_binary, wait_until
from tests.lab.session import started_or_skipped

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A server of this module's own, to be broken, with TLS and few connections."""
    folder = tmp_path_factory.mktemp("own")
    with started_or_skipped(private_postgres(folder, options={"max_connections": "12"})) as server:
        yield server


def block(server, **fields):
    right = {"host": server.host, "port": server.port, "user": server.user,
             "database": server.user, "password_file": server.password_file,
             "connect_within_seconds": 3}  # fmt: skip
    return PostgresServer(**{**right, **fields})


def answer(server, **fields):
    return block(server, **fields).knock().answer


def test_who_is_let_in_may_ask_and_is_named(own):
    server = block(own)

    assert server.knock().answer is ConnectionAnswer.ACCEPTED
    with server.connect() as session:
        assert session.value("SELECT current_user") == own.user
        assert session.value("SELECT 1 + %s", (1,)) == 2
        assert not session.is_pooled
        assert session.value("SELECT current_setting('application_name')") == "recover none 0"
        assert session.value("SHOW search_path") == "pg_catalog"
        with pytest.raises(CommandFailed, match="42P01"):
            session.rows("SELECT * FROM nowhere")
        assert session.rows("SELECT 1 WHERE false") == []
        with session.repeated("SELECT %s::int") as ask:
            assert [ask([n])[0][0] for n in range(3)] == [0, 1, 2]
    with server.connect("postgres") as session:
        assert session.value("SELECT current_database()") == "postgres"


def test_each_no_of_a_server_has_its_own_name(own, tmp_path):
    wrong = tmp_path / "wrong"
    wrong.write_text(secrets.token_hex(8))
    wrong.chmod(0o600)

    assert answer(own, password_file=wrong) is ConnectionAnswer.PASSWORD_REFUSED
    assert answer(own, user="nobody") is ConnectionAnswer.PASSWORD_REFUSED
    assert answer(own, database="nowhere") is ConnectionAnswer.DATABASE_MISSING
    assert answer(own, port=free_port()) is ConnectionAnswer.REFUSED
    assert answer(own, host="nonesuch.invalid") is ConnectionAnswer.NAME_NOT_RESOLVED
    assert answer(own, sslmode="require") is ConnectionAnswer.TLS_NOT_OFFERED
    assert answer(own, host="::1") is ConnectionAnswer.REFUSED
    with pytest.raises(BadInput, match="nowhere"):
        block(own, database="nowhere").connect()
    with pytest.raises(CommandFailed, match="28P01"):
        block(own, password_file=wrong).connect()
    with pytest.raises(Unreachable, match="connection-refused"):
        block(own, port=free_port()).connect()


def test_what_pg_hba_does_not_list_is_told_with_what_it_lacks(own):
    access = own.data_directory / "pg_hba.conf"
    before = access.read_text()
    try:
        access.write_text("local all all trust\nhost all postgres 127.0.0.1/32 trust\n")
        own.execute_local("SELECT pg_reload_conf()")
        wait_until(
            lambda: answer(own) is ConnectionAnswer.NO_HBA_ENTRY, "the reload", within_seconds=10
        )
        knock = block(own).knock()
        assert f'user "{own.user}"' in knock.text
    finally:
        access.write_text(before)
        own.execute_local("SELECT pg_reload_conf()")
    wait_until(lambda: answer(own) is ConnectionAnswer.ACCEPTED, "it again", within_seconds=10)


def test_a_role_that_may_not_log_in_and_one_that_has_too_many(own):
    own.execute("CREATE ROLE quiet PASSWORD 'q'")
    own.execute("CREATE ROLE lonely LOGIN CONNECTION LIMIT 0 PASSWORD 'q'")
    try:
        file = own.directory / "q"
        file.write_text("q")
        file.chmod(0o600)
        assert answer(own, user="quiet", password_file=file) is ConnectionAnswer.LOGIN_REFUSED
        lonely = answer(own, user="lonely", password_file=file)
        assert lonely is ConnectionAnswer.TOO_MANY_CLIENTS
    finally:
        own.execute("DROP ROLE quiet, lonely")


def test_a_server_that_is_full_says_so(own):
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(psycopg.OperationalError):
            while True:
                stack.enter_context(psycopg.connect(own.dsn))
        knock = block(own).knock()
        assert knock.answer is ConnectionAnswer.TOO_MANY_CLIENTS
        with pytest.raises(Unreachable, match="too-many-clients"):
            block(own).connect()


def test_a_server_that_starts_is_told_also_by_the_code_alone(own):
    """Held in its recovery by a restore command that waits, as long as the test needs."""
    own.stop()
    gate = own.socket_directory / "gate"
    signal_file = own.data_directory / "recovery.signal"
    signal_file.touch()
    os.chown(signal_file, own.data_directory.stat().st_uid, -1)
    own.options["restore_command"] = f"while [ ! -e {gate} ]; do sleep 0.05; done; false"
    own.options["hot_standby"] = "off"
    starting = threading.Thread(target=own.start)
    starting.start()
    try:
        wait_until(
            lambda: answer(own) is ConnectionAnswer.STARTING_UP, "it to start", within_seconds=20
        )
        greeting = greet(own.host, own.port, "u", "d", 3)
        assert greeting.sqlstate == "57P03"
        with pytest.raises(Unreachable, match="starting-up"):
            block(own).connect()
    finally:
        gate.touch()
        starting.join(30)
        for name in ("restore_command", "hot_standby"):
            del own.options[name]
        gate.unlink()
        own.restart()
    assert answer(own) is ConnectionAnswer.ACCEPTED


def test_a_server_that_takes_connections_and_says_nothing(own):
    os.kill(own.pid, signal.SIGSTOP)
    try:
        assert answer(own, connect_within_seconds=2) is ConnectionAnswer.SILENT
    finally:
        os.kill(own.pid, signal.SIGCONT)
    with socket.socket() as listener:  # bound, not listening: as behind a firewall that rejects
        listener.bind((LOOPBACK, 0))
        assert answer(own, port=listener.getsockname()[1]) is ConnectionAnswer.REFUSED


@pytest.fixture
def with_tls(own, tmp_path):
    """The server with a certificate of a CA of its own."""
    find_binary("openssl")
    folder = own.socket_directory
    for name, subject, more in (
        ("ca", "/CN=lab ca", []),
        ("server", "/CN=localhost", ["-CA", f"{folder}/ca.crt", "-CAkey", f"{folder}/ca.key"]),
    ):
        argv = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
                "-nodes", "-days", "2", "-subj", subject, "-keyout", f"{folder}/{name}.key",
                "-out", f"{folder}/{name}.crt", *more]  # fmt: skip
        if name == "server":
            argv += ["-addext", "subjectAltName=DNS:localhost"]
        subprocess.run(argv, check=True, capture_output=True)
    account = own.data_directory.stat()
    for name in ("server.key", "server.crt"):
        os.chown(folder / name, account.st_uid, account.st_gid)
    own.options.update(ssl="on", ssl_cert_file=f"{folder}/server.crt",
                       ssl_key_file=f"{folder}/server.key")  # fmt: skip
    own.restart()
    ca = tmp_path / "ca.crt"
    ca.write_bytes((folder / "ca.crt").read_bytes())
    yield ca
    for name in ("ssl", "ssl_cert_file", "ssl_key_file"):
        del own.options[name]
    own.restart()


def test_tls_that_does_not_verify_is_told_from_tls_that_is_not_there(own, with_tls, tmp_path):
    assert answer(own, sslmode="require") is ConnectionAnswer.ACCEPTED
    verified = {"sslmode": "verify-full", "tls_ca_file": with_tls}
    assert answer(own, host="localhost", **verified) is ConnectionAnswer.ACCEPTED
    assert answer(own, **verified) is ConnectionAnswer.TLS_FAILED  # the name is not in it
    other = tmp_path / "other.crt"
    argv = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
            "-subj", "/CN=other", "-keyout", "/dev/null", "-out", str(other)]  # fmt: skip
    subprocess.run(argv, check=True, capture_output=True)
    wrong = {"sslmode": "verify-ca", "tls_ca_file": other}
    assert answer(own, host="localhost", **wrong) is ConnectionAnswer.TLS_FAILED
    with pytest.raises(CommandFailed, match="tls-failed"):
        block(own, host="localhost", **wrong).connect()
    missing = {"sslmode": "verify-ca", "tls_ca_file": tmp_path / "none"}
    assert answer(own, host="localhost", **missing) is ConnectionAnswer.TLS_FAILED


def test_a_long_statement_is_followed_cancelled_and_survives_its_client(own):
    with block(own).connect() as session, block(own).connect() as other:
        session.stage("SET statement_timeout = 0")
        with session.long_change("SELECT pg_sleep(0.2)") as statement:
            assert not statement.is_over(0.01)
            assert statement.is_over(5)
        with session.long_change("SELECT pg_sleep(60)") as statement:
            assert not statement.is_over(0.1)
            statement.cancel()
            with pytest.raises(CommandFailed, match="57014"):
                statement.is_over(10)
        assert session.value("SELECT 1") == 1
        with session.long_change("SELECT pg_sleep(60)") as statement:
            other.rows("SELECT pg_terminate_backend(%s)", (statement.pid,))
            with pytest.raises(Unreachable, match="may have been done"):
                statement.is_over(10)
        with pytest.raises(Unreachable):
            session.rows("SELECT 1")


def test_a_session_does_not_wait_for_a_lock_for_ever(own):
    own.execute("CREATE TABLE locked (n int)")
    try:
        with psycopg.connect(own.dsn) as holder, block(own).connect() as session:
            holder.execute("LOCK TABLE locked")
            session.stage("SET lock_timeout = '100ms'")
            with pytest.raises(CommandFailed, match="Another session holds the lock"):
                session.change("DROP TABLE public.locked")
    finally:
        own.execute("DROP TABLE locked")


def test_a_pooler_in_between_is_noticed(own):
    with pooler(own) as port, block(own, port=port).connect() as session:
        assert session.is_pooled


@contextlib.contextmanager
def pooler(server):
    """A pgbouncer in front of the server, where it is installed."""
    program = "/usr/sbin/pgbouncer"
    if not Path(program).exists():
        pytest.skip("pgbouncer is not installed")
    port = free_port()
    config = server.socket_directory / "pgbouncer.ini"
    users = server.socket_directory / "users.txt"
    users.write_text(f'"{server.user}" "{server.password.replace(chr(34), chr(34) * 2)}"\n')
    config.write_text(
        f"[databases]\n* = host={server.host} port={server.port}\n[pgbouncer]\n"
        f"listen_addr={LOOPBACK}\nlisten_port={port}\nauth_type=scram-sha-256\n"
        f"auth_file={users}\npool_mode=transaction\nunix_socket_dir=\n"
        "ignore_startup_parameters=extra_float_digits\n"
    )
    account = server.data_directory.stat()
    for file in (config, users):
        os.chown(file, account.st_uid, account.st_gid)
    with subprocess.Popen(
        [program, str(config)], user=account.st_uid, group=account.st_gid, extra_groups=[],
        cwd=server.socket_directory, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        try:
            wait_until(
                lambda: block(server, port=port).knock().answer is ConnectionAnswer.ACCEPTED,
                "the pooler",
                within_seconds=10,
            )
            yield port
        finally:
            process.terminate()


def test_a_url_of_the_lab_is_one_that_is_read(own):
    url = (
        f"postgresql://{own.user}@{own.host}:{own.port}/{own.user}"
        f"?password_file={quote(str(own.password_file))}"
    )

    assert PostgresServer.from_url(url).knock().answer is ConnectionAnswer.ACCEPTED

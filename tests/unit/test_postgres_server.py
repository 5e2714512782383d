"""The address of a PostgreSQL database as people write it, and what servers answer at the door."""

import socket
import struct
import threading
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from blocks.postgres.answer import ConnectionAnswer, answer_in, greet, parse_error
from blocks.postgres.server import PostgresServer
from blocks.postgres.session import message_of, not_connected, quote_name, quote_text, translated
from recovery.errors import BadInput, CommandFailed, Unreachable
from tests.lab.ports import LOOPBACK, free_port

FULL = (
    "postgresql://re%40gistry@db.lab:5433/my%2Fdb?password_file=/run/a%20b+c"
    "&via=ssh://root@db1?host_key=SHA256:" + "A" * 43 + "%26key_file=/run/k"
)


def test_every_part_of_an_address_is_read_and_decoded():
    server = PostgresServer.from_url(FULL)

    assert (server.host, server.port, server.user) == ("db.lab", 5433, "re@gistry")
    assert (server.database, server.password_file) == ("my/db", Path("/run/a b+c"))
    assert server.via.startswith("ssh://root@db1?host_key=SHA256:AAA")
    assert server.via.endswith("&key_file=/run/k")
    strict = PostgresServer.from_url("postgresql://u@h/d?tls_ca_file=/ca")
    assert (strict.sslmode, strict.port) == ("verify-full", 5432)


def test_a_label_names_neither_user_nor_secret():
    assert PostgresServer.from_url(FULL).label == "postgresql://db.lab:5433/my%2Fdb via root@db1"
    assert PostgresServer.from_url("postgres://u@[::1]/g").label == "postgresql://[::1]:5432/g"


@pytest.mark.parametrize(
    ("url", "field"),
    [
        ("postgresql://u:secret@h/g", "password"),
        ("postgresql://u@h/g?password=secret", "password"),
        ("mysql://u@h/g", "scheme"),
        ("h/g", "scheme"),
        ("postgresql://h/g", "user"),
        ("postgresql://u@/g", "host"),
        ("postgresql://u@h", "database"),
        ("postgresql://u@h/%20", "database"),
        ("postgresql://u@h/a/b", "database"),
        ("postgresql://u@h/" + "x" * 64, "database URL"),
        ("postgresql://u@h:0/g", "port"),
        ("postgresql://u@h:x/g", "port"),
        ("postgresql://u@[::1/g", "database URL"),
        ("postgresql://u@h/g#x", "database URL"),
        ("postgresql://u@h/g?options=x", "options"),
        ("postgresql://u@h/g?password_file", "options"),
        ("postgresql://u@h/g?password_file=", "password_file"),
        ("postgresql://u@h/g?password_file=relative", "password_file"),
        ("postgresql://u@h/g?password_env=A&password_env=B", "password_env"),
        ("postgresql://u@h/g?password_env=A&password_file=/f", "database URL"),
        ("postgresql://u@h/g?sslmode=maybe", "sslmode"),
        ("postgresql://u@h/g?via=http://x", "ssh URL"),
        ("postgresql://u@h/g?via=ssh://x&sslmode=require", "database URL"),
        ("postgresql://u@h/g?via=ssh://x?key_file=/k&host_key=y", "host_key"),
    ],
)
def test_a_malformed_part_is_named_and_no_secret_repeated(url, field):
    with pytest.raises(BadInput) as refusal:
        PostgresServer.from_url(url)

    assert refusal.value.field == field
    assert refusal.value.remedy
    assert "secret" not in str(refusal.value)


def test_a_parameter_that_is_no_url_names_a_saved_block():
    with pytest.raises(BadInput, match="PREFECT_API_URL"):
        PostgresServer.named("registry")
    with pytest.raises(BadInput) as refusal:
        PostgresServer.named("postgresql://u@h", field="database")
    assert refusal.value.field == "database (database)"


def test_a_password_is_read_from_its_place_and_not_shown(tmp_path, monkeypatch):
    file = tmp_path / "p"
    file.write_text("hunter2 \n")
    file.chmod(0o600)
    monkeypatch.setenv("LAB_DB", "hunter3")

    from_file = PostgresServer.from_url(f"postgresql://u@h/d?password_file={file}")
    from_env = PostgresServer.from_url("postgresql://u@h/d?password_env=LAB_DB")

    assert from_file.password().reveal() == "hunter2 "
    assert from_env.password().reveal() == "hunter3"
    assert PostgresServer.from_url("postgresql://u@h/d").password() is None
    assert "hunter" not in repr(from_file) + str(from_env.model_dump()) + from_file.label


# As psycopg 3.3 with libpq 18 prints it, of servers 15.
SAID = {
    "failed to resolve host 'nosuch': [Errno -2] Name or service not known":
        ConnectionAnswer.NAME_NOT_RESOLVED,
    "connection timeout expired": ConnectionAnswer.TIMED_OUT,
    'connection to server at "127.0.0.1", port 1 failed: Connection refused':
        ConnectionAnswer.REFUSED,
    'connection to server on socket "/run/.s.PGSQL.5432" failed: No such file or directory':
        ConnectionAnswer.REFUSED,
    'connection to server at "10.1.1.1", port 5432 failed: No route to host':
        ConnectionAnswer.NO_ROUTE,
    "received invalid response to SSL negotiation: H": ConnectionAnswer.NOT_POSTGRES,
    "server does not support SSL, but SSL was required": ConnectionAnswer.TLS_NOT_OFFERED,
    "SSL error: certificate verify failed": ConnectionAnswer.TLS_FAILED,
    'server certificate for "x" does not match host name "y"': ConnectionAnswer.TLS_FAILED,
    'FATAL:  no pg_hba.conf entry for host "10.0.0.1", user "u", database "d", no encryption':
        ConnectionAnswer.NO_HBA_ENTRY,
    'FATAL:  pg_hba.conf rejects connection for host "10.0.0.1", user "u", database "d"':
        ConnectionAnswer.NO_HBA_ENTRY,
    'FATAL:  password authentication failed for user "u"': ConnectionAnswer.PASSWORD_REFUSED,
    "fe_sendauth: no password supplied": ConnectionAnswer.PASSWORD_REFUSED,
    'FATAL:  role "u" does not exist': ConnectionAnswer.LOGIN_REFUSED,
    'FATAL:  Peer authentication failed for user "u"': ConnectionAnswer.LOGIN_REFUSED,
    'FATAL:  database "d" does not exist': ConnectionAnswer.DATABASE_MISSING,
    "FATAL:  the database system is starting up": ConnectionAnswer.STARTING_UP,
    "FATAL:  the database system is in recovery mode": ConnectionAnswer.CRASH_RECOVERY,
    "FATAL:  the database system is shutting down": ConnectionAnswer.SHUTTING_DOWN,
    "FATAL:  the database system is not yet accepting connections":
        ConnectionAnswer.STARTING_UP,  # of a standby, and in a crash recovery since 14
    "FATAL:  the database system is not accepting connections":
        ConnectionAnswer.STANDBY_CLOSED,
    "FATAL:  sorry, too many clients already": ConnectionAnswer.TOO_MANY_CLIENTS,
    'FATAL:  too many connections for role "u"': ConnectionAnswer.TOO_MANY_CLIENTS,
    "FATAL:  remaining connection slots are reserved for non-replication superuser connections":
        ConnectionAnswer.TOO_MANY_CLIENTS,
    'FATAL:  could not extend file "base/1": No space left on device': ConnectionAnswer.DISK_FULL,
    "FATAL:  out of memory": ConnectionAnswer.OUT_OF_MEMORY,
    "server closed the connection unexpectedly": ConnectionAnswer.CLOSED,
    "FATAL:  le serveur est fatigué": ConnectionAnswer.OTHER,
}  # fmt: skip


@pytest.mark.parametrize(("said", "answer"), SAID.items())
def test_each_answer_at_the_door_is_told_from_the_others(said, answer):
    assert answer_in(said) is answer


@pytest.mark.parametrize(
    ("said", "code", "answer"),
    [
        ("das Datenbanksystem startet", "57P03", ConnectionAnswer.NOT_ACCEPTING),
        ("the database system is starting up", "57P03", ConnectionAnswer.STARTING_UP),
        ("tut mir leid, schon zu viele Verbindungen", "53300", ConnectionAnswer.TOO_MANY_CLIENTS),
        ("no pg_hba.conf entry for host", "28000", ConnectionAnswer.NO_HBA_ENTRY),
        ("kein pg_hba.conf-Eintrag", "28000", ConnectionAnswer.LOGIN_REFUSED),
        ("etwas anderes", "99999", ConnectionAnswer.OTHER),
    ],
)
def test_the_code_counts_where_the_language_is_not_known(said, code, answer):
    assert answer_in(said, code) is answer


GERMAN = b"SSCHWERWIEGEND\0VFATAL\0C57P03\0Mdas Datenbanksystem startet\0Fpostmaster.c\0\0"


def test_an_error_of_the_protocol_is_read():
    greeting = parse_error(GERMAN)

    assert (greeting.sqlstate, greeting.text) == ("57P03", "FATAL:  das Datenbanksystem startet")


@contextmanager
def server_that_says(reply):
    """Refuse TLS, take the greeting, and say this; once for each connection."""
    with socket.socket() as listener:
        listener.bind((LOOPBACK, 0))
        listener.listen(8)

        def serve():
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    said = connection.recv(4096)
                    if said[4:8] == struct.pack("!i", 80877103):
                        connection.sendall(b"N")
                        said = connection.recv(4096)
                    connection.sendall(reply)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(5)


def message(kind, body):
    return kind + struct.pack("!i", len(body) + 4) + body


def test_a_server_that_speaks_another_language_is_asked_for_the_code():
    with server_that_says(message(b"E", GERMAN)) as port:
        knock = PostgresServer(host=LOOPBACK, port=port, user="u", database="d").knock()

    assert knock.answer is ConnectionAnswer.NOT_ACCEPTING
    assert "57P03" in knock.text


def test_a_greeting_tells_what_is_no_server():
    with server_that_says(b"HTTP/1.1 400 Bad Request\r\n\r\n") as port:
        assert greet(LOOPBACK, port, "u", "d", 2) is None
        knock = PostgresServer(host=LOOPBACK, port=port, user="u", database="d").knock()
    assert knock.answer is ConnectionAnswer.NOT_POSTGRES
    with server_that_says(message(b"R", struct.pack("!i", 3))) as port:
        assert greet(LOOPBACK, port, "u", "d", 2).asks_login
    assert greet(LOOPBACK, free_port(), "u", "d", 2) is None
    with server_that_says(b"") as port:
        knock = PostgresServer(host=LOOPBACK, port=port, user="u", database="d").knock()
    assert knock.answer is ConnectionAnswer.CLOSED


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (ConnectionAnswer.DATABASE_MISSING, BadInput),
        (ConnectionAnswer.PASSWORD_REFUSED, CommandFailed),
        (ConnectionAnswer.NO_HBA_ENTRY, CommandFailed),
        (ConnectionAnswer.TLS_FAILED, CommandFailed),
        (ConnectionAnswer.STARTING_UP, Unreachable),
        (ConnectionAnswer.TOO_MANY_CLIENTS, Unreachable),
    ],
)
def test_who_is_not_let_in_is_told_by_kind_of_error(answer, error):
    assert isinstance(not_connected(answer, "so it is", "db", "connect"), error)


def test_a_host_that_does_not_exist_is_not_asked_again():
    said = "failed to resolve host 'nowhere': [Errno -2] Name or service not known"

    assert not not_connected(ConnectionAnswer.NAME_NOT_RESOLVED, said, "db", "connect").is_retried


def test_what_libpq_says_twice_is_told_once():
    line = 'connection to server at "h" (::1), port 5432 failed: FATAL:  no password'

    assert message_of(psycopg.OperationalError(f"connection failed: {line}\n{line}")) == (
        'connection to server at "h" (::1), port 5432 failed: FATAL: no password'
    )


def test_an_error_within_a_session_is_told_by_its_code():
    gone = translated(psycopg.errors.AdminShutdown("bye"), "db", "SELECT 1")
    assert isinstance(gone, Unreachable)
    assert isinstance(translated(OSError("reset"), "db", "SELECT 1"), Unreachable)
    full = translated(psycopg.errors.DiskFull("no room"), "db", "SELECT 1")
    assert isinstance(full, CommandFailed)
    assert (full.code, "Make room" in str(full)) == ("53100", True)


def test_names_and_texts_are_quoted():
    assert quote_name('V_"x"') == '"V_""x"""'
    assert quote_text("it's") == "'it''s'"
    assert quote_text("C:\\new") == "E'C:\\\\new'"

"""Sessions to a real MariaDB: what they are set to, and how they fail."""

import contextlib
import socket

import pytest

from blocks.mysql.server import MysqlServer
from recovery.errors import BadInput, CommandFailed, Unreachable
from tests.lab.ports import free_port


@pytest.fixture
def server(mariadb_url):
    return MysqlServer.from_url(mariadb_url)


def test_a_session_keeps_zeros_backslashes_and_utc(server):
    with server.connect() as session:
        session.change("CREATE TABLE t (id int PRIMARY KEY AUTO_INCREMENT, v text, d datetime)")
        session.change("INSERT INTO t VALUES (0, 'C:\\new', '0001-01-01 00:00:00')")

        assert list(session.stream("SELECT * FROM t")) == [
            (b"0", b"C:\\new", b"0001-01-01 00:00:00")
        ]
        assert session.rows("SELECT @@time_zone, @@character_set_client") == [("+00:00", "utf8mb4")]
        with pytest.raises(CommandFailed, match="1406"):
            session.change("INSERT INTO t (v) VALUES (REPEAT('x', 65536))")


def test_a_session_goes_on_after_an_error_and_after_a_stream_left_early(server):
    with server.connect() as session:
        with pytest.raises(CommandFailed, match="1146"):
            session.rows("SELECT * FROM nowhere")
        stream = session.stream("SELECT 1 UNION SELECT 2 UNION SELECT 3")
        assert next(stream) == (b"1",)
        stream.close()

        assert session.rows("SELECT 1") == [(1,)]


def test_a_transaction_is_all_or_nothing(server):
    with server.connect() as session:
        session.change("CREATE TABLE t (id int) ENGINE=InnoDB")
        with contextlib.suppress(CommandFailed), session.transaction():
            session.change("INSERT INTO t VALUES (1)")
            session.rows("SELECT * FROM nowhere")
        with session.transaction():
            session.change("INSERT INTO t VALUES (2)")

    with server.connect() as session:
        assert session.rows("SELECT id FROM t") == [(2,)]


def test_many_rows_are_inserted_in_batches_below_the_packet_size(server):
    with server.connect() as session:
        session.change("CREATE TABLE t (v longtext) ENGINE=InnoDB")
        session.packet_max_bytes = 8192
        rows = [b"('%d')" % n for n in range(5000)] + [b"('" + b"x" * 20_000 + b"')"]

        assert session.insert_rows("INSERT", "INSERT INTO t VALUES", rows) == 5001
        assert session.rows("SELECT COUNT(*), MAX(LENGTH(v)) FROM t") == [(5001, 20_000)]


def test_a_value_that_the_server_would_change_is_refused(server):
    with server.connect() as session:
        session.change("CREATE TABLE t (v varchar(2)) ENGINE=InnoDB")

        with pytest.raises(CommandFailed, match="truncated"), session.transaction():
            session.insert_rows("INSERT", "INSERT INTO t VALUES", [b"('ab  ')"])
        assert session.rows("SELECT COUNT(*) FROM t") == [(0,)]


def test_a_wrong_password_names_the_remedy_and_no_secret(server, tmp_path):
    file = tmp_path / "wrong"
    file.write_text("not-the-password")
    file.chmod(0o600)

    with pytest.raises(CommandFailed, match="password the worker holds") as refusal:
        server.model_copy(update={"password_file": file}).connect()

    assert "not-the-password" not in str(refusal.value)


def test_an_unknown_database_is_named(server):
    with pytest.raises(BadInput, match="no_such_database"):
        server.model_copy(update={"database": "no_such_database"}).connect()


def test_a_server_that_is_not_there_is_unreachable(server):
    with pytest.raises(Unreachable):
        server.model_copy(update={"port": free_port()}).connect()


def test_a_server_that_accepts_and_stays_silent_is_unreachable_in_time(server):
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as silent:
        quiet = {"port": silent.getsockname()[1], "connect_within_seconds": 1}

        with pytest.raises(Unreachable):
            server.model_copy(update={**quiet, "answer_within_seconds": 1}).connect()


def test_an_answer_that_does_not_come_in_time_is_unreachable(server):
    impatient = server.model_copy(update={"answer_within_seconds": 1})

    with impatient.connect() as session, pytest.raises(Unreachable, match="look before"):
        session.change("DO SLEEP(5)")


def test_a_local_socket_serves_as_well(mariadb, server):
    local = server.model_copy(update={"unix_socket": mariadb.socket})

    with local.connect() as session:
        assert session.rows("SELECT DATABASE()") == [(server.database,)]

"""One connection to a Redis: what each kind of answer, silence and nonsense becomes."""

import contextlib
import socket
import ssl
import subprocess
import threading

import pytest

from blocks.redis_session import HungUp, Login, RedisSaidNo, Silent, line, open_session
from recovery.commands import current_gate
from recovery.errors import BadInput


@contextlib.contextmanager
def answering(folder, *answers, tls=None):
    """A unix socket that reads one request at a time and sends these bytes; None: no word more."""
    path = folder / "socket"
    received = []

    def serve(connection):
        with contextlib.suppress(OSError), connection:
            for answer in answers:
                received.append(connection.recv(4096))
                if answer is None:
                    threading.Event().wait(5)
                    return
                connection.sendall(answer)

    def accept():
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with contextlib.suppress(ssl.SSLError, OSError):
                    serve(tls.wrap_socket(connection, server_side=True) if tls else connection)

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(4)
        threading.Thread(target=accept, daemon=True).start()
        yield path, received
        listener.shutdown(socket.SHUT_RDWR)


class Gate:
    """Keeps what passes."""

    def __init__(self):
        self.calls = []

    def before(self, call):
        self.calls.append(call)

    def after(self, call, error):
        pass


@pytest.fixture
def gate():
    gate = Gate()
    token = current_gate.set(gate)
    yield gate
    current_gate.reset(token)


def ask(path, login=None, *words):
    with open_session(path, "redis:6379@db1", login or Login(), 0.3) as session:
        return session.read(*(words or ("PING",)))


def test_a_reply_is_decoded_and_kept_as_evidence(tmp_path, gate):
    with answering(tmp_path, b"*2\r\n$4\r\nsave\r\n$6\r\n3600 1\r\n") as (path, received):
        assert ask(path, None, "CONFIG", "GET", "save") == ["save", "3600 1"]

    assert received == [b"*3\r\n$6\r\nCONFIG\r\n$3\r\nGET\r\n$4\r\nsave\r\n"]
    assert [(call.command, call.answer, call.is_change) for call in gate.calls] == [
        ("CONFIG GET save", "save\n3600 1", False)
    ]


@pytest.mark.parametrize(
    ("reply", "word"),
    [
        (b"-NOAUTH Authentication required.\r\n", "NOAUTH"),
        (b"-LOADING Redis is loading the dataset in memory\r\n", "LOADING"),
        (b"-MISCONF Redis is configured to save RDB snapshots\r\n", "MISCONF"),
        (b"-BUSY Redis is busy running a script.\r\n", "BUSY"),
        (b"-DENIED Redis is running in protected mode\r\n", "DENIED"),
        (b"-NOPERM this user has no permissions\r\n", "NOPERM"),
        (b"-ERR unknown command 'PING'\r\n", "ERR"),
        (b"-ERR max number of clients reached\r\n", "CLIENTS"),
        (b"-INPROG Failover already in progress\r\n", "INPROG"),
    ],
)
def test_an_error_keeps_the_word_it_begins_with(tmp_path, reply, word):
    with answering(tmp_path, reply) as (path, _), pytest.raises(RedisSaidNo) as refused:
        ask(path)

    assert refused.value.word == word


def test_a_connection_that_is_accepted_and_silent_is_told_from_one_that_is_closed(tmp_path):
    with answering(tmp_path, None) as (path, _), pytest.raises(Silent):
        ask(path)
    (tmp_path / "socket").unlink()
    with answering(tmp_path) as (path, _), pytest.raises(HungUp):
        ask(path)


def test_what_is_no_redis_is_told(tmp_path):
    page = b"HTTP/1.0 400 Bad request\r\n\r\n"
    with answering(tmp_path, page) as (path, _), pytest.raises(HungUp, match="no Redis"):
        ask(path)


def test_no_socket_at_all_is_told(tmp_path):
    with pytest.raises(HungUp):
        ask(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("user", "sent"),
    [("", b"*2\r\n$4\r\nAUTH\r\n$10\r\nsesame-oil\r\n"),
     ("ops", b"*3\r\n$4\r\nAUTH\r\n$3\r\nops\r\n$10\r\nsesame-oil\r\n")],
)  # fmt: skip
def test_the_password_is_sent_in_auth_alone_and_is_no_evidence(tmp_path, gate, user, sent):
    (tmp_path / "password").write_text("sesame-oil\n")
    (tmp_path / "password").chmod(0o600)
    login = Login(user, str(tmp_path / "password"))

    with answering(tmp_path, b"+OK\r\n", b"+PONG\r\n") as (path, received):
        assert ask(path, login) == "PONG"

    assert received[0] == sent
    assert "sesame-oil" not in repr(gate.calls)


def test_a_wrong_password_is_told_and_the_connection_closed(tmp_path, monkeypatch):
    monkeypatch.setenv("REDIS_PASSWORD", "not-this-one")
    reply = b"-WRONGPASS invalid username-password pair or user is disabled.\r\n"

    with answering(tmp_path, reply) as (path, _), pytest.raises(RedisSaidNo) as refused:
        ask(path, Login("", "", "REDIS_PASSWORD"))

    assert refused.value.word == "WRONGPASS"


def test_a_password_file_that_is_not_there_is_bad_input(tmp_path):
    with (
        answering(tmp_path, b"+OK\r\n") as (path, _),
        pytest.raises(BadInput, match="no such file"),
    ):
        ask(path, Login("", str(tmp_path / "nothing")))


def test_what_is_published_is_heard_until_nothing_comes(tmp_path):
    hello = b"*3\r\n$7\r\nmessage\r\n$5\r\nhello\r\n$3\r\na,b\r\n"
    subscribed = b"*3\r\n$9\r\nsubscribe\r\n$5\r\nhello\r\n:1\r\n"

    with (
        answering(tmp_path, subscribed + hello + hello, None) as (path, _),
        open_session(path, "db1", Login(), 0.3) as session,
    ):
        assert list(session.heard("hello", 0.1)) == ["a,b", "a,b"]


def test_the_same_question_again_and_again_is_one_line_of_evidence(tmp_path, gate):
    with (
        answering(tmp_path, b":1\r\n", b":2\r\n", b":3\r\n") as (path, _),
        open_session(path, "db1", Login(), 0.3) as session,
        session.repeated("DBSIZE") as ask_again,
    ):
        assert [ask_again() for _ in range(3)] == [1, 2, 3]

    assert [(call.command, call.answer) for call in gate.calls] == [("DBSIZE", "3")]


def test_a_change_is_marked_as_one(tmp_path, gate):
    with (
        answering(tmp_path, b"+OK\r\n") as (path, _),
        open_session(path, "db1", Login(), 0.3) as session,
    ):
        session.change("SET", "a b", "")

    assert [(call.command, call.is_change) for call in gate.calls] == [("SET 'a b' ''", True)]
    assert line(("DEL", "k")) == "DEL k"


@pytest.fixture
def certificate(tmp_path):
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj",
         "/CN=lab", "-keyout", tmp_path / "key.pem", "-out", tmp_path / "cert.pem"],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    return context


def test_tls_is_spoken_to_a_server_whose_certificate_the_ca_signed(tmp_path, certificate):
    login = Login(tls_ca_file=str(tmp_path / "cert.pem"))

    with answering(tmp_path, b"+PONG\r\n", tls=certificate) as (path, _):
        assert ask(path, login) == "PONG"


def test_a_certificate_of_another_ca_is_refused(tmp_path, certificate):
    other = tmp_path / "other.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj",
         "/CN=other", "-keyout", tmp_path / "k.pem", "-out", other],
        check=True, capture_output=True,
    )  # fmt: skip

    with (
        answering(tmp_path, b"+PONG\r\n", tls=certificate) as (path, _),
        pytest.raises(HungUp, match="certificate"),
    ):
        ask(path, Login(tls_ca_file=str(other)))


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_a_ca_that_cannot_be_read_is_bad_input(tmp_path, content):
    ca = tmp_path / "ca.pem"
    if content is not None:
        ca.write_text(content)

    with pytest.raises(BadInput, match=r"ca\.pem"):
        ask(tmp_path / "socket", Login(tls_ca_file=str(ca)))


def test_plain_text_to_a_server_that_speaks_tls_is_told(tmp_path, certificate):
    with answering(tmp_path, b"+PONG\r\n", tls=certificate) as (path, _), pytest.raises(HungUp):
        ask(path)

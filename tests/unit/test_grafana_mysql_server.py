"""The address of a MySQL database, as people write it."""

from pathlib import Path

import pymysql
import pytest

from blocks.mysql.server import MysqlServer
from blocks.mysql.session import batches, translated
from recovery.errors import BadInput, CommandFailed, Unreachable
from tasks.grafana.client import quote_option

FULL = "mysql://graf%40na@db.lab:3307/my%2Fdb?password_file=/run/a%20b+c"


def test_every_part_of_an_address_is_read_and_decoded():
    server = MysqlServer.from_url(FULL)

    assert (server.host, server.port, server.user) == ("db.lab", 3307, "graf@na")
    assert (server.database, server.password_file) == ("my/db", Path("/run/a b+c"))


def test_a_label_names_neither_user_nor_secret():
    assert MysqlServer.from_url(FULL).label == "mysql://db.lab:3307/my%2Fdb"
    assert MysqlServer.from_url("mysql://u@[::1]/g").label == "mysql://[::1]:3306/g"
    local = MysqlServer.from_url("mysql://u@/g?socket=/run/s")
    assert local.label == "mysql://localhost/g?socket=/run/s"


@pytest.mark.parametrize(
    ("url", "field"),
    [
        ("mysql://u:secret@h/g", "password"),
        ("mysql://u@h/g?password=secret", "password"),
        ("postgres://u@h/g", "scheme"),
        ("h/g", "scheme"),
        ("mysql://h/g", "user"),
        ("mysql://u@/g", "host"),
        ("mysql://u@h", "database"),
        ("mysql://u@h/", "database"),
        ("mysql://u@h/%20", "database"),
        ("mysql://u@h/a/b", "database"),
        ("mysql://u@h/" + "x" * 65, "database"),
        ("mysql://u@h:0/g", "port"),
        ("mysql://u@h:99999/g", "port"),
        ("mysql://u@h:x/g", "port"),
        ("mysql://u@[::1/g", "database URL"),
        ("mysql://u@h/g#x", "database URL"),
        ("mysql://u@h/g?charset=utf8", "charset"),
        ("mysql://u@h/g?password_file", "options"),
        ("mysql://u@h/g?password_file=", "password_file"),
        ("mysql://u@h/g?password_file=relative", "password_file"),
        ("mysql://u@h/g?password_env=A&password_env=B", "password_env"),
        ("mysql://u@h/g?password_env=A&password_file=/f", "password_file"),
    ],
)
def test_a_malformed_part_is_named_and_no_secret_repeated(url, field):
    with pytest.raises(BadInput) as refusal:
        MysqlServer.from_url(url)

    assert refusal.value.field == field
    assert refusal.value.remedy
    assert "secret" not in str(refusal.value)


def test_a_password_is_read_from_its_place_and_not_shown(tmp_path, monkeypatch):
    file = tmp_path / "p"
    file.write_text("hunter2 \n")
    file.chmod(0o600)
    monkeypatch.setenv("LAB_DB", "hunter3")

    from_file = MysqlServer.from_url(f"mysql://u@h/g?password_file={file}").password()
    from_env = MysqlServer.from_url("mysql://u@h/g?password_env=LAB_DB").password()

    assert (from_file.reveal(), from_env.reveal()) == ("hunter2 ", "hunter3")
    assert MysqlServer.from_url("mysql://u@h/g").password() is None
    assert "hunter" not in repr(from_file) + repr(from_env)


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (pymysql.err.OperationalError(2003, "Can't connect"), Unreachable, "2003"),
        (pymysql.err.OperationalError(2013, "Lost connection"), Unreachable, "2013"),
        (pymysql.err.InterfaceError(0, ""), Unreachable, "closed"),
        (TimeoutError("timed out"), Unreachable, "in time"),
        (pymysql.err.OperationalError(1045, "Access denied"), CommandFailed, "password"),
        (pymysql.err.OperationalError(1049, "Unknown database 'x'"), BadInput, "'x'"),
        (pymysql.err.IntegrityError(1062, "Duplicate entry"), CommandFailed, "1062"),
    ],
)
def test_what_the_library_raises_becomes_what_the_operator_must_do(error, kind, words):
    ours = translated(error, "mysql://h/g", "SELECT 1")

    assert type(ours) is kind
    assert words in str(ours)


def test_batches_are_bounded_and_lose_no_row():
    rows = [b"x" * n for n in (5, 5, 5, 50, 1, 1)]

    found = list(batches(rows, 12))

    assert [row for batch in found for row in batch] == rows
    assert [len(batch) for batch in found] == [2, 1, 1, 2]


def test_an_option_means_itself_inside_its_quotes():
    assert quote_option('a "b" #c \\') == '"a \\"b\\" #c \\\\"'

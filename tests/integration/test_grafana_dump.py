"""The dump of the target, its proof and its restore, on a real MariaDB."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from blocks.mysql.server import MysqlServer
from recovery.errors import BadInput, CommandFailed, NotVerified, Refused, UnreadableOutput
from tasks.grafana import client, dump
from tasks.grafana.dump import (
    load_dump,
    prove_dump,
    refuse_unless_complete,
    restore,
    restore_commands,
    table_sums,
    take_dump,
)
from tests.lab.mariadb import quoted

SCRATCH = "recover_scratch_lab"
ROWS = (
    "CREATE TABLE a (id int PRIMARY KEY, t longtext, b longblob) DEFAULT CHARSET=utf8mb4",
    "INSERT INTO a VALUES (1, 'it''s \\\\ \\n \\r\\n \\0 \\Z 🔥', x'00ff27225c0a0d1a')",
    "INSERT INTO a VALUES (2, NULL, '')",
    "CREATE TABLE `odd ``name` (`key` varchar(9) PRIMARY KEY) DEFAULT CHARSET=utf8mb4",
    "INSERT INTO `odd ``name` VALUES ('x')",
    "CREATE VIEW v AS SELECT id FROM a",
    "CREATE TRIGGER tr BEFORE INSERT ON a FOR EACH ROW SET NEW.id = NEW.id",
)


@pytest.fixture
def server(mariadb, mariadb_url):
    server = MysqlServer.from_url(mariadb_url)
    mariadb.execute(*ROWS, database=server.database)
    return server


@pytest.fixture
def taken(server, tmp_path):
    return take_dump(server, tmp_path / "dumps" / "grafana.sql")


def sums(server):
    with server.connect() as session:
        return table_sums(session, server.database)


def test_a_dump_is_complete_private_and_named_only_when_whole(server, taken):
    assert taken.path.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in taken.path.parent.iterdir()] == ["grafana.sql"]
    assert [(table.name, table.rows) for table in taken.tables] == [("a", 2), ("odd `name", 1)]


def test_the_password_is_on_no_command_line(server, mariadb):
    assert mariadb.password not in client.dump_program(server).shown
    with client.options_file(server) as descriptor:
        assert os.fstat(descriptor).st_mode & 0o777 == 0o600
        in_memory = Path(f"/proc/self/fd/{descriptor}").readlink()
        assert "memfd:" in str(in_memory)  # a kill leaves no file


def test_a_dump_is_proven_in_a_scratch_database_that_is_gone_afterwards(mariadb, server, taken):
    before = sums(server)

    prove_dump(server, taken, SCRATCH)
    prove_dump(server, taken, SCRATCH)

    assert sums(server) == before
    assert (SCRATCH,) not in mariadb.execute("SHOW DATABASES")


def test_a_dump_with_other_rows_is_not_proven(mariadb, server, taken):
    text = taken.path.read_bytes().replace(b"('x')", b"('y')")
    taken.path.write_bytes(text)
    forged = dump.Dump(
        taken.path, dump.sha256_of(taken.path), len(text), taken.database, taken.tables
    )

    with pytest.raises(NotVerified, match="odd `name"):
        prove_dump(server, forged, SCRATCH)
    assert (SCRATCH,) not in mariadb.execute("SHOW DATABASES")


def test_a_scratch_database_must_be_called_like_one(server, taken):
    for name in ("grafana", server.database, ""):
        with pytest.raises(Refused, match="somebody's"):
            prove_dump(server, taken, name)


def test_an_account_that_may_not_create_a_database_gets_the_remedy(mariadb, server, taken):
    user, secret = "limited", quoted(mariadb.password)
    mariadb.execute(
        f"CREATE OR REPLACE USER {user}@'%' IDENTIFIED BY {secret}",
        f"GRANT ALL ON `{server.database}`.* TO {user}@'%'",
    )
    limited = server.model_copy(update={"user": user})

    with pytest.raises(Refused, match="GRANT ALL ON `recover_scratch_lab`"):
        prove_dump(limited, taken, SCRATCH)
    mariadb.execute(f"DROP USER {user}@'%'")


def test_a_restore_brings_back_what_was_and_drops_what_was_not(mariadb, server, taken):
    before = sums(server)
    mariadb.execute(
        "DELETE FROM a", "DROP TABLE `odd ``name`", "CREATE TABLE later (id int)",
        "CREATE VIEW w AS SELECT 1", database=server.database,
    )  # fmt: skip

    restore(server, taken)
    restore(server, taken)

    assert sums(server) == before
    found = {name for (name,) in mariadb.execute("SHOW TABLES", database=server.database)}
    assert found == {"a", "odd `name", "v"}
    (row,) = mariadb.execute("SELECT t, HEX(b) FROM a WHERE id = 1", database=server.database)
    assert row == ("it's \\ \n \r\n \0 \x1a 🔥", "00FF27225C0A0D1A")


def test_a_restore_killed_in_the_middle_is_done_again(mariadb, server, taken):
    before = sums(server)
    program = (
        "import sys; from pathlib import Path; from blocks.mysql.server import MysqlServer; "
        "from tasks.grafana import dump; server = MysqlServer.from_url(sys.argv[1]); "
        "dump.load_dump = lambda *a: (print('dropped', flush=True), sys.stdin.read()); "
        "dump.restore(server, dump.take_dump(server, Path(sys.argv[2])))"
    )
    url = mariadb.url(server.database)
    killed = subprocess.Popen(
        [sys.executable, "-c", program, url, taken.path.with_name("other.sql")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert killed.stdout.readline() == b"dropped\n"
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()
    assert sums(server) == ()

    restore(server, taken)

    assert sums(server) == before


def test_each_table_is_dropped_by_a_statement_of_its_own(mariadb, server, taken):
    names = [f"a_table_with_a_long_name_{n:03d}" for n in range(120)]
    mariadb.execute(*(f"CREATE TABLE {n} (id int)" for n in names), database=server.database)

    with server.connect() as session:
        commands = restore_commands(server, session, taken)

    assert {f"DROP TABLE IF EXISTS `{name}`" for name in names} <= set(commands)
    assert "DROP VIEW IF EXISTS `v`" in commands


def test_a_changed_or_foreign_dump_is_not_restored(server, taken, mariadb):
    before = sums(server)
    other = MysqlServer.from_url(mariadb.create_database("another"))

    with pytest.raises(Refused, match="is of the database"):
        restore(other, taken)
    with taken.path.open("ab") as file:
        file.write(b"-- more\n")
    with pytest.raises(Refused, match="the dump was"):
        restore(server, taken)
    with pytest.raises(Refused, match="the dump was"):
        prove_dump(server, taken, SCRATCH)

    assert sums(server) == before
    mariadb.execute("DROP DATABASE another")


def test_a_dump_without_its_last_line_is_not_taken_for_one(tmp_path):
    path = tmp_path / "cut.sql"
    for text in (b"", b"CREATE TABLE a (", b"-- Dump completed on x\nINSERT"):
        path.write_bytes(text)
        with pytest.raises(UnreadableOutput):
            refuse_unless_complete(path, "mariadb-dump")
    path.write_bytes(b"INSERT\n-- Dump completed on 2026-11-21  2:44:10\n")
    refuse_unless_complete(path, "mariadb-dump")


def test_the_first_statement_that_fails_ends_the_load(server, tmp_path, mariadb):
    path = tmp_path / "bad.sql"
    path.write_bytes(b"CREATE TABLE one (id int);\nNONSENSE;\nCREATE TABLE two (id int);\n")
    bad = dump.Dump(path, dump.sha256_of(path), 0, server.database, ())

    with pytest.raises(CommandFailed, match="1064"):
        load_dump(server, bad, server.database, "mariadb < bad.sql", 60)

    found = {name for (name,) in mariadb.execute("SHOW TABLES", database=server.database)}
    assert "two" not in found


def test_a_database_that_changes_while_it_is_dumped_is_refused(
    server, tmp_path, monkeypatch, mariadb
):
    run = dump.run

    def run_and_write(*args, **kwargs):
        run(*args, **kwargs)
        mariadb.execute("INSERT INTO a VALUES (9, 'late', '')", database=server.database)

    monkeypatch.setattr(dump, "run", run_and_write)

    with pytest.raises(Refused, match="changed while it was dumped"):
        take_dump(server, tmp_path / "grafana.sql")
    assert not (tmp_path / "grafana.sql").exists()


def test_a_missing_program_is_named_with_what_to_install(server, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")

    with pytest.raises(BadInput, match="mariadb-client"):
        client.dump_program(server)


def test_a_dump_that_takes_too_long_is_ended(server, tmp_path, monkeypatch):
    slow = tmp_path / "mariadb-dump"
    slow.write_text("#!/bin/sh\n[ $1 = --version ] && echo MariaDB || exec sleep 60\n")
    slow.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    started = time.monotonic()

    with pytest.raises(Exception, match=r"did not end within 0\.2 s") as late:
        take_dump(server, Path(tmp_path / "grafana.sql"), within_seconds=0.2)

    assert late.value.is_retried
    assert time.monotonic() - started < 20

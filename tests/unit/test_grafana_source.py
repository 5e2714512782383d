"""A copy of Grafana's SQLite database, taken without opening the original."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from recovery.errors import BadInput, Refused
from tasks.grafana import source
from tasks.grafana.source import open_copy, refuse_if_copy_changed, take_copy


def make(path, users=2, mode="DELETE", tables=("migration_log", "user", "org")):
    """Write a database with as many users, its connection left to the caller."""
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA journal_mode = {mode}")
    connection.execute("PRAGMA wal_autocheckpoint = 0")
    for table in tables:
        connection.execute(f'CREATE TABLE "{table}" (id INTEGER PRIMARY KEY, login TEXT)')
    connection.commit()
    if mode == "WAL":
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    for number in range(users):
        connection.execute('INSERT INTO "user" (login) VALUES (?)', (f"u{number}",))
    connection.commit()
    return connection


def state(directory):
    return {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in directory.iterdir()}


@pytest.fixture
def live(tmp_path):
    directory = tmp_path / "live"
    directory.mkdir()
    return directory / "grafana.db"


def test_a_copy_of_a_live_database_has_the_rows_of_its_log(live, tmp_path):
    with closing(make(live, users=3, mode="WAL")):
        copy = take_copy(live, tmp_path / "copy")

    assert (copy.users, copy.companions, copy.was_wal, copy.note) == (3, ("-wal",), True, "")


def test_the_original_and_its_directory_stay_as_they_are(live, tmp_path):
    with closing(make(live, mode="WAL")):
        before = state(live.parent)

        take_copy(live, tmp_path / "copy")

        assert state(live.parent) == before


def test_a_copy_is_one_file_that_only_its_owner_can_read(live, tmp_path):
    with closing(make(live, mode="WAL")):
        copy = take_copy(live, tmp_path / "copy")

    assert [p.name for p in copy.path.parent.iterdir()] == ["grafana.db"]
    assert copy.path.stat().st_mode & 0o777 == 0o600
    assert copy.path.parent.stat().st_mode & 0o777 == 0o700


def test_a_half_done_transaction_of_a_killed_grafana_is_not_in_the_copy(live, tmp_path):
    with closing(make(live, users=2)) as writer:
        writer.execute("PRAGMA cache_size = 1")
        writer.executemany('INSERT INTO "user" (login) VALUES (?)', [("x" * 999,)] * 500)
        assert Path(f"{live}-journal").exists()

        copy = take_copy(live, tmp_path / "copy")

    assert (copy.users, copy.companions) == (2, ("-journal",))


def test_a_second_copy_takes_no_log_of_the_first(live, tmp_path):
    with closing(make(live, users=1, mode="WAL")):
        take_copy(live, tmp_path / "copy")
    live.unlink()
    (tmp_path / "copy" / "grafana.db-wal").write_bytes(b"left over")
    with closing(make(live, users=4)):
        copy = take_copy(live, tmp_path / "copy")

    assert (copy.users, copy.companions) == (4, ())


def test_a_main_file_without_its_log_is_refused_when_it_holds_no_user(live, tmp_path):
    with closing(make(live, users=3, mode="WAL")):
        alone = tmp_path / "alone.db"
        alone.write_bytes(live.read_bytes())

    with pytest.raises(Refused, match=r"no user.*without its -wal"):
        take_copy(alone, tmp_path / "copy")
    assert take_copy(alone, tmp_path / "copy", ["no-users:user"]).users == 0


def test_a_log_that_is_missing_is_noted(live, tmp_path):
    make(live, users=3, mode="WAL").close()

    assert "no -wal" in take_copy(live, tmp_path / "copy").note


@pytest.mark.parametrize(
    ("content", "seen"),
    [(b"", "0 bytes"), (b"SQLite format 3\0", "no SQLite"), (b"<html>" * 99, "no SQLite")],
)
def test_what_is_no_database_is_refused(live, tmp_path, content, seen):
    live.write_bytes(content)

    with pytest.raises(BadInput, match=seen):
        take_copy(live, tmp_path / "copy")


def test_a_missing_file_and_a_directory_are_refused(live, tmp_path):
    with pytest.raises(BadInput, match="no such file"):
        take_copy(live, tmp_path / "copy")
    with pytest.raises(BadInput, match="no plain file"):
        take_copy(live.parent, tmp_path / "copy")


def test_the_place_of_the_original_is_no_place_for_a_copy(live):
    make(live).close()

    with pytest.raises(BadInput, match="the original lies in it"):
        take_copy(live, live.parent)


def test_a_database_of_something_else_is_refused(live, tmp_path):
    make(live, tables=("user",)).close()

    with pytest.raises(BadInput, match="migration_log, org"):
        take_copy(live, tmp_path / "copy")


@pytest.mark.parametrize("damage", ["page", "cut"])
def test_a_damaged_database_is_refused(live, tmp_path, damage):
    make(live, users=2000).close()
    whole = live.read_bytes()
    live.write_bytes(
        whole[:9000] if damage == "cut" else whole[:8192] + b"\xff" * 4096 + whole[12288:]
    )

    with pytest.raises(Refused, match="damaged"):
        take_copy(live, tmp_path / "copy")


def test_a_database_that_keeps_changing_is_refused(live, tmp_path, monkeypatch):
    make(live).close()
    copied = source._copy

    def copy_and_write(original, suffix, draft):
        found = copied(original, suffix, draft)
        with live.open("ab") as file:
            file.write(b"more")
        return found

    monkeypatch.setattr(source, "_copy", copy_and_write)

    with pytest.raises(Refused, match="changed during each of 3 copies"):
        take_copy(live, tmp_path / "copy", rounds_max=3)
    assert not list((tmp_path / "copy").iterdir())


def test_a_copy_is_opened_for_reading_only(live, tmp_path):
    make(live).close()
    copy = take_copy(live, tmp_path / "copy")

    with open_copy(copy.path) as connection, pytest.raises(sqlite3.OperationalError):
        connection.execute('DELETE FROM "user"')


def test_a_copy_that_changed_since_is_refused(live, tmp_path):
    make(live).close()
    copy = take_copy(live, tmp_path / "copy")
    refuse_if_copy_changed(copy)
    copy.path.write_bytes(b"other")

    with pytest.raises(Refused, match="the copy was"):
        refuse_if_copy_changed(copy)

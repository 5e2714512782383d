"""The generator of Grafana databases makes what it says."""

# ruff: noqa: S608 - the names in the statements are our own

import hashlib
import json
import shutil
import sqlite3
from contextlib import closing

import pytest

from tests.lab.grafana_awkward import LOSSY, Planted
from tests.lab.grafana_database import grafana_mysql_statements, make_grafana_database
from tests.lab.grafana_schema import grafana_11, tick, ticks


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A small database with every awkward cell."""
    return make_grafana_database(tmp_path_factory.mktemp("grafana") / "g.db", dashboards=20)


def rows_of(path):
    """Return a hash of everything in a database, as SQL."""
    with closing(sqlite3.connect(path)) as connection:
        return hashlib.sha256("\n".join(connection.iterdump()).encode()).hexdigest()


def cell(path, planted: Planted):
    """Return the cell as it is stored, a broken text as bytes."""
    where = " AND ".join(f"{tick(name)} IS ?" for name in planted.key)
    with closing(sqlite3.connect(path)) as connection:
        connection.text_factory = lambda raw: raw.decode(errors="surrogateescape")
        found = connection.execute(
            f"SELECT {tick(planted.column)} FROM {tick(planted.table)} WHERE {where}",
            tuple(planted.key.values()),
        ).fetchall()
    assert len(found) == 1, planted
    value = found[0][0]
    if isinstance(value, str) and isinstance(planted.stored, bytes):
        return value.encode(errors="surrogateescape")
    return value


def test_the_same_seed_makes_the_same_rows_and_another_seed_others(tmp_path):
    one, two, other = (
        make_grafana_database(tmp_path / name, dashboards=10, seed=seed).path
        for name, seed in (("one.db", 1), ("two.db", 1), ("other.db", 2))
    )

    assert rows_of(one) == rows_of(two) != rows_of(other)


def test_the_file_is_sound_and_has_every_table_and_migration(made):
    with closing(sqlite3.connect(made.path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        tables = {
            n for (n,) in connection.execute("SELECT name FROM sqlite_master WHERE type='table'")
        }
        logged = [
            i for (i,) in connection.execute("SELECT migration_id FROM migration_log ORDER BY id")
        ]

    assert tables == set(grafana_11().tables) | {"sqlite_sequence"}
    assert logged == grafana_11().migrations["migration_log"]


def test_counts_are_the_rows_in_the_file(made):
    with closing(sqlite3.connect(made.path)) as connection:
        for table, count in made.counts.items():
            found = connection.execute(f"SELECT count(*) FROM {tick(table)}").fetchone()[0]
            assert found == count, table


def test_every_awkward_cell_is_there(made):
    assert len(made.awkward) > 45
    for name, planted in made.awkward.items():
        assert cell(made.path, planted) == planted.stored, name
        assert type(cell(made.path, planted)) is type(planted.stored), name


def test_every_ordinary_dashboard_is_valid_json_and_some_are_blobs(made):
    with closing(sqlite3.connect(made.path)) as connection:
        rows = connection.execute("SELECT typeof(data), data FROM dashboard").fetchall()

    assert {kind for kind, _ in rows} == {"text", "blob"}
    for _, data in rows:
        json.loads(data)


def test_there_are_more_than_two_organisations_and_four_byte_letters(made):
    with closing(sqlite3.connect(made.path)) as connection:
        organisations = connection.execute("SELECT count(*) FROM org").fetchone()[0]
        fiery = connection.execute(
            "SELECT count(*) FROM dashboard WHERE instr(title, '🔥')"
        ).fetchone()[0]

    assert organisations > 2
    assert fiery == 2


def test_without_awkward_cells_every_dashboard_is_ordinary_text(tmp_path):
    plain = make_grafana_database(tmp_path / "p.db", dashboards=10, awkward=False)

    assert plain.awkward == {}
    with closing(sqlite3.connect(plain.path)) as connection:
        assert connection.execute("SELECT DISTINCT typeof(data) FROM dashboard").fetchall() == [
            ("text",)
        ]


@pytest.mark.parametrize("name", sorted(LOSSY))
def test_a_lossy_cell_is_planted_when_asked_for_and_only_then(name, tmp_path, made):
    lossy = make_grafana_database(tmp_path / "l.db", dashboards=5, lossy={name})

    assert set(lossy.lossy) == {name}
    assert cell(lossy.path, lossy.lossy[name]) == lossy.lossy[name].stored
    assert LOSSY[name].__doc__
    assert made.lossy == {}


def test_all_lossy_cells_can_be_planted_together(tmp_path):
    assert set(make_grafana_database(tmp_path / "l.db", dashboards=5, lossy=LOSSY).lossy) == set(
        LOSSY
    )


def test_an_unknown_lossy_name_is_refused(tmp_path):
    with pytest.raises(ValueError, match="bit-rot"):
        make_grafana_database(tmp_path / "l.db", lossy={"bit-rot"})


def test_the_last_rows_are_in_the_wal_alone(tmp_path):
    whole = make_grafana_database(tmp_path / "whole.db", dashboards=20, in_wal=True)
    main = shutil.copyfile(whole.path, tmp_path / "main.db")  # without its -wal

    with closing(sqlite3.connect(main)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        for table, ids in whole.last.items():
            found = connection.execute(
                f"SELECT count(*) FROM {tick(table)} WHERE rowid BETWEEN ? AND ?",
                (min(ids), max(ids)),
            ).fetchone()[0]
            assert found == 0, table
    assert {"user", "org", "dashboard", "dashboard_version"} <= set(whole.last)
    with closing(sqlite3.connect(whole.path)) as connection:
        for table, ids in whole.last.items():
            found = connection.execute(
                f"SELECT count(*) FROM {tick(table)} WHERE rowid >= {min(ids)}"
            ).fetchone()[0]
            assert found == len(ids), table


def test_the_wal_changes_where_rows_lie_and_not_which_there_are(tmp_path):
    one = make_grafana_database(tmp_path / "one.db", dashboards=10)
    two = make_grafana_database(tmp_path / "two.db", dashboards=10, in_wal=True)

    assert rows_of(one.path) == rows_of(two.path)
    assert one.last == two.last


def test_a_size_asked_for_is_met(tmp_path):
    made = make_grafana_database(tmp_path / "big.db", dashboards=10, awkward=False, size_mb=20)

    assert 18e6 < made.path.stat().st_size < 23e6


def test_a_size_that_needs_cells_too_long_for_mysql_is_refused(tmp_path):
    with pytest.raises(ValueError, match="bytes each"):
        make_grafana_database(tmp_path / "big.db", dashboards=1, versions_each=0, size_mb=100)


def test_a_file_that_exists_is_never_overwritten(made):
    with pytest.raises(FileExistsError):
        make_grafana_database(made.path)


def test_both_dialects_have_the_same_columns_though_not_always_in_the_same_order():
    tables = grafana_11().tables.values()

    assert all(set(table.sqlite) == set(table.mysql) for table in tables)
    assert [t.name for t in tables if list(t.sqlite) != list(t.mysql)] == ["seed_assignment"]


def test_a_started_mysql_has_rows_that_stand_in_the_way():
    text = "\n".join(grafana_mysql_statements(started=True))

    for table in ("org", "user", "org_user", "role", "dashboard_acl", "data_keys", "kv_store"):
        assert f"INSERT INTO `{table}`" in text
    assert "`user`" not in "\n".join(
        statement
        for statement in grafana_mysql_statements(started=False)
        if statement.startswith("INSERT")
    )
    assert ticks(["a", "b`c"]) == "`a`, `b``c`"

"""The second opinion on a migration finds what is wrong, and nothing where all is right."""

import contextlib
import sqlite3

import pymysql
import pytest

from tests.lab.cells import compare

TEXT = 'C:\\new "x" 🔥 \r\n\t\\u0000'
CREATED = "2024-03-31 02:30:00.6+02:00"
ROWS = {
    1: ("org", "Ops", TEXT, b"\x00\xff'", 1, CREATED, 9007199254740993, 0.1, "kept"),
    2: ("org", "", "", b"", "false", "2023-06-01T10:00:00Z", -(2**63), -1.5, None),
    3: ("team", None, None, None, None, None, None, None, ""),
}
STORED = {
    1: ("org", "Ops", TEXT, b"\x00\xff'", 1, "2024-03-31 00:30:00", 9007199254740993, 0.1, "kept"),
    2: ("org", "", "", b"", 0, "2023-06-01 10:00:00", -(2**63), -1.5, None),
    3: ("team", None, None, None, None, None, None, None, ""),
}
FRACTIONS = ("truncated-fraction:*",)


@pytest.fixture
def source(tmp_path):
    """A SQLite file with one table, `group`, of every kind of value."""
    path = tmp_path / "source.db"
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(
            'CREATE TABLE "group" (id INTEGER PRIMARY KEY, kind TEXT, name TEXT, data TEXT, '
            "raw BLOB, is_on INTEGER, created DATETIME, version INTEGER, score REAL, key TEXT)"
        )
        for key, row in ROWS.items():
            connection.execute(
                f'INSERT INTO "group" VALUES (?{", ?" * len(row)})',  # noqa: S608 (marks)
                (key, *row),
            )
    return path


@pytest.fixture
def target(mariadb, mariadb_url, request):
    """A connection to a MySQL database that holds the same, its columns in another order."""
    with contextlib.closing(mariadb.connect(mariadb_url.partition("?")[0].split("/")[-1])) as link:
        with link.cursor() as cursor:
            cursor.execute("SET time_zone = '+05:00'")
            cursor.execute(
                "CREATE TABLE `group` (score DOUBLE, id BIGINT PRIMARY KEY, name VARCHAR(20), "
                "`key` TEXT, kind VARCHAR(20), data MEDIUMTEXT, raw BLOB, is_on TINYINT(1), "
                "created DATETIME, version BIGINT, made_here VARCHAR(9) DEFAULT 'x') "
                "CHARSET utf8mb4"
            )
            cursor.executemany(
                "INSERT INTO `group` (id, kind, name, data, raw, is_on, created, version, score, "
                "`key`) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
                [(key, *row) for key, row in STORED.items()],
            )
        yield link


def differing(source, target, tolerate=FRACTIONS):
    """Return where they differ, as table.column of a key."""
    found = compare(source, target, ["group"], tolerate=tolerate)
    return [(each.key, each.column) for each in found.differences]


def test_equal_values_are_equal_whatever_their_form_and_every_cell_is_counted(source, target):
    found = compare(source, target, ["group"], tolerate=FRACTIONS)

    assert found.differences == []
    assert (found.rows, found.cells) == (3, 30)


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ("data = CONCAT(LEFT(data, 3), 'N', SUBSTR(data, 5))", "data"),
        ("raw = _binary x'00fe27'", "raw"),
        ("data = REPLACE(data, '\\\\', '')", "data"),
        ("data = LEFT(data, CHAR_LENGTH(data) - 1)", "data"),
        ("name = 'ops'", "name"),
        ("name = 'Ops '", "name"),
        ("name = NULL", "name"),
        ("is_on = 0", "is_on"),
        ("created = '2024-03-31 00:30:01'", "created"),
        ("created = '2024-03-31 02:30:00'", "created"),
        ("version = 9007199254740992", "version"),
        ("score = 0.1000001", "score"),
        ("`key` = ''", "key"),
    ],
    ids=[
        "a changed byte", "a changed byte of a blob", "lost backslashes", "a truncated text",
        "another case", "a trailing blank", "null for a value", "a truth value", "a rounded date",
        "a date not in UTC", "a number rounded as a double", "a real number",
        "an empty text for a value",
    ],
)  # fmt: skip
def test_one_altered_cell_is_found(change, where, source, target):
    with target.cursor() as cursor:
        assert cursor.execute(f"UPDATE `group` SET {change} WHERE id = 1") == 1  # noqa: S608

    assert differing(source, target) == [("id=1", where)]


@pytest.mark.parametrize("column", ["name", "data", "raw", "version"])
def test_null_and_empty_are_told_apart(column, source, target):
    empty = "0" if column == "version" else "''"
    with target.cursor() as cursor:
        cursor.execute(f"UPDATE `group` SET {column} = {empty} WHERE id = 3")  # noqa: S608
        cursor.execute(f"UPDATE `group` SET {column} = NULL WHERE id = 2")  # noqa: S608

    assert differing(source, target) == [("id=2", column), ("id=3", column)]


def test_a_missing_a_surplus_and_a_renumbered_row_are_found(source, target):
    with target.cursor() as cursor:
        cursor.execute("UPDATE `group` SET id = 4 WHERE id = 3")

    found = compare(source, target, ["group"], tolerate=FRACTIONS)

    assert [each.why for each in found.differences] == [
        "the row is missing", "nobody has such a row in the source",
    ]  # fmt: skip


def test_shifted_columns_are_found_though_counts_and_types_agree(source, target):
    with target.cursor() as cursor:
        cursor.execute(
            "ALTER TABLE `group` CHANGE kind other VARCHAR(20), CHANGE name kind VARCHAR(20)"
        )
        cursor.execute("ALTER TABLE `group` CHANGE other name VARCHAR(20)")

    found = differing(source, target)

    assert {("id=1", "kind"), ("id=1", "name")} <= set(found)


def test_a_fraction_that_is_gone_counts_unless_it_is_accepted_by_name(source, target):
    assert differing(source, target, ()) == [("id=1", "created")]
    assert differing(source, target, ["truncated-fraction:group.created"]) == []
    assert differing(source, target, ["truncated-fraction:other.created"]) == [("id=1", "created")]


def test_a_fraction_that_the_column_has_room_for_must_be_there(source, target):
    with target.cursor() as cursor:
        cursor.execute("ALTER TABLE `group` MODIFY created DATETIME(3)")

    assert differing(source, target) == [("id=1", "created")]

    with target.cursor() as cursor:
        cursor.execute("UPDATE `group` SET created = '2024-03-31 00:30:00.600' WHERE id = 1")
    assert differing(source, target, ()) == []


def test_a_column_that_only_the_source_has_counts_where_it_holds_something(source, target):
    with contextlib.closing(sqlite3.connect(source)) as connection, connection:
        connection.execute('ALTER TABLE "group" ADD COLUMN more TEXT')
    assert differing(source, target) == []

    with contextlib.closing(sqlite3.connect(source)) as connection, connection:
        connection.execute("UPDATE \"group\" SET more = 'lost' WHERE id = 2")
    assert differing(source, target) == [("", "more")]
    assert differing(source, target, [*FRACTIONS, "no-target-column:group.more"]) == []


def test_rows_without_a_key_are_compared_as_often_as_they_occur(source, target):
    rows = [("a", None), ("a", None), ("b", "c")]
    with contextlib.closing(sqlite3.connect(source)) as connection, connection:
        connection.execute("CREATE TABLE heap (one TEXT, two TEXT)")
        connection.executemany("INSERT INTO heap VALUES (?, ?)", rows)
    with target.cursor() as cursor:
        cursor.execute("CREATE TABLE heap (one TEXT, two TEXT)")
        cursor.executemany("INSERT INTO heap VALUES (%s, %s)", rows)
    assert compare(source, target, ["heap"]).differences == []

    with target.cursor() as cursor:
        cursor.execute("DELETE FROM heap WHERE one = 'a' LIMIT 1")
    found = compare(source, target, ["heap"])
    assert [each.why for each in found.differences] == ["the row is missing"]


def test_a_table_that_one_side_lacks_is_a_difference(source, target):
    with target.cursor() as cursor:
        cursor.execute("CREATE TABLE lonely (id INT)")

    found = compare(source, target, ["lonely", "nowhere"])

    assert [each.why for each in found.differences] == [
        "the source has no such table", "the target has no such table",
    ]  # fmt: skip


def test_rows_in_the_wal_count_and_the_source_is_not_opened(tmp_path, target):
    writer = sqlite3.connect(tmp_path / "live.db", isolation_level=None)
    writer.execute("PRAGMA journal_mode = WAL")
    writer.execute('CREATE TABLE "group" (id INTEGER PRIMARY KEY, name TEXT)')
    writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    writer.executemany('INSERT INTO "group" VALUES (?, ?)', [(1, "Ops"), (2, ""), (3, None)])
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}

    found = compare(tmp_path / "live.db", target, ["group"])

    assert (found.rows, found.differences) == (3, [])
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before
    writer.close()


def test_a_word_where_a_date_should_be_is_a_difference(source, target):
    with contextlib.closing(sqlite3.connect(source)) as connection, connection:
        connection.execute("UPDATE \"group\" SET created = 'last Tuesday' WHERE id = 2")

    assert differing(source, target) == [("id=2", "created")]


def test_a_type_that_is_not_known_is_an_error_and_not_passed_over(source, target):
    with target.cursor() as cursor:
        cursor.execute("ALTER TABLE `group` DROP kind, ADD kind BIT(8)")

    with pytest.raises(ValueError, match=r"kind.*bit\(8\)"):
        compare(source, target, ["group"])


def test_the_connection_may_read_texts_as_it_likes(source, mariadb, target):
    database = target.db.decode() if isinstance(target.db, bytes) else target.db
    link = pymysql.connect(
        host=mariadb.host, port=mariadb.port, user=mariadb.user, password=mariadb.password,
        database=database, charset="latin1",
    )  # fmt: skip
    with contextlib.closing(link):
        assert differing(source, link) == []

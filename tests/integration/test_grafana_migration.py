"""Grafana's rows arrive in a real MariaDB cell by cell, or are refused with the true reason."""

import contextlib
import sqlite3
from dataclasses import dataclass

import pytest

from blocks.mysql.server import MysqlServer
from recovery.commands import current_gate
from recovery.errors import CommandFailed, NotVerified, Refused
from tasks.grafana.acceptance import Grade, in_the_way, refuse_unless_accepted
from tasks.grafana.compare import compare_table, refuse_unless_equal
from tasks.grafana.hazards import find_hazards
from tasks.grafana.load import load_commands, load_table
from tasks.grafana.schema import read_source_schema, read_target_schema
from tasks.grafana.source import take_copy
from tasks.grafana.tables import compare_schemas
from tests.lab.grafana_awkward import LOSSY
from tests.lab.grafana_database import make_grafana_database, make_grafana_mysql_schema

LOSSES = {"sqlite-only-column", "sqlite-only-table", "newer-schema"}
ROUNDED = ["truncated-fraction:*"]


@dataclass
class Migration:
    """A copy, an open session to a freshly started target, and how their schemas compare."""

    made: object
    copy: object
    session: object

    @property
    def schemas(self):
        return compare_schemas(read_source_schema(self.copy.path), read_target_schema(self.session))

    def hazards(self):
        return find_hazards(self.copy.path, self.session, self.schemas)

    def pair(self, name):
        return next(pair for pair in self.schemas.copied if pair.name == name)

    def load(self):
        return {p.name: load_table(self.copy.path, self.session, p) for p in self.schemas.copied}

    def compare(self):
        return [compare_table(self.copy.path, self.session, p) for p in self.schemas.copied]


class Recorder:
    """A gate that lets everything pass and writes down the changes."""

    def __init__(self):
        self.changes = []

    def before(self, call):
        if call.is_change:
            self.changes.append(call.command)

    def after(self, call, error):
        pass


@contextlib.contextmanager
def migration(mariadb, url, tmp_path, **wanted):
    made = make_grafana_database(tmp_path / "grafana.db", dashboards=6, versions_each=1, **wanted)
    server = MysqlServer.from_url(url)
    with contextlib.closing(mariadb.connect(server.database)) as connection:
        make_grafana_mysql_schema(connection)
    copy = take_copy(made.path, tmp_path / "copy")
    with server.connect() as session:
        yield Migration(made, copy, session)


@pytest.fixture
def whole(mariadb, mariadb_url, tmp_path):
    with migration(mariadb, mariadb_url, tmp_path, in_wal=True) as made:
        yield made


@pytest.fixture
def plain(mariadb, mariadb_url, tmp_path):
    with migration(mariadb, mariadb_url, tmp_path, awkward=False) as made:
        yield made


def test_every_cell_arrives_and_the_awkward_ones_as_they_were(whole):
    refuse_unless_accepted("target", whole.hazards(), ROUNDED)

    whole.load()

    refuse_unless_equal("target", whole.compare())
    for name, planted in whole.made.awkward.items():
        where = " AND ".join(f"`{column}` = %s" for column in planted.key)
        shown = f"CAST(`{planted.column}` AS CHAR)" if planted.column == "created" else "*"
        column = shown if shown != "*" else f"`{planted.column}`"
        found = whole.session.rows(
            f"SELECT {column} FROM `{planted.table}` WHERE {where}",  # noqa: S608
            tuple(planted.key.values()),
        )
        assert found[0][0] in planted.acceptable, name


def test_the_count_of_cells_compared_is_that_of_the_source(whole):
    whole.load()

    found = {comparison.table: comparison for comparison in whole.compare()}

    with contextlib.closing(sqlite3.connect(whole.copy.path)) as source:
        rows = source.execute("SELECT count(*) FROM dashboard").fetchone()[0]
    columns = len(whole.pair("dashboard").columns)
    assert (found["dashboard"].rows, found["dashboard"].cells) == (rows, rows * columns)


def test_a_load_done_twice_ends_in_the_same_rows(plain):
    first = plain.load()

    second = plain.load()

    assert all(load.deleted == first[name].rows for name, load in second.items())
    refuse_unless_equal("target", plain.compare())


@pytest.mark.parametrize("name", sorted(LOSSY))
def test_what_would_be_lost_is_found_before_the_first_write(mariadb, mariadb_url, tmp_path, name):
    with migration(mariadb, mariadb_url, tmp_path, awkward=False, lossy=[name]) as made:
        found = in_the_way(made.hazards(), [])

        assert found
        grades = {hazard.grade for hazard in found}
        assert grades == {Grade.LOSS} if name in LOSSES else Grade.OBSTACLE in grades
        with pytest.raises(Refused):
            refuse_unless_accepted("target", made.hazards())


def test_a_plain_database_has_nothing_in_its_way(plain):
    assert in_the_way(plain.hazards(), []) == ()


def test_rows_that_only_the_target_has_are_named_before_they_are_deleted(plain):
    plain.session.change(
        "INSERT INTO team (name, org_id, created, updated, uid) "
        "VALUES ('Night shift', 1, NOW(), NOW(), 'n')"
    )

    found = in_the_way(plain.hazards(), [])

    assert [(hazard.name, hazard.row) for hazard in found] == [
        ("replaced-rows:team", "name='Night shift'")
    ]


def test_a_row_larger_than_the_packet_of_the_server_is_found(whole):
    whole.session.packet_max_bytes = 1 << 20

    found = [hazard for hazard in whole.hazards() if hazard.kind == "packet-too-small"]

    assert {hazard.place for hazard in found} == {"dashboard", "dashboard_version"}


def test_the_commands_sent_are_those_foretold(plain):
    recorder = Recorder()
    token = current_gate.set(recorder)
    try:
        for pair in plain.schemas.copied:
            recorder.changes.clear()
            load_table(plain.copy.path, plain.session, pair)
            assert tuple(recorder.changes) == load_commands(pair)
    finally:
        current_gate.reset(token)


def test_hooks_run_first_and_last_in_the_transaction_of_the_load(plain):
    plain.session.change("CREATE TABLE marks (n int) ENGINE=InnoDB")
    pair = plain.pair("org")

    def refuse(session):
        session.change("INSERT INTO marks VALUES (2)")
        raise Refused("target", "the fence is another's", "Leave")

    load_table(
        plain.copy.path,
        plain.session,
        pair,
        first=lambda session: session.rows("SELECT n FROM marks FOR UPDATE"),
        last=lambda session: session.change("INSERT INTO marks VALUES (1)"),
    )
    for hook in ("first", "last"):
        with pytest.raises(Refused):
            load_table(plain.copy.path, plain.session, pair, **{hook: refuse})

    assert plain.session.rows("SELECT n FROM marks") == [(1,)]
    refuse_unless_equal("target", [compare_table(plain.copy.path, plain.session, pair)])


def test_a_session_killed_in_the_middle_of_a_load_leaves_the_table_as_it_was(mariadb, plain):
    before = plain.session.rows("SELECT * FROM org")
    (own_id,) = plain.session.rows("SELECT CONNECTION_ID()")[0]

    with pytest.raises(Exception, match=r"gave no answer|closed") as lost:
        load_table(
            plain.copy.path,
            plain.session,
            plain.pair("org"),
            last=lambda _: mariadb.execute(f"KILL {own_id}"),
        )

    assert lost.value.is_retried
    with MysqlServer.from_url(
        mariadb.url(plain.session.target.rpartition("/")[2])
    ).connect() as new:
        assert new.rows("SELECT * FROM org") == before


def test_a_server_that_refuses_a_row_has_none_of_the_table(plain):
    before = plain.session.rows("SELECT login FROM user")
    plain.session.change("ALTER TABLE user ADD CONSTRAINT odd CHECK (email = 'admin@localhost')")

    with pytest.raises(CommandFailed, match="4025"):
        load_table(plain.copy.path, plain.session, plain.pair("user"))

    assert plain.session.rows("SELECT login FROM user") == before


def test_a_cell_that_does_not_fit_is_refused_at_the_load_too(mariadb, mariadb_url, tmp_path):
    with migration(
        mariadb, mariadb_url, tmp_path, awkward=False, lossy=["int-out-of-range"]
    ) as made:
        with pytest.raises(Refused, match=r"dashboard\.updated_by cannot hold 2147483648"):
            load_table(made.copy.path, made.session, made.pair("dashboard"))

        assert made.session.rows("SELECT COUNT(*) FROM dashboard") == [(0,)]


def test_a_copy_with_other_rows_than_were_looked_at_is_refused(plain):
    before = plain.session.rows("SELECT * FROM org")
    pair = plain.pair("org")
    with contextlib.closing(sqlite3.connect(plain.copy.path)) as source:
        source.execute("DELETE FROM org WHERE id = 1")
        source.commit()

    with pytest.raises(Refused, match="all was rolled back"):
        load_table(plain.copy.path, plain.session, pair)

    assert plain.session.rows("SELECT * FROM org") == before


def test_a_trigger_that_drops_or_adds_rows_is_found(plain):
    plain.session.change(
        "CREATE TRIGGER more AFTER INSERT ON org FOR EACH ROW "
        "INSERT INTO tag (`key`, `value`) VALUES (NEW.name, NEW.id)"
    )
    load_table(plain.copy.path, plain.session, plain.pair("tag"))
    load_table(plain.copy.path, plain.session, plain.pair("org"))

    found = compare_table(plain.copy.path, plain.session, plain.pair("tag"))

    assert found.rows_only_in_target > 0


def test_ids_that_sqlite_gave_and_deleted_are_not_given_again(plain):
    with contextlib.closing(sqlite3.connect(plain.copy.path)) as source:
        source.execute("UPDATE sqlite_sequence SET seq = 4711 WHERE name = 'team'")
        source.commit()

    load_table(plain.copy.path, plain.session, plain.pair("team"))

    plain.session.change(
        "INSERT INTO team (name, org_id, created, updated, uid) VALUES ('x', 1, NOW(), NOW(), 'x')"
    )
    assert plain.session.rows("SELECT MAX(id) FROM team") == [(4712,)]


@pytest.mark.parametrize(
    ("statement", "table", "numbers"),
    [
        ("UPDATE dashboard SET title = CONCAT(title, ' ') LIMIT 1", "dashboard", (1, 0, 0)),
        ("UPDATE dashboard SET created = created + 1 LIMIT 2", "dashboard", (2, 0, 0)),
        ("UPDATE kv_store SET value = UPPER(value) LIMIT 1", "kv_store", (1, 0, 0)),
        ("UPDATE user SET is_admin = 1 - is_admin LIMIT 1", "user", (1, 0, 0)),
        ("DELETE FROM org_user LIMIT 3", "org_user", (0, 3, 0)),
        ("INSERT INTO tag VALUES (999999, 'a', 'b')", "tag", (0, 0, 1)),
        ("UPDATE data_keys SET name = CONCAT(name, '2') LIMIT 1", "data_keys", (0, 1, 1)),
        ("REPLACE data_keys VALUES ('Z', 1, '', '', '', NOW(), NOW(), '')", "data_keys", (0, 0, 1)),
    ],
)  # fmt: skip
def test_one_change_in_the_target_is_found_and_named(plain, statement, table, numbers):
    plain.load()
    plain.session.change(statement)

    found = {c.table: c for c in plain.compare() if not c.is_equal}

    assert list(found) == [table]
    seen = found[table]
    assert (seen.differing_cells, seen.rows_only_in_source, seen.rows_only_in_target) == numbers
    assert seen.differences
    with pytest.raises(NotVerified, match=table):
        refuse_unless_equal("target", [seen])


def test_tables_without_a_primary_key_are_compared_as_bags(plain):
    connection = sqlite3.connect(plain.copy.path)
    with contextlib.closing(connection):
        rows = [("a", 1), ("a", 1), ("b", None), (None, 2)]
        connection.execute("CREATE TABLE bag (word TEXT, n INTEGER)")
        connection.executemany("INSERT INTO bag VALUES (?, ?)", rows)
        connection.commit()
    plain.session.change("CREATE TABLE bag (n int, word varchar(9)) ENGINE=InnoDB")
    load_table(plain.copy.path, plain.session, plain.pair("bag"))
    equal = compare_table(plain.copy.path, plain.session, plain.pair("bag"))

    plain.session.change("DELETE FROM bag WHERE word = 'a' LIMIT 1")
    plain.session.change("INSERT INTO bag VALUES (3, 'c')")
    differs = compare_table(plain.copy.path, plain.session, plain.pair("bag"))

    assert (equal.is_equal, equal.rows, equal.cells) == (True, 4, 8)
    assert (differs.rows_only_in_source, differs.rows_only_in_target) == (1, 1)


def test_keys_of_text_are_merged_in_the_order_of_their_bytes(plain):
    words = ["a", "B", "ä", "Z", "z ", "\N{FIRE}", "\ufffd", "", " ", "AA", "aa-"]
    with contextlib.closing(sqlite3.connect(plain.copy.path)) as connection:
        connection.execute("CREATE TABLE words (word TEXT PRIMARY KEY, n INTEGER)")
        connection.executemany(
            "INSERT INTO words VALUES (?, ?)", zip(words, range(99), strict=False)
        )
        connection.commit()
    plain.session.change(
        "CREATE TABLE words (n int, word varchar(9) COLLATE utf8mb4_bin PRIMARY KEY) ENGINE=InnoDB"
    )
    plain.session.change("ALTER TABLE words MODIFY word varchar(9) COLLATE utf8mb4_nopad_bin")

    load_table(plain.copy.path, plain.session, plain.pair("words"))

    found = compare_table(plain.copy.path, plain.session, plain.pair("words"))
    assert (found.is_equal, found.rows) == (True, len(words))


def test_a_collision_is_judged_by_the_collation_of_the_very_column(plain):
    with contextlib.closing(sqlite3.connect(plain.copy.path)) as connection:
        for table in ("strict", "loose"):
            connection.execute(f"CREATE TABLE {table} (id INTEGER PRIMARY KEY, word TEXT)")
            connection.executemany(
                f"INSERT INTO {table} (word) VALUES (?)",  # noqa: S608
                [("Straße",), ("strasse",), (None,), (None,)],
            )
        connection.commit()
    for table, collation in (("strict", "utf8mb4_bin"), ("loose", "utf8mb4_unicode_ci")):
        plain.session.change(
            f"CREATE TABLE {table} (id bigint PRIMARY KEY, word varchar(9) COLLATE {collation} "
            "UNIQUE) ENGINE=InnoDB"
        )

    found = [hazard for hazard in plain.hazards() if hazard.kind == "collision"]

    assert [hazard.place for hazard in found] == ["loose.word"]
    assert "Straße" in found[0].sample
    assert "strasse" in found[0].sample


def test_a_collision_seen_by_us_is_one_that_the_server_refuses(mariadb, mariadb_url, tmp_path):
    with (
        migration(
            mariadb, mariadb_url, tmp_path, awkward=False, lossy=["accent-colliding-team"]
        ) as made,
        pytest.raises(CommandFailed, match="1062"),
    ):
        made.load()


def test_nothing_but_a_session_s_own_table_is_written_while_hazards_are_looked_for(plain):
    recorder = Recorder()
    token = current_gate.set(recorder)
    try:
        plain.hazards()
    finally:
        current_gate.reset(token)

    assert recorder.changes == []


def test_a_real_date_outside_of_what_the_library_reads_is_compared(plain):
    with contextlib.closing(sqlite3.connect(plain.copy.path)) as connection:
        connection.execute("UPDATE dashboard SET created = '0001-01-01T00:00:00Z'")
        connection.commit()

    load_table(plain.copy.path, plain.session, plain.pair("dashboard"))

    assert compare_table(plain.copy.path, plain.session, plain.pair("dashboard")).is_equal

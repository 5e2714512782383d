"""Repairing the indexes of a registry on a real PostgreSQL; each test looks at the catalogue."""

# ruff: noqa: S608 (the names in the statements are ours)

import logging
import threading
from pathlib import Path
from types import SimpleNamespace

import psycopg
import pytest

import flows.registry_indexes  # noqa: F401 (declares the recovery)
from blocks.postgres.server import PostgresServer
from recovery.declare import RECOVERIES, run_plainly
from recovery.errors import BadInput, CommandFailed, NeedsPerson, NotVerified, Refused
from recovery.evidence.status import status_of, verify_journal
from recovery.journal.history import RecoveryState
from recovery.journal.opening import open_journal
from recovery.run import Options
from tasks.registry_indexes import lookups, preflight, sessions
from tasks.registry_indexes.wanted import IndexRepair
from tests.lab.processes import wait_until
from tests.lab.registry_table import COLUMNS, NAMES, TABLE, RegistryTable

pytestmark = pytest.mark.timeout(120)
REPAIR = RECOVERIES["repair-registry-indexes"]
ACCEPT = ["unknown-disk"]


def run(on, options=None, **parameters):
    defaults = {name: default for name, (_, default) in REPAIR.parameters.items()}
    given = {"database": on.url, "accept": ACCEPT, **parameters}
    return run_plainly(REPAIR, {**defaults, **given}, Options(**(options or {})))


def resume(table, recovery_id, **options):
    return run(table, {"resume": recovery_id, **options})


def statements_of(recovery_id, word):
    journal = open_journal()
    return [
        event.body["command"]
        for event in journal.events(recovery_id)
        if event.kind == "command"
        and event.body["is_change"]
        and event.body["command"].startswith(word)
    ]


@pytest.fixture(autouse=True)
def _own_journal(tmp_path, monkeypatch):
    monkeypatch.setenv("RECOVER_JOURNAL", str(tmp_path / "journal.sqlite"))
    monkeypatch.setenv("RECOVER_LEASE_SECONDS", "8")
    monkeypatch.setattr("recovery.stage.RETRY_DELAYS_SECONDS", (0.1, 1.0, 3.0))
    monkeypatch.setattr(sessions, "PAUSE_SECONDS", 0.1)
    monkeypatch.setattr(sessions, "TOLD_EVERY_SECONDS", 0.0)


@pytest.fixture
def empty(postgres, postgres_dsn):
    """A database without the table."""
    return RegistryTable(postgres, postgres_dsn.rpartition("/")[2])


@pytest.fixture
def table(empty):
    empty.make(rows=2000)
    return empty


@pytest.fixture
def in_background():
    """Run a repair beside the test; what it ended with is in `.ended` once the thread is joined."""
    started = []

    def start(table, options=None, **parameters):
        told = SimpleNamespace(ended=None)

        def work():
            told.ended = run(table, options, **parameters)

        told.thread = threading.Thread(target=work)
        told.thread.start()
        started.append(told)
        return told

    yield start
    for told in started:
        told.thread.join(60)


def is_building(table, column):
    return [pid for pid, name, _ in table.builds() if NAMES[column] in (name or "")]


def waits(table, column):
    wait_until(
        lambda: [
            pid
            for pid, name, phase in table.builds()
            if NAMES[column] in (name or "") and phase.startswith("waiting")
        ],
        f"the build on {column} to wait",
        within_seconds=20,
    )
    return is_building(table, column)[0]


def test_all_five_are_built_and_a_second_run_changes_nothing(table):
    ended = run(table)

    assert ended.state is RecoveryState.RECOVERED, ended.error
    made = table.indexes()
    assert {name: valid for name, (valid, _, _) in made.items()} == dict.fromkeys(
        NAMES.values(), True
    )
    assert [name for name, (_, unique, _) in made.items() if unique] == [NAMES["certificateId"]]
    assert {lookup.column: lookup.chosen for lookup in ended.result.lookups} == {
        column: NAMES[column] for column in COLUMNS
    }
    assert any("@>" in note for note in ended.result.notes)

    again = run(table)

    assert again.state is RecoveryState.RECOVERED
    assert again.result.built == []
    assert table.indexes() == made
    journal = open_journal()
    assert not [s for s in status_of(journal, again.recovery_id)["steps"] if s["kind"] == "act"]
    assert verify_journal(journal, None)[ended.recovery_id] == []


def test_a_plan_shows_every_statement_and_changes_nothing(table):
    ended = run(table, {"plan_only": True})

    lines = [line for step in ended.plan.steps for line in step.commands]
    assert (
        f'CREATE UNIQUE INDEX CONCURRENTLY "{NAMES["certificateId"]}" ON '
        '"public"."V_VaccinationCertificate" ("certificateId")' in lines
    )
    assert len([line for line in lines if line.startswith("CREATE")]) == 5
    assert not table.indexes()


def test_a_valid_index_of_the_definition_counts_under_any_name(table):
    table.execute(f'CREATE INDEX by_hand ON {TABLE} ("mobile" DESC)')
    table.execute(f'CREATE UNIQUE INDEX more_than_asked ON {TABLE} ("osid")')
    table.execute(f'CREATE INDEX not_unique ON {TABLE} ("certificateId")')
    table.execute(f'CREATE INDEX partial ON {TABLE} ("preEnrollmentCode") WHERE "osid" IS NOT NULL')
    table.execute(f'CREATE INDEX several ON {TABLE} ("contact", "mobile")')

    ended = run(table)

    assert ended.state is RecoveryState.RECOVERED, ended.error
    built = {NAMES[column] for column in ("preEnrollmentCode", "certificateId", "contact")}
    assert set(ended.result.built) == built
    assert set(table.indexes()) == built | {
        "by_hand", "more_than_asked", "not_unique", "partial", "several",
    }  # fmt: skip


def test_what_broken_builds_left_is_dropped_and_built_anew(table):
    table.leave_invalid("mobile")
    table.execute(f'CREATE INDEX "{NAMES["osid"]}" ON {TABLE} ("osid")')
    break_off_reindex(table, NAMES["osid"])
    table.leave_invalid("contact", name="somebody_elses")
    assert set(table.invalid()) == {
        NAMES["mobile"], f"{NAMES['osid'][:57]}_ccnew", "somebody_elses",
    }  # fmt: skip

    ended = run(table)

    assert ended.state is RecoveryState.RECOVERED, ended.error
    assert table.invalid() == ["somebody_elses"]
    assert any("somebody_elses" in note for note in ended.result.notes)
    assert len(statements_of(ended.recovery_id, "DROP")) == 2
    assert set(NAMES.values()) <= set(table.indexes())


def break_off_reindex(table, name):
    with table.holding(), psycopg.connect(table.dsn, autocommit=True) as connection:
        connection.execute("SET lock_timeout = '100ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            connection.execute(f'REINDEX INDEX CONCURRENTLY "{name}"')


def test_duplicates_stop_everything_and_are_told_by_value(table):
    table.execute(f'UPDATE {TABLE} SET "certificateId" = \'twin\' WHERE "ID" IN (3, 4)')

    ended = run(table)

    assert isinstance(ended.error, Refused)
    assert "twin (2 times)" in str(ended.error)
    assert "L3" in str(ended.error)
    assert not table.indexes()

    others = run(table, skip=["certificateId"])

    assert others.state is RecoveryState.RECOVERED, others.error
    assert set(table.indexes()) == set(NAMES.values()) - {NAMES["certificateId"]}


def test_a_duplicate_that_comes_while_it_is_built_leaves_nothing_behind(table, in_background):
    duplicate = f"INSERT INTO {TABLE} (\"certificateId\") VALUES ('9876500001')"
    with psycopg.connect(table.dsn, autocommit=True) as other:
        other.execute("BEGIN")
        other.execute(duplicate)
        told = in_background(table, skip=[c for c in COLUMNS if c != "certificateId"])
        waits(table, "certificateId")
        other.execute("COMMIT")
    told.thread.join(60)

    assert isinstance(told.ended.error, Refused)
    assert "9876500001 (2 times)" in str(told.ended.error)
    assert not table.indexes()


def test_values_that_no_btree_takes_are_refused(table):
    table.execute(
        f"UPDATE {TABLE} SET \"mobile\" = (SELECT string_agg(md5(n::text || random()::text), '') "
        'FROM generate_series(1, 200) AS n) WHERE "ID" = 7'
    )

    ended = run(table)

    assert isinstance(ended.error, Refused)
    assert "too long for a btree" in str(ended.error)
    assert not table.indexes()


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ("SELECT 1", "there is no table"),
        ('CREATE TABLE v_vaccinationcertificate ("osid" text)', "case counts"),
        ('CREATE VIEW public."V_VaccinationCertificate" AS SELECT 1 AS osid', "a view"),
        (
            'CREATE TABLE public."V_VaccinationCertificate" (osid text) PARTITION BY LIST (osid)',
            "partitioned",
        ),
        ('CREATE TABLE public."V_VaccinationCertificate" (osid text)', 'no column "preEnrollment'),
    ],
)
def test_a_table_that_is_not_the_one_is_refused(empty, made, said):
    empty.execute(made)

    ended = run(empty)

    assert isinstance(ended.error, Refused)
    assert said in str(ended.error)


def test_a_table_of_another_name_and_schema_is_repaired_too(empty):
    empty.execute('CREATE SCHEMA "Re""g"')
    columns = ", ".join(f'"{column}" text' for column in COLUMNS)
    empty.execute(f'CREATE TABLE "Re""g"."V_Other" ({columns})')

    ended = run(empty, table_schema='Re"g', table="V_Other")

    assert ended.state is RecoveryState.RECOVERED, ended.error
    assert ended.result.built[0] == 'Re"g_V_Other_preEnrollmentCode_sqlgIdx'
    assert len(empty.execute("SELECT 1 FROM pg_indexes WHERE tablename = 'V_Other'")) == 5


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (f'CREATE INDEX "{NAMES["osid"]}" ON {TABLE} ("osid", "mobile")', "is another index"),
        (f'CREATE SEQUENCE "{NAMES["osid"]}"', "is taken by a relation of kind S"),
    ],
)
def test_a_name_that_is_taken_is_refused(table, made, said):
    table.execute(made)

    ended = run(table)

    assert isinstance(ended.error, Refused)
    assert said in str(ended.error)
    assert "skip=['osid']" in str(ended.error)
    assert run(table, skip=["osid"]).state is RecoveryState.RECOVERED


def test_an_account_that_may_not_build_is_refused_and_shown_the_grant(table, tmp_path):
    role = f"reader_{abs(hash(table.database)):x}"
    table.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'not-{role}'")
    try:
        file = tmp_path / "reader"
        file.write_text(f"not-{role}")
        file.chmod(0o600)
        ended = run(table, database=table.url_as(role, file))

        assert isinstance(ended.error, Refused)
        assert f'GRANT "{table.server.user}" TO "{role}"' in str(ended.error)

        table.execute(f"ALTER TABLE {TABLE} OWNER TO {role}")
        table.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
        ended = run(table, database=table.url_as(role, file))
        assert isinstance(ended.error, Refused)
        assert "GRANT CREATE ON SCHEMA" in str(ended.error)

        table.execute(f"GRANT CREATE ON SCHEMA public TO {role}")
        with table.holding("SELECT 1"):  # of another account, which this one cannot look into
            ended = run(table, database=table.url_as(role, file), skip=["osid"])
        assert any("pg_read_all_stats" in note for note in ended.result.notes)
        assert run(table, database=table.url_as(role, file)).state is RecoveryState.RECOVERED
    finally:
        table.execute(f"DROP OWNED BY {role}")
        table.execute(f"DROP ROLE {role}")


def test_a_read_only_database_is_refused(table):
    table.execute(f'ALTER DATABASE "{table.database}" SET default_transaction_read_only = on')

    ended = run(table)

    assert isinstance(ended.error, Refused)
    assert "default_transaction_read_only" in str(ended.error)


def test_a_transaction_that_a_build_would_wait_for_is_named_and_can_be_accepted(
    table, monkeypatch, in_background
):
    monkeypatch.setattr(sessions, "OLD_MINUTES", 0)
    with table.holding() as pid:
        ended = run(table)

        assert isinstance(ended.error, Refused)
        assert f"pg_terminate_backend({pid})" in str(ended.error)
        assert "idle in transaction since" in str(ended.error)
        assert not table.indexes()

        told = in_background(table, accept=[*ACCEPT, "long-transactions"])
        waits(table, "preEnrollmentCode")
    told.thread.join(60)

    assert told.ended.state is RecoveryState.RECOVERED, told.ended.error


def test_a_transaction_that_is_in_nobodys_way_is_left_alone(table, monkeypatch):
    monkeypatch.setattr(sessions, "OLD_MINUTES", 0)
    with table.holding(f"SELECT count(*) FROM {TABLE}"):
        ended = run(table)

    assert ended.state is RecoveryState.RECOVERED, ended.error


def test_a_build_that_stands_names_who_is_in_its_way_and_is_waited_for_by_a_resume(
    table, monkeypatch, caplog
):
    monkeypatch.setattr(sessions, "MINUTE_SECONDS", 1.0)
    with table.holding() as pid, caplog.at_level(logging.INFO):
        ended = run(table, blocked_within_minutes=2)

        assert isinstance(ended.error, NeedsPerson)
        assert f"SELECT pg_terminate_backend({pid})" in str(ended.error)
        assert "UPDATE" in str(ended.error)
        builder = waits(table, "preEnrollmentCode")
    assert "waiting for writers before build" in caplog.text
    assert f"it waits for process {pid} of lab" in caplog.text

    resumed = resume(table, ended.recovery_id)

    assert resumed.state is RecoveryState.RECOVERED, resumed.error
    assert sorted(name for name, (valid, _, _) in table.indexes().items() if valid) == sorted(
        NAMES.values()
    )
    sent = [line for line in statements_of(ended.recovery_id, "CREATE") if "preEnroll" in line]
    assert len(sent) == 1
    assert builder


def test_what_others_build_is_waited_for_and_not_undone(table, in_background):
    with psycopg.connect(table.dsn, autocommit=True) as other:
        line = f'CREATE INDEX CONCURRENTLY "{NAMES["mobile"]}" ON {TABLE} ("mobile")'
        building = threading.Thread(target=other.execute, args=(line,))
        with table.holding():
            building.start()
            waits(table, "mobile")
            skip = [column for column in COLUMNS if column not in {"mobile", "osid"}]
            told = in_background(table, skip=skip)
            wait_until(
                lambda: table.execute(
                    "SELECT 1 FROM pg_stat_activity "
                    "WHERE application_name LIKE 'recover %' AND query LIKE '%pg_blocking_pids%'"
                ),
                "the repair to wait",
                within_seconds=10,
            )
            assert len(table.builds()) == 1
        told.thread.join(60)
        building.join(20)

    assert told.ended.state is RecoveryState.RECOVERED, told.ended.error
    assert len([s for s in statements_of(told.ended.recovery_id, "CREATE") if "mobile" in s]) == 0
    undone = resume(table, told.ended.recovery_id, undo_by="test", break_glass="a test")
    assert undone.state is RecoveryState.UNDONE, undone.error
    assert set(table.indexes()) == {NAMES["mobile"]}


def test_a_build_that_somebody_cancels_leaves_nothing_and_is_done_by_a_resume(table, in_background):
    with table.holding():
        told = in_background(table)
        pid = waits(table, "preEnrollmentCode")
        table.execute(f"SELECT pg_cancel_backend({pid})")
        wait_until(lambda: not table.builds(), "the build to end", within_seconds=10)
    told.thread.join(60)

    assert isinstance(told.ended.error, CommandFailed)
    assert "find out who" in str(told.ended.error)
    assert not table.indexes()
    assert resume(table, told.ended.recovery_id).state is RecoveryState.RECOVERED
    assert len(table.indexes()) == 5


def test_undo_drops_what_was_made_and_keeps_what_was_there(table):
    table.execute(f'CREATE INDEX "{NAMES["osid"]}" ON {TABLE} ("osid")')
    table.leave_invalid("mobile")
    before = table.indexes()[NAMES["osid"]]
    made = run(table)
    assert made.state is RecoveryState.RECOVERED, made.error

    undone = resume(table, made.recovery_id, undo_by="test", break_glass="a test")

    assert undone.state is RecoveryState.UNDONE, undone.error
    assert table.indexes() == {NAMES["osid"]: before}


def test_an_undo_cancels_the_build_that_still_waits(table, monkeypatch):
    monkeypatch.setattr(sessions, "MINUTE_SECONDS", 0.5)
    with table.holding():
        ended = run(table, blocked_within_minutes=1)
        assert isinstance(ended.error, NeedsPerson)
        waits(table, "preEnrollmentCode")
    with table.holding(f"LOCK TABLE {TABLE} IN ACCESS SHARE MODE"):
        pass

    undone = resume(table, ended.recovery_id, undo_by="test")

    assert undone.state is RecoveryState.UNDONE, undone.error
    assert not table.builds()
    assert not table.indexes()


def test_a_build_that_takes_too_long_is_told_and_goes_on(table, monkeypatch):
    monkeypatch.setattr(sessions, "WITHIN_HOURS", 0.0)
    with table.holding():
        ended = run(table)
        assert isinstance(ended.error, NotVerified)
        assert waits(table, "preEnrollmentCode")
    monkeypatch.undo()


def test_an_index_that_is_gone_again_is_not_verified(table):
    run(table)
    table.execute(f'DROP INDEX "{NAMES["osid"]}"')
    repair = repair_of(table)

    with pytest.raises(NotVerified, match="osid"):
        lookups.lookups_use_indexes(repair)
    table.leave_invalid("osid")
    with pytest.raises(NotVerified, match="INVALID"):
        lookups.lookups_use_indexes(repair)


def repair_of(table, **fields):
    whole = {"database": PostgresServer.from_url(table.url), "host": None, "schema": "public",
             "table": "V_VaccinationCertificate", "skip": (), "accept": tuple(ACCEPT),
             "blocked_within_minutes": 1}  # fmt: skip
    return IndexRepair(**{**whole, **fields})


def test_an_unknown_disk_is_refused_unless_accepted(table):
    ended = run(table, accept=[])

    assert isinstance(ended.error, Refused)
    assert "how much is free is not known" in str(ended.error)
    assert not table.indexes()


@pytest.mark.parametrize(
    ("parameters", "field"),
    [
        ({"skip": ["nonesuch"]}, "skip"),
        ({"skip": list(COLUMNS)}, "skip"),
        ({"accept": ["anything"]}, "accept"),
        ({"blocked_within_minutes": 0}, "blocked_within_minutes"),
        ({"table": " "}, "table"),
        ({"table_schema": ""}, "table_schema"),
        ({"table": "x" * 40}, "table"),
        ({"database": "postgresql://u@h/d?sslmode=maybe"}, "database (sslmode)"),
    ],
)
def test_a_parameter_that_is_wrong_is_named(table, parameters, field):
    ended = run(table, **parameters)

    assert isinstance(ended.error, BadInput)
    assert ended.error.field == field


def test_no_secret_is_written_anywhere(table, tmp_path, capsys, caplog):
    with caplog.at_level(logging.DEBUG):
        run(table)

    secret = table.server.password
    assert secret not in caplog.text + "".join(capsys.readouterr())
    for file in tmp_path.iterdir():
        assert secret.encode() not in file.read_bytes()
    assert Path(tmp_path / "journal.sqlite").exists()


def test_the_estimate_of_an_index_is_near_what_it_becomes(empty):
    empty.make(rows=50_000)
    repair = repair_of(empty)
    with repair.database.connect() as session:
        found = preflight.found_table(session, repair)
        guessed = {c: preflight.index_bytes(session, repair, found, c) for c in COLUMNS}
    run(empty)

    for column in COLUMNS:
        real = empty.execute(f"SELECT pg_relation_size('\"{NAMES[column]}\"')")[0][0]
        assert 0.6 < guessed[column] / real < 1.8, (column, guessed[column], real)

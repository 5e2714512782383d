"""Backing up a real PostgreSQL, and restoring it in drills; each test looks at files and server."""

import hashlib
import json
import shutil
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from urllib.parse import quote
from uuid import uuid4

import pytest
from typer.testing import CliRunner

import flows.postgres_backup  # noqa: F401 (declares the recoveries)
from blocks.postgres.programs import PostgresProgram
from operate.cli import app
from operate.drills.records import is_proven
from recovery.declare import RECOVERIES, run_plainly
from recovery.drill import read_runs
from recovery.errors import BadInput, CommandFailed, NotVerified, Refused, TargetTaken
from recovery.evidence.status import verify_journal
from recovery.journal.history import RecoveryState
from recovery.journal.opening import open_journal
from recovery.launch import launch
from recovery.run import Options, recovery_id_of
from recovery.stage import PlainStage
from tasks.postgres_backup import preflight

pytestmark = pytest.mark.timeout(120)
BACK_UP = RECOVERIES["back-up-postgres"]
DRILL = RECOVERIES["drill-postgres-restore"]


class Store:
    """A database with rows, and a folder for its backups."""

    def __init__(self, server, database, folder):
        self.server, self.database, self.folder = server, database, folder
        self.execute("CREATE TABLE people (id int PRIMARY KEY, name text NOT NULL)")
        self.execute("INSERT INTO people SELECT n, 'name ' || n FROM generate_series(1, 500) n")
        self.execute('CREATE TABLE "Odd Name" (id int REFERENCES people, note text)')
        self.execute("CREATE INDEX by_name ON people (name)")

    def execute(self, statement):
        return self.server.execute(statement, self.database)

    def url(self, database=""):
        name, password = database or self.database, quote(str(self.server.password_file))
        place = f"{self.server.user}@{self.server.host}:{self.server.port}"
        return f"postgresql://{place}/{name}?password_file={password}"

    def back_up(self, options=None, **parameters):
        given = {"database": self.url(), "folder": str(self.folder), **parameters}
        return run(BACK_UP, given, options)

    def drill(self, options=None, **parameters):
        given = {"folder": str(self.folder), "server": self.url("lab"), **parameters}
        return run(DRILL, given, options)

    def dumps(self):
        return {path.stem for path in self.folder.glob("*.dump")}

    def manifest(self, backup):
        return json.loads((self.folder / f"{backup}.json").read_text())

    def scratch(self):
        found = self.server.execute("SELECT datname FROM pg_database WHERE datname ~ '^drill_'")
        return [name for (name,) in found]


def run(recovery, given, options):
    defaults = {name: default for name, (_, default) in recovery.parameters.items()}
    return run_plainly(recovery, {**defaults, **given}, Options(**(options or {})))


@pytest.fixture(autouse=True)
def _own_journal(tmp_path, monkeypatch):
    monkeypatch.setenv("RECOVER_JOURNAL", str(tmp_path / "journal.sqlite"))
    monkeypatch.setenv("RECOVER_LEASE_SECONDS", "8")


@pytest.fixture
def store(postgres, postgres_dsn, tmp_path):
    return Store(postgres, postgres_dsn.rpartition("/")[2], tmp_path / "backups")


def test_a_backup_is_proven_by_a_drill_that_leaves_nothing_behind(store):
    before = datetime.now(UTC)
    taken = store.back_up()
    assert taken.state is RecoveryState.RECOVERED, taken.error
    backup = taken.recovery_id
    manifest = store.manifest(backup)
    assert store.dumps() == {backup}
    assert {p.stat().st_mode & 0o777 for p in store.folder.iterdir()} == {0o600}
    assert manifest["contents"]["rows"]['"public"."people"'] == 500
    assert manifest["run_id"] == backup
    store.execute("DELETE FROM people WHERE id > 10")  # the backup is of before that

    ended = store.drill()

    assert ended.state is RecoveryState.RECOVERED, ended.error
    proven = ended.result
    assert proven.backup == backup
    assert proven.rows == 501
    assert before < proven.newest_canary_at < proven.incident_at
    assert timedelta(seconds=proven.rpo_seconds) < datetime.now(UTC) - before
    assert set(proven.phases) == {"decide", "fetch", "restore", "verify"}
    assert sum(proven.phases.values()) == pytest.approx(proven.rto_seconds)
    assert store.scratch() == []
    journal = open_journal()
    assert [each.is_proof for each in read_runs(journal, DRILL.name)] == [True]
    assert not any(verify_journal(journal, None).values())


def test_a_database_whose_text_has_no_encoding_is_backed_up_and_restored(postgres, tmp_path):
    ascii_only = "ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
    postgres.execute("DROP DATABASE IF EXISTS old_ascii WITH (FORCE)")
    postgres.execute(f"CREATE DATABASE old_ascii {ascii_only}")
    store = Store(postgres, "old_ascii", tmp_path / "backups")
    store.execute("INSERT INTO people VALUES (1000, E'M\\303\\274ller')")

    taken = store.back_up()
    ended = store.drill()

    assert taken.state is RecoveryState.RECOVERED, taken.error
    assert ended.state is RecoveryState.RECOVERED, ended.error
    assert ended.result.rows == 502


def test_the_command_line_tells_what_was_proven_when_and_in_which_time(store):
    def told(*words):
        ended = CliRunner().invoke(app, [*words, "--json"])
        assert ended.exit_code == 0, ended.output
        return json.loads(ended.stdout)

    before = told("drill", "list")
    store.back_up()
    settings = {"folder": str(store.folder), "server": store.url("lab")}
    options = [part for each in settings.items() for part in ("--set", "=".join(each))]
    run_here = told("drill", "run", DRILL.name, *options)
    (row,) = told("drill", "list")
    (past,) = told("drill", "history", DRILL.name)
    listed = {each["name"]: each for each in told("list")}

    assert [each["last"] for each in before] == ["never run"]
    assert run_here["state"] == row["last"] == "recovered"
    assert row["is_proven"]
    assert row["proves"] == BACK_UP.name
    assert row["rto_seconds"] == pytest.approx(sum(past["phases"].values()))
    assert listed[BACK_UP.name]["is_proven"]
    assert listed[BACK_UP.name]["proven_at"] == row["proven_at"]
    assert not listed[DRILL.name]["has_drill"]
    refused = CliRunner().invoke(app, ["drill", "run", BACK_UP.name])
    assert refused.exit_code == 2


def test_a_proof_runs_out(monkeypatch):
    days = [(datetime.now(UTC) - timedelta(days=n)).isoformat() for n in (1, 29, 31)]

    assert [is_proven(at) for at in ("", *days)] == [False, True, True, False]
    monkeypatch.setenv("RECOVER_DRILL_DAYS", "soon")
    with pytest.raises(BadInput, match="RECOVER_DRILL_DAYS"):
        is_proven(days[0])


def test_a_plan_shows_every_command_and_changes_nothing(store):
    planned = store.back_up({"plan_only": True})
    store.back_up()
    drill = store.drill({"plan_only": True})

    lines = [line for step in (*planned.plan.steps, *drill.plan.steps) for line in step.commands]
    assert any(line.startswith("pg_dump --host=") and ".dump" in line for line in lines)
    assert any(line.startswith("pg_restore --host=") for line in lines)
    assert sum(line.startswith("DROP DATABASE IF EXISTS") for line in lines) == 2
    assert len(store.dumps()) == 1
    assert store.scratch() == []


def test_the_password_is_in_no_command_line_journal_or_manifest(store):
    taken = store.back_up()
    store.drill()

    journal = open_journal()
    told = [event.body_text for each in journal.recovery_ids() for event in journal.events(each)]
    assert store.server.password not in "".join(told)
    assert store.server.password not in json.dumps(store.manifest(taken.recovery_id))


def test_only_surplus_backups_of_the_same_database_are_removed_and_only_whole_ones_count(
    store, tmp_path
):
    first, broken, third = (store.back_up(keep=9).recovery_id for _ in range(3))
    another = store.manifest(third) | {"run_id": "0" * 12, "store": "postgresql://other:1/x"}
    (store.folder / f"{'0' * 12}.json").write_text(json.dumps(another))
    shutil.copy(store.folder / f"{third}.dump", store.folder / f"{'0' * 12}.dump")
    with (store.folder / f"{broken}.dump").open("ab") as file:
        file.write(b"more")

    ended = store.back_up(keep=2)

    assert ended.state is RecoveryState.RECOVERED, ended.error
    assert ended.result.removed == [first]
    assert store.dumps() == {broken, third, "0" * 12, ended.recovery_id}


def test_a_backup_that_is_much_smaller_is_told_and_no_earlier_one_removed(store):
    store.execute("INSERT INTO people SELECT n, md5(n::text) FROM generate_series(1000, 9000) n")
    first = store.back_up(keep=1).recovery_id
    store.execute("DELETE FROM people WHERE id > 10")

    refused = store.back_up(keep=1)
    assert isinstance(refused.error, NotVerified), refused.error
    assert "much-smaller" in str(refused.error)
    assert store.dumps() == {first}
    assert len(list(store.folder.iterdir())) == 2

    accepted = store.back_up(keep=1, accept=["much-smaller"])

    assert accepted.state is RecoveryState.RECOVERED, accepted.error
    assert store.dumps() == {accepted.recovery_id}


def test_an_encrypted_backup_is_restored_with_its_key_and_with_no_other(store, tmp_path):
    key, other = tmp_path / "key", tmp_path / "other"
    for file, digit in ((key, "a"), (other, "b")):
        file.touch(mode=0o600)
        file.write_text(digit * 64)
    taken = store.back_up(key_file=str(key))
    assert taken.state is RecoveryState.RECOVERED, taken.error
    assert b"PGDMP" not in (store.folder / f"{taken.recovery_id}.dump").read_bytes()

    without, wrong = store.drill(), store.drill(key_file=str(other))
    proven = store.drill(key_file=str(key))

    assert isinstance(without.error, Refused)
    assert "key_file=PATH" in str(without.error)
    assert isinstance(wrong.error, Refused)
    assert proven.state is RecoveryState.RECOVERED, proven.error
    assert store.scratch() == []


def test_a_copy_that_is_another_one_fails_the_drill_and_is_destroyed(store):
    backup = store.back_up().recovery_id
    manifest = store.manifest(backup)
    manifest["contents"]["rows"]['"public"."people"'] = 501
    manifest["contents"]["rows"]['"public"."gone"'] = 1
    manifest["contents"]["indexes"] += 1
    (store.folder / f"{backup}.json").write_text(json.dumps(manifest))

    ended = store.drill()

    assert isinstance(ended.error, NotVerified), ended.error
    for part in ("had 501 rows and has 500", '"gone" is not there', "valid indexes"):
        assert part in str(ended.error)
    assert store.scratch() == []


def test_a_dump_that_cannot_be_restored_leaves_no_database_behind(store):
    backup = store.back_up().recovery_id
    path, manifest = store.folder / f"{backup}.dump", store.manifest(backup)
    path.write_bytes(path.read_bytes()[:-400] + bytes(400))  # as a disk damaged it before the hash
    manifest["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (store.folder / f"{backup}.json").write_text(json.dumps(manifest))

    ended = store.drill()

    assert isinstance(ended.error, CommandFailed | NotVerified), ended.error
    assert store.scratch() == []


@pytest.mark.parametrize("spoilt", ["changed", "gone", "named"])
def test_a_backup_that_is_not_what_was_written_is_refused(store, spoilt):
    backup = store.back_up().recovery_id
    path = store.folder / f"{backup}.dump"
    if spoilt == "changed":
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 255
        path.write_bytes(content)
    elif spoilt == "gone":
        path.unlink()

    ended = store.drill(backup="f" * 12 if spoilt == "named" else "")

    assert isinstance(ended.error, Refused), ended.error
    assert store.scratch() == []


def test_several_databases_in_one_folder_want_a_name_and_an_incident_an_earlier_backup(store):
    first = store.back_up()
    other = Store.__new__(Store)
    other.server, other.database, other.folder = store.server, "lab", store.folder
    other.back_up()

    unnamed = store.drill()
    label = store.manifest(first.recovery_id)["store"]
    named = store.drill(store=label)
    early = store.drill(store=label, incident_at=datetime(2020, 1, 1, tzinfo=UTC))

    assert "several databases" in str(unnamed.error)
    assert named.result.backup == first.recovery_id, named.error
    assert "there is no whole backup" in str(early.error)


def test_rights_and_old_programs_are_named_before_anything_is_done(store, monkeypatch):
    store.server.execute("CREATE ROLE weak LOGIN PASSWORD 'weak-pass-1'")
    store.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO weak")
    monkeypatch.setenv("WEAK", "weak-pass-1")
    place = f"postgresql://weak@{store.server.host}:{store.server.port}"
    try:
        canary = store.back_up(database=f"{place}/{store.database}?password_env=WEAK")
        store.back_up()
        create = store.drill(server=f"{place}/lab?password_env=WEAK")
        store.execute('DROP SCHEMA "recovery" CASCADE')
        store.execute('CREATE SCHEMA "recovery" AUTHORIZATION weak')
        with_schema = store.back_up(database=f"{place}/{store.database}?password_env=WEAK")
    finally:
        store.execute("DROP OWNED BY weak")
        store.server.execute("DROP ROLE weak")
    old = PostgresProgram("/bin/false", "9.6")
    monkeypatch.setattr(preflight, "newest_program", lambda name: old)
    dump, restore = store.back_up(), store.drill()

    assert "may not write the canary" in str(canary.error)
    assert with_schema.state is RecoveryState.RECOVERED, with_schema.error
    assert "CREATEDB" in str(create.error)
    assert "pg_dump 9.6 of this worker is older than the server" in str(dump.error)
    assert "pg_restore 9.6 of this worker is older" in str(restore.error)
    assert all(isinstance(e.error, Refused) for e in (canary, create, dump, restore))


def test_a_dump_of_thousands_of_tables_is_listed_to_its_end(store):
    store.execute(
        "DO $$ BEGIN FOR n IN 1..1200 LOOP "
        "EXECUTE format('CREATE TABLE a_table_with_quite_a_long_name_%s (id int)', n); "
        "END LOOP; END $$"
    )
    store.execute(
        "CREATE TABLE zz_last AS SELECT gen_random_uuid() id FROM generate_series(1, 90000)"
    )

    taken = store.back_up()

    assert taken.state is RecoveryState.RECOVERED, taken.error
    assert taken.result.taken.tables == 1204


def test_little_disk_is_refused_and_accepted_by_name(store, monkeypatch):
    full = SimpleNamespace(free=1000)
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda path: full)

    refused, accepted = store.back_up(), store.back_up(accept=["little-disk"])

    assert "1.2" not in str(refused.error)
    assert "little-disk" in str(refused.error)
    assert accepted.state is RecoveryState.RECOVERED, accepted.error


def test_a_database_of_the_drills_name_that_it_did_not_make_is_left_alone(store):
    store.back_up()
    run_id = str(uuid4())
    name = f"drill_{recovery_id_of(run_id)}"
    store.server.create_database(name)
    store.server.execute("CREATE TABLE precious (id int)", name)
    defaults = {each: default for each, (_, default) in DRILL.parameters.items()}
    given = {**defaults, "folder": str(store.folder), "server": store.url("lab")}
    try:
        ended = launch(DRILL, given, Options(), PlainStage(), run_id)

        assert isinstance(ended.error, Refused), ended.error
        assert store.server.execute("SELECT count(*) FROM precious", name) == [(0,)]
    finally:
        store.server.execute(f'DROP DATABASE "{name}"')


def test_undo_of_a_backup_removes_its_files_and_its_canary(store):
    taken = store.back_up()

    undone = store.back_up({"resume": taken.recovery_id, "undo_by": "Ada", "break_glass": "a test"})

    assert undone.state is RecoveryState.UNDONE, undone.error
    assert list(store.folder.iterdir()) == []
    assert store.execute("SELECT count(*) FROM recovery.canary") == [(0,)]


def test_a_scheduled_run_that_finds_its_target_taken_is_skipped(store):
    journal = open_journal()
    target = BACK_UP.target_of(database=store.url(), folder=str(store.folder))
    journal.take_lease(target, "another", "a test", 20)

    skipped, refused = store.back_up({"if_taken": "skip"}), store.back_up()

    assert skipped.error is None
    assert skipped.message.startswith("skipped: recovery another holds it")
    assert isinstance(refused.error, TargetTaken)
    assert store.dumps() == set()


@pytest.mark.parametrize(
    ("parameters", "field"),
    [
        ({"folder": "backups"}, "folder"),
        ({"keep": 0}, "keep"),
        ({"accept": ["all"]}, "accept"),
        ({"key_file": "/nowhere/key"}, "backup_key_file"),
        ({"database": "mysql://a@b/c"}, "database (scheme)"),
    ],
)
def test_a_parameter_that_is_wrong_is_named(store, parameters, field):
    ended = store.back_up(**parameters)

    assert isinstance(ended.error, BadInput)
    assert ended.error.field == field


@pytest.mark.parametrize(
    ("parameters", "field"),
    [({"backup": "../etc"}, "backup"), ({"incident_at": datetime(2026, 3, 1)}, "incident_at")],  # noqa: DTZ001 (in no zone)
)
def test_a_parameter_of_a_drill_that_is_wrong_is_named(store, parameters, field):
    ended = store.drill(**parameters)

    assert isinstance(ended.error, BadInput)
    assert ended.error.field == field

"""Backing up a real PostgreSQL, and restoring it in drills; each test looks at files and server."""

import json
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import pytest

import flows.postgres_backup  # noqa: F401 (declares the recoveries)
from recovery.declare import RECOVERIES, run_plainly
from recovery.drill import read_runs
from recovery.evidence.status import verify_journal
from recovery.journal.history import RecoveryState
from recovery.journal.opening import open_journal
from recovery.run import Options

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

"""Moving a Grafana from start to end, with real servers; each test looks at the database itself."""

import json
import shutil
import sqlite3
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from blocks.mysql.server import _kept_sessions
from flows.grafana import Moved
from recovery.declare import RECOVERIES, run_plainly
from recovery.errors import BadInput, CommandFailed, NeedsPerson, NotVerified, Refused, Unreachable
from recovery.evidence.report import markdown_report
from recovery.evidence.report_markdown import inline
from recovery.evidence.status import status_of, verify_journal
from recovery.journal.history import RecoveryState
from recovery.journal.opening import open_journal
from recovery.run import Options
from tests.lab.cells import compare
from tests.lab.grafana_api import TOKEN, stand_in_grafana
from tests.lab.grafana_awkward import LOSSY
from tests.lab.grafana_database import make_grafana_database, make_grafana_mysql_schema
from tests.lab.grafana_schema import grafana_11
from tests.lab.ports import free_port
from tests.lab.sshd import private_sshd

pytestmark = pytest.mark.timeout(120)
ACCEPT = ["truncated-fraction:*"]
LEFT_ALONE = {"migration_log", "server_lock", "session", "user_auth_token", "login_attempt",
              "cache_data", "entity_event", "test_data", "resource_migration_log"}  # fmt: skip
TABLES = [name for name in grafana_11().tables if name not in LEFT_ALONE]
MOVE = RECOVERIES["move-grafana-to-mysql"]


@dataclass
class Move:
    """One Grafana to be moved, and the parameters that move it."""

    source: Path
    server: object
    database: str
    parameters: dict = field(default_factory=dict)

    def run(self, **options):
        defaults = {name: default for name, (_, default) in MOVE.parameters.items()}
        return run_plainly(MOVE, {**defaults, **self.parameters}, Options(**options))

    def plan(self):
        return self.run(plan_only=True)

    def approved(self):
        return self.run(approve=self.plan().plan.hash)

    def differences(self, tolerate=ACCEPT):
        with self.server.connect(self.database) as connection:
            return compare(self.source, connection, TABLES, tolerate=tolerate)

    def contents(self):
        """Checksum of every table: what a refused move must leave as it was."""
        tables = self.server.execute("SHOW TABLES", database=self.database)
        return self.checksums([name for (name,) in tables])

    def checksums(self, tables):
        return self.server.execute(
            "CHECKSUM TABLE " + ", ".join(f"`{name}`" for name in tables), database=self.database
        )


@pytest.fixture
def move(mariadb, mariadb_url, tmp_path, monkeypatch):
    monkeypatch.setenv("RECOVER_JOURNAL", str(tmp_path / "journal.sqlite"))
    monkeypatch.setenv("RECOVER_WORK_DIR", str(tmp_path / "work"))
    monkeypatch.setenv("RECOVER_LEASE_SECONDS", "8")
    monkeypatch.setattr("recovery.stage.RETRY_DELAYS_SECONDS", (0.1,))
    source = tmp_path / "grafana.db"
    make_grafana_database(source, dashboards=20, versions_each=1)
    database = urlsplit(mariadb_url).path.strip("/")
    with mariadb.connect(database) as connection:
        make_grafana_mysql_schema(connection)
    parameters = {"source": str(source), "target": mariadb_url, "accept": ACCEPT}
    yield Move(source, mariadb, database, parameters)
    _kept_sessions.clear()


def test_every_cell_arrives_and_the_source_is_never_opened(move):
    beside = sorted(path.name for path in move.source.parent.glob("grafana.db*"))
    before = move.source.read_bytes()

    ended = move.approved()

    assert ended.state is RecoveryState.RECOVERED, ended.error
    found = move.differences()
    assert found.cells > 5_000
    assert not found.differences
    assert ended.result.cells_found_equal > 5_000
    assert "start one replica" in status_of(open_journal(), ended.recovery_id)["next"]
    assert move.source.read_bytes() == before
    assert sorted(path.name for path in move.source.parent.glob("grafana.db*")) == beside
    assert ("recover_fence",) not in move.server.execute("SHOW TABLES", database=move.database)
    with_journal = open_journal()
    assert verify_journal(with_journal, ended.recovery_id) == {ended.recovery_id: []}
    assert status_of(with_journal, ended.recovery_id)["state"] == "recovered"


def test_tables_that_both_sides_have_and_that_stay_are_named_with_the_reason(move):
    """Goal: plan, outcome and report say what was not moved, and the target keeps that."""
    move.server.execute(
        "INSERT INTO server_lock (operation_uid, version, last_execution) VALUES ('theirs', 1, 7)",
        "INSERT INTO cache_data (cache_key, data, expires, created_at) VALUES ('theirs', '', 1, 1)",
        database=move.database,
    )
    move.parameters["skip_tables"] = ["star"]
    kept = [*LEFT_ALONE, "star"]
    before = move.checksums(kept)

    planned = move.plan()
    ended = move.run(approve=planned.plan.hash)

    told = ended.result.tables_not_moved
    assert ended.state is RecoveryState.RECOVERED, ended.error
    assert sorted(told) == sorted(kept)
    assert told["star"] == "you asked to leave it out"
    assert told["session"] == "log-ins of browsers; people log in again"
    assert ended.result.tables_moved == len(TABLES) - 1
    assert move.checksums(kept) == before
    (found,) = [s.found for s in planned.plan.steps if s.key == "tables_not_moved"]
    report = markdown_report(open_journal(), ended.recovery_id, is_full=False)
    for table, reason in told.items():
        assert f"{table}: {reason}" in found
        assert f"  - {inline(table)}: {inline(reason)}\n" in report


def test_a_recovery_that_was_begun_before_these_were_named_is_resumed(move, stopped):
    """Goal: the journal of an earlier release, which has no such step, is gone on with."""
    assert "tables_not_moved" not in {event.step for event in open_journal().events(stopped)}

    ended = move.run(resume=stopped, break_glass="test")

    assert ended.state is RecoveryState.RECOVERED, ended.error
    assert sorted(ended.result.tables_not_moved) == sorted(LEFT_ALONE)
    assert Moved(1, 2, 0, []).tables_not_moved == {}


def test_a_second_move_changes_nothing(move):
    assert move.approved().state is RecoveryState.RECOVERED
    after_first = move.contents()

    second = move.approved()

    assert second.state is RecoveryState.RECOVERED, second.error
    assert second.result.tables_moved == 0
    assert move.contents() == after_first
    steps = status_of(open_journal(), second.recovery_id)["steps"]
    assert not [step for step in steps if step["kind"] == "act"]


def test_a_plan_after_a_move_finds_nothing_that_would_be_lost(move):
    assert move.approved().state is RecoveryState.RECOVERED

    planned = move.plan()

    assert not planned.plan.refusals
    assert not any(step.commands for step in planned.plan.steps)


def test_rows_that_lie_in_the_log_alone_arrive(move):
    move.source.unlink()
    made = make_grafana_database(move.source, dashboards=20, versions_each=1, in_wal=True)
    assert Path(f"{move.source}-wal").stat().st_size > 0
    assert made.last

    ended = move.approved()

    assert ended.state is RecoveryState.RECOVERED, ended.error
    assert not move.differences().differences
    assert Path(f"{move.source}-wal").exists()


def test_undo_puts_back_what_was_there(move):
    before = move.contents()
    moved = move.approved()
    after = move.contents()
    assert after != before

    unasked = move.run(resume=moved.recovery_id, undo_by="tester")
    assert isinstance(unasked.error, NeedsPerson)  # people have used it since
    assert move.contents() == after
    undone = move.run(resume=moved.recovery_id, undo_by="tester", break_glass="wrong target")

    assert undone.state is RecoveryState.UNDONE, undone.error
    assert move.contents() == before


@pytest.mark.parametrize("name", sorted(LOSSY))
def test_what_would_be_lost_is_refused_by_name_before_the_first_write(move, name):
    move.source.unlink()
    make_grafana_database(move.source, dashboards=5, versions_each=1, lossy={name})
    before = move.contents()

    ended = move.run(break_glass="test")

    assert ended.state is RecoveryState.REFUSED
    assert isinstance(ended.error, Refused | BadInput)
    assert move.contents() == before
    assert ended.error.exit_code in {2, 5}


def test_a_target_that_somebody_else_uses_is_refused(move):
    move.server.execute(
        "INSERT INTO data_source (org_id, version, type, name, access, url, basic_auth, created, "
        "updated, is_default) VALUES (1, 1, 'prometheus', 'theirs', 'proxy', '', 0, NOW(), "
        "NOW(), 0)",
        database=move.database,
    )
    before = move.contents()

    ended = move.run(break_glass="test")

    assert isinstance(ended.error, Refused)
    assert "replaced-rows:data_source" in str(ended.error)
    assert "theirs" in str(ended.error)
    assert move.contents() == before


def test_without_an_approved_plan_nothing_is_touched(move):
    before = move.contents()

    ended = move.run()

    assert isinstance(ended.error, NeedsPerson)
    assert move.plan().plan.hash in str(ended.error)
    assert move.contents() == before


def test_a_plan_that_is_no_longer_what_would_be_done_is_void(move):
    approved = move.plan().plan.hash
    with sqlite3.connect(move.source) as connection:
        connection.execute("DELETE FROM star")
        connection.execute("DELETE FROM playlist_item")
    before = move.contents()

    ended = move.run(approve=approved)

    assert isinstance(ended.error, NeedsPerson)
    assert approved in str(ended.error)
    assert move.contents() == before


def broken(move, tmp_path, server):
    """Bad input by name: what is changed in the parameters, and what the error must say."""
    garbage, empty, cut = tmp_path / "garbage.db", tmp_path / "empty.db", tmp_path / "cut.db"
    garbage.write_bytes(b"this is no database at all" * 100)
    empty.touch()
    whole = move.source.read_bytes()
    cut.write_bytes(whole[: len(whole) // 2])
    wrong = tmp_path / "wrong-password"
    wrong.write_text("nobody's")
    wrong.chmod(0o600)
    place = f"{server.host}:{server.port}"
    secret = f"password_file={server.password_file}"
    return {
        "missing file": ({"source": "/nowhere/grafana.db"}, BadInput, "no such file"),
        "relative path": ({"source": "grafana.db"}, BadInput, "absolute"),
        "no database": ({"source": str(garbage)}, BadInput, "no SQLite database"),
        "empty file": ({"source": str(empty)}, BadInput, "empty"),
        "malformed database": ({"source": str(cut)}, Refused, "damaged"),
        "password in the URL": (
            {"target": f"mysql://lab:pw@{place}/{move.database}"}, BadInput, "password_file"
        ),
        "wrong password": (
            {"target": f"mysql://lab@{place}/{move.database}?password_file={wrong}"},
            CommandFailed, "password",
        ),
        "no server": (
            {"target": f"mysql://lab@127.0.0.1:{free_port()}/g?{secret}"}, Unreachable, "no answer"
        ),
        "no such database": (
            {"target": f"mysql://lab@{place}/not_there?{secret}"}, BadInput, "not_there"
        ),
        "unknown table to skip": ({"skip_tables": ["dashbord"]}, BadInput, "dashbord"),
        "table that is needed": ({"skip_tables": ["data_keys"]}, Refused, "left-out:data_keys"),
        "no such unit form": ({"grafana": "docker://x"}, BadInput, "systemd+ssh"),
        "dashboards without Grafana": ({"dashboards": "/x"}, BadInput, "grafana_url"),
    }  # fmt: skip


NAMES = ["missing file", "relative path", "no database", "empty file", "malformed database",
         "password in the URL", "wrong password", "no server", "no such database",
         "unknown table to skip", "table that is needed", "no such unit form",
         "dashboards without Grafana"]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_bad_input_is_named_and_nothing_is_touched(move, tmp_path, mariadb, name):
    change, error_type, said = broken(move, tmp_path, mariadb)[name]
    move.parameters |= change
    before = move.contents()

    ended = move.run(break_glass="test")

    assert isinstance(ended.error, error_type), ended.error
    assert said in str(ended.error)
    assert move.contents() == before


def test_the_fence_of_another_recovery_is_respected(move):
    move.server.execute(
        "CREATE TABLE recover_fence (item varchar(190) PRIMARY KEY, recovery_id varchar(64), "
        "epoch bigint, copy_sha256 varchar(64), row_count bigint, session_id bigint)",
        "INSERT INTO recover_fence VALUES ('fence', 'somebodyelse', 3, '', 0, 0)",
        database=move.database,
    )
    before = move.contents()

    ended = move.run(break_glass="test")

    assert isinstance(ended.error, Refused)
    assert "somebodyelse" in str(ended.error)
    assert move.contents() == before


def test_a_source_on_another_host_is_fetched_over_ssh(move, tmp_path):
    with private_sshd(tmp_path / "sshd") as host:
        block = host.block()
        move.parameters["source"] = (
            f"ssh://{block.user}@{block.address}:{block.port}{move.source}"
            f"?key_file={block.key_file}&known_hosts={block.known_hosts_file}"
        )

        ended = move.approved()

    assert ended.state is RecoveryState.RECOVERED, ended.error
    assert not move.differences().differences


def test_dashboards_are_imported_once_into_the_moved_grafana(move, tmp_path):
    folder = tmp_path / "dashboards"
    folder.mkdir()
    dashboard = {"uid": "again", "title": "Imported again", "panels": [{"id": 1, "type": "text"}]}
    (folder / "again.json").write_text(json.dumps(dashboard))
    token = tmp_path / "token"
    token.write_text(TOKEN)
    token.chmod(0o600)
    with stand_in_grafana() as grafana:
        move.parameters |= {
            "dashboards": str(folder), "grafana_url": f"{grafana.url}?token_file={token}"
        }  # fmt: skip

        first = move.approved()
        posts = [c for c in commands(first.recovery_id) if c.startswith("POST")]
        second = move.approved()

    assert first.state is RecoveryState.RECOVERED, first.error
    assert len(posts) == 1
    assert second.state is RecoveryState.RECOVERED, second.error
    assert not [c for c in commands(second.recovery_id) if c.startswith("POST")]


def test_a_recovery_goes_on_where_its_copy_is_not(move, tmp_path, monkeypatch):
    """The copy is taken anew on another worker; the dump of before cannot be."""
    move.server.execute(
        "CREATE TRIGGER stop BEFORE INSERT ON tag FOR EACH ROW "
        "SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'stopped by the test'",
        database=move.database,
    )
    stopped = move.run(break_glass="test")
    assert stopped.state is RecoveryState.FAILED, stopped.error
    move.server.execute("DROP TRIGGER stop", database=move.database)
    elsewhere = tmp_path / "elsewhere"
    monkeypatch.setenv("RECOVER_WORK_DIR", str(elsewhere))

    alone = move.run(resume=stopped.recovery_id, break_glass="test")

    assert alone.state in {RecoveryState.NEEDS_PERSON, RecoveryState.REFUSED}, alone.error
    shutil.copytree(tmp_path / "work" / stopped.recovery_id, elsewhere / stopped.recovery_id,
                    dirs_exist_ok=True)  # fmt: skip
    together = move.run(resume=stopped.recovery_id, break_glass="test")
    assert together.state is RecoveryState.RECOVERED, together.error
    assert not move.differences().differences


@pytest.fixture
def stopped(move):
    """A move that was stopped in the middle of its loads: go on with `resume`."""
    move.server.execute(
        "CREATE TRIGGER stop BEFORE INSERT ON tag FOR EACH ROW "
        "SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'stopped by the test'",
        database=move.database,
    )
    ended = move.run(break_glass="test")
    assert ended.state is RecoveryState.FAILED, ended.error
    move.server.execute("DROP TRIGGER stop", database=move.database)
    return ended.recovery_id


def test_a_source_that_changed_since_it_was_copied_is_noticed(move, stopped):
    with sqlite3.connect(move.source) as connection:
        connection.execute("UPDATE org SET name = 'renamed since' WHERE id = 1")

    ended = move.run(resume=stopped, break_glass="test")

    assert isinstance(ended.error, NotVerified)
    assert "has changed since" in str(ended.error)


def test_rows_that_came_after_the_dump_are_not_replaced(move, stopped):
    move.server.execute(
        "INSERT INTO user_role (org_id, user_id, role_id, created) VALUES (1, 4711, 1, NOW())",
        database=move.database,
    )

    ended = move.run(resume=stopped, break_glass="test")

    assert isinstance(ended.error, Refused)
    assert "user_role was written to after the dump was taken" in str(ended.error)
    rows = move.server.execute(
        "SELECT COUNT(*) FROM user_role WHERE user_id = 4711", database=move.database
    )
    assert rows == ((1,),)


def test_a_target_that_lost_a_column_in_between_is_looked_at_again(move, stopped):
    move.server.execute("ALTER TABLE user_role DROP COLUMN created", database=move.database)

    ended = move.run(resume=stopped, break_glass="test")

    assert isinstance(ended.error, Refused)
    assert "no-target-column:user_role.created" in str(ended.error)


def commands(recovery_id):
    journal = open_journal()
    try:
        return [e.body["command"] for e in journal.events(recovery_id) if e.kind == "command"]
    finally:
        journal.close()

"""Moving a Grafana while its worker is killed: before, inside and after every step."""

import os
import signal
import sqlite3
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from recovery.journal.history import StepState, read_history
from tests.faults.conftest import (
    flaws_of,
    kill_points,
    sampled,
    shards,
    the_recovery,
    told_events,
)
from tests.lab.cells import compare
from tests.lab.grafana_database import make_grafana_database
from tests.lab.grafana_schema import grafana_11
from tests.lab.processes import wait_until

# Enough tables for every kind of step, few enough to be killed at each: with text and blobs, with
# an awkward cell, and without any row.
KEPT = (
    "migration_log", "org", "user", "dashboard", "data_source", "data_keys", "kv_store", "tag",
    "server_lock", "playlist", "star", "test_data",
)  # fmt: skip
ACCEPT = ["truncated-fraction:*"]
LEASE_SECONDS = "3"  # a busy machine must be able to renew it
SHARDS = shards(20, in_a_sample=2)
UNDO_SHARDS = shards(4, in_a_sample=1)
POINTS = 3  # of each shard in an ordinary run; all of them with FAULTS=all


@dataclass
class World:
    """A source, a target, and the journal of whoever moves one to the other."""

    server: object
    database: str
    source: Path
    folder: Path
    fresh: dict
    module = "flows.grafana"
    flow = "move-grafana-to-mysql"

    @property
    def parameters(self):
        return {
            "source": str(self.source),
            "target": self.server.url(self.database),
            "accept": ACCEPT,
        }

    @property
    def environment(self):
        return {
            "RECOVER_JOURNAL": str(self.folder / "journal.sqlite"),
            "RECOVER_WORK_DIR": str(self.folder / "work"),
            "RECOVER_LEASE_SECONDS": LEASE_SECONDS,
        }

    def rows(self):
        return contents(self.server, self.database)

    def differences(self):
        with self.server.connect(self.database) as connection:
            moved = [
                name for name in KEPT if name not in {"migration_log", "server_lock", "test_data"}
            ]
            return compare(self.source, connection, moved, tolerate=ACCEPT)


def contents(server, database):
    found = {}
    with server.connect(database) as connection, connection.cursor() as cursor:
        cursor.execute("SHOW TABLES")
        for (table,) in cursor.fetchall():
            cursor.execute(f"CHECKSUM TABLE `{table}`")
            found[table] = cursor.fetchone()[1]
    return found


@pytest.fixture(scope="session")
def source(tmp_path_factory):
    path = tmp_path_factory.mktemp("source") / "grafana.db"
    make_grafana_database(path, dashboards=12, versions_each=1)
    with sqlite3.connect(path, isolation_level=None) as connection:
        tables = connection.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table'"
        ).fetchall()
        for (table,) in tables:
            if table not in KEPT and not table.startswith("sqlite_"):
                connection.execute(f'DROP TABLE "{table}"')
    return path


@pytest.fixture
def make_world(mariadb, source, tmp_path):
    made = []

    def make():
        database = f"killed_{tmp_path.name.replace('-', '_')[-24:]}_{len(made)}"
        mariadb.create_database(database)
        made.append(database)
        statements = [t.mysql_statement() for t in grafana_11().tables.values() if t.name in KEPT]
        mariadb.execute(*statements, database=database)
        mariadb.execute(*log_rows(source), database=database)
        mariadb.execute(
            "INSERT INTO org (id, version, name, created, updated) "
            "VALUES (1, 0, 'Main Org.', '2026-01-01', '2026-01-01')",
            database=database,
        )
        folder = tmp_path / str(len(made))
        folder.mkdir()
        return World(mariadb, database, source, folder, contents(mariadb, database))

    yield make
    for database in made:
        mariadb.execute(f"DROP DATABASE IF EXISTS `{database}`")


def log_rows(source):
    """What a Grafana of the same version has logged on the target."""
    with sqlite3.connect(source) as connection:
        rows = connection.execute("SELECT migration_id FROM migration_log WHERE success").fetchall()
    values = ", ".join(
        "('{}', '', 1, '', '2026-01-01 00:00:00')".format(name.replace("'", "''"))
        for (name,) in rows
    )
    columns = "migration_id, `sql`, success, error, timestamp"
    return [f"INSERT INTO migration_log ({columns}) VALUES {values}"]  # noqa: S608


@pytest.mark.timeout(240)
@pytest.mark.parametrize("shard", SHARDS)
def test_a_move_killed_at_any_event_ends_with_the_same_target(make_world, runs, shard):
    """Goal: no instruction of the move is a point of no return, and none is done twice.

    Method: kill the worker before and after an event of the journal (hence before, inside and after
    every step and every statement), resume, and look at the database rather than at what the move
    says of itself. The shards divide the events among them.
    """
    undisturbed = make_world()
    whole = runs.run(undisturbed, break_glass="fault test")
    assert whole.answer["state"] == "recovered", whole.answer
    points = kill_points(whole.events)[shard :: len(SHARDS)]
    assert points

    for point in sampled(points, POINTS, f"{shard}"):
        world = make_world()
        killed = runs.run(world, kill=point, break_glass="fault test")
        assert killed.exit_code == -9, (point, killed)
        recovery_id = the_recovery(world)
        options = {"resume": recovery_id} if recovery_id else {}
        resumed = runs.run(world, break_glass="fault test", **options)

        at = (point, whole.events[point[0] - 1])
        assert resumed.answer["state"] == "recovered", (at, resumed.answer)
        found = world.differences()
        assert found.cells > 0, at
        assert not found.differences, (at, found.differences[:3])
        assert world.rows() == undisturbed.rows(), at
        assert flaws_of(world) == [], at
        assert_nothing_done_twice(world, resumed.answer["id"], at)


def assert_nothing_done_twice(world, recovery_id, at):
    """A load whose commit an earlier attempt had confirmed or reached is not sent again."""
    commits = Counter(
        event.step
        for event in told_events(world, recovery_id)
        if event.kind == "command"
        and event.body["command"] == "COMMIT"
        and not event.body.get("error")
    )
    assert all(times == 1 for times in commits.values()), (at, commits)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("statement", ["DELETE", "INSERT", "REPLACE", "COMMIT", "DROP TABLE"])
def test_a_paused_worker_that_wakes_up_changes_nothing_more(make_world, runs, statement):
    """Goal: who was away longer than the lease does not undo what another has done since.

    Method: stop a worker (SIGSTOP) when a statement was sent and is not noted yet, let another one
    recover the target, wake the first one up, and compare the target before and after that.
    """
    whole = runs.run(make_world(), break_glass="fault test")
    n = next(
        n
        for n, (_, step, _, command) in enumerate(whole.events, 1)
        if command.startswith(statement) and step in {"load_table[dashboard]", "remove_fence"}
    )
    world = make_world()
    paused = runs.run(world, kill=(n, "stop"), break_glass="fault test")
    assert paused.stopped, paused
    recovered = runs.run(world, resume=the_recovery(world), break_glass="fault test")
    assert recovered.answer["state"] == "recovered", recovered.answer
    rows, events = world.rows(), len(told_events(world, recovered.answer["id"]))

    os.kill(paused.stopped, signal.SIGCONT)
    wait_until(lambda: not Path(f"/proc/{paused.stopped}").exists() or is_zombie(paused.stopped),
               "the paused worker to leave", within_seconds=30)  # fmt: skip

    assert world.rows() == rows
    assert not world.differences().differences
    assert len(told_events(world, recovered.answer["id"])) == events
    assert flaws_of(world) == []


def is_zombie(pid):
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


@pytest.mark.timeout(240)
@pytest.mark.parametrize("shard", UNDO_SHARDS)
def test_an_undo_killed_at_any_event_ends_with_what_was_there(make_world, runs, shard):
    """Goal: the way back survives what the way there survives.

    Method: move, begin to undo, kill before or after an event, undo again, and compare the target
    with what it was before the move.
    """
    first = make_world()
    moved = runs.run(first, break_glass="fault test")
    whole = runs.run(first, resume=moved.answer["id"], undo_by="fault test", break_glass="test")
    assert whole.answer["state"] == "undone", whole.answer
    assert first.rows() == first.fresh
    points = kill_points(whole.events)[shard :: len(UNDO_SHARDS)]

    for point in sampled(points, POINTS, f"undo {shard}"):
        world = make_world()
        moved = runs.run(world, break_glass="fault test")
        killed = runs.run(
            world, kill=point, resume=moved.answer["id"], undo_by="fault test", break_glass="test"
        )
        assert killed.exit_code == -9, (point, killed)
        again = runs.run(world, resume=moved.answer["id"], undo_by="fault test", break_glass="test")

        at = (point, whole.events[point[0] - 1])
        assert again.answer["state"] == "undone", (at, again.answer)
        assert world.rows() == world.fresh, at
        history = read_history(told_events(world, moved.answer["id"]))
        loads = {step.state for key, step in history.steps.items() if key.startswith("load_table")}
        assert loads <= {StepState.UNDONE, StepState.ALREADY_SO}, at

"""Backups and drills of a real PostgreSQL while the worker is killed.

What counts is the world: one whole backup and no half of one, the earlier ones kept, no database
of a drill left behind. What the recovery says of itself comes second.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote
from uuid import uuid4

import pytest

from tasks.kept_files import sha256_of
from tasks.postgres_backup.manifest import read_manifest
from tests.faults.conftest import JournaledWorld, flaws_of, kill_points, sampled, shards
from tests.lab.postgres import private_postgres
from tests.lab.session import started_or_skipped

SHARDS = shards(3, in_a_sample=1)
POINTS = 2  # of each shard in an ordinary run; all of them with FAULTS=all
EARLIER = 2


@pytest.fixture(scope="module")
def postgres_of_ours(tmp_path_factory):
    with started_or_skipped(private_postgres(tmp_path_factory.mktemp("postgres"))) as server:
        yield server


@dataclass
class BackupWorld(JournaledWorld):
    """A database with rows, its folder of backups, and the journal of whoever works on them."""

    server: object
    database: str
    folder: Path
    flow: str

    module = "flows.postgres_backup"
    ends = ("recovered", "undone")

    @property
    def parameters(self):
        if self.flow == "back-up-postgres":
            return {
                "database": self.url(self.database), "folder": str(self.backups), "keep": EARLIER,
            }  # fmt: skip
        return {"folder": str(self.backups), "server": self.url("lab")}

    @property
    def backups(self):
        return self.folder / "backups"

    def url(self, name):
        password, place = quote(str(self.server.password_file)), f"lab@{self.server.host}"
        return f"postgresql://{place}:{self.server.port}/{name}?password_file={password}"

    def assert_whole(self, at):
        manifests = [read_manifest(path) for path in self.backups.glob("*.json")]
        assert len(manifests) == EARLIER, at
        for manifest in manifests:
            assert sha256_of(self.backups / f"{manifest.run_id}.dump") == manifest.sha256, at
            assert manifest.contents.rows['"public"."people"'] == 200, at
        assert len(list(self.backups.iterdir())) == 2 * EARLIER, at
        scratch = "SELECT datname FROM pg_database WHERE datname ~ '^drill_'"
        assert self.server.execute(scratch) == [], at
        assert flaws_of(self) == [], at


@pytest.fixture
def make_world(postgres_of_ours, tmp_path, runs):
    database = f"w{uuid4().hex[:12]}"
    postgres_of_ours.create_database(database)
    for statement in (
        "CREATE TABLE people (id int PRIMARY KEY, name text)",
        "INSERT INTO people SELECT n, 'name ' || n FROM generate_series(1, 200) n",
    ):
        postgres_of_ours.execute(statement, database)
    first = BackupWorld(postgres_of_ours, database, tmp_path / "first", "back-up-postgres")
    first.folder.mkdir()
    for _ in range(EARLIER):
        assert runs.run(first).answer["state"] == "recovered"

    def make(flow):
        world = BackupWorld(postgres_of_ours, database, tmp_path / uuid4().hex[:8], flow)
        world.folder.mkdir()
        shutil.copytree(first.backups, world.backups)
        return world

    yield make
    postgres_of_ours.execute(f'DROP DATABASE IF EXISTS "{database}" WITH (FORCE)')


@pytest.mark.timeout(300)
@pytest.mark.parametrize("shard", SHARDS)
@pytest.mark.parametrize("flow", ["back-up-postgres", "drill-postgres-restore"])
def test_a_worker_killed_at_any_event_leaves_whole_backups_and_no_scratch(
    make_world, runs, flow, shard
):
    """Goal: no instruction leaves half a backup, costs an old one, or a scratch database behind.

    Method: kill -9 the worker before and after an event of the journal (hence before, inside and
    after every step and every statement), resume in another process, and look at folder and server.
    """
    undisturbed = make_world(flow)
    whole = runs.run(undisturbed)
    assert whole.answer["state"] == "recovered", whole.answer
    undisturbed.assert_whole("undisturbed")
    points = kill_points(whole.events)[shard :: len(SHARDS)]
    assert points

    for point in sampled(points, POINTS, f"{flow}{shard}"):
        world = make_world(flow)
        killed = runs.run(world, kill=point)
        at = (point, whole.events[point[0] - 1])
        assert killed.exit_code == -9, (at, killed)
        resumed = world.resume(runs)

        assert resumed.answer["state"] == "recovered", (at, resumed.answer)
        world.assert_whole(at)


@pytest.mark.timeout(120)
def test_the_undo_of_a_drill_that_was_killed_destroys_its_database(make_world, runs):
    """Goal: a drill does not outlive itself when nobody wants to go on with it.

    Method: kill -9 the worker before it notes that pg_restore has ended, undo, look at the server.
    """
    whole = runs.run(make_world("drill-postgres-restore"))
    n = next(n for n, (kind, step, *_) in enumerate(whole.events, 1)
             if kind == "done" and step == "restore_backup")  # fmt: skip
    world = make_world("drill-postgres-restore")
    assert runs.run(world, kill=(n, "before")).exit_code == -9
    assert len(world.server.execute("SELECT 1 FROM pg_database WHERE datname ~ '^drill_'")) == 1

    ended = world.resume(runs, undo_by="fault test")

    assert ended.answer["state"] == "undone", ended.answer
    world.assert_whole("undone")

"""Recovering a registry's database and its indexes while the worker, or the server, is killed.

What counts is the server: every index once and none INVALID, by its own log; one start or restart
at most. What the recovery says of itself comes second.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import pytest

from tests.faults.conftest import (
    PROJECT,
    flaws_of,
    kill_points,
    sampled,
    shards,
    the_recovery,
    told_events,
)
from tests.lab.hosts import lab_hosts
from tests.lab.postgres import private_postgres
from tests.lab.processes import wait_until
from tests.lab.registry_host import CONFIG, UNIT, RegistryHost
from tests.lab.registry_table import NAMES, RegistryTable
from tests.lab.session import started_or_skipped

SHARDS = shards(6, in_a_sample=1)
SERVER_SHARDS = shards(3, in_a_sample=1)
BACK = {"undo_by": "fault test", "break_glass": "a test"}
SERVER_POINTS = 2
POINTS = 3  # of each shard in an ordinary run; all of them with FAULTS=all
BEGUN = """
import sys
import flows.registry_indexes
from recovery.declare import RECOVERIES, run_plainly
from recovery.run import Options
declared = RECOVERIES["repair-registry-indexes"]
given = {name: default for name, (_, default) in declared.parameters.items()}
given |= {"database": sys.argv[1], "accept": ["unknown-disk"]}
print(run_plainly(declared, given, Options()).state)
"""


# -- indexes -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def postgres_of_ours(tmp_path_factory):
    """A server that may be killed, and that logs what is built on it."""
    options = {"log_statement": "ddl", "log_line_prefix": "%d ", "max_connections": "40"}
    folder = tmp_path_factory.mktemp("postgres")
    with started_or_skipped(private_postgres(folder, options=options)) as server:
        yield server


@dataclass
class IndexWorld:
    """A table without its indexes, and the journal of whoever builds them."""

    table: RegistryTable
    folder: Path

    module = "flows.registry_indexes"
    flow = "repair-registry-indexes"
    retry_delays = (0.2, 1.0, 3.0)

    @property
    def parameters(self):
        return {"database": self.table.url, "accept": ["unknown-disk"]}

    @property
    def environment(self):
        return {
            "RECOVER_JOURNAL": str(self.folder / "journal.sqlite"),
            "RECOVER_LEASE_SECONDS": "3",
        }

    def resume(self, runs, **options):
        recovery_id = the_recovery(self)
        return runs.run(self, **({"resume": recovery_id} if recovery_id else {}), **options)

    def built(self):
        """How often the server was told to build each index, by its own log."""
        log = self.table.server.log.read_text(errors="replace").splitlines()
        lines = [line for line in log if line.startswith(f"{self.table.database} ")]
        creates = [line for line in lines if " INDEX CONCURRENTLY " in line and "CREATE" in line]
        return {
            column: sum(f'"{name}"' in line for line in creates) for column, name in NAMES.items()
        }

    def assert_whole(self, at, *, times=1):
        found = self.table.indexes()
        assert set(NAMES.values()) <= set(found), (at, found)
        assert self.table.invalid() == [], at
        assert self.table.builds() == [], at
        assert max(self.built().values()) <= times, (at, self.built())
        assert flaws_of(self) == [], at


@pytest.fixture
def make_table(postgres_of_ours, tmp_path):
    made = []

    def make(*, has_leftover=True):
        database = f"w{uuid4().hex[:12]}"
        postgres_of_ours.start()
        postgres_of_ours.create_database(database)
        table = RegistryTable(postgres_of_ours, database)
        table.make(rows=300)
        if has_leftover:
            table.leave_invalid("contact", name=f"{NAMES['contact'][:57]}_ccnew")
        folder = tmp_path / str(len(made))
        folder.mkdir()
        made.append(database)
        return IndexWorld(table, folder)

    yield make
    postgres_of_ours.start()
    for database in made:
        postgres_of_ours.execute(f'DROP DATABASE IF EXISTS "{database}" WITH (FORCE)')


@pytest.mark.timeout(300)
@pytest.mark.parametrize("shard", SHARDS)
def test_a_worker_killed_at_any_event_builds_each_index_once(make_table, runs, shard):
    """Goal: no instruction is a point of no return, and no index is built twice.

    Method: kill -9 the worker before and after an event of the journal (hence before, inside and
    after every step and every statement), resume in another process, and count at the server.
    """
    undisturbed = make_table()
    whole = runs.run(undisturbed)
    assert whole.answer["state"] == "recovered", whole.answer
    undisturbed.assert_whole("undisturbed")
    points = kill_points(whole.events)[shard :: len(SHARDS)]
    assert points

    for point in sampled(points, POINTS, f"{shard}"):
        world = make_table()
        killed = runs.run(world, kill=point)
        at = (point, whole.events[point[0] - 1])
        assert killed.exit_code == -9, (at, killed)
        resumed = world.resume(runs)

        assert resumed.answer["state"] == "recovered", (at, resumed.answer)
        world.assert_whole(at)


@contextlib.contextmanager
def begun(world):
    """A worker of its own process that has begun to build; its process is yielded."""
    environment = {**os.environ, **world.environment}
    with subprocess.Popen(
        [sys.executable, "-c", BEGUN, world.table.url],
        cwd=PROJECT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        try:
            wait_until(world.table.builds, "a build to run", within_seconds=60)
            yield process
        finally:
            process.kill()


@pytest.mark.timeout(180)
def test_a_build_goes_on_when_its_worker_is_killed_and_is_adopted(make_table, runs):
    """Goal: a killed worker costs no second scan of the table.

    Method: hold the first build by a transaction, kill -9 the worker, resume while the server still
    builds, end the transaction, and count the builds in the log of the server.
    """
    world = make_table(has_leftover=False)
    with world.table.holding(), begun(world) as worker:
        (building, _, _), = world.table.builds()  # fmt: skip
        os.kill(worker.pid, signal.SIGKILL)
        worker.wait(10)
        resumed = {}
        thread = threading.Thread(target=lambda: resumed.update(ended=world.resume(runs)))
        thread.start()
        wait_until(
            lambda: world.table.execute(
                "SELECT 1 FROM pg_stat_activity WHERE application_name LIKE 'recover %' "  # noqa: S608
                f"AND pid <> {building} AND query LIKE '%pg_blocking_pids%'"
            ),
            "the resume to wait for the build",
            within_seconds=30,
        )
        assert [pid for pid, _, _ in world.table.builds()] == [building]
    thread.join(60)

    assert resumed["ended"].answer["state"] == "recovered", resumed["ended"].answer
    world.assert_whole("adopted")
    assert set(world.built().values()) == {1}
    assert any(
        "waited for" in str(event.body) or event.kind == "verdict"
        for event in told_events(world, resumed["ended"].answer["id"])
    )


@pytest.mark.timeout(180)
@pytest.mark.parametrize("victim", ["backend", "server"])
def test_a_build_cut_off_by_the_death_of_the_server_is_cleaned_up(make_table, runs, victim):
    """Goal: what a crash of the server leaves INVALID is neither kept nor trusted.

    Method: hold the first build, kill -9 its backend (which makes the server crash and recover) or
    the server, let it come up again, resume until it has recovered, and look at the catalogue.
    """
    world = make_table(has_leftover=False)
    server = world.table.server
    with world.table.holding() as holder, begun(world) as worker:
        assert holder
        ((building, _, _),) = world.table.builds()
        if victim == "backend":
            os.kill(building, signal.SIGKILL)
        else:
            server.kill()
            wait_until(lambda: not alive(building), "its backends to be gone", within_seconds=30)
        with contextlib.suppress(Exception):
            server.start()
        wait_until(server.answers, "the server to be back", within_seconds=60)
        os.kill(worker.pid, signal.SIGKILL)
        worker.wait(10)
    ended = world.resume(runs)

    assert ended.answer["state"] == "recovered", ended.answer
    world.assert_whole(victim, times=3)
    assert world.built()["osid"] == 1


def alive(pid):
    return Path(f"/proc/{pid}").exists()


@pytest.mark.timeout(120)
def test_a_paused_worker_that_wakes_up_builds_and_drops_nothing(make_table, runs):
    """Goal: who was away longer than the lease does not undo what another has done since.

    Method: stop a worker (SIGSTOP) before it notes that an index is built, let another one finish,
    wake the first one up, and compare the indexes before and after that.
    """
    whole = runs.run(make_table())
    n = next(
        n
        for n, (_, _, is_change, command) in enumerate(whole.events, 1)
        if is_change and "CREATE INDEX" in command and "mobile" in command
    )
    world = make_table()
    paused = runs.run(world, kill=(n, "stop"))
    assert paused.stopped, paused
    recovered = world.resume(runs)
    assert recovered.answer["state"] == "recovered", recovered.answer
    indexes = world.table.indexes()

    os.kill(paused.stopped, signal.SIGCONT)
    wait_until(lambda: not alive(paused.stopped) or is_zombie(paused.stopped),
               "the paused worker to leave", within_seconds=30)  # fmt: skip

    assert world.table.indexes() == indexes
    world.assert_whole("woken")


def is_zombie(pid):
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


@pytest.mark.timeout(240)
def test_an_undo_killed_at_any_event_ends_with_what_was_there(make_table, runs):
    """Goal: the way back survives what the way there survives.

    Method: repair, begin to undo, kill before or after an event, undo again, look at the catalogue.
    """
    first = make_table()
    runs.run(first)
    whole = first.resume(runs, **BACK)
    assert whole.answer["state"] == "undone", whole.answer
    assert first.table.indexes() == {}

    for point in sampled(kill_points(whole.events), POINTS, "undo"):
        world = make_table()
        runs.run(world)
        killed = runs.run(world, kill=point, resume=the_recovery(world), **BACK)
        assert killed.exit_code == -9, (point, killed)
        again = world.resume(runs, **BACK)

        assert again.answer["state"] == "undone", (point, again.answer)
        assert world.table.indexes() == {}, point
        assert flaws_of(world) == [], point


# -- the server ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    folder = tmp_path_factory.mktemp("registry")
    with started_or_skipped(lab_hosts(folder, 1, names=("db1",))) as lab:
        registry = RegistryHost(lab.hosts[0], folder)
        registry.prepare()
        yield registry


@dataclass
class ServerWorld:
    """A server that is down, or listens where nobody reaches it, and the journal beside it."""

    registry: RegistryHost
    folder: Path
    starts: int
    before: str
    more: dict = field(default_factory=dict)

    module = "flows.registry_database"
    flow = "recover-registry-database"
    retry_delays = (0.2, 0.5, 1.0)

    @property
    def parameters(self):
        return {"database": self.registry.url(), "host": self.registry.ssh_url(), **self.more}

    @property
    def environment(self):
        return {
            "RECOVER_JOURNAL": str(self.folder / "journal.sqlite"),
            "RECOVER_LEASE_SECONDS": "3",
        }

    def resume(self, runs):
        recovery_id = the_recovery(self)
        return runs.run(self, **({"resume": recovery_id} if recovery_id else {}))

    def assert_whole(self, at):
        assert self.registry.answers(), at
        assert self.registry.starts() == self.starts + 1, (at, self.registry.log()[-2000:])
        assert self.registry.postmaster() != self.before, at
        with self.registry.connect() as connection:
            assert connection.execute("SELECT count(*) FROM kept").fetchone() == (100,), at
        assert flaws_of(self) == [], at


@pytest.fixture
def make_server(registry, tmp_path):
    made = []

    def make(*, is_running):
        registry.reset()
        registry.start()
        with registry.connect() as connection:
            connection.execute("CREATE TABLE kept AS SELECT generate_series(1, 100) AS n")
        if is_running:
            registry.run(f"sed -i \"s/^listen_addresses.*/listen_addresses = 'localhost'/\" "
                         f"{CONFIG}/postgresql.conf; systemctl restart {UNIT}")  # fmt: skip
            registry.configure(listen_addresses="*")
        else:
            registry.kill()
        folder = tmp_path / str(len(made))
        folder.mkdir()
        made.append(folder)
        return ServerWorld(registry, folder, registry.starts(), registry.postmaster())

    return make


@pytest.mark.timeout(590)
@pytest.mark.parametrize("shard", SERVER_SHARDS)
@pytest.mark.parametrize("is_running", [True, False], ids=["restart", "start"])
def test_a_worker_killed_at_any_event_starts_or_restarts_the_server_once(
    make_server, runs, shard, is_running
):
    """Goal: no instruction is a point of no return, and the server is never restarted twice.

    Method: kill -9 the worker before and after an event of the journal, resume in another process,
    and count the starts in the log of the server.
    """
    undisturbed = make_server(is_running=is_running)
    whole = runs.run(undisturbed)
    assert whole.answer["state"] == "recovered", whole.answer
    undisturbed.assert_whole("undisturbed")
    points = kill_points(whole.events)[shard :: len(SERVER_SHARDS)]
    assert points

    for point in sampled(points, SERVER_POINTS, f"{is_running}{shard}"):
        world = make_server(is_running=is_running)
        killed = runs.run(world, kill=point)
        at = (point, whole.events[point[0] - 1][:2])
        # What is waited for is asked as often as it takes: there may be fewer events this time.
        assert killed.exit_code == -9 or killed.answer["state"] == "recovered", (at, killed)
        resumed = world.resume(runs)

        assert resumed.answer["state"] == "recovered", (at, resumed.answer)
        world.assert_whole(at)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("is_running", [True, False], ids=["restart", "start"])
def test_a_paused_worker_that_wakes_up_restarts_nothing(make_server, runs, is_running):
    """Goal: who was away longer than the lease does not restart what another has recovered.

    Method: stop a worker (SIGSTOP) after it noted what it is about to do, let another one finish,
    wake the first one up, and count the starts.
    """
    whole = runs.run(make_server(is_running=is_running))
    n = next(n for n, (kind, *_) in enumerate(whole.events, 1) if kind == "intended")
    world = make_server(is_running=is_running)
    paused = runs.run(world, kill=(n + 1, "stop"))
    assert paused.stopped, paused
    recovered = world.resume(runs)
    assert recovered.answer["state"] == "recovered", recovered.answer
    server = world.registry.postmaster()

    os.kill(paused.stopped, signal.SIGCONT)
    wait_until(lambda: not alive(paused.stopped) or is_zombie(paused.stopped),
               "the paused worker to leave", within_seconds=60)  # fmt: skip

    assert world.registry.postmaster() == server
    world.assert_whole("woken")

"""The orphan watch, on a real Prefect server and real process workers that are killed."""

import contextlib
import itertools
import os
import signal
import threading
from pathlib import Path

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from operate.orphans.ruling import Pace
from operate.orphans.watch import Watch
from recovery.declare import RECOVERIES
from recovery.journal.events import Kind, flaws
from recovery.journal.history import read_history
from recovery.journal.opening import open_journal
from recovery.run import recovery_id_of
from tests.lab import prefect_recovery
from tests.lab.counted_recovery import DONE_ONCE, World
from tests.lab.prefect_server import private_prefect_server, process_worker
from tests.lab.processes import wait_until

PROJECT = Path(__file__).resolve().parent.parent.parent
LEASE_SECONDS = "3"
ENDED = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
AT_ONCE = Pace(back_off=(1.0, 1.0, 1.0), settle=3.0)

pytestmark = pytest.mark.timeout(180)


class Stage:
    """A Prefect server, workers that come and go, and a journal."""

    def __init__(self, server, folder):
        self.server = server
        self.folder = folder
        self.journal = folder / "journal.sqlite"
        self.stack = contextlib.ExitStack()
        self.numbers = itertools.count(1)

    def worker(self, pool):
        folder = self.folder / f"worker{next(self.numbers)}"
        folder.mkdir()
        settings = {
            "PYTHONPATH": str(PROJECT),
            "RECOVER_JOURNAL": str(self.journal),
            "RECOVER_LEASE_SECONDS": LEASE_SECONDS,
        }
        return self.stack.enter_context(
            process_worker(self.server, pool, folder, settings=settings)
        )

    def start(self, flow, pool, **parameters):
        """Start a run of a flow; its deployment in this pool is made where it is missing."""
        made = self.server.request("POST", "/flows/", {"name": flow})
        body = {
            "name": pool,
            "flow_id": made["id"],
            "entrypoint": f"{prefect_recovery.__name__}.{flow.replace('-', '_')}",
            "work_pool_name": pool,
            "path": str(PROJECT),
        }
        deployment = self.server.request("POST", "/deployments/", body)["id"]
        path = f"/deployments/{deployment}/create_flow_run"
        return self.server.request("POST", path, {"parameters": parameters})["id"]

    def state(self, run_id):
        return self.server.request("GET", f"/flow_runs/{run_id}")["state"]

    def set_state(self, run_id, kind, name=None):
        body = {"state": {"type": kind, "name": name or kind.capitalize()}, "force": True}
        return self.server.request("POST", f"/flow_runs/{run_id}/set_state", body)

    def retry(self, run_id):
        """Retry a run with the very call that the UI makes."""
        assert self.set_state(run_id, "SCHEDULED", "AwaitingRetry")["status"] == "ACCEPT"

    def end_of(self, run_id):
        wait_until(
            lambda: self.state(run_id)["type"] in ENDED, f"run {run_id} to end", within_seconds=90
        )
        return self.state(run_id)

    def runs(self, flow):
        body = {"flows": {"name": {"any_": [flow]}}, "sort": "EXPECTED_START_TIME_ASC"}
        return self.server.request("POST", "/flow_runs/filter", body)

    def events(self, recovery_id):
        with contextlib.closing(open_journal(str(self.journal))) as journal:
            events = journal.events(recovery_id)
            assert flaws(events, *journal.head(recovery_id)) == []
            return events

    def attempts(self, recovery_id):
        return [each.ended_as for each in read_history(self.events(recovery_id)).attempts]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server of this module's own: it is killed."""
    with private_prefect_server(tmp_path_factory.mktemp("orphans")) as running:
        yield running


@pytest.fixture(scope="module")
def stage(server, tmp_path_factory):
    stage = Stage(server, tmp_path_factory.mktemp("stage"))
    with stage.stack:
        yield stage


@pytest.fixture(scope="module")
def lasting_worker(stage):
    """A worker that no test kills."""
    return stage.worker("lasts")


@pytest.fixture
def new_watch(stage, monkeypatch):
    monkeypatch.setenv("RECOVER_JOURNAL", str(stage.journal))
    monkeypatch.setenv("PREFECT_API_URL", stage.server.api_url)
    with contextlib.ExitStack() as stack:
        stack.enter_context(temporary_settings({PREFECT_API_URL: stage.server.api_url}))

        def new(**options):
            watch = Watch(RECOVERIES, AT_ONCE, **options)
            stack.callback(watch.close)
            return watch

        yield new


@pytest.fixture
def world(tmp_path):
    return World(tmp_path / "world")


def stopped_pid(world):
    wait_until((world.folder / "stopped").exists, "the flow to stop", within_seconds=90)
    return int((world.folder / "stopped").read_text())


def is_told_to_end(pid):
    """Whether a stopped process has a SIGTERM waiting for it."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    waiting = [
        int(line.split()[1], 16)
        for line in lines
        if line.startswith(("Sig", "Shd")) and line.partition(":")[0].endswith("Pnd")
    ]
    return any(mask & 1 << signal.SIGTERM - 1 for mask in waiting)


def kill_worker_in(stage, flow, world, place, pool):
    """Run a flow on a worker that is killed with its child, the whole of it, in mid-act."""
    worker = stage.worker(pool)
    (world.folder / "stop-at").write_text(place)
    run_id = stage.start(flow, pool, world=str(world.folder))
    pid = stopped_pid(world)
    worker.kill()
    os.kill(pid, signal.SIGKILL)
    return run_id


def orphan_in(look, recovery_id):
    return next((row for row in look.orphans if row["recovery"] == recovery_id), None)


def test_two_watches_see_a_killed_worker_and_have_another_one_go_on_once(stage, new_watch, world):
    run_id = kill_worker_in(stage, "mend-world-by-itself", world, "after stop", "itself")
    recovery_id = recovery_id_of(run_id)
    told = []
    watches = [new_watch(notify=lambda text, facts: told.append(text)), new_watch()]
    stage.worker("itself")

    def both_look():
        threads = [threading.Thread(target=watch.look) for watch in watches]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return "recovered" in stage.attempts(recovery_id)

    wait_until(both_look, "the recovery to go on by itself", within_seconds=90)

    crashed = stage.state(run_id)
    runs = stage.runs("mend-world-by-itself")
    assert (crashed["type"], world.counts()) == ("CRASHED", DONE_ONCE)
    assert crashed["message"].startswith(f"recovery {recovery_id}: the worker of attempt 1")
    assert "It was in stop, which is in doubt" in crashed["message"]
    assert stage.attempts(recovery_id) == ["lost", "recovered"]
    assert [run["id"] for run in runs if run["id"] != run_id] != []
    assert len(runs) == 2, runs
    assert stage.end_of(runs[1]["id"])["name"] == "Recovered"
    assert any("in doubt" in text for text in told)


def test_one_that_is_not_declared_so_waits_for_a_person_and_is_retried_in_the_ui(
    stage, new_watch, world
):
    run_id = kill_worker_in(stage, "mend-world", world, "before start", "person")
    recovery_id = recovery_id_of(run_id)
    watch = new_watch()
    row = wait_until(
        lambda: orphan_in(watch.look(), recovery_id), "the orphan to be seen", within_seconds=60
    )
    stage.worker("person")
    for _ in range(3):
        watch.look()

    crashed = stage.state(run_id)
    assert row["what"] == "person"
    assert f"`recover resume {recovery_id}`" in row["next"]
    assert f"`recover resume {recovery_id}`" in crashed["message"]
    assert len(stage.attempts(recovery_id)) == 1

    stage.retry(run_id)
    assert stage.end_of(run_id)["name"] == "Recovered"
    assert world.counts() == DONE_ONCE
    assert Kind.ORPHANED in [event.kind for event in stage.events(recovery_id)]


def test_a_run_cancelled_in_the_ui_ends_and_is_resumed_by_a_person_alone(
    stage, lasting_worker, new_watch, world
):
    (world.folder / "stop-at").write_text("before start")
    run_id = stage.start("mend-world-by-itself", "lasts", world=str(world.folder))
    recovery_id = recovery_id_of(run_id)
    pid = stopped_pid(world)
    stage.set_state(run_id, "CANCELLING")
    wait_until(lambda: is_told_to_end(pid), "the worker to end the process", within_seconds=60)
    os.kill(pid, signal.SIGCONT)
    watch = new_watch()

    row = wait_until(
        lambda: orphan_in(watch.look(), recovery_id), "the attempt to end", within_seconds=60
    )
    wait_until(lambda: stage.state(run_id)["type"] == "CANCELLED", "the end", within_seconds=60)
    for _ in range(3):
        row = orphan_in(watch.look(), recovery_id)

    assert (row["what"], row["why"]) == ("person", "a person cancelled its run")
    assert len(stage.attempts(recovery_id)) == 1
    resumed = stage.start(
        "mend-world-by-itself", "lasts", world=str(world.folder), resume=recovery_id
    )
    assert stage.end_of(resumed)["name"] == "Recovered"
    assert world.counts() == DONE_ONCE

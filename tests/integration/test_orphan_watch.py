"""The orphan watch, on a real Prefect server and real process workers that are killed."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Pending, Scheduled

from operate.orphans import runs
from operate.orphans.pace import Pace
from operate.orphans.watch import Look, Watch
from recovery.declare import RECOVERIES
from recovery.journal.events import Kind
from recovery.run import recovery_id_of
from tests.faults.conftest import IS_WHOLE
from tests.lab import prefect_recovery
from tests.lab.counted_recovery import DONE_ONCE, World
from tests.lab.prefect_server import private_prefect_server
from tests.lab.processes import wait_until
from tests.lab.watched_stage import (
    LEASE_SECONDS,
    PROJECT,
    WatchedStage,
    kill_with_child,
    orphan_in,
)

AWAY_SECONDS = 120.0 if IS_WHOLE else 5.0
AT_ONCE = Pace(back_off=(1.0, 1.0, 1.0), settle=3.0, away=0.0)

pytestmark = pytest.mark.timeout(300 + 2 * AWAY_SECONDS)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server of this module's own: it is killed."""
    with private_prefect_server(tmp_path_factory.mktemp("orphans")) as running:
        yield running


@pytest.fixture(scope="module")
def stage(server, tmp_path_factory):
    stage = WatchedStage(server, tmp_path_factory.mktemp("stage"))
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
def command(stage):
    """Run a command in the surroundings of the workers; return its exit code and its JSON."""
    environment = stage.server.environment() | {
        "RECOVER_JOURNAL": str(stage.journal),
        "RECOVER_LEASE_SECONDS": LEASE_SECONDS,
        "PYTHONPATH": str(PROJECT),
    }

    def run(*words):
        ended = subprocess.run(
            words, env=environment, cwd=PROJECT, capture_output=True, text=True, check=False
        )
        assert ended.stdout, ended.stderr
        return ended.returncode, json.loads(ended.stdout)

    return run


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


@flow
def drill():
    """A flow that a schedule would run."""


def test_runs_that_a_schedule_made_ahead_hide_none_that_never_began(server, monkeypatch):
    monkeypatch.setattr(runs, "RUNS_AT_ONCE", 2)
    tomorrow = datetime.now(UTC) + timedelta(days=1)

    with (
        temporary_settings({PREFECT_API_URL: server.api_url}),
        get_client(sync_client=True) as client,
    ):
        begun = [client.create_flow_run(drill, state=Pending()) for _ in range(3)]
        for _ in range(3):
            client.create_flow_run(drill, state=Scheduled(scheduled_time=tomorrow))
        seen = runs.Runs(client).unfinished([drill.name])

    assert [run.run_id for run in seen] == [str(run.id) for run in begun]


def kill_worker_in(stage, flow, world, place, pool):
    """Run a flow on a worker that is killed with its child, the whole of it, in mid-act."""
    worker = stage.worker(pool)
    (world.folder / "hang-at").write_text(place)
    run_id = stage.start(flow, pool, world=str(world.folder))
    pid = stopped_pid(world)
    begun = [(place.split()[1], "RUNNING")]
    wait_until(lambda: left_in(stage, run_id) == begun, "the step to be shown", within_seconds=30)
    kill_with_child(worker, pid)
    return run_id


def left_in(stage, run_id):
    """Task runs of a run that are not shown as completed."""
    return [task for task in stage.task_runs(run_id).values() if task[1] != "COMPLETED"]


def test_two_watches_see_a_killed_worker_and_have_another_one_go_on_once(stage, new_watch, world):
    run_id = kill_worker_in(stage, "mend-world-by-itself", world, "after stop", "itself")
    recovery_id = recovery_id_of(run_id)
    told = []
    watches = [new_watch(notify=lambda text, facts: told.append(text)) for _ in "ab"]
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
    runs = stage.runs_in(world)
    assert (crashed["type"], world.counts()) == ("CRASHED", DONE_ONCE)
    assert crashed["message"].startswith(f"recovery {recovery_id}: the worker of attempt 1")
    assert "It was in stop, which is in doubt" in crashed["message"]
    assert left_in(stage, run_id) == [("stop", "CRASHED")]
    assert stage.attempts(recovery_id) == ["lost", "recovered"]
    assert [run["id"] for run in runs][:1] == [run_id]
    assert len(runs) == 2, runs
    assert stage.end_of(runs[1]["id"])["name"] == "Recovered"
    about_it = [text for text in told if text.startswith(f"recovery {recovery_id}")]
    assert [f"run {runs[1]['id']}" in text for text in about_it] == [False, True], about_it


def test_one_that_is_not_declared_so_is_told_to_cron_and_retried_in_the_ui(stage, command, world):
    run_id = kill_worker_in(stage, "mend-world", world, "before start", "person")
    recovery_id = recovery_id_of(run_id)
    wait_until(lambda: stage.is_free(recovery_id), "the lease to run out", within_seconds=60)

    code, looked = command(sys.executable, "-m", "operate.orphans", "--once", "--json")

    row, crashed = orphan_in(Look(**looked), recovery_id), stage.state(run_id)
    assert (code, row["what"], row["in_doubt"]) == (4, "person", ["start"])
    assert f"`recover resume {recovery_id}`" in row["next"]
    assert f"`recover resume {recovery_id}`" in crashed["message"]
    assert (crashed["type"], stage.attempts(recovery_id)) == ("CRASHED", [""])
    assert left_in(stage, run_id) == [("start", "CRASHED")]
    of_first = set(stage.task_runs(run_id))

    stage.worker("person")
    stage.retry(run_id)

    assert stage.end_of(run_id)["name"] == "Recovered"
    assert world.counts() == DONE_ONCE
    wait_until(
        lambda: ("wait_until_served", "COMPLETED") in stage.task_runs(run_id).values(),
        "what was done to be shown",
        within_seconds=30,
    )
    command(sys.executable, "-m", "operate.orphans", "--once", "--json")
    assert left_in(stage, run_id) == [("start", "CRASHED")]  # and nothing of the new attempt
    new = [task for task_id, task in stage.task_runs(run_id).items() if task_id not in of_first]
    assert ("start", "COMPLETED") in new
    assert stage.kinds(recovery_id).count(Kind.ORPHANED) == 1


def test_a_run_cancelled_in_the_ui_ends_and_is_resumed_by_a_person_alone(
    stage, lasting_worker, new_watch, command, world
):
    (world.folder / "stop-at").write_text("before start")
    run_id = stage.start("mend-world-by-itself", "lasts", world=str(world.folder))
    recovery_id = recovery_id_of(run_id)
    pid = stopped_pid(world)
    stage.set_state(run_id, "CANCELLING")
    wait_until(lambda: is_told_to_end(pid), "the worker to end the process", within_seconds=60)
    os.kill(pid, signal.SIGCONT)
    watch = new_watch()
    wait_until(
        lambda: orphan_in(watch.look(), recovery_id), "the attempt to end", within_seconds=60
    )
    wait_until(lambda: stage.state(run_id)["type"] == "CANCELLED", "the end", within_seconds=60)

    for _ in range(3):
        row = orphan_in(watch.look(), recovery_id)

    assert (row["what"], row["why"]) == ("person", "a person cancelled its run")
    assert stage.attempts(recovery_id) == [""]
    entry = f"import {prefect_recovery.__name__}; from operate.cli import app; app()"
    code, _ = command(sys.executable, "-c", entry, "resume", recovery_id, "--json")
    assert (code, world.counts()) == (0, DONE_ONCE)
    assert stage.attempts(recovery_id) == ["lost", "recovered"]
    assert stage.state(run_id)["type"] == "CANCELLED"


@pytest.mark.parametrize("how", ["killed", "frozen"] if IS_WHOLE else ["killed"])
def test_a_server_that_is_away_in_mid_recovery_costs_nothing_and_is_told_the_end_afterwards(
    stage, lasting_worker, new_watch, world, how
):
    """Goal: without the Prefect server nothing is lost and no act is done twice.

    Method: kill the server (or freeze it) while an act is under way, let the recovery end without
    it, look at the journal alone, and start it again after a while: two minutes with FAULTS=all.
    """
    told = []
    (world.folder / "stop-at").write_text("after stop")
    run_id = stage.start("mend-world", "lasts", world=str(world.folder))
    recovery_id = recovery_id_of(run_id)
    pid = stopped_pid(world)
    watch = new_watch(notify=lambda text, facts: told.append(text))
    if how == "killed":
        stage.server.kill()
    else:
        os.kill(stage.server.pid, signal.SIGSTOP)
    killed_at = time.monotonic()
    os.kill(pid, signal.SIGCONT)
    wait_until(lambda: stage.attempts(recovery_id) == ["recovered"], "its end", within_seconds=120)
    looks = [watch.look(), watch.look()]
    wait_until(lambda: time.monotonic() - killed_at > AWAY_SECONDS, "a while", within_seconds=150)
    if how == "frozen":
        os.kill(stage.server.pid, signal.SIGCONT)
    stage.server.start()

    def is_shown():
        look = watch.look()
        name = stage.state(run_id)["name"]
        assert name in {"Running", "Crashed", "Recovered"}, (look, told)
        return name == "Recovered"

    wait_until(is_shown, "the run to be shown as it is", within_seconds=120)
    assert all(look.server_error and not look.journal_error for look in looks)
    assert "the Prefect server does not answer" in told[0]
    assert world.counts() == DONE_ONCE
    assert stage.attempts(recovery_id) == ["recovered"]

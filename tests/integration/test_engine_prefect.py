"""Recoveries as Prefect runs, on a real server and real process workers."""

import base64
import contextlib
import os
import signal
import sqlite3
from pathlib import Path
from uuid import uuid4

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from recovery.journal.history import read_history
from recovery.journal.opening import open_journal
from recovery.run import recovery_id_of
from recovery.secrecy.redaction import isolated_registry
from tests.lab.counted_recovery import DONE_ONCE, World
from tests.lab.prefect_server import private_prefect_server, process_worker
from tests.lab.processes import wait_until

PROJECT = Path(__file__).resolve().parent.parent.parent
POOL = "engine"
SECRET = "correct-horse/battery+staple"  # noqa: S105 (of this test alone)
ENDED = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}

pytestmark = pytest.mark.timeout(150)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server of this module's own: it is restarted."""
    with private_prefect_server(tmp_path_factory.mktemp("engine")) as running:
        running.create_process_pool(POOL)
        yield running


@pytest.fixture(scope="module")
def journal_path(tmp_path_factory):
    return tmp_path_factory.mktemp("journal") / "journal.sqlite"


@pytest.fixture(scope="module")
def new_worker(server, journal_path, tmp_path_factory):
    settings = {
        "PYTHONPATH": str(PROJECT),
        "RECOVER_JOURNAL": str(journal_path),
        "RECOVER_LEASE_SECONDS": "3",
    }
    with contextlib.ExitStack() as stack:
        yield lambda pool: stack.enter_context(
            process_worker(server, pool, tmp_path_factory.mktemp("worker"), settings=settings)
        )


@pytest.fixture(scope="module")
def worker(new_worker):
    return new_worker(POOL)


def deploy(server, pool):
    flow = server.request("POST", "/flows/", {"name": "mend-world"})
    body = {
        "name": pool,
        "flow_id": flow["id"],
        "entrypoint": "tests.lab.prefect_recovery.mend_world",
        "work_pool_name": pool,
        "path": str(PROJECT),
    }
    return server.request("POST", "/deployments/", body)["id"]


@pytest.fixture
def world(tmp_path):
    return World(tmp_path / "world")


@pytest.fixture
def start(server):
    def create(world, pool=POOL, **parameters):
        body = {"parameters": {"world": str(world.folder), **parameters}}
        path = f"/deployments/{deploy(server, pool)}/create_flow_run"
        return server.request("POST", path, body)["id"]

    return create


@pytest.fixture
def in_process(prefect_server, journal_path, monkeypatch):
    """Run flows in this process, on the server that is never restarted: it keeps one connection."""
    monkeypatch.setenv("RECOVER_JOURNAL", str(journal_path))
    with temporary_settings({PREFECT_API_URL: prefect_server.api_url}):
        from tests.lab import prefect_recovery  # noqa: PLC0415 (declares flows)

        yield prefect_recovery


def state_of(server, run_id):
    return server.request("GET", f"/flow_runs/{run_id}")["state"]


def wait_for_end(server, run_id):
    wait_until(
        lambda: state_of(server, run_id)["type"] in ENDED, f"run {run_id} to end", within_seconds=60
    )
    return state_of(server, run_id)


def steps_of(server, run_id, wanted):
    """Names and states of the task runs; they reach the server some time after the run ended."""
    body = {"flow_runs": {"id": {"any_": [str(run_id)]}}, "limit": 200}

    def look():
        runs = server.request("POST", "/task_runs/filter", body)
        seen = {(run["name"], run["state"]["name"]) for run in runs if run["state"]}
        return seen if wanted <= seen else None

    return wait_until(look, f"{wanted} among the task runs", within_seconds=40)


def retry_as_the_ui_does(server, run_id):
    state = {"type": "SCHEDULED", "name": "AwaitingRetry", "message": "Retry from the UI"}
    answer = server.request(
        "POST", f"/flow_runs/{run_id}/set_state", {"state": state, "force": True}
    )
    assert answer["status"] == "ACCEPT"


def stopped_pid(world):
    wait_until((world.folder / "stopped").exists, "the flow to stop", within_seconds=60)
    return int((world.folder / "stopped").read_text())


def history_of(journal_path, recovery_id):
    with contextlib.closing(open_journal(str(journal_path))) as journal:
        return read_history(journal.events(recovery_id))


def is_gone(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_a_run_killed_with_its_worker_goes_on_elsewhere_when_retried_after_a_server_restart(
    server, new_worker, start, world, journal_path
):
    pool = "dies"
    first = new_worker(pool)
    (world.folder / "stop-at").write_text("after stop")
    run_id = start(world, pool)
    pid = stopped_pid(world)
    first.kill()
    os.kill(pid, signal.SIGKILL)
    server.restart()
    new_worker(pool)

    retry_as_the_ui_does(server, run_id)
    state = wait_for_end(server, run_id)

    assert (state["type"], state["name"]) == ("COMPLETED", "Recovered"), state
    assert world.counts() == DONE_ONCE
    history = history_of(journal_path, recovery_id_of(run_id))
    assert [attempt.ended_as for attempt in history.attempts] == ["lost", "recovered"]
    steps_of(
        server,
        run_id,
        {
            ("tables", "Restored"),
            ("back_up", "Restored"),
            ("stop", "Reconciled"),
            ("fill[user]", "Completed"),
            ("wait_until_loaded", "Verified"),
            ("refuse_if_locked", "Restored"),
        },
    )


def test_a_new_run_goes_on_with_the_recovery_of_a_killed_one(
    server, worker, start, world, journal_path
):
    (world.folder / "stop-at").write_text("before start")
    run_id = start(world)
    os.kill(stopped_pid(world), signal.SIGKILL)

    resumed = start(world, resume=recovery_id_of(run_id))
    state = wait_for_end(server, resumed)

    assert state["name"] == "Recovered", state
    assert world.counts() == DONE_ONCE
    assert len(history_of(journal_path, recovery_id_of(run_id)).attempts) == 2


def test_a_fenced_attempt_leaves_the_state_of_the_newer_one_alone(server, worker, start, world):
    """Goal: a paused attempt of the very same flow run wakes up and says nothing.

    Method: SIGSTOP in an act, call the run crashed, retry it in the UI, SIGCONT after its end.
    """
    (world.folder / "stop-at").write_text("after stop")
    run_id = start(world)
    pid = stopped_pid(world)
    crashed = {"state": {"type": "CRASHED", "message": "no heartbeat"}, "force": True}
    server.request("POST", f"/flow_runs/{run_id}/set_state", crashed)
    retry_as_the_ui_does(server, run_id)
    assert wait_for_end(server, run_id)["name"] == "Recovered"
    before = server.request("GET", f"/flow_run_states/?flow_run_id={run_id}")

    os.kill(pid, signal.SIGCONT)
    wait_until(lambda: is_gone(pid), "the fenced process to leave", within_seconds=60)

    assert server.request("GET", f"/flow_run_states/?flow_run_id={run_id}") == before
    assert world.counts() == DONE_ONCE


def test_a_stale_step_is_done_again_and_what_is_so_is_left(prefect_server, in_process, world):
    world.do("load-user")
    (world.effects / "load-folder.1").mkdir()  # cannot be made as a file, counts as made
    world.do("locked")
    refused = in_process.mend_world(world=str(world.folder), return_state=True)
    (world.effects / "locked.1").unlink()
    (world.effects / "load-folder.1").rmdir()
    first = in_process.mend_world(world=str(world.folder), return_state=True)
    assert (refused.name, first.name) == ("Refused", "Recovered"), (refused, first)
    steps_of(prefect_server, refused.state_details.flow_run_id, {("refuse_if_locked", "Refused")})
    steps_of(
        prefect_server,
        first.state_details.flow_run_id,
        {("fill[user]", "Already so"), ("fill[folder]", "Completed")},
    )
    assert world.counts() == DONE_ONCE


def test_a_step_that_is_no_longer_so_is_shown_and_done_again(
    prefect_server, in_process, world, monkeypatch
):
    def fails(world):
        raise Refused(world, "not yet", "Wait")

    from recovery.errors import Refused  # noqa: PLC0415
    from tests.lab import counted_recovery  # noqa: PLC0415

    with monkeypatch.context() as patched:
        patched.setattr(counted_recovery.start, "fn", lambda world, backup: fails(world))
        first = in_process.mend_world(world=str(world.folder), return_state=True)
    assert first.name == "Refused"
    (world.effects / "load-user.1").unlink()

    recovery_id = recovery_id_of(str(first.state_details.flow_run_id))
    second = in_process.mend_world(world=str(world.folder), resume=recovery_id, return_state=True)

    assert second.name == "Recovered", second
    assert world.counts() == DONE_ONCE
    steps_of(
        prefect_server,
        second.state_details.flow_run_id,
        {
            ("start", "Set aside"),
            ("fill[folder]", "Restored"),
            ("fill[user]", "Completed"),
            ("wait_until_loaded", "Verified"),
        },
    )


@pytest.mark.parametrize(
    "how", ["command and cause", "argument and result", "foreign error", "flow result"]
)
def test_a_secret_leaks_nowhere(  # noqa: PLR0913, PLR0917
    prefect_server, in_process, world, how, monkeypatch, capfd, caplog, journal_path
):
    """Goal: no log, state, task run, artifact, plan or journal holds a secret in any form."""
    monkeypatch.setenv("LEAKY_SECRET", SECRET)
    with isolated_registry():
        options = {"world": str(world.folder), "how": how, "return_state": True}
        in_process.leak(**options, plan_only=True)
        state = in_process.leak(**options)
    run_id = state.state_details.flow_run_id
    wait_until(
        lambda: prefect_server.request("GET", f"/flow_runs/{run_id}")["state"]["type"] in ENDED,
        "the run's end to reach the server",
        within_seconds=30,
    )

    forms = [SECRET, base64.b64encode(SECRET.encode()).decode(), SECRET.replace("/", "%2F")]
    with contextlib.closing(sqlite3.connect(prefect_server.database)) as connection:
        kept = "\n".join(connection.iterdump())
    with contextlib.closing(sqlite3.connect(journal_path)) as connection:
        kept += "\n".join(connection.iterdump())
    told = capfd.readouterr()
    everything = kept + told.out + told.err + caplog.text + repr(state)
    assert str(run_id) in everything
    assert [form for form in forms if form in everything] == []


def test_two_runs_begun_in_the_same_millisecond_are_two_recoveries():
    """Prefect's ids begin with the time: those of an alert storm share their beginning."""
    first, second = (f"0190aaaa-bbbb-7{uuid4().hex[:3]}-8000-{uuid4().hex[:12]}" for _ in range(2))

    assert recovery_id_of(first) != recovery_id_of(second)

"""A Prefect server, workers that are killed, and the journal they share: what a watch watches."""

import contextlib
import itertools
import os
import signal
from pathlib import Path

from recovery.evidence.status import read_recovery
from recovery.journal.opening import open_journal
from tests.lab import prefect_recovery
from tests.lab.prefect_server import process_worker
from tests.lab.processes import wait_until

PROJECT = Path(__file__).resolve().parent.parent.parent
LEASE_SECONDS = "3"
ENDED = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}


class WatchedStage:
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

    def start(self, flow, pool, module=prefect_recovery.__name__, **parameters):
        """Start a run of a flow; its deployment in this pool is made where it is missing."""
        made = self.server.request("POST", "/flows/", {"name": flow})
        body = {
            "name": pool,
            "flow_id": made["id"],
            "entrypoint": f"{module}.{flow.replace('-', '_')}",
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

    def task_runs(self, run_id):
        """What is shown of each task run: its name and the type of its state, by id."""
        body = {"task_runs": {"flow_run_id": {"any_": [run_id]}}}
        found = self.server.request("POST", "/task_runs/filter", body)
        return {task["id"]: (task["name"], task["state_type"]) for task in found}

    def end_of(self, run_id):
        wait_until(
            lambda: self.state(run_id)["type"] in ENDED, f"run {run_id} to end", within_seconds=90
        )
        return self.state(run_id)

    def runs_in(self, world):
        """Return the runs that were given this world, the first one first."""
        found = self.server.request("POST", "/flow_runs/filter", {"sort": "START_TIME_ASC"})
        return [run for run in found if run["parameters"].get("world") == str(world.folder)]

    def reading(self, recovery_id):
        """Read a recovery, which may be at work; its journal must be whole."""
        with contextlib.closing(open_journal(str(self.journal))) as journal:
            reading = read_recovery(journal, recovery_id)
        assert reading.flaws == []
        return reading

    def is_free(self, recovery_id):
        """Whether the lease of its target has run out."""
        return self.reading(recovery_id).holder is None

    def kinds(self, recovery_id):
        """What each event of its journal is."""
        return [event.kind for event in self.reading(recovery_id).events]

    def attempts(self, recovery_id):
        """As what each attempt ended; empty for one that has not."""
        return [each.ended_as for each in self.reading(recovery_id).history.attempts]

    def process_in(self, recovery_id, step):
        """Return the process that is in a step, as soon as it has begun it."""

        def begun():
            return step in self.reading(recovery_id).history.steps

        wait_until(begun, f"{step} to begin", within_seconds=120)
        attempts = self.reading(recovery_id).history.attempts
        return int(attempts[-1].worker.rpartition(":")[2])


def kill_with_child(worker, pid):
    """Kill a worker and the process of its run, so that nobody is left to tell of it."""
    worker.kill()
    os.kill(pid, signal.SIGKILL)


def orphan_in(look, recovery_id):
    """What a look says of a recovery; nothing where it is no orphan."""
    return next((row for row in look.orphans if row["recovery"] == recovery_id), None)

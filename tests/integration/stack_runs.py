"""A stack of `recover up` of a test's own: started, asked, and ended with all it has started."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from http import HTTPStatus
from pathlib import Path

import httpx

from tests.lab.ports import free_port
from tests.lab.prefect_server import template
from tests.lab.processes import bare_environment, wait_until

RECOVER = [sys.executable, "-m", "operate.cli"]
UP_WITHIN_SECONDS = 400
RUN_WITHIN_SECONDS = 240
FINAL = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}


class RunningStack:
    """`recover up`, with a home and a journal below one folder."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.home = folder / "up"
        self.port, self.alerts_port = free_port(), free_port()
        self.ui = f"http://127.0.0.1:{self.port}"
        self.errors = folder / "up.err"
        self.environment = bare_environment(
            HOME=str(folder),
            RECOVER_JOURNAL=str(folder / "journal.sqlite"),
            RECOVER_LEASE_SECONDS="10",
            PREFECT_API_URL="http://127.0.0.1:1/api",  # of somebody else: it must not count
            PREFECT_PROFILE="of-somebody-else",
            **environment,
        )
        self._keep_migrated()
        with self.errors.open("wb") as errors:
            self.process = subprocess.Popen(
                [
                    *RECOVER,
                    "up",
                    "--json",
                    "--port",
                    str(self.port),
                    "--alerts-port",
                    str(self.alerts_port),
                    "--home",
                    str(self.home),
                ],
                stdout=subprocess.PIPE,
                stderr=errors,
                env=self.environment,
                text=True,
            )

    def _keep_migrated(self) -> None:
        """Begin with a database that has had its migrations, where the lab keeps one."""
        ready = template()
        if ready.exists() and ready.stat().st_uid == os.geteuid():
            (self.home / "prefect").mkdir(parents=True)
            shutil.copyfile(ready, self.home / "prefect" / "prefect.db")

    def wait_until_up(self) -> dict:
        """Return what it says once everything is up."""
        told = self.home / "up.json"
        wait_until(
            lambda: json.loads(told.read_text())["up"],
            "the stack to be up",
            within_seconds=UP_WITHIN_SECONDS,
            log=self.errors,
            still_worth_it=lambda: self.process.poll() is None,
        )
        return json.loads(self.process.stdout.readline())

    def told(self) -> dict:
        """Return what it says of itself now."""
        return json.loads((self.home / "up.json").read_text())

    def part(self, name: str) -> dict:
        """Return what it says of one of its processes now."""
        return next(one for one in self.told()["processes"] if one["name"] == name)

    def ask(self, method: str, path: str, body=None):
        """Call the API of its server; a refusal is returned as it is.

        A 503 is asked again, as Prefect's own client does: SQLite was locked.
        """

        def answered():
            answer = httpx.request(method, f"{self.ui}/api{path}", json=body, timeout=60)
            return answer if answer.status_code != HTTPStatus.SERVICE_UNAVAILABLE else None

        return wait_until(answered, f"an answer to {path}", within_seconds=120)

    def recover(self, *arguments: str) -> subprocess.CompletedProcess:
        """Run another `recover` beside it."""
        return subprocess.run(
            [*RECOVER, *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=UP_WITHIN_SECONDS,
            check=False,
        )

    def deployment(self, name: str) -> dict:
        """Return what the server holds of a deployment."""
        return self.ask("GET", f"/deployments/name/{name}/{name}").json()

    def run_to_its_end(self, run_id: str) -> dict:
        """Return the last state of a run."""

        def state():
            seen = self.ask("GET", f"/flow_runs/{run_id}").json()["state"]
            return seen if seen["type"] in FINAL else None

        return wait_until(state, f"the end of {run_id}", within_seconds=RUN_WITHIN_SECONDS)

    def stop(self) -> int:
        """Ask it to end; return its exit code."""
        self.process.terminate()
        return self.process.wait(UP_WITHIN_SECONDS)

    def left(self) -> list[str]:
        """Return the command lines of what still runs with its home."""
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                is_ours = f"={self.home}/".encode() in (entry / "environ").read_bytes()
                command = (entry / "cmdline").read_bytes() if is_ours else b""
                if command:
                    found.append(command.replace(b"\0", b" ").decode())
        return found

    def close(self) -> None:
        """End it, whatever came of it."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.process.stdout.close()


@contextlib.contextmanager
def running_stack(folder: Path, **environment: str):
    """Run a stack until the end of the block, everything of it up at its beginning."""
    stack = RunningStack(folder, **environment)
    try:
        stack.first = stack.wait_until_up()
        yield stack
    finally:
        stack.close()

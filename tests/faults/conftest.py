"""What the fault tests share: runs that can be killed at any event of their journal."""

import itertools
import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from recovery.evidence.status import verify_journal
from recovery.journal.sqlite_store import SqliteJournal

PROJECT = Path(__file__).resolve().parent.parent.parent


@dataclass
class Ended:
    """How a run ended: `exit_code` is negative for a signal, `answer` empty then.

    `stopped` is the id of a process that was stopped and waits for SIGCONT.
    """

    exit_code: int
    answer: dict
    events: list
    stopped: int = 0


@dataclass
class Runs:
    """Runs one recovery after the other, in children of the fork server."""

    server: subprocess.Popen
    scratch: Path
    numbers: itertools.count = field(default_factory=itertools.count)

    def run(self, world, *, kill=None, **options):
        n = next(self.numbers)
        events, answer = self.scratch / f"{n}.events", self.scratch / f"{n}.answer"
        order = {
            "flow": "move-grafana-to-mysql",
            "parameters": world.parameters,
            "options": options,
            "environment": world.environment,
            "kill": kill,
            "events": str(events),
            "answer": str(answer),
        }
        self.server.stdin.write(json.dumps(order) + "\n")
        self.server.stdin.flush()
        ended = self.server.stdout.readline().split()
        exit_code = 0 if ended[0] == "stopped" else int(ended[0])
        stopped = int(ended[1]) if ended[0] == "stopped" else 0
        told = json.loads(answer.read_text()) if answer.exists() else {}
        if exit_code > 0:
            pytest.fail((self.scratch / "fork_server.log").read_text()[-3000:])
        lines = events.read_text().splitlines() if events.exists() else []
        return Ended(exit_code, told, [json.loads(line) for line in lines], stopped)


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    environment = {
        k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_API", "RECOVER_"))
    }
    scratch = tmp_path_factory.mktemp("runs")
    with (
        (scratch / "fork_server.log").open("w") as log,
        subprocess.Popen(
            [sys.executable, "-m", "tests.faults.fork_server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            cwd=PROJECT,
            env=environment,
        ) as server,
    ):
        yield Runs(server, scratch)
        server.stdin.close()


def journal_of(world):
    return SqliteJournal(Path(world.environment["RECOVER_JOURNAL"]))


def flaws_of(world):
    journal = journal_of(world)
    try:
        return [flaw for flaws in verify_journal(journal, None).values() for flaw in flaws]
    finally:
        journal.close()

"""What the journal adds to a Prefect task: one act against one bare task, interleaved.

Prints milliseconds (p50 and p99) as JSON: the bare Prefect task, the act on each journal, what the
journal alone takes for the two events of an act, and a step of DBOS where PEERS_PYTHON has it.
"""

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from uuid import uuid4

from prefect import flow

from bench.scenario import IDLE, be_quiet
from bench.unjournaled import UnjournaledWalk
from recovery.journal.events import Kind
from recovery.journal.opening import open_journal
from recovery.journal.store import Lease
from recovery.launch import launch
from recovery.run import Options
from recovery.stage import PrefectStage

STEPS = 200
ROUNDS = 5
HERE = Path(__file__).parent


def told(seconds: list[float]) -> dict[str, float]:
    """Median and 99th percentile in milliseconds."""
    cuts = statistics.quantiles(seconds, n=100)
    return {"p50_ms": round(cuts[49] * 1000, 3), "p99_ms": round(cuts[98] * 1000, 3)}


class TimedStage(PrefectStage):
    """A Prefect stage that notes how long each step took."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def put_on(self, call):
        began = time.perf_counter()
        result = super().put_on(call)
        self.seconds.append(time.perf_counter() - began)
        return result


def bare_tasks() -> list[float]:
    """The very same step carried out as a Prefect task with no journal behind it."""
    timed = TimedStage()
    walk = UnjournaledWalk("bench", timed)
    walk.go(IDLE.fn, STEPS)
    return timed.seconds


def acts(journal_url: str) -> list[float]:
    """Acts as Prefect tasks with their journal."""
    os.environ["RECOVER_JOURNAL"] = journal_url
    stage = TimedStage()
    world = str(uuid4())
    ended = launch(IDLE, {"world": world, "count": STEPS}, Options(), stage, str(uuid4()))
    if ended.error is not None:
        raise ended.error
    return stage.seconds


def journal_alone(journal_url: str) -> list[float]:
    """The two events of an act and nothing else."""
    seconds = []
    with contextlib.closing(open_journal(journal_url)) as journal:
        recovery_id = uuid4().hex[:12]
        lease = journal.take_lease(recovery_id, recovery_id, "bench", 30)
        if not isinstance(lease, Lease):
            raise TypeError
        body = {"kind": "act", "target": "bench", "arguments": {"n": 1}, "commands": ["make 1"]}
        for n in range(STEPS):
            began = time.perf_counter()
            journal.append(
                recovery_id, Kind.INTENDED, body, step=f"s{n}", lease=lease, needs_live_lease=True
            )
            journal.append(recovery_id, Kind.DONE, {"how": "acted"}, step=f"s{n}", lease=lease)
            seconds.append(time.perf_counter() - began)
    return seconds


def dbos(url: str) -> dict[str, float] | None:
    """A step of DBOS that does nothing."""
    python = os.environ.get("PEERS_PYTHON")
    if not python:
        return None
    ran = subprocess.run(
        [python, HERE / "dbos_peer.py", "cost", url, str(STEPS * ROUNDS)],
        capture_output=True,
        text=True,
        check=True,
    )
    return told(json.loads(ran.stdout.splitlines()[-1]))


def main() -> dict[str, object]:
    """Measure in rounds, each kind once a round."""
    be_quiet()
    postgres = os.environ.get("BENCH_POSTGRES", "")
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        sqlite = f"{folder}/journal.sqlite"

        @flow(name="bench", persist_result=False)
        def measured() -> None:
            for turn in range(ROUNDS + 1):
                kinds = {
                    "prefect task": bare_tasks,
                    "act, sqlite": lambda: acts(sqlite),
                    "journal alone, sqlite": lambda: journal_alone(sqlite),
                }
                if postgres:
                    kinds["act, postgres"] = lambda: acts(postgres)
                    kinds["journal alone, postgres"] = lambda: journal_alone(postgres)
                for name, measure in kinds.items():
                    seconds = measure()
                    if turn:  # the first round warms up
                        found.setdefault(name, []).extend(seconds)

        measured()
        table: dict[str, object] = {name: told(seconds) for name, seconds in found.items()}
        bare = statistics.median(found["prefect task"])
        for name, seconds in found.items():
            if name.startswith("act"):
                added = (statistics.median(seconds) - bare) * 1000
                table[f"added by an act, {name[5:]}"] = {"p50_ms": round(added, 3)}
        table["dbos step, sqlite"] = dbos(f"sqlite:///{folder}/dbos.sqlite")
        if postgres:
            table["dbos step, postgres"] = dbos(postgres)
    return table


if __name__ == "__main__":
    json.dump(main(), sys.stdout, indent=1)
    print()

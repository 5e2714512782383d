"""Resume of a recovery of 200 steps whose process was killed at step 199: time to the next act.

Measured inside the resuming process, from the call to the act: its start is not counted.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from uuid import UUID

from prefect import flow

from bench import scenario
from recovery.launch import launch
from recovery.run import Options
from recovery.stage import PlainStage, PrefectStage

STEPS = 200
RESUMES = 5
RUN_ID = str(UUID(int=1))


def child(world: str, *, is_killed: bool, with_prefect: bool) -> None:
    """Run or resume; print the seconds to the act."""
    scenario.be_quiet()
    began = time.perf_counter()
    do = scenario.make.fn

    def timed(world: str, n: int) -> None:
        if n == STEPS - 1:
            if is_killed:
                os.kill(os.getpid(), signal.SIGKILL)
            print(json.dumps(time.perf_counter() - began), flush=True)
        do(world, n)

    scenario.make.fn = timed
    options = Options() if is_killed else Options(resume=RUN_ID[-12:], take_over_by="the bench")
    parameters = {"world": world, "count": STEPS}

    def go() -> None:
        nonlocal began
        began = time.perf_counter()
        stage = PrefectStage() if with_prefect else PlainStage()
        ended = launch(scenario.MEND, parameters, options, stage, RUN_ID)
        if ended.error is not None:
            raise ended.error

    if with_prefect:
        flow(go, name="resume", persist_result=False)()
    else:
        go()


def measured(*, with_prefect: bool) -> list[float]:
    """Kill at step 199 and resume, several times."""
    seconds = []
    for _ in range(RESUMES):
        with tempfile.TemporaryDirectory() as folder:
            world = Path(folder) / "world"
            world.mkdir()
            environment = {**os.environ, "RECOVER_JOURNAL": f"{folder}/journal.sqlite"}
            for role in ("killed", "prefect" if with_prefect else "plain"):
                ran = subprocess.run(
                    [sys.executable, "-m", "bench.resume_200", role, str(world)],
                    env=environment,
                    capture_output=True,
                    text=True,
                    check=role != "killed",
                )
            seconds.append(json.loads(ran.stdout.splitlines()[-1]))
            if len(list(world.iterdir())) != STEPS:
                raise AssertionError("an effect was lost or made twice")
    return sorted(round(each, 3) for each in seconds)


def main() -> dict[str, list[float]]:
    """Both ways."""
    return {
        "seconds to the next act, in this process": measured(with_prefect=False),
        "seconds to the next act, as Prefect tasks": measured(with_prefect=True),
    }


if __name__ == "__main__":
    if len(sys.argv) > 1:
        child(sys.argv[2], is_killed=sys.argv[1] == "killed", with_prefect=sys.argv[1] == "prefect")
    else:
        json.dump(main(), sys.stdout, indent=1)
        print()

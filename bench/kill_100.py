"""kill -9 at a random instant, 100 times, on a recovery of 20 steps whose effects are counted.

Each time: start it, kill it at a random instant of its own running time, resume it, count the files
it left. The same for DBOS where PEERS_PYTHON has it. Processes are started anew each time, as they
would be on a worker; the clock of the kill starts when the first effect is there.
"""

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from uuid import UUID

from bench import scenario
from recovery.launch import launch
from recovery.run import Options
from recovery.stage import PlainStage

TIMES = int(os.environ.get("BENCH_KILLS", "100"))
STEPS = 20
RUN_ID = str(UUID(int=1))
HERE = Path(__file__).parent
SEED = 20
POLL_SECONDS = 0.0002  # a loop without would take a core from what is measured


def child(world: str, *, is_resume: bool) -> None:
    """Run or resume it."""
    scenario.be_quiet()
    options = Options(resume=RUN_ID[-12:], take_over_by="the bench") if is_resume else Options()
    parameters = {"world": world, "count": STEPS}
    ended = launch(scenario.MEND, parameters, options, PlainStage(), RUN_ID)
    if ended.error is not None:
        raise ended.error


def ours(folder: str, *, is_resume: bool) -> tuple[list[str], dict[str, str]]:
    """How to run it with our engine."""
    role = "resume" if is_resume else "run"
    environment = {**os.environ, "RECOVER_JOURNAL": f"{folder}/journal.sqlite"}
    return [sys.executable, "-m", "bench.kill_100", role, f"{folder}/world"], environment


def dbos(folder: str, *, is_resume: bool) -> tuple[list[str], dict[str, str]]:
    """How to run it with DBOS, which resumes by itself."""
    del is_resume
    url = f"sqlite:///{folder}/dbos.sqlite"
    python = os.environ["PEERS_PYTHON"]
    return [python, str(HERE / "dbos_peer.py"), "run", url, f"{folder}/world", str(STEPS)], {
        **os.environ
    }


def is_begun(world: Path, process: "subprocess.Popen[bytes]") -> bool:
    return any(world.iterdir()) or process.poll() is not None


def killed_once(how, chance: random.Random, running_seconds: float) -> Counter[str]:
    """Kill one run at a random instant and resume it; count what became of its effects."""
    with tempfile.TemporaryDirectory() as folder:
        world = Path(folder) / "world"
        world.mkdir()
        command, environment = how(folder, is_resume=False)
        process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
        while not is_begun(world, process):
            time.sleep(POLL_SECONDS)
        began = time.perf_counter()
        moment = chance.uniform(0, running_seconds)
        while time.perf_counter() - began < moment and process.poll() is None:
            time.sleep(POLL_SECONDS)
        process.kill()
        was_killed = process.wait() != 0
        made = len(list(world.iterdir()))
        command, environment = how(folder, is_resume=True)
        ended = subprocess.run(
            command, env=environment, capture_output=True, timeout=120, check=False
        )
        effects = Counter(path.name.partition(".")[0] for path in world.iterdir())
        return Counter(
            {
                "killed": was_killed,
                "killed with steps to go": was_killed and made < STEPS,
                "finished on resume": ended.returncode == 0 and len(effects) == STEPS,
                "effects lost": STEPS - len(effects),
                "effects done twice": sum(times > 1 for times in effects.values()),
            }
        )


def running_seconds_of(how) -> float:
    """How long it takes from the first effect to the last."""
    with tempfile.TemporaryDirectory() as folder:
        world = Path(folder) / "world"
        world.mkdir()
        command, environment = how(folder, is_resume=False)
        subprocess.run(command, env=environment, stderr=subprocess.DEVNULL, check=True)
        moments = [path.stat().st_mtime for path in world.iterdir()]
        return max(moments) - min(moments)


def main() -> dict[str, dict[str, float]]:
    """Ours and the peer's."""
    found = {}
    for name, how in {"ours": ours, "dbos": dbos}.items():
        if name == "dbos" and "PEERS_PYTHON" not in os.environ:
            continue
        chance = random.Random(SEED)  # noqa: S311 (so that it can be done again)
        running = running_seconds_of(how)
        total: Counter[str] = Counter()
        for _ in range(TIMES):
            for key, count in killed_once(how, chance, running).items():
                total[key] += count
        found[name] = {"runs": TIMES, "running seconds": round(running, 3), **total}
        print(name, found[name], file=sys.stderr, flush=True)
    return found


if __name__ == "__main__":
    if len(sys.argv) > 1:
        child(sys.argv[2], is_resume=sys.argv[1] == "resume")
    else:
        json.dump(main(), sys.stdout, indent=1)
        print()

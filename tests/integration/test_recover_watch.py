"""`recover watch` as a process: it looks until it is told to end, and shows that it does."""

import os
import subprocess
import sys

from tests.lab.processes import wait_until


def test_it_shows_a_pulse_after_each_look_and_ends_when_it_is_told_to(tmp_path):
    pulse = tmp_path / "pulse"
    environment = {**os.environ, "RECOVER_JOURNAL": str(tmp_path / "journal.sqlite")}
    environment.pop("PREFECT_API_URL", None)
    command = [sys.executable, "-m", "operate.orphans", "--every", "0.2", "--pulse", str(pulse)]
    with subprocess.Popen(
        command, env=environment, stderr=subprocess.PIPE, text=True, cwd=tmp_path
    ) as watch:
        wait_until(pulse.exists, "the first look", within_seconds=60)
        first = pulse.stat().st_mtime_ns
        wait_until(lambda: pulse.stat().st_mtime_ns > first, "another one", within_seconds=30)
        watch.terminate()
        _, told = watch.communicate(timeout=60)

    assert watch.returncode == 0, told

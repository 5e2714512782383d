"""Renewing the certificates of a control plane of three hosts: time by phase.

Nothing to compare with: no peer does it. The phases are the steps as the journal timed them.
"""

import os
import secrets
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from uuid import uuid4

from bench.scenario import be_quiet
from flows import certificates
from recovery.declare import RECOVERIES
from recovery.journal.opening import open_journal
from recovery.launch import launch
from recovery.run import Options
from recovery.stage import PlainStage
from tests.lab.control_plane import control_planes
from tests.lab.processes import ServerMissing

HOSTS = 3
NAME = certificates.renew_control_plane_certificates.name


def phases(recovery_id: str) -> Iterator[tuple[str, float]]:
    """Seconds of each step, all hosts together, in the order in which they were begun."""
    journal = open_journal()
    try:
        events = journal.events(recovery_id)
    finally:
        journal.close()
    spent: dict[str, float] = {}
    for before, event in pairwise(events):
        name = event.step.partition("[")[0] or str(event.kind)
        seconds = datetime.fromisoformat(event.at) - datetime.fromisoformat(before.at)
        spent[name] = spent.get(name, 0.0) + seconds.total_seconds()
    yield from spent.items()


def main() -> None:
    """Measure, and print what came of it."""
    be_quiet()
    declared = RECOVERIES[NAME]
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        folder = Path(scratch)
        os.environ["RECOVER_JOURNAL"] = str(folder / "journal.sqlite")
        os.environ["RECOVER_WORK_DIR"] = str(folder / "work")
        key = folder / "key"
        key.write_text(secrets.token_hex(32))
        key.chmod(0o600)
        try:
            with control_planes(folder / "lab", HOSTS) as cluster:
                for is_rebooted in (False, True):
                    cluster.restore()
                    cluster.wait_until_ready()
                    given = {
                        **{name: default for name, (_, default) in declared.parameters.items()},
                        "hosts": " ".join(host.url() for host in cluster.hosts),
                        "backup_key_file": str(key),
                        "reboot": is_rebooted,
                    }
                    started = time.monotonic()
                    options = Options(break_glass="benchmark")
                    ended = launch(declared, given, options, PlainStage(), str(uuid4()))
                    how = "with reboot" if is_rebooted else "with restarted pods"
                    print(f"{how}: {ended.state}, {time.monotonic() - started:.1f} s")
                    if ended.error:
                        raise SystemExit(str(ended.error))
                    for name, seconds in phases(ended.recovery_id):
                        print(f"  {name:34} {seconds:6.2f} s")
        except ServerMissing as missing:
            print(f"left out: {missing}")


if __name__ == "__main__":
    sys.exit(main())

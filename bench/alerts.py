"""From an accepted alert to the first step of its recovery, and where the time goes."""

import contextlib
import os
import statistics
import tempfile
from datetime import datetime
from pathlib import Path

from recovery.journal.opening import open_journal
from recovery.run import recovery_id_of
from tests.integration import toy_recoveries
from tests.lab.alert_receiver import ROOT, private_receiver
from tests.lab.prefect_server import private_prefect_server, process_worker
from tests.lab.processes import wait_until

TIMES = int(os.environ.get("BENCH_ALERTS", "20"))
FIRST_STEP = "refuse_if_frozen"
PHASES = ("accepted to submitted", "to taken by the worker", "to running", "to the first step")


def routes(worlds):
    targets = [
        {"name": name, "when": {"instance": name}, "parameters": {"folder": str(folder)}}
        for name, folder in worlds.items()
    ]
    route = {
        "name": "gone",
        "match": 'alertname="FilesGone"',
        "flow": "touch-files",
        "targets": "folders",
        "mode": "recover",
    }
    limits = {"concurrent_recoveries": 1000, "targets_per_hour": 1000}
    return {"limits": limits, "targets": {"folders": targets}, "routes": [route]}


def deploy(server, worker, journal):
    flow = server.request("POST", "/flows/", {"name": "touch-files"})
    body = {
        "name": "touch-files",
        "flow_id": flow["id"],
        "entrypoint": f"{toy_recoveries.__name__}.touch_files",
        "work_pool_name": worker.pool,
        "path": str(ROOT),
        "job_variables": {"env": {"PYTHONPATH": str(ROOT), "RECOVER_JOURNAL": str(journal)}},
    }
    server.request("POST", "/deployments/", body)


def first_step_at(journal, flow_run_id):
    events = journal.events(recovery_id_of(flow_run_id))
    return next((one.moment.timestamp() for one in events if FIRST_STEP in one.step), None)


def moments(server, receiver, journal, name):
    """Post one alert, wait for its first step, and return the five moments."""
    labels = {"alertname": "FilesGone", "instance": name}
    starts_at = datetime.now().astimezone().isoformat()
    body = {"version": "4", "alerts": [{"labels": labels, "startsAt": starts_at}]}
    receiver.post(body).raise_for_status()

    def begun():
        with contextlib.closing(receiver.store()) as store:
            kept = store.latest(1)[0]
        at = kept.flow_run_id and first_step_at(journal, kept.flow_run_id)
        return (kept, at) if at and kept.labels["instance"] == name else None

    kept, first_at = wait_until(begun, "the first step", within_seconds=120)
    states = server.request("GET", f"/flow_run_states/?flow_run_id={kept.flow_run_id}")
    at = {one["type"]: datetime.fromisoformat(one["timestamp"]).timestamp() for one in states}
    return [kept.received_at, kept.started_at, at["PENDING"], at["RUNNING"], first_at]


def told(name, seconds):
    ordered = sorted(seconds)
    p95 = ordered[min(len(ordered) - 1, round(0.95 * (len(ordered) - 1)))]
    print(f"{name:28} p50 {statistics.median(ordered):6.2f} s   p95 {p95:6.2f} s")


with (
    tempfile.TemporaryDirectory(prefix="bench-alerts-") as scratch,
    private_prefect_server(Path(scratch) / "prefect") as server,
    process_worker(server, "bench", Path(scratch) / "worker") as worker,
):
    worlds = {f"w{n}": Path(scratch) / f"w{n}" for n in range(TIMES)}
    for world in worlds.values():
        world.mkdir()
    place = Path(scratch) / "receiver"
    with private_receiver(place, routes(worlds), server.environment()) as receiver:
        deploy(server, worker, receiver.journal)
        with contextlib.closing(open_journal(str(receiver.journal))) as journal:
            found = [moments(server, receiver, journal, name) for name in worlds]

print(f"{TIMES} alerts, one after the other; the worker asks each second")
told("accepted to the first step", [one[-1] - one[0] for one in found])
for n, phase in enumerate(PHASES):
    told(f"  {phase}", [one[n + 1] - one[n] for one in found])

"""Ten thousand alerts, a receiver that is killed among them, and a server that is away."""

import contextlib
import json
import os
import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.integration import toy_recoveries
from tests.lab.alert_receiver import private_receiver
from tests.lab.prefect_server import private_prefect_server
from tests.lab.processes import wait_until

pytestmark = pytest.mark.timeout(400)
FINGERPRINTS = 50
ALERTS = 10_000
AT_ONCE = 25
RESIDENT_KIB_MAX = 600_000


def ago(hours_ago):
    """A moment as senders write it: what began too long ago starts nothing."""
    return f"{datetime.now(UTC) - timedelta(hours=hours_ago):%FT%T}.5Z"


def written(episode):
    """The same moment as we write it."""
    return episode.replace(".5Z", ".500000+00:00")


EPISODE = ago(1)
KILLS = 2 if os.environ.get("FAULTS") == "all" else 1


def routes(count=FINGERPRINTS + 20):
    return {
        "guard": {"cool_down_seconds": 0, "flap_episodes": 0},
        "limits": {"concurrent_recoveries": 1000, "targets_per_hour": 1000},
        "targets": {
            "folders": [
                {
                    "name": f"t{n}",
                    "when": {"instance": f"t{n}"},
                    "parameters": {"folder": f"/w/{n}"},
                }
                for n in range(count)
            ]
        },
        "routes": [
            {
                "name": "gone",
                "match": 'alertname="FilesGone"',
                "flow": "touch-files",
                "targets": "folders",
            }
        ],
    }


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with private_prefect_server(tmp_path_factory.mktemp("prefect")) as running:
        flow = running.request("POST", "/flows/", {"name": "touch-files"})
        body = {
            "name": "touch-files",
            "flow_id": flow["id"],
            "entrypoint": f"{toy_recoveries.__name__}.touch_files",
        }
        running.request("POST", "/deployments/", body)
        yield running


@pytest.fixture(scope="module")
def receiver(server, tmp_path_factory):
    folder = tmp_path_factory.mktemp("receiver")
    with private_receiver(folder, routes(), server.environment()) as running:
        yield running


def kept_of(receiver, episode):
    """What the receiver keeps of the alerts of an episode."""
    with contextlib.closing(receiver.store()) as store:
        return [kept for kept in store.latest(1000) if kept.starts_at == written(episode)]


def alert(n, status="firing", episode=EPISODE, **labels):
    labels = {"alertname": "FilesGone", "instance": f"t{n}", **labels}
    return {"status": status, "labels": labels, "startsAt": episode}


def runs_of(server, episode):
    """The idempotency keys of the runs that were started for an episode."""
    found, offset = [], 0
    while page := server.request(
        "POST", "/flow_runs/filter", {"limit": 200, "offset": offset, "sort": "ID_DESC"}
    ):
        found += page
        offset += len(page)
    return [run for run in found if written(episode) in (run["idempotency_key"] or "")]


def resident_kib_max(receiver):
    status = Path(f"/proc/{receiver.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0])


def post_until_accepted(receiver, bodies):
    """Post as Alertmanager does: again on 5xx and on no answer; return every other status."""
    answered = []

    def post(body):
        def accepted():
            answer = receiver.post(body)
            answered.append(answer.status_code)
            return answer.status_code < 500

        wait_until(accepted, "a payload to be accepted", within_seconds=120)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(post, bodies))
    return answered


def test_ten_thousand_alerts_of_fifty_fingerprints_start_fifty_runs(server, receiver):
    """Goal: whatever is repeated, and whenever the receiver dies, each episode has its one run.

    Method: kill it while payloads come in, and count on the server.
    """
    chance = random.Random(1)  # noqa: S311 (no secret depends on it)
    listed = [alert(n % FINGERPRINTS) for n in range(ALERTS)]
    chance.shuffle(listed)
    bodies = [
        {"version": "4", "status": "firing", "alerts": listed[n : n + AT_ONCE]}
        for n in range(0, ALERTS, AT_ONCE)
    ]
    size = len(bodies) // (KILLS + 1) + 1
    parts = [bodies[n : n + size] for n in range(0, len(bodies), size)]
    answered = post_until_accepted(receiver, parts[0])
    memory = resident_kib_max(receiver)
    for part in parts[1:]:
        with ThreadPoolExecutor(1) as pool:
            posting = pool.submit(post_until_accepted, receiver, part)
            receiver.kill()
            receiver.start()
            answered += posting.result()

    def started():
        alerts = receiver.status()["alerts"]
        is_done = not alerts.get("waiting") and not alerts.get("reserved")
        return is_done and len(runs_of(server, EPISODE)) == FINGERPRINTS

    wait_until(started, "fifty runs", within_seconds=180)
    kept = kept_of(receiver, EPISODE)
    assert set(answered) <= {202, 503}
    assert len(kept) == FINGERPRINTS
    assert sum(one.repeats + 1 for one in kept) >= ALERTS  # an answer may be lost, an alert not
    assert {one.flow_run_id for one in kept} == {run["id"] for run in runs_of(server, EPISODE)}
    assert max(memory, resident_kib_max(receiver)) < RESIDENT_KIB_MAX


def test_what_comes_while_the_server_is_away_is_submitted_in_order_when_it_is_back(
    server, receiver
):
    episode = ago(2)
    order = random.Random(2).sample(range(50, 60), 10)  # noqa: S311
    server.stop()
    for n in order:
        assert receiver.post({"alerts": [alert(n, episode=episode)]}).status_code == 202
    receiver.kill()
    receiver.start()
    server.start()

    wait_until(lambda: len(runs_of(server, episode)) == 10, "ten runs", within_seconds=120)
    runs = sorted(runs_of(server, episode), key=lambda run: run["created"])
    assert [run["parameters"]["folder"] for run in runs] == [f"/w/{n}" for n in order]


def test_hostile_labels_unknown_targets_and_odd_orders_reach_nothing(server, receiver):
    episode = ago(3)
    hostile = ["t1;reboot", "$(reboot)", "`reboot`", "../t1", "t1\n", "t1\0", "T1", "", "%s", "'"]
    ended = [alert(n, "resolved", episode) for n in range(60, 63)]
    begun = [alert(n, episode=episode) for n in range(60, 63)]
    named = [{**alert(0, episode=episode), "labels": {**alert(0)["labels"], "instance": text}}
             for text in hostile]  # fmt: skip
    labelled = alert(64, episode=episode, approve="yes", folder="/", flow="overwrite-files")
    sent = [
        {"alerts": ended},
        {"alerts": begun},
        {"alerts": named},
        {"alerts": [labelled]},
        {"alerts": [labelled], "receiver": "$(reboot)", "groupLabels": {"a": "b"}},
    ]

    assert [receiver.post(body).status_code for body in sent] == [202] * len(sent)

    wait_until(lambda: runs_of(server, episode), "the one run", within_seconds=60)
    (run,) = runs_of(server, episode)
    asks = "alert FilesGone (route gone)"
    assert run["parameters"] == {"folder": "/w/64", "plan_only": True, "requested_by": asks}
    assert "reboot" not in json.dumps(run)
    states = Counter(str(kept.state) for kept in kept_of(receiver, episode))
    assert states == {"resolved": 3, "not-routed": len(hostile), "started": 1}


def test_a_run_whose_alert_is_resolved_before_it_began_is_cancelled(server, receiver):
    episode = ago(4)
    receiver.post({"alerts": [alert(65, episode=episode)]})
    wait_until(lambda: runs_of(server, episode), "its run", within_seconds=60)

    receiver.post({"alerts": [alert(65, "resolved", episode)]})

    def is_cancelled():
        return [run["state_type"] for run in runs_of(server, episode)] == ["CANCELLED"]

    wait_until(is_cancelled, "its run to be cancelled", within_seconds=60)
    wait_until(
        lambda: [kept.state for kept in kept_of(receiver, episode)] == ["cancelled"],
        "its note",
        within_seconds=60,
    )

"""From a real Alertmanager through the receiver and a worker to what a recovery has planned."""

import contextlib
from datetime import UTC, datetime, timedelta

import pytest

from recovery.journal.history import read_history
from recovery.journal.opening import open_journal
from recovery.run import recovery_id_of
from tests.integration import toy_recoveries
from tests.integration.toy_recoveries import ROOT
from tests.lab.alert_receiver import private_receiver
from tests.lab.alertmanager import private_alertmanager
from tests.lab.processes import wait_until
from tests.lab.session import started_or_skipped

pytestmark = pytest.mark.timeout(240)  # servers that start, and a worker that takes runs
TOYS = {"overwrite-files": "overwrite_files", "touch-files": "touch_files"}


def routes(world):
    def target(name):
        return {"name": name, "when": {"instance": name}, "parameters": {"folder": str(world)}}

    return {
        "limits": {"concurrent_recoveries": 50, "targets_per_hour": 50},
        "watchdog": {"match": 'alertname="Watchdog"', "silent_after_seconds": 3600},
        "targets": {
            "folders": [target("alpha"), target("beta")],
            "held": [{**target("gamma"), "parameters": {"folder": f"{world}/held"}}],
        },
        "routes": [
            {
                "name": "lost",
                "match": ['alertname="FilesLost"'],
                "flow": "overwrite-files",
                "targets": "folders",
                "mode": "recover",
                "severity": "critical",
            },
            {
                "name": "held",
                "match": ['alertname="FilesHeld"'],
                "flow": "touch-files",
                "targets": "held",
                "mode": "recover",
            },
            {
                "name": "gone",
                "match": ['alertname="FilesGone"'],
                "flow": "touch-files",
                "targets": "folders",
            },
        ],
    }


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return tmp_path_factory.mktemp("world")


@pytest.fixture(scope="module")
def receiver(prefect_server, prefect_worker, world, tmp_path_factory):
    environment = {**prefect_server.environment(), "RECOVER_LEASE_SECONDS": "4"}
    folder = tmp_path_factory.mktemp("receiver")
    made = []
    with private_receiver(folder, routes(world), environment, is_secure=True) as running:
        for name, function in TOYS.items():
            flow = prefect_server.request("POST", "/flows/", {"name": name})
            body = {
                "name": name,
                "flow_id": flow["id"],
                "entrypoint": f"{toy_recoveries.__name__}.{function}",
                "work_pool_name": prefect_worker.pool,
                "path": str(ROOT),
                "job_variables": {
                    "env": {
                        "PYTHONPATH": str(ROOT),
                        "RECOVER_JOURNAL": str(running.journal),
                        "RECOVER_LEASE_SECONDS": "4",
                    }
                },
            }
            made.append(prefect_server.request("POST", "/deployments/", body)["id"])
        yield running
    for one in made:
        prefect_server.request("DELETE", f"/deployments/{one}")


@pytest.fixture(scope="module")
def alertmanager(receiver, tmp_path_factory):
    webhook = {
        "url": f"{receiver.url}/alertmanager",
        "http_config": {
            "authorization": {"type": "Bearer", "credentials_file": str(receiver.token_file)},
            "tls_config": {"ca_file": str(receiver.authority)},
        },
    }
    running = private_alertmanager(tmp_path_factory.mktemp("alertmanager"), webhook)
    with started_or_skipped(running) as server:
        yield server


@pytest.fixture
def known(receiver):
    """What the receiver keeps of an alert, by its name and instance; `None` where nothing."""

    def look(name, instance):
        with contextlib.closing(receiver.store()) as store:
            found = [
                kept
                for kept in store.latest(100)
                if kept.labels.get("alertname") == name and kept.labels["instance"] == instance
            ]
        return found[0] if found else None

    return look


def history_of(receiver, flow_run_id):
    with contextlib.closing(open_journal(str(receiver.journal))) as journal:
        return read_history(journal.events(recovery_id_of(flow_run_id)))


def ended(known, name, instance):
    def look():
        kept = known(name, instance)
        return kept if kept and kept.outcome else None

    return wait_until(look, f"the run of {name} to end", within_seconds=90)


def test_a_destructive_recovery_waits_for_a_person_with_its_plan_in_the_journal(
    alertmanager, receiver, known, world
):
    alertmanager.fire({"alertname": "FilesLost", "instance": "alpha"})

    def asks():
        kept = known("FilesLost", "alpha")
        return kept if kept and kept.run_state == "PAUSED" else None

    kept = wait_until(asks, "its run to ask a person", within_seconds=120)

    history = history_of(receiver, kept.flow_run_id)
    assert history.plan["hash"]
    assert not history.approvals
    assert not (world / "a").exists()


@pytest.mark.timeout(480)
def test_a_question_whose_alert_is_resolved_is_cancelled_with_the_reason_and_a_retry_asks_anew(
    alertmanager, receiver, known, prefect_server
):
    labels = {"alertname": "FilesLost", "instance": "alpha"}
    alertmanager.fire(labels)

    def stands(state):
        kept = known("FilesLost", "alpha")
        return kept if kept and kept.stands == state else None

    kept = wait_until(lambda: stands("asks-person"), "its run to ask", within_seconds=120)
    now = datetime.now(UTC)
    alertmanager.fire(labels, starts_at=moment(now - timedelta(hours=1)), ends_at=moment(now))
    wait_until(lambda: stands("cancelled"), "its run to be called off", within_seconds=60)
    state = prefect_server.request("GET", f"/flow_runs/{kept.flow_run_id}")["state"]
    body = {"state": {"type": "SCHEDULED", "name": "AwaitingRetry"}}
    prefect_server.request("POST", f"/flow_runs/{kept.flow_run_id}/set_state", body)
    wait_until(lambda: stands("asks-person"), "it to ask anew", within_seconds=180)

    why = "alert FilesLost (route lost) was resolved before anything was done; *Retry* asks anew"
    assert (state["type"], state["message"]) == ("CANCELLED", why)
    assert history_of(receiver, kept.flow_run_id).requested_by == "alert FilesLost (route lost)"


def test_triage_walks_the_recovery_and_changes_nothing(
    alertmanager, receiver, known, prefect_server, world
):
    alertmanager.fire({"alertname": "FilesGone", "instance": "beta"})

    kept = ended(known, "FilesGone", "beta")

    run = prefect_server.request("GET", f"/flow_runs/{kept.flow_run_id}")
    assert run["state"]["name"] == "Planned"
    assert run["parameters"]["plan_only"] is True
    assert set(run["tags"]) >= {"alert", "route:gone", "target:beta", "severity:warning"}
    assert not (world / "a").exists()


def test_an_alert_that_is_resolved_while_its_recovery_acts_leaves_it_alone(
    alertmanager, receiver, known, prefect_server, world
):
    labels = {"alertname": "FilesHeld", "instance": "gamma"}
    held = world / "held"
    held.mkdir()
    (held / "hold-b").write_text("")
    alertmanager.fire(labels)

    def acts():
        kept = known("FilesHeld", "gamma")
        history = kept and kept.flow_run_id and history_of(receiver, kept.flow_run_id)
        return history and "touch[b]" in history.steps

    wait_until(acts, "its second act", within_seconds=90)
    now = datetime.now(UTC)
    alertmanager.fire(labels, starts_at=moment(now - timedelta(hours=1)), ends_at=moment(now))
    wait_until(lambda: not known("FilesHeld", "gamma").is_firing, "its end", within_seconds=60)
    (held / "hold-b").unlink()

    kept = ended(known, "FilesHeld", "gamma")

    assert kept.outcome == "Recovered"
    assert (held / "c").exists()


def moment(at):
    return at.isoformat().replace("+00:00", "Z")


def test_our_fingerprint_is_the_one_of_alertmanager(alertmanager, known):
    labels = {"alertname": "FilesElsewhere", "instance": "gämma", "z": "", "a": 'q"\\'}
    alertmanager.fire(labels)

    kept = wait_until(lambda: known("FilesElsewhere", "gämma"), "the alert", within_seconds=30)

    assert "-" not in kept.fingerprint
    assert kept.fingerprint in alertmanager.fingerprints()
    assert kept.state == "not-routed"

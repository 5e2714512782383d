"""The `recover` command with PREFECT_API_URL set, against a real server and a real worker."""

import json
import os
import signal
import time

import pytest

from tests.integration import toy_recoveries
from tests.integration.toy_recoveries import ROOT, SECONDS, Command
from tests.lab.processes import wait_until

pytestmark = pytest.mark.timeout(180)  # each call is a process that talks to a server


@pytest.fixture
def recover(tmp_path, prefect_server):
    return Command(tmp_path, prefect_server.environment(), is_process=True)


@pytest.fixture
def deployment(recover, prefect_server, prefect_worker):
    flow = prefect_server.request("POST", "/flows/", {"name": "touch-files"})
    body = {
        "name": f"d{time.time_ns()}",
        "flow_id": flow["id"],
        "entrypoint": f"{toy_recoveries.__name__}.touch_files",
        "work_pool_name": prefect_worker.pool,
        "path": str(ROOT),
        "job_variables": {
            "env": {
                name: recover.env[name]
                for name in ("PYTHONPATH", "RECOVER_JOURNAL", "RECOVER_LEASE_SECONDS")
            }
        },
    }
    made = prefect_server.request("POST", "/deployments/", body)
    yield f"touch-files/{body['name']}"
    prefect_server.request("DELETE", f"/deployments/{made['id']}")


def test_a_run_in_this_process_shows_on_the_server_with_its_tasks(recover, prefect_server):
    stdout, stderr = recover("run", "touch-files", "--set", f"folder={recover.world}", "--json")

    status = json.loads(stdout)
    run_id = status["attempts"][0]["flow_run_id"]
    assert prefect_server.request("GET", f"/flow_runs/{run_id}")["state"]["name"] == "Recovered"
    assert [line.split()[0] for line in stderr.splitlines()] == [
        "Passed", "Done", "Done", "Done", "Verified",
    ]  # fmt: skip


def test_exit_codes_are_those_without_a_server(recover):
    approval = recover.json("run", "overwrite-files", "--set", f"folder={recover.world}", exits=4)
    recover.put("frozen")
    refused = recover.touch(exits=5)
    recover.take_away("frozen")
    recover.put("break-b")
    failed = recover.touch(exits=3)
    recover.take_away("break-b")
    done = recover.json("resume", failed["id"])
    undone = recover.json("undo", failed["id"], "--by", "Ada", "--break-glass", "a test")

    assert refused["error"]["type"] == "Refused"
    assert failed["error"]["type"] == "CommandFailed"
    assert done["state"] == "recovered"
    assert approval["error"]["type"] == "NeedsPerson"
    assert undone["state"] == "undone"


def test_a_worker_carries_it_out_and_is_followed_to_the_end(recover, deployment):
    recover.put("break-b")
    failed = recover.touch("--deployment", deployment, exits=3)
    recover.take_away("break-b")

    stdout, stderr = recover("resume", failed["id"], "--worker", "--json")

    status = json.loads(stdout)
    assert failed["error"]["type"] == "CommandFailed"
    assert status["state"] == "recovered"
    assert "waiting for a worker" in stderr
    assert "Restored" in stderr
    assert recover.made() == ["a", "b", "c"]


def test_a_run_on_a_worker_shows_the_plan_of_the_way_back_and_waits_for_nobody(
    recover, deployment, prefect_server
):
    recovery_id = recover.touch()["id"]
    before = recover.events(recovery_id)
    found = prefect_server.request("GET", f"/deployments/name/{deployment}")
    wanted = {"folder": str(recover.world), "resume": recovery_id, "undo_by": "Ada"}
    body = {"parameters": {**wanted, "plan_only": True}}

    run = prefect_server.request("POST", f"/deployments/{found['id']}/create_flow_run", body)
    wait_until(
        lambda: (
            prefect_server.request("GET", f"/flow_runs/{run['id']}")["state"]["name"] == "Planned"
        ),
        "the plan",
        within_seconds=SECONDS,
    )

    planned = recover.json("undo", recovery_id, "--plan")
    mine = {"artifacts": {"flow_run_id": {"any_": [run["id"]]}}}
    (artifact,) = prefect_server.request("POST", "/artifacts/filter", mine)
    assert artifact["key"] == f"plan-{planned['hash']}"
    assert f"# Way back {planned['hash']} of recovery {recovery_id}" in artifact["data"]
    shown = [artifact["data"].index(f"**act `{step['key']}`**") for step in planned["steps"]]
    assert shown == sorted(shown)
    assert len(shown) == 3
    assert "it wants a reason" in artifact["data"]
    assert recover.events(recovery_id) == before
    assert recover.made() == ["a", "b", "c"]


def test_a_killed_flow_process_ends_the_following_and_is_resumed_here(recover, deployment):
    recover.put("hold-b")
    wanted = ("--set", f"folder={recover.world}", "--deployment", deployment, "--json")
    process = recover.start("run", "touch-files", *wanted)
    recover.wait_for_intent("touch[b]")
    (recovery_id,) = recover.ids()
    started = next(e for e in recover.events(recovery_id) if e.kind == "attempt-started")
    os.kill(int(started.body["worker"].rpartition(":")[2]), signal.SIGKILL)
    stdout, _ = process.communicate(timeout=SECONDS)
    recover.take_away("hold-b")

    assert process.returncode == 3
    assert json.loads(stdout)["id"] == recovery_id
    assert recover.json("resume", recovery_id)["state"] == "recovered"


def test_ctrl_c_says_how_to_resume(recover):
    recover.put("hold-b")
    process = recover.start("run", "touch-files", "--set", f"folder={recover.world}")
    recover.wait_for_intent("touch[b]")
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=SECONDS)

    assert process.returncode == 130
    assert stderr.splitlines()[-1] == f"next: `recover resume {recover.ids()[0]}`"


def test_an_unknown_deployment_is_bad_input_with_those_there_are(recover, deployment):
    error = recover.touch("--deployment", "touch-files/nope", exits=2)["error"]

    assert error["field"] == "--deployment"
    assert deployment in error["remedy"]

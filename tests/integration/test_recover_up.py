"""`recover up` on this machine: what it starts, what the server then offers, and its end."""

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import yaml

from blocks.inventory import HostInventory
from blocks.kube.cluster import KubernetesCluster
from blocks.mysql.server import MysqlServer
from blocks.ssh.host import SshHost
from operate.stack.registration import BLOCK_TYPES
from tests.integration.stack_runs import running_stack
from tests.lab.processes import wait_until

pytestmark = pytest.mark.timeout(600)

PROJECT = Path(__file__).resolve().parents[2]
DECLARED = yaml.safe_load((PROJECT / "deployments/prefect.yaml").read_text())["deployments"]
POOLS = yaml.safe_load((PROJECT / "deployments/work-pools.yaml").read_text())["work_pools"]
NEXT_YEAR = {"type": "SCHEDULED", "state_details": {"scheduled_time": "2999-01-01T00:00:00Z"}}
SAMPLES = {"string": "text", "integer": 7, "number": 0.5, "boolean": True, "array": []}
KEPT_ON_THE_WORKER = "Zk7-of-nobody-else's"


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    """One for all tests here, whose end is a test of its own: it costs a start."""
    with running_stack(tmp_path_factory.mktemp("stack")) as stack:
        yield stack
        assert stack.stop() == 0, stack.errors.read_text()
        assert stack.left() == []
        assert not (stack.home / "up.json").exists()


def test_it_says_what_runs_where_and_the_server_offers_every_recovery(stack):
    said = stack.first
    offered = stack.ask("POST", "/deployments/filter", {"limit": 200}).json()

    assert said["up"]
    assert said["ui"] == stack.ui
    assert said["journal"] == stack.environment["RECOVER_JOURNAL"]
    assert said["alert_routes"] == str(PROJECT / "deployments/alert-routes.yaml")
    assert {one["health"] for one in said["processes"]} == {"up"}
    told = stack.errors.read_text()
    assert all(f"{one['name']} is up\n" in told for one in said["processes"])
    assert {f"worker-{pool}" for pool in POOLS} < {one["name"] for one in said["processes"]}
    assert {one["name"] for one in offered} == {one["name"] for one in DECLARED}
    assert all(one["work_queue_name"] == "main" for one in offered)
    assert all(one["description"] and one["tags"] for one in offered)


def test_a_second_one_says_where_the_first_runs_and_another_needs_another_port(stack, tmp_path):
    second = stack.recover("up", "--port", str(stack.port), "--home", str(stack.home))
    detached = stack.recover("up", "--detach", "--port", "1", "--home", str(stack.home))
    other = stack.recover("up", "--port", str(stack.port), "--home", str(tmp_path / "other"))

    assert second.returncode == 5, second.stderr
    assert stack.ui in second.stdout
    assert "recover down" in second.stderr
    assert detached.returncode == 0, detached.stderr
    assert other.returncode == 2, other.stderr
    assert "--port" in other.stderr
    assert "a Prefect server" in other.stderr


def test_the_server_takes_what_each_form_sends_and_nothing_of_another_type(stack):
    for name in [one["name"] for one in DECLARED]:
        found = stack.deployment(name)
        form = found["parameter_openapi_schema"]
        filled = {field: sample_of(form["properties"][field]) for field in form["required"]}
        filled |= {"plan_only": True, "resume": ""}
        runs = f"/deployments/{found['id']}/create_flow_run"

        taken = stack.ask("POST", runs, {"parameters": filled, "state": NEXT_YEAR})
        wrong = stack.ask("POST", runs, {"parameters": filled | {"plan_only": "perhaps"}})

        assert taken.status_code == 201, f"{name}: {taken.text}"
        assert wrong.status_code == 409, f"{name}: {wrong.text}"


def sample_of(field):
    """Return a value as the form sends it; text, where a block could be picked as well."""
    return SAMPLES[field.get("type", "string")]


def test_a_page_of_another_site_may_not_call_the_server(stack):
    def allowed_to(origin):
        headers = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        answer = httpx.options(f"{stack.ui}/api/deployments/filter", headers=headers, timeout=60)
        return answer.headers.get("access-control-allow-origin")

    assert allowed_to("http://evil.example") is None
    assert allowed_to(stack.ui) == stack.ui


def test_a_run_from_the_form_that_names_no_file_ends_refused_and_says_which_field(stack):
    found = stack.deployment("move-grafana-to-mysql")
    filled = {
        "source": "/nowhere/grafana.db",
        "target": "mysql://grafana@127.0.0.1:1/grafana",
        "plan_only": True,
        "accept": None,
    }

    made = stack.ask("POST", f"/deployments/{found['id']}/create_flow_run", {"parameters": filled})

    state = stack.run_to_its_end(made.json()["id"])
    assert (state["type"], state["name"]) == ("FAILED", "Refused")
    assert "source: " in state["message"]
    assert "/nowhere/grafana.db" in state["message"]


def test_blocks_are_offered_with_their_documentation_and_the_server_stores_no_secret(
    stack, tmp_path
):
    file = tmp_path / "password"
    file.write_text(KEPT_ON_THE_WORKER)
    file.chmod(0o600)
    saved = [
        MysqlServer(user="ada", database="grafana", password_file=file),
        SshHost(address="db1", password_file=file, sudo_password_file=file),
        HostInventory(label="prod", hosts=[f"ssh://ada@db1?password_file={file}"]),
        KubernetesCluster(kubeconfig=file),
    ]

    for block in saved:
        kind = stack.ask("GET", f"/block_types/slug/{block.get_block_type_slug()}").json()
        schemas = {"block_schemas": {"block_type_id": {"any_": [kind["id"]]}}}
        (schema,) = stack.ask("POST", "/block_schemas/filter", schemas).json()
        body = {
            "name": "of-a-test",
            "data": block.model_dump(mode="json"),
            "block_type_id": kind["id"],
            "block_schema_id": schema["id"],
        }
        made = stack.ask("POST", "/block_documents/", body)
        assert made.status_code == 201, made.text

    picked = {"cluster": {"$ref": {"block_document_id": made.json()["id"]}}, "workload": "registry"}
    runs = f"/deployments/{stack.deployment('restart-service')['id']}/create_flow_run"
    run = stack.ask("POST", runs, {"parameters": picked})
    assert run.status_code == 201, run.text
    # A kubeconfig that is none: the recovery got the block, and says so of its path.
    assert str(file) in stack.run_to_its_end(run.json()["id"])["message"]
    assert saved[0].password().reveal() == KEPT_ON_THE_WORKER
    assert KEPT_ON_THE_WORKER.encode() not in everything_stored(stack)
    for kind in BLOCK_TYPES:
        offered = stack.ask("GET", f"/block_types/slug/{kind.get_block_type_slug()}").json()
        assert offered["description"], kind
        assert offered["code_example"], kind
        assert "://" not in (offered["logo_url"] or ""), kind
        assert not kind.model_json_schema().get("secret_fields"), kind


def everything_stored(stack):
    """Every byte of the server's database, the journal of its own writes included."""
    place = stack.home / "prefect" / "prefect.db"
    with sqlite3.connect(place) as database:
        database.execute("PRAGMA wal_checkpoint(FULL)")
    return b"".join(file.read_bytes() for file in place.parent.glob("prefect.db*"))


def test_a_worker_that_is_killed_is_started_again(stack):
    name = f"worker-{next(iter(POOLS))}"
    before = stack.part(name)["pid"]

    os.kill(before, signal.SIGKILL)

    def is_another():
        now = stack.part(name)
        return now["health"] == "up" and now["pid"] not in {before, None}

    assert wait_until(is_another, f"another {name}", within_seconds=240, log=stack.errors)
    assert "was ended by SIGKILL" in stack.errors.read_text()


def test_a_stack_that_is_killed_takes_its_processes_with_it(tmp_path):
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    child = int(parent.stdout.readline())

    parent.kill()
    parent.wait()
    parent.stdout.close()

    wait_until(lambda: not Path(f"/proc/{child}").exists(), "its end", within_seconds=60)


PARENT = """
import os, sys, time
from pathlib import Path
from operate.stack.child import Child
from operate.stack.processes import Process
child = Child(Process("sleeper", "sleeps", ["sleep", "600"]), os.environ, Path(sys.argv[1]))
child.start()
while not b"sleep" in Path(f"/proc/{child.pid}/cmdline").read_bytes()[:5]:
    time.sleep(0.01)
print(child.pid, flush=True)
time.sleep(600)
"""

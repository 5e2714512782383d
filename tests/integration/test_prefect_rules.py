"""What Prefect does, and why the engine does not lean on it: asked anew of each release.

One test for each row of the table in the house style: "What the engine does, and the rule that
follows". Where one of these fails, Prefect has changed, and the rule may be thought over.
"""

import os
import pickle
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from prefect import flow, task
from prefect.cache_policies import INPUTS
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Failed
from prefect.transactions import transaction

from recovery import errors

PROJECT = Path(__file__).resolve().parent.parent.parent

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(autouse=True)
def _connected(prefect_server):
    with temporary_settings({PREFECT_API_URL: prefect_server.api_url}):
        yield


def test_a_cached_task_asked_three_times_works_once_and_its_twin_never():
    done = []

    @task(cache_policy=INPUTS, persist_result=True)
    def restart(node):
        done.append(f"restart {node}")

    @task(cache_policy=INPUTS, persist_result=True)
    def check(node):
        done.append(f"check {node}")

    @flow
    def walk(node):
        restart(node)
        restart(node)
        restart(node)
        check(node)

    walk(f"node-{os.getpid()}")

    assert done == [f"restart node-{os.getpid()}"]


KILLED_IN_A_TRANSACTION = """
import os, signal, sys
from prefect import flow, task
from prefect.cache_policies import INPUTS
from prefect.transactions import transaction

def told(line):
    with open(sys.argv[1], "a") as file:
        file.write(line + "\\n")

@task(cache_policy=INPUTS, persist_result=True)
def first(world):
    told("first")

@first.on_rollback
def back(txn):
    told("undone")

@task
def second():
    if sys.argv[2] == "die":
        os.kill(os.getpid(), signal.SIGKILL)

@flow
def walk():
    with transaction(key=sys.argv[1]):
        first(sys.argv[1])
        second()

walk()
"""


def test_a_process_killed_in_a_transaction_has_recorded_nothing_and_undone_nothing(
    prefect_server, tmp_path
):
    script, world = tmp_path / "walk.py", tmp_path / "world"
    script.write_text(KILLED_IN_A_TRANSACTION)
    codes = [
        subprocess.run(
            [sys.executable, script, world, how],
            env=prefect_server.environment(),
            capture_output=True,
            check=False,
        ).returncode
        for how in ("die", "live")
    ]

    assert codes == [-signal.SIGKILL, 0]
    assert world.read_text().split() == ["first", "first"]


def test_a_rollback_hook_that_raises_is_forgotten():
    @task
    def change():
        pass

    @change.on_rollback
    def back(txn):
        raise RuntimeError("the way back failed")

    @flow
    def walk():
        with transaction():
            change()
            raise ValueError("no")

    with pytest.raises(ValueError, match="no") as raised:
        walk()

    assert raised.value.__cause__ is None
    assert "the way back failed" not in repr(raised.value.__context__)


class KeywordOnly(Exception):
    def __init__(self, *, target):
        super().__init__(f"no: {target}")
        self.target = target


def test_an_error_with_keyword_only_fields_cannot_be_read_back_and_ours_can():
    with pytest.raises(TypeError):
        pickle.loads(pickle.dumps(KeywordOnly(target="db")))  # noqa: S301

    ours = [
        errors.BadInput("field", "seen", "remedy"),
        errors.Unreachable("db", "select 1", "refused", "start it"),
        errors.CommandFailed("db", "drop", 1, "denied", "ask"),
        errors.UnreadableOutput("df", "garbage"),
        errors.Refused("db", "reason", "remedy"),
        errors.TargetTaken("db", "0123456789ab", 3.5),
        errors.NotVerified("db", "up", "down", "look"),
        errors.UndoFailed("db", "load", "denied", "by hand"),
        errors.NeedsPerson("db", "is it?", "look"),
        errors.Fenced("db", 3, "taken"),
    ]
    for error in ours:
        again = pickle.loads(pickle.dumps(error))  # noqa: S301
        assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))


def test_a_flow_may_end_in_a_state_of_our_own_naming(prefect_server):
    @flow
    def walk():
        return Failed(name="Half done", message="a person is needed")

    state = walk(return_state=True)

    run = prefect_server.request("GET", f"/flow_runs/{state.state_details.flow_run_id}")
    assert (run["state"]["type"], run["state"]["name"]) == ("FAILED", "Half done")


def test_a_flow_loaded_by_file_is_another_one_than_the_one_imported(tmp_path, monkeypatch):
    from prefect.flows import load_flow_from_entrypoint  # noqa: PLC0415

    (tmp_path / "twice.py").write_text(
        "from prefect import flow\n"
        "class Refused(Exception): pass\n"
        "@flow\n"
        "def walk(): raise Refused\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import twice  # noqa: PLC0415

    by_file = load_flow_from_entrypoint(f"{tmp_path}/twice.py:walk")
    by_module = load_flow_from_entrypoint("twice.walk")

    assert by_file.fn.__globals__["Refused"] is not twice.Refused
    assert by_module.fn.__globals__["Refused"] is twice.Refused


def test_fastapi_is_held_where_prefects_server_starts():
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    locked = (PROJECT / "requirements.lock").read_text().splitlines()

    assert "fastapi>=0.139,<0.151" in project["dependencies"]
    (pin,) = [line for line in locked if line.startswith("fastapi==")]
    assert tuple(map(int, pin.split("==")[1].split()[0].split("."))) < (0, 151)
    assert not [line for line in locked if "index-url" in line]

"""What a stack says of its start, and what it ends when it is stopped."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from operate.stack import child as child_module
from operate.stack.child import Child, Health
from operate.stack.detached import Said
from operate.stack.place import Place, default_deployments
from operate.stack.processes import Process
from operate.stack.supervision import Stack
from tests.lab.processes import wait_until


def test_what_is_said_is_passed_on_a_whole_line_at_a_time_and_once(tmp_path):
    log = tmp_path / "up.log"
    log.write_text("starting server: Prefect\n\nserver is")
    said = Said(log)

    first, nothing_new = said.more(), said.more()
    with log.open("a") as written:
        written.write(" up\nregistering deployments\n")

    assert first == ["starting server: Prefect"]
    assert nothing_new == []
    assert said.more() == ["server is up", "registering deployments"]


def test_only_pages_of_its_own_ui_may_call_its_server(tmp_path, monkeypatch):
    monkeypatch.setenv("PREFECT_SERVER_CORS_ALLOWED_ORIGINS", "*")

    environment = Place(tmp_path, 4207, tmp_path / "prefect.yaml").environment()

    allowed = environment["PREFECT_SERVER_CORS_ALLOWED_ORIGINS"].split(",")
    assert allowed == ["http://127.0.0.1:4207", "http://localhost:4207"]


def test_a_part_that_dies_again_and_again_is_started_again_and_told_of_once(tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(Child, "start", lambda child: told.append(child.process))
    part, server = (
        Child(Process(name, "a part", ["false"], is_vital=name == "server"), {}, tmp_path)
        for name in ("worker", "server")
    )
    stack = Stack(Place(tmp_path, 4207, default_deployments()), lambda text, style: None)

    for _ in range(10):
        for child in (part, server):
            child._note_death(3)
            stack._tell_people(child)

    assert (part.health, server.health) == (Health.WAITS, Health.GIVEN_UP)
    assert part.said == "ended with 3, 10 times within ten minutes; again in 30 s"
    (alarm,) = told
    assert alarm.command[-2] == "operate.stack.alarm"
    assert "worker of the stack" in alarm.command[-1]


def test_the_log_of_what_goes_on_running_is_put_aside(tmp_path, monkeypatch):
    monkeypatch.setattr(child_module, "LOG_MAX_BYTES", 4)
    go = tmp_path / "go"
    text = f"echo before; while [ ! -e {go} ]; do sleep 0.1; done; echo after"
    child = Child(Process("part", "a part", ["sh", "-c", text]), os.environ, tmp_path)
    aside = tmp_path / "part.log.1"
    child.start()
    try:
        wait_until(lambda: child.look() or aside.exists(), "a log put aside", within_seconds=60)
        go.touch()
        wait_until(child.has_ended, "its end", within_seconds=60)
    finally:
        child.kill()

    assert (aside.read_text(), child.log.read_text()) == ("before\n", "after\n")


def test_an_end_leaves_a_command_that_outlives_its_worker_and_all_of_it(tmp_path):
    """Goal: stopping a stack cuts no playbook in half.

    Method: a process that takes over orphans, as a stack does, ends what is left of a command that
    is detached, of one that it started with no environment to be known by, and of another one.
    """
    pids = {name: tmp_path / name for name in ("job", "of-job", "other")}
    of_job = f"echo $$ >{pids['of-job']}; exec env -i sleep 600"
    job = f"echo $$ >{pids['job']}; (setsid sh -c '{of_job}' &); exec sleep 600"

    try:
        ended = subprocess.run(
            [sys.executable, "-c", ENDS_WHAT_IS_LEFT, tmp_path / "mend-db", job, *pids.values()],
            stdout=subprocess.PIPE,
            timeout=60,
            check=True,
        )
        lives = {name: Path(f"/proc/{pid_in(file)}").exists() for name, file in pids.items()}
    finally:
        for file in pids.values():
            with contextlib.suppress(OSError, ValueError):
                os.kill(pid_in(file), signal.SIGKILL)

    assert json.loads(ended.stdout) == {"ended": 1, "left": ["mend-db"]}
    assert lives == {"job": True, "of-job": True, "other": False}


def pid_in(file):
    return int(file.read_text())


ENDS_WHAT_IS_LEFT = """
import json, subprocess, sys, time
from pathlib import Path
from blocks.local.detached_scripts import START
from operate.stack.descendants import end_descendants, outliving, take_over_orphans
folder, job, *pids = sys.argv[1:]
take_over_orphans()
subprocess.run(["sh", "-c", START, "start", folder, "600", job], check=True)
other = f"(setsid sh -c 'echo $$ >{pids[-1]}; exec sleep 600' >/dev/null 2>&1 &)"
subprocess.run(["sh", "-c", other], check=True)
while not all(Path(file).exists() and Path(file).read_text().strip() for file in pids):
    time.sleep(0.02)
print(json.dumps({"ended": end_descendants(10.0), "left": outliving()}))
"""

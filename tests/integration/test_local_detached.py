"""Commands on the worker's own machine that go on when it is lost: adopted, never doubled."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from blocks.local import detached
from blocks.local.machine import LocalMachine
from blocks.ssh.detached import DetachedCommand, DetachedState
from recovery.errors import CommandFailed
from tests.lab.processes import wait_until
from tests.lab.ssh_attempt import attempt

PROJECT = Path(__file__).resolve().parents[2]
HERE = LocalMachine()
pytestmark = pytest.mark.timeout(240)


@pytest.fixture(autouse=True)
def work(tmp_path, monkeypatch):
    monkeypatch.setenv("RECOVER_WORK_DIR", str(tmp_path / "work"))
    return tmp_path


def counted(work):
    """A command that ends once it is let go, and counts itself."""
    wait = f"while [ ! -e {work}/go ]; do sleep 0.1; done"
    text = f"echo began >>{work}/count; {wait}; echo ended >>{work}/count"
    return DetachedCommand("job", ("sh", "-c", text), 300.0)


def has_ended(command):
    return lambda: detached.look(HERE, command).state is not DetachedState.RUNNING


def count(work):
    return (work / "count").read_text().split()


def test_one_that_is_started_twice_runs_once_and_is_settled(work):
    job = counted(work)

    with attempt(1):
        detached.start(HERE, job)
        detached.start(HERE, job)
        assert detached.look(HERE, job).state is DetachedState.RUNNING
        with pytest.raises(CommandFailed, match="still runs"):
            detached.settle(HERE, job)
        (work / "go").touch()
        wait_until(has_ended(job), "its end", within_seconds=60)
        detached.start(HERE, job)
        assert detached.look(HERE, job).state is DetachedState.SUCCEEDED
        detached.settle(HERE, job)
        assert detached.look(HERE, job).state is DetachedState.NOT_FOUND

    assert count(work) == ["began", "ended"]


def test_one_that_fails_tells_its_code_and_can_be_begun_anew_once_it_is_settled(work):
    job = DetachedCommand("job", ("sh", "-c", f"echo oops; echo x >>{work}/count; exit 7"), 30.0)

    with attempt(1):
        detached.start(HERE, job)
        wait_until(has_ended(job), "its end", within_seconds=60)
        ended = detached.look(HERE, job)
        detached.settle(HERE, job)
        detached.start(HERE, job)
        wait_until(has_ended(job), "its end", within_seconds=60)

    assert (ended.state, ended.exit_code, ended.output) == (DetachedState.FAILED, 7, "oops\n")
    assert count(work) == ["x", "x"]


def test_it_goes_on_when_the_worker_that_started_it_is_killed(work):
    """Goal: kill -9 of the worker and of its whole group does not end the command.

    Method: another process starts it and is killed with its group; this one adopts it.
    """
    job = counted(work)
    code = (
        "import sys; from tests.lab.ssh_attempt import attempt; from tests.integration import "
        "test_local_detached as t; from pathlib import Path\n"
        "with attempt(1):\n"
        f"    t.detached.start(t.HERE, t.counted(Path({str(work)!r})))\n"
        "print('started', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=PROJECT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as worker:
        assert worker.stdout.readline() == b"started\n"
        os.killpg(worker.pid, signal.SIGKILL)

    with attempt(2):
        assert detached.look(HERE, job).state is DetachedState.RUNNING
        detached.start(HERE, job)
        (work / "go").touch()
        wait_until(has_ended(job), "its end", within_seconds=60)

    assert count(work) == ["began", "ended"]


def test_one_that_was_ended_from_outside_is_told_from_one_that_never_was(work):
    job = DetachedCommand("job", ("sh", "-c", f"echo $$ >{work}/pid; exec sleep 60"), 90.0)

    with attempt(1):
        assert detached.look(HERE, job).state is DetachedState.NOT_FOUND
        detached.start(HERE, job)
        wait_until((work / "pid").exists, "its id", within_seconds=60)
        pid = int((work / "pid").read_text())
        os.killpg(os.getsid(pid), signal.SIGKILL)
        os.kill(pid, signal.SIGKILL)
        wait_until(has_ended(job), "its end", within_seconds=60)

        assert detached.look(HERE, job).state is DetachedState.UNKNOWN


def test_an_attempt_that_was_paused_starts_nothing_once_a_later_one_has_come(work):
    job = counted(work)
    (work / "go").touch()
    with attempt(2):
        detached.start(HERE, job)
        wait_until(has_ended(job), "its end", within_seconds=60)
        detached.settle(HERE, job)

    with attempt(1), pytest.raises(CommandFailed, match="a later attempt"):
        detached.start(HERE, job)

    assert count(work) == ["began", "ended"]


def test_its_deadline_ends_it(work):
    job = DetachedCommand("job", ("sleep", "60"), 0.5)

    with attempt(1):
        detached.start(HERE, job)
        wait_until(has_ended(job), "its deadline", within_seconds=60)

        assert detached.look(HERE, job).exit_code == 124

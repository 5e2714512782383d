"""What a command prints is told while it runs: in the log of the step, masked and bounded."""

import logging
import os
import threading

import pytest

from blocks.ssh import heard as ssh_heard
from recovery.commands import LINES_HEARD_MAX
from recovery.secrecy.secret import Secret
from recovery.walk import Fence, Gate, gated
from tests.lab.processes import ServerMissing, wait_until
from tests.lab.ssh_attempt import BareWalk, attempt
from tests.lab.sshd import private_sshd


@pytest.fixture(scope="module")
def sshd(tmp_path_factory):
    try:
        with private_sshd(tmp_path_factory.mktemp("sshd")) as server:
            yield server
    except ServerMissing as missing:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(missing))


@pytest.fixture
def host(sshd, request):
    with sshd.block().session() as host:
        yield host


def test_lines_of_a_change_arrive_one_by_one_before_its_end(host, tmp_path):
    """Goal: an operator sees what a long change does while it does it.

    Method: a command that waits, after each line, until that line has been heard here.
    """
    script = 'for n in 1 2 3; do echo "line $n"; until [ -e "$0$n" ]; do sleep 0.02; done; done'
    at_times = []

    with attempt(1, target="heard") as gate:

        def answer():
            for number in (1, 2, 3):
                wait_until(
                    lambda n=number: f"line {n}" in gate.lines, f"line {number}", within_seconds=10
                )
                at_times.append(list(gate.lines))
                (tmp_path / f"heard{number}").touch()

        listener = threading.Thread(target=answer)
        listener.start()
        told = host.change(["sh", "-c", script, str(tmp_path / "heard")], within_seconds=30)
        listener.join()

    assert at_times == [["line 1"], ["line 1", "line 2"], ["line 1", "line 2", "line 3"]]
    assert told.stdout == "line 1\nline 2\nline 3\n"


def test_a_quick_look_is_not_told_and_a_long_one_is(host, monkeypatch):
    monkeypatch.setattr(ssh_heard, "LONG_SECONDS", 0.3)

    with attempt(1, target="heard") as quick:
        host.read(["echo", "quick"])
    with attempt(1, target="heard") as long:
        host.read(["sh", "-c", "echo early; sleep 0.5; echo late; printf unended"])

    assert quick.lines == []
    assert long.lines == ["early", "late", "unended"]


def test_both_streams_are_told_and_what_a_progress_bar_overwrote_is_not(host):
    script = r"printf '10%%\r20%%\r30%%\n'; echo warning >&2"

    with attempt(1, target="heard") as gate:
        host.change(["sh", "-c", script])

    assert sorted(gate.lines) == ["30%", "warning"]


def test_what_is_told_ends_at_a_bound_and_the_answer_has_the_rest(host):
    with attempt(1, target="heard") as gate:
        answer = host.change(["seq", str(LINES_HEARD_MAX * 5)])

    assert len(gate.lines) == LINES_HEARD_MAX
    assert gate.lines[-2:] == [str(LINES_HEARD_MAX - 1), "(what follows is not shown here)"]
    assert len(answer.stdout.split()) == LINES_HEARD_MAX * 5


def test_the_log_of_the_step_has_the_lines_without_secrets_and_what_nobody_can_read(
    host, caplog, tmp_path
):
    caplog.set_level(logging.INFO)
    secret = Secret("correct-horse-battery")
    long = Secret("long-secret-" * 400)
    world = tmp_path / "world"
    path, certificate = f"/var/lib/kubelet/pods/{'0a-' * 40}", f"{'TUlJ' * 40}=="
    lines = [
        f"password={secret.reveal()}",
        long.reveal(),
        "x" * 100_000,
        f"{path} {'0a' * 32} {certificate}",
    ]
    world.write_text("\n".join(lines))
    walk = BareWalk(Fence("0123abcd", 1, "heard", journal="j1"))

    with gated(Gate(walk, None, may_change=True)):
        host.change(["cat", str(world)])

    shown = [record.getMessage() for record in caplog.records if " | " in record.getMessage()]
    assert shown == [
        f"{host.target} | password=***",
        f"{host.target} | ***",
        f"{host.target} | (a line of 100000 bytes)",
        f"{host.target} | {path} {'0a' * 32} …",
    ]
    assert "correct-horse" not in caplog.text
    assert "long-secret" not in caplog.text

"""Detached commands: what is read of them, and the texts that stand in a plan."""

import subprocess

import pytest

from blocks.ssh import detached as ssh_detached
from blocks.ssh import detached_scripts
from blocks.ssh.detached import DetachedCommand, DetachedState, parse_look
from blocks.ssh.host import SshHost
from recovery.errors import UnreadableOutput
from recovery.plan import RECOVERY_ID, Plan
from recovery.planning import PlanWalk
from recovery.stage import PlainStage
from recovery.steps import current_walk

SCRIPTS = {
    name: text
    for name, text in vars(detached_scripts).items()
    if name in {"RUN", "START", "SETTLE", "LOOK", "READ_TAIL"}
}
JOB = DetachedCommand("renew", ("kubeadm", "certs", "renew", "all"), 600)


def printed(output="out\n", **words):
    said = {
        "LoadState": "loaded",
        "ActiveState": "active",
        "SubState": "running",
        "Result": "success",
        "Began": "yes",
        "ExitCode": "",
        "Size": "9",
        "Until": "4",
        **words,
    }
    return f"{output}\nrecover-unit {' '.join(f'{name}={said[name]}' for name in said)}\n"


GONE = {"LoadState": "not-found", "ActiveState": "inactive", "SubState": "dead"}
ENDED = {"SubState": "exited"}
FAILED = {"ActiveState": "failed", "SubState": "failed"}
STARTING = {"ActiveState": "activating", "SubState": "start", "Began": ""}
STOPPING = {"ActiveState": "deactivating", "SubState": "stop-sigterm"}
QUEUED = {"ActiveState": "inactive", "SubState": "dead", "Began": ""}


@pytest.mark.parametrize(
    ("words", "state"),
    [
        ({}, DetachedState.RUNNING),
        (STARTING, DetachedState.RUNNING),
        (STOPPING, DetachedState.RUNNING),
        (QUEUED, DetachedState.RUNNING),  # systemd 219 answers before the unit's job has run
        ({**ENDED, "ExitCode": "0"}, DetachedState.SUCCEEDED),
        ({"ExitCode": "0"}, DetachedState.SUCCEEDED),  # what it left in the background runs on
        ({**GONE, "ExitCode": "0"}, DetachedState.SUCCEEDED),
        ({**FAILED, "ExitCode": "3"}, DetachedState.FAILED),
        ({"ExitCode": "3"}, DetachedState.FAILED),
        ({**GONE, "ExitCode": "3"}, DetachedState.FAILED),
        (FAILED, DetachedState.FAILED),
        (GONE, DetachedState.UNKNOWN),
        (ENDED, DetachedState.UNKNOWN),
        ({**GONE, "Began": ""}, DetachedState.NOT_FOUND),
    ],
)
def test_how_far_it_came_is_told_by_the_unit_and_what_it_wrote(words, state):
    found, until, size = parse_look("u", printed(**words))

    assert found.state == state
    assert (found.output, until, size) == ("out\n", 4, 9)


def test_an_exit_code_is_kept_and_none_is_no_zero():
    assert parse_look("u", printed(ExitCode="3"))[0].exit_code == 3
    assert parse_look("u", printed())[0].exit_code is None


@pytest.mark.parametrize("text", ["", "\n", "no end", "a\n\n\nb=c\n", "x\nrecover-unit Size=1\n"])
def test_output_stays_as_it_is_whatever_it_holds(text):
    assert parse_look("u", printed(text))[0].output == text


@pytest.mark.parametrize(
    "text",
    ["", "Failed to connect to bus\n", printed(ExitCode="x"), printed().replace("Size=9", "")],
)
def test_what_cannot_be_read_is_no_state(text):
    with pytest.raises(UnreadableOutput):
        parse_look("u", text)


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_is_shell_and_stands_in_a_plan_as_it_is(name):
    checked = subprocess.run(
        ["sh", "-n"], input=SCRIPTS[name], text=True, capture_output=True, check=False
    )

    assert (checked.returncode, checked.stderr) == (0, "")
    assert "'" not in SCRIPTS[name]


def test_the_plan_names_the_unit_by_the_placeholder_and_ends_with_the_command():
    host = SshHost(address="db1", user="root")
    token = current_walk.set(PlanWalk("t", PlainStage(), plan=Plan("f", "t", {})))
    try:
        start, settle = ssh_detached.run_lines(host, JOB)
    finally:
        current_walk.reset(token)

    unit = f"recover-{RECOVERY_ID}-renew.service"
    assert start.startswith("sh -c ")
    assert start.endswith(f"start {unit} 600 'exec kubeadm certs renew all' renew")
    assert settle.endswith(f"settle {unit}")


def test_an_account_that_is_not_root_does_it_by_sudo():
    lines = ssh_detached.run_lines(SshHost(address="db1", user="ops"), JOB)

    assert all(line.startswith("sudo ") for line in lines)


@pytest.mark.parametrize("name", ["", "-x", "a b", "a/b", "A", "a;b", "x.", "@x"])
def test_a_name_that_is_none_is_a_mistake_in_the_step(name):
    with pytest.raises(ValueError, match="no name"):
        DetachedCommand(name, ("true",), 1)


def test_a_command_needs_parts_and_a_deadline():
    with pytest.raises(ValueError, match="empty"):
        DetachedCommand("x", (), 1)
    with pytest.raises(ValueError, match="deadline"):
        DetachedCommand("x", ("true",), 0)

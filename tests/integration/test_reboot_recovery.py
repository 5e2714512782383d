"""A recovery that reboots a host: planned, killed while the host is down, and from within."""

import contextlib
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import pytest

from recovery.declare import RECOVERIES, run_plainly
from recovery.errors import Refused
from recovery.journal.opening import open_journal
from recovery.launch import launch
from recovery.plan import commands_by_key
from recovery.run import Options
from recovery.stage import PlainStage
from tests.integration import reboot_recovery
from tests.lab.processes import wait_until

pytestmark = pytest.mark.timeout(240)  # the first run builds the root file system

PROJECT = Path(__file__).resolve().parents[2]
MODULE = "tests.integration.reboot_recovery"


@pytest.fixture
def lab(lab_network):
    return lab_network()


@pytest.fixture
def machine(lab):
    return lab.hosts[0]


@pytest.fixture
def host(machine):
    return machine.block(connect_within_seconds=2)


def url_of(machine):
    keys = machine.keys
    return f"ssh://root@{machine.address}?known_hosts={keys.known_hosts}&key_file={keys.client_key}"


@pytest.fixture
def journal(tmp_path, monkeypatch):
    path = tmp_path / "journal.sqlite"
    monkeypatch.setenv("RECOVER_JOURNAL", str(path))
    monkeypatch.setenv("RECOVER_LEASE_SECONDS", "4")
    return path


def run(machine, **options):
    declared = RECOVERIES["note-and-reboot"]
    defaults = {name: default for name, (_, default) in declared.parameters.items()}
    parameters = {**defaults, "host": url_of(machine)}
    return run_plainly(declared, parameters, Options(**options))


def test_what_was_planned_is_what_is_sent_and_a_second_run_asks_for_consent_again(machine, journal):
    planned = run(machine, plan_only=True).plan
    commands = commands_by_key(planned.as_plain())

    ended = run(machine, approve=planned.hash, approved_by="tester")

    assert ended.error is None
    assert machine.reboot_count == 1
    assert machine.run(f"cat {reboot_recovery.LINES}") == "noted\n"
    act = commands[f"reboot[root@{machine.address}]"]
    assert any("recover-@recovery@-reboot.service" in text for text in act)
    assert not any("its own worker runs here" in text for text in act)


def test_a_scheduled_shutdown_stands_in_the_plan_as_a_refusal(machine, journal):
    machine.run("shutdown -r +60")

    planned = run(machine, plan_only=True).plan
    ended = run(machine, break_glass="test")

    assert any("scheduled there already" in text for text in planned.refusals)
    assert isinstance(ended.error, Refused)
    assert machine.run(f"ls {reboot_recovery.LINES} 2>/dev/null || :") == ""


def test_a_worker_killed_while_the_host_is_down_resumes_and_waits(machine, journal):
    """Goal: the resume finds the host down, waits, and does not reboot it a second time.

    Method: SIGKILL the worker once the host is down; hold the host down over the resume's start.
    """
    machine.write(
        "etc/systemd/system/hold.service",
        "[Unit]\nBefore=ssh.service\n[Service]\nType=oneshot\n"
        "ExecStart=/bin/sh -c 'while [ -e /root/hold ]; do sleep 0.1; done'\n"
        "[Install]\nRequiredBy=ssh.service\n",
    )
    machine.run("systemctl enable hold; touch /root/hold")
    worker = subprocess.Popen(
        [sys.executable, "-m", MODULE, "run", url_of(machine)],
        cwd=PROJECT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    wait_until(
        lambda: machine.reboot_count == 1,
        "the host to go down",
        within_seconds=60,
        still_worth_it=lambda: worker.poll() is None,
    )
    worker.send_signal(signal.SIGKILL)
    worker.communicate()

    with ThreadPoolExecutor(1) as pool:
        resuming = pool.submit(resume_with_few_retries)
        with pytest.raises(TimeoutError):
            resuming.result(timeout=6)
        machine.run("rm /root/hold")
        resumed = resuming.result(timeout=90)

    assert resumed.error is None
    assert machine.reboot_count == 1
    assert machine.run(f"cat {reboot_recovery.LINES}") == "noted\n"


def resume_with_few_retries():
    """Resume where a step that nobody answers is given up after half a second."""
    with contextlib.closing(open_journal()) as journal:
        (recovery_id,) = journal.recovery_ids()
    declared = RECOVERIES["note-and-reboot"]
    options = Options(resume=recovery_id)
    return launch(declared, {}, options, PlainStage((0.5,)), str(uuid4()))


@pytest.fixture
def own(lab_network):
    """A host on which the worker runs that reboots it: with this project, and a way to itself."""
    base = Path(sys.base_prefix)
    binds = [(PROJECT, PROJECT), (base, base)]
    lab = lab_network(binds=binds)
    machine = lab.hosts[0]
    machine.write("root/key", machine.keys.client_key.read_text(), 0o600)
    public = machine.run("cat /etc/ssh/ssh_host_ed25519_key.pub")
    machine.write("root/known_hosts", f"127.0.0.1 {public}")
    environment = {
        "RECOVER_JOURNAL": "/root/journal.sqlite",
        "RECOVER_LEASE_SECONDS": "4",
        "PREFECT_HOME": "/root/prefect",
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": "/root",
    }
    lines = "".join(f"Environment={name}={value}\n" for name, value in environment.items())
    worker = f"{sys.executable} -m {MODULE}"
    url = "ssh://root@127.0.0.1?known_hosts=/root/known_hosts&key_file=/root/key"
    service = f"[Service]\nType=oneshot\nWorkingDirectory={PROJECT}\n{lines}"
    machine.write(
        "etc/systemd/system/recover-run.service",
        f"{service}ExecStart={worker} run {url}\nStandardOutput=append:/root/run.json\n",
    )
    machine.write(
        "etc/systemd/system/recover-resume.service",
        f"[Unit]\nAfter=ssh.service\nConditionPathExists=/root/journal.sqlite\n{service}"
        f"ExecStart={worker} resume\nStandardOutput=append:/root/resumed.json\n"
        "[Install]\nWantedBy=multi-user.target\n",
    )
    machine.run("systemctl daemon-reload; systemctl enable recover-resume")
    return machine


def test_a_recovery_that_reboots_the_host_of_its_own_worker_resumes_after_boot(own):
    """Goal: the worker goes down with the host it reboots, and the next boot finishes it.

    Method: run it inside the host against 127.0.0.1; a unit resumes after boot. Nothing else helps.
    """
    own.run("systemctl start --no-block recover-run")
    wait_until(lambda: own.reboot_count == 1, "it to reboot itself", within_seconds=90)
    own.wait_until_up()
    wait_until(
        lambda: '"recovered"' in own.run("cat /root/resumed.json"),
        "the resume to finish",
        within_seconds=90,
    )

    assert own.reboot_count == 1
    assert own.run(f"cat {reboot_recovery.LINES}") == "noted\n"
    journal = own.run("strings /root/journal.sqlite 2>/dev/null || cat -v /root/journal.sqlite")
    assert "its own worker runs here" in journal

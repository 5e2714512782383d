"""Clocks that are wrong for real, in a machine with a kernel of its own, mended by its chronyd."""

import contextlib
import shutil
import time

import pytest

import flows.clocks  # noqa: F401 (what is run)
from recovery.declare import RECOVERIES, run_plainly
from recovery.errors import Refused
from recovery.journal.opening import open_journal
from recovery.run import Options
from tests.lab.processes import wait_until
from tests.lab.session import started_or_skipped
from tests.lab.virtual_machine import GATEWAY, time_source, virtual_machine

pytestmark = [
    pytest.mark.timeout(900),  # an emulated machine beside other work is slow
    pytest.mark.skipif(
        shutil.which("qemu-system-x86_64") is None,
        reason="a clock of its own needs an emulated machine: install qemu-system-x86",
    ),
]

# Wider than the default, as an emulated machine answers in half a second or more.
WARN_SECONDS, FAIL_SECONDS = 2.0, 6.0


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    folder = tmp_path_factory.mktemp("machine")
    with (
        started_or_skipped(time_source(folder)) as source,
        started_or_skipped(virtual_machine(folder)) as machine,
    ):
        machine.run(
            f"echo 'server {GATEWAY} port {source.port} iburst minpoll 0 maxpoll 1\nmakestep 1 3' "
            ">/etc/chrony/chrony.conf"
        )
        yield machine


@pytest.fixture
def machine(running):
    """The machine with its clock right, and its daemon stopped and disabled."""
    running.run("systemctl stop chrony; systemctl disable chrony 2>&1")
    running.run(f"date -s @{time.time() + 0.3:.3f}")
    return running


@pytest.fixture(autouse=True)
def journal(tmp_path, monkeypatch):
    monkeypatch.setenv("RECOVER_JOURNAL", str(tmp_path / "journal.sqlite"))
    monkeypatch.setenv("RECOVER_LEASE_SECONDS", "8")


def run(machine, **parameters):
    declared = RECOVERIES["synchronise-clocks"]
    defaults = {name: default for name, (_, default) in declared.parameters.items()}
    given = {
        **defaults,
        "hosts": machine.url(),
        "warn_seconds": WARN_SECONDS,
        "fail_seconds": FAIL_SECONDS,
        **parameters,
    }
    return run_plainly(declared, given, Options())


def sent(recovery_id):
    with contextlib.closing(open_journal()) as kept:
        events = kept.events(recovery_id)
    return [e.body["command"] for e in events if e.kind == "command" and e.body["is_change"]]


def seconds_off(machine):
    """How far its clock is off, asked once and by itself."""
    before = time.time()
    told = float(machine.run("date -u +%s.%N"))
    return told - (before + time.time()) / 2


def set_off(machine, seconds):
    """Jump under a chronyd that has used up the steps it may take itself, and let it notice."""
    machine.run("systemctl start chrony; chronyc waitsync 60 0.1 0 1", within_seconds=120)
    machine.run("sleep 4")  # it steps by itself at its first three updates only
    machine.run(f"date -s '{seconds:+d} seconds'")
    wait_until(lambda: believed_off(machine) > abs(seconds) / 2, "it to notice", within_seconds=90)


def believed_off(machine):
    (line,) = (
        line for line in machine.run("chronyc tracking").splitlines() if "System time" in line
    )
    return float(line.split()[3])


def test_a_clock_that_is_behind_is_stepped_forward(machine):
    set_off(machine, -40)
    assert seconds_off(machine) < -30

    ended = run(machine)

    assert ended.error is None
    assert "chronyc makestep" in sent(ended.recovery_id)
    assert abs(seconds_off(machine)) < WARN_SECONDS
    assert run(machine).result.mended == []


def test_a_clock_that_is_ahead_goes_back_only_when_that_is_accepted(machine):
    set_off(machine, 40)

    refused = run(machine)
    assert isinstance(refused.error, Refused)
    assert sent(refused.recovery_id) == []
    assert seconds_off(machine) > 30

    accepted = run(machine, accept=[f"step-back:{machine.block().label}"])
    assert accepted.error is None
    assert "chronyc makestep" in sent(accepted.recovery_id)
    assert abs(seconds_off(machine)) < WARN_SECONDS


def test_a_daemon_that_steps_when_it_starts_needs_no_further_step(machine):
    machine.run("date -s '-40 seconds'")

    ended = run(machine)

    assert ended.error is None
    assert "systemctl --no-ask-password start -- chrony.service" in sent(ended.recovery_id)
    assert abs(seconds_off(machine)) < WARN_SECONDS


def test_a_clock_that_is_only_a_little_off_is_slewed_and_never_jumps(machine):
    set_off(machine, -4)

    ended = run(machine)

    assert ended.error is None
    assert "chronyc makestep" not in sent(ended.recovery_id)
    assert abs(seconds_off(machine)) < WARN_SECONDS

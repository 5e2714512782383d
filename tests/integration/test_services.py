"""Units of a real systemd: their state, stopping and starting them."""

import time

import pytest

from recovery.errors import CommandFailed, NotVerified, Refused
from tasks import services
from tasks.services import UnitState
from tests.lab.hosts import lab_hosts
from tests.lab.processes import wait_until
from tests.lab.session import started_or_skipped

pytestmark = pytest.mark.timeout(240)  # the first run builds the root file system

UNITS = {
    "sleeper.service": "[Service]\nExecStart=/bin/sleep infinity\n",
    "stubborn.service": "[Service]\nTimeoutStopSec=1\n"
    "ExecStart=/bin/sh -c 'trap \"\" TERM; while :; do sleep 1; done'\n",
    "broken.service": "[Service]\nType=oneshot\nExecStart=/bin/false\n",
    "crashing.service": "[Unit]\nStartLimitIntervalSec=0\n"
    "[Service]\nRestart=always\nRestartSec=100ms\nExecStart=/bin/sleep 0.3\n",
    "woken.service": "[Service]\nExecStart=/bin/sleep infinity\n",
    "woken.path": "[Path]\nPathExists=/etc/hostname\n",
}


ONLY_SYSTEMCTL = {"etc/sudoers.d/ops": "ops ALL=(root) NOPASSWD: /usr/bin/systemctl\n"}


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    directory = tmp_path_factory.mktemp("machine")
    with started_or_skipped(lab_hosts(directory, units=UNITS, files=ONLY_SYSTEMCTL)) as lab:
        yield lab.hosts[0]


@pytest.fixture
def host(machine):
    with machine.block().session() as root:
        yield root
        root.change(["systemctl", "kill", "-s", "KILL", *UNITS], accept=(0, 1))
        root.change(["systemctl", "stop", *UNITS])
        root.change(["systemctl", "reset-failed"])


def test_a_unit_is_started_and_stopped_and_each_may_be_done_twice(host):
    assert services.is_inactive(host, "sleeper")

    services.start_unit(host, "sleeper")
    services.start_unit(host, "sleeper")
    running = services.wait_until_active(host, "sleeper", steady_seconds=0.5)
    assert host.read(["cat", f"/proc/{running.main_pid}/comm"]).stdout == "sleep\n"

    services.stop_unit(host, "sleeper")
    services.stop_unit(host, "sleeper")
    stopped = services.wait_until_inactive(host, "sleeper")
    assert (stopped.state, stopped.main_pid) == (UnitState.INACTIVE, 0)
    assert host.read(["test", "-e", f"/proc/{running.main_pid}"], accept=(0, 1)).exit_code == 1


def test_an_account_that_is_not_root_acts_by_sudo(machine, host):
    ops = machine.block(user="ops")

    services.start_unit(ops, "sleeper")

    assert services.is_active(ops, "sleeper")


def test_sudo_that_says_no_is_told_with_its_remedy(machine, host):
    ops = machine.block(user="ops")

    with pytest.raises(CommandFailed, match="NOPASSWD"):
        ops.change(["touch", "/root/touched"], as_root=True)


def test_a_unit_that_does_not_exist_is_named(host):
    assert services.unit_state(host, "nonesuch") is UnitState.NOT_FOUND
    with pytest.raises(Refused, match=r"no unit nonesuch\.service"):
        services.start_unit(host, "nonesuch")


def test_a_unit_that_fails_to_start_says_no(host):
    with pytest.raises(CommandFailed, match="broken"):
        services.start_unit(host, "broken")

    assert services.unit_state(host, "broken") is UnitState.FAILED


def test_a_unit_killed_for_not_stopping_is_at_rest_all_the_same(host):
    services.start_unit(host, "stubborn")
    services.wait_until_active(host, "stubborn", steady_seconds=0.5)

    services.stop_unit(host, "stubborn")

    status = services.wait_until_inactive(host, "stubborn")
    assert (status.state, status.result) == (UnitState.FAILED, "timeout")


def test_a_unit_that_crashes_again_and_again_is_never_taken_for_active(host):
    services.start_unit(host, "crashing")

    with pytest.raises(NotVerified, match="to stay active"):
        services.wait_until_active(host, "crashing", within_seconds=3, steady_seconds=1)


def test_a_unit_that_something_else_starts_again_is_named_with_it(host):
    host.change(["systemctl", "start", "woken.path"])
    wait_until(lambda: services.is_active(host, "woken"), "the path unit to act", within_seconds=10)

    services.stop_unit(host, "woken")

    assert services.unit_status(host, "woken").triggered_by == ("woken.path",)
    with pytest.raises(NotVerified, match=r"started again by woken\.path"):
        services.wait_until_inactive(host, "woken", within_seconds=0)


def test_a_host_without_a_running_systemd_is_not_a_host_with_inactive_units(host):
    # A private mount namespace hides systemd's sockets from systemctl, as on a host without it.
    argv = ["unshare", "-m", "sh", "-c", 'mount -t tmpfs none /run && exec "$@"', "sh"]

    class Without:
        target = host.target

        def read(self, command, *, within_seconds):
            return host.read([*argv, *command], within_seconds=within_seconds)

    started = time.monotonic()
    with pytest.raises(CommandFailed, match="systemd"):
        services.unit_state(Without(), "sleeper")
    assert time.monotonic() - started < 20

"""Rebooting a real host: once, proven, and told apart from all that can come of it."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from blocks.ssh import detached
from blocks.ssh.detached import DetachedState
from blocks.ssh.login import LoginRefused
from recovery.verdict import Verdict
from tasks import reboot as reboots
from tasks.reboot import (
    CameBackAsAnother,
    CameBackWithout,
    DidNotReboot,
    NeverReturned,
    boot_id_before,
    came_back,
    has_rebooted,
    reboot,
)
from tests.lab.processes import wait_until
from tests.lab.sshd import make_key

pytestmark = pytest.mark.timeout(240)  # the first run builds the root file system

WITHIN = 60.0


@pytest.fixture
def lab(lab_network):
    return lab_network()


@pytest.fixture
def machine(lab):
    return lab.hosts[0]


@pytest.fixture
def host(machine):
    return machine.block(connect_within_seconds=2)


def test_a_reboot_is_done_once_and_proven(machine, host):
    before = boot_id_before(host)

    reboot(host, before, WITHIN)
    now = came_back(host, before, ("ssh", "dbus.service"), WITHIN)

    assert now != before.boot_id
    assert now == machine.run("cat /proc/sys/kernel/random/boot_id").strip()
    assert machine.reboot_count == 1


def test_a_command_that_comes_again_after_the_reboot_does_nothing(machine, host):
    """Goal: at most once by construction, whatever is sent twice or late.

    Method: send the very command of the old boot to the new one, with every check passed by.
    """
    before = boot_id_before(host)
    reboot(host, before, WITHIN)

    again = reboots._command(before)
    detached.start(host, again)
    said = detached.wait(host, again)

    assert said.state is DetachedState.SUCCEEDED
    assert "nothing is done" in said.output
    assert machine.reboot_count == 1


def test_an_account_that_is_not_root_reboots_by_sudo(machine):
    ops = machine.block(user="ops")
    before = boot_id_before(ops)

    reboot(ops, before, WITHIN)

    assert machine.reboot_count == 1
    came_back(ops, before, (), WITHIN)


def test_a_host_that_is_down_is_waited_for_and_neither_failed_nor_rebooted_again(machine, host):
    """Goal: "down at the moment" is not "not done".

    Method: ask the probe while the host has no power; give it power after a second.
    """
    before = boot_id_before(host)
    machine.power_cut()

    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(has_rebooted, host, before, WITHIN)
        with pytest.raises(TimeoutError):
            asked.result(timeout=1)
        machine.power_on()
        assert asked.result(timeout=WITHIN) is Verdict.DONE

    assert machine.reboot_count == 0


def test_a_reboot_that_was_never_asked_for_is_not_done(host):
    assert has_rebooted(host, boot_id_before(host), 5) is Verdict.NOT_DONE


def test_a_host_that_never_returns_is_told_with_its_console_as_remedy(machine, host):
    before = boot_id_before(host)
    machine.power_cut()

    with pytest.raises(NeverReturned, match="console out of band"):
        has_rebooted(host, before, 2)


def test_a_host_frozen_on_its_way_never_returns(machine, host):
    before = boot_id_before(host)
    machine.freeze()
    try:
        with pytest.raises(NeverReturned):
            came_back(host, before, (), 3)
    finally:
        machine.thaw()


def test_a_host_that_comes_back_with_another_key_is_another(machine, host, tmp_path):
    other = make_key(tmp_path / "other")
    with host.session():  # sshd shows the new key to those who come later
        before = boot_id_before(host)
        machine.write("etc/ssh/ssh_host_ed25519_key", other.read_text(), 0o600)
        machine.write("etc/ssh/ssh_host_ed25519_key.pub", Path(f"{other}.pub").read_text())

        with pytest.raises(CameBackAsAnother, match="host key has changed"):
            reboot(host, before, WITHIN)

    assert machine.reboot_count == 1


def test_a_host_that_comes_back_and_lets_us_not_in_says_so(machine, host):
    with host.session():
        before = boot_id_before(host)
        machine.run("rm /etc/ssh/lab_keys; : >/etc/ssh/lab_keys")

        with pytest.raises(LoginRefused, match="authorized_keys"):
            reboot(host, before, 8)

    assert machine.reboot_count == 1


@pytest.mark.parametrize("unit", ["redis-server", "kubelet"])
def test_a_host_that_comes_back_without_a_unit_says_which(host, unit):
    before = boot_id_before(host)
    reboot(host, before, WITHIN)

    with pytest.raises(CameBackWithout, match=f"{unit}.service to run"):
        came_back(host, before, ("ssh", unit), 4)


def test_a_unit_that_takes_its_time_is_waited_for(machine, host):
    machine.write(
        "etc/systemd/system/late.service",
        "[Service]\nExecStartPre=/bin/sleep 3\nExecStart=/bin/sleep infinity\n"
        "[Install]\nWantedBy=multi-user.target\n",
    )
    machine.run("systemctl enable late")
    before = boot_id_before(host)
    reboot(host, before, WITHIN)

    assert came_back(host, before, ("late",), WITHIN) != before.boot_id


def test_a_reboot_that_is_refused_there_is_told_with_its_words_and_may_be_tried_again(
    machine, host
):
    """Goal: a blocked reboot is no reboot, and no dead end.

    Method: a systemctl that says no as one of systemd 257 does to root; then the real one.
    """
    says_no = (
        '#!/bin/sh\n[ "$1" = reboot ] || exec /usr/bin/systemctl.real "$@"\n'
        'echo "Operation inhibited by backup" >&2\nexit 1\n'
    )
    machine.run("cp -p /usr/bin/systemctl /usr/bin/systemctl.real")
    machine.write("usr/bin/systemctl", says_no, 0o755)
    before = boot_id_before(host)

    with pytest.raises(DidNotReboot, match="inhibited by backup"):
        reboot(host, before, 20)
    assert machine.reboot_count == 0

    machine.run("cp -p /usr/bin/systemctl.real /usr/bin/systemctl.new")
    machine.run("mv /usr/bin/systemctl.new /usr/bin/systemctl")
    reboot(host, before, WITHIN)
    assert machine.reboot_count == 1


def test_a_unit_that_hangs_on_stop_is_named_and_the_reboot_is_not_ordered_twice(machine, host):
    """Goal: held up is told apart from refused and from gone.

    Method: a unit that is stopped before sshd is and does not end; kill it after the error.
    """
    machine.write(
        "etc/systemd/system/clinging.service",
        "[Unit]\nAfter=ssh.service systemd-user-sessions.service\n"
        "[Service]\nTimeoutStopSec=100\n"
        "ExecStart=/bin/sh -c 'trap \"\" TERM; while :; do sleep 1; done'\n",
    )
    machine.run("systemctl daemon-reload; systemctl start clinging")
    before = boot_id_before(host)

    with pytest.raises(DidNotReboot, match=r"waits for: .*clinging\.service \(stop\)"):
        reboot(host, before, 8)

    machine.run("systemctl kill -s KILL clinging")
    assert has_rebooted(host, before, WITHIN) is Verdict.DONE
    assert machine.reboot_count == 1


def test_a_boot_id_that_is_new_by_itself_is_no_reboot(machine, host):
    before = boot_id_before(host)
    wait_until(
        lambda: float(machine.run("cat /proc/uptime").split()[0]) > before.uptime_seconds + 4,
        "an uptime that is no new one",
        within_seconds=20,
    )
    machine.run("umount /proc/sys/kernel/random/boot_id")  # that of the machine shows
    later = reboots.Boot(before.boot_id, 0.1, reboots.datetime.now(reboots.UTC))

    with pytest.raises(DidNotReboot, match="container"):
        came_back(host, later, (), 5)


def test_a_reboot_that_somebody_cancelled_is_not_verified(host):
    with pytest.raises(DidNotReboot, match="still boot"):
        came_back(host, boot_id_before(host), (), 5)

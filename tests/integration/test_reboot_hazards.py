"""Reasons not to reboot a host, each on a real one."""

import pytest

from recovery.errors import CommandFailed, Refused
from tasks import reboot_hazards as hazards
from tasks.reboot import reboot
from tests.lab.processes import wait_until

pytestmark = pytest.mark.timeout(240)  # the first run builds the root file system


@pytest.fixture
def lab(lab_network):
    return lab_network()


@pytest.fixture
def machine(lab):
    return lab.hosts[0]


@pytest.fixture
def host(machine):
    return machine.block(connect_within_seconds=2)


def test_nothing_speaks_against_a_healthy_host(host):
    for refuse in reboot.terms.refuse_if:
        refuse(host)


def test_a_shutdown_that_is_scheduled_already_is_respected(machine, host):
    machine.run("shutdown -r +60 'by hand'")

    with pytest.raises(Refused, match=r"scheduled there already .*MODE=reboot"):
        hazards.refuse_if_shutting_down(host)
    machine.run("shutdown -c")

    hazards.refuse_if_shutting_down(host)


def test_a_host_on_its_way_down_is_not_told_again(machine, host):
    machine.write(
        "etc/systemd/system/clinging.service",
        "[Unit]\nAfter=ssh.service\n[Service]\nTimeoutStopSec=100\n"
        "ExecStart=/bin/sh -c 'trap \"\" TERM; while :; do sleep 1; done'\n",
    )
    machine.run("systemctl daemon-reload; systemctl start clinging; systemctl reboot --no-block")

    with pytest.raises(Refused, match="shutting down already"):
        hazards.refuse_if_shutting_down(host)


def locks(host):
    return hazards.parse_inhibitors(host.read(hazards.LIST_INHIBITORS).stdout)


def test_a_lock_against_shutdown_is_respected_and_one_that_only_delays_is_not(machine, host):
    hold = 'systemd-run --unit={0} systemd-inhibit --what={1} --who="it\'s $x" --mode={2} sleep 99'
    machine.run(hold.format("delays", "shutdown", "delay"))
    machine.run(hold.format("sleeps", "sleep", "block"))
    wait_until(lambda: len(locks(host)) == 2, "two locks", within_seconds=10)
    hazards.refuse_if_inhibited(host)

    machine.run(hold.format("blocks", "idle:shutdown", "block"))
    wait_until(lambda: len(locks(host)) == 3, "three locks", within_seconds=10)
    with pytest.raises(Refused, match="it's"):
        hazards.refuse_if_inhibited(host)


def test_without_logind_nobody_holds_a_lock_and_without_a_bus_nobody_can_tell(machine, host):
    machine.run("systemctl mask --runtime --now systemd-logind dbus-org.freedesktop.login1")
    hazards.refuse_if_inhibited(host)

    machine.run("systemctl stop dbus.socket dbus")
    with pytest.raises(CommandFailed, match="bus"):
        hazards.refuse_if_inhibited(host)


def test_a_root_that_went_read_only_is_named(machine, host):
    read_only = 'mount --rbind / /mnt && mount -o remount,bind,ro /mnt && exec chroot /mnt "$@"'

    class WithReadOnlyRoot:
        target = host.target

        def read(self, argv, **rest):
            return host.read(["unshare", "-m", "sh", "-c", read_only, "sh", *argv], **rest)

    hazards.refuse_if_root_went_read_only(WithReadOnlyRoot())  # nothing says it is meant otherwise
    machine.write("etc/fstab", "# root\n/dev/vda1 / ext4 defaults,errors=remount-ro 0 1\n")
    hazards.refuse_if_root_went_read_only(host)

    with pytest.raises(Refused, match="read-only now"):
        hazards.refuse_if_root_went_read_only(WithReadOnlyRoot())


def test_a_package_that_is_being_installed_is_waited_for(machine, host):
    """Method: a real dpkg, held up by the script of the package it installs."""
    machine.run(
        "mkdir -p /root/slow/DEBIAN && cd /root/slow/DEBIAN && "
        "printf 'Package: slow\\nVersion: 1\\nArchitecture: all\\nMaintainer: x <x@y>\\n"
        "Description: x\\n' >control && "
        "printf '#!/bin/sh\\nwhile [ ! -e /root/go ]; do sleep 0.1; done\\n' >postinst && "
        "chmod 755 postinst && dpkg-deb --build /root/slow /root/slow.deb"
    )
    hazards.refuse_if_packages_are_changing(host)
    machine.run("systemd-run --unit=installs dpkg -i /root/slow.deb")
    wait_until(lambda: machine.run("pgrep postinst || :"), "the package", within_seconds=20)

    with pytest.raises(Refused, match="holds /var/lib/dpkg/lock"):
        hazards.refuse_if_packages_are_changing(host)
    machine.run("touch /root/go")
    wait_until(
        lambda: "installed" in machine.run("dpkg-query -Wf '${Status}' slow"),
        "dpkg to end",
        within_seconds=20,
    )

    wait_until(lambda: machine.run("pgrep dpkg || :") == "", "dpkg to be gone", within_seconds=20)
    hazards.refuse_if_packages_are_changing(host)

"""The fence on whole hosts: accounts with and without sudo, full disks, lost power and network."""

import threading
import time

import pytest

from recovery.errors import AnswerLost, CommandFailed, Fenced, Unreachable
from tests.lab.hosts import lab_hosts
from tests.lab.processes import wait_until
from tests.lab.session import started_or_skipped
from tests.lab.ssh_attempt import attempt

pytestmark = pytest.mark.timeout(240)  # the first run builds the root file system
GUEST = "guest"  # has no line in sudoers


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    with started_or_skipped(lab_hosts(tmp_path_factory.mktemp("lab"), 2, inner=1)) as lab:
        for host in lab.hosts:
            host.run(f"useradd -m -s /bin/bash {GUEST}")
        yield lab


@pytest.fixture(scope="module")
def machine(lab):
    return lab.hosts[0]


@pytest.fixture
def target(request):
    """A lease target of this test's own."""
    return request.node.name


def say(host, word, **options):
    host.change(["sh", "-c", 'echo "$0" >>/tmp/said', word], **options)


@pytest.fixture(autouse=True)
def _said_nothing(machine):
    machine.run("rm -f /tmp/said")


def said(machine):
    return machine.run("cat /tmp/said 2>/dev/null || true").split()


def test_root_and_who_may_become_root_share_one_fence(machine, target):
    root, ops = machine.block(), machine.block("ops")

    with attempt(1, target=target):
        say(root, "root1")
        machine.run("chmod 666 /tmp/said")
    with attempt(2, target=target):
        say(ops, "ops2")
        say(ops, "ops2-as-root", as_root=True)
    with attempt(1, target=target), pytest.raises(Fenced):
        say(root, "root1")
    with attempt(3, target=target):
        say(root, "root3")
    for late in (2, 1):
        with attempt(late, target=target), pytest.raises(Fenced):
            say(ops, "ops")

    assert said(machine) == ["root1", "ops2", "ops2-as-root", "root3"]
    assert machine.run("ls -d /home/ops/.local 2>/dev/null || true") == ""


def test_the_files_of_a_fence_are_for_the_account_that_uses_them(machine, target):
    with attempt(1, target=target):
        say(machine.block("ops"), "x")

    listed = machine.run("stat -c '%A %U %G %n' /var/lib/recover /var/lib/recover/*")

    assert "drwx--x--x root root /var/lib/recover\n" in listed
    modes = {line.split(" /")[0] for line in listed.splitlines()[1:]}
    assert modes <= {"-rw-r----- root ops", "-rw------- root root"}


def test_an_account_without_sudo_keeps_its_fence_at_home(machine, target):
    guest = machine.block(GUEST)

    with attempt(1, target=target):
        say(guest, "guest1")
    with attempt(2, target=target):
        say(guest, "guest2")
    with attempt(1, target=target), pytest.raises(Fenced):
        say(guest, "guest1")

    assert said(machine) == ["guest1", "guest2"]
    machine.run(f"grep -q '^2 2 0123abcd j1 .$' /home/{GUEST}/.local/state/recover/*")


def test_an_account_without_sudo_does_not_act_where_root_has_a_fence(machine, target):
    guest = machine.block(GUEST)
    with attempt(1, target=target):
        say(guest, "guest1")
        with attempt(2, target=target):
            say(machine.block(), "root2")
        with pytest.raises(CommandFailed, match="Log in as root, or let this user run sudo"):
            say(guest, "guest1")
    with attempt(3, target=target), pytest.raises(CommandFailed, match="is root's"):
        say(guest, "guest3")

    assert said(machine) == ["guest1", "root2"]


def test_a_full_disk_keeps_nobody_from_acting_and_no_fence_from_holding(machine, target):
    """Goal: the disk that is to be recovered may be the one that is full.

    Method: a tiny file system over the folder that lasts, full to the last byte, then room again.
    """
    host = machine.block()
    with attempt(1, target=target):
        say(host, "room1")
    machine.run(
        "cp -a /var/lib/recover /tmp/before && mount -t tmpfs -o size=64k tiny /var/lib/recover && "
        "cp -a /tmp/before/. /var/lib/recover && (cat /dev/zero >/var/lib/recover/full; true) 2>&-"
    )
    try:
        with attempt(1, target=target):
            say(host, "full1")
        with attempt(2, target=target):
            say(host, "full2")
        with attempt(1, target=target), pytest.raises(Fenced):
            say(host, "full1")
        machine.run("rm /var/lib/recover/full")
        with attempt(2, target=target):
            say(host, "again2")
        with attempt(1, target=target), pytest.raises(Fenced):
            say(host, "again1")
        with attempt(3, target=target):
            say(host, "again3")
        with attempt(2, target=target), pytest.raises(Fenced):
            say(host, "again2")
    finally:
        machine.run("umount /var/lib/recover; rm -rf /run/recover /tmp/before")

    assert said(machine) == ["room1", "full1", "full2", "again2", "again3"]


def test_a_disk_that_is_read_only_keeps_nobody_from_acting(machine, target):
    machine.run(
        "mkdir -p -m 711 /var/lib/recover && mount --bind /var/lib/recover /var/lib/recover"
    )
    machine.run("mount -o remount,ro,bind /var/lib/recover")
    try:
        with attempt(1, target=target):
            say(machine.block(), "x")
        assert machine.run("ls /run/recover | wc -l") == "2\n"
    finally:
        machine.run("umount /var/lib/recover; rm -rf /run/recover")

    assert said(machine) == ["x"]


def test_where_nothing_can_be_written_a_change_is_refused_and_a_look_is_not(machine, target):
    folders = "/var/lib/recover /run/recover"
    machine.run(
        f"for f in {folders}; do mkdir -p -m 711 $f; "
        "mount -t tmpfs -o size=4k,ro,mode=700 none $f; done"
    )
    try:
        with attempt(1, target=target):
            assert machine.block().read(["echo", "looks"]).stdout == "looks\n"
            with pytest.raises(CommandFailed, match="Free a little space") as refused:
                say(machine.block(), "x")
    finally:
        machine.run(f"umount {folders}; rm -rf /run/recover")

    assert not refused.value.is_retried
    assert said(machine) == []


def test_a_fence_outlives_a_power_cut(lab, target):
    machine = lab.hosts[1]
    jump = [lab.hosts[0].url()]
    host = machine.block(jump=jump)
    with attempt(4, target=target):
        say(host, "x")
    machine.run("sync")

    machine.power_cut()
    machine.power_on()

    with attempt(3, target=target), pytest.raises(Fenced):
        say(host, "y")
    with attempt(4, target=target):
        say(host, "z")
    assert machine.run("cat /tmp/said | tail -1") == "z\n"


@pytest.mark.parametrize("inner", [False, True])
def test_a_network_that_is_lost_in_mid_command_is_noticed_by_the_keepalive(lab, target, inner):
    """Goal: what is lost is told within the bound of the keepalive, not after that of TCP.

    Method: drop every packet while a command runs, to the host itself or behind the jump host.
    """
    outer, behind = lab.hosts
    if inner:
        machine, host = behind, behind.block(jump=[outer.url()], keepalive_seconds=1)
    else:
        machine, host = outer, outer.block(keepalive_seconds=1)
    machine.run("rm -f /tmp/began")
    cut_at = []

    def cut():
        wait_until(
            lambda: machine.run("ls /tmp/began 2>/dev/null || true"),
            "the command to run",
            within_seconds=20,
        )
        cut_at.append(time.monotonic())
        if inner:
            lab.partition(outer, behind)
        else:
            lab.cut(outer)

    cutter = threading.Thread(target=cut)
    try:
        with attempt(1, target=target), host.session():
            host.read(["true"])
            cutter.start()
            with pytest.raises(AnswerLost, match="no sign of life for 4 s"):
                host.change(["sh", "-c", "touch /tmp/began; sleep 25"], within_seconds=60)
            noticed = time.monotonic() - cut_at[0]
            with pytest.raises(Unreachable):
                host.read(["true"], within_seconds=2)
            lab.heal()
            lab.join(outer)
            assert noticed < 8
            machine.run("pkill sleep || true")
            assert host.read(["echo", "back"]).stdout == "back\n"
    finally:
        cutter.join()
        lab.heal()
        lab.join(outer)

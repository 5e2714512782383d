"""The hosts of the lab are real: each verb does to them what its name says, and is seen to."""

import contextlib
import re
import socket
import sys
from pathlib import Path

import pytest

from blocks.ssh.host import SshHost
from recovery.errors import Unreachable
from tests.conftest import PROJECT
from tests.lab import host_cgroups
from tests.lab.host_probes import is_silent, read
from tests.lab.hosts import NSPAWN, lab_hosts
from tests.lab.processes import LabError, wait_until
from tests.lab.session import started_or_skipped

pytestmark = pytest.mark.timeout(300)  # the first run builds the root file system

BOOT_ID = "/proc/sys/kernel/random/boot_id"
BACK_WITHIN_SECONDS = 120
SSH_PORT = 22
UNITS = "/etc/systemd/system"


def wait_for_reboot(host, count=1):
    wait_until(
        lambda: host.reboot_count == count,
        f"{host} to have rebooted {count} times",
        within_seconds=BACK_WITHIN_SECONDS,
    )
    host.wait_until_up()


def test_each_account_logs_in_and_becomes_root_as_it_may(host_trio):
    host = host_trio.hosts[0]

    assert [read(host, "id", "-un", user=user) for user in ("root", "ops", "asked")] == [
        "root",
        "ops",
        "asked",
    ]
    assert SshHost.from_url(host.url("ops")).read(["id", "-un"]).stdout == "ops\n"
    assert read(host, "sudo", "-n", "id", "-un", user="ops") == "root"
    refused = host.block("asked").read(["sudo", "-n", "id", "-un"], accept=(1,))
    assert "password is required" in refused.stderr
    said = host.run(
        "runuser -u asked -- sudo -k -S -p '' id -un <<'END'\n" + host.password + "\nEND"
    )
    assert said == "root\n"


def test_each_host_has_an_identity_of_its_own(host_trio):
    seen = [
        (
            read(host, "hostname"),
            read(host, "cat", "/etc/machine-id"),
            read(host, "cat", BOOT_ID),
            read(host, "cat", "/etc/ssh/ssh_host_ed25519_key.pub"),
            host.address,
        )
        for host in host_trio.hosts
    ]

    for different in zip(*seen, strict=True):
        assert len(set(different)) == 3, different
    assert [names for names, *_ in seen] == [host.name for host in host_trio.hosts]


def test_every_unit_has_come_up_and_only_sshd_listens(host_trio):
    host = host_trio.hosts[0]

    assert host.run("systemctl is-system-running") == "running\n"
    listening = {line.split()[3] for line in host.run("ss -Hltn").splitlines()}
    of_docker = {address for address in listening if address.startswith("127.0.0.11:")}
    assert listening - of_docker == {f"0.0.0.0:{SSH_PORT}", f"[::]:{SSH_PORT}"}


def test_the_servers_of_the_root_file_system_start_and_answer(host_network):
    (host,) = host_network().hosts
    host.run("systemctl start redis-server redis-sentinel postgresql etcd chrony")

    assert host.run("redis-cli ping") == "PONG\n"
    assert host.run("redis-cli -p 26379 ping") == "PONG\n"
    asked = "runuser -u postgres -- psql -Atc 'select 6 * 7'"
    wait_until(lambda: host.run(asked) == "42\n", "Postgres to answer", within_seconds=60)
    assert "is healthy" in host.run("ETCDCTL_API=3 etcdctl endpoint health 2>&1")
    assert "Leap status" in host.run("chronyc tracking")
    assert host.run("systemctl --failed --no-legend") == ""


def test_a_reboot_gives_a_new_boot_id_and_uptime_and_keeps_the_files(host_network):
    (host,) = host_network(need=["reboot"]).hosts
    host.run("echo kept > /etc/kept; echo lost > /run/lost")
    before = read(host, "cat", BOOT_ID)
    wait_until(lambda: uptime_seconds(host) > 5, "an uptime worth resetting", within_seconds=60)

    with contextlib.suppress(Unreachable):
        host.block("ops").change(["sudo", "-n", "systemctl", "reboot"])
    wait_for_reboot(host)

    assert uptime_seconds(host) < BACK_WITHIN_SECONDS
    booted_at = host.run("awk '/^btime/ {print $2}' /proc/stat; stat -c %Y /run/systemd/system")
    assert abs(int.__sub__(*map(int, booted_at.split()))) < 10
    assert read(host, "cat", BOOT_ID) != before
    assert host.read_file("etc/kept") == b"kept\n"
    assert read(host, "ls", "/run", within_seconds=20).split().count("lost") == 0
    boots = host.run("journalctl --list-boots --no-pager")
    assert len(re.findall(r"\b[0-9a-f]{32}\b", boots)) == 2, boots
    assert host.reboot_count == 1


def uptime_seconds(host):
    return float(host.run("cat /proc/uptime").split()[0])


def test_a_power_cut_is_silent_and_keeps_the_files(host_network):
    (host,) = host_network(need=["power_cut"]).hosts
    host.run("echo kept > /etc/kept; sync")
    before = read(host, "cat", BOOT_ID)
    with socket.create_connection((host.address, SSH_PORT), timeout=20) as connection:
        assert connection.recv(4) == b"SSH-"
        while b"\n" not in connection.recv(100):
            pass

        host.power_cut()

        assert not host.is_up
        connection.settimeout(2)
        with pytest.raises(TimeoutError):  # neither an end nor a reset of the connection
            connection.recv(1)
    assert is_silent(host)
    assert host.read_file("etc/kept") == b"kept\n"
    host.write("etc/written", "while off")

    host.power_on()

    assert host.is_up
    assert read(host, "cat", "/etc/kept", "/etc/written") == "kept\nwhile off"
    assert read(host, "cat", BOOT_ID) != before
    assert host.reboot_count == 0


def test_a_host_that_powers_itself_off_stays_off_until_power_is_given(host_network):
    (host,) = host_network().hosts

    with contextlib.suppress(Unreachable, LabError):
        host.run("systemctl poweroff")
    wait_until(lambda: not host.machine.is_on, "the host to be off", within_seconds=60)
    assert not host.is_up

    host.power_on()

    assert read(host, "true") == ""


def test_a_frozen_host_takes_connections_and_answers_nothing_until_thawed(host_network):
    (host,) = host_network(need=["freeze"]).hosts
    with host.block().session() as session:
        before = session.read(["cat", BOOT_ID]).stdout.strip()

        host.freeze()

        with socket.create_connection((host.address, SSH_PORT), timeout=20) as connection:
            connection.settimeout(2)
            with pytest.raises(TimeoutError):
                connection.recv(1)
        assert is_silent(host)

        host.thaw()

        assert session.read(["cat", BOOT_ID]).stdout.strip() == before


def test_a_host_that_is_frozen_can_lose_its_power(host_network):
    (host,) = host_network(need=["freeze", "power_cut"]).hosts
    before = read(host, "cat", BOOT_ID)

    host.freeze()
    host.power_cut()
    host.power_on()

    assert read(host, "cat", BOOT_ID) != before


def test_control_groups_of_version_1_freeze_as_well(host_network, host_backend, monkeypatch):
    kept = [name for name in host_cgroups.HIERARCHIES if name != "unified"]
    monkeypatch.setattr(host_cgroups, "HIERARCHIES", kept)
    if host_backend is not NSPAWN or host_cgroups.is_unified() or host_cgroups.freezer_missing():
        pytest.skip("no control groups of version 1 are asked for freezing")
    (host,) = host_network().hosts

    host.freeze()
    assert is_silent(host)
    host.thaw()
    assert read(host, "hostname") == host.name

    host.freeze()
    host.power_cut()
    host.power_on()
    assert read(host, "hostname") == host.name


def test_no_host_can_set_the_clock_that_all_of_them_share(host_trio):
    host = host_trio.hosts[0]

    with pytest.raises(LabError, match="Operation not permitted"):
        host.run("date -s now")
    refused = host.block().read(["date", "-s", "now"], accept=(1,))
    assert "Operation not permitted" in refused.stderr


def test_a_command_among_the_files_of_a_host_that_is_off_reaches_no_process_of_this_machine(
    host_network, host_backend
):
    if host_backend is not NSPAWN:
        pytest.skip("it runs none")
    seen = []

    def look(host):
        seen.append(host.run("echo $$"))
        with pytest.raises(LabError, match="Operation not permitted"):
            host.run("date -s now")

    host_network(before_boot=look)

    assert int(seen[0]) < 10


def test_files_units_and_folders_of_this_machine_are_there_at_boot_and_after_another(
    host_network, tmp_path
):
    shared = tmp_path / "shared"
    shared.mkdir()
    unit = "[Service]\nType=oneshot\nExecStart=/bin/sh -c 'cat /etc/given >> /srv/shared/seen'\n"
    wanted = "[Unit]\nWants=early.service\n"
    python = {PROJECT, Path(sys.prefix).resolve(), Path(sys.base_prefix)} - {Path("/usr")}
    (host,) = host_network(
        files={"etc/given": "given\n"},
        units={"early.service": unit},
        binds=[(shared, "/srv/shared", False), *[(folder, folder) for folder in python]],
        before_boot=lambda host: host.write(f"{UNITS}/multi-user.target.d/early.conf", wanted),
    ).hosts

    assert (shared / "seen").read_text() == "given\n"
    with pytest.raises(LabError, match="Read-only"):
        host.run(f"touch {PROJECT}/touched")

    with contextlib.suppress(Unreachable):
        host.block().change(["reboot"])
    wait_for_reboot(host)

    assert (shared / "seen").read_text() == "given\n" * 2
    imported = host.run(
        f"{Path(sys.prefix).resolve()}/bin/python -c 'import paramiko; print(paramiko.__name__)'"
    )
    assert imported == "paramiko\n"


def test_what_a_command_inside_says_is_told_when_it_fails(host_trio):
    with pytest.raises(LabError, match=r"(?s)h1.*ended with 3.*out.*err"):
        host_trio.hosts[0].run("echo out; echo err >&2; exit 3")


def test_a_host_that_does_not_boot_is_told_with_the_end_of_its_console(tmp_path, host_backend):
    def break_it(host):
        host.write("usr/lib/systemd/systemd", "no program", 0o755)

    with (
        pytest.raises(LabError, match=r"(?s)h1 to boot.*h1\.console\.log"),
        started_or_skipped(lab_hosts(tmp_path, before_boot=break_it, backend=host_backend)),
    ):
        pass

"""What passes between the hosts of a lab, and what does not, is as it was asked for."""

import shlex
import subprocess
import threading

import pytest

from tests.lab.host_probes import can_ping, is_silent, read
from tests.lab.processes import wait_until

pytestmark = pytest.mark.timeout(300)  # the first run builds the root file system

EAR = """
import socket, sys
ear = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
ear.bind(("", 9999))
while True:
    print(ear.recv(100).decode(), flush=True)
"""


def say(one, other, word):
    one.run(f"bash -c 'echo -n {word} > /dev/udp/{other.address}/9999'")


def heard(host):
    return host.run("cat /run/heard").split()


def test_hosts_know_each_other_by_name(host_trio):
    first, *others = host_trio.hosts

    for other in others:
        assert f"{other.name} ({other.address})" in first.run(f"ping -c 1 -W 5 {other.name}")


def test_a_partition_stops_both_ways_and_no_one_else(host_trio):
    one, other, third = host_trio.hosts
    assert can_ping(one, other.address)

    host_trio.partition(one, other)
    try:
        assert not can_ping(one, other.address)
        assert not can_ping(other, one.address)
        assert can_ping(one, third.address)
        assert can_ping(third, other.address)
        assert read(one, "hostname") == one.name
    finally:
        host_trio.heal()

    assert can_ping(one, other.address)


def test_a_one_way_partition_stops_one_way(host_trio):
    one, other, _ = host_trio.hosts
    for host in (one, other):
        host.write("run/ear.py", EAR)
        host.run("systemd-run --unit ear -p StandardOutput=file:/run/heard python3 /run/ear.py")
        wait_until(lambda host=host: ":9999" in host.run("ss -Hlun"), "an ear", within_seconds=30)

    host_trio.partition(one, other, one_way=True)
    try:
        say(one, other, "dropped")
        say(other, one, "passed")
        wait_until(lambda: heard(one) == ["passed"], "what passes", within_seconds=30)
    finally:
        host_trio.heal()
    say(one, other, "healed")

    wait_until(lambda: heard(other), "what passes again", within_seconds=30)
    assert heard(other) == ["healed"]
    for host in (one, other):
        host.run("systemctl stop ear")


def test_a_host_cut_off_is_silent_to_this_process_alone_until_joined(host_trio):
    one, other, _ = host_trio.hosts
    with one.block().session() as session:
        assert session.read(["hostname"]).stdout.strip() == one.name

        host_trio.cut(one)
        try:
            assert is_silent(one)
            assert read(other, "hostname") == other.name
            assert can_ping(other, one.address)
        finally:
            host_trio.join(one)

        assert session.read(["hostname"]).stdout.strip() == one.name


def test_an_inner_host_is_reached_through_the_bastion_alone(host_network, tmp_path):
    lab = host_network(3, inner=2)
    bastion, *inner = lab.hosts

    for host in inner:
        assert is_silent(host)
        assert can_ping(bastion, host.address)
        assert not can_ping(host, lab.worker_address)
        keys = host.keys
        config = tmp_path / f"config-{host.name}"
        config.write_text(
            f"Host *\nUser root\nIdentityFile {keys.client_key}\nIdentitiesOnly yes\n"
            f"UserKnownHostsFile {keys.known_hosts}\nStrictHostKeyChecking yes\n"
        )
        jump = shlex.join(["ssh", "-F", str(config), "-W", "%h:%p", bastion.address])
        ssh = ["ssh", "-F", config, "-o", f"ProxyCommand={jump}", host.address, "hostname"]
        done = subprocess.run(ssh, capture_output=True, text=True, check=True, timeout=60)
        assert done.stdout.strip() == host.name

    lab.partition(bastion, inner[0])
    assert not can_ping(bastion, inner[0].address)
    assert can_ping(inner[1], inner[0].address)


def test_two_labs_side_by_side_do_not_meet(host_network):
    labs = []
    starting = [threading.Thread(target=lambda: labs.append(host_network())) for _ in range(2)]
    for thread in starting:
        thread.start()
    for thread in starting:
        thread.join()

    (one,), (other,) = (lab.hosts for lab in labs)

    assert not labs[0].network.subnet.overlaps(labs[1].network.subnet)
    assert [read(host, "hostname") for host in (one, other)] == ["h1", "h1"]
    assert read(one, "cat", "/etc/machine-id") != read(other, "cat", "/etc/machine-id")
    assert not can_ping(one, other.address)

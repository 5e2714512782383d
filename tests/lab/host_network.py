"""The network of a lab of nspawn machines, in a network namespace of its own.

A hub process holds a network and a mount namespace. In the first lie two bridges: `outer`, which
one veth pair joins to the namespace of this process, and `inner`, which only hosts are on. In the
second the file systems of the hosts are mounted. All of it ends with the hub, so that nothing has
to be taken down.
"""

import contextlib
import fcntl
import ipaddress
import itertools
import json
import os
import random
from collections.abc import Iterable, Iterator
from pathlib import Path

from tests.lab.host_backend import WITHIN_SECONDS, interface_in, run_tool
from tests.lab.processes import GuardedProcess, LabError, Place, bare_environment, wait_until

LOCK = Path("/run")  # a folder can be locked as well as a file, and is there already
RANGES = ("10.192.0.0/11", "172.28.0.0/14", "192.168.128.0/17")

# What systemd-nspawn leaves in /run is to end with the hub as well.
HUB = r"""
set -e
mkdir -p /run/systemd/nspawn
mount -t tmpfs tmpfs /run/systemd/nspawn
ip link set lo up
for bridge in outer inner; do
    ip link add "$bridge" type bridge
    ip link set "$bridge" addrgenmode none
    ip link set "$bridge" up
done
: > "$1"
exec sleep infinity
"""


class HubNetwork:
    """One lab's own piece of network: this process, the bridges, and what may pass between whom.

    This process takes the whole of it for its link, so that no packet for an inner host ever
    leaves this machine.
    """

    def __init__(self, name: str, directory: Path, scratch: Path) -> None:
        self.name = name
        self.scratch = scratch
        self.log = directory / "network.log"
        self._dropped: set[tuple[str, str]] = set()
        ready = scratch / "hub"
        command = ["unshare", "--net", "--mount", "--propagation", "private", "sh", "-c", HUB]
        place = Place(self.log, directory, scratch=scratch)
        self._hub = GuardedProcess([*command, "hub", str(ready)], bare_environment(), place)
        try:
            wait_until(
                ready.exists,
                "the network of the lab",
                within_seconds=WITHIN_SECONDS,
                log=self.log,
                still_worth_it=lambda: self._hub.is_running,
            )
            self.subnet = self._join_worker()
        except BaseException:
            self.close()
            raise

    @property
    def worker_address(self) -> str:
        """The address of this process, as the hosts see it."""
        return str(self.subnet[1])

    @property
    def entered(self) -> list[str]:
        """The start of a command that is to run in the network and among the mounts of the hub."""
        return ["nsenter", "--target", str(self._hub.pid), "--net", "--mount"]

    def interface_of(self, number: int, *, is_inner: bool) -> ipaddress.IPv4Interface:
        """Return the address, with its network, of a host counted from 1."""
        return interface_in(self.subnet, number, is_inner=is_inner)

    def run(self, argv: list[str], given: str = "") -> str:
        """Run a tool inside; arguments and errors are those of `run_tool`."""
        return run_tool([*self.entered, *argv], given)

    def drop(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Let nothing pass from the first address of each pair to the second; tell nobody."""
        self._filter(self._dropped | set(pairs))

    def let_pass(self, pairs: Iterable[tuple[str, str]] | None = None) -> None:
        """Let these pass again; `None`: all."""
        self._filter(set() if pairs is None else self._dropped - set(pairs))

    def _filter(self, dropped: set[tuple[str, str]]) -> None:
        rules = [f"ip saddr {one} ip daddr {other} drop" for one, other in sorted(dropped)]
        chain = ["type filter hook forward priority 0; policy accept;", *rules]
        lines = [
            "table bridge lab",
            "delete table bridge lab",  # which must exist, and does by the line before
            "table bridge lab {",
            "chain passing {",
            *chain,
            "}",
            "}",
        ]
        self.run(["nft", "-f", "-"], "\n".join(lines) + "\n")
        self._dropped = dropped

    def _join_worker(self) -> ipaddress.IPv4Network:
        """Lay the link between this process and the outer bridge, in a network nobody has."""
        lock = os.open(LOCK, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)  # a network is taken once its route is there
            subnet = next(free_networks())
            lines = [
                f"link add {self.name} type veth peer name worker netns {self._hub.pid}",
                f"link set {self.name} addrgenmode none",
                f"addr add {subnet[1]}/{subnet.prefixlen} dev {self.name}",
                f"link set {self.name} up",
            ]
            run_tool(["ip", "-batch", "-"], "\n".join(lines))
        finally:
            os.close(lock)
        lines = ["link set worker addrgenmode none", "link set worker master outer up"]
        self.run(["ip", "-batch", "-"], "\n".join(lines))
        return subnet

    def close(self) -> None:
        """End it, and with it every link, namespace and mount of it."""
        with contextlib.suppress(LabError):  # the kernel takes its time over what ends with the hub
            run_tool(["ip", "link", "delete", self.name])
        self._hub.close()


def free_networks() -> Iterator[ipaddress.IPv4Network]:
    """Find /24 networks of the private ranges that no route of this machine touches, any order.

    Raises:
        LabError: there is none left.
    """
    listed = json.loads(run_tool(["ip", "-json", "-4", "route", "show", "table", "all"]))
    routes = [route["dst"] for route in listed if route["dst"] != "default"]
    taken = [ipaddress.IPv4Network(destination) for destination in routes]
    wide = [ipaddress.IPv4Network(text) for text in RANGES]
    firsts = [at for network in wide for at in range(int(network[0]), int(network[-1]), 256)]
    begin = random.SystemRandom().randrange(len(firsts))  # other labs look at the same time
    for first in itertools.chain(firsts[begin:], firsts[:begin]):
        subnet = ipaddress.IPv4Network((first, 24))
        if not any(subnet.overlaps(network) for network in taken):
            yield subnet
    raise LabError(f"every private network is in the routes of this machine: {routes}")

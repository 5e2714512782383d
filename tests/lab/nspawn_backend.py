"""Hosts by systemd-nspawn: whether this machine can run them, found out by trying."""

import os
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from tests.lab import host_cgroups
from tests.lab.host_backend import Bind, Capabilities, Network, Plug, run_tool
from tests.lab.host_network import HubNetwork
from tests.lab.host_root import root_file_system, sources
from tests.lab.nspawn_machine import NspawnMachine
from tests.lab.processes import LabError

BINARIES = ("systemd-nspawn", "mmdebstrap", "unshare", "nsenter", "setpriv", "ip", "ssh-keygen")

NAMESPACES = r"""
set -e
ip link add bridge type bridge
ip link add one type veth peer name two
mkdir "$1/up" "$1/work" "$1/root"
mount -t overlay overlay -o "lowerdir=/etc,upperdir=$1/up,workdir=$1/work" "$1/root"
"""
FILTER = "table bridge lab {\nchain passing { type filter hook forward priority 0; }\n}\n"


class Nspawn:
    """Hosts by systemd-nspawn: the more faithful ones, for root on Linux."""

    name = "nspawn"

    def capabilities(self) -> Capabilities:
        """Find out what its hosts can do on this machine."""
        reason = hosts_missing()
        if reason:
            return Capabilities.none(reason)
        return Capabilities(
            reboot=time_missing(),
            freeze=host_cgroups.freezer_missing(),
            partition=filter_missing(),
        )

    def network(self, name: str, directory: Path, scratch: Path) -> HubNetwork:
        """Make the network of a lab; errors are those of `HubNetwork`."""
        return HubNetwork(name, directory, scratch)

    def machine(
        self, name: str, network: Network, log: Path, plugs: Sequence[Plug], binds: Iterable[Bind]
    ) -> NspawnMachine:
        """Make a machine, switched off, on the shared root file system."""
        if not isinstance(network, HubNetwork):
            raise TypeError(f"{network} is no network of nspawn machines")
        machine = NspawnMachine(name, network, log, plugs, binds)
        machine.assemble(root_file_system().files)
        return machine


def hosts_missing() -> str:
    """Return why there can be no hosts at all; empty when there can."""
    if os.geteuid() != 0:
        return "they need root"
    for binary in BINARIES:
        if shutil.which(binary) is None:
            return f"{binary} is not installed"
    if not sources():
        return "there are no apt package sources to build a root file system from"
    return host_cgroups.missing() or namespaces_missing()


def namespaces_missing() -> str:
    """Return why namespaces, bridges or overlays cannot be made; empty when they can."""
    folder = Path(tempfile.mkdtemp(prefix="lab-probe-"))
    try:
        apart = ["unshare", "--net", "--mount", "--propagation", "private"]
        run_tool([*apart, "sh", "-c", NAMESPACES, "probe", str(folder)])
    except LabError as error:
        return str(error)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return ""


def time_missing() -> str:
    """Return why an uptime cannot start anew; empty when it can."""
    try:
        run_tool(["unshare", "--time", "--boottime=-1", "--monotonic=-1", "--fork", "true"])
    except LabError as error:
        return f"an uptime of its own: {error}"
    return ""


def filter_missing() -> str:
    """Return why packets between hosts cannot be dropped; empty when they can."""
    if shutil.which("nft") is None:
        return "nft is not installed"
    try:
        run_tool(["unshare", "--net", "nft", "-f", "-"], FILTER)
    except LabError as error:
        return str(error)
    return ""

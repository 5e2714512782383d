"""Hosts in containers: the same root file system as an image, where Docker runs."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from tests.lab.docker_machine import DockerMachine
from tests.lab.docker_network import LABEL, NFT, DockerNetwork, filter_text
from tests.lab.host_backend import Bind, Capabilities, Network, Plug, run_tool
from tests.lab.host_root import root_file_system, sources
from tests.lab.processes import LabError

CGROUP_VERSION = "{{.CgroupVersion}}"
IMPORT_WITHIN_SECONDS = 300
IMPORT = r"""
if [ -d "$1" ]; then
    tar --directory "$1" --create . | docker import - "$2"
else
    docker import "$1" "$2"
fi
"""


class Docker:
    """Hosts in containers: for a machine where nspawn cannot be had."""

    name = "docker"

    def capabilities(self) -> Capabilities:
        """Find out what its hosts can do on this machine; the first time, the image is made."""
        reason = docker_missing()
        if reason:
            return Capabilities.none(reason)
        return Capabilities(partition=filter_missing(image()))

    def network(self, name: str, directory: Path, scratch: Path) -> DockerNetwork:
        """Make the network of a lab; errors are those of `DockerNetwork`."""
        return DockerNetwork(name, scratch, image())

    def machine(
        self, name: str, network: Network, log: Path, plugs: Sequence[Plug], binds: Iterable[Bind]
    ) -> DockerMachine:
        """Make a machine, switched off, on the shared root file system."""
        if not isinstance(network, DockerNetwork):
            raise TypeError(f"{network} is no network of containers")
        machine = DockerMachine(name, network, log, plugs, binds)
        machine.assemble(image(), int(run_tool(["docker", "info", "--format", CGROUP_VERSION])))
        return machine


def docker_missing() -> str:
    """Return why there can be no hosts in containers; empty when there can."""
    if not sys.platform.startswith("linux"):
        return "containers can be reached by their addresses on Linux alone"
    to_build = ("mmdebstrap",) if os.geteuid() == 0 else ("mmdebstrap", "newuidmap")
    for binary in ("docker", "ip", "ssh-keygen", *to_build):
        if shutil.which(binary) is None:
            return f"{binary} is not installed"
    if not sources():
        return "there are no apt package sources to build a root file system from"
    try:
        system = run_tool(["docker", "info", "--format", "{{.OperatingSystem}}"])
    except LabError as error:
        return f"docker info: {str(error).strip().splitlines()[-1]}"
    if "Docker Desktop" in system:
        return "containers of Docker Desktop cannot be reached by their addresses"
    return ""


def image() -> str:
    """Return the name of the image of the shared root file system, made first where missing.

    Raises:
        LabError: it could not be made; says why.
    """
    root = root_file_system()
    name = f"{LABEL}:{root.folder.name}"
    if subprocess.run(
        ["docker", "image", "inspect", name], capture_output=True, check=False
    ).returncode:
        run_tool(["sh", "-c", IMPORT, "import", root.files, name], "", IMPORT_WITHIN_SECONDS)
    return name


def filter_missing(image: str) -> str:
    """Return why packets between containers cannot be dropped; empty when they can."""
    table = f"lab_probe_{os.getpid()}"
    nft = ["docker", "run", "--rm", "--interactive", *NFT, image, "nft", "-f", "-"]
    try:
        run_tool(nft, filter_text(table, []) + f"delete table bridge {table}\n")
    except LabError as error:
        return str(error)
    return ""

"""What the hosts of a lab are made of: machines, their network, and what these can do here."""

import dataclasses
import subprocess
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv4Network
from pathlib import Path
from typing import NamedTuple, Protocol

from tests.lab.processes import LabError, ServerMissing

WITHIN_SECONDS = 60
FIRST_HOST = 10  # hosts are numbered from here in either half of the network


@dataclass(frozen=True)
class Capabilities:
    """For each thing a host may do, why it cannot here; empty where it can."""

    ssh: str = ""
    systemd: str = ""
    reboot: str = ""  # with a new boot id and an uptime that starts anew
    power_cut: str = ""
    freeze: str = ""
    partition: str = ""

    @classmethod
    def none(cls, reason: str) -> "Capabilities":
        """Nothing at all can be done, for one reason."""
        return cls(**{field.name: reason for field in dataclasses.fields(cls)})

    def require(self, *names: str) -> None:
        """Let hosts be had with these, and with ssh and systemd, or not at all.

        Raises:
            ServerMissing: one is not to be had; says why.
        """
        for name in ("ssh", "systemd", *names):
            reason = getattr(self, name)
            if reason:
                raise ServerMissing(f"hosts of the lab have no {name} here: {reason}")


class Bind(NamedTuple):
    """A folder or file of this machine that is shown inside."""

    outside: Path
    inside: Path
    read_only: bool = True


@dataclass(frozen=True)
class Plug:
    """One interface: its name inside, its address, the other end of its cable, and the bridge."""

    interface: str
    address: IPv4Interface
    end: str
    bridge: str  # `outer`, which this process is on as well, or `inner`

    @property
    def hardware_address(self) -> str:
        """An address that is the same at every boot."""
        return "02:1a:" + self.address.ip.packed.hex(":")


class Network(Protocol):
    """One lab's own piece of network, a /24.

    This process and the outer hosts share its lower half; the upper half is that of the inner
    hosts.
    """

    name: str
    scratch: Path
    subnet: IPv4Network

    @property
    def worker_address(self) -> str:
        """The address of this process, as the hosts see it."""

    def interface_of(self, number: int, *, is_inner: bool) -> IPv4Interface:
        """Return the address, with its network, of a host counted from 1."""

    def drop(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Let nothing pass from the first address of each pair to the second; tell nobody."""

    def let_pass(self, pairs: Iterable[tuple[str, str]] | None = None) -> None:
        """Let these pass again; `None`: all."""

    def close(self) -> None:
        """End it, and leave nothing of it."""


class Machine(Protocol):
    """A machine that can be switched on and off; it starts switched off."""

    name: str
    log: Path

    @property
    def network(self) -> Network:
        """What it is plugged into."""

    @property
    def is_on(self) -> bool:
        """Whether it has power: from `power_on` until it is cut or powers itself off."""

    @property
    def is_up(self) -> bool:
        """Whether a systemd runs in it; it need not be done with booting."""

    @property
    def reboot_count(self) -> int:
        """How often it has rebooted of itself."""

    def power_on(self) -> None:
        """Switch it on; nothing when it is on."""

    def power_cut(self) -> None:
        """Take its power away: it says nothing more to anybody, and does nothing more."""

    def freeze(self) -> None:
        """Stop everything that runs in it; the kernel, being this machine's, goes on."""

    def thaw(self) -> None:
        """Let it go on; nothing when it is off."""

    def run(
        self, argv: list[str], given: bytes, within_seconds: float
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a command of root's in the running system; among its files while it is off.

        Raises:
            LabError: it is on its way up or down, or the command took longer; or it is off, and
                its files cannot be run among.
        """

    def unpack(self, archive: bytes) -> None:
        """Put the files of a tar archive into it, on or off.

        Raises:
            LabError: they could not be; says why.
        """

    def read_file(self, path: str) -> bytes:
        """Return the content of a file, on or off.

        Raises:
            LabError: it could not be read; says why.
        """

    def close(self) -> None:
        """End all its processes."""


class Backend(Hashable, Protocol):
    """One way to make hosts."""

    name: str

    def capabilities(self) -> Capabilities:
        """Find out what its hosts can do on this machine."""

    def network(self, name: str, directory: Path, scratch: Path) -> Network:
        """Make the network of a lab."""

    def machine(
        self, name: str, network: Network, log: Path, plugs: Sequence[Plug], binds: Iterable[Bind]
    ) -> Machine:
        """Make a machine, switched off, on the shared root file system."""


def interface_in(subnet: IPv4Network, number: int, *, is_inner: bool) -> IPv4Interface:
    """Return the address of a host in the right half of a network, with that half."""
    half = list(subnet.subnets())[is_inner]
    return IPv4Interface(f"{half[FIRST_HOST + number]}/{half.prefixlen}")


def both_ways(ones: Iterable[str], others: Sequence[str]) -> list[tuple[str, str]]:
    """Return every pair of an address here and one there, and the same turned round."""
    there = [(one, other) for one in ones for other in others]
    return there + [(other, one) for one, other in there]


def run_tool(
    argv: Sequence[str | Path], given: str = "", within_seconds: float = WITHIN_SECONDS
) -> str:
    """Run a tool of this machine and return what it printed.

    Raises:
        LabError: it failed, or took too long.
    """
    asked = f"{argv} with {given!r}" if given else f"{argv}"
    try:
        done = subprocess.run(
            argv, input=given, capture_output=True, text=True, check=False, timeout=within_seconds
        )
    except subprocess.TimeoutExpired as late:
        raise LabError(f"{asked} took over {within_seconds:g} s") from late
    if done.returncode != 0:
        raise LabError(f"{asked} ended with {done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout

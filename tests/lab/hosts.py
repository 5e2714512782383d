"""Real hosts: each with systemd, sshd, its own address, reboots, power cuts and partitions.

    with lab_hosts(directory, 3) as lab:
        lab.hosts[0].run("systemctl start redis-server")
        lab.partition(lab.hosts[0], lab.hosts[1])

Accounts: `root`; `ops`, who may do everything by sudo; `asked`, whom sudo asks for
`host.password`. All log in with the lab's key. Every service but sshd is disabled and stopped.
What is not as on a real host stands in `nspawn_machine.py`.
"""

import contextlib
import functools
import secrets
import urllib.parse
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from ipaddress import IPv4Interface
from pathlib import Path

from blocks.ssh.host import SshHost
from tests.lab.docker_backend import Docker
from tests.lab.host_backend import (
    Backend,
    Bind,
    Capabilities,
    Machine,
    Network,
    Plug,
    both_ways,
)
from tests.lab.host_identity import File, Keys, public_of, tar_of
from tests.lab.host_root import root_file_system
from tests.lab.nspawn_backend import Nspawn
from tests.lab.processes import LabError, scratch_directory, wait_until

UP_WITHIN_SECONDS = 120
BOOTED = "systemctl is-system-running --wait; systemctl is-active ssh"
NSPAWN, DOCKER = Nspawn(), Docker()
BACKENDS: tuple[Backend, ...] = (NSPAWN, DOCKER)


@functools.cache
def capabilities_of(backend: Backend) -> Capabilities:
    """What the hosts of a backend can do on this machine; found out once in a process."""
    return backend.capabilities()


def backend_here() -> Backend:
    """Return the first backend that works here, or else the one that is to say why not."""
    working = (backend for backend in BACKENDS if not capabilities_of(backend).ssh)
    return next(working, NSPAWN)


class LabHost:
    """One host of a lab. It has booted, and sshd listens, when it is handed out."""

    def __init__(
        self, name: str, interfaces: Sequence[IPv4Interface], machine: Machine, keys: Keys
    ) -> None:
        self.name = name
        self.interfaces = tuple(interfaces)  # of a bastion: the second is on the inner network
        self.addresses = [str(interface.ip) for interface in interfaces]
        self.address = self.addresses[0]
        self.machine = machine
        self.keys = keys

    def __repr__(self) -> str:
        return f"LabHost({self.name}, {self.address})"

    @property
    def password(self) -> str:
        """The password of the account `asked`."""
        return self.keys.password

    def block(self, user: str = "root", **fields: object) -> SshHost:
        """Return the block that logs in to it; fields replace those that would be right."""
        right: dict[str, object] = {
            "address": self.address,
            "user": user,
            "key_file": self.keys.client_key,
            "known_hosts_file": self.keys.known_hosts,
        }
        return SshHost.model_validate({**right, **fields})

    def url(self, user: str = "root", **options: str) -> str:
        """Return the URL of that block; options are added to its own, as `password_file`."""
        right = {
            "key_file": str(self.keys.client_key),
            "known_hosts": str(self.keys.known_hosts),
        }
        quoted = urllib.parse.urlencode({**right, **options}, quote_via=urllib.parse.quote)
        return f"ssh://{user}@{self.address}?{quoted}"

    def run(self, text: str, within_seconds: float = 60) -> str:
        """Run a line of shell as root inside, not over ssh, and return what it printed.

        While the host is off it runs among its files, without any of its processes.

        Raises:
            LabError: it failed, and carries the output; or the host is on its way up or down.
        """
        done = self.machine.run(["sh", "-c", text], b"", within_seconds)
        output = done.stdout.decode(errors="replace")
        if done.returncode != 0:
            said = done.stderr.decode(errors="replace")
            raise LabError(f"{self.name}: {text!r} ended with {done.returncode}:\n{output}{said}")
        return output

    def write(self, path: str, content: str | bytes, mode: int = 0o644) -> None:
        """Write a file of root's, with the folders it needs; also while the host is off."""
        self.put({path: File(content, mode)})

    def put(self, files: Mapping[str, File]) -> None:
        """Write several files at once."""
        self.machine.unpack(tar_of(files))

    def read_file(self, path: str) -> bytes:
        """Return the content of a file; also while the host is off."""
        return self.machine.read_file("/" + path.lstrip("/"))

    @property
    def is_up(self) -> bool:
        """Whether it has power and its systemd runs; it need not be done with booting."""
        return self.machine.is_up

    @property
    def reboot_count(self) -> int:
        """How often it has rebooted of itself; a power cut is no reboot."""
        return self.machine.reboot_count

    def power_cut(self) -> None:
        """Take its power away: nothing more is heard of it, and open connections stay open."""
        self.machine.power_cut()

    def power_on(self, *, wait: bool = True) -> None:
        """Give it power, and wait until it has booted; nothing when it is on."""
        self.machine.power_on()
        if wait:
            self.wait_until_up()

    def freeze(self) -> None:
        """Stop everything that runs in it: its kernel takes connections, and nobody answers."""
        self.machine.freeze()

    def thaw(self) -> None:
        """Let it go on where it was."""
        self.machine.thaw()

    def wait_until_up(self, within_seconds: float = UP_WITHIN_SECONDS) -> None:
        """Wait until it has booted and sshd listens.

        Raises:
            LabError: it has not in time, or has lost its power; shows the end of its console.
        """
        wait_until(
            self._has_booted,
            f"{self.name} to boot",
            within_seconds=within_seconds,
            log=self.machine.log,
            still_worth_it=lambda: self.machine.is_on,
        )

    def _has_booted(self) -> bool:
        done = self.machine.run(["sh", "-c", BOOTED], b"", 30)
        said = (done.stdout + done.stderr).decode(errors="replace").split()
        if said not in (["running", "active"], ["degraded", "active"]):
            raise LabError(f"the system and its sshd are {said}")
        return True


class Lab:
    """Some hosts, and what lies between them and this process."""

    def __init__(self, network: Network, hosts: Sequence[LabHost]) -> None:
        self.network = network
        self.hosts = tuple(hosts)

    @property
    def worker_address(self) -> str:
        """The address of this process, as the hosts see it."""
        return self.network.worker_address

    def cut(self, host: LabHost) -> None:
        """Let nothing pass between this process and a host; neither is told."""
        self.network.drop(both_ways([self.worker_address], host.addresses))

    def join(self, host: LabHost) -> None:
        """Let this process and a host reach each other again."""
        self.network.let_pass(both_ways([self.worker_address], host.addresses))

    def partition(self, one: LabHost, other: LabHost, *, one_way: bool = False) -> None:
        """Let nothing pass between two hosts, or else nothing from the first to the second."""
        pairs = both_ways(one.addresses, other.addresses)
        self.network.drop([pair for pair in pairs if not one_way or pair[0] in one.addresses])

    def heal(self) -> None:
        """Let everything pass again."""
        self.network.let_pass()


@contextlib.contextmanager
def lab_hosts(  # noqa: PLR0913 (what a lab is made of)
    directory: Path,
    count: int = 1,
    *,
    need: Sequence[str] = (),
    inner: int = 0,
    names: Sequence[str] = (),
    files: Mapping[str, str | bytes | File] | None = None,
    units: Mapping[str, str] | None = None,
    binds: Iterable[Bind | tuple[Path, Path, bool]] = (),
    before_boot: Callable[[LabHost], None] = lambda _: None,
    backend: Backend | None = None,
) -> Iterator[Lab]:
    """Run hosts until the end of the block; nothing of them is left behind.

    Args:
        directory: for keys and logs; made where it is missing.
        count: how many hosts.
        need: what they must be able to do, by the names of `Capabilities`.
        inner: the last so many can be reached from the first alone, which is their bastion.
        names: their host names; `h1`, `h2` and so on where none are given.
        files: by path, put into each before it boots.
        units: unit files by name, put where systemd looks for them.
        binds: folders and files of this machine shown in each: outside, inside, read-only.
        before_boot: called with each host while it is off, and can be written to.
        backend: what they are made by; the first that works here where none is given.

    Raises:
        ServerMissing: this machine cannot run them; says what it lacks.
        LabError: one did not start; shows the end of its console.
    """
    backend = backend or backend_here()
    capabilities_of(backend).require(*need)
    directory.mkdir(parents=True, exist_ok=True)
    password = root_file_system().password
    names = names or [f"h{number}" for number in range(1, count + 1)]
    given = {path: as_file(content) for path, content in (files or {}).items()}
    given |= {f"etc/systemd/system/{name}": File(text) for name, text in (units or {}).items()}
    bound = [Bind(*bind) for bind in binds]
    with scratch_directory("hosts") as scratch, contextlib.ExitStack() as stack:
        scratch.chmod(0o755)
        network = backend.network(f"lab{secrets.token_hex(4)}", directory, scratch)
        stack.callback(network.close)
        keys = Keys(directory, password)
        hosts = []
        for plugs, name in zip(cables(network, count, inner), names, strict=True):
            log = directory / f"{name}.console.log"
            machine = backend.machine(name, network, log, plugs, bound)
            stack.callback(machine.close)
            hosts.append(LabHost(name, [plug.address for plug in plugs], machine, keys))
        for host in hosts:
            host.put({**identity(host, hosts), **given})
            before_boot(host)
            host.power_on(wait=False)
        for host in hosts:
            host.wait_until_up()
        yield Lab(network, hosts)


def cables(network: Network, count: int, inner: int) -> Iterator[list[Plug]]:
    """Return the interfaces of each host; the first has two where there are inner hosts."""
    for number in range(1, count + 1):
        outside = network.interface_of(number, is_inner=False)
        inside = network.interface_of(number, is_inner=True)
        if number > count - inner:
            yield [Plug("eth0", inside, f"h{number}", "inner")]
        elif number == 1 and inner:
            yield [
                Plug("eth0", outside, f"h{number}", "outer"),
                Plug("eth1", inside, f"h{number}i", "inner"),
            ]
        else:
            yield [Plug("eth0", outside, f"h{number}", "outer")]


def identity(host: LabHost, hosts: Sequence[LabHost]) -> dict[str, File]:
    """Return the files that make this host another than the shared root."""
    key = host.keys.host_key(host.name, host.address)
    networks = {interface.network for interface in host.interfaces}
    near = [(each, way) for each in hosts for way in each.interfaces if way.network in networks]
    known = "".join(f"{way.ip} {each.name}\n" for each, way in near)
    return {
        "etc/hostname": File(f"{host.name}\n"),
        "etc/hosts": File(f"127.0.0.1 localhost\n{known}"),
        "etc/machine-id": File(f"{secrets.token_hex(16)}\n", 0o444),
        "etc/ssh/lab_keys": File(host.keys.authorized),
        "etc/ssh/ssh_host_ed25519_key": File(key.read_text(), 0o600),
        "etc/ssh/ssh_host_ed25519_key.pub": File(public_of(key)),
    }


def as_file(content: str | bytes | File) -> File:
    return content if isinstance(content, File) else File(content)

"""A private OpenSSH server, with a host key, one login key and a port of its own."""

import contextlib
import getpass
import os
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from blocks.ssh.host import SshHost
from tests.lab.ports import LOOPBACK, free_port
from tests.lab.processes import Server, ServerMissing, find_binary, wait_until

SEPARATION_DIRECTORY = Path("/run/sshd")  # root's sshd will not start without it
OPTIONS = {
    "StrictModes": "no",  # the keys lie in a test's own directory
    "UsePAM": "no",
    "PasswordAuthentication": "no",
    "KbdInteractiveAuthentication": "no",
    "PermitRootLogin": "yes",
    "AllowTcpForwarding": "no",
    "UseDNS": "no",
    "MaxStartups": "200",
    "Subsystem": "sftp internal-sftp",
}


class SshServer(Server):
    """An sshd of our own on a free loopback port, for the present account."""

    name = "sshd"

    def __init__(
        self, directory: Path, options: Mapping[str, str], addresses: Sequence[str] = ()
    ) -> None:
        super().__init__(directory)
        self.host = LOOPBACK
        self.port = free_port()
        self.user = getpass.getuser()
        self.client_key = directory / "client_key"
        self.known_hosts = directory / "known_hosts"
        self.options = {**OPTIONS, **options}  # changes count from the next start
        self.addresses = tuple(addresses)
        make_key(self.client_key)
        self.set_host_key(make_key(directory / "host_key"))
        self.trust_host_key()

    def set_host_key(self, key: Path) -> None:
        """Show this key from the next start on."""
        self._host_key = key

    def trust_host_key(self) -> None:
        """Write the present host key into `known_hosts`."""
        public = self._host_key.with_suffix(".pub").read_text()
        self.known_hosts.write_text(f"[{self.host}]:{self.port} {public}")

    @property
    def host_fingerprint(self) -> str:
        """The fingerprint of the host key as ssh-keygen prints it."""
        listed = subprocess.run(
            ["ssh-keygen", "-lf", self._host_key], check=True, capture_output=True, text=True
        )
        return listed.stdout.split()[1]

    def command(self) -> list[str]:
        settings = {
            "Port": str(self.port),
            "ListenAddress": self.host,
            "HostKey": str(self._host_key),
            "PidFile": "none",
            "AuthorizedKeysFile": str(self.client_key.with_suffix(".pub")),
            "SetEnv": self._environment("fence"),
            **self.options,
        }
        file = self.directory / "sshd_config"
        lines = [f"{name} {value}\n" for name, value in settings.items()]
        for address in self.addresses:
            environment = self._environment(f"fence {address}")
            lines.append(f"Match LocalAddress {address}\nSetEnv {environment}\n")
        file.write_text("".join(lines))
        return [find_binary("sshd"), "-D", "-e", "-f", str(file)]

    def _environment(self, fence: str) -> str:
        """Settings that keep the host apart from the account that runs the test.

        At `SHLVL=1` bash does not read that account's .bashrc; fences lie in a folder of their own.
        """
        folder = self.directory / fence.replace(" ", "-")
        return f"SHLVL=1 RECOVER_FENCE_DIR={folder}"

    def answers(self) -> object:
        with socket.create_connection((self.host, self.port), timeout=1) as connection:
            return connection.recv(4) == b"SSH-"

    def block(self, **fields: object) -> SshHost:
        """Return the block that logs in to it; fields replace those that would be right."""
        right: dict[str, object] = {
            "address": self.host,
            "port": self.port,
            "user": self.user,
            "key_file": self.client_key,
            "known_hosts_file": self.known_hosts,
        }
        return SshHost.model_validate({**right, **fields})

    def connections(self) -> list[int]:
        """Return the processes that serve the present connections."""
        return children_of(self.pid)

    def signal_connections(self, number: signal.Signals) -> None:
        """Kill, stop or continue every connection, with what it runs as it is."""
        for pid in self.connections():
            for process in [*children_of(pid), pid]:
                with contextlib.suppress(ProcessLookupError):
                    if is_sshd(process):
                        os.kill(process, number)


def children_of(parent: int) -> list[int]:
    """Return the direct children of a process."""
    with contextlib.suppress(OSError):
        threads = Path(f"/proc/{parent}/task").iterdir()
        return [int(pid) for thread in threads for pid in (thread / "children").read_text().split()]
    return []


def is_sshd(pid: int) -> bool:
    """Whether it is the server's own process, not a command run for a client."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip().startswith("sshd")
    return False


def make_key(path: Path) -> Path:
    """Make an Ed25519 key without a passphrase, unless it is there."""
    if not path.exists():
        subprocess.run(
            [find_binary("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", path],
            check=True,
        )
    return path


@contextlib.contextmanager
def private_sshd(
    directory: Path, options: Mapping[str, str] | None = None, addresses: Sequence[str] = ()
) -> Iterator[SshServer]:
    """Run a private sshd until the end of the block; nothing of it is left behind.

    Args:
        directory: for keys, configuration and log; made where it is missing.
        options: lines of sshd_config on top of `OPTIONS`.
        addresses: of loopback, each a host of its own to what is fenced there.

    Raises:
        ServerMissing: it is not installed, or root's has no separation directory.
        LabError: it did not start.
    """
    find_binary("sshd")
    if os.geteuid() == 0:
        try:
            SEPARATION_DIRECTORY.mkdir(mode=0o755, exist_ok=True)
        except OSError as error:
            raise ServerMissing(f"{SEPARATION_DIRECTORY} cannot be made: {error}") from error
    directory.mkdir(parents=True, exist_ok=True)
    server = SshServer(directory, options or {}, addresses)
    try:
        server.start()
        yield server
    finally:
        server.close()


@contextlib.contextmanager
def silent_server() -> Iterator[int]:
    """Accept connections on the port that is yielded, and never say a word."""
    with socket.socket() as listener:
        listener.bind((LOOPBACK, 0))
        listener.listen(16)  # the kernel accepts; nobody reads
        yield int(listener.getsockname()[1])


def wait_for_connections(server: SshServer, count: int) -> None:
    """Wait until that many connections are served."""
    wait_until(
        lambda: len(server.connections()) == count,
        f"{count} connections of sshd",
        within_seconds=10,
        log=server.log,
    )

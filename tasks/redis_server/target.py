"""The Redis that is recovered: on which host, at which port, and how to talk to it.

It is reached through the SSH connection to its host, so that one that listens on loopback only is
reached too, and no password is on a command line.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from blocks.inventory import host_named, leased_places, place_of
from blocks.redis_session import Login, RedisSaidNo, RedisSession, open_session
from blocks.ssh.host import SshHost
from recovery.errors import BadInput, Refused, Unreachable, UnreadableOutput
from tasks.redis_server.causes import Cause

LISTENER = re.compile(r'\("(?P<name>[^"]*)",pid=(?P<pid>\d+),')
ANY_ADDRESS = {"0.0.0.0", "*", "[::]", "::"}  # noqa: S104 (what is looked for, not bound)
PORT_MAX = 65535
COPIES = "/var/lib/recover/copies"
NOT_LISTENING = "nothing listens on its port"


@dataclass(frozen=True)
class Listener:
    """A process that listens on a port. The address is one at which the host reaches it."""

    address: str
    pid: int
    name: str


@dataclass(frozen=True)
class RedisServer:
    """A Redis. The label is what a recovery of it leases.

    Attributes:
        host: reached over SSH.
        port: where it listens.
        unit: its systemd unit; empty where it has to be found.
        login: references to the password and the CA.
        copies: folder on the host that copies are kept in.
        answer_within_seconds: the longest silence; longer is frozen.
    """

    host: SshHost
    port: int
    unit: str = ""
    login: Login = field(default_factory=Login)
    copies: str = COPIES
    answer_within_seconds: float = 5.0
    _listening: dict[str, str] = field(default_factory=dict, compare=False, repr=False)

    @property
    def label(self) -> str:
        """Its name in messages and as a target."""
        return f"redis:{self.port}@{place_of(self.host)}"

    def with_unit(self, unit: str) -> "RedisServer":
        """The same server with its unit known."""
        return replace(self, unit=unit)

    def listeners(self) -> list[Listener]:
        """What listens on the port; empty where nothing does."""
        argv = ["ss", "-Hltnp", f"sport = :{self.port}"]
        return parse_listeners(self.host.read(argv, within_seconds=20, as_root=True).whole())

    @contextmanager
    def session(self, address: str = "") -> Iterator[RedisSession]:
        """Connect to it until the end of the block; errors are also those of `open_session`.

        Args:
            address: where it listens; empty: found anew.

        Raises:
            Unreachable: nothing listens on the port.
        """
        address = address or self._listening.get("at") or self._address()
        try:
            with self.session_at(address, self.port, self.login) as session:
                yield session
        except Unreachable:
            self._listening.clear()  # it may listen elsewhere next time
            raise
        self._listening["at"] = address

    def _address(self) -> str:
        listeners = self.listeners()
        if not listeners:
            raise Unreachable(self.label, "connect", NOT_LISTENING)
        return listeners[0].address

    @contextmanager
    def session_at(self, address: str, port: int, login: Login) -> Iterator[RedisSession]:
        """Connect to any address as the host sees it, as that of a sentinel."""
        target = self.label if port == self.port else f"redis:{port}@{address}"
        with (
            self.host.forwarded(address, port) as path,
            open_session(path, target, login, self.answer_within_seconds) as session,
        ):
            yield session

    def answers(self) -> bool:
        """Whether it answers at all, be it with an error; silence and a closed port are a no."""
        try:
            with self.session() as session:
                session.read("PING")
        except RedisSaidNo:
            return True
        except Unreachable:
            self.host.read(["true"], within_seconds=20)  # raises where it is the host that is away
            return False
        return True


def redis_server(  # noqa: PLR0913, PLR0917 (each is a field of the form)
    host: str,
    port: int,
    unit: str,
    user: str,
    password_file: str,
    tls_ca_file: str,
    copies: str,
) -> RedisServer:
    """Read the parameters that name a Redis.

    Raises:
        BadInput: one of them is malformed.
    """
    if not 0 < port <= PORT_MAX:
        raise BadInput("port", f"{port} is no port", "Give a number from 1 to 65535")
    for name, path in (("password_file", password_file), ("tls_ca_file", tls_ca_file)):
        if path and not Path(path).is_absolute():
            raise BadInput(name, f"{path!r} is no absolute path", "Start it with /")
    if user and not password_file:
        raise BadInput("user", "there is no password_file to it", "Name both, or none")
    if not re.fullmatch(r"/[A-Za-z0-9._/-]+", copies) or ".." in copies:
        raise BadInput("copies", f"{copies!r} is no plain absolute path", "Start it with /")
    login = Login(user, password_file, tls_ca_file=tls_ca_file)
    return RedisServer(host_named(host), port, unit, login, copies.rstrip("/"))


def refusal(server: RedisServer, cause: Cause, text: str, remedy: str) -> Refused:
    """Say by name what is the matter, where no cure of ours helps."""
    return Refused(server.label, f"{cause}: {text}", remedy)


def redis_target(host: str, port: int) -> str:
    """The label of the Redis that the parameters name."""
    return RedisServer(host_named(host), port).label


def redis_host(host: str) -> list[str]:
    """What is leased along with it: its host, so that nobody reboots that meanwhile."""
    return leased_places([host_named(host)])


def parse_listeners(printed: str) -> list[Listener]:
    """Read what `ss -Hltnp` prints (iproute2 4.9 to 6.15), one socket a line.

        LISTEN 0      511    127.0.0.1:6379 0.0.0.0:* users:(("redis-server",pid=64,fd=6))
        LISTEN 0      511        [::1]:6379    [::]:* users:(("redis-server",pid=64,fd=7))

    Loopback comes first. The process is missing where root did not ask.

    Raises:
        UnreadableOutput: a line is another one.
    """
    found = []
    for line in printed.splitlines():
        fields = line.split(maxsplit=5)
        if len(fields) < 5 or fields[0] != "LISTEN" or ":" not in fields[3]:  # noqa: PLR2004
            raise UnreadableOutput("ss -Hltnp", printed)
        place = fields[3].rpartition(":")[0].partition("%")[0]
        process = LISTENER.search(line)
        address = "127.0.0.1" if place in ANY_ADDRESS else place.strip("[]")
        found.append(
            Listener(
                address,
                int(process["pid"]) if process else 0,
                process["name"] if process else "",
            )
        )
    return sorted(
        found, key=lambda one: not (one.address.startswith("127.") or one.address == "::1")
    )

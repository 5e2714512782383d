"""Where a host is, how it is known, where what logs in to it lies, and the way that leads there."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Self

from pydantic import BaseModel, Field, ValidationError, field_validator

from blocks.machines import names_of
from blocks.ssh.connection import Connection, Via, connect, shake_hands
from blocks.ssh.credentials import CredentialReferences, SecretReference, gather
from blocks.ssh.deadline import Deadline
from blocks.ssh.host_key import HostKeyRefused, Server, refuse_unless_known
from blocks.ssh.keeping import Way, way_to
from blocks.ssh.known_hosts import STANDARD_PORT, KnownKey, fingerprint, parse_known_hosts
from blocks.ssh.login import Credentials, own_user
from blocks.ssh.url import as_bad_input, fields_of
from recovery.errors import BadInput

ADDRESS = re.compile(r"[A-Za-z0-9._:%-]*[A-Za-z0-9]")
USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._@\\-]*\$?")
FINGERPRINT = re.compile(r"SHA256:[A-Za-z0-9+/]{43}")
JUMPS_MAX = 8


@dataclass(frozen=True)
class ShownKey:
    """A host key, and what speaks against trusting it, if anything does."""

    key_type: str
    fingerprint: str
    refusal: HostKeyRefused | None = None


class SshEndpoint(BaseModel):
    """A host as a destination or as a jump on the way to one. It holds references, no secret."""

    address: str = Field(description="Name or address; an IPv6 address without brackets.")
    port: int = Field(default=STANDARD_PORT, ge=1, le=65535)
    user: str = Field(default="", description="Empty: the account the worker runs under.")
    key_file: Path | None = Field(default=None, description="A private key on the worker.")
    key_env: str | None = Field(
        default=None, description="Environment variable of the worker that holds a private key."
    )
    key_block: str | None = Field(
        default=None, description="Name of a Secret block that holds a private key."
    )
    passphrase_file: Path | None = Field(
        default=None, description="A file with the passphrase of the private key."
    )
    passphrase_env: str | None = Field(
        default=None, description="Environment variable of the worker that holds the passphrase."
    )
    passphrase_block: str | None = Field(
        default=None, description="Name of a Secret block that holds the passphrase."
    )
    password_file: Path | None = Field(default=None, description="A file with the password.")
    password_env: str | None = Field(
        default=None, description="Environment variable of the worker that holds the password."
    )
    password_block: str | None = Field(
        default=None, description="Name of a Secret block that holds the password."
    )
    sudo_password_file: Path | None = Field(
        default=None, description="A file with what sudo asks for; none: sudo never asks."
    )
    sudo_password_env: str | None = Field(
        default=None, description="Environment variable of the worker with what sudo asks for."
    )
    sudo_password_block: str | None = Field(
        default=None, description="Name of a Secret block with what sudo asks for."
    )
    use_agent: bool = Field(
        default=True,
        description="Where no key or password is named: use the worker's agent and ~/.ssh keys.",
    )
    known_hosts_file: Path = Path("~/.ssh/known_hosts")
    host_key: str | None = Field(
        default=None,
        description="Pinned fingerprint, SHA256:…; known_hosts_file is then not looked at.",
    )
    jump: list[str] = Field(
        default_factory=list,
        max_length=JUMPS_MAX,
        description="Hosts to go through, the first one first, each as ssh://user@host?host_key=…",
    )
    connect_within_seconds: float = Field(default=20, gt=0, description="For each host on the way.")
    keepalive_seconds: int = Field(
        default=15,
        ge=0,
        description="A host that gives no sign of life for four times as long is gone; 0: never.",
    )

    @field_validator("address")
    @classmethod
    def _is_address(cls, address: str) -> str:
        if not ADDRESS.fullmatch(address) or address.startswith("-"):
            raise ValueError(f"{address!r} is no host name or address; give the port on its own")
        return address

    @field_validator("user")
    @classmethod
    def _is_user(cls, user: str) -> str:
        if user and not USER.fullmatch(user):
            raise ValueError(f"{user!r} is no user name")
        return user

    @field_validator("host_key")
    @classmethod
    def _is_fingerprint(cls, host_key: str | None) -> str | None:
        if host_key is not None and not FINGERPRINT.fullmatch(host_key):
            raise ValueError(
                f"{host_key!r} is no fingerprint: give SHA256: and 43 characters, as "
                "`ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` prints on the host"
            )
        return host_key

    @field_validator("jump")
    @classmethod
    def _are_jumps(cls, jump: list[str]) -> list[str]:
        for number, url in enumerate(jump, 1):
            try:
                hop = SshEndpoint.from_url(url)
            except BadInput as wrong:
                raise ValueError(f"jump {number}: {wrong}") from None
            if hop.jump:
                raise ValueError(f"jump {number} has a jump of its own: list them all in order")
        return jump

    @classmethod
    def from_url(cls, url: str) -> Self:
        """Read `ssh://user@host:port/path?host_key=SHA256:…&key_file=…&jump=ssh%3A%2F%2Fbastion`.

        Options: `known_hosts`, `host_key`, `jump` (percent-encoded, as often as there are jumps),
        and `key_`, `passphrase_`, `password_`, `sudo_password_`, each with `file`, `env` or
        `block`. The path is not the host's: `path_in_url` reads it.

        Raises:
            BadInput: it is no such URL; says which part is wrong.
        """
        try:
            return cls.model_validate(fields_of(url))
        except ValidationError as error:
            raise as_bad_input(error) from None

    @property
    def place(self) -> str:
        """Where it is: `host` or `host:port`, whoever logs in."""
        return self._placed(self.address)

    @property
    def places(self) -> tuple[str, ...]:
        """Where it is by all the names that are known of it, the one that was given first."""
        names = (self.address,) if self.jump else names_of(self.address)
        return tuple(map(self._placed, names))

    def _placed(self, address: str) -> str:
        place = f"[{address}]" if ":" in address else address
        return place if self.port == STANDARD_PORT else f"{place}:{self.port}"

    @property
    def target(self) -> str:
        """The name of the host in messages and evidence: `user@host` or `user@host:port`."""
        return f"{self.user or own_user()}@{self.place}"

    @property
    def label(self) -> str:
        """The name of the host in the keys of steps."""
        return self.target

    @property
    def is_root(self) -> bool:
        """Whether the login is that of root."""
        return (self.user or own_user()) == "root"

    @property
    def sudo_password(self) -> SecretReference:
        """Where what sudo asks for lies."""
        return SecretReference(
            self.sudo_password_file, self.sudo_password_env, self.sudo_password_block
        )

    @property
    def server(self) -> Server:
        """Where it is and which keys it may show."""
        return Server(
            self.address,
            self.port,
            () if self.host_key else self._known_keys(),
            str(self.known_hosts_file),
            self.host_key or "",
        )

    def way(self) -> Way:
        """The way to it and the connections kept on it: one in this process for equal hosts."""
        known_hosts = None if self.host_key else self.known_hosts_file
        key = (*_fields(self), known_hosts, *self.jump)
        return way_to(key, lambda: Way(self.target, partial(_open, self.model_copy(deep=True))))

    def hops(self) -> list["SshEndpoint"]:
        """The hosts to go through, the first one first, each with the jumps before it.

        What a URL of a jump cannot say, or does not say of known hosts, is as for the host.
        """
        found = []
        for number, url in enumerate(self.jump):
            hop = SshEndpoint.from_url(url)
            alike: dict[str, object] = {
                "jump": self.jump[:number],
                "connect_within_seconds": self.connect_within_seconds,
                "keepalive_seconds": self.keepalive_seconds,
            }
            if "known_hosts_file" not in hop.model_fields_set:
                alike["known_hosts_file"] = self.known_hosts_file
            found.append(hop.model_copy(update=alike))
        return found

    def credentials(self) -> Credentials:
        """Read what logs in.

        Raises:
            BadInput: a reference leads nowhere, or to no key.
        """
        return gather(
            self.user,
            CredentialReferences(
                SecretReference(self.key_file, self.key_env, self.key_block),
                SecretReference(self.passphrase_file, self.passphrase_env, self.passphrase_block),
                SecretReference(self.password_file, self.password_env, self.password_block),
                is_own_implied=self.use_agent,
            ),
        )

    def _known_keys(self) -> tuple[KnownKey, ...]:
        try:
            return parse_known_hosts(self.known_hosts_file.expanduser().read_text(errors="replace"))
        except FileNotFoundError:
            return ()  # every host is unknown then, and is refused with its fingerprint


_fields = attrgetter(*(SshEndpoint.model_fields.keys() - {"jump", "known_hosts_file"}))


def shown_key(endpoint: SshEndpoint, deadline: Deadline) -> ShownKey:
    """The key that a server shows, trusted or not; nobody logs in to it.

    Raises:
        Unreachable: it, or a host on the way, gives no answer.
        HostKeyRefused: a host on the way is not known.
        LoginRefused: a host on the way lets us not in.
    """
    via, let_go = _hop_before(endpoint, deadline)
    try:
        transport = shake_hands(endpoint.server, deadline, endpoint.keepalive_seconds, via)
        try:
            key = transport.get_remote_server_key()
        finally:
            transport.close()
    finally:
        let_go()
    try:
        refuse_unless_known(endpoint.server, key)
    except HostKeyRefused as refused:
        return ShownKey(key.get_name(), fingerprint(key.asbytes()), refused)
    return ShownKey(key.get_name(), fingerprint(key.asbytes()))


def _open(endpoint: SshEndpoint, deadline: Deadline) -> Connection:
    """Connect, through the last of the jumps if there are any, which stays open as long."""
    credentials = endpoint.credentials()
    via, let_go = _hop_before(endpoint, deadline)
    try:
        limit = deadline.at_most(endpoint.connect_within_seconds)
        connection = connect(endpoint.server, credentials, limit, endpoint.keepalive_seconds, via)
    except BaseException:
        let_go()
        raise
    connection.when_closed(let_go)
    return connection


def _hop_before(endpoint: SshEndpoint, deadline: Deadline) -> tuple[Via | None, Callable[[], None]]:
    """The connection to the last jump host, held until what is returned with it is called."""
    if not endpoint.jump:
        return None, lambda: None
    hop = endpoint.hops()[-1]
    way = hop.way()
    way.hold()
    try:
        with way.connection(f"connect to {endpoint.place}", deadline) as through:
            pass  # it is held; that the next host gives no answer does not speak against it
    except BaseException:
        way.let_go()
        raise
    return Via(through, hop.target), way.let_go

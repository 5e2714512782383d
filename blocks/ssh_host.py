"""A host reached over SSH, as a block: where it is, how it is known, where its credentials lie."""

import contextlib
import re
import shlex
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar, Self
from urllib.parse import unquote, urlsplit

import paramiko
from prefect.blocks.core import Block
from pydantic import Field, PrivateAttr, ValidationError, field_validator

from blocks.known_hosts import STANDARD_PORT, KnownKey, parse_known_hosts
from blocks.ssh_command import Answer, Order, require_exit_code, run_command
from blocks.ssh_connection import (
    Credentials,
    Deadline,
    Server,
    connect,
    own_user,
)
from blocks.ssh_credentials import CredentialReferences, gather
from blocks.ssh_files import Fetched, copy_by_sftp, parse_sha256sum
from recovery.commands import changing, reading
from recovery.errors import BadInput, NotVerified, Unreachable
from recovery.secrecy.secret import Secret

ADDRESS = re.compile(r"[A-Za-z0-9._:%-]*[A-Za-z0-9]")
USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._@\\-]*\$?")
FINGERPRINT = re.compile(r"SHA256:[A-Za-z0-9+/]{43}")
URL_OPTIONS = {
    "known_hosts": "known_hosts_file",
    "host_key": "host_key",
    "key_file": "key_file",
    "key_env": "key_env",
    "password_file": "password_file",
    "password_env": "password_env",
}


class _Kept:
    """The connection a block keeps while a session is open.

    It does not travel: a block that is pickled or copied starts without one. It makes no two
    blocks differ.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.sessions = 0
        self.current: paramiko.Transport | None = None
        self.all: list[paramiko.Transport] = []

    def __reduce__(self) -> tuple[type["_Kept"], tuple[()]]:
        return (_Kept, ())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Kept)

    def __hash__(self) -> int:
        return hash(_Kept)


class SshHost(Block):
    """A host and the references to what logs in to it; no secret is kept in the block itself.

    Its host key must be known: pinned here by fingerprint, or in a known_hosts file. The agent is
    asked for signatures only and is never forwarded.

    Example:
        ```python
        host = SshHost(address="db1", user="ops", host_key="SHA256:…", key_file="/run/keys/ops")
        with host.session():
            print(host.read(["uptime"]).stdout)
        ```
    """

    _block_type_name: ClassVar[str | None] = "SSH host"
    _block_type_slug: ClassVar[str | None] = "ssh-host"
    _description: ClassVar[str | None] = (
        "A host that recoveries reach over SSH. Holds references to credentials on the worker "
        "(files, environment variables, the agent), never the credentials."
    )

    address: str = Field(description="Name or address; an IPv6 address without brackets.")
    port: int = Field(default=STANDARD_PORT, ge=1, le=65535)
    user: str = Field(default="", description="Empty: the account the worker runs under.")
    key_file: Path | None = Field(default=None, description="A private key on the worker.")
    key_env: str | None = Field(
        default=None, description="Environment variable of the worker that holds a private key."
    )
    password_file: Path | None = Field(default=None, description="A file with the password.")
    password_env: str | None = Field(
        default=None, description="Environment variable of the worker that holds the password."
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
    connect_within_seconds: float = Field(default=20, gt=0)
    keepalive_seconds: int = Field(default=15, ge=0)
    output_max_bytes: int = Field(default=1_000_000, ge=1000)

    _kept: _Kept = PrivateAttr(default_factory=_Kept)

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

    @classmethod
    def from_url(cls, url: str) -> Self:
        """Read `ssh://user@host:port/path?known_hosts=…&host_key=SHA256:…&key_file=…`.

        Further options: `key_env`, `password_file`, `password_env`. The path is not the host's:
        `path_in_url` reads it.

        Raises:
            BadInput: it is no such URL; says which part is wrong.
        """
        usage = "Write it as ssh://user@host:port/path?host_key=SHA256:…&key_file=…"
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise BadInput("ssh URL", str(error), usage) from error
        if parts.scheme != "ssh" or not parts.hostname or parts.fragment:
            raise BadInput("ssh URL", f"{url.partition('?')[0]!r} is no ssh URL", usage)
        if parts.password is not None:
            raise BadInput(
                "ssh URL", "it holds a password", "Name a file with ?password_file=… instead"
            )
        fields: dict[str, object] = {
            "address": parts.hostname,
            "user": unquote(parts.username or ""),
        }
        if port is not None:
            fields["port"] = port
        for option in filter(None, parts.query.split("&")):
            name, _, value = option.partition("=")
            if name not in URL_OPTIONS or not value:
                raise BadInput(
                    "ssh URL",
                    f"unknown or empty option {name!r}",
                    f"Known: {', '.join(URL_OPTIONS)}",
                )
            fields[URL_OPTIONS[name]] = unquote(value)  # a + is a plus here: fingerprints have some
        try:
            return cls.model_validate(fields)
        except ValidationError as error:
            first = error.errors()[0]
            raise BadInput(f"ssh URL, {first['loc'][0]}", first["msg"], usage) from error

    @property
    def target(self) -> str:
        """The name of the host in messages and evidence: `user@host` or `user@host:port`."""
        place = f"[{self.address}]" if ":" in self.address else self.address
        port = "" if self.port == STANDARD_PORT else f":{self.port}"
        return f"{self.user or own_user()}@{place}{port}"

    @property
    def is_root(self) -> bool:
        """Whether the login is that of root."""
        return (self.user or own_user()) == "root"

    def as_root(self, argv: Sequence[str]) -> list[str]:
        """The command as root runs it: through `sudo -n`, which never asks, unless it is root."""
        return list(argv) if self.is_root else ["sudo", "-n", "--", *argv]

    @contextlib.contextmanager
    def session(self) -> Iterator[Self]:
        """Keep one connection for all that is run inside; opened at the first command.

        Sessions nest and may be shared by threads. A connection found dead is opened anew before
        a command is sent, never after.
        """
        with self._kept.lock:
            self._kept.sessions += 1
        try:
            yield self
        finally:
            with self._kept.lock:
                self._kept.sessions -= 1
                closing = self._kept.all if self._kept.sessions == 0 else []
                if self._kept.sessions == 0:
                    self._kept.all, self._kept.current = [], None
            for transport in closing:
                transport.close()

    def read(
        self,
        argv: Sequence[str],
        *,
        within_seconds: float = 60,
        accept: tuple[int, ...] = (0,),
        stdin: Secret | None = None,
    ) -> Answer:
        """Run a command that changes nothing and return its answer.

        Args:
            argv: the command and its arguments, each quoted as it is; no shell reads them.
            within_seconds: for connecting, running and the whole output.
            accept: the exit codes that are an answer.
            stdin: what the command reads from its standard input.

        Raises:
            Unreachable: no answer, or not all of it; asking again may help.
            HostKeyRefused: the host is not known to be the one meant.
            LoginRefused: it let us not in.
            CommandFailed: another exit code, or ended by a signal.
            BadInput: a reference to a credential leads nowhere.
        """
        return self._run(argv, Deadline(within_seconds), accept, stdin, is_change=False)

    def change(
        self,
        argv: Sequence[str],
        *,
        within_seconds: float = 60,
        accept: tuple[int, ...] = (0,),
        stdin: Secret | None = None,
    ) -> Answer:
        """Run a command that changes the host and return its answer.

        Arguments and errors are those of `read`; `AnswerLost` among them says that the command
        was sent and may have run, or may run still: nothing on the host ends it at the deadline.
        """
        return self._run(argv, Deadline(within_seconds), accept, stdin, is_change=True)

    def fetch(self, remote_path: str, local_path: Path, *, within_seconds: float = 3600) -> Fetched:
        """Copy a file of the host to this worker (mode 0600), equal by size and SHA-256.

        The copy appears under its name only once it is proven; one that is there is replaced.
        Nothing is changed on the host.

        Raises:
            NotVerified: it changed while it was copied, or was damaged on the way.
            Refused: this worker has not the space for it.
            CommandFailed: it cannot be read there, or the host has no SFTP.
            Unreachable: as of `read`.
        """
        deadline = Deadline(within_seconds)
        partial = local_path.with_name(local_path.name + ".partial")
        with self.session():
            expected = self._remote_sha256(remote_path, deadline)
            with reading(f"sftp get {shlex.quote(remote_path)}", self.target) as call:
                with self._connected(deadline) as transport:
                    copy = copy_by_sftp(transport, self.target, remote_path, partial, deadline)
                call.answer = f"{copy.size_bytes} bytes, sha256 {copy.sha256}"
            if copy.sha256 != expected:
                is_same_still = self._remote_sha256(remote_path, deadline) == expected
                partial.unlink()
                raise NotVerified(
                    self.target,
                    f"a copy of {remote_path} with sha256 {expected}",
                    f"{copy.size_bytes} bytes with sha256 {copy.sha256}",
                    "It was damaged on the way: resume to copy it again"
                    if is_same_still
                    else "It changed while it was copied: stop what writes to it, then resume",
                )
        partial.replace(local_path)
        return Fetched(local_path, copy.size_bytes, copy.sha256)

    def _remote_sha256(self, remote_path: str, deadline: Deadline) -> str:
        argv = ["sha256sum", "--", remote_path]
        return parse_sha256sum(self._run(argv, deadline, (0,), None, is_change=False).whole())

    def _run(
        self,
        argv: Sequence[str],
        deadline: Deadline,
        accept: tuple[int, ...],
        stdin: Secret | None,
        *,
        is_change: bool,
    ) -> Answer:
        if isinstance(argv, str) or not argv:
            raise TypeError("a command is a sequence of its parts, never a string")
        command = shlex.join(argv)
        order = Order(command, self.target, deadline, is_change, stdin, self.output_max_bytes)
        with (changing if is_change else reading)(command, self.target) as call:
            with self._connected(deadline) as transport:
                answer = run_command(transport, order)
            call.answer, call.exit_code = str(answer), answer.exit_code
            return require_exit_code(answer, accept)

    @contextlib.contextmanager
    def _connected(self, deadline: Deadline) -> Iterator[paramiko.Transport]:
        """The kept connection inside a session, else one for this command alone."""
        if not self._kept.sessions:
            transport = self._open(deadline)
            try:
                yield transport
            finally:
                transport.close()
            return
        if not self._kept.lock.acquire(timeout=deadline.seconds_left):
            raise Unreachable(self.target, "connect", "another step is still connecting to it")
        try:
            if self._kept.current is None or not self._kept.current.is_active():
                self._kept.current = self._open(deadline)
                self._kept.all.append(self._kept.current)
            transport = self._kept.current
        finally:
            self._kept.lock.release()
        try:
            yield transport
        except Unreachable:
            with self._kept.lock:  # silent once: the next command must not wait for it too
                if self._kept.current is transport:
                    self._kept.current = None
            raise

    def _open(self, deadline: Deadline) -> paramiko.Transport:
        server = Server(
            self.address,
            self.port,
            () if self.host_key else self._known_keys(),
            str(self.known_hosts_file),
            self.host_key or "",
        )
        return connect(
            server,
            self._credentials(),
            deadline.at_most(self.connect_within_seconds),
            self.keepalive_seconds,
        )

    def _known_keys(self) -> tuple[KnownKey, ...]:
        try:
            return parse_known_hosts(self.known_hosts_file.expanduser().read_text(errors="replace"))
        except FileNotFoundError:
            return ()  # every host is unknown then, and is refused with its fingerprint

    def _credentials(self) -> Credentials:
        return gather(
            self.user,
            CredentialReferences(
                self.key_file,
                self.key_env,
                self.password_file,
                self.password_env,
                is_own_implied=self.use_agent,
            ),
        )


def path_in_url(url: str) -> str:
    """The path of an `ssh://host/path` URL, absolute on the host.

    Raises:
        BadInput: it has none.
    """
    path = unquote(urlsplit(url).path)
    if path in ("", "/"):
        raise BadInput("ssh URL", "it names no file", "Write it as ssh://user@host:port/path")
    return path

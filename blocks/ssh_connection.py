"""One SSH connection: reach the server, know it by its key, log in, each within a deadline."""

import contextlib
import getpass
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from queue import Empty, SimpleQueue
from typing import TypeVar

import paramiko

from blocks.known_hosts import (
    HostKeyVerdict,
    KnownKey,
    fingerprint,
    judge,
    keys_of,
    name_in_known_hosts,
)
from recovery.errors import CommandFailed, Refused, Unreachable
from recovery.secrecy.secret import Secret

# Paramiko logs each failure with a traceback before it raises it; the errors here say it once.
logging.getLogger("paramiko").setLevel(logging.CRITICAL)

RSA_SIGNATURES = ("rsa-sha2-512", "rsa-sha2-256")
ANSWER_LOST_REMEDY = "It may have run, or still run, there: look before anything is done again"
Given = TypeVar("Given")


class HostKeyRefused(Refused):
    """The server is not known to be the one meant. Fields as of Refused."""


class LoginRefused(CommandFailed):
    """The server let none of the credentials in. Fields as of CommandFailed."""


class AnswerLost(Unreachable):
    """The command was sent and no outcome came back: it may have run. Fields as of Unreachable."""

    def __init__(self, target: str, asked: str, seen: str, remedy: str = "") -> None:
        super().__init__(target, asked, seen, remedy or ANSWER_LOST_REMEDY)


class Deadline:
    """A moment after which nothing is waited for."""

    def __init__(self, within_seconds: float) -> None:
        self.within_seconds = within_seconds
        self._ends = time.monotonic() + within_seconds

    @property
    def seconds_left(self) -> float:
        """Seconds left, never below zero."""
        return max(0.0, self._ends - time.monotonic())

    @property
    def is_over(self) -> bool:
        """Whether none are left."""
        return self.seconds_left <= 0

    def at_most(self, within_seconds: float) -> "Deadline":
        """The earlier one of this and one that many seconds from now."""
        return Deadline(min(within_seconds, self.seconds_left))


@dataclass(frozen=True)
class Server:
    """Where a server is and how it is known. `pin` is a fingerprint, and then all that counts."""

    address: str
    port: int
    known: tuple[KnownKey, ...] = ()
    known_from: str = "known_hosts"
    pin: str = ""

    @property
    def target(self) -> str:
        """The name of the server in messages."""
        return self.address if self.port == 22 else f"{self.address}:{self.port}"  # noqa: PLR2004


@dataclass(frozen=True)
class NamedKey:
    """A private key and where it came from."""

    origin: str
    key: paramiko.PKey


@dataclass(frozen=True)
class Credentials:
    """Who logs in, and with what, in this order: agent, keys, password."""

    user: str = ""  # empty: the account of this worker
    keys: tuple[NamedKey, ...] = ()
    uses_agent: bool = False
    password: Secret | None = None
    notes: tuple[str, ...] = ()  # what was not tried and why, for the error


def connect(
    server: Server, credentials: Credentials, deadline: Deadline, keepalive_seconds: int
) -> paramiko.Transport:
    """Return an open connection on which commands can be run.

    Raises:
        Unreachable: the name, the network or the server gave no answer in time.
        HostKeyRefused: the server's key is unknown, changed, revoked or not the pinned one.
        LoginRefused: it let none of the credentials in.
    """
    transport = paramiko.Transport(_open_socket(server, deadline))
    try:
        _shake_hands(transport, server, deadline)
        refuse_unless_known(server, transport.get_remote_server_key())
        _log_in(transport, server, credentials, deadline)
    except BaseException:
        transport.close()
        raise
    transport.set_keepalive(keepalive_seconds)
    return transport


def refuse_unless_known(server: Server, key: paramiko.PKey) -> None:
    """Refuse a server whose key is not the pinned one, or not known, or changed, or revoked.

    Raises:
        HostKeyRefused: with the fingerprint seen and how to pin it.
    """
    seen = fingerprint(key.asbytes())
    shown = f"{key.get_name()} {seen}"
    compare = (
        "Compare it with `ssh-keygen -lf` of the matching /etc/ssh/ssh_host_*_key.pub on the "
        "host's own console"
    )
    if server.pin:
        if server.pin == seen:
            return
        raise HostKeyRefused(
            server.target,
            f"its host key is {shown}, but {server.pin} is pinned",
            f"Either another machine answers, or it was installed anew, or the pin is of another "
            f"key type. {compare}; only then pin host_key={seen}",
        )
    name = name_in_known_hosts(server.address, server.port)
    verdict = judge(server.known, name, key.asbytes())
    if verdict is HostKeyVerdict.KNOWN:
        return
    if verdict is HostKeyVerdict.UNKNOWN:
        raise HostKeyRefused(
            server.target,
            f"its host key {shown} is unknown: {server.known_from} has no key of {name}",
            f"{compare}; if it is the same, pin host_key={seen}, or add the key to "
            f"{server.known_from}",
        )
    if verdict is HostKeyVerdict.REVOKED:
        raise HostKeyRefused(
            server.target,
            f"its host key {shown} is marked @revoked in {server.known_from}",
            "Give the host a new key on its own console; do not log in before that",
        )
    expected = ", ".join(
        f"{known.key_type} {fingerprint(known.key)}" for known in keys_of(server.known, name)
    )
    raise HostKeyRefused(
        server.target,
        f"its host key has changed: it showed {shown}, {server.known_from} has {expected}",
        f"Either another machine answers, or it was installed anew. {compare}; only if it is the "
        f"same, remove the old key with `ssh-keygen -R '{name}'` and pin host_key={seen}",
    )


def own_user() -> str:
    """The account of this worker, which ssh logs in with when none is named."""
    return getpass.getuser()


def call_within(deadline: Deadline, ask: Callable[[], Given]) -> Given:
    """Call what knows no deadline of its own, in a thread that is left behind if it hangs.

    Raises:
        TimeoutError: it has not come back in time.
    """
    answers: SimpleQueue[Given | BaseException] = SimpleQueue()

    def run() -> None:
        try:
            answers.put(ask())
        except BaseException as error:  # noqa: BLE001 - raised again where it was asked
            answers.put(error)

    threading.Thread(target=run, daemon=True, name="ssh-call").start()
    try:
        answer = answers.get(timeout=deadline.seconds_left)
    except Empty:
        raise TimeoutError(f"no answer within {deadline.within_seconds:.3g} s") from None
    if isinstance(answer, BaseException):
        raise answer
    return answer


def _open_socket(server: Server, deadline: Deadline) -> socket.socket:
    asked = f"connect to port {server.port}"
    try:
        places = call_within(
            deadline,
            lambda: socket.getaddrinfo(server.address, server.port, type=socket.SOCK_STREAM),
        )
    except (OSError, UnicodeError) as error:  # a TimeoutError is an OSError
        raise Unreachable(
            server.target,
            f"look up {server.address}",
            f"the name could not be resolved: {getattr(error, 'strerror', None) or error}",
            "Check the address and the name servers of this worker, then resume",
        ) from error
    seen = []
    for tried, (family, kind, protocol, _, place) in enumerate(places):
        connection = socket.socket(family, kind, protocol)
        try:
            # A silent first address must leave time for the others.
            connection.settimeout(max(0.01, deadline.seconds_left / (len(places) - tried)))
            connection.connect(place)
        except OSError as error:
            connection.close()
            seen.append(f"{place[0]}: {error.strerror or error}")
            continue
        _notice_a_dead_peer(connection)
        return connection
    raise Unreachable(server.target, asked, "; ".join(seen))


def _notice_a_dead_peer(connection: socket.socket) -> None:
    """Have the kernel end a connection whose peer has not acknowledged anything for 30 s."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        ("TCP_KEEPIDLE", 15),
        ("TCP_KEEPINTVL", 5),
        ("TCP_KEEPCNT", 3),
        ("TCP_USER_TIMEOUT", 30_000),
    ):
        if hasattr(socket, option):  # not every one exists on every system
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


def _shake_hands(transport: paramiko.Transport, server: Server, deadline: Deadline) -> None:
    transport.banner_timeout = transport.handshake_timeout = max(0.1, deadline.seconds_left)
    known = keys_of(server.known, name_in_known_hosts(server.address, server.port))
    if known and not server.pin:
        _prefer(transport, known)
    done = threading.Event()
    transport.start_client(event=done)
    if not done.wait(deadline.seconds_left):
        raise Unreachable(
            server.target,
            "start SSH",
            f"it accepted the connection and said nothing for {deadline.within_seconds:.3g} s",
        )
    if not transport.is_active():
        error = transport.get_exception()
        raise Unreachable(
            server.target,
            "start SSH",
            f"the handshake failed: {(error and str(error)) or 'it closed the connection'}",
            "Check that an SSH server runs on this port and is not overloaded, then resume",
        )


def _prefer(transport: paramiko.Transport, known: tuple[KnownKey, ...]) -> None:
    """Ask first for the key types that are known, so that a known host is not taken as changed."""
    wanted: list[str] = []
    for line in known:
        wanted += RSA_SIGNATURES if line.key_type == "ssh-rsa" else (line.key_type,)
    options = transport.get_security_options()
    offered = tuple(options.key_types)
    first = tuple(key_type for key_type in offered if key_type in wanted)
    options.key_types = first + tuple(name for name in offered if name not in first)


def _log_in(
    transport: paramiko.Transport, server: Server, credentials: Credentials, deadline: Deadline
) -> None:
    user = credentials.user or own_user()
    tried = list(credentials.notes)
    offered: set[str] = set()
    for origin, attempt in _attempts(transport, user, credentials, deadline):
        transport.auth_timeout = max(0.1, deadline.seconds_left)
        try:
            offered |= set(attempt())
        except paramiko.BadAuthenticationType as error:
            tried.append(f"{origin}: not offered by the server")
            offered |= set(error.allowed_types)
        except (paramiko.SSHException, OSError, EOFError) as error:
            if deadline.is_over or "timeout" in str(error).lower():
                raise Unreachable(
                    server.target,
                    f"log in as {user}",
                    f"silent for {deadline.within_seconds:.3g} s",
                ) from error
            tried.append(f"{origin}: {str(error).rstrip('.') or type(error).__name__}")
            if not transport.is_active():
                tried.append("then it hung up, perhaps after too many attempts")
                break
        else:
            if transport.is_authenticated():
                return
            tried.append(f"{origin}: accepted, but more is asked for")
    ways = f"; it offers {', '.join(sorted(offered))}" if offered else ""
    raise LoginRefused(
        server.target,
        f"log in as {user}",
        "none",
        "; ".join(tried or ["there was no key, agent or password to try"]) + ways,
        f"Put the public key into ~/.ssh/authorized_keys of {user} there, or name the right "
        "key_file or password_file, then resume",
    )


def _attempts(
    transport: paramiko.Transport, user: str, credentials: Credentials, deadline: Deadline
) -> Iterator[tuple[str, Callable[[], list[str]]]]:
    keys = list(credentials.keys)
    if credentials.uses_agent:
        # A broken or silent agent is as good as none: the keys and the password are still tried.
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            agent = call_within(deadline.at_most(5), paramiko.Agent)
            keys[:0] = [NamedKey("agent", key) for key in agent.get_keys()]
    for named in keys:
        origin = f"key {fingerprint(named.key.asbytes())} ({named.origin})"
        yield origin, partial(transport.auth_publickey, user, named.key)
    if credentials.password is not None:
        password = credentials.password
        yield "password", lambda: transport.auth_password(user, password.reveal())

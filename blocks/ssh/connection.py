"""One SSH connection: reach the server, directly or through another, know it by its key, log in."""

import contextlib
import ipaddress
import logging
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import paramiko

from blocks.ssh.deadline import Deadline, call_within
from blocks.ssh.host_key import HostKeyRefused, Server, refuse_unless_known
from blocks.ssh.known_hosts import KnownKey, keys_of, name_in_known_hosts
from blocks.ssh.login import Credentials, LoginRefused, log_in
from blocks.ssh.wire import Wire
from recovery.errors import AnswerLost, NameUnknown, Refused, Unreachable

__all__ = [
    "AnswerLost",
    "Credentials",
    "Deadline",
    "HostKeyRefused",
    "LoginRefused",
    "Server",
    "connect",
    "open_tcp",
    "shake_hands",
]

# Paramiko logs each failure with a traceback before it raises it; the errors here say it once.
logging.getLogger("paramiko").setLevel(logging.CRITICAL)

RSA_SIGNATURES = ("rsa-sha2-512", "rsa-sha2-256")
FAST_CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com")
FORBIDDEN = 1  # SSH_OPEN_ADMINISTRATIVELY_PROHIBITED of RFC 4254


class Connection(paramiko.Transport):
    """A transport over a `Wire`, which may lead through another host."""

    def __init__(self, wire: Wire, via: "Via | None" = None) -> None:
        super().__init__(cast(socket.socket, wire))
        self.wire = wire
        self._via = via
        self._at_end: list[Callable[[], None]] = []

    def when_closed(self, call: Callable[[], None]) -> None:
        """Have this called once it was closed, which every connection is in the end."""
        self._at_end.append(call)

    def close(self) -> None:
        """Close it, and what it was opened through if nobody else needs that."""
        self.wire.close()  # wakes the thread that reads; paramiko would wait for it to look
        super().close()
        while self._at_end:
            self._at_end.pop()()

    def gives_sign_of_life(self, within_seconds: float) -> bool:
        """Whether the server at the other end still answers."""
        return self.is_active() and self.wire.hears(self, within_seconds)

    @property
    def lost_because(self) -> str:
        """Why it ended, where anything is known; a jump host on the way may have been lost."""
        if self.wire.lost_because:
            return self.wire.lost_because
        if self._via is not None and (because := self._via.transport.lost_because):
            return f"{self._via.target} on the way there: {because}"
        error = self.get_exception()
        return "" if error is None else str(error) or "the other side closed it"


@dataclass(frozen=True)
class Via:
    """A connection to another host that leads on, and the name of that host."""

    transport: Connection
    target: str


def connect(
    server: Server,
    credentials: Credentials,
    deadline: Deadline,
    keepalive_seconds: float,
    via: Via | None = None,
) -> "Connection":
    """Return an open connection on which commands can be run.

    Raises:
        Unreachable: the name, the network or the server gave no answer in time.
        Refused: the jump host forbids to lead on.
        HostKeyRefused: the server's key is unknown, changed, revoked or not the pinned one.
        LoginRefused: it let none of the credentials in.
    """
    transport = shake_hands(server, deadline, keepalive_seconds, via)
    try:
        refuse_unless_known(server, transport.get_remote_server_key())
        log_in(transport, server.target, credentials, deadline)
        transport.wire.watch(transport)
    except BaseException:
        transport.close()
        raise
    return transport


def shake_hands(
    server: Server, deadline: Deadline, keepalive_seconds: float, via: Via | None = None
) -> "Connection":
    """Return a connection whose server has shown its key; nothing is trusted yet.

    Raises:
        Unreachable: the name, the network or the server gave no answer in time.
        Refused: the jump host forbids to lead on.
    """
    below: socket.socket | paramiko.Channel
    if via is None:
        below = _open_socket(server, deadline)
    else:
        below = open_tcp(via, (server.address, server.port), deadline, server.target)
    transport = Connection(Wire(below, keepalive_seconds), via)
    try:
        _exchange_keys(transport, server, deadline)
    except BaseException:
        transport.close()
        raise
    return transport


def open_tcp(
    via: Via, place: tuple[str, int], deadline: Deadline, target: str = ""
) -> paramiko.Channel:
    """Return a channel that leads on from a host to an address as that host sees it.

    Raises:
        Refused: its sshd forbids that.
        Unreachable: nothing answers there, or the host itself gives no answer.
    """
    address, port = place
    asked = f"connect to {address}:{port} through {via.target}"
    try:
        return via.transport.open_channel(
            "direct-tcpip", place, ("127.0.0.1", 0), timeout=max(0.01, deadline.seconds_left)
        )
    except paramiko.ChannelException as error:
        if error.code == FORBIDDEN:
            raise Refused(
                via.target,
                f"its sshd forbids to forward to {address}:{port} ({error.text})",
                "Allow it in its sshd_config (AllowTcpForwarding local, PermitOpen), then resume",
            ) from error
        remedy = f"Check that it runs and can be reached from {via.target}, then resume"
        raise Unreachable(target or via.target, asked, error.text, remedy) from error
    except (paramiko.SSHException, OSError, EOFError) as error:
        seen = str(error) or type(error).__name__
        raise Unreachable(target or via.target, asked, seen) from error


def _open_socket(server: Server, deadline: Deadline) -> socket.socket:
    asked = f"connect to port {server.port}"
    seen = []
    places = _places(server, deadline)
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


def _places(server: Server, deadline: Deadline) -> list[Any]:
    look_up = partial(socket.getaddrinfo, server.address, server.port, type=socket.SOCK_STREAM)
    try:
        with contextlib.suppress(ValueError):
            ipaddress.ip_address(server.address)
            return look_up()  # nobody is asked, so that nobody can keep us waiting
        return call_within(deadline, look_up)
    except (OSError, UnicodeError) as error:  # a TimeoutError is an OSError
        is_unknown = isinstance(error, socket.gaierror) and error.errno == socket.EAI_NONAME
        raise (NameUnknown if is_unknown else Unreachable)(
            server.target,
            f"look up {server.address}",
            f"the name could not be resolved: {getattr(error, 'strerror', None) or error}",
            "Check the address and the name servers of this worker, then resume",
        ) from error


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


def _exchange_keys(transport: paramiko.Transport, server: Server, deadline: Deadline) -> None:
    transport.banner_timeout = transport.handshake_timeout = max(0.1, deadline.seconds_left)
    _prefer_fast_ciphers(transport)
    known = keys_of(server.known, name_in_known_hosts(server.address, server.port))
    if known and not server.pin:
        _prefer(transport, known)
    done = threading.Event()
    transport.start_client(event=done)
    if not done.wait(deadline.seconds_left):
        raise Unreachable(
            server.target,
            "start SSH",
            f"it accepted the connection and said nothing for {deadline}",
        )
    if not transport.is_active():
        error = transport.get_exception()
        raise Unreachable(
            server.target,
            "start SSH",
            f"the handshake failed: {(error and str(error)) or 'it closed the connection'}",
            "Check that an SSH server runs on this port and is not overloaded, then resume",
        )


def _prefer_fast_ciphers(transport: paramiko.Transport) -> None:
    """Ask first for AES-GCM: paramiko compares the checksums of all others byte by byte."""
    options = transport.get_security_options()
    offered = tuple(options.ciphers)
    first = tuple(name for name in FAST_CIPHERS if name in offered)
    options.ciphers = first + tuple(name for name in offered if name not in first)


def _prefer(transport: paramiko.Transport, known: tuple[KnownKey, ...]) -> None:
    """Ask first for the key types that are known, so that a known host is not taken as changed."""
    wanted: list[str] = []
    for line in known:
        wanted += RSA_SIGNATURES if line.key_type == "ssh-rsa" else (line.key_type,)
    options = transport.get_security_options()
    offered = tuple(options.key_types)
    first = tuple(key_type for key_type in offered if key_type in wanted)
    options.key_types = first + tuple(name for name in offered if name not in first)

"""Whether a server is the one meant: its host key against a pin or a known_hosts file."""

from dataclasses import dataclass

import paramiko

from blocks.ssh.known_hosts import (
    HostKeyVerdict,
    KnownKey,
    fingerprint,
    judge,
    keys_of,
    name_in_known_hosts,
)
from recovery.errors import Refused


class HostKeyRefused(Refused):
    """The server is not known to be the one meant. Fields as of Refused."""


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

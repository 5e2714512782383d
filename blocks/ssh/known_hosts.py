"""What a known_hosts file says about a host key: pure reading, no connection."""

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import translate

STANDARD_PORT = 22


class HostKeyVerdict(StrEnum):
    """What is known of the key a server showed."""

    KNOWN = "known"
    UNKNOWN = "unknown"
    CHANGED = "changed"
    REVOKED = "revoked"


@dataclass(frozen=True)
class KnownKey:
    """One line of a known_hosts file: which hosts, which key (in wire form), which marker."""

    patterns: tuple[str, ...]
    key_type: str
    key: bytes
    marker: str = ""

    def is_for(self, name: str) -> bool:
        """Whether the line speaks of this host: `host`, or `[host]:port` off port 22."""
        if len(self.patterns) == 1 and self.patterns[0].startswith("|1|"):
            return _is_hash_of(self.patterns[0], name)
        unwanted = [pattern[1:] for pattern in self.patterns if pattern.startswith("!")]
        wanted = [pattern for pattern in self.patterns if not pattern.startswith("!")]
        return _any_fits(wanted, name) and not _any_fits(unwanted, name)


def parse_known_hosts(text: str) -> tuple[KnownKey, ...]:
    """Read a known_hosts file; lines that are no keys are passed over, as OpenSSH does.

    A line: `[@revoked|@cert-authority] names key-type base64-key [comment]`, names separated by
    commas, with `*`, `?` and `!`, or hashed as `|1|salt|hash`.
    """
    found = []
    for line in text.splitlines():
        fields = line.split()
        marker = fields.pop(0) if fields and fields[0].startswith("@") else ""
        if len(fields) < 3 or fields[0].startswith("#"):  # noqa: PLR2004 - names, type, key
            continue
        try:
            key = base64.b64decode(fields[2], validate=True)
        except binascii.Error:
            continue
        found.append(KnownKey(tuple(fields[0].split(",")), fields[1], key, marker))
    return tuple(found)


def name_in_known_hosts(address: str, port: int) -> str:
    """The name under which OpenSSH keeps the key of this server."""
    return address if port == STANDARD_PORT else f"[{address}]:{port}"


def keys_of(known: Iterable[KnownKey], name: str) -> tuple[KnownKey, ...]:
    """The plain keys that are accepted from this host."""
    return tuple(line for line in known if not line.marker and line.is_for(name))


def judge(known: Iterable[KnownKey], name: str, key: bytes) -> HostKeyVerdict:
    """What is known of the key that the server of this name showed.

    A revoked key is revoked wherever it shows up. A host whose other keys are known, but not this
    one, counts as changed: its known keys were asked for, and it did not show them.
    """
    lines = tuple(known)
    if any(line.marker == "@revoked" and line.key == key and line.is_for(name) for line in lines):
        return HostKeyVerdict.REVOKED
    accepted = keys_of(lines, name)
    if not accepted:
        return HostKeyVerdict.UNKNOWN
    if any(line.key == key for line in accepted):
        return HostKeyVerdict.KNOWN
    return HostKeyVerdict.CHANGED


def fingerprint(key: bytes) -> str:
    """The fingerprint of a key in wire form, as `ssh-keygen -l` prints it: `SHA256:…`."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(key).digest()).decode().rstrip("=")


def _any_fits(patterns: Iterable[str], name: str) -> bool:
    """Whether one fits; `[` is literal here (it stands around a host with a port)."""
    return any(
        re.fullmatch(translate(pattern.replace("[", "[[]")), name, re.IGNORECASE)
        for pattern in patterns
    )


def _is_hash_of(hashed: str, name: str) -> bool:
    try:
        salt, digest = (base64.b64decode(part) for part in hashed.split("|")[2:4])
    except (ValueError, binascii.Error):
        return False
    return hmac.compare_digest(hmac.digest(salt, name.lower().encode(), "sha1"), digest)

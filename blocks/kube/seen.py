"""What is told of an object that was read, and what of it becomes known as secret."""

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Any

from recovery.secrecy.secret import Secret

CONDITIONS_MAX = 8
SECRET_FIELDS = ("data", "stringData")
PLAIN_WORDS = {"true", "false", "none", "null"}
PLAIN_DIGITS_MAX = 5
TELLING_CHARACTERS_MIN = 4
KEYS_OF_NAMES = re.compile(
    r"(.*[._-])?(db)?(user|username|database|db_?name|host|hostname|addr|address|vendor)",
    re.IGNORECASE,
)
A_NAME = re.compile(r"[a-z][a-z0-9._-]{0,62}")
COUNTS = (
    "observedGeneration",
    "replicas",
    "updatedReplicas",
    "readyReplicas",
    "availableReplicas",
    "unavailableReplicas",
    "desiredNumberScheduled",
    "updatedNumberScheduled",
    "numberAvailable",
    "succeeded",
    "failed",
    "active",
)


def is_a_name(key: str, value: str) -> bool:
    """Whether a key of a Secret holds the name of an account or a place, which is no secret.

    A Secret for a database has them beside the password, and they are the names of workloads too.
    """
    return bool(KEYS_OF_NAMES.fullmatch(key) and A_NAME.fullmatch(value))


def is_telling(value: str) -> bool:
    """Whether a value gives anything away: `true`, a port and a flag stand everywhere."""
    if len(value) < TELLING_CHARACTERS_MIN or value.lower() in PLAIN_WORDS:
        return False
    return not value.isdigit() or len(value) > PLAIN_DIGITS_MAX


def learn_secrets(read: Mapping[str, Any]) -> None:
    """Make the values of a Secret, or of a list of them, known to redaction."""
    items = read.get("items") if str(read.get("kind", "")).endswith("List") else None
    for each in items or [read]:
        kind = each.get("kind") or str(read.get("kind", "")).removesuffix("List")
        if kind != "Secret":
            continue
        for value in (each.get("stringData") or {}).values():
            _learn(value)
        for key, encoded in (each.get("data") or {}).items():
            try:
                plain = base64.b64decode(str(encoded)).decode()
            except (binascii.Error, UnicodeDecodeError):  # binary: its base64 form is known
                plain = str(encoded)
            if is_telling(plain) and not is_a_name(key, plain):
                _learn(encoded)
                _learn(plain)


def _learn(value: object) -> None:
    if not isinstance(value, Secret) and is_telling(str(value)):
        Secret(str(value))


def told(read: Mapping[str, Any]) -> str:
    """An object in a line: which one it is, in which version, and how it stands; no contents."""
    metadata = read.get("metadata") or {}
    if not metadata.get("name"):
        return f"{read.get('kind') or 'JSON'} with {', '.join(sorted(read))[:200]}"
    place = f"{metadata['namespace']}/" if metadata.get("namespace") else ""
    line = f"{read.get('kind', 'object')} {place}{metadata['name']}"
    line += f" (resourceVersion {metadata.get('resourceVersion')})"
    status = read.get("status") or {}
    spec = read.get("spec") or {}
    parts = [f"generation {metadata['generation']}"] if metadata.get("generation") else []
    if "replicas" in spec:
        parts.append(f"wanted {spec['replicas']}")
    parts += [f"{name} {status[name]}" for name in COUNTS if isinstance(status.get(name), int)]
    if metadata.get("deletionTimestamp"):
        parts.append("being deleted")
    if isinstance(status.get("phase"), str):
        parts.append(status["phase"])
    for one in (status.get("conditions") or [])[:CONDITIONS_MAX]:
        reason = f" ({one['reason']})" if one.get("reason") else ""
        parts.append(f"{one.get('type')}={one.get('status')}{reason}")
    if isinstance(read.get("data"), dict):
        parts.append(f"keys {', '.join(sorted(read['data']))}")
    return f"{line}: {', '.join(parts)}" if parts else line

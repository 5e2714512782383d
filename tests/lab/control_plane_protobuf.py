"""Just enough of protobuf to understand what kubectl sends: it writes its requests in nothing else.

Answers are JSON, which it takes as well.
"""

from collections.abc import Iterator
from typing import Any

MAGIC = b"k8s\x00"
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5

# Field numbers of k8s.io/api, of the kinds that are sent here: number to name and type.
Fields = dict[int, tuple[str, Any]]
META: Fields = {
    1: ("name", str),
    2: ("generateName", str),
    3: ("namespace", str),
    11: ("labels", dict),
}
RESOURCE_ATTRIBUTES: Fields = {
    number: (name, str)
    for number, name in enumerate(
        ("namespace", "verb", "group", "version", "resource", "subresource", "name"), 1
    )
}
KINDS: dict[str, Fields] = {
    "ConfigMap": {1: ("metadata", META), 2: ("data", dict)},
    "Namespace": {1: ("metadata", META)},
    "SelfSubjectReview": {1: ("metadata", META)},
    "SelfSubjectAccessReview": {
        1: ("metadata", META),
        2: ("spec", {1: ("resourceAttributes", RESOURCE_ATTRIBUTES)}),
    },
    "DeleteOptions": {},
}


def decoded(body: bytes) -> dict[str, Any]:
    """Read an object in the envelope in which Kubernetes sends protobuf.

    Raises:
        ValueError: it is none, or of a kind that is not understood here.
    """
    if not body.startswith(MAGIC):
        raise ValueError("this is no protobuf of Kubernetes")
    envelope = dict(_fields(body[len(MAGIC) :]))
    kind = dict(_fields(envelope[1]))[2].decode()
    if kind not in KINDS:
        raise ValueError(f"{kind} is not understood in protobuf here; send JSON")
    return _read(envelope.get(2, b""), KINDS[kind])


def _read(body: bytes, known: Fields) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for number, value in _fields(body):
        if number not in known:
            continue
        name, kind = known[number]
        if kind is str:
            found[name] = value.decode()
        elif kind is dict:
            entry = dict(_fields(value))
            found.setdefault(name, {})[entry[1].decode()] = entry.get(2, b"").decode()
        else:
            found[name] = _read(value, kind)
    return found


def _fields(body: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield number and content of each field; numbers are of no use here and left out."""
    at = 0
    while at < len(body):
        tag, at = _varint(body, at)
        kind = tag & 7
        if kind == VARINT:
            _, at = _varint(body, at)
        elif kind == BYTES:
            length, at = _varint(body, at)
            yield tag >> 3, body[at : at + length]
            at += length
        else:
            at += 8 if kind == FIXED64 else 4


def _varint(body: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = body[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7

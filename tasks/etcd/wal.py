"""What the log of a member says of it, also while it serves nobody: the last segment is read.

A segment is a row of records, each after 8 bytes of its length (the upper byte says how it is
padded), and then zeros up to 64 MB. It begins with what the one before ended with.
"""

import gzip
import io
import struct
from dataclasses import dataclass

from blocks.ssh.host import SshHost
from recovery.errors import UnreadableOutput

WITHIN_SECONDS = 120.0
READ = 'cd "$1" && last=$(ls *.wal | tail -n 1) && echo "$last" && exec gzip -1 -c "$last"'
ENTRY, STATE = 2, 3  # types of records
SEGMENT_BYTES_MAX = 512 * 1024 * 1024


@dataclass(frozen=True)
class LogEnd:
    """Where a log ends.

    Attributes:
        last: index of its last entry.
        committed: up to which entry the member knows that a majority has it.
    """

    last: int
    committed: int

    @property
    def uncommitted(self) -> int:
        """Entries of which it does not know whether a majority had them."""
        return max(0, self.last - self.committed)


def log_end(host: SshHost, data: str) -> LogEnd:
    """Where the log in the data of a member ends.

    Raises:
        CommandFailed: there is none.
        UnreadableOutput: it is no log of etcd's.
        Unreachable: the host gave no answer.
    """
    sink = io.BytesIO()
    argv = ["sh", "-c", READ, "read-log", f"{data}/wal"]
    host.read_into(argv, sink, within_seconds=WITHIN_SECONDS, as_root=True)
    name, _, packed = sink.getvalue().partition(b"\n")
    try:
        with gzip.open(io.BytesIO(packed)) as segment:
            content = segment.read(SEGMENT_BYTES_MAX)
        return parse_segment(name.decode(), content)
    except (ValueError, EOFError, OSError, struct.error) as error:
        raise UnreadableOutput(f"the log of etcd in {data}/wal", repr(error)) from error


def parse_segment(name: str, content: bytes) -> LogEnd:
    """Read where the log ends from its last segment; a torn record at its end is no part of it.

    Args:
        name: `SEQUENCE-INDEX.wal`, both of 16 hexadecimal digits; its entries begin at INDEX.
        content: all of it.

    Raises:
        ValueError: the name is another, or no state of the member is in it.
    """
    last = int(name.removesuffix(".wal").partition("-")[2], 16) - 1
    committed, at = -1, 0
    while at + 8 <= len(content):
        (header,) = struct.unpack_from("<q", content, at)
        size = header & ((1 << 56) - 1)
        padding = (header >> 56) & 7 if header < 0 else 0
        if size == 0 or at + 8 + size + padding > len(content):
            break
        kind, data = _record(content[at + 8 : at + 8 + size])
        if kind == ENTRY:
            last = _numbers(data).get(3, last)
        elif kind == STATE:
            committed = _numbers(data).get(3, 0)
        at += 8 + size + padding
    if committed < 0:
        raise ValueError(f"{name} holds no state")
    return LogEnd(max(last, 0), committed)


def _record(message: bytes) -> tuple[int, bytes]:
    """The type of a record and what it holds; its checksum is left to etcd."""
    fields = dict(_fields(message))
    kind, data = fields.get(1, 0), fields.get(3, b"")
    return (kind if isinstance(kind, int) else 0), (data if isinstance(data, bytes) else b"")


def _numbers(message: bytes) -> dict[int, int]:
    return {name: value for name, value in _fields(message) if isinstance(value, int)}


def _fields(message: bytes) -> list[tuple[int, int | bytes]]:
    """The fields of a protobuf message that are numbers or bytes, which is all that is here."""
    found: list[tuple[int, int | bytes]] = []
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        if tag & 7 == 0:
            value, at = _varint(message, at)
            found.append((tag >> 3, value))
        elif tag & 7 == 2:  # noqa: PLR2004 (what protobuf calls a run of bytes)
            size, at = _varint(message, at)
            found.append((tag >> 3, message[at : at + size]))
            at += size
        else:
            raise ValueError(f"a field of type {tag & 7}")
    return found


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value, shift = 0, 0
    while at < len(message):
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:  # noqa: PLR2004 (the last one of a number)
            return value, at
    raise ValueError("a number is cut off")

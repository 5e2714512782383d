"""What the log of a member says of it, also while it serves nobody: the last segment is read.

A segment is a row of records, each after 8 bytes of its length (the upper byte says how it is
padded), and then zeros up to 64 MB. It begins with what the one before ended with. The checksum of
a record (CRC-32C) goes on from that of the one before.
"""

import gzip
import io
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from blocks.ssh.host import SshHost
from recovery.errors import UnreadableOutput

WITHIN_SECONDS = 120.0
READ = """cd "$1" && name=$(ls *.wal | tail -n "$2" | head -n 1) || exit
echo "$name"
exec gzip -1 -c "$name"
"""
# Types of records. CHECKSUM only passes one on; at a SNAPSHOT the log before it was let go of.
METADATA, ENTRY, STATE, CHECKSUM, SNAPSHOT = 1, 2, 3, 4, 5
SEGMENT_BYTES_MAX = 512 * 1024 * 1024
SECTOR_BYTES = 512
POLYNOMIAL = 0x82F63B78  # of CRC-32C, reversed
Told = TypeVar("Told")


@dataclass(frozen=True)
class LogEnd:
    """Where a log ends.

    Attributes:
        last: index of its last entry.
        committed: up to which entry the member knows that a majority has it.
        term: in which its last entry was written; 0 where that is in an earlier segment.
        cluster_id: of the cluster whose member it is.
    """

    last: int
    committed: int
    term: int = 0
    cluster_id: int = 0

    @property
    def uncommitted(self) -> int:
        """Entries of which it does not know whether a majority had them."""
        return max(0, self.last - self.committed)


@dataclass(frozen=True)
class _Record:
    """A record, and where it ends in its segment."""

    kind: int
    checksum: int
    data: bytes
    end: int


def log_end(host: SshHost, data: str) -> LogEnd:
    """Where the log in the data of a member ends.

    Raises:
        CommandFailed: there is none.
        UnreadableOutput: it is no log of etcd's, or damaged at its end.
        Unreachable: the host gave no answer.
    """
    end = _of_segment(host, data, parse_segment)
    if end.term or not end.last:
        return end
    try:  # the segment has just been begun: its last entry is in the one before
        before = _of_segment(host, data, parse_segment, from_the_end=2)
    except UnreadableOutput:
        return end
    return replace(end, term=before.term)


def committed_to_its_end(host: SshHost, data: str) -> bytes:
    """The last segment of a log, saying that a majority has all of its entries.

    A member writes an entry to its disk before it answers for it, and later that a majority has it:
    of what was acknowledged last, only the entry itself may be there. An etcd that is made to run
    alone lets go of such entries; on this segment it keeps them.

    Returns:
        Empty where it says so already.

    Raises:
        CommandFailed: there is none.
        UnreadableOutput: it is no log of etcd's, or damaged at its end.
        Unreachable: the host gave no answer.
    """

    def extended(name: str, content: bytes) -> bytes:
        return commit_all(name, content) if parse_segment(name, content).uncommitted else b""

    return _of_segment(host, data, extended)


def _of_segment(
    host: SshHost, data: str, told: Callable[[str, bytes], Told], *, from_the_end: int = 1
) -> Told:
    sink = io.BytesIO()
    argv = ["sh", "-c", READ, "read-log", f"{data}/wal", str(from_the_end)]
    host.read_into(argv, sink, within_seconds=WITHIN_SECONDS, as_root=True)
    name, _, packed = sink.getvalue().partition(b"\n")
    try:
        with gzip.open(io.BytesIO(packed)) as segment:
            content = segment.read(SEGMENT_BYTES_MAX)
        return told(name.decode(), content)
    except (ValueError, EOFError, OSError, struct.error) as error:
        raise UnreadableOutput(f"the log of etcd in {data}/wal", repr(error)) from error


def parse_segment(name: str, content: bytes) -> LogEnd:
    """Read where the log ends from its last segment; a torn record at its end is no part of it.

    Args:
        name: `SEQUENCE-INDEX.wal`, both of 16 hexadecimal digits; its entries begin at INDEX.
        content: all of it.

    Raises:
        ValueError: the name is another, no state of the member is in it, or its end is damaged.
    """
    return _end_of(name, list(_records(content)))


def commit_all(name: str, content: bytes) -> bytes:
    """The segment with one more record: the state of the member, with all entries committed.

    Arguments and errors are those of `parse_segment`.
    """
    records = list(_records(content))
    end = _end_of(name, records)
    state = _numbers(next(one.data for one in reversed(records) if one.kind == STATE))
    term, vote = max(state.get(1, 0), end.term), state.get(2, 0)
    data = _field(1, term) + _field(2, vote) + _field(3, end.last)
    checksum = crc32c(records[-1].checksum, data)
    message = _field(1, STATE) + _field(2, checksum) + bytes([3 << 3 | 2, len(data)]) + data
    padding = -len(message) % 8
    header = len(message) | ((0x80 | padding) << 56 if padding else 0)
    record = struct.pack("<Q", header) + message + bytes(padding)
    whole = content[: records[-1].end] + record
    return whole + bytes(max(0, len(content) - len(whole)))


def crc32c(before: int, data: bytes) -> int:
    """The checksum of data that follows on what has this one."""
    crc = before ^ 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (POLYNOMIAL if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def _end_of(name: str, records: Sequence[_Record]) -> LogEnd:
    last, term, committed = int(name.removesuffix(".wal").partition("-")[2], 16) - 1, 0, -1
    cluster_id = 0
    for one in records:
        if one.kind == ENTRY:
            numbers = _numbers(one.data)
            last, term = numbers.get(3, last), numbers.get(2, 0)
        elif one.kind == STATE:
            committed = _numbers(one.data).get(3, 0)
        elif one.kind == METADATA:
            cluster_id = _numbers(one.data).get(2, 0)
        elif one.kind == SNAPSHOT and (at := _numbers(one.data)).get(1, 0) > last:
            last, term = at[1], at.get(2, 0)  # the leader had let go of what was before
    if committed < 0:
        raise ValueError(f"{name} holds no state")
    return LogEnd(max(last, 0), committed, term, cluster_id)


def _records(content: bytes) -> Iterator[_Record]:
    """Its records in order, up to the zeros behind what was written, or to one that is torn."""
    at, before = 0, 0
    while at + 8 <= len(content):
        (header,) = struct.unpack_from("<q", content, at)
        begin, size = at + 8, header & ((1 << 56) - 1)
        end = begin + size + ((header >> 56) & 7 if header < 0 else 0)
        if size == 0 or end > len(content):
            return
        is_last = not any(content[end : end + 8])
        one = _record(content[begin : begin + size], end)
        has_gap = _has_unwritten_sector(content, begin, begin + size)
        if (is_last or has_gap) and not _is_sound(one, before):
            if has_gap:
                return
            raise ValueError(f"its last record, at byte {at}, does not have its checksum")
        yield one
        at, before = end, one.checksum


def _record(message: bytes, end: int) -> _Record:
    try:
        fields = dict(_fields(message))
    except ValueError:
        fields = {}
    kind, checksum, data = fields.get(1, 0), fields.get(2, 0), fields.get(3, b"")
    return _Record(
        kind if isinstance(kind, int) else 0,
        checksum if isinstance(checksum, int) else 0,
        data if isinstance(data, bytes) else b"",
        end,
    )


def _is_sound(one: _Record, before: int) -> bool:
    return one.kind == CHECKSUM or crc32c(before, one.data) == one.checksum


def _has_unwritten_sector(content: bytes, begin: int, end: int) -> bool:
    """Whether a sector of it is zeros alone, as where a power cut came in between."""
    sectors = range(begin // SECTOR_BYTES * SECTOR_BYTES, end, SECTOR_BYTES)
    return any(not any(content[max(begin, at) : min(end, at + SECTOR_BYTES)]) for at in sectors)


def _field(number: int, value: int) -> bytes:
    """A number in a protobuf message."""
    written = bytes([number << 3])
    while value >= 0x80:  # noqa: PLR2004 (seven bits a byte)
        written, value = written + bytes([value & 0x7F | 0x80]), value >> 7
    return written + bytes([value])


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

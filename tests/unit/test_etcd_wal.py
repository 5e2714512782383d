"""The end of etcd's log: read from its bytes, and written so that all of it counts."""

import struct

import pytest

from tasks.etcd.wal import LogEnd, commit_all, crc32c, parse_segment

NAME = "0000000000000001-0000000000000005.wal"
METADATA, ENTRY, STATE, SNAPSHOT = 1, 2, 3, 5
ZEROS = bytes(4096)


def number(field, value):
    written = bytes([field << 3])
    while value > 127:
        written, value = written + bytes([value & 127 | 128]), value >> 7
    return written + bytes([value])


def entry(index, term=2, value=b"A"):
    return ENTRY, number(1, 0) + number(2, term) + number(3, index) + b"\x22" + bytes(
        [len(value) & 127 | 128, len(value) >> 7]
    ) + value


def state(committed, term=2, vote=1):
    return STATE, number(1, term) + number(2, vote) + number(3, committed)


def metadata(cluster):
    return METADATA, number(1, 3) + number(2, cluster)


def caught_up(index, term=2):
    return SNAPSHOT, number(1, index) + number(2, term)


def segment(*records, before=0):
    """Records as etcd writes them: each with the checksum of all before, padded to 8 bytes."""
    content, checksum = b"", before
    for kind, data in records:
        checksum = crc32c(checksum, data)
        size = number(3, len(data))[1:]
        message = number(1, kind) + number(2, checksum) + b"\x1a" + size + data
        padding = -len(message) % 8
        header = len(message) | ((0x80 | padding) << 56 if padding else 0)
        content += struct.pack("<Q", header) + message + bytes(padding)
    return content


def test_the_checksum_is_that_of_castagnoli():
    assert crc32c(0, b"123456789") == 0xE3069283
    assert crc32c(crc32c(0, b"1234"), b"56789") == 0xE3069283


@pytest.mark.parametrize(
    ("content", "end"),
    [
        (segment(state(3)), LogEnd(4, 3)),
        (segment(state(4), entry(5), entry(6), state(5)), LogEnd(6, 5, 2)),
        (segment(state(4), entry(5), entry(6), state(6)) + ZEROS, LogEnd(6, 6, 2)),
        (segment(state(4), entry(5), entry(6))[:-9], LogEnd(5, 4, 2)),  # cut off
        (segment(state(4), entry(6), entry(5, term=3)), LogEnd(5, 4, 3)),  # a new leader's
        (segment(state(4), entry(5, value=bytes(2000))) + ZEROS, LogEnd(5, 4, 2)),
        (segment(metadata(7), state(4), entry(5)), LogEnd(5, 4, 2, 7)),
        (segment(entry(5), caught_up(100), state(100)), LogEnd(100, 100, 2)),  # by a snapshot
        (segment(caught_up(0), state(4), entry(5)), LogEnd(5, 4, 2)),
    ],
)
def test_the_end_of_a_log_is_read_from_its_last_segment(content, end):
    assert parse_segment(NAME, content) == end


def torn():
    """A sector in the middle of the last record was never written."""
    content = segment(state(4), entry(5), entry(6, value=b"B" * 2000))
    return content[:512] + bytes(512) + content[1024:] + ZEROS


def test_a_record_that_a_power_cut_has_torn_is_no_part_of_the_log():
    assert parse_segment(NAME, torn()) == LogEnd(5, 4, 2)
    committed = commit_all(NAME, torn())
    assert parse_segment(NAME, committed) == LogEnd(5, 5, 2)
    assert b"B" not in committed  # the rest of it would be taken for a record
    assert len(committed) == len(torn())


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "no state"),
        (segment(state(4), entry(5)).replace(b"A", b"Z"), "does not have its checksum"),
    ],
)
def test_what_is_no_log_or_damaged_is_said_to_be(content, why):
    with pytest.raises(ValueError, match=why):
        parse_segment(NAME, content)


def test_a_log_is_made_to_say_that_all_of_it_is_committed_and_keeps_the_rest():
    vote = (1 << 64) - 3
    content = segment(state(4, vote=vote), entry(5), entry(6, term=7), before=99) + ZEROS

    committed = commit_all(NAME, content)

    written = content.rstrip(b"\0")
    assert committed.startswith(written)
    assert len(committed) == len(content)
    assert parse_segment(NAME, committed) == LogEnd(6, 6, 7)
    assert number(2, vote) in committed[len(written) :]

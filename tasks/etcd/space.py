"""The space that an etcd takes, and how much of it is left by keys that were deleted."""

from tasks.etcd.evidence import MemberSeen

WASTE_MIN = 2  # its file is so many times as large as what is in it
SMALL_BYTES = 16 * 1024 * 1024  # below this, nobody cares


def is_wasteful(member: MemberSeen) -> bool:
    """Whether half of its database or more is free space, and it is large enough to matter."""
    said = member.status
    if said is None or said.db_bytes < SMALL_BYTES:
        return False
    return said.db_bytes >= WASTE_MIN * max(1, said.in_use_bytes)


def in_use(member: MemberSeen) -> str:
    """What is in use of what its file takes, for people."""
    said = member.status
    if said is None:
        return "unknown"
    return f"{said.in_use_bytes >> 20} of {said.db_bytes >> 20} MB in use"

"""What a journal is made of: events, each carrying the hash of the one before it.

Format 1. An event is `(recovery id, seq, attempt, epoch, at, kind, step, body, previous hash)`; its
hash is SHA-256 over the canonical JSON of exactly that list, with the body as the text that is
stored. `seq` counts from 1 without a gap. A changed, missing or re-ordered event therefore shows in
the chain, and a missing tail shows against the head that the store keeps beside it.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from recovery.values import canonical

FORMAT = 1
FIRST_HASH = "0" * 64


class Kind(StrEnum):
    """What an event says happened."""

    OPENED = "opened"
    ATTEMPT_STARTED = "attempt-started"
    ATTEMPT_ENDED = "attempt-ended"
    PLANNED = "planned"
    ASKED = "asked"
    APPROVED = "approved"
    REJECTED = "rejected"
    DISREGARDED = "disregarded"
    SAW = "saw"
    COMMAND = "command"
    PASSED = "passed"
    REFUSED = "refused"
    DECIDED = "decided"
    INTENDED = "intended"
    DONE = "done"
    FAILED = "failed"
    VERDICT = "verdict"
    STALE = "stale"
    VERIFIED = "verified"
    RESOLVED = "resolved"
    UNDO_INTENDED = "undo-intended"
    UNDONE = "undone"
    UNDO_FAILED = "undo-failed"
    TAKEN_OVER = "taken-over"
    ORPHANED = "orphaned"
    RESUME_ORDERED = "resume-ordered"
    UNANSWERED = "unanswered"
    NOTIFIED = "notified"


@dataclass(frozen=True, slots=True)
class Event:
    """One line of the journal. `at` is UTC in ISO 8601; `body_text` is the JSON that is hashed."""

    recovery_id: str
    seq: int
    attempt: int
    epoch: int
    at: str
    kind: str
    step: str
    body_text: str
    previous_hash: str
    hash: str

    @property
    def body(self) -> dict[str, Any]:
        """The body, read."""
        read: dict[str, Any] = json.loads(self.body_text)
        return read

    @property
    def moment(self) -> datetime:
        """When it was written, in UTC."""
        return datetime.fromisoformat(self.at)


def hash_of(event: Event) -> str:
    """Hash an event together with the hash of the one before it."""
    content = [
        FORMAT,
        event.recovery_id,
        event.seq,
        event.attempt,
        event.epoch,
        event.at,
        event.kind,
        event.step,
        event.body_text,
        event.previous_hash,
    ]
    return hashlib.sha256(canonical(content).encode()).hexdigest()


def _is_as_hashed(event: Event) -> bool:
    try:
        return hash_of(event) == event.hash
    except TypeError:  # a value of another type than was written
        return False


def flaws(events: Sequence[Event], head_seq: int, head_hash: str) -> list[str]:
    """Name every place where a recovery's events are not the chain that was written.

    Args:
        events: all events of one recovery, in the order of their `seq`.
        head_seq: the last `seq` that the store remembers to have written.
        head_hash: the hash it remembers with it.
    """
    found = []
    expected_seq, previous_hash = 1, FIRST_HASH
    for event in events:
        if event.seq != expected_seq:
            found.append(
                f"event {expected_seq} is missing"
                if event.seq > expected_seq
                else f"event {event.seq} stands where {expected_seq} should"
            )
        if event.previous_hash != previous_hash:
            found.append(f"event {event.seq} does not follow the event before it")
        if not _is_as_hashed(event):
            found.append(f"event {event.seq} ({event.kind}) was changed after it was written")
        expected_seq, previous_hash = event.seq + 1, event.hash
    if (expected_seq - 1, previous_hash) != (head_seq, head_hash):
        found.append(f"the journal ends at event {expected_seq - 1}, but {head_seq} were written")
    return found

"""Spreading schedules, so that what is planned for one minute does not begin in it all at once.

The shift follows from the name: applied again, or on another machine, it is the same one.
"""

import hashlib

from recovery.errors import BadInput

CRON_FIELDS = 5
MINUTES, HOURS = 60, 24


def spread_seconds(name: str, jitter_minutes: int) -> int:
    """By how many whole minutes, in seconds, a schedule is put off: 0 up to its jitter."""
    if not jitter_minutes:
        return 0
    digest = hashlib.sha256(name.encode()).digest()
    return int.from_bytes(digest[:4], "big") % (jitter_minutes + 1) * 60


def spread_cron(name: str, cron: str, jitter_minutes: int) -> str:
    """The cron expression put off within its jitter.

    Raises:
        BadInput: it has no fixed minute, or would pass midnight, and is spread by hand.
    """
    minutes = spread_seconds(name, jitter_minutes) // 60
    fields = cron.split()
    if not jitter_minutes:
        return cron
    if len(fields) != CRON_FIELDS or not fields[0].isdigit():
        raise _by_hand(f"{cron!r} has no fixed minute to be put off from")
    last = int(fields[0]) + jitter_minutes
    if last >= MINUTES and not fields[1].isdigit():
        raise _by_hand(f"{jitter_minutes} minutes lead out of the hour, which {cron!r} leaves open")
    if last >= MINUTES and int(fields[1]) * MINUTES + last >= HOURS * MINUTES:
        raise _by_hand(f"{jitter_minutes} minutes after {cron!r} lead over midnight")
    at = int(fields[0]) + minutes
    if at >= MINUTES:
        fields[1] = str(int(fields[1]) + at // MINUTES)
    fields[0] = str(at % MINUTES)
    return " ".join(fields)


def _by_hand(seen: str) -> BadInput:
    return BadInput("jitter_minutes", seen, "Give less, choose another time, or use interval")

"""What the steps of a recovery returned, as the journal keeps it, and how that is told."""

from collections.abc import Iterable
from typing import Any

from recovery.journal.events import Event, Kind
from recovery.words import LINE_CHARS_MAX, in_words

RETURNED = {Kind.SAW, Kind.DECIDED, Kind.VERIFIED, Kind.DONE}
NOTHING = {"", "None"}


def value_of(body: dict[str, Any]) -> Any:
    """What a step returned by its event: the value where it was kept, else the text of it."""
    for name in ("value", "result"):
        if body.get(name) is not None:
            return body[name]
    saw = body.get("saw")
    return None if saw in NOTHING else saw


def told_of(body: dict[str, Any], chars_max: int = LINE_CHARS_MAX) -> str:
    """What a step returned by its event, in one line; empty where it was nothing."""
    value = value_of(body)
    return "" if value is None else in_words(value, chars_max)


def found_in(events: Iterable[Event]) -> list[dict[str, Any]]:
    """What every step last returned that returned anything, in the order they were come to."""
    rows: dict[str, dict[str, Any]] = {}
    for event in events:
        if event.kind not in RETURNED:
            continue
        if told := told_of(event.body):
            kind = event.body.get("kind") or rows.get(event.step, {}).get("kind", "act")
            rows[event.step] = {"key": event.step, "kind": kind, "told": told}
    return list(rows.values())

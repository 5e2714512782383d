"""Whether people have heard of what a watch wrote down: the journal has the proof."""

from collections.abc import Iterable
from datetime import UTC, datetime

from recovery.journal.events import Event, Kind
from recovery.notices.channels import is_used_for
from recovery.notices.notice import Occasion

ON_ITS_WAY_SECONDS = 120.0  # for so long whoever wrote it down may still be about to tell of it
NEWS_FOR_SECONDS = 86_400.0


def has_told(
    events: Iterable[Event], kind: Kind, occasion: Occasion, field: str, value: object
) -> bool:
    """Whether a notice arrived after an event of this kind whose body has that value."""
    is_written = False
    for event in events:
        if event.kind == kind and event.body.get(field) == value:
            is_written = True
        elif is_written and _has_arrived(event, occasion):
            return True
    return False


def _has_arrived(event: Event, occasion: Occasion) -> bool:
    body = event.body if event.kind == Kind.NOTIFIED else {}
    return body.get("occasion") == occasion and not body.get("error")


def is_to_be_told_again(written_at: str, occasion: Occasion) -> bool:
    """Whether what was written down and never arrived is still to be told, by this process.

    Whoever wrote it down may have been killed before it told anybody.
    """
    if not written_at:
        return False
    age = (datetime.now(UTC) - datetime.fromisoformat(written_at)).total_seconds()
    return ON_ITS_WAY_SECONDS < age < NEWS_FOR_SECONDS and is_used_for(occasion)

"""The one place where the watch tells somebody: its log, unless another way is handed in."""

import logging
from collections.abc import Callable, Mapping
from typing import Any

from recovery.journal.opening import open_journal
from recovery.notices.notice import Notice, Occasion
from recovery.notices.sending import notify

TOLD_MAX = 20_000
Notify = Callable[[str, Mapping[str, Any]], None]
logger = logging.getLogger("recovery.orphans")


def log_it(text: str, facts: Mapping[str, Any]) -> None:
    """Write it to the log, as a warning; the facts are in the text."""
    del facts
    logger.warning("%s", text)


def tell_people(text: str, facts: Mapping[str, Any]) -> None:
    """Write it to the log, and send it by the channels of RECOVER_NOTIFICATIONS."""
    log_it(text, facts)
    recovery_id = str(facts.get("recovery", ""))
    occasion = Occasion(facts.get("occasion", Occasion.LOST if recovery_id else Occasion.ALARM))
    following = f"recover status {recovery_id}" if recovery_id else "recover doctor"
    run = str(facts.get("run", ""))
    notify(Notice(occasion, text, "", "", recovery_id, following, run), open_journal)


class Teller:
    """Tells each thing once, until it has passed.

    What is told goes through `notify`, which must not stop the watch: an error of it is logged.
    """

    def __init__(self, notify: Notify) -> None:
        self._notify = notify
        self._told: dict[tuple[object, ...], None] = {}

    def tell(self, topic: tuple[object, ...], text: str, facts: Mapping[str, Any]) -> None:
        """Tell of a topic, unless it was told of already."""
        if topic in self._told:
            return
        self._told[topic] = None
        if len(self._told) > TOLD_MAX:
            del self._told[next(iter(self._told))]
        try:
            self._notify(text, facts)
        except Exception:  # whatever a way of telling does, orphans are still to be seen to
            logger.exception("nobody was told: %s", text)

    def has_passed(self, topic: tuple[object, ...]) -> bool:
        """Forget a topic; whether it had been told of."""
        was_told = topic in self._told
        self._told.pop(topic, None)
        return was_told

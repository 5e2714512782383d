"""What a known sender posts and is turned away: it does not come again, so people are told."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from operate.alerts.notices import Notice, Notifier
from recovery.errors import BadInput
from recovery.secrecy.redaction import redact

TOLD_AGAIN_SECONDS = 600.0
REMEMBERED_MAX = 1000
SENT_AGAIN_MIN = 500  # Alertmanager sends again what was answered with this or more
logger = logging.getLogger("recovery.alerts")


class Turned(Exception):
    """A request is answered with this instead of being heard."""

    def __init__(self, status: int, told: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(status, told)
        self.status, self.told, self.headers = status, told, dict(headers or {})


class TurnedAway:
    """Tells of each sender and answer once in ten minutes."""

    def __init__(self, notifier: Notifier, clock: Callable[[], float] = time.monotonic) -> None:
        self._notifier, self._clock = notifier, clock
        self._told: dict[tuple[str, int], float] = {}

    @contextmanager
    def heeding(self, sender: str) -> Iterator[None]:
        """Tell of what ends in an answer on which nothing is sent again."""
        try:
            yield
        except Turned as turned:
            if turned.status < SENT_AGAIN_MIN:
                self._note(sender, turned.status, turned.told)
            raise
        except BadInput as error:
            self._note(sender, 400, str(error))
            raise

    def _note(self, sender: str, status: int, why: str) -> None:
        logger.warning("turned away what %s sent: %d, %s", sender, status, redact(why))
        now, key = self._clock(), (sender, status)
        if now - self._told.get(key, float("-inf")) < TOLD_AGAIN_SECONDS:
            return
        if len(self._told) >= REMEMBERED_MAX:
            self._told.clear()
        self._told[key] = now
        text = f"HTTP {status}, {why}. What was in it is not sent again: look at Alertmanager"
        subject = f"alerts of {sender} were turned away"
        self._notifier.tell(Notice(subject, text, "critical"))

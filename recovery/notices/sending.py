"""Telling people without ever holding up a recovery: sent beside it, tried again, and noted.

What is sent goes out in threads of its own. A channel that fails or hangs costs a line in the log
and one in the journal, never a step. It is tried again for an hour, by a process that lives so
long; one that ends tries twice.
"""

import contextvars
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from recovery.errors import RecoveryError
from recovery.journal.events import Kind
from recovery.journal.store import Journal
from recovery.notices.channels import Channel, channels
from recovery.notices.lines import Line, Try
from recovery.notices.notice import Notice
from recovery.secrecy.redaction import redact
from recovery.walk import logger
from recovery.words import LINE_CHARS_MAX, cut

WITHIN_SECONDS = 10.0
TRIES_AT_THE_END = 2


@dataclass(eq=False)
class _Sending(Try):
    """One notice on its way through one channel."""

    notice: Notice
    channel: Channel
    journal: Journal | Callable[[], Journal] | None
    context: contextvars.Context = field(default_factory=contextvars.copy_context)
    noting: threading.Lock = field(default_factory=threading.Lock)
    noted: str | None = None

    def send(self) -> bool:
        try:
            self.context.run(self.channel.send, self.notice)
        except Exception as error:  # noqa: BLE001 (whatever is wrong with a channel, the recovery goes on)
            self.note(str(error) or type(error).__name__)
            return False
        self.note("")
        return True

    def give_up(self, why: str) -> None:
        logger.error("not notified by %s, and not tried again: %s", self.channel.block, why)
        self.note(why)

    def note(self, error: str) -> None:
        """Write down what came of it: its first error, and that it arrived."""
        with self.noting:
            if self.noted is not None and error:
                return
            self.noted = error
            seen = cut(redact(error), LINE_CHARS_MAX)
            if error:
                logger.warning("not notified by %s: %s", self.channel.block, seen)
            self._journal(seen)

    def _journal(self, error: str) -> None:
        if self.journal is None or not self.notice.recovery_id:
            return
        recovery_id, occasion = self.notice.recovery_id, str(self.notice.occasion)
        body = {"channel": self.channel.block, "occasion": occasion, "error": error}
        try:
            journal = self.journal if isinstance(self.journal, Journal) else self.journal()
            try:
                if journal.head(recovery_id)[0]:  # what was typed may be no recovery
                    journal.append(recovery_id, Kind.NOTIFIED, body)
            finally:
                if journal is not self.journal:
                    journal.close()
        except RecoveryError as lost:
            logger.warning("what came of a notification is not noted: %s", lost)

    def leave(self, why: str) -> None:
        """Note why nothing is known of it, if that is so; the journal may be closed from now on."""
        if self.noted is None:
            self.note(why)
        with self.noting:
            self.journal = None


_lines: dict[str, Line[_Sending]] = {}
_lock = threading.Lock()


def notify(notice: Notice, journal: Journal | Callable[[], Journal] | None = None) -> None:
    """Tell whom it concerns, and return at once. Never raises.

    Args:
        notice: what is told.
        journal: where it is noted who was told, as evidence; it must stay open until
            `wait_until_sent` has returned. What opens one is asked for it each time.
    """
    try:
        wanted = [one for one in channels() if notice.occasion in one.occasions]
    except RecoveryError as error:
        logger.warning("nobody is notified: %s", error)
        return
    for channel in wanted:
        with _lock:
            line = _lines.setdefault(channel.block, Line(f"notify {channel.block}"))
        line.take(_Sending(notice=notice, channel=channel, journal=journal))


def wait_until_sent(within_seconds: float = WITHIN_SECONDS) -> None:
    """Give what is under way until the deadline, for a process or a journal that ends now."""
    deadline = time.monotonic() + within_seconds
    with _lock:
        lines = list(_lines.values())
    for line in lines:
        for sending in line.wait(deadline, TRIES_AT_THE_END):
            sending.leave(f"no answer within {within_seconds:g} s")

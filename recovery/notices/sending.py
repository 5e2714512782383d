"""Telling people without ever holding up a recovery: sent beside it, up to a deadline, and noted.

What is sent goes out in threads of its own. A channel that fails or hangs costs a line in the log
and one in the journal, never a step.
"""

import contextvars
import threading
import time
from dataclasses import dataclass, field

from recovery.errors import RecoveryError
from recovery.journal.events import Kind
from recovery.journal.store import Journal
from recovery.notices.channels import Channel, channels
from recovery.notices.notice import Notice
from recovery.secrecy.redaction import redact
from recovery.walk import logger
from recovery.words import LINE_CHARS_MAX, cut

WITHIN_SECONDS = 10.0
AT_ONCE_MAX = 50


@dataclass
class _Sending:
    """One notice on its way through one channel. `is_noted` is set by who notes its outcome."""

    notice: Notice
    channel: Channel
    journal: Journal | None
    is_noted: threading.Lock = field(default_factory=threading.Lock)
    thread: threading.Thread | None = None

    def send(self) -> None:
        try:
            self.channel.send(self.notice)
        except Exception as error:  # noqa: BLE001 (whatever is wrong with a channel, the recovery goes on)
            self.note(str(error) or type(error).__name__)
        else:
            self.note("")

    def note(self, error: str) -> None:
        """Write down what came of it, once."""
        if not self.is_noted.acquire(blocking=False):
            return
        seen = cut(redact(error), LINE_CHARS_MAX)
        if error:
            logger.warning("not notified by %s: %s", self.channel.block, seen)
        if self.journal is None or not self.notice.recovery_id:
            return
        body = {"channel": self.channel.block, "occasion": str(self.notice.occasion), "error": seen}
        try:
            if self.journal.head(self.notice.recovery_id)[0]:  # what was typed may be no recovery
                self.journal.append(self.notice.recovery_id, Kind.NOTIFIED, body)
        except RecoveryError as lost:
            logger.warning("what came of a notification is not noted: %s", lost)


_under_way: list[_Sending] = []
_lock = threading.Lock()


def notify(notice: Notice, journal: Journal | None = None) -> None:
    """Tell whom it concerns, and return at once. Never raises.

    Args:
        notice: what is told.
        journal: where it is noted who was told, as evidence; it must stay open until
            `wait_until_sent` has returned.
    """
    try:
        wanted = [one for one in channels() if notice.occasion in one.occasions]
    except RecoveryError as error:
        logger.warning("nobody is notified: %s", error)
        return
    for channel in wanted:
        sending = _Sending(notice, channel, journal)
        if _is_too_much():
            sending.note(f"{AT_ONCE_MAX} notices are on their way already")
            continue
        sending.thread = threading.Thread(
            target=contextvars.copy_context().run,
            args=(sending.send,),
            name=f"notify {channel.block}",
            daemon=True,  # one that hangs keeps no process from ending
        )
        sending.thread.start()
        with _lock:
            _under_way.append(sending)


def _is_too_much() -> bool:
    """Forget what has arrived; whether as much as may be is still on its way."""
    with _lock:
        _under_way[:] = [one for one in _under_way if one.thread and one.thread.is_alive()]
        return len(_under_way) >= AT_ONCE_MAX


def wait_until_sent(within_seconds: float = WITHIN_SECONDS) -> None:
    """Give what is under way until the deadline, for a process or a journal that ends now."""
    deadline = time.monotonic() + within_seconds
    while True:
        with _lock:
            if not _under_way:
                return
            sending = _under_way.pop()
        if sending.thread is not None:
            sending.thread.join(max(0.0, deadline - time.monotonic()))
        sending.note(f"no answer within {within_seconds:g} s")

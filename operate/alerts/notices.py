"""Telling people: the seam behind which mail, chat and pagers stand."""

import logging
from dataclasses import dataclass
from typing import Protocol

from recovery.secrecy.redaction import redact

logger = logging.getLogger("recovery.alerts")


@dataclass(frozen=True)
class Notice:
    """What a person is told. `severity` is that of the route, or `critical` for our own alarms."""

    subject: str
    text: str
    severity: str = "warning"


class Notifier(Protocol):
    """Whatever brings a notice to people. It must return soon, and raise nothing."""

    def tell(self, notice: Notice) -> None:
        """Bring it to them."""


class LogNotifier:
    """Writes notices to the log, for those who have no other way yet."""

    def tell(self, notice: Notice) -> None:
        """See Notifier."""
        level = logging.ERROR if notice.severity == "critical" else logging.WARNING
        logger.log(level, "%s: %s", redact(notice.subject), redact(notice.text))

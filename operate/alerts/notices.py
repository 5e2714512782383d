"""Telling people of alerts: into the log, and by whatever channels are set up for notices."""

import logging
from dataclasses import dataclass
from typing import Protocol

from recovery.notices.notice import Notice as Sent
from recovery.notices.notice import Occasion
from recovery.notices.sending import notify
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


class PeopleNotifier:
    """Writes notices to the log, and sends them by the channels of RECOVER_NOTIFICATIONS."""

    def tell(self, notice: Notice) -> None:
        """See Notifier."""
        level = logging.ERROR if notice.severity == "critical" else logging.WARNING
        logger.log(level, "%s: %s", redact(notice.subject), redact(notice.text))
        notify(Sent(Occasion.ALARM, f"{notice.subject}: {notice.text}"))

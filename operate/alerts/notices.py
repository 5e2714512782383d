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
    """What a person is told.

    Attributes:
        subject: about what.
        text: what happened.
        severity: that of the route, or `critical` for our own alarms.
        flow_run_id: the run it is about, for a link to the UI.
    """

    subject: str
    text: str
    severity: str = "warning"
    flow_run_id: str = ""


class Notifier(Protocol):
    """Whatever brings a notice to people. It must return soon, and raise nothing."""

    def tell(self, notice: Notice) -> None:
        """Bring it to them."""


class PeopleNotifier:
    """Writes notices to the log, and sends them by the channels of RECOVER_NOTIFICATIONS."""

    def tell(self, notice: Notice) -> None:
        """See Notifier."""
        level = logging.ERROR if notice.severity == "critical" else logging.WARNING
        sent = Sent(
            Occasion.ALARM, f"{notice.subject}: {notice.text}", flow_run_id=notice.flow_run_id
        )
        link = f"; see {sent.link}" if sent.link else ""
        logger.log(level, "%s: %s%s", redact(notice.subject), redact(notice.text), redact(link))
        notify(sent)

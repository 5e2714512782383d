"""Taking in what was posted: read, routed, and kept before anybody is told so."""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from operate.alerts.notices import Notice, Notifier
from operate.alerts.payload import read_payload
from operate.alerts.routes import Routes
from operate.alerts.routing import Kind, decide
from operate.alerts.store import AlertStore
from operate.alerts.watchdog import HEARD

TOLD_MAX = 5


@dataclass
class Acceptance:
    """Takes payloads in. Safe to share between threads."""

    store: AlertStore
    routes: Routes
    notifier: Notifier
    clock: Callable[[], float] = time.time
    news: Callable[[], None] = lambda: None

    def take(self, raw: bytes) -> dict[str, Any]:
        """Keep the alerts of a payload; return what is answered once they are on disk.

        Raises:
            BadInput: it cannot be read; nothing of it was kept.
            JournalUnavailable: the store cannot be written to; the sender is to try again.
        """
        now = self.clock()
        moment = datetime.fromtimestamp(now, UTC)
        payload = read_payload(raw, moment)
        read, is_heard = [], False
        for alert in payload.alerts:
            decision = decide(self.routes, alert, moment)
            if decision.kind is Kind.WATCHDOG:
                is_heard = is_heard or alert.is_firing
            else:
                read.append((alert, decision))
        if is_heard:
            self.store.beat(HEARD, now)
        states = self.store.receive(read, now) if read else []
        self.news()
        if payload.set_aside:
            told = "; ".join(payload.set_aside[:TOLD_MAX])
            subject = f"{len(payload.set_aside)} alerts could not be read"
            self.notifier.tell(Notice(subject, told))
        return {
            "accepted": len(payload.alerts),
            "set_aside": payload.set_aside[:TOLD_MAX],
            "states": dict(Counter(map(str, states))),
        }

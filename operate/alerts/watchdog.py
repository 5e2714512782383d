"""The dead-man timer: an alert that always fires, whose silence is told to people."""

from operate.alerts.notices import Notice, Notifier
from operate.alerts.routes import Watchdog
from operate.alerts.store import AlertStore

HEARD, TOLD = "watchdog", "watchdog-told"
TOLD_AGAIN_SECONDS = 3600.0  # a notice that never arrived must not be the only one


class Watch:
    """Tells when the watchdog falls silent, each hour that it stays so, and when it is back."""

    def __init__(
        self, store: AlertStore, watchdog: Watchdog | None, notifier: Notifier, now: float
    ) -> None:
        self._store, self._watchdog, self._notifier = store, watchdog, notifier
        self._began_at = now  # it may be heard for the first time only after its whole interval

    def look(self, now: float) -> None:
        """Look at the clock."""
        if self._watchdog is None:
            return
        heard_at, told_at = self._store.last_beat(HEARD), self._store.last_beat(TOLD)
        silent = now - max(heard_at, self._began_at)
        if heard_at > told_at > 0:
            self._store.beat(TOLD, 0.0)
            self._tell("the watchdog is heard again", "alerts reach this receiver", "info")
        elif silent > (after := self._watchdog.silent_after_seconds) and (
            not told_at or now - told_at >= max(after, TOLD_AGAIN_SECONDS)
        ):
            self._store.beat(TOLD, now)
            self._tell(
                "the watchdog is silent",
                f"nothing was heard of it for {silent:.0f} s: Prometheus, Alertmanager or the way "
                "from there to here is broken, and no alert would arrive. Look at these first",
                "critical",
            )

    def _tell(self, subject: str, text: str, severity: str) -> None:
        self._notifier.tell(Notice(subject, text, severity))

"""The receiver that starts the runs, as another one sees it that shares its store."""

from operate.alerts.notices import Notice, Notifier
from operate.alerts.store import AlertStore

LATE_SECONDS = 60.0
AT_WORK = "another receiver starts the runs"
IS_LATE = "another receiver is to start the runs, and has not looked at alerts that wait"


class OtherReceiver:
    """Tells people once where alerts wait for a receiver that does nothing."""

    def __init__(self, store: AlertStore, notifier: Notifier) -> None:
        self._store, self._notifier = store, notifier
        self._late_since = 0.0
        self._is_told = False
        self.stands = ""

    def look(self, now: float) -> None:
        """See whether it does what it is there for."""
        self.stands = AT_WORK
        if not self._store.is_anything_overdue(now - LATE_SECONDS):
            self._late_since, self._is_told = 0.0, False
            return
        self._late_since = self._late_since or now
        if now - self._late_since < LATE_SECONDS:
            return  # it may be about to
        self.stands = IS_LATE
        if not self._is_told:
            self._is_told = True
            text = f"{IS_LATE} for {2 * LATE_SECONDS:.0f} s. Look at it; if its machine is gone, "
            remedy = "its session ends by itself, or by pg_terminate_backend"
            self._notifier.tell(Notice("alerts wait", text + remedy, "critical"))

    def forget(self) -> None:
        """There is no other one: this receiver starts the runs."""
        self.stands, self._late_since, self._is_told = "", 0.0, False

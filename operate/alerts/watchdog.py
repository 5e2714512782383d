"""The dead-man timer: an alert that always fires, whose silence is told to people."""

from operate.alerts.notices import Notice, Notifier
from operate.alerts.routes import Watchdog
from operate.alerts.store import AlertStore

NOTES_EVERY_SECONDS = 10.0
SINCE, LOOKED = "watchdog-watched-since", "watchdog-looked"
HEARD, TOLD = "watchdog", "watchdog-told"
TOLD_AGAIN_SECONDS = 3600.0  # a notice that never arrived must not be the only one


class Watch:
    """Tells when the watchdog falls silent, each hour that it stays so, and when it is back."""

    def __init__(
        self, store: AlertStore, watchdog: Watchdog | None, notifier: Notifier, now: float
    ) -> None:
        self._store, self._watchdog, self._notifier = store, watchdog, notifier
        self._began_at = self._watched_since(now)
        self._noted_at = 0.0

    def look(self, now: float) -> None:
        """Look at the clock."""
        if self._watchdog is None:
            return
        self._note_look(now)
        heard_at, told_at = self._last(HEARD, now), self._last(TOLD, now)
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

    def _watched_since(self, now: float) -> float:
        """Since when it could have been heard, which may be only after its whole interval.

        A receiver that was away for longer than that begins anew; one that restarts again and again
        goes on, for it would never come to the end of the interval.
        """
        if self._watchdog is None:
            return now
        away = now - self._store.last_beat(LOOKED)
        since = self._store.last_beat(SINCE)
        if not 0 <= away <= self._watchdog.silent_after_seconds or not 0 < since <= now:
            since = now
            self._store.beat(SINCE, since)
        return since

    def _note_look(self, now: float) -> None:
        self._began_at = min(self._began_at, now)
        if not 0 <= now - self._noted_at < NOTES_EVERY_SECONDS:
            self._noted_at = now
            self._store.beat(LOOKED, now)

    def _last(self, name: str, now: float) -> float:
        """When something was noted last; a clock that was put back since makes that now."""
        at = self._store.last_beat(name)
        if at > now:
            at = now
            self._store.beat(name, at)
        return at

    def _tell(self, subject: str, text: str, severity: str) -> None:
        self._notifier.tell(Notice(subject, text, severity))

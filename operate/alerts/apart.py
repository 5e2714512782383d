"""One alert that meets a mistake is put off, and told of once: those after it go on."""

import logging
from collections.abc import Callable, Iterable

from operate.alerts.kept import Kept
from operate.alerts.notices import Notice, Notifier
from operate.alerts.prefect_runs import Unanswered
from operate.alerts.store import AlertStore
from recovery.errors import BadInput, Unreachable
from recovery.journal.store import JournalUnavailable
from recovery.secrecy.redaction import redact

PUT_OFF_SECONDS = 60.0
logger = logging.getLogger("recovery.alerts")


class Apart:
    """Keeps what is wrong with one alert from the others."""

    def __init__(self, store: AlertStore, notifier: Notifier, clock: Callable[[], float]) -> None:
        self._store, self._notifier, self._clock = store, notifier, clock
        self._troubled: dict[int, str] = {}

    def each_start(self, alerts: Iterable[Kept], do: Callable[[Kept], None]) -> None:
        """Do something about the start of each; one of which nothing comes waits for a minute.

        Raises:
            Unreachable: the server is away, for all of them.
            JournalUnavailable: the store is.
        """
        for kept in alerts:
            try:
                do(kept)
            except (Unreachable, JournalUnavailable) as error:
                if not isinstance(error, Unanswered):
                    raise
                self._put_off(kept, str(error), self._store.hold)  # it may have started
            except BadInput as error:
                self._put_off(kept, str(error), self._store.give_back)
            except Exception as error:  # it must not stop those after it
                logger.exception("alert %s cannot be started", kept.fingerprint)
                self._put_off(kept, _mistake(error), self._store.hold)

    def each_run(self, alerts: Iterable[Kept], do: Callable[[Kept], None]) -> None:
        """Look how far the run of each is; one of which nothing is seen is looked at again.

        Raises:
            Unreachable: the server is away, for all of them.
            JournalUnavailable: the store or the journal is.
        """
        for kept in alerts:
            try:
                do(kept)
            except (Unreachable, JournalUnavailable) as error:
                if not isinstance(error, Unanswered):
                    raise
                self._trouble(kept, str(error))
            except Exception as error:  # as above
                logger.exception("flow run %s cannot be followed", kept.flow_run_id)
                self._trouble(kept, _mistake(error))
            else:
                self._troubled.pop(kept.seq, None)

    def _put_off(self, kept: Kept, why: str, keep: Callable[[Kept, str, float], None]) -> None:
        reason = redact(why)
        keep(kept, reason, self._clock() + PUT_OFF_SECONDS)
        if kept.reason != kept.because(reason):
            self._tell(kept, f"{kept.work} cannot be started", reason)

    def _trouble(self, kept: Kept, why: str) -> None:
        reason = redact(why)
        self._store.note_run(kept.flow_run_id, kept.run_state, "", self._clock())
        if self._troubled.get(kept.seq) != reason:
            self._troubled[kept.seq] = reason
            self._tell(kept, f"the run of {kept.work} cannot be followed", reason)

    def _tell(self, kept: Kept, subject: str, reason: str) -> None:
        text = f"{reason} (route {kept.route})"
        self._notifier.tell(Notice(subject, text, kept.severity, kept.flow_run_id))


def _mistake(error: Exception) -> str:
    return f"a mistake in this program: {type(error).__name__}; see the log of the receiver"

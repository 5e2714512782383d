"""From what was accepted to flow runs, in order, and back to how they ended."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from operate.alerts.apart import Apart
from operate.alerts.following import Following
from operate.alerts.guards import AskPerson, Hold, Join, may_start
from operate.alerts.kept import Kept, State
from operate.alerts.notices import Notice, Notifier
from operate.alerts.other_receiver import OtherReceiver
from operate.alerts.prefect_runs import Runs, Submission, Unanswered
from operate.alerts.routes import Routes
from operate.alerts.routing import REMEMBERED, Kind, decide
from operate.alerts.store import AlertStore
from operate.alerts.watchdog import Watch
from recovery.errors import RecoveryError
from recovery.secrecy.redaction import redact

LOOKS_EVERY_SECONDS = 2.0
WAITS_AT_MOST_SECONDS = 30.0
TOLD_AFTER_SECONDS = 120.0  # a server that is started anew is away for less
TIDIES_EVERY_SECONDS = 3600.0
NOT_ROUTED_MAX = 20_000
PAGE = 100
logger = logging.getLogger("recovery.alerts")


@dataclass
class Dispatcher:
    """Starts runs for what waits. One pass may be repeated at any time, after any kill."""

    store: AlertStore
    routes: Routes
    runs: Runs
    notifier: Notifier
    clock: Callable[[], float] = time.time
    last_error: str = ""

    def __post_init__(self) -> None:
        """Prepare what runs between passes."""
        self.news = threading.Event()
        self._is_ended = threading.Event()
        self._watch = Watch(self.store, self.routes.watchdog, self.notifier, self.clock())
        self._apart = Apart(self.store, self.notifier, self.clock)
        self._following = Following(self.store, self.runs, self.notifier, self._apart, self.clock)
        self.other = OtherReceiver(self.store, self.notifier)
        self._waits_since = 0.0
        self._has_told = False
        self._tidied_at = 0.0
        self._is_first_pass = True

    def run(self) -> None:
        """Work until `end` is called; the server may be away for as long as it likes."""
        pause = LOOKS_EVERY_SECONDS
        while not self._is_ended.is_set():
            self.news.clear()
            self.attempt()
            if self.last_error:
                pause = min(2 * pause, WAITS_AT_MOST_SECONDS)
                self._is_ended.wait(pause)
            else:
                pause = LOOKS_EVERY_SECONDS
                self.news.wait(pause)

    def attempt(self) -> None:
        """Make one pass, whatever comes of it; people are told where passes fail for long."""
        try:
            self.work()
        except RecoveryError as error:
            if self.last_error != (told := redact(str(error))):
                logger.warning("alerts wait: %s", told)
            self.last_error = told
        except Exception as error:  # a mistake in one pass must not end the passes
            self.last_error = f"a mistake in this program: {type(error).__name__}"
            logger.exception("alerts wait for a mistake in this program")
        else:
            self.last_error = ""
        self._tell_of_passes()

    def _tell_of_passes(self) -> None:
        now = self.clock()
        if not self.last_error:
            self._waits_since = 0.0
            if self._has_told:
                self.notifier.tell(Notice("alerts wait no more", "they are seen to again", "info"))
            self._has_told = False
            return
        self._waits_since = self._waits_since or now
        if not self._has_told and now - self._waits_since >= TOLD_AFTER_SECONDS:
            self._has_told = True
            text = f"they are kept, and nothing is started or called off: {self.last_error}"
            self.notifier.tell(Notice("alerts wait", text, "critical"))

    def end(self) -> None:
        """Let `run` return after its present pass."""
        self._is_ended.set()
        self.news.set()

    def work(self) -> None:
        """Make one pass.

        Raises:
            Unreachable: the server is away; what was not done is done by a later pass.
            JournalUnavailable: the store or the journal is.
        """
        if not self.store.is_alone():  # another receiver starts the runs, and is taken over from
            self.other.look(self.clock())
            return
        self.other.forget()
        if self._is_first_pass:  # the file of routes may have changed since it was weighed
            self.store.weigh_anew()
            self._is_first_pass = False
        self._watch.look(self.clock())
        unanswered, follow = None, self._following
        for part in (self._settle_reserved, follow.see_again, follow.follow, self._start_due):
            try:
                part()
            except Unanswered as error:  # of many runs at once; the other parts ask for others
                unanswered = error
        self._tidy()
        if unanswered is not None:
            raise unanswered

    def _settle_reserved(self) -> None:
        """Ask the server what came of runs whose start nobody has confirmed."""
        after = 0
        while page := self.store.reserved(self.clock(), after, PAGE):
            self._apart.each_start(page, self._settle)
            after = page[-1].seq

    def _settle(self, kept: Kept) -> None:
        if found := self.runs.find(kept.idempotency_key):
            self.store.confirm(kept, found, self.clock())
        elif kept.is_firing:
            self._submit(kept)
        else:
            reason = "it was resolved before anything was started"
            self.store.settle(kept, State.CANCELLED, reason)

    def _start_due(self) -> None:
        after = 0
        while page := self.store.due(self.clock(), after, PAGE):
            self._apart.each_start(page, self._consider)
            after = page[-1].seq

    def _consider(self, kept: Kept) -> None:
        """Start, hold, join or leave to a person one alert that waits."""
        now = self.clock()
        decision = decide(self.routes, kept.alert, datetime.fromtimestamp(now, UTC))
        if decision.kind is not Kind.RUN or decision.route is None:
            self.store.leave(kept, State.NOT_ROUTED, decision.reason)
            return
        work = decision.work
        verdict = may_start(self.store, self.routes, decision, kept, now)
        if isinstance(verdict, Hold):
            self.store.hold(kept, verdict.reason, verdict.until)
            is_new = kept.reason.partition(":")[0] != verdict.reason.partition(":")[0]
            if verdict.tells and is_new:
                self._tell(kept, f"{work} waits", verdict.reason)
        elif isinstance(verdict, Join):
            self.store.join(kept, verdict.leader)
        elif isinstance(verdict, AskPerson):
            remedy = f"Look why, then `recover alerts release {kept.fingerprint} --by NAME`"
            if self.store.leave(kept, State.NEEDS_PERSON, verdict.reason):
                self._tell(kept, f"{work} is left to a person", f"{verdict.reason}. {remedy}")
        else:
            deployment = self.runs.deployment_of(decision.route.flow, decision.route.deployment)
            if self.store.reserve(kept, deployment, decision, now) and (
                reserved := self.store.find(kept.fingerprint, kept.starts_at)
            ):
                self._submit(reserved)

    def _submit(self, kept: Kept) -> None:
        severity, target = kept.severity, kept.work.partition("/")[2]
        tags = ["alert", f"route:{kept.route}", f"target:{target}", f"severity:{severity}"]
        tags += [f"released-by:{kept.released_by}"] if kept.released_by else []
        submission = Submission(
            kept.idempotency_key, kept.flow, kept.deployment, kept.parameters, tags
        )
        run_id = self.runs.start(submission)
        self.store.confirm(kept, run_id, self.clock())
        released = f", released by {kept.released_by}" if kept.released_by else ""
        logger.info(
            "%s: flow run %s started by route %s%s", kept.work, run_id, kept.route, released
        )

    def _tell(self, kept: Kept, subject: str, text: str) -> None:
        told = f"{text} (route {kept.route})"
        self.notifier.tell(Notice(subject, told, kept.severity, kept.flow_run_id))

    def _tidy(self) -> None:
        now = self.clock()
        if now - self._tidied_at > TIDIES_EVERY_SECONDS:
            self._tidied_at = now
            self.store.forget(now - REMEMBERED.total_seconds(), NOT_ROUTED_MAX)

"""From what was accepted to flow runs, in order, and back to how they ended."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from operate.alerts.apart import Apart
from operate.alerts.calling_off import is_called_off
from operate.alerts.guards import AskPerson, Hold, Join, may_start
from operate.alerts.kept import NEITHER, WELL, Kept, State
from operate.alerts.notices import Notice, Notifier
from operate.alerts.prefect_runs import Runs, Standing, Submission, Unanswered
from operate.alerts.routes import Routes
from operate.alerts.routing import REMEMBERED, REQUESTER, Kind, decide
from operate.alerts.store import AlertStore
from operate.alerts.watchdog import Watch
from recovery.errors import RecoveryError
from recovery.run import recovery_id_of
from recovery.secrecy.redaction import redact

LOOKS_EVERY_SECONDS = 2.0
WAITS_AT_MOST_SECONDS = 30.0
TOLD_AFTER_SECONDS = 120.0  # a server that is started anew is away for less
TIDIES_EVERY_SECONDS = 3600.0
SEES_AGAIN_SECONDS = 30.0
BEGUN_AGAIN_MAX = 7 * 86_400.0  # a run that ended longer ago, s, is not looked at again
CANCELS = ("CANCELLING", "CANCELLED")
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
        self._waits_since = 0.0
        self._has_told = False
        self._tidied_at = self._seen_again_at = 0.0
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
        if not self.store.is_alone():
            return  # another receiver starts the runs; this one takes over when it ends
        if self._is_first_pass:  # the file of routes may have changed since it was weighed
            self.store.weigh_anew()
            self._is_first_pass = False
        self._watch.look(self.clock())
        unanswered = None
        for part in (self._settle_reserved, self._see_again, self._follow, self._start_due):
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
            self.store.settle(kept, State.NOT_ROUTED, decision.reason)
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
            self.store.settle(kept, State.NEEDS_PERSON, verdict.reason)
            remedy = f"Look why, then `recover alerts release {kept.fingerprint} --by NAME`"
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
        submission = Submission(
            kept.idempotency_key, kept.flow, kept.deployment, kept.parameters, tags
        )
        run_id = self.runs.start(submission)
        self.store.confirm(kept, run_id, self.clock())
        logger.info("%s: flow run %s started by route %s", kept.work, run_id, kept.route)

    def _follow(self) -> None:
        """See how far runs are, and call off those whose alerts are all resolved."""
        running = self.store.running()
        if not running:
            return
        standings = self.runs.standings([kept.flow_run_id for kept in running])
        gone = Standing("", "Deleted", is_final=True)
        self._apart.each_run(
            running, lambda kept: self._follow_one(kept, standings.get(kept.flow_run_id, gone))
        )

    def _follow_one(self, kept: Kept, standing: Standing) -> None:
        is_wanted = standing.is_final or self._is_wanted(kept)
        if is_wanted or not is_called_off(kept, standing):
            self._note(kept, standing)
            return
        who = kept.parameters.get(REQUESTER) or "its alert"
        why = f"{who} was resolved before anything was done; *Retry* asks anew"
        self.runs.cancel(kept.flow_run_id, why)
        reason = "it was resolved before its run had acted: cancelled"
        self.store.call_off(kept.flow_run_id, reason)
        logger.info("flow run %s was cancelled: %s", kept.flow_run_id, reason)

    def _is_wanted(self, kept: Kept) -> bool:
        if kept.ended_at:
            return True  # a person has begun it again: that is no longer up to the alert
        return any(one.is_firing for one in self.store.alerts_of(kept.flow_run_id))

    def _see_again(self) -> None:
        """Follow the runs once more that had ended and were begun again, as by *Retry*."""
        now = self.clock()
        if now - self._seen_again_at < SEES_AGAIN_SECONDS:
            return
        self._seen_again_at = now
        ended = {kept.flow_run_id: kept for kept in self.store.ended_unwell(now - BEGUN_AGAIN_MAX)}
        standings = self.runs.standings(list(ended)) if ended else {}
        for flow_run_id, standing in standings.items():
            if not _is_as_known(ended[flow_run_id], standing):
                self.store.take_up(flow_run_id, "somebody began its run again", now)

    def _note(self, kept: Kept, standing: Standing) -> None:
        outcome = standing.name if standing.is_final else ""
        self.store.note_run(kept.flow_run_id, standing.type, outcome, self.clock())
        if outcome and outcome not in (*WELL, *NEITHER):
            text = f"flow run {kept.flow_run_id} ended as {outcome}; `recover status` says more"
            self._tell(kept, f"{kept.work}: {outcome}", text)
        elif standing.type == "PAUSED" and kept.run_state != "PAUSED":
            text = (
                f"flow run {kept.flow_run_id} waits for an answer in the Prefect UI, or by "
                f"`recover approve {recovery_id_of(kept.flow_run_id)}`"
            )
            self._tell(kept, f"{kept.work} asks a person", text)

    def _tell(self, kept: Kept, subject: str, text: str) -> None:
        told = f"{text} (route {kept.route})"
        self.notifier.tell(Notice(subject, told, kept.severity, kept.flow_run_id))

    def _tidy(self) -> None:
        now = self.clock()
        if now - self._tidied_at > TIDIES_EVERY_SECONDS:
            self._tidied_at = now
            self.store.forget(now - REMEMBERED.total_seconds(), NOT_ROUTED_MAX)


def _is_as_known(kept: Kept, standing: Standing) -> bool:
    if kept.state is State.CANCELLED:
        return standing.type in CANCELS
    return standing.is_final and standing.name == kept.outcome

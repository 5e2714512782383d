"""One look of the orphan watch after the other: at the journal first, then at the Prefect server.

The journal says which attempts are orphans; the server shows runs and starts new ones. What must
not happen twice is kept apart from this process: the server makes one run for each orphan, by its
key, and the lease lets one attempt act. So any number of watches may run, and any of them may die.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from prefect.states import Cancelled

from operate.orphans.attempts import (
    AttemptReader,
    KnownAttempt,
    Orphan,
    has_ended,
    is_first,
    newest_by_run,
)
from operate.orphans.care import Care, seconds_since
from operate.orphans.left_tasks import LeftTasks
from operate.orphans.mending import Shown, due_state
from operate.orphans.pace import Pace
from operate.orphans.proof import is_to_be_told_again
from operate.orphans.ruling import What
from operate.orphans.runs import Runs, SeenRun, Server
from operate.orphans.sightings import Sightings
from operate.orphans.telling import Notify, Teller, log_it
from operate.orphans.waiting import waiting_since
from operate.orphans.wording import prefix_of
from operate.server import api_url
from recovery.errors import Unreachable
from recovery.journal.events import Kind
from recovery.journal.history import LOST
from recovery.journal.opening import open_journal
from recovery.journal.store import Journal, JournalUnavailable
from recovery.notices.notice import Occasion
from recovery.run import Recovery

JOURNAL, SERVER = ("journal",), ("server",)


@dataclass
class Look:
    """What one look has seen and done, as `recover watch --json` prints it."""

    journal: str = ""
    journal_error: str = ""
    server: str = ""
    server_error: str = ""
    orphans: list[dict[str, Any]] = field(default_factory=list)
    mended: list[dict[str, Any]] = field(default_factory=list)
    waiting: list[dict[str, Any]] = field(default_factory=list)
    unanswered: list[dict[str, Any]] = field(default_factory=list)

    @property
    def needs_person(self) -> bool:
        """Whether an orphan waits for a person."""
        return any(row["what"] == What.PERSON for row in self.orphans)

    @property
    def is_news(self) -> bool:
        """Whether there is anything to print of it; who only waits is not."""
        found = self.orphans or self.mended or self.unanswered
        return bool(found or self.journal_error or self.server_error)


@dataclass
class Watch:
    """Looks again and again; remembers only for how long it has seen things as they are.

    Attributes:
        recoveries: those of this release, by name.
        pace: how long things take.
        notify: who is told.
        is_single: one look is all there is, so times are taken from the clocks of others.
    """

    recoveries: Mapping[str, Recovery]
    pace: Pace = field(default_factory=Pace)
    notify: Notify = log_it
    is_single: bool = False
    _journal: Journal | None = None
    _server: Server = field(default_factory=Server)
    _attempts: AttemptReader = field(default_factory=AttemptReader)
    _sightings: Sightings = field(default_factory=Sightings)
    _left_tasks: LeftTasks = field(default_factory=LeftTasks)
    _right: set[tuple[str, int]] = field(default_factory=set)

    def __post_init__(self) -> None:
        """Begin with nothing told."""
        self.teller = Teller(self.notify)
        self._care = Care(self.recoveries, self.pace, self.teller)

    def look(self) -> Look:
        """Look once, and do what is due; who does not answer is named in what is returned."""
        look = Look(server=api_url())
        try:
            journal = self._opened()
            look.journal = journal.url
            attempts, orphans = self._attempts.read(journal)
        except JournalUnavailable as error:
            self._forget_journal()
            look.journal, look.journal_error = error.journal, error.seen
            text = f"{error.journal}: the journal does not answer: {error.seen}"
            self.teller.tell(JOURNAL, f"{text}; no orphan is seen until it does", {})
            return look
        if self.teller.has_passed(JOURNAL):
            self.teller.tell((*JOURNAL, time.monotonic()), f"{journal.url}: it answers again", {})
        try:
            self._act(journal, attempts, orphans, look)
            self._tell_unanswered(journal, look)
        except JournalUnavailable as error:  # only after it was read: the next look tells of it
            self._forget_journal()
            look.journal_error = error.seen
        return look

    def close(self) -> None:
        """Close the journal and the connection to the server."""
        self._forget_journal()
        self._server.close()

    def _opened(self) -> Journal:
        if self._journal is None:
            self._journal = open_journal()
        return self._journal

    def _forget_journal(self) -> None:
        if self._journal is not None:
            self._journal.close()
            self._journal = None

    def _act(
        self, journal: Journal, attempts: list[KnownAttempt], orphans: list[Orphan], look: Look
    ) -> None:
        if look.server:
            try:
                with self._server.asked() as asked:
                    self._act_with_server(journal, asked, attempts, orphans, look)
            except Unreachable as error:
                look.server_error = error.seen
                self._tell_away(look)
        seen = {(row["recovery"], row["attempt"]) for row in look.orphans}
        for orphan in orphans:
            if orphan.key not in seen:
                look.orphans.append(self._care.see_to(journal, orphan, None, None))

    def _tell_unanswered(self, journal: Journal, look: Look) -> None:
        for question in self._attempts.unanswered():
            row = question.as_row()
            if question.written_at:
                if is_to_be_told_again(question.written_at, Occasion.FAILED):
                    self.teller.tell(("unanswered", question.key), question.text, row)
                continue
            event = journal.append(question.recovery_id, Kind.UNANSWERED, question.body)
            look.unanswered.append(dict(row))
            if is_first(journal, event):
                self.teller.tell(("unanswered", question.key), question.text, row)

    def _tell_away(self, look: Look) -> None:
        if self._sightings.seconds(SERVER) < self.pace.away:
            return  # it may only be busy
        text = f"{look.server}: the Prefect server does not answer: {look.server_error}"
        self.teller.tell(SERVER, f"{text}; orphans are told from the journal alone", {})

    def _act_with_server(
        self,
        journal: Journal,
        asked: Runs,
        attempts: list[KnownAttempt],
        orphans: list[Orphan],
        look: Look,
    ) -> None:
        by_key = {orphan.key: orphan for orphan in orphans}
        runs = self._project(asked, attempts, by_key, look)
        self._sightings.forget(SERVER)
        if self.teller.has_passed(SERVER):
            text = f"{look.server}: the Prefect server answers again"
            self.teller.tell((*SERVER, time.monotonic()), text, {})
        for orphan in orphans:
            run = runs.get(orphan.flow_run_id)
            look.orphans.append(self._care.see_to(journal, orphan, asked, run))
        self._call_off_overtaken(asked, attempts, look)
        newest = newest_by_run(attempts)
        self._see_to_waiting(asked, newest, look)
        lost = {n.flow_run_id for n in newest.values() if n.ended_as == LOST or n.key in by_key}
        self._left_tasks.end(asked, [run for run_id, run in runs.items() if run_id in lost])

    def _project(
        self,
        asked: Runs,
        attempts: list[KnownAttempt],
        orphans: Mapping[tuple[str, int], Orphan],
        look: Look,
    ) -> dict[str, SeenRun]:
        """Have the server show runs as the journal says they are; return those it has."""
        newest = newest_by_run(attempts)
        self._right &= {attempt.key for attempt in attempts}
        unsettled = {
            run_id: attempt for run_id, attempt in newest.items() if attempt.key not in self._right
        }
        runs = asked.of(unsettled)
        for run_id, attempt in unsettled.items():
            orphan = orphans.get(attempt.key)
            run = runs.get(run_id)
            if run is None:
                self._settle(attempt)
                continue
            seconds = self._seconds_wrong(run, attempt)
            state = due_state(Shown(run, attempt, orphan, seconds), self.pace)
            if state is not None:
                asked.show(run_id, state)
                runs[run_id] = asked.of([run_id]).get(run_id, run)
                self._note_mended(attempt, run, state.name or str(state.type), look)
            elif run.is_final:
                self._settle(attempt)
        return runs

    def _settle(self, attempt: KnownAttempt) -> None:
        if attempt.ended_as:
            self._right.add(attempt.key)

    def _note_mended(self, attempt: KnownAttempt, run: SeenRun, name: str, look: Look) -> None:
        row = {
            "recovery": attempt.recovery_id,
            "attempt": attempt.n,
            "run": run.run_id,
            "was": run.state_name,
            "is": name,
        }
        look.mended.append(row)
        if not attempt.ended_as:
            return  # an orphan, which is told of by itself, or called off, which the receiver tells
        text = (
            f"{prefix_of(attempt.recovery_id)}attempt {attempt.n} has ended, and its run "
            f"{run.run_id} was shown as {run.state_name}: it is shown as {name} now"
        )
        facts = {**row, "occasion": Occasion.ALARM}  # nothing is lost
        self.teller.tell(("mended", run.run_id, run.state_id), text, facts)

    def _call_off_overtaken(self, asked: Runs, attempts: list[KnownAttempt], look: Look) -> None:
        """Cancel runs that were made to resume an attempt after which there was another one.

        Whoever made that one has the target in hand; a worker that comes back must not go on.
        """
        latest: dict[str, int] = {}
        begun = {attempt.flow_run_id for attempt in attempts}
        for attempt in attempts:
            latest[attempt.recovery_id] = max(latest.get(attempt.recovery_id, 0), attempt.n)
        for run in asked.unfinished(self.recoveries):
            if run.is_begun or run.resumes is None or run.run_id in begun:
                continue  # in `begun`: it has had its attempt, and a person retries it
            recovery_id, lost = run.resumes
            if latest.get(recovery_id, 0) <= lost:
                continue
            why = f"{prefix_of(recovery_id)}a later attempt than {lost} has begun"
            asked.show(run.run_id, Cancelled(message=f"{why}: nothing is left to resume"))
            look.mended.append(
                {
                    "recovery": recovery_id,
                    "attempt": lost,
                    "run": run.run_id,
                    "was": run.state_name,
                    "is": "Cancelled",
                }
            )

    def _see_to_waiting(self, asked: Runs, newest: Mapping[str, KnownAttempt], look: Look) -> None:
        """Tell of runs that nobody takes, that do not begin, and that nobody ends."""
        for run in asked.unfinished(self.recoveries):
            waiting = waiting_since(run, newest.get(run.run_id), self._seconds_in(run), self.pace)
            if waiting is None:
                continue
            if waiting.state is not None:
                asked.show(run.run_id, waiting.state)
            row = {"run": run.run_id, "is": run.state_name, "why": waiting.why}
            look.waiting.append(row)
            topic = ("waiting", run.run_id, run.state_id, waiting.kind)
            self.teller.tell(topic, f"run {run.run_id}: {waiting.why}", row)

    def _seconds_wrong(self, run: SeenRun, attempt: KnownAttempt) -> float:
        """For how long its process could have told the server of what the run is in now."""
        seconds = self._seconds_in(run)
        if not has_ended(attempt):
            return seconds
        since = self._sightings.seconds(("ended", *attempt.key))
        if self.is_single:
            since = seconds_since(attempt.ended_at)
        return min(seconds, since)

    def _seconds_in(self, run: SeenRun) -> float:
        """For how long a run has been seen in the state it is in, since it was due."""
        seen = self._sightings.seconds(("run", run.run_id, run.state_id)) if run.is_due else 0.0
        return max(seen, run.seconds_by_server) if self.is_single else seen

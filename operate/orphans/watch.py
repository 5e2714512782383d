"""One look of the orphan watch after the other: at the journal first, then at the Prefect server.

The journal says which attempts are orphans; the server shows runs and starts new ones. What must
not happen twice is kept apart from this process: the server makes one run for each orphan, by its
key, and the lease lets one attempt act. So any number of watches may run, and any of them may die.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from operate.orphans.attempts import (
    AttemptReader,
    KnownAttempt,
    Orphan,
    has_later_attempt,
    is_first,
    newest_by_run,
)
from operate.orphans.mending import Shown, due_state
from operate.orphans.pace import Pace
from operate.orphans.ruling import Case, Ruling, What, rule
from operate.orphans.runs import Runs, SeenRun, Server
from operate.orphans.telling import Notify, Teller, log_it
from operate.orphans.waiting import waiting_since
from operate.orphans.wording import how_to_resume, prefix_of, what_is_known, what_is_next
from operate.server import api_url
from recovery.errors import BadInput, Unreachable
from recovery.journal.events import Kind
from recovery.journal.lease import this_worker
from recovery.journal.opening import open_journal
from recovery.journal.store import Journal, JournalUnavailable
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

    @property
    def needs_person(self) -> bool:
        """Whether an orphan waits for a person."""
        return any(row["what"] == What.PERSON for row in self.orphans)


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
    _since: dict[tuple[object, ...], float] = field(default_factory=dict)
    _right: set[tuple[str, int]] = field(default_factory=set)
    _ruled: dict[tuple[str, int], What] = field(default_factory=dict)
    _mine: set[tuple[str, int]] = field(default_factory=set)

    def __post_init__(self) -> None:
        """Begin with nothing told."""
        self.teller = Teller(self.notify)

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
                if self._seconds_seen(SERVER) >= self.pace.away:  # one that is busy is not away
                    text = f"{look.server}: the Prefect server does not answer: {error.seen}"
                    self.teller.tell(SERVER, f"{text}; orphans are told from the journal alone", {})
        seen = {(row["recovery"], row["attempt"]) for row in look.orphans}
        for orphan in orphans:
            if orphan.key not in seen:
                self._see_to(journal, orphan, None, {}, look)

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
        self._since.pop(SERVER, None)
        if self.teller.has_passed(SERVER):
            text = f"{look.server}: the Prefect server answers again"
            self.teller.tell((*SERVER, time.monotonic()), text, {})
        for orphan in orphans:
            self._see_to(journal, orphan, asked, runs, look)
        self._see_to_waiting(asked, newest_by_run(attempts), look)

    def _project(
        self,
        asked: Runs,
        attempts: list[KnownAttempt],
        orphans: Mapping[tuple[str, int], Orphan],
        look: Look,
    ) -> dict[str, SeenRun]:
        """Have the server show runs as the journal says they are; return those it has."""
        newest = newest_by_run(attempts)
        unsettled = {
            run_id: attempt
            for run_id, attempt in newest.items()
            if (attempt.recovery_id, attempt.n) not in self._right
        }
        runs = asked.of(unsettled)
        for run_id, attempt in unsettled.items():
            orphan = orphans.get((attempt.recovery_id, attempt.n))
            run = runs.get(run_id)
            if run is None:
                self._settle(attempt)
                continue
            seconds = self._seconds_in(run)
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
            self._right.add((attempt.recovery_id, attempt.n))

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
            return  # an orphan, which is told of by itself
        text = f"{prefix_of(attempt.recovery_id)}run {run.run_id} was {run.state_name}, is {name}"
        self.teller.tell(("mended", run.run_id, run.state_id), text, row)

    def _see_to(
        self,
        journal: Journal,
        orphan: Orphan,
        asked: Runs | None,
        runs: Mapping[str, SeenRun],
        look: Look,
    ) -> None:
        run = runs.get(orphan.flow_run_id)
        ruling, new_run = self._ruling(journal, orphan, asked, run)
        row = _row(orphan, ruling, new_run)
        known, following = what_is_known(orphan), what_is_next(orphan, ruling)
        text = f"{prefix_of(orphan.recovery_id)}{known}. {following}"
        if not orphan.found_at:
            body = {
                "attempt": orphan.n,
                "worker": orphan.worker,
                "in_doubt": list(orphan.in_doubt),
                "by": f"orphan watch {this_worker()}",
            }
            event = journal.append(orphan.recovery_id, Kind.ORPHANED, body)
            is_news = is_first(journal, orphan, event)
        else:
            is_news = self._ruled.get(orphan.key, ruling.what) is not ruling.what
            is_news = is_news and ruling.what is not What.WAIT
        self._ruled[orphan.key] = ruling.what
        if is_news:
            self.teller.tell(("orphan", *orphan.key, ruling.what, ruling.why), text, row)
        look.orphans.append(row)

    def _ruling(
        self, journal: Journal, orphan: Orphan, asked: Runs | None, run: SeenRun | None
    ) -> tuple[Ruling, str]:
        """Rule on an orphan, and resume it where that is the ruling; return also its new run."""
        if orphan.n in orphan.ordered:
            self._leave_to_others(orphan)
            return _ordered(journal, orphan, asked, run)
        case = Case(
            orphan=orphan,
            declared=self.recoveries.get(orphan.flow),
            run=run,
            is_server_known=asked is not None or not api_url(),
            age=self._age_of(orphan),
            heard_ago=_seconds_since(orphan.last_heard_at),
        )
        ruling = rule(case, self.pace)
        if ruling.what is not What.RESUME or asked is None or run is None:
            return ruling, ""
        body = {
            "attempt": orphan.n,
            "by": f"orphan watch {this_worker()}",
            "because": ruling.why,
            "flow_run_id": orphan.flow_run_id,
        }
        event = journal.append(orphan.recovery_id, Kind.RESUME_ORDERED, body)
        if is_first(journal, orphan, event):
            self._mine.add(orphan.key)
        self._leave_to_others(orphan)
        return _ordered(journal, orphan, asked, run)

    def _leave_to_others(self, orphan: Orphan) -> None:
        """Do not tell that it is resumed where another watch ordered that, and hence tells."""
        if orphan.key not in self._mine and self._ruled.get(orphan.key) is What.WAIT:
            self._ruled[orphan.key] = What.RESUME

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

    def _seconds_in(self, run: SeenRun) -> float:
        """For how long a run has been seen in the state it is in, since it was due."""
        seen = self._seconds_seen(("run", run.run_id, run.state_id)) if run.is_due else 0.0
        return max(seen, run.seconds_by_server) if self.is_single else seen

    def _age_of(self, orphan: Orphan) -> float:
        seen = self._seconds_seen(("orphan", *orphan.key))
        return max(seen, _seconds_since(orphan.found_at) if orphan.found_at else 0.0)

    def _seconds_seen(self, key: tuple[object, ...]) -> float:
        now = time.monotonic()
        return now - self._since.setdefault(key, now)


def _ordered(
    journal: Journal, orphan: Orphan, asked: Runs | None, run: SeenRun | None
) -> tuple[Ruling, str]:
    """Have the run that resumes it, made now or before, and see whether it may still begin."""
    if asked is None:
        return Ruling(What.WAIT, "the Prefect server, which runs it, does not answer"), ""
    if run is None or not run.deployment_id:
        return Ruling(What.PERSON, "its run is no longer known to the Prefect server"), ""
    try:
        new_run = asked.resume(orphan, run.deployment_id)
    except BadInput as error:
        return Ruling(What.PERSON, f"no run could be started: {error}"), ""
    if new_run.is_final and not has_later_attempt(journal, orphan):
        why = f"run {new_run.run_id}, which was to resume it, ended as {new_run.state_name}"
        return Ruling(What.PERSON, why), new_run.run_id
    return Ruling(What.RESUME, f"run {new_run.run_id} of a worker does that"), new_run.run_id


def _row(orphan: Orphan, ruling: Ruling, new_run: str) -> dict[str, Any]:
    return {
        "recovery": orphan.recovery_id,
        "flow": orphan.flow,
        "target": orphan.target,
        "attempt": orphan.n,
        "run": orphan.flow_run_id,
        "worker": orphan.worker,
        "last_heard_at": orphan.last_heard_at,
        "was_in": orphan.was_in,
        "in_doubt": list(orphan.in_doubt),
        "what": str(ruling.what),
        "why": ruling.why,
        "resumed_by": new_run,
        "next": how_to_resume(orphan) if ruling.what is What.PERSON else "",
    }


def _seconds_since(at: str) -> float:
    if not at:
        return 0.0
    return (datetime.now(UTC) - datetime.fromisoformat(at)).total_seconds()

"""What is done about one orphan: it is written down, ruled on, told of, and resumed where it may.

All of it is in the journal before it is done, so that another watch, or this one after a restart,
does not do it again; the server makes one run for each orphan in any case.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from operate.orphans.attempts import Orphan, has_later_attempt, is_first
from operate.orphans.pace import Pace
from operate.orphans.proof import is_to_be_told_again
from operate.orphans.ruling import Case, Ruling, What, rule
from operate.orphans.runs import Runs, SeenRun
from operate.orphans.sightings import Sightings
from operate.orphans.telling import Teller
from operate.orphans.wording import how_to_resume, prefix_of, what_is_known, what_is_next
from operate.server import api_url
from recovery.errors import BadInput
from recovery.journal.events import Kind
from recovery.journal.lease import this_worker
from recovery.journal.store import Journal
from recovery.notices.notice import Occasion
from recovery.run import Recovery


class Care:
    """Sees to orphans, and remembers how it ruled on each, to tell only what is new."""

    def __init__(self, recoveries: Mapping[str, Recovery], pace: Pace, teller: Teller) -> None:
        self._recoveries, self._pace, self._teller = recoveries, pace, teller
        self._sightings = Sightings()
        self._ruled: dict[tuple[str, int], What] = {}
        self._mine: set[tuple[str, int]] = set()
        self._told: set[tuple[str, int]] = set()

    def see_to(
        self, journal: Journal, orphan: Orphan, asked: Runs | None, run: SeenRun | None
    ) -> dict[str, Any]:
        """See to one orphan; return what was seen and done, for people and programs.

        Args:
            journal: where it is written down.
            orphan: which one.
            asked: the Prefect server, where it answers.
            run: the orphan's run, where the server has it.

        Raises:
            JournalUnavailable: it could not be written down; nothing was done.
            Unreachable: the server does not answer any more.
        """
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
            is_news = is_first(journal, event)
        else:
            is_news = self._ruled.get(orphan.key, ruling.what) is not ruling.what
            is_news = is_news and ruling.what is not What.WAIT
            is_untold = orphan.key not in self._told and not orphan.is_told
            if is_untold and is_to_be_told_again(orphan.found_at, Occasion.LOST):
                is_news = True
        self._ruled[orphan.key] = ruling.what
        if is_news:
            self._told.add(orphan.key)
            self._teller.tell(("orphan", *orphan.key, ruling.what, ruling.why), text, row)
        return row

    def _ruling(
        self, journal: Journal, orphan: Orphan, asked: Runs | None, run: SeenRun | None
    ) -> tuple[Ruling, str]:
        """Rule on an orphan, and resume it where that is the ruling; return also its new run."""
        if orphan.n in orphan.ordered:
            self._leave_to_others(orphan)
            return _ordered(journal, orphan, asked, run)
        case = Case(
            orphan=orphan,
            declared=self._recoveries.get(orphan.flow),
            run=run,
            is_server_known=asked is not None or not api_url(),
            age=self._age_of(orphan),
            heard_ago=seconds_since(orphan.last_heard_at),
        )
        ruling = rule(case, self._pace)
        if ruling.what is not What.RESUME or asked is None or run is None:
            return ruling, ""
        body = {
            "attempt": orphan.n,
            "by": f"orphan watch {this_worker()}",
            "because": ruling.why,
            "flow_run_id": orphan.flow_run_id,
        }
        event = journal.append(orphan.recovery_id, Kind.RESUME_ORDERED, body)
        if is_first(journal, event):
            self._mine.add(orphan.key)
        self._leave_to_others(orphan)
        return _ordered(journal, orphan, asked, run)

    def _leave_to_others(self, orphan: Orphan) -> None:
        """Do not tell that it is resumed where another watch ordered that, and hence tells."""
        if orphan.key not in self._mine and self._ruled.get(orphan.key) is What.WAIT:
            self._ruled[orphan.key] = What.RESUME

    def _age_of(self, orphan: Orphan) -> float:
        seen = self._sightings.seconds(orphan.key)
        return max(seen, seconds_since(orphan.found_at) if orphan.found_at else 0.0)


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


def seconds_since(at: str) -> float:
    """How long ago a moment of the journal was, by this machine's clock; 0 where there is none."""
    if not at:
        return 0.0
    return (datetime.now(UTC) - datetime.fromisoformat(at)).total_seconds()

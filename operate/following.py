"""Telling of a run by the journal it writes: for runs that another process carries out."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from operate.progress import Progress
from recovery.errors import RecoveryError
from recovery.journal.events import Event, Kind
from recovery.journal.history import StepState, read_history
from recovery.journal.opening import open_journal
from recovery.journal.store import Journal

LOOKS_EVERY_SECONDS = 0.5
HOW = {
    "acted": "Done",
    "already-so": "Already so",
    "reconciled": "Reconciled",
    "reused": "Reused",
}
ENDS = {
    Kind.PASSED: "Passed",
    Kind.REFUSED: "Refused",
    Kind.VERIFIED: "Verified",
    Kind.DECIDED: "Decided",
    Kind.FAILED: "Failed",
    Kind.STALE: "No longer so",
    Kind.UNDONE: "Undone",
    Kind.UNDO_FAILED: "Failed",
}


class Follower:
    """Reads what is new in a recovery's journal and tells of it.

    Args:
        journal: where it is written.
        progress: who tells.
        after_seq: the last event that is known already.
    """

    def __init__(self, journal: Journal, progress: Progress, after_seq: int = 0) -> None:
        self._journal = journal
        self._progress = progress
        self._seq = after_seq
        self._began: dict[str, datetime] = {}

    def look(self) -> None:
        """Tell of the events that came since the last look."""
        recovery_id = self._progress.recovery_id
        if not recovery_id or self._journal.head(recovery_id)[0] <= self._seq:
            return
        events = self._journal.events(recovery_id)
        for event in events:
            if event.seq > self._seq:
                if event.kind == Kind.ATTEMPT_STARTED:
                    self._tell_restored([each for each in events if each.seq < event.seq], event)
                self._tell(event)
                self._seq = event.seq

    def _tell_restored(self, before: list[Event], started: Event) -> None:
        history = read_history(before)
        if history is None or started.body.get("goes") == "back":
            return
        for step in history.steps.values():
            if step.is_done and step.state is not StepState.UNDONE:
                self._progress.ended(step.key, "Restored", 0.0)

    def _tell(self, event: Event) -> None:
        if event.kind in {Kind.INTENDED, Kind.UNDO_INTENDED}:
            self._began[event.step] = event.moment
            self._progress.began(event.step)
        elif event.kind == Kind.DONE:
            shown_as = HOW.get(event.body.get("how", ""), "Done")
            self._progress.ended(event.step, shown_as, self._seconds(event))
        elif event.kind in ENDS:
            self._progress.ended(event.step, ENDS[Kind(event.kind)], self._seconds(event))
        elif event.kind == Kind.APPROVED:
            body = event.body
            self._progress.note(f"plan {body.get('hash', '')} approved by {body.get('by', '')}")
        elif event.kind == Kind.DISREGARDED:
            self._progress.note(f"disregarded: {event.body.get('why', '')}", "yellow")

    def _seconds(self, event: Event) -> float:
        began = self._began.pop(event.step, None)
        if began is None:
            began = datetime.fromisoformat(event.body.get("started_at") or event.at)
        return max(0.0, (event.moment - began).total_seconds())


@contextmanager
def followed(progress: Progress, after_seq: int = 0) -> Iterator[None]:
    """Tell of a recovery that this very process runs, from a thread, until the block ends."""
    is_over = threading.Event()

    def follow() -> None:
        journal = open_journal()
        try:
            follower = Follower(journal, progress, after_seq)
            while not is_over.wait(LOOKS_EVERY_SECONDS):
                follower.look()
            follower.look()
        except (
            RecoveryError
        ) as error:  # it is the run itself that needs the journal, not its telling
            progress.note(f"its steps are not shown: {error}", "yellow")
        finally:
            journal.close()

    thread = threading.Thread(target=follow, name="follower", daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join(timeout=10.0)

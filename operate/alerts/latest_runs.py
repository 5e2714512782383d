"""Which run works on the recovery of an alert: the one it started, or one that resumed it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from operate.alerts.kept import Kept
from operate.alerts.prefect_runs import Standing
from recovery.journal.history import LOST, read_history
from recovery.journal.opening import open_journal
from recovery.journal.store import Journal
from recovery.run import recovery_id_of

KNOWN_MAX = 1000


@dataclass(frozen=True)
class LatestRun:
    """The run of the latest attempt; `ended_as` names its end as Prefect would, if it has ended."""

    flow_run_id: str
    is_other: bool = False
    ended_as: str = ""

    def standing(self, standings: Mapping[str, Standing]) -> Standing | None:
        """How far it is; by the journal where the server does not know it."""
        if (seen := standings.get(self.flow_run_id)) is not None or not self.ended_as:
            return seen
        return Standing("COMPLETED", self.ended_as, is_final=True)


class LatestRuns:
    """Asks the journal; what was not written to since is not read anew."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[int, LatestRun]] = {}

    def of(self, alerts: Sequence[Kept]) -> dict[str, LatestRun]:
        """Return the latest run for each alert, by the id of the run that it started.

        Raises:
            JournalUnavailable: the journal cannot be asked.
        """
        if len(self._known) > KNOWN_MAX:
            self._known.clear()
        journal = open_journal()
        try:
            return {kept.flow_run_id: self._of(journal, kept.flow_run_id) for kept in alerts}
        finally:
            journal.close()

    def _of(self, journal: Journal, flow_run_id: str) -> LatestRun:
        recovery_id = recovery_id_of(flow_run_id)
        seq, _ = journal.head(recovery_id)
        known = self._known.get(recovery_id)
        if known is None or known[0] != seq:
            known = seq, _read(journal, recovery_id, flow_run_id) if seq else LatestRun(flow_run_id)
            self._known[recovery_id] = known
        return known[1]


def _read(journal: Journal, recovery_id: str, flow_run_id: str) -> LatestRun:
    history = read_history(journal.events(recovery_id))
    if history is None or history.flow_run_id != flow_run_id or not history.attempts:
        return LatestRun(flow_run_id)
    last = history.attempts[-1]
    if last.flow_run_id == flow_run_id:
        return LatestRun(flow_run_id)
    ended_as = "" if last.ended_as == LOST else last.ended_as.replace("-", " ").capitalize()
    return LatestRun(last.flow_run_id, is_other=True, ended_as=ended_as)

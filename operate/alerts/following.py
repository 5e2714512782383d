"""How far the runs of alerts are: followed to their end, also by a resume, or called off."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from operate.alerts.apart import Apart
from operate.alerts.calling_off import Found, call_off
from operate.alerts.kept import CANCELLING, NEITHER, WELL, Kept, State
from operate.alerts.latest_runs import LatestRun, LatestRuns
from operate.alerts.notices import Notice, Notifier
from operate.alerts.prefect_runs import GONE, Runs, Standing
from operate.alerts.routing import REQUESTER
from operate.alerts.store import AlertStore
from recovery.run import recovery_id_of

SEES_AGAIN_SECONDS = 30.0
BEGUN_AGAIN_MAX = 7 * 86_400.0  # a run that ended longer ago, s, is not looked at again
CANCELLED = "Cancelled"
CANCELS = (CANCELLING, "CANCELLED")
CUT_OFF = ("CANCELLED", "CRASHED")  # ends of a run that are none of its recovery
logger = logging.getLogger("recovery.alerts")


@dataclass
class Following:
    """Follows the runs that were started for alerts."""

    store: AlertStore
    runs: Runs
    notifier: Notifier
    apart: Apart
    clock: Callable[[], float]
    latest: LatestRuns = field(default_factory=LatestRuns)
    _seen_again_at: float = 0.0

    def follow(self) -> None:
        """See how far runs are, and call off those whose alerts are all resolved."""
        running = self.store.running()
        if not running:
            return
        latest = self.latest.of(running)
        standings = self.runs.standings([run.flow_run_id for run in latest.values()])

        def follow_one(kept: Kept) -> None:
            run = latest[kept.flow_run_id]
            self._follow(kept, run, run.standing(standings) or GONE)

        self.apart.each_run(running, follow_one)

    def _follow(self, kept: Kept, run: LatestRun, standing: Standing) -> None:
        has_ended = standing.is_final and standing.type not in CUT_OFF
        if has_ended or run.is_other or self._is_wanted(kept):
            self._note(kept, run, standing)
            return
        is_ordered = CANCELLING in (standing.type, kept.run_state)
        found = call_off(kept, standing)
        if found is Found.CALLED_OFF and standing.type not in (CANCELLING, *CUT_OFF):
            who = kept.parameters.get(REQUESTER) or "its alert"
            why = f"{who} was resolved before anything was done; *Retry* asks anew"
            standing = self.runs.cancel(kept.flow_run_id, why)
            is_ordered = True
            found = call_off(kept, standing)  # it may have begun between the look and the order
        is_cancelled = standing.type in (*CANCELS, GONE.type)
        if is_cancelled and found is Found.CALLED_OFF:
            reason = "it was resolved before its run had acted: cancelled"
            self.store.call_off(kept.flow_run_id, reason)
            logger.info("flow run %s was cancelled: %s", kept.flow_run_id, reason)
        elif is_cancelled and is_ordered and found is Found.ACTED:
            self._note_cut_off(kept)
        else:
            self._note(kept, run, standing)

    def _note_cut_off(self, kept: Kept) -> None:
        recovery_id = recovery_id_of(kept.flow_run_id)
        reason = f"it was cancelled while it acted: `recover status {recovery_id}`"
        self.store.end_cancelled(kept.flow_run_id, reason, self.clock())
        text = f"{reason} says what is left"
        self._tell(kept, f"{kept.work}: cancelled in mid-act", text, kept.flow_run_id)

    def _is_wanted(self, kept: Kept) -> bool:
        if kept.ended_at:
            return True  # a person has begun it again: that is no longer up to the alert
        return any(one.is_firing for one in self.store.alerts_of(kept.flow_run_id))

    def see_again(self) -> None:
        """Follow the runs once more that had ended and go on, by *Retry* or by a resume."""
        now = self.clock()
        if now - self._seen_again_at < SEES_AGAIN_SECONDS:
            return
        self._seen_again_at = now
        ended = {kept.flow_run_id: kept for kept in self.store.ended_unwell(now - BEGUN_AGAIN_MAX)}
        if not ended:
            return
        latest = self.latest.of(list(ended.values()))
        standings = self.runs.standings([run.flow_run_id for run in latest.values()])
        for flow_run_id, run in latest.items():
            standing = run.standing(standings)
            if standing is None or _is_as_known(ended[flow_run_id], standing):
                continue
            reason = "somebody began its run again"
            if run.is_other:
                reason = f"flow run {run.flow_run_id} has taken its recovery up"
            self.store.take_up(flow_run_id, reason, now)

    def _note(self, kept: Kept, run: LatestRun, standing: Standing) -> None:
        outcome = standing.name if standing.is_final else ""
        self.store.note_run(kept.flow_run_id, standing.type, outcome, self.clock())
        if outcome and outcome not in (*WELL, *NEITHER):
            more = f"`recover status {recovery_id_of(kept.flow_run_id)}` says more"
            text = f"flow run {run.flow_run_id} ended as {outcome}; {more}"
            self._tell(kept, f"{kept.work}: {outcome}", text, run.flow_run_id)
        elif standing.type == "PAUSED" and kept.run_state != "PAUSED":
            text = (
                f"flow run {run.flow_run_id} waits for an answer in the Prefect UI, or by "
                f"`recover approve {recovery_id_of(kept.flow_run_id)}`"
            )
            self._tell(kept, f"{kept.work} asks a person", text, run.flow_run_id)

    def _tell(self, kept: Kept, subject: str, text: str, flow_run_id: str) -> None:
        told = f"{text} (route {kept.route})"
        self.notifier.tell(Notice(subject, told, kept.severity, flow_run_id))


def _is_as_known(kept: Kept, standing: Standing) -> bool:
    was_called_off = kept.state is State.CANCELLED
    if (was_called_off or kept.outcome == CANCELLED) and standing.type in CANCELS:
        return True
    return not was_called_off and standing.is_final and standing.name == kept.outcome

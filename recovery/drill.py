"""Drills: recoveries exercised on a stand-in, and what each run of one measured.

A drill is declared with its flow: `@recovery(..., drill=Drill(of="back-up-postgres", phases=...))`.
All the rest is told from the journal; nothing else remembers a drill.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from recovery.journal.history import History, RecoveryState, StepState, read_history
from recovery.journal.opening import open_journal
from recovery.journal.store import Journal
from recovery.walk import current_fence

PHASES = ("detect", "decide", "fetch", "restore", "verify", "reopen")
RECOVERIES_MAX = 10_000
SLOWER_BY = 1.5
SLOWER_BY_SECONDS = 1.0  # less is the noise of a busy machine
EARLIER_MIN = 3
ENDED = {StepState.DONE, StepState.ALREADY_SO, StepState.PASSED}


@dataclass(frozen=True)
class Drill:
    """What a drill proves, and which of its steps ends which phase of the recovery time.

    Attributes:
        of: the recovery that is proven by it.
        phases: name of the step with which a phase ends, and the phase, one of `PHASES`, which
            follow each other in that order. Phases without a step do not apply. The last one ends
            the recovery time.
    """

    of: str
    phases: Mapping[str, str]

    def __post_init__(self) -> None:
        """Refuse a phase that is none. A mistake in the declaration."""
        if unknown := [phase for phase in self.phases.values() if phase not in PHASES]:
            raise ValueError(f"{unknown[0]!r} is no phase; there are {', '.join(PHASES)}")


@dataclass(frozen=True)
class DrillRun:
    """One run of a drill, as the journal tells it.

    Attributes:
        phases: seconds of each phase that ended.
        rto_seconds: from its beginning to the end of the last phase; `None` where it did not end.
        rpo_seconds: from the newest canary restored to the incident, where that was found out.
        is_interrupted: several attempts worked on it, so that its times say little.
    """

    recovery_id: str
    drill: str
    target: str
    began_at: str
    ended_at: str
    state: str
    phases: Mapping[str, float] = field(default_factory=dict)
    rto_seconds: float | None = None
    rpo_seconds: float | None = None
    is_interrupted: bool = False

    @property
    def is_proof(self) -> bool:
        """Whether it came to its end, and well."""
        return self.state == RecoveryState.RECOVERED


def drill_of(history: History) -> Drill | None:
    """What a recovery was declared to prove when it began; `None` where it is no drill."""
    return Drill(**history.drill) if history.drill else None


def run_of(history: History, drill: Drill, *, is_leased: bool = False) -> DrillRun:
    """What one recovery measured as a drill."""
    phases = phase_seconds(history, drill)
    last = history.attempts[-1] if history.attempts else None
    result = last.result if last is not None and isinstance(last.result, dict) else {}
    rpo = result.get("rpo_seconds")
    is_whole = set(phases) == set(drill.phases.values())
    return DrillRun(
        history.recovery_id,
        history.flow,
        history.target,
        history.opened_at,
        last.ended_at if last is not None else "",
        str(history.state(is_leased=is_leased)),
        phases,
        round(sum(phases.values()), 3) if is_whole else None,
        float(rpo) if isinstance(rpo, int | float) else None,
        len(history.attempts) > 1,
    )


def phase_seconds(history: History, drill: Drill) -> dict[str, float]:
    """Seconds of each phase that has ended: from the end of the one before to that of its step.

    They add up to the time from the beginning of the recovery to the end of the last phase.
    """
    ended = {
        key.partition("[")[0].partition("#")[0]: step.ended_at
        for key, step in history.steps.items()
        if step.ended_at and step.state in ENDED
    }
    found: dict[str, float] = {}
    before = datetime.fromisoformat(history.opened_at)
    for phase in PHASES:  # the journal keeps the steps of a declaration in no order
        steps = [step for step, its in drill.phases.items() if its == phase]
        if any(step not in ended for step in steps):
            break
        if steps:
            end = max(before, *(datetime.fromisoformat(ended[step]) for step in steps))
            found[phase] = round((end - before).total_seconds(), 3)
            before = end
    return found


def read_runs(journal: Journal, name: str, target: str = "") -> list[DrillRun]:
    """The runs of a drill that the journal remembers, oldest first; of one target, or of all."""
    runs = []
    for recovery_id in journal.recovery_ids(limit=RECOVERIES_MAX, flow=name):
        history = read_history(journal.events(recovery_id))
        drill = drill_of(history) if history is not None else None
        if history is None or drill is None or history.flow != name:
            continue
        if target and history.target != target:
            continue
        is_leased = journal.holder(history.target) is not None
        runs.append(run_of(history, drill, is_leased=is_leased))
    return sorted(runs, key=lambda run: run.began_at)


def slower_than_usual(run: DrillRun, earlier: Sequence[DrillRun]) -> list[str]:
    """In which phases a run took longer than the median of the earlier ones allows, in sentences.

    Runs that failed or were interrupted are no measure; fewer than three say nothing yet.
    """
    usual = [each for each in earlier if each.is_proof and not each.is_interrupted]
    if len(usual) < EARLIER_MIN:
        return []
    found = []
    for phase in PHASES:
        times = [each.phases[phase] for each in usual if phase in each.phases]
        if phase not in run.phases or len(times) < EARLIER_MIN:
            continue
        median, now = statistics.median(times), run.phases[phase]
        if now > median * SLOWER_BY and now > median + SLOWER_BY_SECONDS:
            found.append(f"{phase} took {now:.1f} s, usually {median:.1f} s ({len(times)} drills)")
    return found


def own_and_earlier() -> tuple[DrillRun, list[DrillRun]]:
    """What the running drill has measured so far, and the earlier ones of the same target.

    Raises:
        JournalUnavailable: the journal cannot be read.
    """
    journal = open_journal()
    try:
        history = read_history(journal.events(current_fence().recovery_id))
        drill = drill_of(history) if history is not None else None
        if history is None or drill is None:
            raise AssertionError  # it runs, so it was opened, and as a drill
        runs = read_runs(journal, history.flow, history.target)
    finally:
        journal.close()
    own = run_of(history, drill, is_leased=True)
    return own, [run for run in runs if run.recovery_id != own.recovery_id]

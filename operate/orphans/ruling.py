"""Whether an orphan may be resumed without a person: a table, each line with its reason.

It may where its recovery is declared so, what it did is at most a change (or a person's consent to
its very plan still stands), a worker ran it, and it was not resumed by itself too often already.
"""

from dataclasses import dataclass
from enum import StrEnum

from operate.orphans.attempts import Orphan
from operate.orphans.pace import Pace
from operate.orphans.runs import SeenRun
from recovery.run import Recovery
from recovery.verdict import Danger


class What(StrEnum):
    """What becomes of an orphan."""

    RESUME = "resume"
    WAIT = "wait"
    PERSON = "person"


@dataclass(frozen=True, slots=True)
class Ruling:
    """What becomes of an orphan, and why; `seconds` is how long is still to wait."""

    what: What
    why: str
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Case:
    """All that counts for one orphan.

    Attributes:
        orphan: what the journal says.
        declared: its recovery, where this release has it.
        run: its run in Prefect, where there is one.
        is_server_known: whether the server was asked at all; else nothing is known of the run.
        age: seconds since a watch found it.
        heard_ago: seconds since the attempt was last heard of.
    """

    orphan: Orphan
    declared: Recovery | None
    run: SeenRun | None
    is_server_known: bool
    age: float
    heard_ago: float


def rule(case: Case, pace: Pace) -> Ruling:
    """Rule on one orphan."""
    why = _forbidden_by_recovery(case) or _forbidden_by_past(case, pace)
    if not why and case.is_server_known:
        why = _forbidden_by_run(case.run)
    if why:
        return Ruling(What.PERSON, why)
    if why := _waits_for(case):
        return Ruling(What.WAIT, why)
    left = pace.back_off[len(case.orphan.ordered)] - case.age
    if left > 0:
        return Ruling(What.WAIT, "it is resumed by itself after a pause", left)
    return Ruling(What.RESUME, case.declared.resumes_itself if case.declared else "")


def _waits_for(case: Case) -> str:
    if not case.is_server_known:
        return "the Prefect server, which would run it, does not answer"
    if case.run is not None and not case.run.is_final:
        return f"its run is {case.run.state_name.lower()} again"
    if case.orphan.holder is not None:
        return f"recovery {case.orphan.holder.recovery_id} holds its target now"
    return ""


def _forbidden_by_recovery(case: Case) -> str:
    orphan, declared = case.orphan, case.declared
    if declared is None:
        return f"this release has no recovery {orphan.flow}"
    if orphan.goes_back:
        return "it was on its way back, which only a person orders"
    if not declared.resumes_itself:
        return f"{orphan.flow} is not declared to resume by itself"
    if declared.danger is Danger.DESTRUCTIVE and not orphan.is_approved:
        return "it is destructive, and no consent to its plan stands"
    return ""


def _forbidden_by_past(case: Case, pace: Pace) -> str:
    times = len(case.orphan.ordered)
    if times >= len(pace.back_off):
        return f"it was resumed by itself {times} times already"
    if case.heard_ago > pace.fresh:
        return "it was last heard of too long ago: the target may have been mended otherwise"
    return ""


def _forbidden_by_run(run: SeenRun | None) -> str:
    if run is None:
        return "it was not run under this Prefect server"
    if run.is_cancelled:
        return "a person cancelled its run"
    if not run.deployment_id:
        return "it was run from a command line, and no worker is known to have what it needs"
    return ""

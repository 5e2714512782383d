"""What is known of the drills: by each its runs, and which recoveries they prove."""

import os
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any

from operate.catalogue import recoveries, recovery_named
from recovery.drill import DrillRun, read_runs
from recovery.errors import BadInput, RecoveryError
from recovery.journal.opening import open_journal
from recovery.journal.store import Journal, JournalUnavailable
from recovery.run import Recovery

PROVEN_FOR_DAYS = 30


def proven_for() -> timedelta:
    """How long a drill proves its recovery: RECOVER_DRILL_DAYS, 30 by default.

    Raises:
        BadInput: it is no number of days.
    """
    text = os.environ.get("RECOVER_DRILL_DAYS", str(PROVEN_FOR_DAYS))
    if not text.isdigit() or not int(text):
        raise BadInput("RECOVER_DRILL_DAYS", f"{text!r} is no number of days", "Give 1 or more")
    return timedelta(days=int(text))


def drills() -> dict[str, Recovery]:
    """The recoveries that are drills, by name."""
    return {name: each for name, each in recoveries().items() if each.drill is not None}


def drill_named(name: str) -> Recovery:
    """The drill of this name.

    Raises:
        BadInput: there is none.
    """
    recovery = recovery_named(name)
    if recovery.drill is None:
        known = ", ".join(drills())
        raise BadInput("NAME", f"{name} is no drill", f"Choose one of: {known or 'none'}")
    return recovery


def runs_of(journal: Journal, recovery: Recovery, target: str = "") -> list[DrillRun]:
    """The runs of a drill that the journal remembers, oldest first."""
    return read_runs(journal, recovery.name, target)


def drill_rows(journal: Journal) -> list[dict[str, Any]]:
    """Each drill on each target it was run on: its last result and what that measured."""
    rows = []
    for recovery in drills().values():
        runs = runs_of(journal, recovery)
        targets = dict.fromkeys(run.target for run in runs)
        rows += [_row(recovery, [run for run in runs if run.target == each]) for each in targets]
        if not targets:
            rows.append(_row(recovery, []))
    return rows


def history_rows(journal: Journal, recovery: Recovery) -> list[dict[str, Any]]:
    """The runs of a drill, latest first."""
    return [asdict(run) for run in reversed(runs_of(journal, recovery))]


def proven_at(journal: Journal) -> dict[str, str]:
    """When each recovery that a drill proves was last proven; empty where it never was."""
    found: dict[str, str] = {}
    for recovery in drills().values():
        if recovery.drill is not None:
            ended = [run.ended_at for run in runs_of(journal, recovery) if run.is_proof]
            found[recovery.drill.of] = max([found.get(recovery.drill.of, ""), *ended])
    return found


def with_proofs(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of `recover list`, each with when its recovery was last proven by a drill.

    A journal that cannot be read proves nothing, and hides no recovery.
    """
    try:
        journal = open_journal()
    except RecoveryError:
        return rows
    try:
        found = proven_at(journal)
    except JournalUnavailable:
        return rows
    finally:
        journal.close()
    return [
        {**row, "proven_at": found.get(row["name"]) or None, "has_drill": row["name"] in found}
        | {"is_proven": is_proven(found.get(row["name"], ""))}
        for row in rows
    ]


def is_proven(at: str) -> bool:
    """Whether a drill of then still proves its recovery."""
    return bool(at) and datetime.now(UTC) - datetime.fromisoformat(at) <= proven_for()


def _row(recovery: Recovery, runs: list[DrillRun]) -> dict[str, Any]:
    proofs = [run for run in runs if run.is_proof]
    last = runs[-1] if runs else None
    proof = proofs[-1] if proofs else None
    row: dict[str, Any] = {
        "drill": recovery.name,
        "proves": recovery.drill.of if recovery.drill else "",
        "target": last.target if last else "",
        "runs": len(runs),
        "last": last.state if last else "never run",
        "last_id": last.recovery_id if last else "",
        "last_at": last.began_at if last else "",
        "proven_at": proof.ended_at if proof else "",
        "age_seconds": _age(proof.ended_at) if proof else None,
        "is_proven": is_proven(proof.ended_at) if proof else False,
        "rto_seconds": proof.rto_seconds if proof else None,
        "rpo_seconds": proof.rpo_seconds if proof else None,
        "phases": _plain(proof.phases) if proof else {},
    }
    return row


def _age(at: str) -> float:
    return round((datetime.now(UTC) - datetime.fromisoformat(at)).total_seconds(), 1)


def _plain(phases: Mapping[str, float]) -> dict[str, float]:
    return dict(phases)

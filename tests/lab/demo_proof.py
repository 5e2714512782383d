"""What a demo proves at its end, and the papers it leaves."""

import re
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from recovery.journal.events import Kind
from tests.lab.cells import Comparison, compare, copied
from tests.lab.demo_stack import Stack, fingerprint, json_of, last_line
from tests.lab.demo_watch import LOAD, Killed, Watch
from tests.lab.demo_wish import DemoFailed, say

# Read anew from the procedure: what only matters to running servers, or tells of its own side.
NOT_MOVED = frozenset(
    {
        "server_lock", "session", "user_auth_token", "login_attempt", "cache_data", "entity_event",
        "test_data",
    }
)  # fmt: skip
LOG_SUFFIX, INTERNAL, OWN = "migration_log", "sqlite_", "recover_"
DIFFERENCES_SHOWN_MAX = 10
NAMES_SHOWN_MAX = 4


@dataclass
class Proof:
    """The claims that did not hold, and where the papers are."""

    failed: list[str] = field(default_factory=list)
    html: Path = Path()
    bundle: Path = Path()
    moved: int = 0  # tables
    kept: int = 0

    def check(self, *, holds: bool, claim: str, seen: str) -> None:
        """Tell whether a claim holds, with what was seen."""
        say(f"  {'ok    ' if holds else 'FAILED'}  {claim}: {seen}")
        if not holds:
            self.failed.append(claim)


def prove(stack: Stack, watch: Watch, killed: Killed) -> Proof:
    """Check everything that a killed and resumed recovery promises, and keep the papers.

    Raises:
        DemoFailed: report or bundle could not be written.
    """
    proof = Proof()
    with ThreadPoolExecutor(2) as pool:  # commands take a second or two each to start
        verifying = pool.submit(stack.recover, "journal", "verify", watch.recovery_id)
        writing = pool.submit(keep_papers, stack, watch)
        prove_attempts(proof, watch)
        prove_nothing_done_twice(proof, watch, killed)
        prove_cells(proof, stack, watch)
    proof.check(
        holds=fingerprint(stack.source) == stack.fingerprint,
        claim="the source was not touched",
        seen=str(stack.source),
    )
    answer = verifying.result()
    proof.check(
        holds=answer.returncode == 0,
        claim="the journal is the chain that was written",
        seen=f"{len(watch.events)} events; {last_line(answer.stdout + answer.stderr)}",
    )
    state = stack.flow_run(watch.flow_run_id)["state"]
    proof.check(
        holds=state["type"] == "COMPLETED",
        claim="Prefect says the same",
        seen=f"{state['name']}: {state['message']}",
    )
    proof.html, proof.bundle = writing.result()
    return proof


def prove_attempts(proof: Proof, watch: Watch) -> None:
    """One attempt was lost, the next recovered under a higher epoch."""
    attempts = watch.attempts
    ended = [attempt.ended_as for attempt in attempts]
    epochs = [attempt.epoch for attempt in attempts]
    proof.check(
        holds=ended == ["lost", "recovered"] and epochs[0] < epochs[1],
        claim="one attempt was lost and the next recovered",
        seen=", ".join(f"attempt {a.n} {a.ended_as} (epoch {a.epoch})" for a in attempts),
    )


def prove_nothing_done_twice(proof: Proof, watch: Watch, killed: Killed) -> None:
    """What the first attempt had done was not done again, but for the table in flight."""
    done = {e.step for e in watch.events if e.attempt == 1 and e.kind == Kind.DONE}
    again = {e.step for e in watch.events if e.attempt > 1 and e.kind == Kind.INTENDED}
    first = {e.step for e in watch.events if e.attempt == 1 and e.kind == Kind.INTENDED}
    loads_done = {step for step in done if step.startswith(LOAD)}
    twice = sorted(first & again)
    proof.check(
        holds={step for step in twice if step.startswith(LOAD)} <= {killed.step},
        claim="done again was at most the table in flight",
        seen=f"begun in both attempts: {named(twice)}",
    )
    kept = sorted(done - again)
    proof.check(
        holds=bool(loads_done) and loads_done <= set(kept),
        claim="tables that were loaded stayed loaded",
        seen=f"{len(loads_done)} loads and {len(kept) - len(loads_done)} other steps were passed "
        f"over: {named(kept)}",
    )


def prove_cells(proof: Proof, stack: Stack, watch: Watch) -> None:
    """Every table of both sides was moved or is named; by our own comparison, every cell is equal.

    Which tables are moved is read anew from the procedure, and held against what was told.
    """
    with closing(stack.connect()) as target:
        shared = tables_of_both(stack, target)
        due = [name for name in shared if not stays(name)]
        found: Comparison = compare(stack.source, target, due, tolerate=stack.accept)
        left = leftovers(target)
    loaded = {e.step[len(LOAD) : -1] for e in watch.events if e.step.startswith(LOAD)}
    told: dict[str, str] = result_of(watch).get("tables_not_moved") or {}
    unlike = set(due) ^ loaded | (set(shared) - set(due)) ^ set(told)
    proof.moved, proof.kept = len(loaded), len(told)
    proof.check(
        holds=not unlike and all(told.values()),
        claim="every table that both sides have was moved, or is named with why it is not",
        seen=f"{len(shared)} tables: {len(loaded)} moved, {len(told)} stay in the target as they "
        f"are; not as told: {named(sorted(unlike)) or 'none'}",
    )
    for name, reason in told.items():
        say(f"          not moved: {name}: {reason}")
    proof.check(
        holds=bool(found.cells) and not found.differences,
        claim="every cell of what was moved is the same on both sides",
        seen=f"{found.cells} cells in {found.rows} rows of {len(due)} tables compared, "
        f"{len(found.differences)} differ (the recovery's own comparison: "
        f"{result_of(watch).get('cells_found_equal')} cells)",
    )
    for difference in found.differences[:DIFFERENCES_SHOWN_MAX]:
        say(f"          {difference}")
    proof.check(
        holds=not left,
        claim="nothing of the recovery is left in the target",
        seen=f"tables of its own: {named(left) or 'none'}",
    )


def tables_of_both(stack: Stack, target: Any) -> list[str]:
    """Return the tables that are in source and target, but for those that are a database's own."""
    with copied(stack.source) as source:
        listed = source.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    mine = {name.decode().lower() for (name,) in listed}
    return [
        name
        for name in tables_of(target)
        if name.lower() in mine and not name.lower().startswith((INTERNAL, OWN))
    ]


def stays(table: str) -> bool:
    """Whether a table must not be moved."""
    return table.lower().endswith(LOG_SUFFIX) or table.lower() in NOT_MOVED


def tables_of(target: Any) -> list[str]:
    """Return the names of the target's tables."""
    with target.cursor() as cursor:
        cursor.execute(
            "SELECT table_name FROM information_schema.tables "
            "WHERE table_schema = DATABASE() AND table_type = 'BASE TABLE' ORDER BY table_name"
        )
        return [str(name) for (name,) in cursor.fetchall()]


def leftovers(target: Any) -> list[str]:
    """Return tables in the target that are the recovery's own."""
    return [name for name in tables_of(target) if name.startswith(OWN)]


def result_of(watch: Watch) -> dict[str, Any]:
    """Return what the last attempt returned."""
    ended = [event for event in watch.events if event.kind == Kind.ATTEMPT_ENDED]
    result = ended[-1].body.get("result") if ended else None
    return result if isinstance(result, dict) else {}


def timeline(watch: Watch, killed: Killed) -> list[str]:
    """Return what happened when, a line for each attempt and for the time between them."""
    lines, before = [], None
    for attempt in watch.attempts:
        mine = [event for event in watch.events if event.attempt == attempt.n]
        began = datetime.fromisoformat(attempt.started_at)
        ended = mine[-1].moment
        if before is not None:
            gap = (began - before).total_seconds()
            lines.append(f"  {before:%H:%M:%S} {gap:6.1f} s  nobody: the lease had to run out")
        acts = sum(event.kind == Kind.DONE for event in mine)
        looks = sum(event.kind in {Kind.VERIFIED, Kind.PASSED} for event in mine)
        place = f"in {killed.step}" if killed.step else "between two steps"
        note = f", killed {place}" if attempt.ended_as == "lost" else ""
        seconds = (ended - began).total_seconds()
        lines.append(
            f"  {began:%H:%M:%S} {seconds:6.1f} s  attempt {attempt.n}: {acts} acts done, {looks} "
            f"looks passed, {attempt.ended_as}{note}"
        )
        before = ended
    return lines


def keep_papers(stack: Stack, watch: Watch) -> tuple[Path, Path]:
    """Write report and bundle beside the demo's directory, where they outlast it.

    Raises:
        DemoFailed: one was not written.
    """
    lab = stack.home.parent
    html = lab / f"recovery-{watch.recovery_id}.html"
    bundle = lab / f"recovery-{watch.recovery_id}.tar.gz"
    for arguments in (
        ("report", watch.recovery_id, "--html", str(html)),
        ("bundle", watch.recovery_id, "--to", str(bundle)),
    ):
        answer = stack.recover(*arguments, "--json")
        if answer.returncode != 0 or not json_of(answer.stdout):
            raise DemoFailed(f"`recover {arguments[0]}` failed: {last_line(answer.stderr)}")
    if not re.search(r"<svg\b", html.read_text(encoding="utf-8")):
        raise DemoFailed(f"the report {html} has no timeline")
    return html, bundle


def named(names: list[str]) -> str:
    """Return a few of the names, and how many more there are."""
    more = f" and {len(names) - NAMES_SHOWN_MAX} more" if len(names) > NAMES_SHOWN_MAX else ""
    return ", ".join(names[:NAMES_SHOWN_MAX]) + more

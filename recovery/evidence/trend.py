"""The trend of a drill: its runs on one target as a picture, as a table, and as an artifact."""

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from recovery.drill import PHASES, DrillRun, read_runs, slower_than_usual
from recovery.evidence.timeline import duration
from recovery.journal.history import read_history
from recovery.journal.store import Journal
from recovery.secrecy.redaction import redact

RUNS_MAX = 24
WIDTH, LEFT, RIGHT = 720, 74, 712
RTO_TOP, RTO_HEIGHT, RPO_HEIGHT, GAP = 26, 150, 60, 54
BAR_WIDTH_MAX = 34.0
STEPS = (1.0, 2.0, 5.0, 10.0)
LINES_MAX = 4


@dataclass(frozen=True)
class Piece:
    """A part of a column, in pixels."""

    look: str
    y: float
    height: float


@dataclass(frozen=True)
class Column:
    """One run of the drill."""

    x: float
    width: float
    label: str
    hover: str
    is_own: bool
    is_proof: bool
    pieces: tuple[Piece, ...]
    rpo: Piece | None


@dataclass(frozen=True)
class Line:
    """A mark on one of the two axes."""

    y: float
    label: str


def runs_up_to(journal: Journal, recovery_id: str) -> list[DrillRun]:
    """The runs of a drill on its target up to this one, oldest first; none where it is no drill."""
    history = read_history(journal.events(recovery_id))
    if history is None or not history.drill:
        return []
    runs = read_runs(journal, history.flow, history.target)
    return [run for run in runs if run.began_at <= history.opened_at]


def trend_markdown(runs: Sequence[DrillRun], svg: str) -> str:
    """The runs as a table, latest first, with the picture above it, for the Prefect UI."""
    shown = list(runs[-RUNS_MAX:])
    own = shown[-1]
    picture = base64.b64encode(svg.encode()).decode()
    used = [phase for phase in PHASES if any(phase in run.phases for run in shown)]
    slower = slower_than_usual(own, [run for run in runs if run is not own])
    lines = [
        f"# {own.drill}",
        "",
        f"On {own.target}.",
        "",
        f"Last run: **{own.state}**, RTO {_told(own.rto_seconds)}, RPO {_told(own.rpo_seconds)}.",
        *([f"**Slower than usual:** {'; '.join(slower)}."] if slower else []),
        "",
        f"![RTO by phase and RPO of {len(shown)} drills](data:image/svg+xml;base64,{picture})",
        "",
        f"| began | ended as | RTO | {' | '.join(used)} | RPO | recovery |",
        f"|---|---|---|{'---|' * len(used)}---|---|",
    ]
    for run in reversed(shown):
        phases = " | ".join(_told(run.phases.get(phase)) for phase in used)
        state = f"{run.state}{', interrupted' if run.is_interrupted else ''}"
        lines.append(
            f"| {run.began_at[:16].replace('T', ' ')} | {state} | {_told(run.rto_seconds)} "
            f"| {phases} | {_told(run.rpo_seconds)} | `{run.recovery_id}` |"
        )
    return redact("\n".join([*lines, ""]))


def drawing_of_trend(runs: Sequence[DrillRun]) -> dict[str, Any]:
    """Lay the picture out; the template `trend.svg` writes it down."""
    shown = list(runs[-RUNS_MAX:])
    slot = (RIGHT - LEFT) / max(len(shown), 6)
    width = round(min(BAR_WIDTH_MAX, slot * 0.7), 1)
    rto_max = max((sum(run.phases.values()) for run in shown), default=0.0)
    rpo_max = max((run.rpo_seconds or 0.0 for run in shown), default=0.0)
    rto_floor = RTO_TOP + RTO_HEIGHT
    rpo_floor = rto_floor + GAP + RPO_HEIGHT
    columns = []
    for n, run in enumerate(shown):
        rpo = None
        if run.rpo_seconds is not None:
            height = _height(run.rpo_seconds, rpo_max, RPO_HEIGHT)
            rpo = Piece("rpo", round(rpo_floor - height, 1), height)
        columns.append(
            Column(
                round(LEFT + n * slot + (slot - width) / 2, 1),
                width,
                run.began_at[5:10],
                _hover(run),
                run is shown[-1],
                run.is_proof,
                tuple(_stacked(run.phases, rto_max, rto_floor)),
                rpo,
            )
        )
    used = [phase for phase in PHASES if any(phase in run.phases for run in shown)]
    return {
        "width": WIDTH,
        "height": rpo_floor + 46,
        "left": LEFT,
        "right": RIGHT,
        "rto_floor": rto_floor,
        "rpo_floor": rpo_floor,
        "rpo_top": rto_floor + GAP,
        "columns": columns,
        "rto_lines": _lines(rto_max, rto_floor, RTO_HEIGHT),
        "rpo_lines": _lines(rpo_max, rpo_floor, RPO_HEIGHT)[-1:],
        "phases": used,
        "summary": f"{len(shown)} runs; the last took {_told(shown[-1].rto_seconds)}."
        if shown
        else "no run",
    }


def _stacked(phases: Mapping[str, float], most: float, floor: float) -> list[Piece]:
    pieces, y = [], floor
    for phase in PHASES:
        if phase in phases:
            height = _height(phases[phase], most, RTO_HEIGHT)
            y -= height
            pieces.append(Piece(phase, round(y, 1), height))
    return pieces


def _height(value: float, most: float, room: int) -> float:
    return round(max(0.0, value) / most * room, 1) if most > 0 else 0.0


def _lines(most: float, floor: float, room: int) -> list[Line]:
    """A few round marks up to the most there is."""
    if most < 0.001:  # noqa: PLR2004 (nothing that anybody could read)
        return []
    power = 10.0 ** math.floor(math.log10(most / LINES_MAX))
    step = min((power * each for each in STEPS if power * each * LINES_MAX >= most), default=most)
    count = min(int(most / step), LINES_MAX)
    return [
        Line(round(floor - _height(n * step, most, room), 1), duration(n * step))
        for n in range(1, count + 1)
    ]


def _hover(run: DrillRun) -> str:
    phases = ", ".join(f"{phase} {duration(took)}" for phase, took in run.phases.items())
    return (
        f"{run.recovery_id} of {run.began_at[:16]}: {run.state}, RTO {_told(run.rto_seconds)} "
        f"({phases}), RPO {_told(run.rpo_seconds)}"
    )


def _told(seconds: float | None) -> str:
    return "" if seconds is None else duration(seconds)

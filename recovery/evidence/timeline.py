"""The timeline of a recovery as one SVG: a lane for each attempt, a row for each step.

Most steps take milliseconds and one takes minutes, so a lane whose even axis would hide half of its
steps gets an uneven one (a duration's width grows with its power of 0.4), and says so. Hundreds of
steps are folded into rows of like ones; what went wrong is folded last.
"""

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import accumulate, groupby, pairwise
from typing import Any

from recovery.evidence.evidence import LOUD, AttemptStory, Evidence, Gap, Shown, Span, clock

WIDTH = 960
PLOT_LEFT, PLOT_RIGHT = 296, 780
ROW_HEIGHT, HEAD_HEIGHT, AXIS_HEIGHT, SAID_HEIGHT = 22, 34, 24, 20
ROWS_MAX, LANES_MAX, HOVER_KEYS_MAX = 32, 12, 30
LABEL_CHARS_MAX = 32
BAR_PIXELS_MIN = 3.0
TICK_PIXELS_MIN = 74
UNEVEN_POWER = 0.4
TIMES = "\u00d7"
LONG_SHARE = 0.05
MINUTE, HOUR, DAY = 60, 3600, 86400
TICK_SECONDS = [
    *(n * 10.0**power for power in (-3, -2, -1) for n in (1, 2, 5)),
    *(1.0, 2.0, 5.0, 10.0, 15.0, 30.0),
    *(n * 60.0 for n in (1, 2, 5, 10, 15, 30, 60, 120, 360, 720, 1440)),
]
# The class a colour hangs on and a sign that tells the same without colour.
LOOKS = {
    Shown.COMPLETED: ("ok", "✓"),
    Shown.VERIFIED: ("ok", "✓"),
    Shown.PASSED: ("look", "✓"),
    Shown.LOOKED: ("look", "○"),
    Shown.DECIDED: ("known", "◆"),
    Shown.ALREADY_SO: ("known", "="),
    Shown.RESTORED: ("known", "="),
    Shown.REUSED: ("known", "="),
    Shown.RECONCILED: ("known", "≈"),
    Shown.RESOLVED: ("person", "●"),
    Shown.APPROVED: ("person", "●"),
    Shown.REJECTED: ("person", "●"),
    Shown.DISREGARDED: ("person", "●"),
    Shown.TAKEN_OVER: ("person", "●"),
    Shown.ABANDONED: ("person", "●"),
    Shown.RUNNING: ("run", "…"),
    Shown.FAILED: ("bad", "✗"),
    Shown.REFUSED: ("bad", "⊘"),
    Shown.UNDO_FAILED: ("bad", "✗"),
    Shown.IN_DOUBT: ("doubt", "?"),
    Shown.STALE: ("doubt", "!"),
    Shown.UNDONE: ("back", "↶"),
}


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar of a row, in pixels."""

    x: float
    width: float


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a lane: a step, or several like ones."""

    y: float
    kind: str
    label: str
    look: str
    told: str
    hover: str
    bars: tuple[Bar, ...]


@dataclass(frozen=True, slots=True)
class Tick:
    """A mark on a lane's axis."""

    x: float
    label: str


@dataclass(frozen=True, slots=True)
class Lane:
    """One attempt, or the time behind one where there are no ticks."""

    y: float
    height: float
    title: str
    told: str
    look: str
    rows: tuple[Row, ...] = ()
    ticks: tuple[Tick, ...] = ()
    is_gap: bool = False
    is_uneven: bool = False


def duration(seconds: float) -> str:
    """Write a duration for people, with two or three significant digits."""
    if seconds <= 0:
        return "0 s"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms" if seconds >= 0.001 else "<1 ms"  # noqa: PLR2004
    if seconds < MINUTE:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"  # noqa: PLR2004
    whole = round(seconds)
    if whole < HOUR:
        return f"{whole // MINUTE} min {whole % MINUTE:02} s"
    if whole < DAY:
        return f"{whole // HOUR} h {whole % HOUR // MINUTE:02} min"
    return f"{whole // DAY} d {whole % DAY // HOUR} h"


def drawing_of(evidence: Evidence) -> dict[str, Any]:
    """Lay the timeline out; the template `timeline.svg` writes it down."""
    y = 4.0
    lanes: list[Lane] = []
    gaps = {gap.after: gap for gap in evidence.gaps}
    attempts, left_out = _drawn(evidence.attempts)
    for attempt in attempts:
        lanes.append(_lane(attempt, y))
        y += lanes[-1].height
        if gap := gaps.get(attempt.n):
            lanes.append(_gap_lane(gap, y))
            y += lanes[-1].height
    rows = [row for lane in lanes for row in lane.rows]
    shown = {span.shown for attempt in attempts for span in attempt.spans}
    shown |= {span.shown for gap in evidence.gaps for span in gap.spans}
    return {
        "width": WIDTH,
        "height": y + 4,
        "plot_left": PLOT_LEFT,
        "plot_right": PLOT_RIGHT,
        "row_height": ROW_HEIGHT,
        "axis_height": AXIS_HEIGHT,
        "lanes": lanes,
        "left_out": left_out,
        "share": _shares(evidence),
        "share_told": f"the whole time, evenly: {duration(evidence.working_seconds)} working, "
        f"{duration(evidence.gap_seconds('waiting'))} waiting, "
        f"{duration(evidence.gap_seconds('lost'))} lost",
        "legend": [(LOOKS[each][0], LOOKS[each][1], str(each)) for each in Shown if each in shown],
        "kinds": sorted({row.kind for row in rows if row.kind}),
        "summary": f"{evidence.headline} {len(evidence.attempts)} attempts, {len(rows)} rows.",
    }


def _drawn(attempts: Sequence[AttemptStory]) -> tuple[list[AttemptStory], int]:
    if len(attempts) <= LANES_MAX:
        return list(attempts), 0
    return [attempts[0], *attempts[1 - LANES_MAX :]], len(attempts) - LANES_MAX


def _shares(evidence: Evidence) -> list[tuple[str, str, Bar]]:
    """The whole time, evenly: working, waiting and lost."""
    periods = [("working", each.started, each.seconds) for each in evidence.attempts]
    periods += [(gap.kind, gap.started, gap.seconds) for gap in evidence.gaps]
    total = sum(seconds for _, _, seconds in periods)
    if not evidence.gaps or total <= 0:
        return []
    x, shares = 0.0, []
    room = WIDTH - BAR_PIXELS_MIN * len(periods)
    for kind, _, seconds in sorted(periods, key=lambda period: period[1]):
        width = BAR_PIXELS_MIN + room * seconds / total
        shares.append((kind, f"{kind} {duration(seconds)}", Bar(round(x, 1), round(width, 1))))
        x += width
    return shares


def _lane(attempt: AttemptStory, y: float) -> Lane:
    spans = attempt.spans
    groups = _folded(spans, attempt.seconds)
    position, is_uneven = _scale(attempt)
    top = y + HEAD_HEIGHT + AXIS_HEIGHT
    rows = tuple(
        _row(group, position, attempt, top + n * ROW_HEIGHT) for n, group in enumerate(groups)
    )
    ended = attempt.ended_as or "at work"
    way = " on the way back" if attempt.goes == "back" else ""
    return Lane(
        y,
        HEAD_HEIGHT + AXIS_HEIGHT + len(rows) * ROW_HEIGHT + 12,
        f"Attempt {attempt.n}{way}: {ended}",
        f"{clock(attempt.started)} · {duration(attempt.seconds)} · {attempt.worker or 'unknown'}",
        _look_of_end(attempt.ended_as),
        rows,
        tuple(_ticks(position, attempt.seconds, is_uneven=is_uneven)),
        is_uneven=is_uneven,
    )


def _look_of_end(ended_as: str) -> str:
    looks = {
        "recovered": "ok",
        "undone": "back",
        "": "run",
        "lost": "doubt",
        "needs-person": "doubt",
    }
    return looks.get(ended_as, "bad")


def _gap_lane(gap: Gap, y: float) -> Lane:
    told = {
        "lost": f"lost: nothing was heard for {duration(gap.seconds)}",
        "waiting": f"waiting: nobody worked for {duration(gap.seconds)}",
    }
    rows = tuple(
        Row(
            y + HEAD_HEIGHT - 4 + n * SAID_HEIGHT,
            "person",
            shortened(span.key),
            LOOKS[span.shown][0],
            f"{span.shown} {shortened(span.note, 70)}",
            f"{span.shown} {span.key} {span.note}, {clock(span.ended)}",
            (),
        )
        for n, span in enumerate(gap.spans[:ROWS_MAX])
    )
    height = HEAD_HEIGHT + len(rows) * SAID_HEIGHT + 8
    return Lane(y, height, told[gap.kind], "", gap.kind, rows, is_gap=True)


# -- folding -----------------------------------------------------------------------------------


def _folded(spans: Sequence[Span], total_seconds: float) -> list[list[Span]]:
    """Gather spans that follow one another into as many rows as can be read."""

    def by_step(n_and_span: tuple[int, Span]) -> object:
        span = n_and_span[1]
        return span.key.split("[", 1)[0], span.kind, span.shown

    def by_quiet(n_and_span: tuple[int, Span]) -> object:
        n, span = n_and_span
        is_long = span.seconds > LONG_SHARE * total_seconds
        return n if span.shown in LOUD or span.kind == "person" or is_long else "quiet"

    groups = [[span] for span in spans]
    for like in (by_step, by_quiet):
        if len(groups) > ROWS_MAX:
            groups = _grouped(spans, like)
    if len(groups) > ROWS_MAX:
        size = -(-len(spans) // ROWS_MAX)
        groups = [list(spans[n : n + size]) for n in range(0, len(spans), size)]
    return groups


def _grouped(spans: Sequence[Span], like: Callable[[tuple[int, Span]], object]) -> list[list[Span]]:
    return [[span for _, span in group] for _, group in groupby(enumerate(spans), key=like)]


def _row(
    spans: list[Span], position: Callable[[float], float], attempt: AttemptStory, y: float
) -> Row:
    worst = max(spans, key=lambda span: span.shown in LOUD)
    look, sign = LOOKS[worst.shown]
    if len(spans) == 1:
        told = f"{sign} {worst.shown}"
        told += f" {duration(worst.seconds)}" if worst.ended > worst.started else ""
        label = shortened(worst.key)
        hover = f"{worst.kind} {worst.key}: {worst.shown}, {duration(worst.seconds)}"
        hover += f", from {clock(worst.started)}" + (f"\n{worst.note}" if worst.note else "")
    else:
        counts = Counter(str(span.shown) for span in spans)
        seconds = _seconds_of(spans)
        counted = ", ".join(f"{n} {name}" for name, n in counts.most_common())
        told = f"{sign} {len(spans)}{TIMES} {duration(seconds)}"
        names = {span.key.split("[", 1)[0] for span in spans}
        label = f"{shortened(names.pop(), 25)} {TIMES}{len(spans)}" if len(names) == 1 else ""
        label = label or f"{len(spans)} steps"
        keys = [span.key for span in spans[:HOVER_KEYS_MAX]]
        more = len(spans) - len(keys)
        hover = f"{counted}: {', '.join(keys)}" + (f" and {more} more" if more else "")
    kinds = {span.kind for span in spans}
    kind = kinds.pop() if len(kinds) == 1 else "steps"
    return Row(y, kind, label, look, told, hover[:2000], tuple(_bars(spans, position, attempt)))


def _seconds_of(spans: Iterable[Span]) -> float:
    """How long any of the spans lasted: what is looked at side by side counts once."""
    seconds, until = 0.0, datetime.min.replace(tzinfo=UTC)
    for span in sorted(spans, key=lambda span: span.started):
        if span.ended > until:
            seconds += (span.ended - max(span.started, until)).total_seconds()
            until = span.ended
    return seconds


def _bars(
    spans: Iterable[Span], position: Callable[[float], float], attempt: AttemptStory
) -> list[Bar]:
    """The spans in pixels, those that touch as one."""
    merged: list[list[float]] = []
    for span in spans:
        start = position((span.started - attempt.started).total_seconds())
        end = max(position((span.ended - attempt.started).total_seconds()), start + BAR_PIXELS_MIN)
        if merged and start <= merged[-1][1]:
            merged[-1][1] = max(end, merged[-1][1])
        else:
            merged.append([start, end])
    return [Bar(round(start, 1), round(end - start, 1)) for start, end in merged]


def shortened(text: str, limit: int = LABEL_CHARS_MAX) -> str:
    """The text on one line, without its middle where it is too long."""
    text = " ".join(text.split())
    if len(text) <= limit:
        return text
    head = limit * 2 // 3
    return f"{text[:head]}…{text[head + 1 - limit :]}"


# -- the axis ----------------------------------------------------------------------------------


def _scale(attempt: AttemptStory) -> tuple[Callable[[float], float], bool]:
    """Where a second of the attempt lies in the plot, and whether the axis is uneven."""
    total = max(attempt.seconds, 0.001)
    room = PLOT_RIGHT - PLOT_LEFT

    def evenly(seconds: float) -> float:
        return PLOT_LEFT + room * min(max(seconds / total, 0.0), 1.0)

    timed = [span.seconds for span in attempt.spans if span.seconds > 0]
    hidden = sum(seconds * room / total < BAR_PIXELS_MIN for seconds in timed)
    if hidden * 2 <= len(timed):
        return evenly, False
    edges = {0.0, total}
    for span in attempt.spans:
        edges |= {
            min(max((moment - attempt.started).total_seconds(), 0.0), total)
            for moment in (span.started, span.ended)
        }
    seconds_at = sorted(edges)
    widths = [math.pow(after - before, UNEVEN_POWER) for before, after in pairwise(seconds_at)]
    pixels_at = [PLOT_LEFT + room * width / sum(widths) for width in accumulate([0.0, *widths])]

    def unevenly(seconds: float) -> float:
        seconds = min(max(seconds, 0.0), total)
        n = min(bisect_right(seconds_at, seconds), len(seconds_at) - 1)
        before, after = seconds_at[n - 1], seconds_at[n]
        share = (seconds - before) / (after - before)
        return pixels_at[n - 1] + share * (pixels_at[n] - pixels_at[n - 1])

    return unevenly, True


def _ticks(
    position: Callable[[float], float], total_seconds: float, *, is_uneven: bool
) -> list[Tick]:
    """Marks at round times, the roundest first, as many as there is room for."""
    steps = [seconds for seconds in TICK_SECONDS if seconds <= total_seconds]
    while steps and steps[-1] * 6 < total_seconds:
        steps.append(steps[-1] * 2)
    if not is_uneven:
        room = PLOT_RIGHT - PLOT_LEFT
        steps = [each for each in steps if room * each / total_seconds >= TICK_PIXELS_MIN][:1]
    marks = {0.0: float(PLOT_LEFT)}
    for step in reversed(steps):
        for n in range(1, min(int(total_seconds / step), 60) + 1):
            x = position(n * step)
            if all(abs(x - other) >= TICK_PIXELS_MIN for other in marks.values()):
                marks[n * step] = x
    return [Tick(round(x, 1), tick_label(seconds)) for seconds, x in sorted(marks.items())]


def tick_label(seconds: float) -> str:
    """Write a round time since the start of an attempt."""
    if seconds <= 0:
        return "0"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < MINUTE:
        return f"{seconds:.3f}".rstrip("0").rstrip(".") + " s"
    whole = round(seconds)
    parts = [(whole // HOUR, "h"), (whole % HOUR // MINUTE, "min"), (whole % MINUTE, "s")]
    return " ".join(f"{n} {unit}" for n, unit in parts if n)

"""The report of a recovery: Markdown for the Prefect UI, and one self-contained HTML page."""

import json
import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup, escape

from recovery.drill import DrillRun
from recovery.evidence.evidence import LOUD, Evidence, Exchange
from recovery.evidence.report_markdown import (
    brief,
    clock_of,
    code,
    inline,
    markdown_of,
    sentence,
    time_of,
)
from recovery.evidence.telling import read_evidence
from recovery.evidence.timeline import LOOKS, drawing_of, duration
from recovery.evidence.trend import drawing_of_trend, runs_up_to, trend_markdown
from recovery.journal.store import Journal
from recovery.left_to_person import left_to_person
from recovery.secrecy.redaction import redact
from recovery.words import field_lines, in_words

ANSWERS_PER_STEP_MAX = 200
OPEN_STEPS_MAX = 5
_IN_BACKTICKS = re.compile(r"`([^`]*)`")


def html_report(journal: Journal, recovery_id: str) -> str:
    """Write the whole report as one HTML page that needs nothing else.

    Raises:
        BadInput: there is no such recovery.
    """
    runs = runs_up_to(journal, recovery_id)
    return html_of(read_evidence(journal, recovery_id), trend_svg(runs) if runs else "")


def drill_markdown(journal: Journal, recovery_id: str) -> str:
    """Write what a drill and the runs before it measured; empty where the recovery is no drill."""
    runs = runs_up_to(journal, recovery_id)
    return trend_markdown(runs, trend_svg(runs)) if runs else ""


def markdown_report(journal: Journal, recovery_id: str, *, is_full: bool = True) -> str:
    """Write the report as Markdown of at most 200 KB; it says what was left out.

    Where it is not full, it ends before the commands and their answers.

    Raises:
        BadInput: there is no such recovery.
    """
    return markdown_of(read_evidence(journal, recovery_id), is_full=is_full)


def timeline_svg(evidence: Evidence) -> str:
    """Draw the timeline as an SVG that can stand in a page or alone."""
    return redact(environment().get_template("timeline.svg").render(drawing_of(evidence)))


def trend_svg(runs: Sequence[DrillRun]) -> str:
    """Draw the latest runs of a drill as an SVG; the last one is the one that is told about."""
    return redact(environment().get_template("trend.svg").render(drawing_of_trend(runs)))


def html_of(evidence: Evidence, trend: str = "") -> str:
    """Write the report of this evidence as HTML, with the trend where it is of a drill."""
    state = evidence.status["state"]
    left = left_to_person(evidence.status["result"])
    tones = {"recovered": "doubt" if left else "ok", "undone": "ok", "needs-person": "doubt"}
    loud_steps = sum(step.shown in LOUD for step in evidence.steps)
    text = (
        environment()
        .get_template("report.html")
        .render(
            evidence=evidence,
            status=evidence.status,
            tone=tones.get(state, "" if state in {"running", "called-off"} else "bad"),
            timeline=Markup(timeline_svg(evidence)),  # noqa: S704 (it was escaped as it was made)
            trend=Markup(trend),  # noqa: S704 (likewise)
            looks=LOOKS,
            came_to=field_lines(evidence.status["result"]),
            loud=LOUD,
            loud_few=loud_steps <= OPEN_STEPS_MAX,
            against=evidence.spoke_against(),
            back=evidence.way_back(),
            numbers={step.key: n for n, step in enumerate(evidence.steps, 1)},
            left_out=sum(
                max(0, len(step.exchanges) - ANSWERS_PER_STEP_MAX) for step in evidence.steps
            ),
        )
    )
    return redact(text)


@lru_cache(maxsize=1)
def environment() -> Environment:
    """The templates: HTML and SVG escape whatever is put into them."""
    made = Environment(
        loader=PackageLoader("recovery.evidence", "templates"),
        autoescape=select_autoescape(["html", "svg"]),
        undefined=StrictUndefined,
    )
    filters: dict[str, Callable[..., Any]] = {
        "clock": clock_of,
        "time": time_of,
        "duration": duration,
        "brief": brief,
        "words": in_words,
        "pretty": lambda value: json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True),
        "commands": _with_code,
        "ends": _ends,
        "inline": inline,
        "code": code,
        "sentence": sentence,
    }
    made.filters.update(filters)
    return made


def _ends(exchanges: Sequence[Exchange]) -> Sequence[Exchange]:
    half = ANSWERS_PER_STEP_MAX // 2
    if len(exchanges) <= ANSWERS_PER_STEP_MAX:
        return exchanges
    return [*exchanges[:half], *exchanges[-half:]]


def _with_code(text: str) -> Markup:
    parts = _IN_BACKTICKS.split(text)
    shown = [
        Markup("<code>{}</code>").format(p) if n % 2 else escape(p) for n, p in enumerate(parts)
    ]
    return Markup("").join(shown)

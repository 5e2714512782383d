"""The report of a recovery as Markdown, small enough to be an artifact of a Prefect run."""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from recovery.evidence.evidence import LOUD, Evidence, Exchange, Shown, StepStory, clock
from recovery.evidence.timeline import LOOKS, duration, shortened
from recovery.secrecy.redaction import redact
from recovery.words import EMPTY, FIELD_CHARS_MAX, field_lines, in_words

MARKDOWN_BYTES_MAX = 200_000
ROWS_MAX = 400
PLAN_STEPS_MAX = 100
CELL_CHARS_MAX = 240
BLOCK_CHARS_MAX = 1200
ESCAPED_BAR = "\\|"  # a bare bar ends a cell, even within code
_MARKDOWN_SIGNS = re.compile(r"([\\`*\[\]~!])|(?<!\w)(_)|(_)(?!\w)")
_MARKDOWN_ENTITIES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})
_IN_BACKTICKS = re.compile(r"`([^`]*)`")


def brief(value: object, limit: int = CELL_CHARS_MAX) -> str:
    """A plain value in one line."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return shortened(text, limit)


def _moment(text: object) -> datetime | None:
    if isinstance(text, datetime):
        return text
    try:
        return datetime.fromisoformat(str(text)).astimezone(UTC)
    except ValueError:
        return None


def clock_of(text: object) -> str:
    """A moment, as text or not, with its date."""
    moment = _moment(text)
    return clock(moment) if moment else str(text)


def time_of(text: object) -> str:
    """A moment, as text or not, without its date."""
    moment = _moment(text)
    return f"{moment:%H:%M:%S}" if moment else str(text)


def inline(text: object, limit: int = CELL_CHARS_MAX) -> str:
    """Text in one line of Markdown, with nothing in it that Markdown or HTML would act on."""
    line = shortened(str(text), limit).translate(_MARKDOWN_ENTITIES)
    return _MARKDOWN_SIGNS.sub(lambda found: f"\\{found[0]}", line)


def code(text: object, limit: int = CELL_CHARS_MAX) -> str:
    """Text in one line as code, also in a cell of a table."""
    line = shortened(str(text), limit)
    if not line or "\\|" in line:  # a table would take this backslash for its own
        return inline(line, limit)
    fence = "`" * (_longest_run(line) + 1)
    gap = " " if line[0] == "`" or line[-1] == "`" else ""
    return f"{fence}{gap}{line}{gap}{fence}"


def fenced(text: str, limit: int = BLOCK_CHARS_MAX) -> str:
    """Text as a block of code that nothing in it can end."""
    if len(text) > limit:
        text = f"{text[:limit]}\n… ({len(text) - limit} more characters)"
    fence = "`" * max(3, _longest_run(text) + 1)
    return f"{fence}text\n{text.rstrip()}\n{fence}"


def _longest_run(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)


@dataclass
class _Page:
    """Lines up to a number of bytes. What does not fit is named at the end instead."""

    room: int
    lines: list[str] = field(default_factory=list)
    cuts: list[str] = field(default_factory=list)

    def add(self, *lines: str) -> bool:
        """Add lines if all of them fit."""
        size = sum(len(line.encode("utf-8", "replace")) + 1 for line in lines)
        if size > self.room:
            return False
        self.room -= size
        self.lines += lines
        return True

    def heading(self, text: str) -> None:
        self.add("", f"## {text}", "")

    def table(
        self, what: str, names: Sequence[str], rows: Sequence[Sequence[str]], most: int = ROWS_MAX
    ) -> None:
        """Add a table; name how many rows had to stay out, from its middle where it is too long."""
        shown = rows if len(rows) <= most else [*rows[: most // 2], *rows[-most // 2 :]]
        lines = [f"| {' | '.join(names)} |", f"|{' --- |' * len(names)}"]
        lines += [
            f"| {' | '.join(cell.replace('|', ESCAPED_BAR) for cell in row)} |" for row in shown
        ]
        added = sum(self.add(line) for line in lines) - 2
        if added < len(rows):
            self.cuts.append(f"{len(rows) - max(added, 0)} of {len(rows)} {what}")

    def blocks(self, what: str, blocks: Sequence[Sequence[str]]) -> None:
        """Add blocks of lines for as long as there is room."""
        for n, block in enumerate(blocks):
            if not self.add(*block):
                self.cuts.append(f"{len(blocks) - n} of {len(blocks)} {what}")
                return


def markdown_of(
    evidence: Evidence, bytes_max: int = MARKDOWN_BYTES_MAX, *, is_full: bool = True
) -> str:
    """Write the report of this evidence as Markdown, with commands and answers where it is full."""
    page = _Page(bytes_max - 2000)  # kept for saying what was cut
    for write in (
        _write_head,
        _write_outcome,
        _write_against,
        _write_found,
        _write_steps,
        _write_attempts,
        _write_consent,
        _write_fork,
        _write_back,
        _write_sent if is_full else _write_where_sent,
    ):
        write(page, evidence)
    if page.cuts:
        page.lines += ["", "## Left out", "", "To keep this short, these are left out:", ""]
        page.lines += [f"- {cut}" for cut in page.cuts]
        page.lines += ["", f"All of it: `recover report {evidence.status['id']} --html FILE`."]
    return redact("\n".join(page.lines) + "\n")


def _write_head(page: _Page, evidence: Evidence) -> None:
    status = evidence.status
    page.add(
        f"# {status['state']}: {inline(status['flow'])} on {inline(status['target'])}",
        "",
        inline(evidence.headline),
        "",
        f"**What to do next:** {sentence(status['next'])}",
        "",
    )
    if status["error"] and status["state"] not in {"recovered", "undone"}:
        page.add("**Why it stopped:**", "", fenced(status["error"]), "")
    intact = f"chain intact, {status['journal']['events']} events"
    broken = f"**broken in {len(evidence.flaws)} places: nothing here is proof**"
    page.add(
        f"- Recovery {code(status['id'])}, opened {clock_of(status['opened_at'])}",
        f"- Asked for by {inline(evidence.requested_by or 'nobody known')}"
        + (f", as flow run {code(evidence.attempts[0].flow_run_id)}" if evidence.attempts else ""),
        f"- Steps where they should be: {evidence.steps_done} of {len(status['steps'])} recorded",
        f"- Time: {duration(evidence.working_seconds)} working, "
        f"{duration(evidence.gap_seconds('waiting'))} waiting, "
        f"{duration(evidence.gap_seconds('lost'))} lost",
        f"- Journal: {broken if evidence.flaws else intact}",
        *(f"  - {inline(flaw)}" for flaw in evidence.flaws[:20]),
    )
    if status["runbook"]:
        page.add(f"- Runbook: {code(status['runbook'])}")
    if status["parameters"]:
        named = status["parameters"].items()
        given = [f"{code(name)} = {code(brief(v))}" for name, v in named if v not in EMPTY]
        empty = [code(name) for name, v in named if v in EMPTY]
        page.add(f"- Parameters: {', '.join(given) or 'none'}")
        if empty:
            page.add(f"- Left empty: {', '.join(empty)}")


def _write_outcome(page: _Page, evidence: Evidence) -> None:
    """What the recovery came to, a line for each field."""
    if lines := field_lines(evidence.status["result"]):
        page.heading("Outcome")
        page.blocks("lines of the outcome", [[_bullet(line)] for line in lines])


def _write_found(page: _Page, evidence: Evidence) -> None:
    """What the steps returned, in short."""
    found = evidence.status["found"]
    if found:
        page.heading("What the steps found")
        values = {step.key: step.result for step in evidence.steps}
        page.blocks("of what the steps found", [[_found(row, values)] for row in found])


def _found(row: dict[str, Any], values: dict[str, Any]) -> str:
    value = values.get(row["key"])
    told = row["told"] if value is None else in_words(value, FIELD_CHARS_MAX)
    return f"- {code(row['key'], 100)}: {inline(told, FIELD_CHARS_MAX)}"


def _bullet(line: str) -> str:
    text = line.lstrip(" ")
    return f"{' ' * (len(line) - len(text))}- {inline(text, FIELD_CHARS_MAX * 2)}"


def _write_against(page: _Page, evidence: Evidence) -> None:
    spans = evidence.spoke_against()
    if spans:
        page.heading("What spoke against it")
        rows = [
            (clock_of(s.ended), str(s.attempt), code(s.key, 100), _sign(s.shown), inline(s.note))
            for s in spans
        ]
        names = ("When", "Attempt", "Step", "What", "Why")
        page.table("refusals, failures and doubts", names, rows, 60)


def _write_steps(page: _Page, evidence: Evidence) -> None:
    page.heading("Steps")
    rows = [
        (
            code(step.key, 100),
            step.kind,
            _sign(step.shown) + _restored(step),
            inline(step.verdict if step.kind == "act" else "", 80),
            str(step.attempt or ""),
            duration(step.seconds) if step.spans else "",
            time_of(step.ended_at),
        )
        for step in evidence.steps
    ]
    names = ("Step", "Kind", "Outcome", "Verdict", "Attempt", "Took", "Ended")
    page.table("steps", names, rows)


def _write_attempts(page: _Page, evidence: Evidence) -> None:
    page.heading("Attempts")
    gaps = {gap.after: gap for gap in evidence.gaps}
    rows = []
    for attempt in evidence.attempts:
        ended = attempt.ended_as or "at work"
        way = " (way back)" if attempt.goes == "back" else ""
        worked = duration(attempt.seconds)
        worker = inline(attempt.worker, 60)
        rows.append((f"{attempt.n}{way}", ended, clock_of(attempt.started), worked, worker))
        if gap := gaps.get(attempt.n):
            rows.append(("", f"*{gap.kind}*", clock_of(gap.started), duration(gap.seconds), ""))
    page.table("attempts", ("Attempt", "Ended as", "Began", "Lasted", "Worker"), rows, 60)


def _write_consent(page: _Page, evidence: Evidence) -> None:
    if not evidence.plan and not evidence.people:
        return
    page.heading("Plan and approvals")
    if evidence.people:
        rows = [
            (clock_of(said.ended), str(said.shown), code(said.key, 100), inline(said.note))
            for said in evidence.people
        ]
        page.table("approvals and orders", ("When", "What", "About", "By whom"), rows, 60)
    if evidence.plan:
        page.add("", f"Plan {code(evidence.plan.get('hash', ''))}:", "")
        for text in evidence.plan.get("refusals", []):
            page.add(f"- it would be refused: {inline(text)}")
        acts = [step for step in evidence.plan.get("steps", []) if step["kind"] == "act"]
        lines = [
            f"- {code(act['key'], 100)}: {'; '.join(map(code, act['commands'][:5])) or 'nothing'}"
            + (f" and {len(act['commands']) - 5} more" if len(act["commands"]) > 5 else "")  # noqa: PLR2004
            for act in acts[:PLAN_STEPS_MAX]
        ]
        page.blocks("acts of the plan", [[line] for line in lines])
        if len(acts) > PLAN_STEPS_MAX:
            page.cuts.append(f"{len(acts) - PLAN_STEPS_MAX} of {len(acts)} acts of the plan")


def _write_fork(page: _Page, evidence: Evidence) -> None:
    fork = evidence.status["forked_from"]
    if not fork:
        return
    page.heading("Fork")
    first = f", from step {code(fork['from_step'])} on" if fork.get("from_step") else ""
    page.add(f"Begun from recovery {code(fork.get('recovery', ''))}{first}.", "")
    for name, (was, now) in (fork.get("changed") or {}).items():
        page.add(f"- changed: {code(name)} was {code(brief(was))}, is {code(brief(now))}")
    for word, keys in (("reused", fork.get("reused")), ("done anew", fork.get("redone"))):
        page.add(f"- {word} ({len(keys or [])}): {_few(keys or [])}")


def _write_back(page: _Page, evidence: Evidence) -> None:
    if spans := evidence.way_back():
        page.heading("Way back")
        rows = [
            (clock_of(s.ended), code(s.key, 100), _sign(s.shown), inline(s.note)) for s in spans
        ]
        page.table("steps back", ("When", "Step", "Outcome", "Why"), rows, 100)


def _write_sent(page: _Page, evidence: Evidence) -> None:
    """What changed something, and what was said where it failed; what went wrong comes first."""
    steps = sorted(evidence.steps, key=lambda step: step.shown not in LOUD)
    blocks = []
    for step in steps:
        blocks += [_exchange(step, e) for e in step.exchanges if e.is_change or e.error]
    if blocks:
        page.heading("Commands that change something, and their answers")
        page.blocks("commands", blocks)
    looks = sum(not (e.is_change or e.error) for step in steps for e in step.exchanges)
    if looks:
        page.cuts.append(f"{looks} commands that only looked, and their answers")


def _write_where_sent(page: _Page, evidence: Evidence) -> None:
    sent = sum(len(step.exchanges) for step in evidence.steps)
    if sent:
        shown = f"`recover report {evidence.status['id']} --full`"
        page.add("", f"{sent} commands were sent: {shown} has those that change something.")


def _exchange(step: StepStory, sent: Exchange) -> list[str]:
    ended = f", exit code {inline(sent.exit_code)}" if sent.exit_code else ""
    about = f"{code(sent.step, 100)} on {inline(sent.target)}, attempt {sent.attempt}"
    about += f", {time_of(sent.at)}, {duration(sent.seconds)}{ended} ({step.shown}):"
    lines = [about, "", fenced(sent.command)]
    lines += [fenced(text) for text in (sent.answer, sent.error) if text]
    return [*lines, ""]


def _restored(step: StepStory) -> str:
    return f", Restored in {', '.join(map(str, step.restored_in))}" if step.restored_in else ""


def _sign(shown: Shown) -> str:
    return f"{LOOKS[shown][1]} {shown}"


def _few(keys: Iterable[str], most: int = 30) -> str:
    named = [code(key, 100) for key in keys]
    more = f" and {len(named) - most} more" if len(named) > most else ""
    return f"{', '.join(named[:most]) or 'none'}{more}"


def sentence(text: str) -> str:
    """A sentence as Markdown; commands in backticks stay code."""
    parts = _IN_BACKTICKS.split(text)
    shown = (code(p, 1000) if n % 2 else inline(p, 1000) for n, p in enumerate(parts))
    return re.sub(r"` ([,;:)])", r"`\1", " ".join(part for part in shown if part))

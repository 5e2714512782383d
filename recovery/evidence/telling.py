"""Telling the evidence from a journal: one pass over the events, keeping what belongs together."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from itertools import zip_longest
from typing import Any

from recovery.evidence.evidence import (
    SHOWN_BY_HOW,
    UNDO_PREFIX,
    AttemptStory,
    Evidence,
    Exchange,
    Gap,
    Shown,
    Span,
    StepStory,
    harmless,
    shown_of,
)
from recovery.evidence.found import told_of, value_of
from recovery.evidence.line import Line
from recovery.evidence.status import Reading, as_status, read_recovery, readable_events
from recovery.journal.consents import LOOKED
from recovery.journal.events import Kind
from recovery.journal.history import LOST
from recovery.journal.store import Journal

_LOST_NOTE = "its attempt was lost before an outcome was written"


def read_evidence(journal: Journal, recovery_id: str) -> Evidence:
    """Read a recovery and arrange what the journal says of it.

    Raises:
        BadInput: there is no such recovery.
    """
    return evidence_of(read_recovery(journal, recovery_id))


def evidence_of(reading: Reading) -> Evidence:
    """Arrange what the journal says of a recovery."""
    return _Telling(reading).tell()


@dataclass
class _Telling:
    """What is known so far."""

    reading: Reading
    attempts: dict[int, AttemptStory] = field(default_factory=dict)
    people: list[Span] = field(default_factory=list)
    exchanges: list[Exchange] = field(default_factory=list)
    begun: dict[str, Span] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)
    order: dict[str, int] = field(default_factory=dict)
    furthest: dict[int, int] = field(default_factory=dict)
    asked_at: dict[str, datetime] = field(default_factory=dict)
    commands: dict[str, list[str]] = field(default_factory=dict)

    def tell(self) -> Evidence:
        """Go through the events."""
        status = harmless(as_status(self.reading))
        plan = harmless(self.reading.history.plan)
        self.kinds = {step["key"]: step["kind"] for step in plan.get("steps", [])}
        self.kinds |= {step["key"]: step["kind"] for step in status["steps"]}
        for event in readable_events(self.reading):
            self._take(
                Line(
                    event.kind,
                    harmless(event.step),
                    event.attempt,
                    event.seq,
                    event.epoch,
                    event.moment,
                    harmless(event.body),
                )
            )
        for key, begun in list(self.begun.items()):
            is_live = begun.attempt == self.reading.live_attempt
            shown, note = (Shown.RUNNING, "") if is_live else (Shown.IN_DOUBT, _LOST_NOTE)
            self._close(key, shown, begun.ended, note)
        for row in status["attempts"]:
            if story := self.attempts.get(row["n"]):
                story.ended_as, story.error = row["ended_as"] or "", row["error"]
        self._add_looks()
        attempts = sorted(self.attempts.values(), key=lambda attempt: attempt.n)
        for attempt in attempts:
            attempt.spans.sort(key=lambda span: (span.started, span.ended))
        last = self.reading.events[-1].moment
        gaps = self._gaps(attempts, last)
        steps = self._steps(status)
        who = harmless(self.reading.history.requested_by)
        flaws = self.reading.flaws
        return Evidence(status, attempts, gaps, steps, self.people, plan, flaws, last, who)

    # -- events ----------------------------------------------------------------------------------

    def _take(self, line: Line) -> None:
        if line.kind == Kind.ATTEMPT_STARTED:
            for key, begun in list(self.begun.items()):
                self._close(key, Shown.IN_DOUBT, begun.ended, _LOST_NOTE)
            self.attempts[line.n] = AttemptStory(
                line.n,
                line.text("flow_run_id"),
                line.epoch,
                line.worker,
                line.text("release"),
                line.text("goes") or "forward",
                line.text("ordered_by"),
                line.at,
                line.at,
            )
        if line.n in self.attempts:
            self.attempts[line.n].ended = max(line.at, self.attempts[line.n].ended)
        if line.key:
            place = self.order.setdefault(line.key.removeprefix(UNDO_PREFIX), line.seq)
            if line.kind != Kind.COMMAND:
                self.furthest[line.n] = max(place, self.furthest.get(line.n, 0))
        _TAKE.get(line.kind, _pass_by)(self, line)

    def intended(self, line: Line) -> None:
        self._begin(line.key, "act", line.began, line)
        self.commands[line.key] = [str(text) for text in line.body.get("commands") or []]

    def undo_intended(self, line: Line) -> None:
        self._begin(UNDO_PREFIX + line.key, "undo", line.at, line)

    def done(self, line: Line) -> None:
        how = line.text("how")
        shown = SHOWN_BY_HOW.get(how, Shown.COMPLETED)
        if line.key in self.begun:
            self._close(line.key, shown, line.at)
        elif shown is not Shown.REUSED:
            began = self.asked_at.get(line.key, line.at) if how == "reconciled" else line.began
            self._add(Span(line.n, line.key, "act", shown, began, line.at))

    def failed(self, line: Line) -> None:
        if line.key in self.begun:
            self._close(line.key, Shown.FAILED, line.at, line.text("error"))
        else:
            self._looked(line, Shown.FAILED, line.text("error"))

    def looked(self, line: Line) -> None:
        note = line.text("reason") or told_of(line.body)
        self._looked(line, Shown(line.kind.capitalize()), note)

    def saw(self, line: Line) -> None:
        self._looked(line, Shown.LOOKED, told_of(line.body))

    def verdict(self, line: Line) -> None:
        self.asked_at[line.key] = line.at
        verdict = line.text("verdict")
        if verdict in {"unknown", "half-done"}:
            note = f"its probe says {verdict}"
            self._add(Span(line.n, line.key, "act", Shown.IN_DOUBT, line.at, line.at, note))

    def stale(self, line: Line) -> None:
        note = f"it was done; its probe now says {line.text('verdict')}"
        self._add(Span(line.n, line.key, "act", Shown.STALE, line.at, line.at, note))

    def undone(self, line: Line) -> None:
        self._close(UNDO_PREFIX + line.key, Shown.UNDONE, line.at)

    def undo_failed(self, line: Line) -> None:
        self._close(UNDO_PREFIX + line.key, Shown.UNDO_FAILED, line.at, line.text("error"))

    def command(self, line: Line) -> None:
        seconds = line.body.get("seconds")
        self.exchanges.append(
            Exchange(
                line.at,
                line.n,
                line.key,
                line.text("target"),
                line.text("command"),
                line.text("answer"),
                line.body.get("is_change") is True,
                float(seconds) if isinstance(seconds, int | float) else 0.0,
                line.text("exit_code"),
                line.text("error"),
            )
        )

    def resolved(self, line: Line) -> None:
        how = line.text("as")
        shown = Shown.ABANDONED if how == "abandon" else Shown.RESOLVED
        self._said(line, shown, line.key, "" if how == "abandon" else f"as {how} ")

    def planned(self, line: Line) -> None:
        """A plan is made by looking only: what it takes would else be an empty stretch."""
        if attempt := self.attempts.get(line.n):
            began = max([attempt.started, *(span.ended for span in attempt.spans)])
            note = f"walked without changing anything: {len(line.body.get('steps') or [])} steps"
            plan = f"plan {line.text('hash')}"
            self._add(Span(line.n, plan, "probe", Shown.LOOKED, began, line.at, note))

    def approved(self, line: Line) -> None:
        until = f", until {line.text('until')}" if line.text("until") else ""
        how = "" if line.text("how") in {"approved", ""} else f"{line.text('how')} "
        self._said(line, Shown(line.kind.capitalize()), f"plan {line.text('hash')}", how, until)

    def disregarded(self, line: Line) -> None:
        if line.body.get("called_off"):
            self._said(line, Shown.DISREGARDED, "the order", "")
        elif line.text("why") != LOOKED:  # so `recover approve` wakes the run, which is no answer
            self.approved(line)

    def taken_over(self, line: Line) -> None:
        self._said(line, Shown.TAKEN_OVER, "the lease", "")

    # -- spans -----------------------------------------------------------------------------------

    def _said(self, line: Line, shown: Shown, key: str, how: str, until: str = "") -> None:
        why = line.text("reason") or line.text("why")
        reason = f": {why}" if why else ""
        note = f"{how}by {line.text('by')}{until}{reason}"
        span = Span(line.n, key, "person", shown, line.at, line.at, note)
        self.people.append(span)
        self._add(span)

    def _looked(self, line: Line, shown: Shown, note: str) -> None:
        kind = line.text("kind") or self.kinds.get(line.key, "probe")
        if line.n:  # what a fork takes along was not looked at anew
            self._add(Span(line.n, line.key, kind, shown, line.began, line.at, note))

    def _begin(self, key: str, kind: str, began: datetime, line: Line) -> None:
        if key in self.begun:
            self._close(key, Shown.IN_DOUBT, self.begun[key].ended)
        self.begun[key] = Span(line.n, key, kind, Shown.RUNNING, began, line.at)

    def _close(self, key: str, shown: Shown, at: datetime, note: str = "") -> None:
        begun = self.begun.pop(key, None)
        if begun is None:
            return
        if shown in {Shown.IN_DOUBT, Shown.RUNNING} and begun.attempt in self.attempts:
            at = max(at, self.attempts[begun.attempt].ended)
        self._add(Span(begun.attempt, key, begun.kind, shown, begun.started, at, note))

    def _add(self, span: Span) -> None:
        if span.attempt in self.attempts:
            self.attempts[span.attempt].spans.append(span)

    def _add_looks(self) -> None:
        """Tell of looks by what they sent: probes, and steps passed over that were asked again."""
        known = {(span.attempt, span.key) for each in self.attempts.values() for span in each.spans}
        known |= {(n, key.removeprefix(UNDO_PREFIX)) for n, key in known}
        sent: dict[tuple[int, str], list[Exchange]] = {}
        for exchange in self.exchanges:
            sent.setdefault((exchange.attempt, exchange.step), []).append(exchange)
        for (n, key), exchanges in sent.items():
            if (n, key) in known:
                continue
            kind = self.kinds.get(key, "probe")
            was_done = kind in {"act", "decision"} and n > min(
                (span_n for span_n, span_key in known if span_key == key), default=n
            )
            self._add(
                Span(
                    n,
                    key,
                    kind,
                    Shown.RESTORED if was_done else Shown.LOOKED,
                    exchanges[0].started,
                    exchanges[-1].at,
                    exchanges[-1].error,
                )
            )

    def _gaps(self, attempts: list[AttemptStory], last: datetime) -> list[Gap]:
        said = [span for span in self.people if not span.attempt]
        gaps = []
        for before, after in zip_longest(attempts, attempts[1:]):
            end = after.started if after else last
            within = tuple(
                span
                for span in said
                if before.ended <= span.ended and (after is None or span.ended <= end)
            )
            if after or within:
                kind = LOST if before.ended_as == LOST else "waiting"
                gaps.append(Gap(before.n, kind, before.ended, end, within))
        return gaps

    # -- steps -----------------------------------------------------------------------------------

    def _steps(self, status: dict[str, Any]) -> list[StepStory]:
        rows = {row["key"]: row for row in status["steps"]}
        spans: dict[str, list[Span]] = {}
        for attempt in self.attempts.values():
            for span in attempt.spans:
                spans.setdefault(span.key.removeprefix(UNDO_PREFIX), []).append(span)
        exchanges: dict[str, list[Exchange]] = {}
        for exchange in self.exchanges:
            exchanges.setdefault(exchange.step.removeprefix(UNDO_PREFIX), []).append(exchange)
        history = self.reading.history
        results = {harmless(key): value_of(body) for key, body in history.seen.items()}
        results |= {harmless(key): step.result for key, step in history.steps.items()}
        return [
            self._step(
                key,
                rows.get(key),
                spans.get(key, []),
                exchanges.get(key, []),
                harmless(results.get(key)),
            )
            for key in sorted(self.order, key=self.order.__getitem__)
        ]

    def _step(
        self,
        key: str,
        row: dict[str, Any] | None,
        spans: list[Span],
        exchanges: list[Exchange],
        result: Any,
    ) -> StepStory:
        spans = [span for span in spans if span.kind != "person"]
        if row is None:
            last = spans[-1] if spans else None
            return StepStory(
                key=key,
                kind=self.kinds.get(key, "probe"),
                target=exchanges[-1].target if exchanges else "",
                danger="read",
                shown=last.shown if last else Shown.LOOKED,
                attempt=last.attempt if last else 0,
                started_at=last.started.isoformat() if last else "",
                ended_at=last.ended.isoformat() if last else "",
                error=last.note if last and result is None else "",
                result=result,
                spans=spans,
                exchanges=exchanges,
            )
        return StepStory(
            key=key,
            kind=row["kind"],
            target=row["target"],
            danger=row["danger"],
            shown=shown_of(row),
            attempt=row["attempt"],
            started_at=row["started_at"] or "",
            ended_at=row["ended_at"] or "",
            error=row["error"],
            verdict=row["verdict"],
            result=result,
            restored_in=self._restored_in(key, row, spans),
            commands=self.commands.get(key, []),
            spans=spans,
            exchanges=exchanges,
        )

    def _restored_in(self, key: str, row: dict[str, Any], spans: list[Span]) -> list[int]:
        """The attempts that came past the step after it was done and found it done."""
        if row["state"] not in {"done", "already-so"}:
            return []
        own = {span.attempt for span in spans if span.shown is not Shown.RESTORED}
        return [
            n
            for n, attempt in sorted(self.attempts.items())
            if n > row["attempt"]
            and n not in own
            and attempt.goes != "back"
            and (self.furthest.get(n, 0) > self.order[key] or attempt.ended_as == "recovered")
        ]


def _pass_by(telling: _Telling, line: Line) -> None:
    pass


_TAKE: dict[str, Callable[[_Telling, Line], None]] = {
    Kind.INTENDED: _Telling.intended,
    Kind.DONE: _Telling.done,
    Kind.FAILED: _Telling.failed,
    **dict.fromkeys((Kind.PASSED, Kind.REFUSED, Kind.VERIFIED, Kind.DECIDED), _Telling.looked),
    Kind.SAW: _Telling.saw,
    Kind.VERDICT: _Telling.verdict,
    Kind.STALE: _Telling.stale,
    Kind.UNDO_INTENDED: _Telling.undo_intended,
    Kind.UNDONE: _Telling.undone,
    Kind.UNDO_FAILED: _Telling.undo_failed,
    Kind.COMMAND: _Telling.command,
    Kind.RESOLVED: _Telling.resolved,
    Kind.PLANNED: _Telling.planned,
    **dict.fromkeys((Kind.APPROVED, Kind.REJECTED), _Telling.approved),
    Kind.DISREGARDED: _Telling.disregarded,
    Kind.TAKEN_OVER: _Telling.taken_over,
}

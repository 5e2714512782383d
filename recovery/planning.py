"""The walk that changes nothing: it looks, and asks every act for its exact commands."""

from bisect import bisect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from recovery.checkpoint import kept_result, plain_arguments
from recovery.errors import Refused, Unreachable
from recovery.journal.history import StepRecord
from recovery.plan import RECOVERY_ID, Plan, PlannedStep, without_identity
from recovery.secrecy.redaction import redact
from recovery.steps import Step, StepKind, ask
from recovery.values import from_plain
from recovery.verdict import Danger, Verdict
from recovery.walk import REMEMBERED, Fence, Gate, Outcome, StepCall, Walk, gated, refuse_empty
from recovery.words import FIELD_CHARS_MAX, told


@dataclass
class PlanWalk(Walk):
    """Fills a plan.

    Attributes:
        plan: what is filled.
        identities: ids to leave out of the commands, the recovery's own first, where known.
        decisions: decisions that stand already, by key; the others are looked at and forgotten.
        reusable: what a fork may take over, by key: as far as the walk comes to nothing else.
        reused: keys of what it does take over.
        redone: keys of the acts and decisions behind that.
    """

    plan: Plan = field(kw_only=True)
    identities: tuple[str, ...] = field(kw_only=True, default=())
    decisions: Mapping[str, dict[str, Any]] = field(kw_only=True, default_factory=dict)
    reusable: Mapping[str, StepRecord] = field(kw_only=True, default_factory=dict)
    reused: list[str] = field(default_factory=list)
    redone: list[str] = field(default_factory=list)
    _listed: list[int] = field(default_factory=list)
    _to_be_ended: set[str] = field(default_factory=set)

    @property
    def fence(self) -> Fence:
        """See Walk."""
        return Fence(next(iter(self.identities), RECOVERY_ID), 0, self.target)

    def perform_over(
        self,
        step: Step[Any, Any],
        targets: Sequence[Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        keeps_errors: bool = False,
    ) -> list[Any]:
        """See Walk. What is remembered is come to in one order only, or plans would differ."""
        if step.kind not in REMEMBERED:
            return super().perform_over(step, targets, args, kwargs, keeps_errors=keeps_errors)
        results = []
        for target in targets:
            results += super().perform_over(step, [target], args, kwargs, keeps_errors=keeps_errors)
        return results

    def carry_out(self, call: StepCall) -> Outcome:
        """Look, or foretell."""
        match call.step.kind:
            case StepKind.ACT:
                return self._foretell(call)
            case StepKind.DECISION:
                return self._decide(call)
            case StepKind.VERIFY:
                self._list_look(call)
                return Outcome("Planned", "would be verified", call.step.not_asked)
            case _:
                return self._look(call)

    def _look(self, call: StepCall) -> Outcome:
        with gated(Gate(self, call)):
            try:
                seen = call.step.fn(**call.arguments)
            except Refused as refused:
                if not call.step.is_guard:
                    raise
                self._list_look(call)
                self.plan.refusals.append(redact(str(refused)))
                return Outcome("Refused", str(refused))
        self._list_look(call, "" if call.step.is_guard else told(seen, FIELD_CHARS_MAX))
        return Outcome("Completed", "looked", seen)

    def _decide(self, call: StepCall) -> Outcome:
        outcome = self._decided(call)
        self._list_look(call, told(outcome.result, FIELD_CHARS_MAX))
        return outcome

    def _decided(self, call: StepCall) -> Outcome:
        _, hashed = plain_arguments(call, self.identities)
        if (record := self._reuse(call, hashed)) is not None:
            return Outcome("Restored", "decided", from_plain(call.step.returns, record.result))
        made = self.decisions.get(call.key)
        if made is not None and made.get("arguments_hash") == hashed:
            return Outcome("Restored", "decided", from_plain(call.step.returns, made["value"]))
        with gated(Gate(self, call)):
            _, value = kept_result(call, call.step.fn(**call.arguments))
        refuse_empty(call, value)
        return Outcome("Completed", "decided", value)

    def _foretell(self, call: StepCall) -> Outcome:
        terms = call.terms
        _, hashed = plain_arguments(call, self.identities)
        record = self._reuse(call, hashed)
        with gated(Gate(self, call)):
            verdict = self._verdict(call)
            commands = [] if verdict is Verdict.DONE else list(ask(terms.commands, call.arguments))
            if verdict is not Verdict.DONE:
                self._ask_guards(call)
            if record is not None and record.result is not None:
                result = from_plain(call.step.returns, record.result)
            else:
                result = None if terms.expected is None else ask(terms.expected, call.arguments)
        planned = tuple(redact(without_identity(str(text), self.identities)) for text in commands)
        is_there = verdict is Verdict.DONE
        more = {"commands": planned, "is_already_so": is_there, "only_if": terms.only_if}
        step = self._planned(call, terms.danger, **more)
        self._list(call, step)
        return Outcome("Planned", f"{len(planned)} commands", result)

    def _verdict(self, call: StepCall) -> Verdict:
        """What the probe says now, where that is what it will say when the act is come to.

        It is not, where an earlier act of the plan is there to be ended by this one (scaled down,
        scaled back), or has to start first what would answer.
        """
        if call.step.name in self._to_be_ended or call.terms.done_when is None:
            verdict = Verdict.NOT_DONE
        else:
            try:
                verdict = Verdict.of(ask(call.terms.done_when, call.arguments))
            except Unreachable:
                return Verdict.UNKNOWN
        if verdict is not Verdict.DONE and call.terms.lasts_until:
            self._to_be_ended.add(call.terms.lasts_until)
        return verdict

    def _reuse(self, call: StepCall, hashed: str) -> StepRecord | None:
        """What a fork takes over: nothing any more once one step is another than it was."""
        record = self.reusable.get(call.key)
        if self.redone or record is None or record.arguments_hash != hashed:
            self.redone.append(call.key)
            return None
        self.reused.append(call.key)
        return record

    def _ask_guards(self, call: StepCall) -> None:
        for guard in call.terms.refuse_if:
            try:
                ask(guard, call.arguments)
            except Refused as refused:
                self.plan.refusals.append(redact(str(refused)))

    def _list_look(self, call: StepCall, found: str = "") -> None:
        self._list(call, self._planned(call, found=without_identity(found, self.identities)))

    def _planned(self, call: StepCall, danger: Danger = Danger.READ, **more: Any) -> PlannedStep:
        target = without_identity(call.target, self.identities)
        return PlannedStep(call.key, str(call.step.kind), target, str(danger), **more)

    def _list(self, call: StepCall, step: PlannedStep) -> None:
        """Enter a step where the flow comes to it, whichever of several at once was first."""
        with self._lock:
            index = bisect(self._listed, call.place)
            self._listed.insert(index, call.place)
            self.plan.steps.insert(index, step)

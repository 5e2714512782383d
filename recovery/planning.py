"""The walk that changes nothing: it looks, and asks every act for its exact commands."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from recovery.attempt import arguments_hash
from recovery.errors import Refused, Unreachable
from recovery.plan import RECOVERY_ID, Plan, PlannedStep, without_identity
from recovery.redaction import redact
from recovery.steps import StepKind, ask
from recovery.values import from_plain, to_plain
from recovery.verdict import Danger, Verdict
from recovery.walk import Fence, Gate, Outcome, StepCall, Walk, gated


@dataclass
class PlanWalk(Walk):
    """Fills a plan.

    Attributes:
        plan: what is filled.
        recovery_id: whose id to leave out of the commands, where it is known.
        decisions: decisions that stand already, by key; the others are looked at and forgotten.
        fingerprints: the hash of every act's and decision's arguments, by key.
    """

    plan: Plan = field(kw_only=True)
    recovery_id: str = field(kw_only=True, default="")
    decisions: Mapping[str, dict[str, Any]] = field(kw_only=True, default_factory=dict)
    fingerprints: dict[str, str] = field(default_factory=dict)

    @property
    def fence(self) -> Fence:
        """See Walk."""
        return Fence(self.recovery_id or RECOVERY_ID, 0)

    def carry_out(self, call: StepCall) -> Outcome:
        """Look, or foretell."""
        match call.step.kind:
            case StepKind.ACT:
                return self._foretell(call)
            case StepKind.DECISION:
                return self._decide(call)
            case StepKind.VERIFY:
                self._list(call)
                return Outcome("Planned", "would be verified", _nothing(call.step.returns))
            case _:
                return self._look(call)

    def _look(self, call: StepCall) -> Outcome:
        self._list(call)
        with gated(Gate(self, call)):
            try:
                return Outcome("Completed", "looked", call.step.fn(**call.arguments))
            except Refused as refused:
                if not call.step.is_guard:
                    raise
                self.plan.refusals.append(redact(str(refused)))
                return Outcome("Refused", str(refused))

    def _decide(self, call: StepCall) -> Outcome:
        self._list(call)
        hashed = self._keep_fingerprint(call)
        made = self.decisions.get(call.key)
        if made is not None and made.get("arguments_hash") == hashed:
            return Outcome("Restored", "decided", from_plain(call.step.returns, made["value"]))
        with gated(Gate(self, call)):
            plain = to_plain(call.step.fn(**call.arguments))
        return Outcome("Completed", "decided", from_plain(call.step.returns, plain))

    def _foretell(self, call: StepCall) -> Outcome:
        terms = call.step.terms
        if terms is None:
            raise TypeError(f"{call.step!r} is declared as an act without terms")
        self._keep_fingerprint(call)
        with gated(Gate(self, call)):
            verdict = Verdict.NOT_DONE
            if terms.done_when is not None:
                try:
                    verdict = Verdict.of(ask(terms.done_when, call.arguments))
                except Unreachable:  # what an earlier step of the plan will start or make
                    verdict = Verdict.UNKNOWN
            commands = [] if verdict is Verdict.DONE else list(ask(terms.commands, call.arguments))
            if verdict is not Verdict.DONE:
                self._ask_guards(call)
            result = None if terms.expected is None else ask(terms.expected, call.arguments)
        planned = tuple(redact(without_identity(str(text), self.recovery_id)) for text in commands)
        self.plan.steps.append(
            PlannedStep(
                call.key,
                str(call.step.kind),
                call.target,
                str(terms.danger),
                planned,
                is_already_so=verdict is Verdict.DONE,
            )
        )
        return Outcome("Planned", f"{len(planned)} commands", result)

    def _keep_fingerprint(self, call: StepCall) -> str:
        plain = {name: to_plain(value) for name, value in call.arguments.items()}
        hashed = self.fingerprints[call.key] = arguments_hash(plain, self.recovery_id)
        return hashed

    def _ask_guards(self, call: StepCall) -> None:
        terms = call.step.terms
        for guard in terms.refuse_if if terms else ():
            try:
                ask(guard, call.arguments)
            except Refused as refused:
                self.plan.refusals.append(redact(str(refused)))

    def _list(self, call: StepCall) -> None:
        self.plan.steps.append(
            PlannedStep(call.key, str(call.step.kind), call.target, str(Danger.READ))
        )


def _nothing(annotation: Any) -> Any:
    """What a verify that was not asked gives the flow: the empty value of its type."""
    return annotation() if annotation in {int, float, str, bool, list, dict, tuple} else None

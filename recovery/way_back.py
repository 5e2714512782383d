"""Going back: what a recovery did is undone last step first, journaled and resumable like an act.

The flow is walked once more with what the journal remembers, up to where it ended, so that every
step back gets the very arguments its act had. What is on record and was not come to that way is
never passed over in silence: the recovery is not undone then, and a person is told what is left.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from recovery.checkpoint import plain_arguments, refuse_changed_arguments
from recovery.errors import Refused, UndoFailed
from recovery.fan_out import TargetsFailed
from recovery.journal.events import Kind
from recovery.journal.history import StepState
from recovery.journaled_walk import JournaledWalk
from recovery.secrecy.redaction import redact
from recovery.steps import Step, StepKind
from recovery.values import fingerprint, from_plain, to_plain
from recovery.verdict import Verdict
from recovery.walk import EndOfRecord, Gate, NeverBegan, Outcome, StepCall, gated


@dataclass
class WayBack(JournaledWalk):
    """Collects the acts that were done, then undoes them. `cut_short`: why no more were found."""

    acts: list[StepCall] = field(default_factory=list)
    cut_short: str = ""

    def collect(self, walked: Callable[["WayBack"], Any]) -> None:
        """Go along the flow up to where it ended, as far as targets of a fan-out each came."""
        try:
            walked(self)
        except (EndOfRecord, NeverBegan):
            pass
        except TargetsFailed as failed:
            others = [one for one in failed.errors.values() if not isinstance(one, NeverBegan)]
            self.cut_short = "; ".join(map(str, others))

    def carry_out(self, call: StepCall) -> Outcome:
        """Remember the acts on the way; do the steps back."""
        match call.step.kind:
            case StepKind.ACT:
                return self._collect(call)
            case StepKind.DECISION:
                made = self.history.decisions.get(call.key)
                if made is None:
                    raise EndOfRecord
                return Outcome("Restored", "decided", from_plain(call.step.returns, made["value"]))
            case StepKind.UNDO:
                return self._undo(call)
            case _ if call.step.is_guard or call.step.kind is StepKind.VERIFY:
                return Outcome("Passed", "not asked on the way back", call.step.not_asked)
            case _:
                return self._look(call)

    def _look(self, call: StepCall) -> Outcome:
        """What a probe saw on the way there, when the target was not half changed yet."""
        body = self.history.seen.get(call.key)
        if body is None or "value" not in body:
            with gated(Gate(self, call)):
                return Outcome("Completed", "looked", call.step.fn(**call.arguments))
        try:
            return Outcome("Restored", "seen then", from_plain(call.step.returns, body["value"]))
        except ValidationError:  # it stood for something that is no value, as a connection does
            with gated(Gate(self, call)):
                return Outcome("Completed", "looked", call.step.fn(**call.arguments))

    def _collect(self, call: StepCall) -> Outcome:
        record = self.history.steps.get(call.key)
        if record is None:
            raise EndOfRecord
        arguments, hashed = plain_arguments(call, self.history.identities)
        made = {"arguments": record.arguments, "arguments_hash": record.arguments_hash}
        refuse_changed_arguments(call, made, arguments, hashed, self.history)
        self.acts.append(call)
        return Outcome("Restored", "recorded", self._result_of(call))

    def _result_of(self, call: StepCall) -> Any:
        recorded = self.history.steps[call.key].result
        if recorded is not None:
            return from_plain(call.step.returns, recorded)
        expected = call.terms.expected
        return None if expected is None else self.ask_gated(call, expected)

    def backs(self) -> list[StepCall]:
        """The steps back that are left to walk, in the order they are walked."""
        calls = {call.key: call for call in self.acts}
        keys = [key for key in self.history.steps_to_undo() if key in calls]
        found: dict[str, StepCall] = {}
        for key in keys:
            if (back := self._back_of(calls[key])) is not None:
                same = fingerprint([back.step.name, to_plain(back.arguments)])
                known = found.setdefault(same, back)
                known.undoes = (*known.undoes, calls[key])
        return list(found.values())

    def go_back(self) -> list[str]:
        """Undo every act that was begun, last first; each step back is tried. Return their keys.

        Where one has failed, what an act before it has taken down stays down: its users would be
        let in to what is half put back.

        Raises:
            Refused: nothing that was done declares a way back.
            UndoFailed: some steps back failed, or the walk did not come to all that was done; the
                others were walked.
        """
        backs, left = self.backs(), self._not_come_to()
        if not backs and not left and not self._is_any_undone():
            raise Refused(
                self.target,
                f"recovery {self.history.recovery_id} did nothing that has a way back",
                "There is nothing to undo; see its report for what it did",
            )
        failures, kept_down = self._walk_back(backs, left)
        if left:
            failures.append(self._still_there(left))
        if failures:
            first, *others = failures
            raise UndoFailed(
                first.target,
                ", ".join(failure.step for failure in failures),
                "; ".join([first.why, *(f"{other.step}: {other.why}" for other in others)]),
                "; ".join([*kept_down, first.by_hand]),
            )
        return [act.key for back in backs for act in back.undoes]

    def _walk_back(
        self, backs: Sequence[StepCall], left: Sequence[str]
    ) -> tuple[list[UndoFailed], list[str]]:
        """Try each step back; return what failed, and what was left down for that."""
        failures: list[UndoFailed] = []
        kept_down: list[str] = []
        still_there = {self.history.steps[key].intended_seq for key in left}
        for back in backs:
            down = [act for act in back.undoes if act.terms.takes_down]
            if any(seq > self._begun(act) for act in down for seq in still_there):
                kept_down += [f"{act.target} is left as {act.key} has it" for act in down]
                continue
            try:
                self.stage.put_on(back)
            except Exception as error:  # noqa: BLE001 (the way back is walked to its end)
                failures.append(self._failure(back, error))
                still_there |= set() if down else set(map(self._begun, back.undoes))
        return failures, kept_down

    def _failure(self, back: StepCall, error: Exception) -> UndoFailed:
        return UndoFailed(
            back.target,
            ", ".join(act.key for act in back.undoes),
            str(error),
            f"Mend the cause and run `recover undo {self.history.recovery_id} --by NAME` again, or "
            "do this step by hand from the report",
        )

    def _begun(self, act: StepCall) -> int:
        return self.history.steps[act.key].intended_seq

    def _not_come_to(self) -> list[str]:
        """Acts on record that may have a way back, and that this walk did not come to."""
        known = {act.key for act in self.acts}
        return [
            key
            for key in self.history.steps_to_undo()
            if key not in known and self.history.steps[key].has_way_back
        ]

    def _still_there(self, keys: list[str]) -> UndoFailed:
        why = "the flow does not come to it on the way back, so it is still there"
        recovery_id = self.history.recovery_id
        return UndoFailed(
            self.target,
            ", ".join(keys),
            f"{why} ({self.cut_short})" if self.cut_short else why,
            f"Take it back by hand from `recover report {recovery_id}`, last first",
        )

    def _is_any_undone(self) -> bool:
        return any(step.state is StepState.UNDONE for step in self.history.steps.values())

    def _back_of(self, act: StepCall) -> StepCall | None:
        """The step back of an act. Acts whose step back is the very same one share it."""
        back = act.terms.undo
        if not isinstance(back, Step):
            return None
        result = self._result_of(act)
        wanted = back.signature.parameters
        arguments = {**act.arguments, "result": result}
        arguments = {name: value for name, value in arguments.items() if name in wanted}
        return StepCall(self, back, f"undo {act.key}", arguments, act.target)

    def _undo(self, call: StepCall) -> Outcome:
        about = {"target": call.target, "by": call.key}
        for act in call.undoes:
            self.write(Kind.UNDO_INTENDED, about, act.key, is_intent=True)
        try:
            with gated(Gate(self, call, may_change=True)):
                call.step.fn(**call.arguments)
            for act in call.undoes:
                self._refuse_if_still_done(act)
        except Exception as error:
            for act in call.undoes:
                self.write(Kind.UNDO_FAILED, {"error": redact(str(error))}, act.key)
            raise
        for act in call.undoes:
            self.write(Kind.UNDONE, about, act.key)
        return Outcome("Undone", ", ".join(act.key for act in call.undoes))

    def _refuse_if_still_done(self, act: StepCall) -> None:
        if act.terms.done_when is None:
            return
        verdict = Verdict.of(self.ask_gated(act, act.terms.done_when))
        if verdict is not Verdict.NOT_DONE:
            raise UndoFailed(
                act.target,
                act.key,
                f"after the way back its probe says {verdict}",
                "Look at the target before anything else is done to it",
            )

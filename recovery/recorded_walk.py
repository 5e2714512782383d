"""The flow walked along what the journal remembers of it, up to where it ended.

It finds what was done, with the very arguments that each act had, and the step back of each. It
changes nothing and writes nothing: the way back begins like this, and its plan is no more.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import ValidationError

from recovery.checkpoint import plain_arguments, refuse_changed_arguments
from recovery.errors import Refused
from recovery.fan_out import TargetsFailed
from recovery.journal.history import History, StepRecord, StepState
from recovery.journal.store import Journal
from recovery.steps import Step, StepKind, ask
from recovery.taken_over import taken_over, where_to_go_back
from recovery.values import fingerprint, from_plain, to_plain
from recovery.walk import EndOfRecord, Gate, NeverBegan, Outcome, StepCall, Walk, gated


def fingerprint_of(back: StepCall) -> str:
    """What tells a step back from another one: its name, and the arguments that a plan shows."""
    return fingerprint([back.step.name, to_plain(back.arguments)])


@dataclass
class RecordedWalk(Walk):
    """Collects the acts that are on record.

    Attributes:
        history: what is on record.
        acts: those that were found.
        failed: why targets of a fan-out came no further.
        unfit: what the release that recorded it could take back, and this one cannot.
    """

    history: History = field(kw_only=True)
    acts: list[StepCall] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    unfit: list[str] = field(default_factory=list)

    @property
    def cut_short(self) -> str:
        """Why not all acts on record were found, where that is known."""
        release = self.history.release or "unknown"
        remedy = f"undo it with the release that began it ({release}), or by hand"
        return "; ".join([*self.failed, *self.unfit, *([remedy] if self.unfit else [])])

    def collect(self, walked: Callable[[Walk], Any]) -> None:
        """Go along the flow up to where it ended, as far as targets of a fan-out each came."""
        try:
            walked(self)
        except (EndOfRecord, NeverBegan):
            pass
        except TargetsFailed as failed:
            others = [one for one in failed.errors.values() if not isinstance(one, NeverBegan)]
            self.failed += map(str, others)

    def carry_out(self, call: StepCall) -> Outcome:
        """Remember the acts on the way; look only where nothing is on record."""
        match call.step.kind:
            case StepKind.ACT:
                return self._collect(call)
            case StepKind.DECISION:
                made = self.history.decisions.get(call.key)
                if made is None:
                    raise EndOfRecord
                with self._ending_where_unreadable(call):
                    value = from_plain(call.step.returns, made["value"])
                return Outcome("Restored", "decided", value)
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
        with self._ending_where_unreadable(call):
            result = self._result_of(call)
        try:
            refuse_changed_arguments(call, made, arguments, hashed, self.history)
        except Refused as refused:  # its step back would get other arguments: it stays
            self.unfit.append(refused.reason)
            return Outcome("Restored", "recorded with other arguments", result)
        self.acts.append(call)
        return Outcome("Restored", "recorded", result)

    @contextmanager
    def _ending_where_unreadable(self, call: StepCall) -> Iterator[None]:
        """End the walk at what another release recorded and this one cannot read."""
        try:
            yield
        except ValidationError as error:
            first = error.errors(include_input=False)[0]
            place = ".".join(map(str, first["loc"]))
            flaw = f"{place}: {first['msg']}" if place else first["msg"]
            self.unfit.append(f"this release cannot read what {call.key} returned ({flaw})")
            raise EndOfRecord from None

    def _result_of(self, call: StepCall) -> Any:
        recorded = self.history.steps[call.key].result
        if recorded is not None:
            return from_plain(call.step.returns, recorded)
        expected = call.terms.expected
        if expected is None:
            return None
        with gated(Gate(self, call)):
            return ask(expected, call.arguments)

    def backs(self) -> list[StepCall]:
        """The steps back that are left to walk, in the order they are walked."""
        calls = {call.key: call for call in self.acts}
        keys = [key for key in self.history.steps_to_undo() if key in calls]
        found: dict[tuple[Step[Any, Any], str], StepCall] = {}
        for key in keys:
            if (back := self._back_of(calls[key])) is not None:
                same = back.step, fingerprint(to_plain(back.arguments))
                known = found.setdefault(same, back)
                known.undoes = (*known.undoes, calls[key])
        return list(found.values())

    def to_walk(self, left: Sequence[str]) -> tuple[list[StepCall], list[str]]:
        """The steps back to walk now, and the keys of acts that are not taken back for what stays.

        Where this release cannot take back what another one did, that may stand on all that was
        begun before it. Acts that share a step back stay together.

        Args:
            left: acts that this walk missed.
        """
        backs = self.backs()
        latest = max(map(self.begun_at, left), default=0) if self.unfit else 0
        while True:
            held = [back for back in backs if self.begun_at(back.undoes[-1].key) < latest]
            newest = max([latest, *(self.begun_at(back.undoes[0].key) for back in held)])
            if newest == latest:
                break
            latest = newest
        keys = [act.key for back in held for act in back.undoes]
        return [back for back in backs if back.undoes[0].key not in keys], keys

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

    def not_come_to(self) -> list[str]:
        """Acts on record that may have a way back, and that this walk did not come to."""
        known = {act.key for act in self.acts}
        return [
            key
            for key in self.history.steps_to_undo()
            if key not in known and self.history.steps[key].has_way_back
        ]

    def taken_over(self, journal: Journal) -> list[StepRecord]:
        """What a fork took over and is still there.

        An older release did not record which of it has a way back: the acts that were found tell.
        """
        has_way_back = {act.key: act.terms.undo is not None for act in self.acts}
        return [
            replace(one, has_way_back=has_way_back.get(one.key, one.has_way_back))
            for one in taken_over(journal, self.history)
        ]

    def begun_at(self, key: str) -> int:
        """Where in the journal an act was begun; what was begun later is undone earlier."""
        return self.history.steps[key].intended_seq

    def kept_down(self, back: StepCall, still_there: Collection[int]) -> list[StepCall]:
        """What a step back must leave down: acts that took down users of what is still there.

        Args:
            back: the step back.
            still_there: where in the journal the acts were begun that are not put back.
        """
        down = [act for act in back.undoes if act.terms.takes_down]
        kept = any(seq > self.begun_at(act.key) for act in down for seq in still_there)
        return down if kept else []

    def refuse_if_nothing_to_undo(
        self, backs: Sequence[object], left: Sequence[str], others: Collection[StepRecord] = ()
    ) -> None:
        """Refuse to go back where nothing was done that could be taken back.

        Args:
            backs: the steps back.
            left: acts that this walk missed.
            others: acts that other recoveries did.

        Raises:
            Refused: there is no step back, none was walked before, and no act was missed.
        """
        if backs or left:
            return
        if not any(step.state is StepState.UNDONE for step in self.history.steps.values()):
            raise Refused(
                self.target,
                f"recovery {self.history.recovery_id} did nothing that has a way back",
                f"What it took over is taken back by {where}"
                if (where := where_to_go_back(others))
                else "There is nothing to undo; see its report for what it did",
            )

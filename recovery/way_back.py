"""Going back: what a recovery did is undone last step first, journaled and resumable like an act.

The flow is walked once more with what the journal remembers, up to where it ended, so that every
step back gets the very arguments its act had. What is on record and was not come to that way is
never passed over in silence: the recovery is not undone then, and a person is told what is left.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from recovery.errors import NeedsPerson, UndoFailed
from recovery.journal.events import Kind
from recovery.journal.history import StepRecord
from recovery.journaled_walk import JournaledWalk
from recovery.recorded_walk import RecordedWalk, fingerprint_of
from recovery.secrecy.redaction import redact
from recovery.steps import StepKind
from recovery.taken_over import where_to_go_back
from recovery.verdict import Verdict
from recovery.walk import Gate, Outcome, StepCall, gated


@dataclass
class WayBack(RecordedWalk, JournaledWalk):
    """Collects the acts that were done, then undoes them."""

    def carry_out(self, call: StepCall) -> Outcome:
        """Remember the acts on the way; do the steps back."""
        if call.step.kind is StepKind.UNDO:
            return self._undo(call)
        return super().carry_out(call)

    def go_back(self) -> list[str]:
        """Undo every act that was begun, last first; each step back is tried. Return their keys.

        Where one has failed, what an act before it has taken down stays down: its users would be
        let in to what is half put back. What this release cannot take back keeps what it was built
        on: see `to_walk`.

        Raises:
            Refused: nothing that was done declares a way back.
            UndoFailed: some steps back failed, or the walk did not come to all that was done; the
                others were walked.
            NeedsPerson: all of it is undone but what a fork took over from another recovery.
        """
        left = self.not_come_to()
        backs, held = self.to_walk(left)
        not_mine = self.taken_over(self.journal)
        self.refuse_if_nothing_to_undo(backs, left, not_mine)
        failures, kept_down = self._walk_back(backs, left)
        if left:
            failures.append(self._still_there(left, held))
        if failures:
            first, *others = failures
            raise UndoFailed(
                first.target,
                ", ".join(failure.step for failure in failures),
                "; ".join([first.why, *(f"{other.step}: {other.why}" for other in others)]),
                "; ".join([*kept_down, first.by_hand]),
            )
        self._refuse_if_taken_over(not_mine)
        return [act.key for back in backs for act in back.undoes]

    def _refuse_if_taken_over(self, others: Sequence[StepRecord]) -> None:
        """Tell that what a fork took over is not undone with it.

        Raises:
            NeedsPerson: there is such, and it has a way back.
        """
        recovery_id = self.history.recovery_id
        if where := where_to_go_back(others):
            keys = ", ".join(one.key for one in others if one.has_way_back)
            raise NeedsPerson(
                self.target,
                f"all that recovery {recovery_id} itself did is undone, and {keys}, which it took "
                "over, is not",
                f"Take that back with {where}; `recover undo {recovery_id} --by NAME` then ends "
                "this one",
            )

    def _walk_back(
        self, backs: Sequence[StepCall], left: Sequence[str]
    ) -> tuple[list[UndoFailed], list[str]]:
        """Try each step back; return what failed, and what was left down for that."""
        failures: list[UndoFailed] = []
        kept_down: list[str] = []
        still_there = set(map(self.begun_at, left))
        for back in backs:
            if down := self.kept_down(back, still_there):
                kept_down += [f"{act.target} is left as {act.key} has it" for act in down]
                continue
            try:
                self.stage.put_on(back)
            except Exception as error:  # noqa: BLE001 (the way back is walked to its end)
                failures.append(self._failure(back, error))
                takes_down = any(act.terms.takes_down for act in back.undoes)
                still_there |= (
                    set() if takes_down else {self.begun_at(act.key) for act in back.undoes}
                )
        return failures, kept_down

    def _failure(self, back: StepCall, error: Exception) -> UndoFailed:
        return UndoFailed(
            back.target,
            ", ".join(act.key for act in back.undoes),
            str(error),
            f"Mend the cause and run `recover undo {self.history.recovery_id} --by NAME` again, or "
            "do this step by hand from the report",
        )

    def _still_there(self, keys: list[str], held: list[str]) -> UndoFailed:
        stays = f"; {', '.join(held)}: not taken back, since that may stand on it" if held else ""
        why = "the flow does not come to it on the way back, so it is still there"
        recovery_id = self.history.recovery_id
        return UndoFailed(
            self.target,
            ", ".join(keys),
            (f"{why} ({self.cut_short})" if self.cut_short else why) + stays,
            f"Take it back by hand from `recover report {recovery_id}`, last first",
        )

    def _undo(self, call: StepCall) -> Outcome:
        about = {"target": call.target, "by": call.key, "back": fingerprint_of(call)}
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

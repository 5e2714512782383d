"""A walk that writes down what it does, under its lease: what going forward and back share."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from recovery.commands import Call
from recovery.errors import Fenced, Refused
from recovery.journal.events import Event, Kind
from recovery.journal.history import History, read_history
from recovery.journal.lease import LeaseKeeper
from recovery.journal.store import Journal, JournalUnavailable, LeaseLost
from recovery.secrecy.redaction import redact
from recovery.steps import ask
from recovery.walk import Fence, Gate, StepCall, Walk, gated

ANSWER_CHARS_MAX = 4000


@dataclass
class JournaledWalk(Walk):
    """A walk with a journal. `n` is the number of the attempt, `history` what was before it."""

    journal: Journal = field(kw_only=True)
    keeper: LeaseKeeper = field(kw_only=True)
    history: History = field(kw_only=True)
    n: int = field(kw_only=True)

    @property
    def fence(self) -> Fence:
        """What marks this attempt at the target."""
        lease = self.keeper.lease
        return Fence(
            self.history.recovery_id,
            lease.epoch,
            lease.target,
            self.keeper.epochs,
            self.journal.identity,
        )

    def holds(self, fence: Fence) -> bool:
        """See Walk."""
        with suppress(JournalUnavailable):
            holder = self.journal.holder(fence.target)
            mine = (fence.recovery_id, fence.epoch)
            return holder is not None and (holder.recovery_id, holder.epoch) == mine
        return False

    def write(
        self, kind: Kind, body: Mapping[str, Any], step: str = "", *, is_intent: bool = False
    ) -> Event:
        """Write to the journal as this attempt.

        Raises:
            Fenced: the lease is no longer ours.
        """
        lease = self.keeper.lease
        try:
            return self.journal.append(
                self.history.recovery_id,
                kind,
                body,
                step=step,
                attempt=self.n,
                lease=lease,
                needs_live_lease=is_intent,
            )
        except LeaseLost as lost:
            raise Fenced(lease.target, lease.epoch, str(lost)) from None

    def keep_evidence(self, gate: Gate, command: Call, error: BaseException | None) -> None:
        """Write down what was sent and what came of it."""
        if isinstance(error, Fenced):
            return
        body: dict[str, Any] = {
            "target": command.target,
            "command": redact(command.command)[:ANSWER_CHARS_MAX],
            "is_change": command.is_change,
            "answer": redact(command.answer)[:ANSWER_CHARS_MAX],
            "seconds": round(command.seconds, 6),
        }
        if command.exit_code is not None:
            body["exit_code"] = command.exit_code
        if error is not None:
            body["error"] = redact(f"{type(error).__name__}: {error}")[:ANSWER_CHARS_MAX]
        self.write(Kind.COMMAND, body, gate.call.key)

    def check_may_send(self, gate: Gate, command: Call) -> None:
        """Let a change pass only while the lease lives and if the step's plan has it."""
        self.keeper.check()
        if gate.planned is not None and command.command not in gate.planned:
            raise Refused(
                command.target,
                f"{gate.call.key} was about to send `{redact(command.command)[:500]}`, "
                "which its plan does not show",
                "This is a mistake in the step: its plan and its act differ. Report it",
            )

    def ask_gated(self, call: StepCall, other: Any) -> Any:
        """Ask a function that an act names; it may look, and change nothing."""
        with gated(Gate(self, call)):
            return ask(other, call.arguments)

    def start_over(self) -> None:
        """Begin the walk again from the first step, with what the journal now tells."""
        history = read_history(self.journal.events(self.history.recovery_id))
        if history is not None:
            self.history = history
        self._claimed.clear()
        self.to_come.clear()

"""An attempt at a recovery: the walk that acts, journals before it does, and settles doubt.

For every act, in this order: probe (already so? note that and go on), refuse if unsafe, write down
the intent, act, probe again, write down that it is done. What an earlier attempt has done is passed
over after its probe was asked again; what it left in doubt is settled by the probe, never guessed.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from recovery.checkpoint import (
    is_ended,
    kept_result,
    missed,
    plain_arguments,
    refuse_changed_arguments,
    refuse_changed_flow,
    refuse_danger,
    refuse_unapproved,
)
from recovery.errors import NeedsPerson, NotVerified, RecoveryError, Refused
from recovery.journal.events import Kind
from recovery.journal.history import StepRecord, StepState
from recovery.journaled_walk import JournaledWalk
from recovery.secrecy.redaction import contains_secret, redact
from recovery.staleness import Staleness
from recovery.steps import StepKind, Terms
from recovery.values import canonical, from_plain, to_plain
from recovery.verdict import Danger, Verdict
from recovery.walk import (
    Gate,
    Outcome,
    StaleSteps,
    StepCall,
    gated,
    refuse_empty,
    step_logger,
)
from recovery.words import told

SEEN_CHARS_MAX = 20_000
NOT_BEGUN = {StepState.UNDONE, StepState.PASSED}
IS_THERE = "its effect is there; nothing was done"
WAS_DONE = "an earlier attempt did it; the probe found it"


@dataclass
class Attempt(JournaledWalk):
    """One attempt. `approved` are the commands of the plan that was consented to, by step."""

    approved: Mapping[str, list[str]] | None = field(kw_only=True, default=None)
    may_destroy: bool = field(kw_only=True, default=False)
    danger: Danger = field(kw_only=True, default=Danger.DESTRUCTIVE)
    _staleness: Staleness = field(init=False)
    _done_here: set[str] = field(default_factory=set)
    _met: set[str] = field(default_factory=set)
    _newest_act_seq: int = 0

    def __post_init__(self) -> None:
        """Begin with nothing passed over."""
        self._staleness = Staleness(self._verdict, self._note_stale)

    # -- looks -----------------------------------------------------------------------------------

    def carry_out(self, call: StepCall) -> Outcome:
        """Do a step."""
        started_at = _now()
        match call.step.kind:
            case StepKind.ACT:
                return self._act(call)
            case StepKind.DECISION:
                return self._decide(call, started_at)
            case StepKind.VERIFY:
                return self._verify(call, started_at)
            case _:
                return self._look(call, started_at)

    def _look(self, call: StepCall, started_at: str) -> Outcome:
        if call.step.is_guard and self._was_passed(call.key) and self._is_behind(call.key):
            return Outcome("Restored", "passed before a later act began")
        with gated(Gate(self, call)):
            try:
                seen = call.step.fn(**call.arguments)
            except Refused as refused:
                body = {**_about(call, started_at), "reason": redact(str(refused))}
                self.write(Kind.REFUSED, body, call.key)
                raise
        if call.step.is_guard:
            self.write(Kind.PASSED, _about(call, started_at), call.key)
            return Outcome("Passed", "nothing speaks against it")
        self.write(Kind.SAW, {**_about(call, started_at), **_seen(seen)}, call.key)
        return Outcome("Completed", f"saw {told(seen)}", seen)

    def _verify(self, call: StepCall, started_at: str) -> Outcome:
        record = self.history.steps.get(call.key)
        if self._was_passed(call.key) and record and record.ended_seq > self._newest_act_seq:
            known = None if record.result is None else from_plain(call.step.returns, record.result)
            return Outcome("Restored", "verified before a later act began", known)
        self.settle_passed_over()
        with gated(Gate(self, call)):
            try:
                seen = call.step.fn(**call.arguments)
            except RecoveryError as error:
                if not error.is_retried:
                    body = {**_about(call, started_at), "error": redact(str(error))}
                    self.write(Kind.FAILED, body, call.key)
                raise
        body = {**_about(call, started_at), "saw": told(seen), "result": to_plain(seen)}
        self.write(Kind.VERIFIED, body, call.key)
        return Outcome("Verified", told(seen) if seen is not None else "as it should be", seen)

    def _was_passed(self, key: str) -> bool:
        record = self.history.steps.get(key)
        return (
            record is not None
            and record.state is StepState.PASSED
            and record.ended_seq < self.history.last_act_seq
        )

    def _is_behind(self, key: str) -> bool:
        """Whether an act that comes after this guard began after it passed.

        Acts met before it do not count: one that was stale and done again since may have been gone
        back on by whoever made it stale, and what the guard keeps from is asked anew.
        """
        passed_at = self.history.steps[key].ended_seq
        return any(
            max(record.intended_seq, record.ended_seq) > passed_at
            for step, record in self.history.steps.items()
            if record.kind == StepKind.ACT and step not in self._met
        )

    def _decide(self, call: StepCall, started_at: str) -> Outcome:
        arguments, hashed = plain_arguments(call, self.history.identities)
        made = self.history.decisions.get(call.key)
        self._met.add(call.key)
        if made is not None:
            refuse_changed_arguments(call, made, arguments, hashed, self.history)
            value = from_plain(call.step.returns, made["value"])
            return Outcome("Restored", f"decided before: {told(value)}", value)
        self._refuse_changed_flow(call)
        with gated(Gate(self, call)):
            value = call.step.fn(**call.arguments)
        plain, value = kept_result(call, value)
        refuse_empty(call, value)
        body = {
            **_about(call, started_at),
            "value": plain,
            "arguments": arguments,
            "arguments_hash": hashed,
        }
        self.write(Kind.DECIDED, body, call.key)
        return Outcome("Completed", f"decided: {told(value)}", value)

    # -- acts ------------------------------------------------------------------------------------

    def _act(self, call: StepCall) -> Outcome:
        terms = call.terms
        arguments, hashed = plain_arguments(call, self.history.identities)
        record = self.history.steps.get(call.key)
        self._met.add(call.key)
        if record is not None:
            made = {"arguments": record.arguments, "arguments_hash": record.arguments_hash}
            refuse_changed_arguments(call, made, arguments, hashed, self.history)
        if record is not None and record.is_done:
            return self._pass_over(call, record, terms)
        is_in_doubt = record is not None and record.state not in NOT_BEGUN
        if is_in_doubt and terms.wait_in_doubt is not None:
            self.ask_gated(call, terms.wait_in_doubt)
        self.settle_passed_over()
        about = {
            **_about(call, _now()),
            "arguments": arguments,
            "arguments_hash": hashed,
            "danger": str(terms.danger),
        }
        if record is None or not is_in_doubt:
            self._refuse_changed_flow(call)
            return self._do_anew(call, terms, about)
        return self._settle_doubt(call, record, terms, about)

    def _do_anew(self, call: StepCall, terms: Terms, about: dict[str, Any]) -> Outcome:
        verdict = self._verdict(call)
        if verdict is Verdict.DONE:
            return self._note_done(call, "already-so", about, Outcome("Already so", IS_THERE))
        if why := self._why_unclear(terms, verdict):
            self.write(Kind.VERDICT, {**about, "verdict": str(verdict)}, call.key)
            raise self._needs_person(call, why)
        return self._do(call, terms, about)

    def _settle_doubt(
        self, call: StepCall, record: StepRecord, terms: Terms, about: dict[str, Any]
    ) -> Outcome:
        if record.resolved_as == "redo":
            step_logger().info("%s is done again: %s", call.key, record.verdict)
            return self._do(call, terms, about)
        if terms.done_when is None:
            if not terms.redo_in_doubt:
                raise self._needs_person(call, f"nothing can tell ({terms.without_probe})")
            return self._do(call, terms, about)
        verdict = self._verdict(call)
        self.write(Kind.VERDICT, {"verdict": str(verdict), "was": str(record.state)}, call.key)
        step_logger().info("%s was %s; the probe says %s", call.key, record.state, verdict)
        if verdict is Verdict.DONE:
            return self._note_done(call, "reconciled", {}, Outcome("Reconciled", WAS_DONE))
        if why := self._why_unclear(terms, verdict):
            raise self._needs_person(call, why)
        if record.state is StepState.STALE and not terms.redo_stale:
            raise self._needs_person(call, "it was done, and its effect is gone")
        return self._do(call, terms, about)

    def _note_done(
        self, call: StepCall, how: str, about: Mapping[str, Any], outcome: Outcome
    ) -> Outcome:
        plain, result = kept_result(call, self._foretold(call))
        body = {**about, "how": how, "verdict": str(Verdict.DONE), "result": plain}
        self.write(Kind.DONE, body, call.key, is_intent=True)
        return Outcome(outcome.shown_as, outcome.message, result)

    @staticmethod
    def _why_unclear(terms: Terms, verdict: Verdict) -> str:
        if verdict is Verdict.UNKNOWN:
            return "its probe cannot tell whether it is done"
        if verdict is Verdict.HALF_DONE and not terms.redo_half_done:
            return "its probe finds it half done"
        return ""

    def _needs_person(self, call: StepCall, why: str) -> NeedsPerson:
        return NeedsPerson(
            call.target,
            f"{call.key} is in doubt: {why}",
            f"Look at the target, then `recover resolve {self.history.recovery_id} '{call.key}' "
            "--as done|redo|abandon --by NAME --reason TEXT` and resume",
        )

    def _do(self, call: StepCall, terms: Terms, about: dict[str, Any]) -> Outcome:
        commands = [str(command) for command in self.ask_gated(call, terms.commands)]
        refuse_danger(call, terms.danger, self.danger, may_destroy=self.may_destroy)
        refuse_unapproved(call, terms.danger, commands, self.approved, self.history)
        for guard in terms.refuse_if:
            self.ask_gated(call, guard)
        self.keeper.check()
        plain_commands = [redact(command) for command in commands]
        body = {**about, "commands": plain_commands, "has_way_back": terms.undo is not None}
        self.write(Kind.INTENDED, body, call.key, is_intent=True)
        started = time.monotonic()
        try:
            with gated(Gate(self, call, may_change=True, planned=frozenset(commands))):
                plain, result = kept_result(call, call.step.fn(**call.arguments))
            self._refuse_unverified(call)
        except Exception as error:
            self._note_failure(call, about, error)
            raise
        seconds = time.monotonic() - started
        body = {"how": "acted", "result": plain, "seconds": round(seconds, 6)}
        event = self.write(Kind.DONE, body, call.key)
        self._newest_act_seq = max(self._newest_act_seq, event.seq)
        self._done_here.add(call.key)
        return Outcome("Completed", f"done in {seconds:.2f} s", result)

    def _refuse_unverified(self, call: StepCall) -> None:
        if call.terms.done_when is None or (verdict := self._verdict(call)) is Verdict.DONE:
            return
        raise NotVerified(
            call.target,
            f"the effect of {call.key}",
            f"its probe says {verdict} after the act",
            f"See the commands and answers in `recover report {self.history.recovery_id}`",
        )

    def _note_failure(self, call: StepCall, about: Mapping[str, Any], error: Exception) -> None:
        text = redact(f"{error}" if isinstance(error, RecoveryError) else f"{error!r}")
        self.write(Kind.FAILED, {"error": text, "error_type": type(error).__name__}, call.key)
        self.history.steps[call.key] = StepRecord(  # asked again in this attempt, it is in doubt
            call.key,
            "act",
            call.target,
            StepState.FAILED,
            self.n,
            error=text,
            arguments=about["arguments"],
            arguments_hash=about["arguments_hash"],
        )

    def _verdict(self, call: StepCall) -> Verdict:
        probe = call.terms.done_when
        return Verdict.NOT_DONE if probe is None else Verdict.of(self.ask_gated(call, probe))

    def _foretold(self, call: StepCall) -> Any:
        expected = call.terms.expected
        return None if expected is None else self.ask_gated(call, expected)

    # -- what an earlier attempt has done --------------------------------------------------------

    def _pass_over(self, call: StepCall, record: StepRecord, terms: Terms) -> Outcome:
        is_asked_again = (
            terms.done_when is not None
            and call.key not in self._done_here
            and record.resolved_as != "done"
            and not is_ended(record, terms.lasts_until, self.history)
        )
        if is_asked_again:
            self._staleness.ask_again(call)
        self._newest_act_seq = max(self._newest_act_seq, record.ended_seq)
        result = self.recorded_result(call, record)
        return Outcome("Restored", f"{record.state} at {record.ended_at}", result)

    def recorded_result(self, call: StepCall, record: StepRecord) -> Any:
        """What an act returned; foretold where nobody could record it, as when a person said so."""
        if record.result is None:
            return self._foretold(call)
        return from_plain(call.step.returns, record.result)

    def settle_passed_over(self) -> None:
        """Wait for what the probes of the steps passed over say, before anything new is done.

        Raises:
            StaleSteps: some are no longer so and may be done again; the walk starts over.
            NeedsPerson: one is no longer so and must not be done again unasked.
            Unreachable: nobody answered; they are asked again when this is called again.
        """
        if stale := self._staleness.settle():
            step_logger().warning("no longer so, done again: %s", ", ".join(stale))
            turn = StaleSteps()
            self._staleness.stop_everybody(turn)
            raise turn

    def _note_stale(self, call: StepCall, verdict: Verdict) -> None:
        self.write(Kind.STALE, {"verdict": str(verdict)}, call.key)
        if verdict is Verdict.UNKNOWN or not call.terms.redo_stale:
            raise NeedsPerson(
                call.target,
                f"{call.key} was done, but its probe now says {verdict}",
                f"Find out who changed it, then `recover resolve {self.history.recovery_id} "
                f"'{call.key}' --as done|redo|abandon --by NAME --reason TEXT`",
            )

    def start_over(self) -> None:
        """Begin the walk again from the first step; what this attempt has done stays done."""
        super().start_over()
        self.close()
        self._staleness = Staleness(self._verdict, self._note_stale)
        self._newest_act_seq = 0
        self._met.clear()

    def finish(self) -> None:
        """End the walk: nothing that was passed over is stale, nothing on record was left out."""
        self.settle_passed_over()
        keys = missed(self.history, self._met, self.n)
        refuse_changed_flow(self.history, "its end", self.target, keys)

    def close(self) -> None:
        """Let the threads go."""
        self._staleness.close()

    def _refuse_changed_flow(self, call: StepCall) -> None:
        """Refuse a new act while steps of an earlier attempt were not come to yet.

        Acts mapped side by side come in any order and are no sign of another flow.
        """
        if not self.history.steps:
            return
        keys = [
            key
            for key in missed(
                self.history, {*self._met, *tuple(self._claimed)}, self.n, self.to_come
            )
            if self.history.steps[key].attempt or self.history.steps[key].is_done
        ]  # what a fork was told is in doubt has no place in the order yet
        refuse_changed_flow(self.history, call.key, call.target, keys)


def _seen(value: object) -> dict[str, Any]:
    """What a probe saw, for the way back, where it has a plain form that may be kept."""
    try:
        plain = to_plain(value)
    except TypeError:
        return {"saw": told(value)}
    text = canonical(plain)
    if len(text) > SEEN_CHARS_MAX or contains_secret(text):
        return {"saw": told(value)}
    return {"saw": told(value), "value": plain}


def _about(call: StepCall, started_at: str) -> dict[str, Any]:
    return {"kind": str(call.step.kind), "target": call.target, "started_at": started_at}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")

"""An attempt at a recovery: the walk that acts, journals before it does, and settles doubt.

For every act, in this order: probe (already so? note that and go on), refuse if unsafe, write down
the intent, act, probe again, write down that it is done. What an earlier attempt has done is passed
over after its probe was asked again; what it left in doubt is settled by the probe, never guessed.
"""

import contextvars
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from recovery.commands import Call
from recovery.errors import Fenced, NeedsPerson, NotVerified, RecoveryError, Refused
from recovery.events import Event, Kind
from recovery.history import History, StepRecord, StepState, read_history
from recovery.journal import Journal, LeaseLost
from recovery.lease import LeaseKeeper
from recovery.plan import without_identity
from recovery.redaction import redact
from recovery.steps import StepKind, Terms, ask
from recovery.values import canonical, fingerprint, from_plain, to_plain
from recovery.verdict import Danger, Verdict
from recovery.walk import Fence, Gate, Outcome, StepCall, Walk, gated, step_logger

PROBES_AT_ONCE = 8
ANSWER_CHARS_MAX = 4000


class StaleSteps(BaseException):
    """Steps passed over turned out to be no longer so: the walk starts over to redo them."""


@dataclass
class PassedOver:
    """A step that an earlier attempt did, whose probe is being asked again."""

    call: StepCall
    verdict: Future[Verdict]


@dataclass
class Attempt(Walk):
    """One attempt. `approved` are the commands of the plan that was consented to, by step."""

    journal: Journal = field(kw_only=True)
    keeper: LeaseKeeper = field(kw_only=True)
    history: History = field(kw_only=True)
    n: int = field(kw_only=True)
    approved: Mapping[str, list[str]] | None = field(kw_only=True, default=None)
    may_destroy: bool = field(kw_only=True, default=False)
    danger: Danger = field(kw_only=True, default=Danger.DESTRUCTIVE)
    _passed_over: list[PassedOver] = field(default_factory=list)
    _done_here: set[str] = field(default_factory=set)
    _met: set[str] = field(default_factory=set)
    _pool: ThreadPoolExecutor | None = None

    # -- the journal ---------------------------------------------------------------------------

    @property
    def fence(self) -> Fence:
        """What marks this attempt at the target."""
        return Fence(self.history.recovery_id, self.keeper.lease.epoch)

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

    # -- steps ---------------------------------------------------------------------------------

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
        if call.step.is_guard and self._was_passed(call.key):
            return Outcome("Restored", "passed before a later act began")
        with gated(Gate(self, call)):
            try:
                seen = call.step.fn(**call.arguments)
            except Refused as refused:
                self.write(
                    Kind.REFUSED,
                    {**_about(call, started_at), "reason": redact(str(refused))},
                    call.key,
                )
                raise
        if call.step.is_guard:
            self.write(Kind.PASSED, _about(call, started_at), call.key)
            return Outcome("Passed", "nothing speaks against it")
        return Outcome("Completed", f"saw {shortly(seen)}", seen)

    def _verify(self, call: StepCall, started_at: str) -> Outcome:
        if self._was_passed(call.key):
            known = self.history.steps[call.key].result
            result = None if known is None else from_plain(call.step.returns, known)
            return Outcome("Restored", "verified before a later act began", result)
        self.settle_passed_over()
        with gated(Gate(self, call)):
            try:
                seen = call.step.fn(**call.arguments)
            except RecoveryError as error:
                if not error.is_retried:
                    body = {**_about(call, started_at), "error": redact(str(error))}
                    self.write(Kind.FAILED, body, call.key)
                raise
        body = {**_about(call, started_at), "result": to_plain(seen)}
        self.write(Kind.VERIFIED, body, call.key)
        return Outcome("Verified", shortly(seen) if seen is not None else "as it should be", seen)

    def _was_passed(self, key: str) -> bool:
        record = self.history.steps.get(key)
        return (
            record is not None
            and record.state is StepState.PASSED
            and record.ended_seq < self.history.last_act_seq
        )

    def _decide(self, call: StepCall, started_at: str) -> Outcome:
        arguments, hashed = self._arguments(call)
        made = self.history.decisions.get(call.key)
        if made is not None:
            self._refuse_changed_arguments(call, made, arguments, hashed)
            self._met.add(call.key)
            value = from_plain(call.step.returns, made["value"])
            return Outcome("Restored", f"decided before: {shortly(value)}", value)
        self._refuse_changed_flow(call)
        with gated(Gate(self, call)):
            value = call.step.fn(**call.arguments)
        plain = to_plain(value)
        body = {
            **_about(call, started_at),
            "value": plain,
            "arguments": arguments,
            "arguments_hash": hashed,
        }
        self.write(Kind.DECIDED, body, call.key)
        return Outcome(
            "Completed", f"decided: {shortly(value)}", from_plain(call.step.returns, plain)
        )

    def _act(self, call: StepCall) -> Outcome:
        terms = _terms_of(call)
        arguments, hashed = self._arguments(call)
        record = self.history.steps.get(call.key)
        self._met.add(call.key)
        if record is not None and record.arguments_hash:
            made = {"arguments": record.arguments, "arguments_hash": record.arguments_hash}
            self._refuse_changed_arguments(call, made, arguments, hashed)
        if record is not None and record.is_done:
            return self._pass_over(call, record, terms)
        self.settle_passed_over()
        about = {
            **_about(call, _now()),
            "arguments": arguments,
            "arguments_hash": hashed,
            "danger": str(terms.danger),
        }
        if record is None or record.state in {StepState.UNDONE, StepState.PASSED}:
            self._refuse_changed_flow(call)
            return self._do_anew(call, terms, about)
        return self._settle_doubt(call, record, terms, about)

    def _do_anew(self, call: StepCall, terms: Terms, about: dict[str, Any]) -> Outcome:
        verdict = self._verdict(call, terms)
        if verdict is Verdict.DONE:
            result = self._foretold(call, terms)
            body = {
                **about,
                "how": "already-so",
                "verdict": str(verdict),
                "result": to_plain(result),
            }
            self.write(Kind.DONE, body, call.key, is_intent=True)
            return Outcome("Already so", "its effect is there; nothing was done", result)
        self._stop_unless_clear(call, terms, verdict)
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
        verdict = self._verdict(call, terms)
        self.write(Kind.VERDICT, {"verdict": str(verdict), "was": str(record.state)}, call.key)
        step_logger().info("%s was %s; the probe says %s", call.key, record.state, verdict)
        if verdict is Verdict.DONE:
            result = self._foretold(call, terms)
            body = {"how": "reconciled", "verdict": str(verdict), "result": to_plain(result)}
            self.write(Kind.DONE, body, call.key)
            return Outcome("Reconciled", "an earlier attempt did it; the probe found it", result)
        self._stop_unless_clear(call, terms, verdict)
        return self._do(call, terms, about)

    def _stop_unless_clear(self, call: StepCall, terms: Terms, verdict: Verdict) -> None:
        if verdict is Verdict.UNKNOWN:
            raise self._needs_person(call, "its probe cannot tell whether it is done")
        if verdict is Verdict.HALF_DONE and not terms.redo_half_done:
            raise self._needs_person(call, "its probe finds it half done")

    def _needs_person(self, call: StepCall, why: str) -> NeedsPerson:
        return NeedsPerson(
            call.target,
            f"{call.key} is in doubt: {why}",
            f"Look at the target, then `recover resolve {self.history.recovery_id} '{call.key}' "
            "--as done|redo|abandon --by NAME --reason TEXT` and resume",
        )

    def _do(self, call: StepCall, terms: Terms, about: dict[str, Any]) -> Outcome:
        commands = [str(command) for command in self._ask_gated(call, terms.commands)]
        self._refuse_unapproved(call, terms, commands)
        for guard in terms.refuse_if:
            self._ask_gated(call, guard)
        self.keeper.check()
        plain_commands = [redact(command) for command in commands]
        self.write(Kind.INTENDED, {**about, "commands": plain_commands}, call.key, is_intent=True)
        started = time.monotonic()
        try:
            with gated(Gate(self, call, may_change=True, planned=frozenset(commands))):
                result = call.step.fn(**call.arguments)
            verdict = self._verdict(call, terms)
            if terms.done_when is not None and verdict is not Verdict.DONE:
                raise NotVerified(
                    call.target,
                    f"the effect of {call.key}",
                    f"its probe says {verdict} after the act",
                    f"See the commands and answers in `recover report {self.history.recovery_id}`",
                )
        except Exception as error:
            self._note_failure(call, error)
            raise
        seconds = time.monotonic() - started
        body = {"how": "acted", "result": to_plain(result), "seconds": round(seconds, 6)}
        self.write(Kind.DONE, body, call.key)
        self._done_here.add(call.key)
        return Outcome("Completed", f"done in {seconds:.2f} s", result)

    def _note_failure(self, call: StepCall, error: Exception) -> None:
        text = redact(f"{error}" if isinstance(error, RecoveryError) else f"{error!r}")
        self.write(Kind.FAILED, {"error": text, "error_type": type(error).__name__}, call.key)
        known = self.history.steps.get(call.key)
        self.history.steps[call.key] = StepRecord(  # asked again in this attempt, it is in doubt
            call.key,
            "act",
            call.target,
            StepState.FAILED,
            self.n,
            error=text,
            arguments_hash=known.arguments_hash if known else "",
            arguments=known.arguments if known else {},
        )

    def _verdict(self, call: StepCall, terms: Terms) -> Verdict:
        if terms.done_when is None:
            return Verdict.NOT_DONE
        return Verdict.of(self._ask_gated(call, terms.done_when))

    def _foretold(self, call: StepCall, terms: Terms) -> Any:
        return None if terms.expected is None else self._ask_gated(call, terms.expected)

    def _ask_gated(self, call: StepCall, other: Any) -> Any:
        with gated(Gate(self, call)):
            return ask(other, call.arguments)

    # -- what an earlier attempt has done --------------------------------------------------------

    def _pass_over(self, call: StepCall, record: StepRecord, terms: Terms) -> Outcome:
        if self._is_to_be_asked_again(call, record, terms):
            with self._lock:
                if self._pool is None:
                    self._pool = ThreadPoolExecutor(PROBES_AT_ONCE, "staleness")
                context = contextvars.copy_context()
                future = self._pool.submit(context.run, self._verdict, call, terms)
                self._passed_over.append(PassedOver(call, future))
        result = from_plain(call.step.returns, record.result) if record.result is not None else None
        return Outcome("Restored", f"{record.state} at {record.ended_at}", result)

    def _is_to_be_asked_again(self, call: StepCall, record: StepRecord, terms: Terms) -> bool:
        if terms.done_when is None or call.key in self._done_here or record.resolved_as == "done":
            return False
        if not terms.lasts_until:
            return True
        return not any(
            other.is_done and other.key.split("[")[0] == terms.lasts_until
            for other in self.history.steps.values()
        )

    def settle_passed_over(self) -> None:
        """Wait for what the probes of the steps passed over say, before anything new is done.

        Raises:
            StaleSteps: some are no longer so and may be done again; the walk starts over.
            NeedsPerson: one is no longer so and must not be done again unasked.
        """
        with self._lock:
            asked, self._passed_over = self._passed_over, []
        stale = []
        for passed in asked:
            verdict = passed.verdict.result()
            if verdict is Verdict.DONE:
                continue
            terms = _terms_of(passed.call)
            self.write(Kind.STALE, {"verdict": str(verdict)}, passed.call.key)
            if verdict is Verdict.UNKNOWN or not terms.redo_stale:
                raise NeedsPerson(
                    passed.call.target,
                    f"{passed.call.key} was done, but its probe now says {verdict}",
                    f"Find out who changed it, then `recover resolve {self.history.recovery_id} "
                    f"'{passed.call.key}' --as done|redo|abandon --by NAME --reason TEXT`",
                )
            stale.append(passed.call.key)
        if stale:
            step_logger().warning("no longer so, done again: %s", ", ".join(stale))
            raise StaleSteps

    def start_over(self) -> None:
        """Begin the walk again from the first step; what this attempt has done stays done."""
        history = read_history(self.journal.events(self.history.recovery_id))
        if history is not None:
            self.history = history
        self._claimed.clear()
        self._met.clear()

    def close(self) -> None:
        """Let the threads go."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)

    # -- reasons not to go on --------------------------------------------------------------------

    def _arguments(self, call: StepCall) -> tuple[dict[str, Any], str]:
        plain = {name: to_plain(value) for name, value in call.arguments.items()}
        return plain, arguments_hash(plain, self.history.recovery_id)

    def _refuse_changed_arguments(
        self,
        call: StepCall,
        made: Mapping[str, Any],
        arguments: Mapping[str, Any],
        hashed: str,
    ) -> None:
        if made.get("arguments_hash") == hashed:
            return
        before = made.get("arguments", {})
        changed = [
            f"{name} was {shortly(before.get(name))}, is now {shortly(arguments.get(name))}"
            for name in {**before, **arguments}
            if before.get(name) != arguments.get(name)
        ]
        raise Refused(
            call.target,
            f"the inputs of {call.key} changed since its checkpoint: {'; '.join(sorted(changed))}",
            f"Resume with what it was, or fork: `recover resume {self.history.recovery_id} "
            f"--from '{call.key}'`",
        )

    def _refuse_changed_flow(self, call: StepCall) -> None:
        """Refuse a new act while acts of an earlier attempt were not come to yet.

        Acts mapped side by side come in any order and are no sign of another flow.
        """
        missed = [
            record.key
            for record in self.history.steps.values()
            if record.kind in {"act", "decision"}
            and record.key not in self._met
            and record.key not in self._claimed
            and record.attempt < self.n
            and record.state is not StepState.UNDONE
        ]
        if missed:
            raise Refused(
                call.target,
                f"this release comes to {call.key} before {', '.join(missed[:5])}, which an "
                "earlier attempt has recorded: the flow is not the one that was begun",
                f"Resume with the release that began it ({self.history.release or 'unknown'}), or "
                f"fork: `recover resume {self.history.recovery_id} --from '{call.key}'`",
            )

    def _refuse_unapproved(self, call: StepCall, terms: Terms, commands: list[str]) -> None:
        if terms.danger.rank > self.danger.rank:
            raise RuntimeError(
                f"{call.key} is {terms.danger}, but the recovery is declared {self.danger}"
            )
        if terms.danger is Danger.DESTRUCTIVE and not self.may_destroy:
            raise NeedsPerson(
                call.target,
                f"{call.key} is destructive and nobody has approved it",
                "See `recover plan`, then approve its hash with --approve HASH",
            )
        if self.approved is None:
            return
        mine = [redact(without_identity(text, self.history.recovery_id)) for text in commands]
        planned = self.approved.get(call.key)
        if planned == mine:
            return
        if planned is None:
            difference = "the approved plan does not have this step"
        else:
            new = [text for text in mine if text not in planned]
            gone = [text for text in planned if text not in mine]
            difference = f"it would send {shortly(new)} in place of {shortly(gone)}"
        raise Refused(
            call.target,
            f"{call.key} differs from the approved plan: {difference}",
            "Make a new plan, look at it, and approve that one",
        )


def arguments_hash(plain: Mapping[str, Any], recovery_id: str) -> str:
    """Hash a step's arguments, leaving out which recovery it is: a fork has the same ones."""
    return fingerprint(without_identity(canonical(plain), recovery_id))


def shortly(value: object, limit: int = 300) -> str:
    """Write a value in one short line."""
    text = redact(repr(value)).replace("\n", " ")
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def _terms_of(call: StepCall) -> Terms:
    if call.step.terms is None:
        raise TypeError(f"{call.step!r} is declared as an act without terms")
    return call.step.terms


def _about(call: StepCall, started_at: str) -> dict[str, Any]:
    return {"kind": str(call.step.kind), "target": call.target, "started_at": started_at}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")

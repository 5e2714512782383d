"""Starting, resuming, forking and undoing a recovery: everything around the walk."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from recovery.approval import new_approval, refuse_other_hash, valid_approval
from recovery.attempt import Attempt, StaleSteps, shortly
from recovery.errors import BadInput, Fenced, NeedsPerson, RecoveryError, Refused
from recovery.events import Kind
from recovery.history import History, RecoveryState, read_history
from recovery.journal import Holder, Journal, LeaseLost, lease_seconds, open_journal
from recovery.lease import LeaseKeeper, take_lease, this_worker
from recovery.plan import Plan, commands_by_key
from recovery.planning import PlanWalk
from recovery.redaction import contains_secret, redact
from recovery.stage import PlainStage, scrubbed
from recovery.steps import current_walk
from recovery.values import from_plain, to_plain
from recovery.verdict import Danger
from recovery.walk import Stage, Walk, step_logger
from recovery.way_back import EndOfRecord, WayBack

RECOVERY_ID_DIGITS = 12
STARTS_OVER_MAX = 20


@dataclass(frozen=True)
class Options:
    """How to run, apart from what to recover: the last fields of every recovery's form.

    Attributes:
        resume: id of the recovery to go on with; empty begins a new one.
        fork: begin a new recovery that reuses what `resume` has done and still fits.
        from_step: with `fork`, the first step not to reuse.
        plan_only: show what would be done, with exact commands, and change nothing.
        approve: hash of the plan that is consented to.
        approved_by: who consents.
        break_glass: reason to go ahead without an approved plan; recorded.
        take_over_by: who orders to take the lease from an attempt that is known to be gone.
        undo_by: who orders to go back instead of forward; with `resume`.
    """

    resume: str = ""
    fork: bool = False
    from_step: str = ""
    plan_only: bool = False
    approve: str = ""
    approved_by: str = ""
    break_glass: str = ""
    take_over_by: str = ""
    undo_by: str = ""


@dataclass(frozen=True)
class Recovery:
    """A recovery as it was declared.

    Attributes:
        name: the remedy, as in `move-grafana-to-mysql`.
        fn: the flow's function.
        runbook: path of the runbook it replaces.
        answers: names of the alerts it answers.
        danger: the most dangerous of its steps.
        target_of: names the target from the parameters, by their names.
        parameters: type and default of each parameter, by name; `...` where there is no default.
    """

    name: str
    fn: Callable[..., Any]
    runbook: str
    answers: tuple[str, ...]
    danger: Danger
    target_of: Callable[..., str]
    parameters: Mapping[str, tuple[Any, Any]]


@dataclass
class Ended:
    """How a run of a recovery ended. `error` is what the operator must act on, if anything."""

    recovery_id: str
    state: RecoveryState | None
    result: Any = None
    error: Exception | None = None
    plan: Plan | None = None
    message: str = ""


@dataclass
class Launch:
    """One run of a recovery, from its parameters to its end."""

    recovery: Recovery
    parameters: dict[str, Any]
    options: Options
    stage: Stage
    flow_run_id: str
    journal: Journal
    on_attempt: Callable[[History], None] = lambda history: None
    _plain: dict[str, Any] = field(default_factory=dict)

    def run(self) -> Ended:
        """Do it. Errors that end a recovery on purpose are told in what is returned.

        Raises:
            Fenced: the lease was lost; nothing may be said about the newer attempt.
        """
        self._plain = {name: to_plain(value) for name, value in self.parameters.items()}
        self._refuse_secret_parameters()
        if self.options.plan_only:
            return self._plan_only()
        if self.options.resume and self.options.fork:
            recovery_id, history = self._fork()
        elif self.options.resume:
            recovery_id = find_recovery(self.journal, self.options.resume)
            history = self._known(recovery_id)
            self._take_recorded_parameters(history)
        else:
            recovery_id = recovery_id_of(self.flow_run_id)
            history = read_history(self.journal.events(recovery_id))
            if history is not None:
                self._refuse_unfit(history)
                self._refuse_changed_parameters(history, self._plain)
        if self.options.undo_by and history is None:
            raise BadInput("undo", "there is no recovery to undo", "Name one with resume=ID")
        return self._under_lease(recovery_id)

    # -- parameters --------------------------------------------------------------------------

    def _refuse_secret_parameters(self) -> None:
        for name, value in self._plain.items():
            if contains_secret(str(value)):
                raise BadInput(
                    name,
                    "it contains a secret value, which would have to be stored to resume",
                    "Pass secrets by reference: a file or a block",
                )

    def _known(self, recovery_id: str) -> History:
        history = read_history(self.journal.events(recovery_id))
        if history is None:
            raise BadInput("resume", f"no recovery {recovery_id}", "See `recover status`")
        self._refuse_unfit(history)
        return history

    def _refuse_unfit(self, history: History) -> None:
        if history.flow != self.recovery.name:
            raise BadInput(
                "resume",
                f"recovery {history.recovery_id} is a {history.flow}, not a {self.recovery.name}",
                f"Resume it with `recover resume {history.recovery_id}`",
            )
        if history.abandoned_by and not self.options.undo_by:
            raise Refused(
                history.target,
                f"recovery {history.recovery_id} was abandoned by {history.abandoned_by}",
                "Start a new one, or undo it",
            )
        if history.is_undone and not self.options.undo_by:
            raise Refused(
                history.target,
                f"recovery {history.recovery_id} was undone",
                "Start a new one",
            )

    def _take_recorded_parameters(self, history: History) -> None:
        """Go on with the recorded parameters; a value given that is neither those nor the default
        is a change and refused by name."""
        given = {
            name: value
            for name, value in self._plain.items()
            if (default := self.recovery.parameters[name][1]) is ... or value != to_plain(default)
        }
        self._refuse_changed_parameters(history, given)
        self.parameters = {
            name: from_plain(annotation, history.parameters[name])
            for name, (annotation, _) in self.recovery.parameters.items()
            if name in history.parameters
        }
        self._plain = dict(history.parameters)

    def _refuse_changed_parameters(self, history: History, given: Mapping[str, Any]) -> None:
        changed = [
            f"{name} was {shortly(history.parameters.get(name))}, is now {shortly(value)}"
            for name, value in given.items()
            if history.parameters.get(name) != value
        ]
        if changed:
            raise BadInput(
                ", ".join(text.split(" ", 1)[0] for text in changed),
                f"the inputs of recovery {history.recovery_id} changed: {'; '.join(changed)}",
                "Resume with what they were, or fork: "
                f"`recover resume {history.recovery_id} --set NAME=VALUE`",
            )

    # -- plans and forks ---------------------------------------------------------------------

    def _plan_only(self) -> Ended:
        plan, _ = self.make_plan(self.stage)
        return Ended("", None, plan=plan, message=f"plan {plan.hash}: {len(plan.steps)} steps")

    def make_plan(
        self,
        stage: Stage,
        recovery_id: str = "",
        decisions: Mapping[str, dict[str, Any]] | None = None,
    ) -> tuple[Plan, dict[str, str]]:
        """Walk the flow without changing anything; return its plan and the steps' fingerprints."""
        target = self.recovery.target_of(**self.parameters)
        plan = Plan(self.recovery.name, target, self._plain)
        walk = PlanWalk(
            target, stage, plan=plan, recovery_id=recovery_id, decisions=decisions or {}
        )
        self._walk(walk)
        return plan, walk.fingerprints

    def _fork(self) -> tuple[str, History | None]:
        """Begin a new recovery with what another one has done and still fits."""
        parent = self._known(find_recovery(self.journal, self.options.resume))
        recovery_id = recovery_id_of(self.flow_run_id)
        known = read_history(self.journal.events(recovery_id))
        if known is not None:  # the fork itself is being retried
            return recovery_id, known
        changed = {
            name: [parent.parameters.get(name), value]
            for name, value in self._plain.items()
            if parent.parameters.get(name) != value
        }
        before = self._steps_before(parent)
        decided = {key: body for key, body in parent.decisions.items() if key in before}
        _, fingerprints = self.make_plan(PlainStage(), recovery_id, decided)
        reused = [
            key
            for key in before
            if key in fingerprints and fingerprints[key] == parent.steps[key].arguments_hash
        ]
        diff = {
            "recovery": parent.recovery_id,
            "from_step": self.options.from_step,
            "changed": changed,
            "reused": reused,
            "redone": [key for key in fingerprints if key not in reused],
        }
        step_logger().info("fork of %s: %s", parent.recovery_id, redact(str(diff)))
        self._open(recovery_id, forked_from=diff)
        for key in reused:
            self._reuse(recovery_id, parent, key)
        return recovery_id, read_history(self.journal.events(recovery_id))

    def _steps_before(self, parent: History) -> list[str]:
        """Keys of the parent's done steps and decisions before the step to fork from, in order."""
        first = self.options.from_step
        if first and first not in parent.steps:
            raise BadInput(
                "from_step",
                f"recovery {parent.recovery_id} has no step {first!r}",
                f"Choose one of: {', '.join(parent.steps)}",
            )
        keys = list(parent.steps)
        if first:
            keys = keys[: keys.index(first)]
        return [key for key in keys if parent.steps[key].is_done]

    def _reuse(self, recovery_id: str, parent: History, key: str) -> None:
        step = parent.steps[key]
        about = {
            "kind": step.kind,
            "target": step.target,
            "arguments": step.arguments,
            "arguments_hash": step.arguments_hash,
            "reused_from": parent.recovery_id,
        }
        if step.kind == "decision":
            self.journal.append(
                recovery_id, Kind.DECIDED, {**about, "value": step.result}, step=key
            )
        else:
            body = {**about, "how": "reused", "result": step.result, "danger": step.danger}
            self.journal.append(recovery_id, Kind.DONE, body, step=key)

    def _open(self, recovery_id: str, forked_from: Mapping[str, Any] | None = None) -> None:
        body = {
            "format": 1,
            "flow": self.recovery.name,
            "target": self.recovery.target_of(**self.parameters),
            "parameters": self._plain,
            "runbook": self.recovery.runbook,
            "danger": str(self.recovery.danger),
            "release": release(),
            "flow_run_id": self.flow_run_id,
            "forked_from": dict(forked_from or {}),
        }
        self.journal.append(recovery_id, Kind.OPENED, body)

    # -- the attempt ---------------------------------------------------------------------------

    def _under_lease(self, recovery_id: str) -> Ended:
        target = self.recovery.target_of(**self.parameters)
        lease = take_lease(
            self.journal,
            target,
            recovery_id,
            lease_seconds(),
            take_over=bool(self.options.take_over_by),
            waiting=_tell_waiting,
        )
        keeper = LeaseKeeper(self.journal, lease)
        try:
            history = read_history(self.journal.events(recovery_id))
            if history is None:
                self._open(recovery_id)
                history = read_history(self.journal.events(recovery_id))
            if history is None:
                raise AssertionError  # it was just opened
            if self._is_recovered(history):
                return Ended(
                    recovery_id, RecoveryState.RECOVERED, message="it was recovered before"
                )
            return self._attempt(keeper, history)
        except LeaseLost as lost:
            raise Fenced(target, lease.epoch, str(lost)) from None
        except Fenced:
            keeper.stop()
            raise
        finally:
            keeper.release()

    def _is_recovered(self, history: History) -> bool:
        return (
            not self.options.undo_by
            and bool(history.attempts)
            and history.attempts[-1].ended_as == RecoveryState.RECOVERED
        )

    def _attempt(self, keeper: LeaseKeeper, history: History) -> Ended:
        n = (history.attempts[-1].n if history.attempts else 0) + 1
        kind = WayBack if self.options.undo_by else Attempt
        attempt = kind(
            keeper.lease.target,
            self.stage,
            journal=self.journal,
            keeper=keeper,
            history=history,
            n=n,
            danger=self.recovery.danger,
        )
        started = {
            "flow_run_id": self.flow_run_id,
            "worker": this_worker(),
            "release": release(),
            "goes": "back" if self.options.undo_by else "forward",
            "ordered_by": self.options.undo_by,
        }
        attempt.write(Kind.ATTEMPT_STARTED, started, is_intent=True)
        if self.options.take_over_by:
            attempt.write(Kind.TAKEN_OVER, {"by": self.options.take_over_by})
        attempt.start_over()
        self.on_attempt(attempt.history)
        ended = Ended(history.recovery_id, RecoveryState.FAILED)
        try:
            if isinstance(attempt, WayBack):
                ended.result = self._go_back(attempt)
                ended.state = RecoveryState.UNDONE
            else:
                ended.result = self._go_forward(attempt)
                ended.state = RecoveryState.RECOVERED
        except Exception as error:
            ended.error = scrubbed(error)
            ended.state = _state_after(ended.error)
        finally:
            attempt.close()
        body = {"as": str(ended.state), "result": to_plain(ended.result)}
        if ended.error is not None:
            body |= {"error": str(ended.error), "error_type": type(ended.error).__name__}
        attempt.write(Kind.ATTEMPT_ENDED, body)
        return ended

    def _go_forward(self, attempt: Attempt) -> Any:
        self._settle_approval(attempt)
        for _ in range(STARTS_OVER_MAX):
            try:
                return self._walk_settled(attempt)
            except StaleSteps:
                attempt.start_over()
        raise NeedsPerson(
            attempt.target,
            f"done steps keep becoming undone ({STARTS_OVER_MAX} times in this attempt)",
            "Somebody or something works against this recovery: find out who before resuming",
        )

    def _walk_settled(self, attempt: Attempt) -> Any:
        try:
            result = self._walk(attempt)
        except Exception:
            attempt.settle_passed_over()  # a step that is no longer so explains more than the error
            raise
        attempt.settle_passed_over()
        return result

    def _walk(self, walk: Walk) -> Any:
        token = current_walk.set(walk)
        try:
            return self.recovery.fn(**self.parameters)
        finally:
            current_walk.reset(token)

    def _go_back(self, attempt: WayBack) -> list[str]:
        try:
            self._walk(attempt)
        except EndOfRecord:
            pass
        return attempt.go_back()

    def _settle_approval(self, attempt: Attempt) -> None:
        """Find the consent this attempt acts on; a destructive recovery without one ends here.

        Raises:
            Refused: the plan itself says that something speaks against it.
            NeedsPerson: nobody has approved the plan, or another one was approved.
        """
        is_destructive = self.recovery.danger is Danger.DESTRUCTIVE
        if not is_destructive and not self.options.approve:
            return
        history, wanted = attempt.history, self.options.approve
        planned = history.plan
        valid = valid_approval(history.approvals, planned.get("hash", ""))
        if valid is None or (wanted and wanted != valid.plan_hash):
            if not wanted or wanted != planned.get("hash"):
                plan, _ = self.make_plan(
                    PlainStage(), history.recovery_id, attempt.history.decisions
                )
                planned = plan.as_plain()
                attempt.write(Kind.PLANNED, planned)
                if plan.refusals:
                    raise Refused(plan.target, "; ".join(plan.refusals), "Nothing was changed")
                self._refuse_unapproved(plan, history.plan)
            valid = new_approval(
                planned["hash"],
                self.options.approved_by or _user(),
                "break-glass" if self.options.break_glass else "approved",
                self.options.break_glass,
            )
            attempt.write(
                Kind.APPROVED,
                {
                    "hash": valid.plan_hash,
                    "by": valid.by,
                    "until": valid.until,
                    "how": valid.how,
                    "reason": valid.reason,
                },
            )
        attempt.may_destroy = True
        attempt.approved = commands_by_key(planned) if valid.how == "approved" else None

    def _refuse_unapproved(self, plan: Plan, journaled: Mapping[str, Any]) -> None:
        if self.options.approve:
            refuse_other_hash(plan, self.options.approve, journaled)
        elif not self.options.break_glass:
            raise NeedsPerson(
                plan.target,
                f"this recovery is destructive and nobody has approved its plan {plan.hash}",
                f"Look at it with `recover plan {plan.flow}`, then give --approve {plan.hash}",
            )


def recovery_id_of(flow_run_id: str) -> str:
    """The id of the recovery that a flow run began: its first 12 hexadecimal digits."""
    return flow_run_id.replace("-", "")[:RECOVERY_ID_DIGITS]


def find_recovery(journal: Journal, wanted: str, field_name: str = "resume") -> str:
    """The one recovery whose id begins like this.

    Raises:
        BadInput: there is none, or several.
    """
    found = journal.recovery_ids(starting_with=wanted, limit=5) if wanted else []
    if wanted in found:
        return wanted
    if len(found) != 1:
        seen = f"several recoveries begin with {wanted!r}" if found else f"no recovery {wanted!r}"
        raise BadInput(field_name, f"{seen} in {journal.url}", "See `recover status` for the ids")
    return found[0]


def release() -> str:
    """This release of the software, as recorded with every recovery."""
    try:
        return version("recovery-pipelines")
    except PackageNotFoundError:
        return "unknown"


def launch(  # noqa: PLR0913 (what a run is made of)
    recovery: Recovery,
    parameters: Mapping[str, Any],
    options: Options,
    stage: Stage,
    flow_run_id: str,
    on_attempt: Callable[[History], None] = lambda history: None,
) -> Ended:
    """Run a recovery with the journal that the environment names; see `Launch.run`."""
    journal: Journal | None = None
    try:
        journal = open_journal()
        return Launch(
            recovery, dict(parameters), options, stage, flow_run_id, journal, on_attempt
        ).run()
    except RecoveryError as error:
        return Ended(options.resume, _state_after(error), error=scrubbed(error))
    finally:
        if journal is not None:
            journal.close()


def _state_after(error: Exception | None) -> RecoveryState:
    state = getattr(error, "state", "Failed")
    return {
        "Refused": RecoveryState.REFUSED,
        "Needs person": RecoveryState.NEEDS_PERSON,
        "Half done": RecoveryState.NEEDS_PERSON,
    }.get(state, RecoveryState.FAILED)


def _tell_waiting(holder: Holder) -> None:
    step_logger().warning(
        "waiting up to %.0f s for the lease of %s (%s) to run out",
        holder.seconds_left,
        holder.target,
        holder.owner,
    )


def _user() -> str:
    return os.environ.get("USER") or os.environ.get("LOGNAME") or f"uid {os.getuid()}"


def with_overrides(options: Options, **changes: Any) -> Options:
    """The same options with some changed."""
    return replace(options, **changes)

"""One run of a recovery: what was declared, what was given, and how it ended."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from recovery.also_known import other_names
from recovery.approval.question import Form, Question
from recovery.drill import Drill
from recovery.journal.events import FORMAT, Kind
from recovery.journal.history import RecoveryState, StepRecord
from recovery.journal.store import Holder, Journal, Lease
from recovery.plan import Plan
from recovery.planning import PlanWalk
from recovery.steps import current_walk
from recovery.values import to_plain
from recovery.verdict import Danger
from recovery.walk import Stage, Walk

RECOVERY_ID_DIGITS = 12


@dataclass(frozen=True)
class Options:
    """How to run, apart from what to recover: the last fields of every recovery's form.

    Attributes:
        resume: id of the recovery to go on with; empty begins a new one.
        fork: begin a new recovery that reuses what `resume` has done and still fits.
        from_step: with `fork`, the first step not to reuse.
        plan_only: show what would be done, with exact commands, and change nothing; with `undo_by`
            the steps back.
        approve: hash of the plan that is consented to.
        approved_by: who consents.
        break_glass: reason to go ahead without an approved plan; recorded.
        take_over_by: who orders to take the lease from an attempt that is known to be gone.
        undo_by: who orders to go back instead of forward; with `resume`.
        undo_reason: why, where the recovery was completed or another has changed the target since.
        requested_by: who asks for a new recovery; kept in the journal, consents to nothing.
        if_taken: `skip` ends a new recovery well where another one holds its target.
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
    undo_reason: str = ""
    requested_by: str = ""
    if_taken: str = ""

    def __post_init__(self) -> None:
        """Take a reason of blanks for none."""
        for name in ("break_glass", "undo_reason"):
            object.__setattr__(self, name, getattr(self, name).strip())


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
        parts_of: names what else is leased with it: the hosts of a cluster, each by itself.
        parameters: type and default of each parameter, by name; `...` where there is no default.
        drill: what it proves, where it is a drill.
        resumes_itself: why it may go on without a person when its worker is lost; empty: not.
    """

    name: str
    fn: Callable[..., Any]
    runbook: str
    answers: tuple[str, ...]
    danger: Danger
    target_of: Callable[..., str]
    parameters: Mapping[str, tuple[Any, Any]]
    parts_of: Callable[..., Sequence[str]] = lambda **_: ()
    drill: Drill | None = None
    resumes_itself: str = ""


@dataclass
class Ended:
    """How a run of a recovery ended. `error` is what the operator must act on, if anything."""

    recovery_id: str
    state: RecoveryState | None
    result: Any = None
    error: Exception | None = None
    plan: Plan | None = None
    message: str = ""
    question: Question | None = None


@dataclass
class Run:
    """One run of a recovery.

    `parameters` are typed values; `plain` is what the journal keeps. `form` is how this run can ask
    a person and wait without a process, where it can; `question` is what it asks now. `taken_from`
    are those whose live leases it took over by order.
    """

    recovery: Recovery
    parameters: dict[str, Any]
    options: Options
    stage: Stage
    flow_run_id: str
    journal: Journal
    run_state_id: str = ""
    plain: dict[str, Any] = field(init=False)
    recovery_id: str = ""
    form: Form | None = None
    question: Question | None = None
    taken_from: list[Holder] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Make the parameters plain."""
        self.plain = {name: to_plain(value) for name, value in self.parameters.items()}

    @property
    def target(self) -> str:
        """What is repaired, by name."""
        return self.recovery.target_of(**self.parameters)

    @property
    def parts(self) -> list[str]:
        """What else is leased, in the one order in which everybody takes it."""
        names = {self.target, *self.recovery.parts_of(**self.parameters)}
        names |= {other for name in names for other in other_names(name)}
        return sorted(names - {self.target})

    def order(self, recovery_id: str) -> str:
        """What a person types to have done again what this run was to do with a recovery."""
        if not self.options.undo_by:
            return f"recover resume {recovery_id}"
        if self.form is not None:
            return f"recover undo {recovery_id} --by NAME --worker"
        why = " --reason TEXT" if self.options.undo_reason else ""
        why = " --break-glass REASON" if self.options.break_glass else why
        return f"recover undo {recovery_id} --by NAME{why}"

    def walk(self, walk: Walk) -> Any:
        """Go along the flow once."""
        token = current_walk.set(walk)
        try:
            return self.recovery.fn(**self.parameters)
        finally:
            current_walk.reset(token)

    def make_plan(
        self,
        stage: Stage,
        identities: Sequence[str] = (),
        decisions: Mapping[str, dict[str, Any]] | None = None,
        reusable: Mapping[str, StepRecord] | None = None,
    ) -> tuple[Plan, PlanWalk]:
        """Walk the flow without changing anything; return its plan and what the walk came to.

        Args:
            stage: where its looks are shown.
            identities: ids that may stand in commands, the recovery's own first.
            decisions: decisions that stand already, by key.
            reusable: what a fork may take over, by key.
        """
        plan = Plan(self.recovery.name, self.target, self.plain)
        walk = PlanWalk(
            self.target,
            stage,
            plan=plan,
            identities=tuple(identities),
            decisions=decisions or {},
            reusable=reusable or {},
        )
        self.walk(walk)
        return plan, walk

    def open(
        self, recovery_id: str, lease: Lease, forked_from: Mapping[str, Any] | None = None
    ) -> None:
        """Write the first event of a new recovery."""
        body = {
            "format": FORMAT,
            "flow": self.recovery.name,
            "target": self.target,
            "parameters": self.plain,
            "runbook": self.recovery.runbook,
            "danger": str(self.recovery.danger),
            "release": release(),
            "flow_run_id": self.flow_run_id,
            "forked_from": dict(forked_from or {}),
            "requested_by": self.options.requested_by,
        }
        if self.recovery.drill is not None:
            body["drill"] = to_plain(self.recovery.drill)
        self.journal.append(recovery_id, Kind.OPENED, body, lease=lease, needs_live_lease=True)


def recovery_id_of(flow_run_id: str) -> str:
    """The id of the recovery that a flow run began: its last 12 hexadecimal digits.

    The first ones are the time in Prefect's ids, and shared by runs of one alert storm.
    """
    return flow_run_id.replace("-", "")[-RECOVERY_ID_DIGITS:]


def release() -> str:
    """This release of the software, as recorded with every recovery."""
    try:
        return version("recovery-pipelines")
    except PackageNotFoundError:
        return "unknown"


def this_user() -> str:
    """Who runs this process, for the record."""
    return os.environ.get("USER") or os.environ.get("LOGNAME") or f"uid {os.getuid()}"

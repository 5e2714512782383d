"""`@recovery`: declares a flow as a recovery, with plan, lease, approval, resume and undo built in.

What it returns is a Prefect flow whose form has the recovery's own parameters first and the
`Options` of every recovery after them. The flow's code knows nothing of any of that.
"""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Annotated, Any, TypeVar
from uuid import UUID, uuid4

from httpx import HTTPError
from prefect import Flow, State, runtime
from prefect.artifacts import create_markdown_artifact
from prefect.context import FlowRunContext
from prefect.exceptions import Abort, PrefectException
from prefect.states import Completed, Failed
from pydantic import Field

from recovery.approval.form import PrefectForm
from recovery.approval.question_markdown import question_markdown
from recovery.drill import Drill
from recovery.errors import BadInput, Fenced, RecoveryError
from recovery.evidence.report import drill_markdown, markdown_report
from recovery.forms import name_of_picked, plain_type, shown_type
from recovery.journal.opening import open_journal
from recovery.launch import launch
from recovery.plan import as_markdown
from recovery.run import Ended, Options, Recovery
from recovery.secrecy.log_redaction import install_log_redaction, redacting_stdio
from recovery.secrecy.redaction import redact
from recovery.stage import PlainStage, PrefectStage
from recovery.verdict import Danger
from recovery.walk import step_logger
from recovery.words import told

ARTIFACT_CHARS_MAX = 200_000
R = TypeVar("R")
RECOVERIES: dict[str, Recovery] = {}
OPTION_NAMES = tuple(field.name for field in fields(Options))
OPTION_TITLES = {
    "resume": "Resume: id of the recovery",
    "fork": "Resume: as a new recovery (fork)",
    "from_step": "Resume: fork from this step",
    "plan_only": "Plan only, change nothing",
    "approve": "Approval: hash of the plan",
    "approved_by": "Approval: your name",
    "break_glass": "Break glass: reason to go ahead without an approved plan",
    "take_over_by": "Take over a lost attempt: your name",
    "undo_by": "Undo the resumed recovery: your name",
    "undo_reason": "Undo the resumed recovery: why",
    "requested_by": "Requested by: your name",
    "if_taken": "Where the target is taken: empty or skip",
}
OPTION_HELP = {
    "resume": "Id of the recovery to go on with. Empty begins a new one.",
    "fork": "Begin a new recovery that reuses what the resumed one has done and still fits.",
    "from_step": "Of a fork: the first step not to reuse, as *Task Runs* names it.",
    "plan_only": "Show what would be done, with exact commands, and change nothing. With the id "
    "and a name to undo: the steps back.",
    "approve": "Hash of the plan you consent to.",
    "approved_by": "Who consents. Without a hash the run waits and asks: *Resume* has the form.",
    "break_glass": "Reason to go ahead without an approved plan. It is recorded.",
    "take_over_by": "Who orders to take the lease from an attempt that is known to be gone.",
    "undo_by": "Who orders to go back instead of forward. Needs the id of the recovery.",
    "undo_reason": "Why it is undone, where it was completed or another one has changed the target "
    "since. Whoever must consent is asked all the same.",
    "requested_by": "Who asks for a new recovery. Where two persons are needed, another consents.",
    "if_taken": "Where another recovery holds the target: empty refuses, `skip` ends well.",
}


def recovery(  # noqa: PLR0913 (what a recovery declares)
    *,
    runbook: str,
    target: Callable[..., str],
    parts: Callable[..., Sequence[str]] | None = None,
    answers: Sequence[str] = (),
    danger: Danger = Danger.CHANGE,
    drill: Drill | None = None,
    resumes_itself: str = "",
) -> Callable[[Callable[..., Any]], Flow[..., Any]]:
    """Declare a recovery.

    Args:
        runbook: path of the runbook it replaces.
        target: names what is repaired, and hence leased, from the parameters (by their names).
        parts: names what else is leased with the target, such as each host of a cluster, so that
            no other recovery of these runs at the same time.
        answers: names of the alerts it answers.
        danger: the most dangerous of its steps; a destructive recovery needs an approved plan.
        drill: that it is a drill: of which recovery, and how its time is split.
        resumes_itself: why the orphan watch may resume it without a person once its worker is lost:
            what makes every act that may be in doubt safe to ask about and to do again. Empty, as
            usual: a person resumes it.
    """

    def declare(fn: Callable[..., Any]) -> Flow[..., Any]:
        name = fn.__name__.replace("_", "-")
        signature = inspect.signature(fn, eval_str=True)
        taken = set(signature.parameters) & set(OPTION_NAMES)
        if taken:
            raise TypeError(f"{name}: {', '.join(sorted(taken))} is an option of every recovery")
        declared = Recovery(
            name=name,
            fn=fn,
            runbook=runbook,
            answers=tuple(answers),
            danger=danger,
            target_of=_asking_by_name(target),
            parts_of=_asking_by_name(parts or (lambda: ())),
            resumes_itself=resumes_itself,
            parameters={
                parameter.name: (
                    plain_type(parameter.annotation),
                    ... if parameter.default is parameter.empty else parameter.default,
                )
                for parameter in signature.parameters.values()
            },
            drill=drill,
        )
        RECOVERIES[name] = declared
        return _as_flow(declared, signature)

    return declare


def run_plainly(declared: Recovery, parameters: dict[str, Any], options: Options) -> Ended:
    """Run a recovery in this process without a Prefect server."""
    install_log_redaction()
    return launch(declared, parameters, options, PlainStage(), str(uuid4()))


def _asking_by_name(named: Callable[..., R]) -> Callable[..., R]:
    wanted = tuple(inspect.signature(named).parameters)
    return lambda **parameters: named(**{name: parameters[name] for name in wanted})


def _as_flow(declared: Recovery, signature: inspect.Signature) -> Flow[..., Any]:
    def body(**everything: Any) -> State[Any]:
        install_log_redaction()
        options = Options(**{name: everything.pop(name) for name in OPTION_NAMES})
        context = FlowRunContext.get()
        flow_run = context.flow_run if context else None
        run_id: UUID | None = flow_run.id if flow_run else None
        form = PrefectForm.of_this_run()
        try:
            everything = {name: name_of_picked(name, value) for name, value in everything.items()}
            with redacting_stdio():
                ended = launch(
                    declared,
                    everything,
                    options,
                    PrefectStage(),
                    str(run_id or uuid4()),
                    form,
                    run_state_id=str(flow_run.state.id) if flow_run and flow_run.state else "",
                )
        except Fenced as fenced:
            raise Abort(str(fenced)) from fenced
        except BadInput as error:  # of the form itself: there is no recovery yet
            return _said(Failed(name=error.state, message=str(error)))
        _publish(declared, ended)
        if form is not None and ended.question is not None:
            step_logger().warning("%s", ended.question.told)
            form.ask(ended.question)
        return _said(_state_of(ended))

    shown = [
        *(
            parameter.replace(
                kind=inspect.Parameter.KEYWORD_ONLY,
                annotation=shown_type(parameter.name, parameter.annotation),
            )
            for parameter in signature.parameters.values()
        ),
        *(
            inspect.Parameter(
                field.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=field.default,
                annotation=Annotated[
                    field.type, Field(json_schema_extra={"title": OPTION_TITLES[field.name]})
                ],
            )
            for field in fields(Options)
        ),
    ]
    body.__signature__ = inspect.Signature(shown, return_annotation=State)  # type: ignore[attr-defined]  # what inspect and pydantic read
    body.__annotations__ = {parameter.name: parameter.annotation for parameter in shown}
    body.__name__ = declared.fn.__name__
    body.__qualname__ = declared.fn.__qualname__
    body.__module__ = declared.fn.__module__
    body.__doc__ = _documented(declared)
    return Flow(
        body,
        name=declared.name,
        description=inspect.getdoc(declared.fn),
        flow_run_name=lambda: _run_name(declared),
        persist_result=False,
        log_prints=False,
    )


def _documented(declared: Recovery) -> str:
    """The flow's docstring with the options among its arguments: the form shows them."""
    text = inspect.getdoc(declared.fn) or declared.name
    options = [f"    {name}: {help_text}" for name, help_text in OPTION_HELP.items()]
    before, mark, after = text.partition("Args:\n")
    if not mark:
        return "\n".join([text, "", "Args:", *options])
    own, gap, rest = after.partition("\n\n")
    return "\n".join([f"{before}Args:", own, *options, f"{gap}{rest}"])


def _run_name(declared: Recovery) -> str:
    try:
        given = {
            name: name_of_picked(name, value) for name, value in runtime.flow_run.parameters.items()
        }
        return f"{declared.name} on {declared.target_of(**given)}"
    except (RecoveryError, KeyError, TypeError):  # the run itself says what is wrong with them
        return declared.name


def _state_of(ended: Ended) -> State[Any]:
    if ended.error is None:
        name = str(ended.state or ("planned" if ended.plan else "skipped")).capitalize()
        return Completed(name=name, message=_message_of(ended))
    name = ended.error.state if isinstance(ended.error, RecoveryError) else "Failed"
    return Failed(name=name, message=_message_of(ended))


def _said(state: State[Any]) -> State[Any]:
    """Have the log end with why and what to do, where the page shows the log and not the message.

    Prefect's own last word on a run that did not complete is a traceback of its engine.
    """
    if state.is_failed():
        step_logger().error("%s: %s", state.name, state.message)
    return state


def _message_of(ended: Ended) -> str:
    text = redact(str(ended.error)) if ended.error is not None else ended.message
    if not text:
        text = f"{ended.state}: {told(ended.result)}" if ended.result else str(ended.state)
    return f"recovery {ended.recovery_id}: {text}" if ended.recovery_id else text


def _publish(declared: Recovery, ended: Ended) -> None:
    """Show the report (or the plan) in the UI, as an artifact of the run."""
    if ended.question is not None:
        text = question_markdown(ended.question, ARTIFACT_CHARS_MAX)
        _keep_artifact(f"approval-{ended.question.asked.plan_hash}", text, ended.question.asked.why)
    if ended.plan is not None:
        _keep_artifact(f"plan-{ended.plan.hash}", as_markdown(ended.plan), ended.message)
    elif ended.recovery_id and ended.state is not None:
        try:
            journal = open_journal()
            try:
                report = markdown_report(journal, ended.recovery_id)
                drills = drill_markdown(journal, ended.recovery_id)
            finally:
                journal.close()
        except RecoveryError:  # it never began: the state of the run says all there is
            return
        _keep_artifact(f"recovery-{ended.recovery_id}", report, _message_of(ended))
        if drills:
            _keep_artifact(declared.name, drills, "RTO by phase and RPO of all runs")


def _keep_artifact(key: str, markdown: str, description: str) -> None:
    try:
        create_markdown_artifact(markdown, key=key, description=redact(description))
    except (PrefectException, HTTPError) as error:  # the journal has it all: nothing is lost
        step_logger().warning("the report is not shown in the UI: %s", error)

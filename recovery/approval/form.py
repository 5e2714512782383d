"""Asking through the Prefect UI: the run is suspended, and no process waits for the answer.

Prefect keeps no approver and replays what was answered before. So each question has a key of its
own, an answer is read once and journaled, and what was journaled is not read again.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from httpx import HTTPError
from prefect.context import FlowRunContext
from prefect.exceptions import PrefectException
from prefect.flow_runs import suspend_flow_run
from prefect.input import RunInput, keyset_from_base_key
from prefect.input.actions import read_flow_run_input
from pydantic import ConfigDict, Field, ValidationError, create_model, field_validator

from recovery.approval.question import Answer, Decision, Question
from recovery.approval.question_markdown import question_markdown
from recovery.errors import unanswered
from recovery.journal.consents import Asked
from recovery.walk import step_logger

TEXT_CHARS_MAX = 2000
SPECIAL = re.compile(r"[\[\].^$*+?(){}|\\/]")


class _Typed(RunInput):
    """What comes back from the form; what was shown may have been another release's."""

    model_config = ConfigDict(extra="ignore")

    plan_hash: str = Field(max_length=TEXT_CHARS_MAX)
    decision: Decision
    approver: str = Field(max_length=TEXT_CHARS_MAX)
    reason: str = Field(default="", max_length=TEXT_CHARS_MAX)
    confirm: str = Field(default="", max_length=TEXT_CHARS_MAX)
    code: str = Field(default="", max_length=TEXT_CHARS_MAX)

    @field_validator("*", mode="before")
    @classmethod
    def _without_ends(cls, value: Any) -> Any:
        """What was typed, without a blank or an end of line around it."""
        return value.strip() if isinstance(value, str) else value


class _SavedBefore(RunInput):
    """Stands for a form that is on the server already.

    Prefect saves a form after the run is suspended: who answers at once, or whose worker is killed
    in between, would find none.
    """

    @classmethod
    def save(cls, keyset: Any, flow_run_id: UUID | None = None) -> None:
        """Do nothing."""


@dataclass(frozen=True)
class PrefectForm:
    """The form of one flow run that has a deployment; see Form."""

    flow_run_id: UUID

    @classmethod
    def of_this_run(cls) -> "PrefectForm | None":
        """The form of the run that is under way; `None` where Prefect could not wake it again."""
        context = FlowRunContext.get()
        run = context.flow_run if context is not None else None
        if run is None or run.deployment_id is None or run.parent_task_run_id is not None:
            return None
        return cls(run.id)

    def answer(self, asked: Asked) -> Answer | None:
        """What was answered to this very question, if anything.

        Raises:
            Unreachable: the server does not answer; asking again may help.
        """
        key = f"suspended-{asked.key}-response"
        try:
            given = read_flow_run_input(key, flow_run_id=self.flow_run_id)
        except (HTTPError, PrefectException) as error:
            raise unanswered("the Prefect server", "the answer to a form", str(error)) from error
        if given is None:
            return None
        try:
            typed = _Typed.model_validate(given)
        except ValidationError as error:
            first = error.errors(include_input=False)[0]
            return Answer(flaw=f"{'.'.join(map(str, first['loc']))}: {first['msg']}")
        return Answer(
            typed.plan_hash,
            typed.decision,
            typed.approver,
            typed.reason,
            typed.confirm,
            typed.code,
        )

    def ask(self, question: Question) -> None:
        """Suspend the run until it is answered. Returns only where that is not possible.

        Raises:
            Pause: the run is suspended; its process ends.
        """
        key = question.asked.key
        try:
            _form_of(question).save(keyset_from_base_key(f"suspended-{key}"), self.flow_run_id)
            suspend_flow_run(
                wait_for_input=_SavedBefore,
                timeout=max(1, round(question.waits_seconds)),
                key=key,
            )
        except (HTTPError, PrefectException, RuntimeError) as error:
            step_logger().warning("it cannot be asked in the UI: %s", error)


def _form_of(question: Question) -> type[RunInput]:
    """The form, with the plan above its fields; nothing that counts has an answer filled in.

    All of it is typed, and the server refuses what it does not offer: a list to choose from would
    be closed again in the UI as soon as somebody clicks on it, for its dialog takes the focus back.
    """
    asked = question.asked
    persons = f"One of {', '.join(asked.of)}. " if asked.of else ""
    fields: dict[str, Any] = {
        "plan_hash": (
            str,
            Field(
                default=asked.plan_hash,
                title="Plan",
                description="What you consent to. Leave it as it is: another hash does not count.",
            ),
        ),
        "decision": (
            str,
            Field(
                title="Decision",
                pattern=_one_of(tuple(Decision)),
                description="Type approve or reject; or look-again, where somebody has consented "
                "by `recover approve`.",
            ),
        ),
        "approver": (
            str,
            Field(
                title="Your name",
                pattern=_one_of(asked.of) if asked.of else None,
                description=f"{persons}It is kept in the journal.",
            ),
        ),
        "confirm": (
            str,
            Field(
                title="Confirm",
                description=f"Type what is to be changed: {asked.confirm}",
            ),
        ),
        "reason": (
            str,
            Field(
                default="",
                title="Reason",
                description="Why; kept in the journal. No secrets: Prefect keeps it, too.",
            ),
        ),
    }
    if asked.proven:
        told = f"To be given by {', '.join(asked.proven)}: what `{question.command} --code` prints."
        fields["code"] = (str, Field(default="", title="Code", description=told))
    form: type[RunInput] = create_model("Approval", __base__=RunInput, **fields)
    form._description = question_markdown(question)  # noqa: SLF001 (where Prefect looks for it)
    return form


def _one_of(words: Sequence[str]) -> str:
    """A pattern that these words match, in Python and in a browser."""
    return f"^\\s*({'|'.join(SPECIAL.sub(_escaped, word) for word in words)})\\s*$"


def _escaped(found: re.Match[str]) -> str:
    return f"\\{found[0]}"

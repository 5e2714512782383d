"""What a person is asked before a recovery goes on, and what may be answered."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol

from recovery.journal.consents import Asked
from recovery.plan import plain_as_markdown
from recovery.secrecy.redaction import redact

PLAN_CHARS_MAX = 12_000


class Decision(StrEnum):
    """What can be answered. To look again is for consent that was given by `recover approve`."""

    APPROVE = "approve"
    REJECT = "reject"
    LOOK_AGAIN = "look-again"


@dataclass(frozen=True)
class Answer:
    """One answer to a form, as it was typed. `flaw`: it is not what the form asks for."""

    plan_hash: str = ""
    decision: Decision | None = None
    approver: str = ""
    reason: str = ""
    confirm: str = ""
    code: str = ""
    flaw: str = ""


@dataclass(frozen=True)
class Question:
    """What is asked, with what the answer is to be made of.

    Attributes:
        asked: the question as the journal has it.
        recovery_id: which recovery asks.
        flow: its flow.
        target: what it repairs.
        requested_by: who asked for it; empty: not known.
        given: whose consent counts already.
        planned: the plan, as it was journaled; of a way back, its steps as acts.
        waits_seconds: how long a suspended run waits.
    """

    asked: Asked
    recovery_id: str
    flow: str
    target: str
    requested_by: str
    given: tuple[str, ...]
    planned: Mapping[str, Any]
    waits_seconds: float

    @property
    def command(self) -> str:
        """How to consent from a terminal."""
        return f"recover approve {self.recovery_id} --plan {self.asked.plan_hash} --by NAME"

    def as_markdown(self, plan_chars_max: int = PLAN_CHARS_MAX) -> str:
        """The question for people: what, why, by whom, and the plan with what was found."""
        asked = self.asked
        persons = (
            f"{asked.needs} of {', '.join(asked.of)}" if asked.of else f"{asked.needs}, anyone"
        )
        rows = [
            f"## {self.flow} on {self.target}",
            "",
            asked.why + ".",
            "",
            f"- Recovery: `{self.recovery_id}`, asked for by {self.requested_by or 'nobody known'}",
            f"- {'Way back' if asked.goes_back else 'Plan'}: `{asked.plan_hash}`",
            f"- Approvals: {persons}; given: {', '.join(self.given) or 'none'}",
        ]
        if asked.until:
            until = datetime.fromisoformat(asked.until)
            rows.append(f"- It waits until {until:%Y-%m-%d %H:%M} UTC, then it can be resumed")
        rows += [f"- From a terminal: `{self.command}`", ""]
        plan = plain_as_markdown(dict(self.planned))
        if len(plan) > plan_chars_max:
            plan = plan[:plan_chars_max].rpartition("\n")[0]
            plan += (
                "\n\n**The plan is longer than what is shown here.** All of it: the artifact of "
                f"this run, or `recover approve {self.recovery_id}`\n"
            )
        return redact("\n".join(rows) + plan)


class Form(Protocol):
    """How a run asks a person and waits without holding a process."""

    def answer(self, asked: Asked) -> Answer | None:
        """What was answered to this very question, if anything."""

"""What a person is asked before a recovery goes on, and what may be answered."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol

from recovery.journal.consents import Asked


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
        return self.asked.command(self.recovery_id)

    @property
    def told(self) -> str:
        """What a suspended run waits for, for its log: Prefect shows no reason for its state."""
        until = f"{datetime.fromisoformat(self.asked.until):%Y-%m-%d %H:%M} UTC"
        return (
            f"it waits for a person until {until}: read the plan in *Artifacts*, then press "
            f"*Resume*; or `{self.command}`"
        )


class Form(Protocol):
    """How a run asks a person and waits without holding a process."""

    def answer(self, asked: Asked) -> Answer | None:
        """What was answered to this very question, if anything."""

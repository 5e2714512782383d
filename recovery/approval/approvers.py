"""Who may consent to what, and how many it takes: a data file, read on the worker."""

import os
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from recovery.approval.proof import is_proven
from recovery.errors import BadInput
from recovery.journal.consents import Approval, Asked, Consents
from recovery.journal.history import History
from recovery.verdict import Danger

NAME = "RECOVER_APPROVERS"
ANSWER_WITHIN_HOURS = 24.0
NAME_CHARS_MAX = 100
ALERT = re.compile(r"alert( .*)? \(route .*\)", re.DOTALL)


class Approver(BaseModel):
    """One who may consent. `proof_file`: on the worker; by it the name is proven, or not taken."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    proof_file: Path | None = None


class Rule(BaseModel):
    """What it takes for the recoveries it is about; the first rule that fits counts."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    recovery: str = ""
    danger: Danger | None = None
    needs: int = Field(default=1, ge=1)
    of: tuple[str, ...] = ()
    requester_suffices: bool = True
    answer_within_hours: float = Field(default=ANSWER_WITHIN_HOURS, gt=0, le=24 * 30)

    @model_validator(mode="after")
    def _is_about_something(self) -> Self:
        if not self.recovery and self.danger is None:
            raise ValueError("it names neither a recovery nor a danger")
        return self

    def fits(self, recovery: str, danger: Danger) -> bool:
        """Whether it is about this recovery."""
        return self.recovery in {"", recovery} and self.danger in {None, danger}


ANYONE = Rule(danger=Danger.DESTRUCTIVE)


class Approvers(BaseModel):
    """The file: persons by name, and rules."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    approvers: dict[str, Approver | None] = Field(default_factory=dict)
    rules: tuple[Rule, ...] = ()

    @model_validator(mode="after")
    def _names_known_persons(self) -> Self:
        if len({same(name) for name in self.approvers}) < len(self.approvers):
            raise ValueError("approvers: two names differ by nothing but case or blanks")
        if any(not same(name) or len(name) > NAME_CHARS_MAX for name in self.approvers):
            raise ValueError(f"approvers: a name is empty or longer than {NAME_CHARS_MAX}")
        if alerts := [name for name in self.approvers if is_alert(name)]:
            raise ValueError(f"approvers: {alerts[0]} is how an alert is named, and no person")
        for number, rule in enumerate(self.rules):
            if unknown := [name for name in rule.of if name not in self.approvers]:
                raise ValueError(f"rules.{number}.of: {', '.join(unknown)} is no approver")
            persons = len(set(rule.of or self.approvers))
            if persons and rule.needs > persons:
                raise ValueError(f"rules.{number}.needs: {rule.needs} of {persons} persons")
        return self

    def rule_for(self, recovery: str, danger: Danger) -> Rule | None:
        """What this recovery takes; `None`: it needs no consent."""
        rule = next((one for one in self.rules if one.fits(recovery, danger)), None)
        if rule is None and danger is Danger.DESTRUCTIVE:
            rule = ANYONE
        if rule is not None and not rule.of:
            rule = rule.model_copy(update={"of": tuple(self.approvers)})
        return rule

    def proof_file(self, name: str) -> Path | None:
        """Where the worker keeps what proves this name; `None` where it is taken as it is."""
        approver = self.approvers.get(name)
        return approver.proof_file if approver is not None else None


def approvers() -> Approvers:
    """Read the file that RECOVER_APPROVERS names; without one, anyone may consent.

    Raises:
        BadInput: it cannot be read, or is malformed: then nobody may, and nothing is done.
    """
    path = os.environ.get(NAME, "").strip()
    if not path:
        return Approvers()
    remedy = "Mend it: docs/approvals.md says what it holds"
    try:
        read = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        return Approvers.model_validate(read or {})
    except OSError as error:
        raise BadInput(NAME, f"{path} cannot be read: {error.strerror}", remedy) from error
    except (ValueError, yaml.YAMLError) as error:
        raise BadInput(NAME, f"{path}: {_flaw(error)}", remedy) from None


def asked_under(rule: Rule | None, consents: Consents, *, goes_back: bool = False) -> Rule | None:
    """The rule of this machine, and no less than that under which its questions were asked.

    Who resumes a recovery from a machine without the file has not thereby changed what it takes.
    Who may consent is what the file here says, where it names anybody.
    """
    for asked in consents.questions:
        if asked.goes_back is not goes_back:
            continue
        rule = rule or ANYONE
        rule = rule.model_copy(
            update={
                "needs": max(rule.needs, asked.rule_needs),
                "of": rule.of or asked.of,
                "requester_suffices": rule.requester_suffices and asked.requester_suffices,
            }
        )
    return rule


def same(name: str) -> str:
    """A name as it is compared: case and blanks make no other person."""
    return " ".join(name.split()).casefold()


def asked_by_alert(alert: str, route: str) -> str:
    """How an alert is named that asks for a recovery; no person can have such a name.

    Args:
        alert: its name; empty: not known.
        route: the route that it came by.
    """
    return f"alert {alert} (route {route})" if alert else f"alert (route {route})"


def is_alert(name: str) -> bool:
    """Whether a name is that of an alert: it consents to nothing."""
    return ALERT.fullmatch(same(name)) is not None


def known_as(name: str, of: Sequence[str]) -> str:
    """The name as the file spells it; empty where it is not among those who may."""
    if is_alert(name):
        return ""
    if not of:
        return " ".join(name.split())
    return next((one for one in of if same(one) == same(name)), "")


@dataclass(frozen=True)
class Count:
    """How far a plan is consented to.

    Attributes:
        persons: whose consent counts, in the order they gave it.
        missing: how many more it takes.
        told: what is wanting, as sentence parts.
    """

    persons: tuple[str, ...]
    missing: int
    told: tuple[str, ...]


def count_of(history: History, asked: Asked | None, plan_hash: str) -> Count:
    """How far a plan is consented to, by what was asked for and what was said; proofs aside."""
    needs, of = (asked.needs, asked.of) if asked is not None else (1, ())
    rule = Rule(danger=Danger.DESTRUCTIVE, needs=needs, of=of)
    return counted(rule, history.consents.standing(plan_hash), history.requested_by)


def counted(
    rule: Rule,
    standing: Sequence[Approval],
    requester: str,
    not_proven: Sequence[str] = (),
) -> Count:
    """Count distinct persons who may consent.

    Where the requester does not suffice and is not known, any one person may be the requester: two
    persons are then the least. The same where an alert asked: whoever can send one, or set it off,
    may be the one who consents.

    Args:
        rule: what it takes.
        standing: consents to the plan that still hold.
        requester: who asked for the recovery; empty: not known.
        not_proven: who of them did not prove the name.
    """
    persons: list[str] = []
    told = [f"{name} did not prove that name" for name in not_proven]
    for given in standing:
        name = known_as(given.by, rule.of)
        if not name:
            told.append(f"{given.by} is no approver of it")
        elif name not in not_proven and same(name) not in map(same, persons):
            persons.append(name)
    missing = max(0, rule.needs - len(persons))
    if not rule.requester_suffices and not missing:
        others = [name for name in persons if same(name) != same(requester)]
        if (not requester or is_alert(requester)) and len(persons) == 1:
            missing = 1
            who = f"{requester} is no person" if requester else "who asked for it is not known"
            told.append(f"{who}, so a second person is needed")
        elif not others:
            missing = 1
            told.append(f"{requester} asked for it, so another one must consent too")
    return Count(tuple(persons), missing, tuple(dict.fromkeys(told)))


def not_proven(
    policy: Approvers,
    rule: Rule,
    standing: Sequence[Approval],
    recovery_id: str,
    spent: Collection[str] = (),
) -> list[str]:
    """Who of these must prove the name and did not, with any of their consents.

    Raises:
        BadInput: what the worker keeps of an approver cannot be read.
    """
    proven, seen = set(), []
    for given in standing:
        name = known_as(given.by, rule.of)
        path = policy.proof_file(name)
        if path is None:
            continue
        seen.append(name)
        if given.code in spent:
            continue
        if is_proven(path, given.code, recovery_id, given.plan_hash, given.about):
            proven.add(name)
    return [name for name in dict.fromkeys(seen) if name not in proven]


def _flaw(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        text = first["msg"].removeprefix("Value error, ")
        return f"{where}: {text}" if where else text
    return " ".join(str(error).split())

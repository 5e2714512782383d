"""What a recovery would do: every step with its exact commands, and a hash to give consent to."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from recovery.values import fingerprint

RECOVERY_ID = "@recovery@"  # of characters that no shell quotes, so that it stays as it is


def without_identity(text: str, identities: Iterable[str]) -> str:
    """Write a command as it stands in a plan: the id of the recovery is not known then.

    Args:
        text: the command.
        identities: the id of the recovery and of those it was forked from.
    """
    for recovery_id in identities:
        text = text.replace(recovery_id, RECOVERY_ID)
    return text


@dataclass(frozen=True)
class PlannedStep:
    """One step of a plan.

    `is_already_so`: its effect is there, it would do nothing. `found`: what a look returned.
    `only_if`: what calls for it, where it is mostly not needed.
    """

    key: str
    kind: str
    target: str
    danger: str
    commands: tuple[str, ...] = ()
    is_already_so: bool = False
    found: str = ""
    only_if: str = ""

    def as_plain(self) -> dict[str, Any]:
        """The step as `recover plan --json` prints it; `found` stands in looks alone.

        A plan's hash is made of acts as they are written here, but for `only_if`.
        """
        plain: dict[str, Any] = {
            "key": self.key,
            "kind": self.kind,
            "target": self.target,
            "danger": self.danger,
            "commands": list(self.commands),
            "is_already_so": self.is_already_so,
        }
        if self.kind != "act":
            return {**plain, "found": self.found}
        return {**plain, "only_if": self.only_if} if self.only_if else plain


@dataclass
class Plan:
    """What a recovery would do, in order, and what speaks against it."""

    flow: str
    target: str
    parameters: dict[str, Any]
    refusals: list[str] = field(default_factory=list)
    steps: list[PlannedStep] = field(default_factory=list)

    @property
    def hash(self) -> str:
        """A name for exactly this plan: 16 hexadecimal digits. Any other command makes another.

        Only what changes something counts: a look that is taken once more changes no plan.
        """
        plain = [replace(step, only_if="").as_plain() for step in self.steps]
        acts = [step for step in plain if step["kind"] == "act"]
        return fingerprint([self.flow, self.target, self.parameters, acts])[:16]

    @property
    def title(self) -> str:
        """What it is a plan of."""
        return f"Plan {self.hash}: {self.flow} on {self.target}"

    @property
    def notes(self) -> list[str]:
        """What there is to know of it beside its steps, in sentences."""
        return []

    @property
    def is_empty(self) -> bool:
        """Whether it sends no command at all: nothing is to do."""
        return not any(step.commands for step in self.steps)

    @property
    def reasons(self) -> list[str]:
        """What speaks against it, each once: what many steps are refused for buries the rest."""
        return [_said(text, times) for text, times in Counter(self.refusals).items()]

    def as_plain(self) -> dict[str, Any]:
        """The plan as `recover plan --json` prints it."""
        return {
            "hash": self.hash,
            "flow": self.flow,
            "target": self.target,
            "parameters": self.parameters,
            "refusals": self.reasons,
            "steps": [step.as_plain() for step in self.steps],
        }


def _said(refusal: str, times: int) -> str:
    if times == 1:
        return refusal
    more = "step" if times == 2 else "steps"  # noqa: PLR2004 (itself and one more)
    return f"{refusal} The same of {times - 1} more {more}."


def commands_by_key(plan: dict[str, Any]) -> dict[str, list[str]]:
    """The commands of each act in a plan as it was journaled."""
    return {step["key"]: step["commands"] for step in plan["steps"] if step["kind"] == "act"}


def as_markdown(plan: Plan) -> str:
    """The plan for people: what speaks against it, then every act with its exact commands."""
    lines = [f"# {plan.title}", ""]
    if plan.refusals:
        lines += ["**It would be refused:**", "", *(f"- {text}" for text in plan.reasons), ""]
    for step in plan.steps:
        if step.kind != "act":
            lines.append(f"- {step.kind} `{step.key}`" + (f": {step.found}" if step.found else ""))
            continue
        note = "already so, nothing to do" if step.is_already_so else step.danger
        if step.only_if and not step.is_already_so:
            note = f"{note}, only if {step.only_if}"
        lines += [f"- **act `{step.key}`** on {step.target} ({note})"]
        if step.commands:
            lines += ["", "  ```", *(f"  {text}" for text in step.commands), "  ```", ""]
    if plan.notes:
        lines += ["", *(f"- {text}" for text in plan.notes)]
    return "\n".join(lines) + "\n"

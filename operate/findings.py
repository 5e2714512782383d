"""One thing that was looked at, and what it means: what `recover doctor` is made of."""

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from operate.remedies import without_resume
from recovery.errors import RecoveryError


class Health(StrEnum):
    """What a finding means. A note keeps nothing from working."""

    OK = "ok"
    NOTE = "note"
    BAD = "bad"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    name: str
    health: Health
    seen: str
    remedy: str = ""

    def as_plain(self) -> dict[str, Any]:
        """The finding as `recover doctor --json` prints it."""
        return {name: str(value) for name, value in asdict(self).items()}


def is_well(findings: list[Finding]) -> bool:
    """Whether nothing was found that keeps a recovery from running."""
    return all(finding.health is not Health.BAD for finding in findings)


def bad(name: str, error: RecoveryError) -> Finding:
    """What an error says keeps a recovery from running."""
    remedy = getattr(error, "remedy", "")
    seen = (
        str(error).removesuffix(f" {remedy}.").removesuffix(f" {remedy}") if remedy else str(error)
    )
    return Finding(name, Health.BAD, without_resume(seen), without_resume(remedy))

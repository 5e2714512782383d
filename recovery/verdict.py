"""What a probe can answer about an effect, and how much a step can hurt."""

from enum import StrEnum


class Verdict(StrEnum):
    """Whether an effect is there. `UNKNOWN` is an answer of its own and never means no."""

    DONE = "done"
    NOT_DONE = "not-done"
    HALF_DONE = "half-done"
    UNKNOWN = "unknown"

    @classmethod
    def of(cls, answer: "Verdict | bool") -> "Verdict":
        """Read a probe's answer; plain booleans mean done and not done."""
        if isinstance(answer, Verdict):
            return answer
        return cls.DONE if answer else cls.NOT_DONE


class Danger(StrEnum):
    """What a step, and hence a recovery, may do. Destructive steps need an approval."""

    READ = "read"
    CHANGE = "change"
    DESTRUCTIVE = "destructive"

    @property
    def rank(self) -> int:
        """Their order, from harmless to harmful."""
        return list(Danger).index(self)

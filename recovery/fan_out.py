"""Doing steps on many targets, batch by batch, and stopping when too many have failed.

The batches are sized as Ansible sizes them (`serial`): a first careful one, then larger ones. A
target that fails a step is left out of the steps that follow; the others go on while no more than
`max_fail` have failed. However many were allowed to fail, a fan-out in which some did ends with an
error that says which, and a resume goes on with those.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from math import ceil
from typing import Any, Generic, TypeVar

from recovery.errors import BadInput, ExitCode, NeedsPerson, RecoveryError, Refused
from recovery.steps import ON_EMPTY, Step, current_walk
from recovery.walk import label_of

T = TypeVar("T")
PERCENT = 100


class Fate(StrEnum):
    """How far a target came."""

    DONE = "done"
    FAILED = "failed"
    NOT_BEGUN = "not begun"
    LEFT_HALFWAY = "left halfway"  # its batch was stopped because others failed


class TargetsFailed(RecoveryError):
    """Some targets failed. Fields: errors by target, what became of every target."""

    def __init__(self, errors: dict[str, RecoveryError], fates: dict[str, Fate]) -> None:
        super().__init__(errors, fates)
        self.errors, self.fates = errors, fates
        if any(isinstance(error, NeedsPerson) for error in errors.values()):
            self.state, self.exit_code = NeedsPerson.state, ExitCode.NEEDS_PERSON

    def __str__(self) -> str:
        """How many came how far, and what each that failed said."""
        counts = ", ".join(
            f"{count} {fate}"
            for fate in Fate
            if (count := sum(its is fate for its in self.fates.values()))
        )
        said = "\n".join(f"{target}: {error}" for target, error in self.errors.items())
        return f"of {len(self.fates)} targets: {counts}\n{said}\nMend these, then resume."


@dataclass
class FanOut(Generic[T]):
    """The batches of a set of targets; iterate over it, and `do` steps on each batch.

    Attributes:
        targets: what the steps are done on; the first argument of each step.
        serial: sizes of the batches, as numbers or percentages of all targets; the last one is
            repeated. `(1, 5, "25%")`: one, then five, then quarters.
        max_fail: how many targets may fail before nothing more is begun, as number or percentage.

    Raises:
        BadInput: a size or the limit is none.
        Refused: there is no target at all: empty means none, never all.
        TargetsFailed: some failed; raised when the last batch is over, or at the step in which
            there were too many.
    """

    targets: Sequence[T]
    serial: Sequence[int | str] = ("100%",)
    max_fail: int | str = 0
    errors: dict[str, RecoveryError] = field(default_factory=dict, init=False)
    fates: dict[str, Fate] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        """Refuse what cannot be begun."""
        if not self.targets:
            walk = current_walk.get()
            raise Refused(walk.target if walk else "fan-out", "it has no target at all", ON_EMPTY)
        self.fates = dict.fromkeys((label_of(target) for target in self.targets), Fate.NOT_BEGUN)
        if len(self.fates) < len(self.targets):
            raise BadInput("targets", "one of them is named twice", "Name each once")
        self._sizes = [_count("serial", size, len(self.targets)) for size in self.serial]
        if not self._sizes or min(self._sizes) < 1:
            raise BadInput("serial", f"{list(self.serial)} has an empty batch", "Begin with 1")
        self._fail_max = _count("max_fail", self.max_fail, len(self.targets))

    def __iter__(self) -> "Iterator[Batch[T]]":
        """The batches in order; the next one is begun only if few enough have failed."""
        walk = current_walk.get()
        to_come = walk.to_come if walk else set()
        to_come.update(self.fates)
        left, sizes = list(self.targets), list(self._sizes)
        while left:
            size = sizes.pop(0) if len(sizes) > 1 else sizes[0]
            batch, left = Batch(self, left[:size]), left[size:]
            yield batch
            labels = [label_of(target) for target in batch.targets]
            to_come.difference_update(labels)
            for label in labels:
                if label not in self.errors:
                    self.fates[label] = Fate.DONE
        self.refuse_failed(0)

    @property
    def fail_max(self) -> int:
        """How many targets may fail while others are still begun."""
        return self._fail_max

    def refuse_failed(self, fail_max: int) -> None:
        """Raise where more than that many have failed; a single error is raised as it is."""
        if len(self.errors) <= fail_max:
            return
        if len(self.fates) == 1:
            raise next(iter(self.errors.values()))
        raise TargetsFailed(dict(self.errors), dict(self.fates))


@dataclass
class Batch(Generic[T]):
    """Targets that go side by side; one that failed a step takes no further one."""

    fan_out: FanOut[T]
    targets: Sequence[T]

    @property
    def standing(self) -> list[T]:
        """Those that have not failed."""
        return [target for target in self.targets if label_of(target) not in self.fan_out.errors]

    def do(self, step: Step[Any, Any], *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Do a step on those that stand, side by side; return its results by target.

        Raises:
            TargetsFailed: more have failed now than may.
        """
        standing = self.standing
        walk = current_walk.get()
        if not standing:
            return {}
        if walk is None:
            results = [_plainly(step, target, args, kwargs) for target in standing]
        else:
            results = walk.perform_over(step, standing, args, kwargs, keeps_errors=True)
        by_target = {}
        for target, result in zip(standing, results, strict=True):
            label = label_of(target)
            if isinstance(result, RecoveryError):
                self.fan_out.errors[label] = result
                self.fan_out.fates[label] = Fate.FAILED
            else:
                by_target[label] = result
                self.fan_out.fates[label] = Fate.LEFT_HALFWAY
        self.fan_out.refuse_failed(self.fan_out.fail_max)
        return by_target


def _plainly(step: Step[Any, Any], target: Any, args: Any, kwargs: Any) -> Any:
    try:
        return step(target, *args, **kwargs)
    except RecoveryError as error:
        return error


def _count(name: str, said: int | str, total: int) -> int:
    """A number of targets, given as one or as a percentage of all; a percentage is rounded up.

    For `max_fail` it is rounded down: a tenth of five may not fail.
    """
    remedy = 'Give a number as 5, or a percentage as "25%"'
    text = str(said).strip()
    number = text.removesuffix("%")
    if isinstance(said, bool) or not number.isascii() or not number.isdigit():
        raise BadInput(name, f"{said!r} is no number of targets", remedy)
    if not text.endswith("%"):
        return int(number)
    if int(number) > PERCENT:
        raise BadInput(name, f"{said!r} is more than all", remedy)
    part = total * int(number) / PERCENT
    return int(part) if name == "max_fail" else ceil(part)

"""The five kinds of steps a recovery is made of: probe, act, verify, undo, decision.

A step called inside a recovery goes through the engine (`recovery.attempt`), which shows it as a
Prefect task and journals what must be remembered. Called anywhere else, also inside another step,
it is the plain function that was written.
"""

import inspect
from collections.abc import Callable, Iterable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property, lru_cache
from typing import Any, Generic, ParamSpec, Protocol, TypeVar, get_origin, overload

from recovery.errors import Refused
from recovery.verdict import Danger

ON_EMPTY = (
    "Nothing was done: empty means none, never all. Find out why nothing was found; where none is "
    "fine, the recovery says so (none_is_fine)"
)
P = ParamSpec("P")
R = TypeVar("R")


class Walking(Protocol):
    """What a step calls where a recovery is running; see `recovery.walk`."""

    target: str
    to_come: set[str]

    def perform(self, step: "Step[Any, Any]", args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Take one step of the flow."""

    def perform_over(
        self,
        step: "Step[Any, Any]",
        targets: Sequence[Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        keeps_errors: bool = False,
    ) -> list[Any]:
        """Take one step for each target side by side, and only then raise the first error.

        With `keeps_errors`, a target's error (a `RecoveryError`) stands in place of its result.
        """


current_walk: ContextVar[Walking | None] = ContextVar("current_walk", default=None)


class StepKind(StrEnum):
    """What a step does; it never does two of these."""

    PROBE = "probe"
    ACT = "act"
    VERIFY = "verify"
    UNDO = "undo"
    DECISION = "decision"


@dataclass(frozen=True)
class Terms:
    """What an act declares about itself; every function takes arguments of the act by their names.

    Attributes:
        commands: the exact commands it will send, for the plan. It may send no other.
        done_when: tells whether its effect is there: a `Verdict`, or yes and no.
        without_probe: where nothing can tell, why; `redo_in_doubt` then says what may be done.
        redo_in_doubt: an act without a probe may be done again when it is in doubt.
        expected: what it returns, foretold without acting: for plans, and when it is already so.
        refuse_if: reasons not to act, asked immediately before it.
        undo: the way back. It may also take `result`, what the act returned.
        danger: how much it can hurt.
        redo_half_done: an act found half done may be done again; else a person is asked.
        redo_stale: a done act whose effect is gone may be done again; else a person is asked.
        lasts_until: the name of the act that ends its effect on purpose (scaled down, until
            scaled back); once that one is done, this one is not asked about again.
        only_if: for an act that a plan always shows and that is mostly not needed, such as the
            way back of another: what calls for it, as "a reader does not come up with it".
        wait_in_doubt: for an act that takes its target down: waits until the target answers.
            Asked first when the act is in doubt, as nothing else can be asked until then.
        takes_down: it stops what users reach, and its way back starts that again: which is not
            walked once a later act's way back has failed, or they would use what is half put back.
    """

    commands: Callable[..., Iterable[str]]
    done_when: "Callable[..., Any] | None" = None
    without_probe: str = ""
    redo_in_doubt: bool = False
    expected: Callable[..., Any] | None = None
    refuse_if: Sequence[Callable[..., Any]] = ()
    undo: Callable[..., Any] | None = None
    danger: Danger = Danger.CHANGE
    redo_half_done: bool = False
    redo_stale: bool = True
    lasts_until: str = ""
    only_if: str = ""
    wait_in_doubt: Callable[..., Any] | None = None
    takes_down: bool = False


class Step(Generic[P, R]):
    """A function with its kind and terms. Made by the decorators below."""

    def __init__(
        self,
        fn: Callable[P, R],
        kind: StepKind,
        each: Sequence[str],
        terms: Terms | None = None,
        *,
        none_is_fine: bool = False,
    ) -> None:
        self.fn = fn
        self.kind = kind
        self.name = fn.__name__
        self.each = tuple(each)
        self.terms = terms
        self.none_is_fine = none_is_fine
        self.signature = inspect.signature(fn)
        self.returns_nothing = self.signature.return_annotation in (None, "None")
        self.is_guard = kind is StepKind.PROBE and self.returns_nothing
        self.__doc__ = fn.__doc__
        self.__name__ = fn.__name__
        self.__module__ = fn.__module__
        self.__wrapped__ = fn
        self._check_declaration()

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Do the step: through the engine inside a recovery, plainly anywhere else."""
        walk = current_walk.get()
        if walk is None:
            return self.fn(*args, **kwargs)
        result: R = walk.perform(self, args, kwargs)
        return result

    @cached_property
    def returns(self) -> Any:
        """The type of its result, read from the annotation when it is first needed."""
        return inspect.signature(self.fn, eval_str=True).return_annotation

    def over(
        self, targets: Iterable[Any], *args: Any, none_is_fine: bool = False, **kwargs: Any
    ) -> list[R]:
        """Do the step for each target, side by side; one key and one result for each.

        The target is the first argument; the others are the same for all. The first error is
        raised when all have ended. Acts mapped like this must be on different targets.

        Raises:
            Refused: there is no target, and nobody said that none is fine.
        """
        if isinstance(targets, str | bytes):
            raise TypeError(f"{self!r} is done over a set of targets, not over a text")
        walk = current_walk.get()
        items = list(targets)
        if not items and not none_is_fine:
            raise Refused(
                walk.target if walk else self.name, f"{self.name} has no target at all", ON_EMPTY
            )
        if walk is None:
            return [self.fn(item, *args, **kwargs) for item in items]
        results: list[R] = walk.perform_over(self, items, args, kwargs)
        return results

    def __repr__(self) -> str:
        """The kind and name."""
        return f"<{self.kind} {self.name}>"

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """Name the arguments of a call, defaults included."""
        bound = self.signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return dict(bound.arguments)

    @property
    def not_asked(self) -> Any:
        """What the flow gets where a look was left out: the empty value of the declared type."""
        returns = get_origin(self.returns) or self.returns
        return returns() if returns in {int, float, str, bool, list, dict, tuple} else None

    def _check_declaration(self) -> None:
        for name in self.each:
            if name not in self.signature.parameters:
                raise TypeError(f"{self!r}: each={name!r} is none of its parameters")
        if self.kind is StepKind.DECISION and (
            self.returns_nothing or self.signature.return_annotation is inspect.Signature.empty
        ):
            raise TypeError(f"{self!r}: say of what type the decision is")
        if self.terms is None:
            return
        terms = self.terms
        if (terms.done_when is None) == (not terms.without_probe):
            raise TypeError(
                f"{self!r}: name the probe of its effect (done_when), or say why there is none "
                "(without_probe)"
            )
        if not self.returns_nothing and terms.expected is None:
            raise TypeError(f"{self!r} returns something: say how to foretell it (expected)")
        named = (terms.done_when, terms.expected, terms.commands, terms.wait_in_doubt)
        for other in (*named, *terms.refuse_if):
            if other is not None:
                self._check_takes_our_arguments(other)
        if terms.undo is not None:
            self._check_takes_our_arguments(terms.undo, "result")

    def _check_takes_our_arguments(self, other: Callable[..., Any], *more: str) -> None:
        known = {*self.signature.parameters, *more}
        for name, parameter in inspect.signature(other).parameters.items():
            if name not in known and parameter.default is parameter.empty:
                raise TypeError(f"{self!r}: {other!r} wants {name!r}, which the act does not have")


def ask(other: Callable[..., Any], arguments: dict[str, Any]) -> Any:
    """Call a function that a step names, with those of the step's arguments that it takes."""
    plain = other.fn if isinstance(other, Step) else other
    wanted = _parameters_of(plain)
    return plain(**{name: value for name, value in arguments.items() if name in wanted})


@lru_cache(maxsize=2048)
def _parameters_of(function: Callable[..., Any]) -> frozenset[str]:
    return frozenset(inspect.signature(function).parameters)


@overload
def probe(fn: Callable[P, R]) -> Step[P, R]: ...
@overload
def probe(*, each: Sequence[str]) -> Callable[[Callable[P, R]], Step[P, R]]: ...
def probe(fn: Callable[P, R] | None = None, *, each: Sequence[str] = ()) -> Any:
    """Declare a look that changes nothing. Returning `None`, it is a guard that refuses or passes.

    A probe is never remembered and may be asked again in the same run. A guard that passed is not
    asked again on a resume once a later act has begun: what must hold at the moment of an act is
    declared on the act (`refuse_if`).
    """
    return _decorator(StepKind.PROBE, each, fn)


@overload
def verify(fn: Callable[P, R]) -> Step[P, R]: ...
@overload
def verify(*, each: Sequence[str]) -> Callable[[Callable[P, R]], Step[P, R]]: ...
def verify(fn: Callable[P, R] | None = None, *, each: Sequence[str] = ()) -> Any:
    """Declare a look at what the users of the system see, up to a deadline."""
    return _decorator(StepKind.VERIFY, each, fn)


@overload
def decision(fn: Callable[P, R]) -> Step[P, R]: ...
@overload
def decision(
    *, each: Sequence[str] = (), none_is_fine: bool = False
) -> Callable[[Callable[P, R]], Step[P, R]]: ...
def decision(
    fn: Callable[P, R] | None = None, *, each: Sequence[str] = (), none_is_fine: bool = False
) -> Any:
    """Declare what a flow branches or loops on: looked at once, journaled, walked again.

    A set that comes out empty is refused unless `none_is_fine` says that there may be nothing.
    """
    return _decorator(StepKind.DECISION, each, fn, none_is_fine=none_is_fine)


def undo(fn: Callable[P, R]) -> Step[P, R]:
    """Declare a way back. It must be safe to call when the act never happened, and twice."""
    return Step(fn, StepKind.UNDO, ())


def act(
    *, commands: Callable[..., Iterable[str]], each: Sequence[str] = (), **terms: Any
) -> Callable[[Callable[P, R]], Step[P, R]]:
    """Declare a change. See `Terms` for what it says about itself.

    Args:
        commands: the exact commands it will send.
        each: parameters that tell one call from another in the same run, e.g. `("table",)`.
        terms: the other fields of `Terms`.
    """

    def declare(fn: Callable[P, R]) -> Step[P, R]:
        return Step(fn, StepKind.ACT, each, Terms(commands=commands, **terms))

    return declare


def _decorator(
    kind: StepKind,
    each: Sequence[str],
    fn: Callable[P, R] | None,
    *,
    none_is_fine: bool = False,
) -> Any:
    if fn is not None:
        return Step(fn, kind, each, none_is_fine=none_is_fine)
    return lambda later: Step(later, kind, each, none_is_fine=none_is_fine)

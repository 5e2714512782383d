"""One walk along a flow: every step it comes to is given a key, put on the stage and carried out.

There are walks to find out what would be done (`planning`), to do it (`attempt`), to go back
(`way_back`), and to find out what that would do (`way_back_planning`). They differ in what they do
with a step; this is what they share.
"""

import contextvars
import logging
import re
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence, Sized
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from prefect.exceptions import MissingContextError
from prefect.logging import get_run_logger

from recovery.commands import Call, current_gate
from recovery.errors import Fenced, RecoveryError, Refused
from recovery.journal.consents import Approval
from recovery.secrecy.redaction import redact
from recovery.steps import ON_EMPTY, Step, StepKind, Terms, current_walk

TARGETS_AT_ONCE = 16
LINE_CHARS_MAX = 500
OPAQUE = re.compile(r"[A-Za-z0-9+/]{80,}={0,2}")  # a certificate in base64; no path, no hash
REMEMBERED = {StepKind.ACT, StepKind.DECISION}
logger = logging.getLogger("recovery")


class DuplicateStep(RecoveryError):
    """Two steps of one run have the same key. A mistake in the flow. Fields: key."""

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key

    def __str__(self) -> str:
        """Which key, and how to tell the two apart."""
        return (
            f"the step {self.key} stands twice in this run, so a resume could not tell them apart: "
            "declare what differs, e.g. @act(each=('node',), ...)"
        )


class ChangedWhileLooking(RecoveryError):
    """A look sent something that changes a target. A mistake in a step. Fields: step, command."""

    def __init__(self, step: str, command: str) -> None:
        super().__init__(step, command)
        self.step, self.command = step, command

    def __str__(self) -> str:
        """Which step tried to send what."""
        return f"{self.step} only looks, but tried to send `{self.command}`; it was not sent"


class SecretInResult(RecoveryError):
    """A step returned a secret value. A mistake in the step. Fields: step."""

    def __init__(self, step: str) -> None:
        super().__init__(step)
        self.step = step

    def __str__(self) -> str:
        """Which step, and what to return instead."""
        return (
            f"what {self.step} returned holds a value that is known as a secret, and the journal "
            "keeps none: return where it is kept, or give the secret another value"
        )


class Turn(BaseException):
    """The walk goes another way from here. Nothing went wrong, and nothing was done."""


class StaleSteps(Turn):
    """Steps passed over turned out to be no longer so: the walk starts over to redo them."""

    def __str__(self) -> str:
        """Why the step waits."""
        return "steps before it are no longer so and are done again first"


class EndOfRecord(Turn):
    """The walk came to a step that never began: what is behind it was never done."""

    def __str__(self) -> str:
        """Why the walk ends here."""
        return "it never began, so there is nothing to undo from here on"


class NeverBegan(RecoveryError):
    """A target of a fan-out came no further; others may have. Fields: step."""

    def __init__(self, step: str) -> None:
        super().__init__(step)
        self.step = step

    def __str__(self) -> str:
        """Which step, and what follows from it."""
        return f"{self.step}: {EndOfRecord()}"


@dataclass(frozen=True)
class Fence:
    """What a target needs to tell this attempt from an older one of the same or another recovery.

    In a plan the id is the placeholder that stands for it there, and the epoch is 0. `target` is
    what is leased: epochs of the same target can be compared, within one journal.
    """

    recovery_id: str
    epoch: int
    target: str = field(default="", compare=False)
    parts: Mapping[str, int] = field(default_factory=dict, compare=False)
    journal: str = field(default="", compare=False)

    def at(self, part: str) -> "Fence":
        """The fence at a part: its own where it is leased by itself, else that of the target."""
        if part not in self.parts:
            return self
        return Fence(self.recovery_id, self.parts[part], part, journal=self.journal)

    def over(self, names: Sequence[str]) -> list["Fence"]:
        """The fences at a part that is leased by several names; that of the target where none."""
        return [self.at(name) for name in names if name in self.parts] or [self]


@dataclass(frozen=True)
class Outcome:
    """How a step ended: the name the UI shows, a line about it, and what the flow gets."""

    shown_as: str
    message: str
    result: Any = None


class StepCall:
    """One step on its way through the engine. Printed, it is its key, which names the task run.

    Not a dataclass: Prefect looks for futures in the fields of those, and all of the journal's
    history hangs on this one.
    """

    def __init__(  # noqa: PLR0913, PLR0917 (what makes a step of one walk)
        self,
        walk: "Walk",
        step: Step[Any, Any],
        key: str,
        arguments: dict[str, Any],
        target: str,
        place: int = 0,
    ) -> None:
        self.walk, self.step, self.key = walk, step, key
        self.arguments, self.target, self.place = arguments, target, place
        self.outcome: Outcome | None = None
        self.error: Exception | None = None
        self.turn: Turn | None = None
        self.fenced: Fenced | None = None
        self.undoes: Sequence[StepCall] = ()

    def __str__(self) -> str:
        """The key."""
        return self.key

    @property
    def terms(self) -> Terms:
        """What the act declares about itself."""
        if self.step.terms is None:
            raise TypeError(f"{self.step!r} is no act")
        return self.step.terms

    def carry_out(self) -> Outcome:
        """Do what this walk does with the step; steps called from within are plain functions."""
        token = current_walk.set(None)
        try:
            self.outcome = self.walk.carry_out(self)
        finally:
            current_walk.reset(token)
        return self.outcome


class Stage(Protocol):
    """Where steps are carried out: as Prefect tasks, or plainly where no server is configured."""

    def put_on(self, call: StepCall) -> Any:
        """Carry the step out, shown and retried; return its result or raise its error."""


@dataclass
class Gate:
    """The gate of one running step: see `recovery.commands`."""

    walk: "Walk"
    call: StepCall
    may_change: bool = False
    planned: frozenset[str] | None = None

    def before(self, command: Call) -> None:
        """Raise where the command must not be sent; log what will be."""
        if not command.is_change:
            return
        if not self.may_change:
            raise ChangedWhileLooking(self.call.key, command.command)
        self.walk.check_may_send(self, command)
        step_logger().info("%s: %s", command.target, redact(command.command)[:2000])

    def heard(self, command: Call, line: str) -> None:
        """Log a line of output while the command still runs, without what nobody can read."""
        shown = OPAQUE.sub("…", redact(line))
        step_logger().info("%s | %s", command.target, shown[:LINE_CHARS_MAX])

    def after(self, command: Call, error: BaseException | None) -> None:
        """Keep the command and its answer as evidence."""
        self.walk.keep_evidence(self, command, error)


@contextmanager
def gated(gate: Gate) -> Iterator[None]:
    """Let every command sent within pass this gate."""
    token = current_gate.set(gate)
    try:
        yield
    finally:
        current_gate.reset(token)


def step_logger() -> Any:
    """Return the running step's own log, or the process's where there is no Prefect run."""
    try:
        return get_run_logger()
    except MissingContextError:
        return logger


def current_fence() -> Fence:
    """What marks the changes of the recovery that is running, for steps that fence their target."""
    gate = current_gate.get()
    walk = gate.walk if isinstance(gate, Gate) else current_walk.get()
    return walk.fence if isinstance(walk, Walk) else Fence("none", 0)


def still_holds(fence: Fence) -> bool:
    """Whether the journal says that the running attempt may act under this fence, by its epoch."""
    gate = current_gate.get()
    walk = gate.walk if isinstance(gate, Gate) else current_walk.get()
    return isinstance(walk, Walk) and walk.holds(fence)


def current_consent() -> Approval | None:
    """The consent to its plan that the running attempt acts on; `None` in a plan, or without."""
    gate = current_gate.get()
    walk = gate.walk if isinstance(gate, Gate) else current_walk.get()
    return walk.consent if isinstance(walk, Walk) else None


def label_of(value: object) -> str:
    """Name a target in a key: its label or name, else the value itself."""
    named = next(
        (
            named
            for named in (getattr(value, attribute, None) for attribute in ("label", "name"))
            if isinstance(named, str)
        ),
        None,
    )
    if named is None:  # not before: a Prefect block takes milliseconds to write itself out
        named = str(value)
    return redact(named.encode("utf-8", "backslashreplace").decode().replace("\0", "\\0"))


@dataclass
class Walk(ABC):
    """One pass over a flow's steps."""

    target: str
    stage: Stage
    consent: Approval | None = field(kw_only=True, default=None)
    to_come: set[str] = field(default_factory=set)  # labels whose turn of a fan-out is not over
    _claimed: dict[str, int] = field(default_factory=dict)
    _places: int = 0
    _lock: threading.RLock = field(default_factory=threading.RLock)

    @property
    @abstractmethod
    def fence(self) -> Fence:
        """What marks this walk's changes at the target."""

    @abstractmethod
    def carry_out(self, call: StepCall) -> Outcome:
        """Do with the step what this kind of walk does."""

    def holds(self, fence: Fence) -> bool:
        """Whether the lease behind this fence is this walk's by its store (a plan has none)."""
        del fence
        return False

    def check_may_send(self, gate: Gate, command: Call) -> None:  # noqa: B027 (a plan sends none)
        """Raise where a changing command must not be sent now."""

    def keep_evidence(  # noqa: B027 (a plan keeps none)
        self, gate: Gate, command: Call, error: BaseException | None
    ) -> None:
        """Keep what was sent and what came of it."""

    def perform(self, step: Step[Any, Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Take one step of the flow."""
        return self.stage.put_on(self._claim(step, step.bind(args, kwargs)))

    def perform_over(
        self,
        step: Step[Any, Any],
        targets: Sequence[Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        keeps_errors: bool = False,
    ) -> list[Any]:
        """See Walking."""
        first = next(iter(step.signature.parameters))
        calls = []
        for target in targets:
            call = self._claim(step, step.bind((target, *args), kwargs), always_named_by=first)
            calls.append(call)
        if not calls:
            return []
        with ThreadPoolExecutor(min(TARGETS_AT_ONCE, len(calls))) as pool:
            futures = [
                pool.submit(contextvars.copy_context().run, self.stage.put_on, call)
                for call in calls
            ]
            try:
                wait(futures)
            except BaseException:  # stopped from outside: begin no more of them
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return [
            _result_of(call, future, keeps_errors=keeps_errors)
            for call, future in zip(calls, futures, strict=True)
        ]

    def _claim(
        self, step: Step[Any, Any], arguments: dict[str, Any], always_named_by: str = ""
    ) -> StepCall:
        names = step.each or ((always_named_by,) if always_named_by else ())
        key = step.name
        if names:
            key += "[" + ",".join(label_of(arguments[name]) for name in names) + "]"
        with self._lock:
            self._places += 1
            place = self._places
            times = self._claimed[key] = self._claimed.get(key, 0) + 1
        if times > 1:
            if step.kind in REMEMBERED:
                raise DuplicateStep(key)
            key += f"#{times}"
        target = next(
            (
                value.label
                for value in arguments.values()
                if isinstance(getattr(value, "label", None), str)
            ),
            self.target,
        )
        return StepCall(self, step, key, arguments, target, place)


def _result_of(call: StepCall, future: Future[Any], *, keeps_errors: bool) -> Any:
    try:
        return future.result()
    except EndOfRecord:
        if not keeps_errors:
            raise
        return NeverBegan(call.key)
    except RecoveryError as error:
        if not keeps_errors:
            raise
        return error


def refuse_empty(call: StepCall, decided: object) -> None:
    """Refuse a set that came out empty where nobody said that none is fine."""
    if call.step.none_is_fine or isinstance(decided, str) or not isinstance(decided, Sized):
        return
    if not len(decided):
        raise Refused(call.target, f"{call.key} came out empty", ON_EMPTY)

"""The recovery that is measured: acts that leave one empty file each, in a world of its own."""

import logging
import os
from pathlib import Path

from recovery.run import Recovery
from recovery.steps import act, decision, probe
from recovery.verdict import Danger


@decision
def numbers(count: int) -> list[int]:
    return list(range(count))


@probe
def is_made(world: str, n: int) -> bool:
    return any(Path(world).glob(f"{n}.*"))


@act(commands=lambda n: [f"make {n}"], done_when=is_made, each=("n",))
def make(world: str, n: int) -> None:
    leave_effect(world, n)


@act(
    commands=lambda n: [f"make {n}"],
    without_probe="nothing is there to look at",
    redo_in_doubt=True,
    each=("n",),
)
def do_nothing(world: str, n: int) -> None:
    del world, n


def leave_effect(world: str, n: int) -> None:
    """One more file of that number: what is done twice lies there twice."""
    times = 1 + len(list(Path(world).glob(f"{n}.*")))
    os.close(os.open(Path(world) / f"{n}.{times}", os.O_CREAT | os.O_EXCL))


def mend(world: str, count: int) -> int:
    for n in numbers(count):
        make(world, n)
    return count


def idle(world: str, count: int) -> int:
    for n in range(count):
        do_nothing(world, n)
    return count


def declared(fn, name):
    return Recovery(
        name=name,
        fn=fn,
        runbook="bench",
        answers=(),
        danger=Danger.CHANGE,
        target_of=lambda world, count: world,  # noqa: ARG005
        parameters={"world": (str, ...), "count": (int, ...)},
    )


MEND = declared(mend, "mend")
IDLE = declared(idle, "idle")


def be_quiet() -> None:
    """Measure no writing of logs to a terminal."""
    logging.disable(logging.CRITICAL)

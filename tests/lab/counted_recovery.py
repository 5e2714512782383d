"""A recovery whose effects are counted outside of it, run in processes that may be killed.

Each effect is a file that is made in one system call, under a new name each time: what was done
twice lies there twice. Processes are forked from a server that has imported everything, so that one
costs milliseconds. A process is killed before or after its n-th journal event, which is every
instant there is between two things that outlast it.
"""

import contextlib
import itertools
import multiprocessing
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Event
from typing import Any
from uuid import uuid4

import recovery.launch
from recovery.commands import changing, reading
from recovery.errors import Fenced
from recovery.journal.events import flaws
from recovery.journal.history import History, read_history
from recovery.journal.opening import open_journal
from recovery.journal.store import Journal
from recovery.launch import launch
from recovery.run import Options, Recovery
from recovery.stage import PlainStage
from recovery.steps import act, decision, probe, undo, verify
from recovery.verdict import Danger

TABLES = ["dashboard", "folder", "user"]
FLOW_RUN_ID = "01900000-0000-7000-8000-00000000c0de"
RECOVERY_ID = "00000000c0de"
NOBODY_WAITS = (0.0, 0.0, 0.0)


class World:
    """A folder that stands for the system being repaired."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.effects = folder / "effects"
        self.effects.mkdir(parents=True, exist_ok=True)

    def do(self, name: str) -> None:
        """Make an effect: one more file of that name."""
        for times in range(1, 100):
            with contextlib.suppress(FileExistsError):
                os.close(os.open(self.effects / f"{name}.{times}", os.O_CREAT | os.O_EXCL))
                return

    def times(self, name: str) -> int:
        """How often an effect was made."""
        return len(list(self.effects.glob(f"{name}.*")))

    def is_up(self, name: str) -> bool:
        """Whether an effect is there: made more often than taken back."""
        return self.times(name) > self.times(f"no-{name}")

    def counts(self) -> dict[str, int]:
        """How often every effect was made."""
        names = sorted({path.name.rpartition(".")[0] for path in self.effects.iterdir()})
        return {name: self.times(name) for name in names}


def change(world: str, name: str) -> None:
    with changing(f"make {name}", "lab") as call:
        reached(world, f"before {name}")
        World(Path(world)).do(name)
        reached(world, f"after {name}")
        call.answer = "made"


def look(world: str, name: str) -> bool:
    with reading(f"look at {name}", "lab") as call:
        is_there = World(Path(world)).is_up(name)
        call.answer = str(is_there)
        return is_there


def reached(world: str, place: str) -> None:
    """Stop this process here where a test asked for it, until it is continued.

    Where it asked to hang, this thread goes no further, and the others tell the server where it is;
    where it asked to wait, it goes on once a file `go-on` is there.
    """
    for name in ("stop-at", "hang-at", "wait-at"):
        wanted = Path(world) / name
        if not (wanted.exists() and wanted.read_text() == place):
            continue
        wanted.unlink()
        draft = Path(world) / "stopping"
        draft.write_text(str(os.getpid()))
        draft.rename(Path(world) / "stopped")
        if name == "stop-at":
            os.kill(os.getpid(), signal.SIGSTOP)
        while name != "stop-at" and not (name == "wait-at" and (Path(world) / "go-on").exists()):
            Event().wait(0.005)


@probe
def version(world: str) -> str:
    with reading("ask the version", "lab") as call:
        call.answer = "11.1"
    return "11.1"


@probe
def refuse_if_locked(world: str) -> None:
    look(world, "locked")


@decision
def tables(world: str) -> list[str]:
    look(world, "locked")
    return TABLES


@probe
def is_backed_up(world: str) -> bool:
    return look(world, "backup")


@act(
    commands=lambda: ["make backup"],
    done_when=is_backed_up,
    expected=lambda world: f"{world}/backup",
    redo_stale=False,
)
def back_up(world: str, version: str) -> str:
    change(world, "backup")
    return f"{world}/backup"


@probe
def is_stopped(world: str) -> bool:
    return look(world, "stop") and not look(world, "start")


@undo
def start_again(world: str) -> None:
    if look(world, "stop"):
        change(world, "no-stop")


@act(
    commands=lambda: ["make stop"],
    done_when=is_stopped,
    lasts_until="start",
    undo=start_again,
)
def stop(world: str) -> None:
    change(world, "stop")


@probe
def is_loaded(table: str, world: str) -> bool:
    return look(world, f"load-{table}")


@undo
def unload(table: str, world: str) -> None:
    if look(world, f"load-{table}"):
        change(world, f"no-load-{table}")


@act(
    commands=lambda table: [f"make load-{table}"],
    done_when=is_loaded,
    undo=unload,
    danger=Danger.DESTRUCTIVE,
)
def load(table: str, world: str) -> None:
    change(world, f"load-{table}")


@verify
def wait_until_loaded(world: str) -> None:
    assert all(look(world, f"load-{table}") for table in TABLES)


@probe
def is_started(world: str) -> bool:
    return look(world, "start")


@undo
def stop_again(world: str) -> None:
    if look(world, "start"):
        change(world, "no-start")


@act(commands=lambda: ["make start"], done_when=is_started, undo=stop_again)
def start(world: str, backup: str) -> None:
    change(world, "start")


@verify
def wait_until_served(world: str) -> None:
    assert look(world, "start")


def mend(world: str) -> int:
    """Mend the world in nine steps."""
    seen = version(world)
    refuse_if_locked(world)
    names = tables(world)
    backup = back_up(world, seen)
    stop(world)
    load.over(names, world)
    wait_until_loaded(world)
    start(world, backup)
    wait_until_served(world)
    return len(names)


DONE_ONCE = {"backup": 1, "start": 1, "stop": 1, **{f"load-{name}": 1 for name in TABLES}}
UNDONE_ONCE = {
    **DONE_ONCE,
    **{f"no-{name}": 1 for name in DONE_ONCE if name != "backup"},
}
MEND = Recovery(
    name="mend",
    fn=mend,
    runbook="docs/runbooks/mend.md",
    answers=(),
    danger=Danger.DESTRUCTIVE,
    target_of=lambda world: f"world {world}",
    parameters={"world": (str, ...)},
)


@dataclass(frozen=True)
class Finished:
    """How a process ended: its exit code, and what its run said, if it came to that."""

    code: int | None
    state: str = ""
    error: str = ""
    recovery_id: str = ""


class KillingJournal:
    """Kills this process before or after the n-th event it appends; for tests alone."""

    def __init__(self, journal: Journal, when: str, n: int) -> None:
        self._journal, self._when, self._n = journal, when, n
        self._number = itertools.count(1)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._journal, name)

    def append(self, *args: Any, **kwargs: Any) -> Any:
        is_it = next(self._number) == self._n
        if is_it and self._when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        event = self._journal.append(*args, **kwargs)
        if is_it and self._when == "after":
            os.kill(os.getpid(), signal.SIGKILL)
        return event


def _run(pipe: Connection, world: str, options: Options, job: "Job") -> None:
    os.environ["RECOVER_JOURNAL"] = f"{world}/journal.sqlite"
    os.environ["RECOVER_LEASE_SECONDS"] = str(job.lease_seconds)
    if job.kill_at:
        journal = KillingJournal(open_journal(), *job.kill_at)
        recovery.launch.open_journal = lambda: journal
    try:
        ended = launch(MEND, {"world": world}, options, PlainStage(NOBODY_WAITS), job.flow_run_id)
    except Fenced as fenced:
        pipe.send(("fenced", str(fenced), ""))
        return
    pipe.send((str(ended.state), repr(ended.error or ""), ended.recovery_id))


@dataclass(frozen=True)
class Job:
    """How one process is run. `kill_at` is `("before" or "after", the number of an event)`."""

    kill_at: tuple[str, int] | None = None
    lease_seconds: float = 30.0
    flow_run_id: str = FLOW_RUN_ID


class Process:
    """One run of the recovery, in a process of its own."""

    def __init__(self, world: World, options: Options, job: Job) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["tests.lab.counted_recovery"])
        self._mine, theirs = context.Pipe(duplex=False)
        self._process = context.Process(
            target=_run, args=(theirs, str(world.folder), options, job), daemon=True
        )
        self._process.start()
        theirs.close()
        self.pid = self._process.pid or 0

    def finished(self, within_seconds: float = 50) -> Finished:
        """Wait for its end."""
        said: tuple[str, str, str] = ("", "", "")
        with contextlib.suppress(EOFError):
            if self._mine.poll(within_seconds):
                said = self._mine.recv()
        self._process.join(within_seconds)
        code = self._process.exitcode
        if code is None:
            self.kill()
        return Finished(code, *said)

    def kill(self) -> None:
        """Kill it for good, also where it is stopped."""
        self._process.kill()
        self._process.join()


@contextlib.contextmanager
def running(world: World, options: Options, job: Job) -> Iterator[Process]:
    """Run the recovery beside the test."""
    process = Process(world, options, job)
    try:
        yield process
    finally:
        process.kill()


def run(world: World, job: Job | None = None, **options: Any) -> Finished:
    """Run the recovery in a process of its own to its end."""
    return Process(world, Options(**{"break_glass": "a drill", **options}), job or Job()).finished()


def resume(world: World, job: Job | None = None, **options: Any) -> Finished:
    """Go on with it at once in a new run: a person knows that the process before is dead."""
    job = replace(job or Job(), flow_run_id=str(uuid4()))
    return run(world, job, resume=RECOVERY_ID, take_over_by="the test", **options)


def journal_of(world: World) -> Journal:
    """The journal of this world."""
    return open_journal(f"{world.folder}/journal.sqlite")


def history_of(world: World) -> History:
    """The recovery as its journal tells it; the chain must be whole.

    Raises:
        AssertionError: an event was changed, or is missing.
    """
    journal = journal_of(world)
    try:
        events = journal.events(RECOVERY_ID)
        assert flaws(events, *journal.head(RECOVERY_ID)) == []
        history = read_history(events)
        assert history is not None
        return history
    finally:
        journal.close()


def events_of(world: World) -> int:
    """How many events were written."""
    journal = journal_of(world)
    try:
        return journal.head(RECOVERY_ID)[0]
    finally:
        journal.close()

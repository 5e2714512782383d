"""What the fault tests share: runs that can be killed at any event of their journal."""

import itertools
import json
import os
import signal
import subprocess
import sys
import zlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from recovery.evidence.status import verify_journal
from recovery.journal.sqlite_store import SqliteJournal
from tests.faults.fork_server import STRUCK

PROJECT = Path(__file__).resolve().parent.parent.parent


@dataclass
class Ended:
    """How a run ended: `exit_code` is negative for a signal, `answer` empty then.

    `stopped` is the id of a process that was stopped and waits for SIGCONT.
    """

    exit_code: int
    answer: dict
    events: list
    stopped: int = 0


IS_WHOLE = os.environ.get("FAULTS") == "all"
TIMES_RESUMED = 3
SINGLY = 4  # points of a recovery that was struck at each of them in turn, tried once more
RETRY_DELAYS_SECONDS = (0.2, 0.5, 1.0)  # of a step that nobody answered


@dataclass
class Runs:
    """Runs one recovery after the other, in children of the fork server.

    A world says what is run: `module` and `flow`, its `parameters`, its `environment`, and, where
    the steps wait for something that comes back, the `retry_delays` of those nobody answered.
    """

    server: subprocess.Popen
    scratch: Path
    numbers: itertools.count = field(default_factory=itertools.count)

    def run(self, world, *, kill=None, strikes=None, meanwhile=None, **options):
        """Run, or resume, the recovery of a world.

        Args:
            world: see above.
            kill: `(n, side)`: SIGKILL `before` or `after` the n-th event of the journal, or
                `stop`: SIGSTOP before it. In place of `n`, `(kind, step, is_change, n)` is the
                n-th of that kind.
            strikes: the same at every such event in turn, so many times: a counter of `(kind,
                step, is_change, side)`.
            meanwhile: what happens to the world whenever the worker stands still; the worker then
                goes on. Without, it stays stopped.
            options: those of every recovery.
        """
        n = next(self.numbers)
        events, answer = self.scratch / f"{n}.events", self.scratch / f"{n}.answer"
        stopped = self._order(
            {
                "module": world.module,
                "flow": world.flow,
                "parameters": world.parameters,
                "options": options,
                "environment": world.environment,
                "retry_delays": getattr(world, "retry_delays", RETRY_DELAYS_SECONDS),
                "kill": kill,
                "strikes": [[*point, times] for point, times in (strikes or {}).items()],
                "events": str(events),
                "answer": str(answer),
            }
        )
        exit_code = 0
        while isinstance(stopped, Stopped) and meanwhile is not None:
            meanwhile()
            stopped = self._order({"go_on": stopped.pid})
        if not isinstance(stopped, Stopped):
            exit_code, stopped = stopped, Stopped(0)
        told = json.loads(answer.read_text()) if answer.exists() else {}
        if exit_code > 0:
            pytest.fail((self.scratch / "fork_server.log").read_text()[-3000:])
        lines = events.read_text().splitlines() if events.exists() else []
        return Ended(exit_code, told, [json.loads(line) for line in lines], stopped.pid)

    def _order(self, order):
        """Return the exit code of the child, or that it was stopped."""
        self.server.stdin.write(json.dumps(order) + "\n")
        self.server.stdin.flush()
        ended = self.server.stdout.readline().split()
        return Stopped(int(ended[1])) if ended[0] == "stopped" else int(ended[0])


@dataclass(frozen=True)
class Stopped:
    """A child that was stopped, or none with id 0."""

    pid: int


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    environment = {
        k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_API", "RECOVER_"))
    }
    scratch = tmp_path_factory.mktemp("runs")
    with (
        (scratch / "fork_server.log").open("w") as log,
        subprocess.Popen(
            [sys.executable, "-m", "tests.faults.fork_server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            cwd=PROJECT,
            env=environment,
        ) as server,
    ):
        yield Runs(server, scratch)
        server.stdin.close()


def kill_points(events):
    """Where a worker is killed: before a step, inside it after each command, and after it.

    A command that was sent and is not noted yet, an effect that is there and not noted as done:
    each instant that differs from the one before in the world or in the journal, once.
    """
    points = []
    for n, (kind, _, is_change, _) in enumerate(events, 1):
        if is_change or kind in {"done", "undone"}:
            points.append((n, "before"))
        if kind not in {"command", "saw"}:
            points.append((n, "after"))
    return points


def strike_one_after_the_other(run, points, events, *, ends=("recovered",)):
    """In one recovery, strike at each of the points that it comes to; return those it did not.

    A resume does not come again to what is done, and to some of it by another way.

    Args:
        run: runs or resumes it once, with `strikes`.
        points: `(n, side)` each, of the events of one that was not struck.
        events: those.
        ends: in which states nothing is left to resume.
    """
    kinds = {(n, side): (*events[n - 1][:3], side) for n, side in points}
    left = Counter(kinds.values())
    for _ in range(len(points) + TIMES_RESUMED):
        ended = run(strikes=left)
        left -= Counter(
            (kind, step, is_change, side)
            for struck, step, is_change, (kind, side) in (e for e in ended.events if e[0] == STRUCK)
        )
        if ended.answer.get("state") in ends:
            return [point for point, kind in kinds.items() if left[kind] > 0]
    return pytest.fail(f"it has not come to an end: {ended.answer}, left: {left}")


def shards(count, in_a_sample):
    """What divides the points of a campaign, so that each test is within its time limit."""
    return range(count if IS_WHOLE else in_a_sample)


def sampled(points, at_most, name):
    """Some of the points, spread evenly, others in each test of another name; FAULTS=all: all."""
    if IS_WHOLE or len(points) <= at_most:
        return points
    first = zlib.crc32(name.encode()) % max(1, len(points) // at_most)
    return points[first :: len(points) // at_most][:at_most]


class JournaledWorld:
    """What worlds share that have one journal, in a `folder` of their own; the rest: `Runs`."""

    lease_seconds = 3
    ends = ("recovered",)  # in which of these states nothing is left to resume

    @property
    def environment(self):
        """Of the worker."""
        return {
            "RECOVER_JOURNAL": str(self.folder / "journal.sqlite"),
            "RECOVER_WORK_DIR": str(self.folder / "work"),
            "RECOVER_LEASE_SECONDS": str(self.lease_seconds),
        }

    def run(self, runs, **options):
        """Run the recovery once; what needs consent gives it here."""
        return runs.run(self, **options)

    def resume(self, runs, **options):
        """Resume until it has come to an end, a few times at most; return how the last ended."""
        resumed = None
        for _ in range(TIMES_RESUMED):
            recovery_id = the_recovery(self)
            resume = {"resume": recovery_id} if recovery_id else {}
            resumed = self.run(runs, **resume, **options)
            if resumed.answer.get("state") in self.ends:
                break
        return resumed

    def killed_and_resumed(self, runs, point, look=None, **options):
        """Kill or disturb the recovery at a point and resume it to its end; return where that was.

        Args:
            runs: those of the test.
            point: `kill` of `Runs.run`.
            look: called with what was killed, and where, before it is resumed.
            options: those of `Runs.run`, and of the recovery.
        """
        killed = self.run(runs, kill=point, **options)
        at = (point, killed.events[-1:])
        # It may have waited less often than the one whose events were counted, and be past that.
        is_over = killed.answer.get("state") in self.ends
        is_past = isinstance(point[0], int) and (is_over or "meanwhile" in options)
        assert killed.exit_code == -signal.SIGKILL or (killed.exit_code == 0 and is_past), (
            at,
            killed,
        )
        if look:
            look(killed, at)
        resumed = killed if is_over else self.resume(runs, **options)
        assert resumed.answer.get("state") in self.ends, (at, resumed.answer)
        return at

    def killed_in_turn(self, runs, points, events, look=None, **options):
        """Kill or disturb it at each of the points in turn; return those it did not come to.

        Some of the others are returned as well: in turn, all but the first are points of a resume.

        Args:
            runs: those of the test.
            points: `(n, side)` each, of the events of one that was left alone.
            events: those.
            look: called with each that was killed, and where, before it is resumed.
            options: those of `Runs.run`, and of the recovery.
        """

        def run(strikes):
            recovery_id = the_recovery(self)
            resume = {"resume": recovery_id} if recovery_id else {}
            ended = self.run(runs, strikes=strikes, **{**resume, **options})
            at = ("in turn", ended.events[-1:])
            assert ended.exit_code in {0, -signal.SIGKILL}, (at, ended)
            if not ended.exit_code and "meanwhile" not in options:  # nothing was in its way
                assert ended.answer["state"] in self.ends, (at, ended.answer)
            if look:
                look(ended, at)
            return ended

        rest = strike_one_after_the_other(run, points, events, ends=self.ends)
        struck = [point for point in points if point not in rest]
        assert struck, "no point was come to"
        return [*rest, *struck[:: -(-len(struck) // SINGLY)]]


def survives_kills(runs, make, check, *, at_most, make_singly=None):
    """Leave one recovery alone, and kill others: FAULTS=all at every event, else at some.

    At every event of one recovery in turn first, then singly: where that one did not come to, and
    at some of the rest.

    Args:
        runs: those of the test.
        make: makes a world, by a name that no other has.
        check: called with a world and where it was killed, once it has come to its end.
        at_most: at how many events in an ordinary run.
        make_singly: the same for those killed singly; `make` unless given.
    """
    world = make("undisturbed")
    whole = world.run(runs)
    assert whole.answer["state"] in world.ends, whole.answer
    check(world, "undisturbed")
    points = kill_points(whole.events)
    assert points
    if IS_WHOLE:
        world = make("in-turn")
        points = world.killed_in_turn(runs, points, whole.events)
        check(world, "in turn")
    for point in sampled(points, at_most, world.flow):
        world = (make_singly or make)(f"{point[0]}-{point[1]}")
        check(world, world.killed_and_resumed(runs, point))


def the_recovery(world):
    """The id of the only recovery in a world's journal; empty before it began."""
    journal = journal_of(world)
    try:
        ids = journal.recovery_ids()
        return ids[0] if ids else ""
    finally:
        journal.close()


def told_events(world, recovery_id):
    """The events of a recovery."""
    journal = journal_of(world)
    try:
        return journal.events(recovery_id)
    finally:
        journal.close()


def journal_of(world):
    return SqliteJournal(Path(world.environment["RECOVER_JOURNAL"]))


def flaws_of(world):
    journal = journal_of(world)
    try:
        return [flaw for flaws in verify_journal(journal, None).values() for flaw in flaws]
    finally:
        journal.close()

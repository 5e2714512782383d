"""Two at one target: paused holders, second starts, two resumes at once."""

import contextlib
import os
import signal
import sqlite3
from pathlib import Path

import pytest

from recovery.journal.history import RecoveryState
from recovery.run import Options
from tests.lab.counted_recovery import (
    DONE_ONCE,
    RECOVERY_ID,
    Job,
    World,
    events_of,
    history_of,
    journal_of,
    resume,
    run,
    running,
)
from tests.lab.processes import wait_until

OTHER_RUN = "01900000-0000-7000-8000-0000000000b2"
THIRD_RUN = "01900000-0000-7000-8000-0000000000b3"
DRILL = Options(break_glass="a drill")
RESUME = Options(break_glass="a drill", resume=RECOVERY_ID)


@pytest.fixture
def world(tmp_path):
    return World(tmp_path / "world")


def stop_at(world, place):
    (world.folder / "wait-at").write_text(place)


def wait_until_stopped(world):
    """Stop the process once it is there, between two transactions of its journal.

    Within one, which renewing its lease is too, it would keep all others from writing.
    """
    place = world.folder / "stopped"
    wait_until(place.exists, "the process to be there", within_seconds=40)
    pid = int(place.read_text())
    with contextlib.closing(sqlite3.connect(world.folder / "journal.sqlite")) as journal:
        journal.execute("begin immediate")
        os.kill(pid, signal.SIGSTOP)
        wait_until(
            lambda: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T",
            "the process to stop",
            within_seconds=40,
        )


def wake(world, process):
    (world.folder / "go-on").touch()
    os.kill(process.pid, signal.SIGCONT)


@pytest.mark.parametrize("place", ["before stop", "after stop", "before start"])
def test_a_holder_paused_past_its_lease_and_continued_does_nothing_more(world, place):
    """Goal: a worker that wakes up when another has taken over acts no more and writes no more.

    Method: SIGSTOP inside an act, take over and finish elsewhere, SIGCONT, count.
    """
    stop_at(world, place)
    with running(world, DRILL, Job(lease_seconds=0.3)) as paused:
        wait_until_stopped(world)
        assert run(world, Job(flow_run_id=OTHER_RUN), resume=RECOVERY_ID).state == "recovered"
        events, counts = events_of(world), world.counts()

        wake(world, paused)
        finished = paused.finished()

    assert finished.state == "fenced", finished
    assert events_of(world) == events
    woken_inside_the_effect = place.startswith("before")  # no target fence in this world
    assert sum(world.counts().values()) - sum(counts.values()) == woken_inside_the_effect


def test_a_holder_paused_past_its_lease_is_fenced_even_when_nobody_took_over(world):
    stop_at(world, "after stop")
    with running(world, DRILL, Job(lease_seconds=0.3)) as paused:
        wait_until_stopped(world)
        journal = journal_of(world)
        wait_until(
            lambda: journal.holder(f"world {world.folder}") is None, "expiry", within_seconds=20
        )
        before = world.counts()

        wake(world, paused)
        finished = paused.finished()
        journal.close()

    assert finished.state == "fenced", finished
    assert world.counts() == before
    assert resume(world).state == RecoveryState.RECOVERED
    assert world.counts() == DONE_ONCE


def test_a_second_start_on_a_taken_target_is_refused_with_the_id_of_the_first(world):
    stop_at(world, "before stop")
    with running(world, DRILL, Job()) as first:
        wait_until_stopped(world)
        events = events_of(world)

        second = run(world, Job(flow_run_id=OTHER_RUN))

        assert second.state == RecoveryState.REFUSED
        assert "TargetTaken" in second.error
        assert RECOVERY_ID in second.error
        assert second.recovery_id == ""
        assert events_of(world) == events
        wake(world, first)
        assert first.finished().state == RecoveryState.RECOVERED
    assert world.counts() == DONE_ONCE


def test_a_fork_on_a_taken_target_is_refused_before_it_writes_anything(world):
    stop_at(world, "before stop")
    with running(world, DRILL, Job()):
        wait_until_stopped(world)

        forked = run(world, Job(flow_run_id=OTHER_RUN), resume=RECOVERY_ID, fork=True)

        assert forked.state == RecoveryState.REFUSED
        journal = journal_of(world)
        assert journal.recovery_ids() == [RECOVERY_ID]
        journal.close()


def test_of_two_resumes_at_once_one_acts(world):
    assert run(world, Job(kill_at=("before", 20), lease_seconds=0.4)).code == -signal.SIGKILL

    jobs = [Job(lease_seconds=5, flow_run_id=run_id) for run_id in (OTHER_RUN, THIRD_RUN)]
    with running(world, RESUME, jobs[0]) as one, running(world, RESUME, jobs[1]) as other:
        ends = [one.finished(), other.finished()]

    assert world.counts() == DONE_ONCE
    history = history_of(world)
    assert history.state(is_leased=False) == RecoveryState.RECOVERED
    assert len(history.attempts) == 2
    assert "recovered" in {end.state for end in ends}
    assert {end.state for end in ends} <= {"recovered", "refused"}


def test_a_resume_waits_for_the_lease_of_the_dead_and_takes_no_living_one(world):
    stop_at(world, "before stop")
    with running(world, DRILL, Job(lease_seconds=0.6)) as holder:
        wait_until_stopped(world)
        holder.kill()  # its lease lives on for a moment

        assert run(world, Job(flow_run_id=OTHER_RUN), resume=RECOVERY_ID).state == "recovered"

    epochs = [attempt.epoch for attempt in history_of(world).attempts]
    assert epochs == [1, 2]
    assert world.counts() == DONE_ONCE


def test_an_interrupted_attempt_leaves_its_lease_to_run_out(world):
    """What it had sent may still be taking effect: nobody may act before that is over."""
    stop_at(world, "before stop")
    with running(world, DRILL, Job(lease_seconds=30)) as holder:
        wait_until_stopped(world)
        os.kill(holder.pid, signal.SIGINT)
        wake(world, holder)
        finished = holder.finished()

    journal = journal_of(world)
    left = journal.holder(f"world {world.folder}")
    journal.close()
    assert finished.state == ""
    assert left is not None
    assert not history_of(world).attempts[-1].ended_as
    assert resume(world).state == RecoveryState.RECOVERED
    assert world.counts() == DONE_ONCE

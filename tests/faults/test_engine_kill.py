"""Killing a recovery at every instant between two events of its journal, and resuming it."""

import signal

import pytest

from recovery.journal.history import RecoveryState
from tests.lab.counted_recovery import (
    DONE_ONCE,
    UNDONE_ONCE,
    Job,
    World,
    events_of,
    history_of,
    resume,
    run,
)

KILLED = -signal.SIGKILL
EVENTS = 48  # an undisturbed run writes as many; asserted below
EVENTS_OF_UNDO = 28
EVENTS_OF_RESUME = 13


@pytest.fixture
def world(tmp_path):
    return World(tmp_path / "world")


def test_an_undisturbed_run_does_everything_once_and_writes_as_many_events_as_are_killed_at(world):
    finished = run(world)

    assert finished.state == RecoveryState.RECOVERED, finished
    assert world.counts() == DONE_ONCE
    assert events_of(world) == EVENTS


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("n", range(1, EVENTS + 1))
def test_a_recovery_killed_at_any_event_is_resumed_with_every_effect_made_once(world, n, when):
    """Goal: no instant is a point of no return, and nothing is done twice.

    Method: kill -9 before or after the n-th event, resume in another process, count outside.
    """
    assert run(world, Job(kill_at=(when, n))).code == KILLED

    first = n == 1 and when == "before"  # nothing was begun: there is nothing to resume
    finished = run(world, take_over_by="the test") if first else resume(world)

    assert finished.state == RecoveryState.RECOVERED, finished
    assert world.counts() == DONE_ONCE
    assert history_of(world).state(is_leased=False) == RecoveryState.RECOVERED


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("n", range(1, EVENTS_OF_UNDO + 1))
def test_an_undo_killed_at_any_event_is_undone_to_the_end_by_the_next(world, n, when):
    assert run(world).state == RecoveryState.RECOVERED
    killed = resume(world, Job(kill_at=(when, n)), undo_by="the test", break_glass="a test")
    assert killed.code == KILLED, killed

    finished = resume(world, undo_by="the test", break_glass="a test")

    assert finished.state == RecoveryState.UNDONE, finished
    assert world.counts() == UNDONE_ONCE
    assert history_of(world).is_undone


@pytest.mark.parametrize("n", range(1, EVENTS_OF_RESUME + 1))
def test_a_resume_killed_while_it_asks_done_steps_again_loses_nothing(world, n):
    """Goal: asking whether done steps are still so changes nothing.

    Method: kill late, kill the resume at its n-th event, which is mostly a probe's, resume.
    """
    assert run(world, Job(kill_at=("before", EVENTS - 3))).code == KILLED
    assert resume(world, Job(kill_at=("after", n))).code == KILLED

    finished = resume(world)

    assert finished.state == RecoveryState.RECOVERED, finished
    assert world.counts() == DONE_ONCE
    history_of(world)

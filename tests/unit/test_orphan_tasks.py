"""Task runs that a lost attempt left behind: which are shown as crashed, and when none is."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from prefect.client.schemas.objects import StateType, TaskRun
from prefect.states import AwaitingRetry, Completed, Pending, Running

from operate.orphans.left_tasks import LeftTasks
from operate.orphans.runs import Runs
from operate.orphans.watch import Look, Watch
from tests.unit.test_orphans import ATTEMPT, MEND, RUN, RUN_ID, AskedRuns, running

CRASHED = (RUN_ID, "s2")


def test_what_a_crashed_run_had_begun_is_shown_as_crashed_once_for_each_crash():
    asked, left = AskedRuns([RUN]), LeftTasks()

    left.end(asked, [running()])
    left.end(asked, [RUN])
    left.end(asked, [RUN])
    at_first = list(asked.crashed)
    asked.runs = [replace(RUN, state_id="s9")]
    left.end(asked, asked.runs)

    assert at_first == [CRASHED]
    assert asked.crashed == [CRASHED, (RUN_ID, "s9")]


def test_nothing_of_a_run_that_was_started_again_meanwhile_is_shown_as_crashed():
    asked = AskedRuns([running(state_id="s3")])

    LeftTasks().end(asked, [RUN])

    assert asked.crashed == []


def test_what_cannot_be_shown_as_crashed_stops_nothing_and_is_tried_again(caplog):
    asked, left = AskedRuns([RUN]), LeftTasks()
    asked.error = TypeError("the server answers in a form of its own")

    left.end(asked, [RUN])
    left.end(asked, [RUN])
    asked.error = None
    left.end(asked, [])

    assert asked.crashed == [CRASHED]
    assert caplog.text.count("in a form of its own") == 1


@pytest.mark.parametrize(("ended_as", "crashed"), [("lost", [CRASHED]), ("failed", [])])
def test_only_what_a_lost_attempt_had_begun_is_shown_as_crashed(ended_as, crashed):
    asked = AskedRuns([RUN])
    attempt = replace(ATTEMPT, ended_as=ended_as)

    Watch({"mend": MEND})._act_with_server(None, asked, [attempt], [], Look())

    assert asked.crashed == crashed


class TaskClient:
    """Gives these task runs, and keeps which of them are shown otherwise."""

    def __init__(self, *tasks):
        self.tasks, self.shown = tasks, []

    def read_task_runs(self, *, task_run_filter, limit, offset):
        states = task_run_filter.state.type.any_
        return [task for task in self.tasks if task.state.type in states][offset : offset + limit]

    def set_task_run_state(self, task_run_id, state):
        names = {task.id: task.name for task in self.tasks}
        self.shown.append((names[task_run_id], state.type, state.message))


def task(name, state, at):
    return TaskRun(
        name=name,
        flow_run_id=UUID(RUN_ID),
        task_key="key",
        dynamic_key=name,
        state=state,
        start_time=at if state.is_running() else None,
        expected_start_time=at,
    )


def test_only_what_began_before_the_crash_and_has_not_ended_is_shown_as_crashed():
    crash = datetime(2026, 11, 29, 19, 0, tzinfo=UTC)
    before, after = crash - timedelta(seconds=1), crash + timedelta(seconds=1)
    client = TaskClient(
        task("running", Running(), before),
        task("pending", Pending(), before),
        task("to be asked again", AwaitingRetry(), before),
        task("done", Completed(), before),
        task("of the next attempt", Running(), after),
        task("about to begin", Pending(), after),
    )

    names = Runs(client).crash_tasks([replace(RUN, since=crash)], "its process is gone")

    crashed = (StateType.CRASHED, "its process is gone")
    assert names == ["running", "pending", "to be asked again"]
    assert client.shown == [(name, *crashed) for name in names]

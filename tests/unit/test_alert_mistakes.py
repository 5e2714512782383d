"""What is wrong with one alert, or with the server, and what becomes of the others."""

import pytest

from operate.alerts.apart import PUT_OFF_SECONDS
from operate.alerts.other_receiver import IS_LATE
from operate.alerts.prefect_runs import Unanswered
from operate.alerts.routes import Limits
from operate.alerts.serving import standing
from recovery.errors import BadInput
from tests.lab.alert_desk import Desk, routes
from tests.unit.alert_desks import desk as desk  # noqa: PLC0414 (the fixture)


def failing_for(desk, instance, error):
    """Let the start of one target fail, and that of all others be as it is."""
    start = desk.runs.start

    def picky(submission):
        if submission.parameters["host"] == f"ssh://{instance}":
            raise error
        return start(submission)

    desk.runs.start = picky
    return start


@pytest.mark.parametrize(
    "error",
    [
        Unanswered("the Prefect server", "starting a run", "HTTP 500"),
        BadInput("deployment", "the server does not take it", "Deploy it anew"),
        TypeError("Object of type datetime is not JSON serializable"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_alert_that_cannot_be_started_holds_back_no_other_and_is_told_of_once(desk, error):
    start = failing_for(desk, "a", error)
    desk.post("Down", "a")
    desk.post("Down", "b")
    for _ in range(5):
        desk.work(after=PUT_OFF_SECONDS + 1)
    assert desk.started == [("recover-redis", "b")]
    assert [notice.subject for notice in desk.told] == ["recover-redis/a cannot be started"]

    desk.runs.start = start
    desk.work(after=PUT_OFF_SECONDS + 1)

    assert desk.started == [("recover-redis", "b"), ("recover-redis", "a")]
    assert desk.states() == ["started", "started"]


def test_an_alert_of_which_the_server_cannot_say_whether_it_started_takes_no_place(desk):
    desk.store.close()
    desk.routes = routes(limits=Limits(1, 100))
    desk.begin()
    failing_for(desk, "a", Unanswered("the Prefect server", "starting a run", "HTTP 500"))
    desk.post("Down", "a")
    desk.post("Down", "b")

    desk.work(after=1)

    assert desk.started == [("recover-redis", "b")]


def test_a_run_that_was_made_though_the_server_said_otherwise_is_found_and_called_off(desk):
    start = desk.runs.start

    def made_and_denied(submission):
        start(submission)
        raise Unanswered("the Prefect server", "starting a run", "HTTP 500")

    desk.runs.start = made_and_denied
    desk.post("Look", "a")
    desk.work()
    desk.post("Look", "a", status="resolved")
    desk.work(after=PUT_OFF_SECONDS + 1)
    desk.work(after=1)

    assert list(desk.runs.cancelled) == list(desk.runs.ids.values())
    assert desk.states() == ["cancelled"]


def test_a_run_that_cannot_be_followed_keeps_no_other_from_being_followed(desk):
    desk.post("Look", "a")
    desk.post("Look", "b")
    desk.work()
    bad, good = desk.runs.ids.values()
    cancel = desk.runs.cancel

    def picky(run_id, why):
        if run_id == bad:
            raise Unanswered("the Prefect server", "cancelling a run", "HTTP 500")
        return cancel(run_id, why)

    desk.runs.cancel = picky
    for instance in "ab":
        desk.post("Look", instance, status="resolved")
    for _ in range(3):
        desk.work(after=1)

    assert list(desk.runs.cancelled) == [good]
    assert [notice.subject for notice in desk.told] == [
        "the run of recover-redis/a cannot be followed"
    ]


def test_people_are_told_once_that_alerts_wait_for_a_server_that_stays_away_and_once_that_not(desk):
    desk.post("Down", "a")
    desk.runs.is_away = True
    for _ in range(5):
        desk.attempt(after=50)
    assert [(one.subject, one.severity) for one in desk.told] == [("alerts wait", "critical")]

    desk.runs.is_away = False
    for _ in range(2):
        desk.attempt(after=50)

    assert [one.subject for one in desk.told] == ["alerts wait", "alerts wait no more"]
    assert desk.started == [("recover-redis", "a")]


def test_people_are_told_once_where_the_receiver_that_starts_runs_does_nothing(desk, tmp_path):
    desk.attempt()  # this one holds the right to start runs, and does no more from now on
    other = Desk(tmp_path)
    other.post("Down", "a")
    for _ in range(4):
        other.attempt(after=50)

    assert [(one.subject, one.severity) for one in other.told] == [("alerts wait", "critical")]
    assert standing(other.dispatcher)["dispatcher"] == IS_LATE
    desk.store.close()
    other.attempt(after=1)
    assert other.started == [("recover-redis", "a")]
    assert standing(other.dispatcher)["dispatcher"] == "ok"
    other.store.close()

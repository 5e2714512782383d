"""What holds an alert back: limits, cool-downs, flapping, strikes, maintenance."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from operate.alerts.routes import Guard, Limits, Routes, Window
from operate.alerts.telling import released
from recovery.errors import BadInput
from tests.lab.alert_desk import BEGAN, INSTANCES, route
from tests.unit.alert_desks import desk as desk  # noqa: PLC0414 (the fixture)
from tests.unit.alert_desks import with_routes as with_routes  # noqa: PLC0414 (the fixture)


def test_no_more_runs_than_may_be_are_on_their_way(with_routes):
    desk = with_routes(limits=Limits(2, 100))
    for instance in INSTANCES:
        desk.post("Down", instance)
    desk.work()
    assert len(desk.started) == 2

    for _ in range(4):
        desk.end_all("Recovered")
        desk.work(after=60)

    assert [host for _, host in desk.started] == list(INSTANCES)


def test_no_more_targets_than_may_be_are_touched_within_an_hour(with_routes):
    desk = with_routes(limits=Limits(100, 3))
    for instance in INSTANCES[:5]:
        desk.post("Down", instance)
    for _ in range(3):
        desk.work(after=120)
    assert len(desk.started) == 3
    assert {"blast radius" in notice.text for notice in desk.told} == {True}
    assert len(desk.told) == 2

    desk.work(after=3600)

    assert len(desk.started) == 5


def test_a_target_cools_down_between_runs(with_routes):
    desk = with_routes(guard=Guard(cool_down_seconds=900, flap_episodes=0, strikes=0))
    desk.post("Down")
    desk.work()
    desk.end_all("Recovered")
    desk.post("Down", episode=10)
    desk.work(after=30)
    assert len(desk.started) == 1
    assert "started at 12:00:00; it waits until 12:15:00 UTC" in desk.reason()

    desk.work(after=900)

    assert len(desk.started) == 2


def test_a_cool_down_that_is_shorter_after_a_restart_counts_from_then_on(with_routes):
    desk = with_routes(guard=Guard(cool_down_seconds=900, flap_episodes=0, strikes=0))
    desk.post("Down")
    desk.work()
    desk.end_all("Recovered")
    desk.post("Down", episode=10)
    desk.work(after=30)
    assert len(desk.started) == 1

    with_routes(guard=Guard(cool_down_seconds=30, flap_episodes=0, strikes=0)).work(after=10)

    assert len(desk.started) == 2


def test_a_run_that_was_called_off_before_it_acted_cools_nothing_down(with_routes):
    desk = with_routes(guard=Guard(cool_down_seconds=900, flap_episodes=0, strikes=0))
    desk.post("Look")
    desk.work()
    desk.post("Look", status="resolved")
    desk.work(after=10)
    assert desk.states() == ["cancelled"]

    desk.post("Look", episode=20)
    desk.work(after=10)

    assert desk.states() == ["cancelled", "started"]


@pytest.mark.parametrize(
    "guard",
    [Guard(cool_down_seconds=900, flap_episodes=0), Guard(0, 2, 3600, 900)],
    ids=["cool-down", "flapping"],
)
def test_a_person_may_let_go_on_what_only_its_own_past_holds_back(with_routes, guard):
    desk = with_routes(guard=guard)
    desk.post("Down")
    desk.work()
    desk.end_all("Recovered")
    fingerprint = desk.post("Down", episode=10)
    desk.work(after=30)
    assert len(desk.started) == 1
    assert "until 12:1" in desk.reason()

    released(desk.store.url, fingerprint, "Ada")
    desk.work(after=1)

    assert len(desk.started) == 2


def test_a_person_cannot_hurry_what_waits_for_more_than_its_own_past(with_routes):
    window = Window(
        "patches",
        begins_at=datetime.fromtimestamp(BEGAN - 60, UTC),
        ends_at=datetime.fromtimestamp(BEGAN + 600, UTC),
    )
    desk = with_routes(windows=[window])
    fingerprint = desk.post("Down")
    desk.work()

    with pytest.raises(BadInput, match=r"nobody can hurry .*maintenance patches"):
        released(desk.store.url, fingerprint, "Ada")
    desk.work(after=1)

    assert not desk.started


def test_what_wants_a_recovery_waits_for_a_run_that_only_plans_and_shares_it_not(desk):
    desk.post("Look")
    desk.work()
    desk.post("Down")
    desk.work(after=30)
    assert len(desk.started) == 1

    desk.end_all("Planned")
    desk.work(after=30)

    sent = [one.parameters.get("plan_only", False) for one in desk.runs.started.values()]
    assert sent == [True, False]


def test_a_run_that_outlasts_every_window_is_still_shared(with_routes):
    desk = with_routes(guard=Guard(60, 0, 0, 0, 3, 3600))
    desk.post("Down")
    desk.work()
    desk.post("Slow")

    desk.work(after=4000)

    assert len(desk.started) == 1


def test_a_flapping_alert_starts_something_only_once_it_fires_steadily(with_routes):
    desk = with_routes(guard=Guard(0, 3, 3600, 900, 0))
    for episode in range(4):
        desk.post("Down", episode=episode)
        desk.work(after=10)
        desk.post("Down", episode=episode, status="resolved")
        desk.end_all("Recovered")
        desk.work(after=10)
    assert len(desk.started) == 2
    assert len(desk.told) == 2  # once for each episode that was held

    desk.post("Down", episode=9)
    desk.work(after=10)
    assert len(desk.started) == 2
    desk.work(after=900)

    assert len(desk.started) == 3


@pytest.mark.parametrize("outcome", ["Failed", "Needs person", "Half done", "Crashed", "Refused"])
def test_after_three_failures_a_person_is_asked_and_may_let_it_go_on(with_routes, outcome):
    desk = with_routes(guard=Guard(0, 0, 0, 0, 3))
    for episode in range(4):
        desk.post("Down", episode=episode)
        desk.work(after=10)
        desk.end_all(outcome)
        desk.work(after=10)
    assert len(desk.started) == 3
    assert desk.states()[-1] == "needs-person"
    assert "recover alerts release" in desk.told[-1].text

    desk.store.release(desk.store.latest(1)[0], "Ada", desk.now)
    desk.work()

    assert len(desk.started) == 4


def test_a_success_in_between_makes_the_strikes_count_anew(with_routes):
    desk = with_routes(guard=Guard(0, 0, 0, 0, 3))
    for episode, outcome in enumerate(["Failed", "Failed", "Recovered", "Failed", "Cancelled"]):
        desk.post("Down", episode=episode)
        desk.work(after=10)
        desk.end_all(outcome)
        desk.work(after=10)

    desk.post("Down", episode=9)
    desk.work(after=10)

    assert len(desk.started) == 6


def test_maintenance_holds_an_alert_until_its_end(with_routes):
    window = Window(
        "patches",
        begins_at=datetime.fromtimestamp(BEGAN - 60, UTC),
        ends_at=datetime.fromtimestamp(BEGAN + 600, UTC),
    )
    desk = with_routes(windows=[window])
    desk.post("Down")
    desk.work()
    assert "maintenance patches" in desk.reason()
    assert not desk.started

    desk.work(after=601)

    assert len(desk.started) == 1


def test_routes_of_today_decide_on_alerts_of_yesterday(desk):
    desk.runs.is_away = True
    desk.post("Down")
    desk.post("Elsewhere")
    desk.store.close()
    desk.routes = Routes(Path("routes.yaml"), [route("Elsewhere", "recover-redis")])
    desk.begin()
    desk.runs.is_away = False
    desk.post("Elsewhere")
    desk.work()

    assert desk.states() == ["not-routed", "started"]

"""From kept alerts to runs: once each, in order, and back off in time."""

import contextlib
import io
import random
from uuid import uuid4

import pytest
from prefect.settings import PREFECT_UI_URL, temporary_settings
from rich.console import Console

from operate.alerts.notices import Notice, PeopleNotifier
from operate.alerts.routes import Limits
from operate.alerts.screens import show_alerts, show_status
from operate.alerts.telling import listed, status_of
from recovery.errors import Unreachable
from recovery.journal.events import Kind
from recovery.journal.opening import open_journal
from recovery.journal.store import Lease, LeaseLost
from recovery.run import recovery_id_of
from tests.lab.alert_desk import INSTANCES, Desk
from tests.unit.alert_desks import desk as desk  # noqa: PLC0414 (the fixture)
from tests.unit.alert_desks import with_routes as with_routes  # noqa: PLC0414 (the fixture)


def test_an_episode_starts_one_run_however_often_it_is_repeated(desk):
    for _ in range(5):
        desk.post("Down")
        desk.work(after=1)

    assert desk.started == [("recover-redis", "a")]
    assert desk.states() == ["started"]


def test_what_is_sent_is_that_of_the_file_alone(desk):
    desk.post("Look", "b", evil="$(reboot)", approve="me")
    desk.work()

    (sent,) = desk.runs.started.values()
    assert sent.parameters == {
        "host": "ssh://b",
        "plan_only": True,
        "requested_by": "alert Look (route Look)",
    }
    assert "reboot" not in str(sent)
    assert sent.tags == ["alert", "route:Look", "target:b", "severity:warning"]


def test_a_resolved_alert_that_was_never_heard_firing_starts_nothing_then_or_late(desk):
    desk.post("Down", status="resolved")
    desk.work()
    desk.post("Down")  # overtaken by its own end
    desk.work()

    assert not desk.started
    assert desk.states() == ["resolved"]


def test_an_episode_that_still_fires_long_after_its_end_was_told_counts_anew(desk):
    desk.post("Down", status="resolved")
    desk.now += 1000
    desk.post("Down")
    desk.work()

    assert desk.started == [("recover-redis", "a")]


def test_while_the_server_is_away_alerts_wait_and_are_then_submitted_in_order(desk):
    desk.runs.is_away = True
    for instance in "dacb":
        desk.post("Down", instance)
        desk.work()
    desk.restart()
    desk.runs.is_away = False
    desk.work()

    assert [host for _, host in desk.started] == list("dacb")


def test_an_answer_that_was_lost_starts_no_second_run(desk):
    desk.runs.loses_answers = True
    desk.post("Down")
    desk.work()
    assert desk.states() == ["reserved"]

    desk.runs.loses_answers = False
    desk.restart()
    desk.work()

    assert len(desk.runs.started) == 1
    assert desk.states() == ["started"]
    assert desk.store.latest(1)[0].flow_run_id in desk.runs.ids.values()


def test_one_that_was_reserved_and_is_resolved_before_it_was_sent_is_not_sent(desk):
    desk.post("Down")
    original, desk.runs.start = (
        desk.runs.start,
        lambda _: (_ for _ in ()).throw(Unreachable("server", "start", "gone")),
    )
    desk.work()
    desk.post("Down", status="resolved")
    desk.runs.start = original
    desk.work()

    assert not desk.started
    assert desk.states() == ["cancelled"]


def test_a_flow_that_is_not_deployed_keeps_the_alert_and_tells_once(desk):
    desk.post("Lost")
    for _ in range(3):
        desk.work(after=61)
    desk.runs.deployments.add("repair-redis-aof")
    desk.work(after=61)

    assert desk.started == [("repair-redis-aof", "a")]
    assert len(desk.told) == 1


def test_alerts_of_the_same_target_share_a_run(desk):
    desk.post("Down")
    desk.post("Slow")
    desk.work()
    desk.end_all("Recovered")
    desk.work()

    assert len(desk.started) == 1
    assert desk.states() == ["ended", "ended"]


def test_a_waiting_alert_that_is_resolved_is_cancelled(with_routes):
    desk = with_routes(limits=Limits(1, 100))
    desk.post("Down", "a")
    desk.work()
    desk.post("Down", "b")
    desk.work()
    desk.post("Down", "b", status="resolved")
    desk.end_all("Recovered")
    desk.work(after=60)

    assert desk.started == [("recover-redis", "a")]
    assert desk.states() == ["ended", "cancelled"]


def test_a_run_is_cancelled_only_when_all_that_share_it_are_resolved(desk):
    desk.post("Look")
    desk.post("Look", more="1")
    desk.work()
    desk.post("Look", status="resolved")
    desk.work()
    assert not desk.runs.cancelled

    desk.post("Look", status="resolved", more="1")
    desk.work()

    assert len(desk.runs.cancelled) == 1
    assert desk.states() == ["cancelled", "cancelled"]


def opened_recovery(desk):
    """Let the run that was started open its recovery, as its worker would."""
    (run_id,) = desk.runs.ids.values()
    recovery_id = recovery_id_of(run_id)
    journal = open_journal()
    lease = journal.take_lease("redis a", recovery_id, "worker", 20)
    assert isinstance(lease, Lease)
    journal.append(recovery_id, Kind.OPENED, {"target": "redis a"}, lease=lease)
    return journal, recovery_id, lease


def test_a_recovery_that_has_not_acted_is_called_off_and_can_act_no_more(desk):
    desk.post("Down")
    desk.work()
    journal, recovery_id, lease = opened_recovery(desk)
    desk.post("Down", status="resolved")
    desk.work()

    with contextlib.closing(journal), pytest.raises(LeaseLost):
        journal.append(recovery_id, Kind.INTENDED, {}, step="s", lease=lease, needs_live_lease=True)
    assert desk.runs.cancelled
    assert desk.states() == ["cancelled"]


def test_a_recovery_that_has_acted_is_left_alone(desk):
    desk.post("Down")
    desk.work()
    journal, recovery_id, lease = opened_recovery(desk)
    with contextlib.closing(journal):
        journal.append(recovery_id, Kind.INTENDED, {}, step="s", lease=lease, needs_live_lease=True)
        desk.post("Down", status="resolved")
        desk.work()
        journal.append(recovery_id, Kind.DONE, {}, step="s", lease=lease)
    desk.end_all("Recovered")
    desk.work()

    assert not desk.runs.cancelled
    assert desk.states() == ["ended"]


def test_a_run_that_has_yet_to_open_its_journal_is_asked_again_later(desk):
    desk.post("Down")
    desk.work()
    desk.post("Down", status="resolved")
    desk.work()
    assert not desk.runs.cancelled

    journal, _, _ = opened_recovery(desk)
    journal.close()
    desk.work()

    assert desk.runs.cancelled


def test_an_alert_whose_run_waits_for_an_answer_is_listed_as_asking_a_person(desk):
    desk.post("Down")
    desk.work()
    (run_id,) = desk.runs.ids.values()
    desk.runs.ask_person(run_id)
    desk.work()

    (row,) = listed(desk.store.url, "asks-person", 10)
    told = status_of(desk.store.url, None)

    assert (row["state"], row["recovery_id"]) == ("asks-person", recovery_id_of(run_id))
    assert f"recover approve {row['recovery_id']}" in shown(show_alerts, [row])
    (notice,) = desk.told
    assert notice.flow_run_id == run_id
    assert f"recover approve {row['recovery_id']}" in notice.text
    assert (told["alerts"], told["running"], told["asking"]) == ({"asks-person": 1}, 0, 1)
    assert "0 of at most 2; 1 more wait for a person" in shown(show_status, told)
    assert not listed(desk.store.url, "started", 10)
    assert "no alert is in state started" in shown(show_alerts, [], "started")


def test_the_log_has_the_link_to_the_run_that_a_notice_is_about(caplog, monkeypatch):
    monkeypatch.delenv("RECOVER_NOTIFICATIONS", raising=False)
    run_id = str(uuid4())

    with temporary_settings(updates={PREFECT_UI_URL: "http://prefect:4200"}):
        PeopleNotifier().tell(Notice("redis", "it asks a person", "warning", run_id))
        PeopleNotifier().tell(Notice("redis", "it is silent"))

    asked, silent = (one.getMessage() for one in caplog.records)
    assert asked == f"redis: it asks a person; see http://prefect:4200/runs/flow-run/{run_id}"
    assert silent == "redis: it is silent"


def test_a_walk_that_only_plans_is_listed_by_its_flow_run_and_is_no_recovery(desk):
    desk.post("Look")
    desk.work()

    (row,) = listed(desk.store.url, "", 10)

    assert row["recovery_id"] == ""
    assert row["flow_run_id"] in shown(show_alerts, [row])


def shown(show, *told):
    console = Console(width=400, record=True, file=io.StringIO())
    show(console, *told)
    return console.export_text()


def test_a_run_that_a_person_begins_again_is_followed_and_no_longer_called_off(desk):
    desk.post("Down")
    desk.post("Slow")
    desk.work()
    desk.end_all("Refused")
    desk.work()
    assert desk.states() == ["ended", "ended"]

    (run_id,) = desk.runs.ids.values()
    desk.runs.retry(run_id)
    desk.work(after=31)
    assert desk.states() == ["started", "joined"]
    desk.post("Down", status="resolved")
    desk.post("Slow", status="resolved")
    desk.work(after=31)
    assert not desk.runs.cancelled
    desk.end_all("Recovered")
    desk.work(after=31)

    assert desk.states() == ["ended", "ended"]
    assert [kept.outcome for kept in desk.store.latest(2)] == ["Recovered", "Recovered"]


def test_a_run_that_was_called_off_and_is_begun_again_is_followed(desk):
    desk.post("Look")
    desk.work()
    desk.post("Look", status="resolved")
    desk.work()
    desk.work(after=31)
    assert desk.states() == ["cancelled"]

    (run_id,) = desk.runs.ids.values()
    desk.runs.retry(run_id)
    desk.work(after=31)
    desk.end_all("Planned")
    desk.work(after=31)

    assert desk.runs.cancelled == {
        run_id: "alert Look (route Look) was resolved before anything was done; *Retry* asks anew"
    }
    assert desk.store.latest(1)[0].outcome == "Planned"


def test_two_receivers_on_one_store_start_runs_one_at_a_time(desk, tmp_path):
    desk.post("Down", "a")
    desk.work()
    other = Desk(tmp_path, runs=desk.runs)
    other.post("Down", "b")
    other.work()
    assert len(desk.started) == 1

    desk.store.close()
    other.work()

    assert [host for _, host in desk.started] == ["a", "b"]
    other.store.close()


@pytest.mark.parametrize("seed", range(6))
def test_a_kill_at_any_question_to_the_server_neither_loses_nor_doubles(desk, seed):
    """Goal: no moment between two phases is a point of no return.

    Method: let questions to the server fail before or after they took effect, and begin anew.
    """
    chance = random.Random(seed)  # noqa: S311 (no secret depends on it)
    asked = desk.runs._ask

    def fail_sometimes():
        asked()
        if chance.random() < 0.3:
            raise Unreachable("the Prefect server", "anything", "killed")

    desk.runs._ask = fail_sometimes
    for n, instance in enumerate(INSTANCES):
        desk.runs.loses_answers = n % 2 == seed % 2
        desk.post("Down", instance)
        desk.work(after=1)
        desk.restart()
    desk.runs.loses_answers = False
    for _ in range(60):
        desk.work(after=1)

    assert sorted(host for _, host in desk.started) == list(INSTANCES)
    assert desk.states() == ["started"] * len(INSTANCES)

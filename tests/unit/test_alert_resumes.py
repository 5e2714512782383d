"""A run of an alert that another run resumes, that is cut off in mid-act, or that is let go on."""

import contextlib
from uuid import uuid4

import pytest

from operate.alerts.kept import State
from operate.alerts.prefect_runs import Standing
from operate.alerts.routes import Guard, Limits
from operate.alerts.telling import released
from operate.orphans.attempts import AttemptReader
from recovery.journal.events import Kind
from recovery.journal.history import read_history
from recovery.journal.opening import open_journal
from recovery.journal.store import Lease, LeaseLost
from recovery.run import recovery_id_of
from tests.lab.alert_desk import routes
from tests.lab.scripted_runs import CANCELLED
from tests.unit.alert_desks import desk as desk  # noqa: PLC0414 (the fixture)


@pytest.fixture
def journal(desk):
    with contextlib.closing(open_journal()) as opened:
        yield opened


def started(desk):
    desk.post("Down")
    desk.work()
    (run_id,) = desk.runs.ids.values()
    return run_id


def attempt(journal, run_id, n, by_run):
    recovery_id = recovery_id_of(run_id)
    if n == 1:
        journal.append(recovery_id, Kind.OPENED, {"target": "redis a", "flow_run_id": run_id})
    journal.append(recovery_id, Kind.ATTEMPT_STARTED, {"flow_run_id": by_run}, attempt=n)
    return recovery_id


@pytest.mark.parametrize("is_on_server", [True, False], ids=["by the watch", "at a terminal"])
def test_a_run_that_another_one_resumes_is_followed_to_the_end_of_that_one(
    desk, journal, is_on_server
):
    run_id, other = started(desk), str(uuid4())
    recovery_id = attempt(journal, run_id, 1, run_id)
    desk.end_all("Crashed")
    desk.work(after=31)
    assert desk.states() == ["ended"]

    if is_on_server:
        desk.runs.ids["made by the watch"] = other
    attempt(journal, run_id, 2, other)
    desk.work(after=31)
    assert desk.store.busy() == is_on_server
    journal.append(recovery_id, Kind.ATTEMPT_ENDED, {"as": "recovered"}, attempt=2)
    if is_on_server:
        desk.runs.end(other, "Recovered")
    desk.work(after=31)

    (kept,) = desk.store.latest(1)
    assert (kept.state, kept.outcome, kept.flow_run_id) == (State.ENDED, "Recovered", run_id)
    assert [notice.subject for notice in desk.told] == ["recover-redis/a: Crashed"]


def test_a_resume_by_another_run_is_not_called_off_and_keeps_a_second_alert_waiting(desk, journal):
    run_id, other = started(desk), str(uuid4())
    attempt(journal, run_id, 1, run_id)
    desk.end_all("Crashed")
    desk.runs.ids["made by the watch"] = other
    attempt(journal, run_id, 2, other)
    desk.work(after=31)
    desk.post("Down", status="resolved")
    desk.post("Slow")
    desk.work(after=31)

    assert not desk.runs.cancelled
    assert desk.states() == ["started", "joined"]


def test_a_run_that_acts_while_it_is_called_off_is_told_of_as_cut_off_in_mid_act(desk, journal):
    run_id = started(desk)
    desk.runs.ended[run_id] = Standing("SCHEDULED", "Scheduled", is_final=False)
    cancel = desk.runs.cancel

    def act_first(flow_run_id, why):
        recovery_id = recovery_id_of(flow_run_id)
        lease = journal.take_lease("redis a", recovery_id, "worker", 20)
        assert isinstance(lease, Lease)
        journal.append(recovery_id, Kind.OPENED, {"target": "redis a"}, lease=lease)
        journal.append(recovery_id, Kind.INTENDED, {}, step="s", lease=lease)
        return cancel(flow_run_id, why)

    desk.runs.cancel = act_first
    desk.post("Down", status="resolved")
    desk.work()
    desk.runs.ended[run_id] = Standing("CANCELLING", "Cancelling", is_final=False)
    desk.work(after=31)

    (kept,) = desk.store.latest(1)
    assert (kept.state, kept.outcome) == (State.ENDED, "Cancelled")
    assert f"it was cancelled while it acted: `recover status {recovery_id_of(run_id)}`" in (
        kept.reason
    )
    assert [notice.subject for notice in desk.told] == ["recover-redis/a: cancelled in mid-act"]


def cancelled_as_it_begins(desk):
    """A run that a worker had taken and that was cancelled before it had opened its journal."""
    run_id = started(desk)
    desk.runs.ended[run_id] = Standing("PENDING", "Pending", is_final=False)
    desk.runs.held.add(run_id)
    desk.post("Down", status="resolved")
    desk.work()
    assert (list(desk.runs.cancelled), desk.states()) == ([run_id], ["started"])
    return run_id


def opened(journal, run_id):
    """Its process, which opens the journal all the same."""
    recovery_id = recovery_id_of(run_id)
    lease = journal.take_lease("redis a", recovery_id, "worker", 20)
    assert isinstance(lease, Lease)
    body = {"target": "redis a", "flow_run_id": run_id}
    journal.append(recovery_id, Kind.OPENED, body, lease=lease)
    started_by = {"flow_run_id": run_id}
    journal.append(recovery_id, Kind.ATTEMPT_STARTED, started_by, attempt=1, lease=lease)
    return lease


def intend(journal, lease):
    journal.append(
        lease.recovery_id, Kind.INTENDED, {}, step="s", attempt=1, lease=lease,
        needs_live_lease=True,
    )  # fmt: skip


def test_a_run_that_opens_its_journal_after_it_was_cancelled_can_act_no_more(desk, journal):
    run_id = cancelled_as_it_begins(desk)
    lease = opened(journal, run_id)
    desk.work(after=2)

    with pytest.raises(LeaseLost):
        intend(journal, lease)
    assert (desk.states(), desk.told) == (["cancelled"], [])


@pytest.mark.parametrize("has_ended", [False, True])
def test_a_run_that_acts_after_it_was_cancelled_is_told_of(desk, journal, has_ended):
    run_id = cancelled_as_it_begins(desk)
    intend(journal, opened(journal, run_id))
    if has_ended:
        desk.runs.ended[run_id] = CANCELLED
    desk.work(after=2)

    (kept,) = desk.store.latest(1)
    assert (kept.state, kept.outcome) == (State.ENDED, "Cancelled")
    assert [notice.subject for notice in desk.told] == ["recover-redis/a: cancelled in mid-act"]


def test_a_run_whose_process_was_ended_before_it_opened_its_journal_is_called_off(desk):
    run_id = cancelled_as_it_begins(desk)
    desk.work(after=2)
    assert desk.states() == ["started"]
    desk.runs.ended[run_id] = CANCELLED
    desk.work(after=2)

    (kept,) = desk.store.latest(1)
    assert (kept.state, desk.told) == (State.CANCELLED, [])
    assert kept.reason == "it was resolved before its run had acted: cancelled"


def test_an_alert_shares_no_run_that_is_being_cancelled(desk):
    run_id = cancelled_as_it_begins(desk)
    desk.post("Slow")
    desk.work(after=1)
    assert desk.states() == ["started", "waiting"]
    assert desk.reason() == "busy: another run of recover-redis/a is being cancelled"
    desk.runs.ended[run_id] = CANCELLED
    desk.work(after=31)

    assert desk.states() == ["cancelled", "started"]
    assert len(desk.runs.ids) == 2


def test_a_resume_by_a_person_that_begins_while_the_run_is_cancelled_keeps_its_right_to_act(
    desk, journal
):
    run_id, hers = started(desk), str(uuid4())
    recovery_id = recovery_id_of(run_id)
    journal.release_lease(opened(journal, run_id))
    desk.runs.ask_person(run_id)
    desk.work()
    cancel, leases = desk.runs.cancel, []

    def resumed_meanwhile(flow_run_id, why):
        leases.append(journal.take_lease("redis a", recovery_id, "terminal", 20))
        body = {"flow_run_id": hers}
        journal.append(recovery_id, Kind.ATTEMPT_STARTED, body, attempt=2, lease=leases[0])
        return cancel(flow_run_id, why)

    desk.runs.cancel = resumed_meanwhile
    desk.post("Down", status="resolved")
    desk.work()
    intend(journal, leases[0])
    desk.runs.ids["hers"] = hers
    desk.work(after=31)

    assert not read_history(journal.events(recovery_id)).called_off
    assert desk.states() == ["started"]
    assert [notice.subject for notice in desk.told] == ["recover-redis/a asks a person"]


def test_a_crashed_run_that_had_not_acted_is_not_resumed_for_an_alert_that_is_resolved(
    desk, journal
):
    run_id = started(desk)
    journal.release_lease(opened(journal, run_id))
    desk.post("Down", status="resolved")
    desk.runs.ended[run_id] = Standing("CRASHED", "Crashed", is_final=True)
    desk.work()

    _, orphans = AttemptReader().read(journal)
    assert orphans == []
    assert read_history(journal.events(recovery_id_of(run_id))).called_off
    assert [notice.subject for notice in desk.told] == ["recover-redis/a: Crashed"]


def test_who_let_an_alert_go_on_is_known_of_its_run_and_of_the_alert(desk):
    desk.store.close()
    desk.routes = routes(guard=Guard(0, 0, 0, 0, 1), limits=Limits(1, 100))
    desk.begin()
    desk.post("Down", "b")
    desk.work()
    desk.end_all("Failed")
    desk.post("Down", "b", episode=1)
    desk.post("Look", "a")
    desk.work(after=1)
    desk.work(after=1)
    assert desk.states() == ["ended", "needs-person", "started"]
    fingerprint = desk.store.latest(1, "needs-person")[0].fingerprint

    released(desk.store.url, fingerprint, "Ada")
    desk.work(after=1)  # it waits for its turn first
    desk.end_all("Planned")
    desk.work(after=61)

    kept = desk.store.latest(1, "started")[0]
    assert kept.released_by == "Ada"
    assert "released-by:Ada" in desk.runs.started[kept.idempotency_key].tags


def test_an_alert_that_is_resolved_while_it_is_weighed_is_not_left_to_a_person(desk):
    desk.post("Down")
    (seen,) = desk.store.due(desk.now)
    desk.post("Down", status="resolved")

    assert not desk.store.leave(seen, State.NEEDS_PERSON, "three strikes")

    assert desk.states() == ["cancelled"]


def test_an_old_alert_is_found_among_thousands_that_came_later(desk):
    fingerprint = desk.post("Down", "a")
    kept = desk.store.due(desk.now)[0]
    desk.store.leave(kept, State.NEEDS_PERSON, "three strikes")
    with desk.store._database.writing():
        for n in range(1200):
            desk.store._database.execute(
                "insert into recover_alerts (fingerprint, starts_at, labels, is_firing, state, "
                "received_at, seen_at) values (:f, 'x', '{}', 1, 'needs-person', 1, 1)",
                f=f"x{n}",
            )

    assert len(released(desk.store.url, fingerprint, "Ada")) == 1

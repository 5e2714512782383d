"""The contract of the memory of alerts, on SQLite and on a real Postgres."""

import contextlib
import os
import sqlite3
import threading
from datetime import UTC, datetime

import psycopg
import pytest

from operate.alerts.kept import State
from operate.alerts.opening import open_alerts
from operate.alerts.payload import Alert, written
from operate.alerts.routes import Route, Target
from operate.alerts.routing import Decision, Kind
from recovery.errors import BadInput
from recovery.journal.opening import open_journal
from recovery.journal.store import JournalUnavailable
from tests.lab.processes import wait_until

TARGET = Target("cart", {}, {"host": "ssh://a"})
ROUTE = Route("redis", [], "recover-redis", [TARGET], "redis", severity="critical")
RUN = Decision(Kind.RUN, ["it fits"], ROUTE, TARGET, {"host": "ssh://a", "port": 6379})
SERVER_SIDE = """select name from pg_settings where (name, setting) in (
  ('tcp_keepalives_idle', '5'), ('tcp_keepalives_interval', '2'), ('tcp_keepalives_count', '3'),
  ('tcp_user_timeout', '10000'), ('idle_in_transaction_session_timeout', '30000'),
  ('lock_timeout', '30000'))"""
NOWHERE = Decision(Kind.NO_ROUTE, ["no route fits"])


@pytest.fixture(params=["sqlite", "postgres"])
def url(request, tmp_path):
    if request.param == "postgres":
        return request.getfixturevalue("postgres_dsn")
    return str(tmp_path / "alerts.sqlite")


@pytest.fixture
def store(url):
    with contextlib.closing(open_alerts(url)) as opened:
        yield opened


FIRST, SECOND, THIRD, AHEAD = (written(datetime.fromtimestamp(n, UTC)) for n in (1, 2, 3, 9e4))


def alert(fingerprint="f", episode=FIRST, *, is_firing=True, ends_at=THIRD, **labels):
    labels = {"alertname": "RedisDown", **labels}
    return Alert(fingerprint, episode, is_firing, labels, "" if is_firing else ends_at)


def receive(store, *read, now=1000.0, decision=RUN):
    return store.receive([(one, decision) for one in read], now)


def started(store, fingerprint="f", run_id="run-1", now=1001.0):
    receive(store, alert(fingerprint))
    kept = store.find(fingerprint, alert().starts_at)
    assert store.reserve(kept, "deployment", RUN, now)
    store.confirm(kept, run_id, now)
    return store.find(fingerprint, alert().starts_at)


def test_an_episode_is_kept_once_and_counted(store):
    receive(store, alert(), alert(), now=1000)
    receive(store, alert(), now=1005)

    (kept,) = store.latest(10)
    assert (kept.repeats, kept.received_at, kept.seen_at) == (2, 1000, 1005)
    assert kept.state is State.WAITING


def test_another_episode_is_another_alert(store):
    receive(store, alert(), alert(episode=SECOND))

    assert len(store.latest(10)) == 2
    assert store.episodes("f", 0) == 2


def test_an_episode_whose_beginning_moves_back_is_the_same(store):
    receive(store, alert(episode=SECOND), alert(episode=FIRST))
    (kept,) = store.latest(10)
    assert (kept.starts_at, kept.repeats) == (SECOND, 1)

    receive(store, alert(episode=FIRST, is_firing=False))

    (kept,) = store.latest(10)
    assert not kept.is_firing


def test_the_late_end_of_an_earlier_episode_does_not_end_a_later_one(store):
    receive(store, alert(episode=SECOND))

    receive(store, alert(episode=FIRST, is_firing=False, ends_at=FIRST))

    assert [kept.is_firing for kept in store.latest(10)] == [False, True]


def test_a_beginning_ahead_of_the_clock_counts_from_when_it_was_heard(store):
    heard, later = (written(datetime.fromtimestamp(n, UTC)) for n in (1000, 1500))
    receive(store, alert(episode=AHEAD), now=1000)
    receive(store, alert(episode=AHEAD), now=1200)
    assert [(kept.began_at, kept.repeats) for kept in store.latest(10)] == [(heard, 1)]

    receive(store, alert(episode=later), now=1500)
    assert [kept.starts_at for kept in store.latest(10)] == [later, AHEAD]
    receive(store, alert(episode=later, is_firing=False, ends_at=later), now=1600)

    assert not [kept for kept in store.latest(10) if kept.is_firing]


@pytest.mark.parametrize("ended", [AHEAD, SECOND])
def test_an_end_ends_an_episode_that_was_said_to_begin_ahead_of_the_clock(store, ended):
    receive(store, alert(episode=AHEAD), now=1000)

    end = written(datetime.fromtimestamp(1100, UTC))
    receive(store, alert(episode=ended, is_firing=False, ends_at=end), now=1100)

    (kept,) = store.latest(10)
    assert (kept.is_firing, kept.state) == (False, State.CANCELLED)


def test_the_end_of_an_episode_told_once_more_ends_no_later_one(store):
    receive(store, alert(episode=FIRST), alert(episode=FIRST, is_firing=False))
    receive(store, alert(episode=SECOND))

    receive(store, alert(episode=FIRST, is_firing=False, ends_at=THIRD))

    assert [kept.is_firing for kept in store.latest(10)] == [True, False]


def test_what_waits_comes_in_the_order_it_came(store):
    receive(store, *(alert(one) for one in "cabd"))

    assert [kept.fingerprint for kept in store.due(2000)] == list("cabd")
    assert [kept.fingerprint for kept in store.due(2000, store.due(2000)[1].seq)] == ["b", "d"]


def test_what_is_held_is_not_due_before_its_time(store):
    receive(store, alert())
    store.hold(store.due(1000)[0], "maintenance", 1500.0)

    assert not store.due(1499)
    assert store.due(1500)[0].reason == "maintenance"


def test_what_is_weighed_anew_is_due_at_once(store):
    receive(store, alert())
    store.hold(store.due(1000)[0], "cool-down: x", 1500.0)

    store.weigh_anew()

    assert store.due(1001)


def test_a_release_is_not_lost_to_who_holds_the_alert_meanwhile(store):
    receive(store, alert())
    (seen,) = store.due(1000)

    assert store.release(seen, "Ada", 1001.0)
    store.hold(seen, "cool-down: x", 1500.0)

    (kept,) = store.due(1002)
    assert (kept.reason, kept.released_at) == ("released by Ada", 1001.0)


def test_what_has_gone_on_itself_is_not_released(store):
    receive(store, alert())
    (seen,) = store.due(1000)
    store.reserve(seen, "d", RUN, 1001.0)

    assert not store.release(seen, "Ada", 1002.0)

    assert store.latest(1)[0].state is State.RESERVED


def test_a_reservation_holds_all_that_is_sent_and_is_made_once(store):
    receive(store, alert())
    (kept,) = store.due(1000)

    made = [store.reserve(kept, "d", RUN, 1001.0) for _ in range(2)]

    (reserved,) = store.reserved(2000)
    assert made == [True, False]
    assert (reserved.flow, reserved.deployment) == ("recover-redis", "d")
    assert reserved.parameters == {"host": "ssh://a", "port": 6379}
    assert reserved.idempotency_key == f"am:f:{FIRST}"


def test_of_many_who_reserve_at_once_one_succeeds(url, store):
    receive(store, alert())
    (kept,) = store.due(1000)
    made = []

    def reserve():
        with contextlib.closing(open_alerts(url)) as mine:
            made.append(mine.reserve(kept, "d", RUN, 1001.0))

    threads = [threading.Thread(target=reserve) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(made) == [False] * 7 + [True]


def test_of_many_who_receive_at_once_every_repeat_is_counted(url):
    def many():
        with contextlib.closing(open_alerts(url)) as mine:
            for _ in range(10):
                receive(mine, alert("x"), alert("y"))

    threads = [threading.Thread(target=many) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    with contextlib.closing(open_alerts(url)) as opened:
        assert [kept.repeats for kept in opened.latest(10)] == [39, 39]


def test_a_confirmed_run_ends_for_all_that_share_it(store):
    leader = started(store)
    receive(store, alert("g"))
    store.join(store.due(2000)[0], leader)
    assert store.busy() == 1

    store.note_run("run-1", "COMPLETED", "Recovered", 1100.0)

    assert {kept.state for kept in store.latest(10)} == {State.ENDED}
    assert store.busy() == 0
    assert [kept.outcome for kept in store.runs_on("recover-redis/cart", 0)] == ["Recovered"] * 2


def test_a_run_that_waits_for_a_person_is_not_busy(store):
    started(store)

    store.note_run("run-1", "PAUSED", "", 1100.0)

    assert store.busy() == 0
    assert store.running()
    assert store.counts() == {"asks-person": 1}
    assert [kept.stands for kept in store.latest(10, "asks-person")] == ["asks-person"]
    assert not store.latest(10, "started")


def test_a_run_that_goes_on_after_its_end_goes_on_for_all_that_share_it(store):
    leader = started(store)
    receive(store, alert("g"))
    store.join(store.due(2000)[0], leader)
    store.note_run("run-1", "FAILED", "Refused", 1100.0)
    assert len(store.ended_unwell(1000.0)) == 2

    store.take_up("run-1", "begun again", 1200.0)

    assert [kept.state for kept in store.latest(10)] == [State.JOINED, State.STARTED]
    assert not store.ended_unwell(1000.0)
    store.note_run("run-1", "COMPLETED", "Recovered", 1300.0)
    assert [kept.outcome for kept in store.latest(10)] == ["Recovered"] * 2
    assert not store.ended_unwell(1000.0)


@pytest.mark.parametrize("state", [State.STARTED, State.RESERVED])
def test_the_end_of_an_episode_changes_nothing_about_its_run(store, state):
    receive(store, alert())
    (kept,) = store.due(1000)
    store.reserve(kept, "d", RUN, 1001.0)
    if state is State.STARTED:
        store.confirm(kept, "run-1", 1002.0)

    receive(store, alert(is_firing=False), now=1003)

    (kept,) = store.latest(1)
    assert (kept.state, kept.is_firing, kept.resolved_at) == (state, False, 1003)


def test_what_waits_ends_with_its_episode(store):
    receive(store, alert())

    assert receive(store, alert(is_firing=False)) == [State.WAITING]

    assert store.latest(1)[0].state is State.CANCELLED
    assert not store.due(9999)


def test_a_called_off_episode_that_fires_again_later_gets_a_run_of_its_own(store):
    kept = started(store)
    store.call_off(kept.flow_run_id, "resolved")
    receive(store, alert(is_firing=False), now=1002)

    receive(store, alert(), now=1003)
    assert store.latest(1)[0].state is State.CANCELLED
    receive(store, alert(), now=5000)

    (again,) = store.due(5000)
    assert again.idempotency_key == f"{kept.idempotency_key}:2"


def test_an_alert_without_a_route_waits_once_there_is_one(store):
    receive(store, alert(), decision=NOWHERE)
    assert store.latest(1)[0].state is State.NOT_ROUTED

    receive(store, alert())

    assert store.due(1000)


def test_what_was_received_is_there_after_a_kill(url, store):
    receive(store, alert())
    process = os.fork()
    if process == 0:  # leaves in the middle of a transaction, as a killed process would
        with contextlib.suppress(BaseException):
            other = open_alerts(url)
            with other._database.writing():
                other._receive(alert("lost"), RUN, 1.0)
                os._exit(0)
        os._exit(1)
    assert os.waitpid(process, 0)[1] == 0

    assert [kept.fingerprint for kept in store.latest(10)] == ["f"]
    receive(store, alert("g"))


def test_beats_are_remembered(url, store):
    assert store.last_beat("watchdog") == 0
    store.beat("watchdog", 5.0)
    store.beat("watchdog", 7.0)

    with contextlib.closing(open_alerts(url)) as other:
        assert other.last_beat("watchdog") == 7.0


def test_old_ends_are_forgotten_and_what_goes_on_is_not(store):
    started(store, "going-on")
    receive(store, alert("ended"), decision=NOWHERE, now=10)
    receive(store, alert("fresh"), decision=NOWHERE, now=2000)
    receive(store, alert("waiting"), now=10)

    store.forget(1500.0, 100)

    assert {kept.fingerprint for kept in store.latest(10)} == {"going-on", "fresh", "waiting"}


def test_of_too_many_alerts_without_a_route_the_oldest_are_forgotten(store):
    receive(store, *(alert(str(n)) for n in range(50)), decision=NOWHERE)

    store.forget(0.0, 10)

    assert [kept.fingerprint for kept in store.latest(99)] == [str(n) for n in range(49, 39, -1)]


def test_one_receiver_at_a_time_starts_runs(url, store):
    with contextlib.closing(open_alerts(url)) as other:
        assert store.is_alone()
        assert not other.is_alone()
        store.close()
        wait_until(other.is_alone, "the lock of the other", within_seconds=30)


def test_whoever_is_cut_off_keeps_no_other_from_opening_a_store_or_the_journal(postgres_dsn):
    open_alerts(postgres_dsn).close()
    open_journal(postgres_dsn).close()
    with psycopg.connect(postgres_dsn) as cut_off:
        for lock in ("recover_alerts", "recover_format"):
            cut_off.execute("select pg_advisory_xact_lock(hashtext(%s))", (lock,))

        open_journal(postgres_dsn).close()
        with contextlib.closing(open_alerts(postgres_dsn)) as store:
            assert store.counts() == {}
            assert len(store._database.read(SERVER_SIDE)) == 6

        own_way = f"{postgres_dsn}?options=-c%20lock_timeout%3D5s"
        with contextlib.closing(open_alerts(own_way)) as own:
            assert own._database.read("show lock_timeout") == [{"lock_timeout": "5s"}]


def test_odd_text_comes_back_as_it_was(store):
    receive(store, alert(odd="'; drop table recover_alerts; -- \N{SNOWMAN} %s :name \\ \x01"))

    assert store.latest(1)[0].labels["odd"].endswith("%s :name \\ \x01")


def test_a_file_that_is_no_store_is_refused(tmp_path):
    file = tmp_path / "notes.txt"
    file.write_text("notes" * 1000)

    with pytest.raises(BadInput):
        open_alerts(str(file))


def test_a_store_that_cannot_be_written_says_so(tmp_path):
    with contextlib.closing(open_alerts(str(tmp_path / "alerts.sqlite"))) as store:
        held = sqlite3.connect(tmp_path / "alerts.sqlite", isolation_level=None)
        held.execute("begin immediate")
        store._database._connection.execute("pragma busy_timeout = 10")

        with pytest.raises(JournalUnavailable):
            receive(store, alert())

        held.close()
        receive(store, alert())
        assert store._database._connection.execute("pragma synchronous").fetchone()[0] == 2

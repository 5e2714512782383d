"""The contract of a journal, on SQLite and on a real Postgres."""

import contextlib
import multiprocessing
import resource
import signal
import sqlite3
import threading

import psycopg
import pytest

from recovery.errors import BadInput
from recovery.journal.events import FIRST_HASH, FORMAT, Kind, flaws
from recovery.journal.opening import open_journal
from recovery.journal.store import Holder, JournalUnavailable, Lease, LeaseLost, boot_clock
from recovery.secrecy.redaction import isolated_registry
from recovery.secrecy.secret import Secret
from tests.lab.processes import wait_until, write_secret

EVENTS_TABLE = {"sqlite": "events", "postgres": "recover_events"}
STORES = ["sqlite", "postgres"]


@pytest.fixture(params=STORES)
def store(request):
    return request.param


@pytest.fixture
def url(store, request, tmp_path):
    if store == "postgres":
        return request.getfixturevalue("postgres_dsn")
    return str(tmp_path / "journal.sqlite")


@pytest.fixture
def journal(url):
    with contextlib.closing(open_journal(url)) as opened:
        yield opened


def tamper(store, url, statement):
    table = statement.replace("events", EVENTS_TABLE[store])
    if store == "sqlite":
        with contextlib.closing(sqlite3.connect(url)) as connection, connection:
            connection.execute(table)
    else:
        with psycopg.connect(url) as connection:
            connection.execute(table)


def flaws_of(journal, recovery_id="r1"):
    return flaws(journal.events(recovery_id), *journal.head(recovery_id))


def write(journal, *steps, recovery_id="r1"):
    for step in steps:
        journal.append(recovery_id, Kind.SAW, {"step": step}, step=step)


def taken(journal, recovery_id="r1", seconds=20.0, **options):
    lease = journal.take_lease("db", recovery_id, "me", seconds, **options)
    assert isinstance(lease, Lease), lease
    return lease


def expired(journal, recovery_id="r1"):
    lease = taken(journal, recovery_id, seconds=0.05)
    wait_until(lambda: journal.holder("db") is None, "the lease to run out", within_seconds=20)
    return lease


def test_what_was_appended_is_read_back_by_another_reader_in_order(journal, url):
    write(journal, "a", "b", "c")

    with contextlib.closing(open_journal(url)) as reader:
        events = reader.events("r1")

        assert [(event.seq, event.step) for event in events] == [(1, "a"), (2, "b"), (3, "c")]
        assert events[0].previous_hash == FIRST_HASH
        assert reader.head("r1") == (3, events[-1].hash)
        assert flaws_of(reader) == []


def test_the_heads_say_what_was_written_to_last(journal):
    write(journal, "a", "b", recovery_id="r1")
    write(journal, "a", recovery_id="r2")
    write(journal, "c", recovery_id="r1")

    assert list(journal.heads().items()) == [("r1", 3), ("r2", 1)]
    assert journal.heads(limit=1) == {"r1": 3}


def test_an_unknown_recovery_has_no_events_and_no_head(journal):
    assert journal.events("none") == []
    assert journal.head("none") == (0, FIRST_HASH)


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        ("update events set body = '{}' where seq = 2", "event 2 (saw) was changed"),
        ("update events set step = 'z' where seq = 2", "event 2 (saw) was changed"),
        ("update events set at = '2020-01-01T00:00:00' where seq = 3", "event 3 (saw) was changed"),
        ("delete from events where seq = 2", "event 2 is missing"),
        ("delete from events where seq = 1", "event 1 is missing"),
        ("delete from events where seq = 4", "ends at event 3, but 4 were written"),
        ("update events set seq = case seq when 2 then -3 else -2 end where seq in (2, 3)", "seq"),
    ],
)
def test_a_changed_missing_or_moved_event_shows(journal, store, url, statement, told):
    write(journal, "a", "b", "c", "d")

    tamper(store, url, statement)
    if told == "seq":
        tamper(store, url, "update events set seq = -seq where seq < 0")
        told = "does not follow the event before it"

    assert any(told in flaw for flaw in flaws_of(journal)), flaws_of(journal)


def test_an_event_taken_from_another_recovery_shows(journal, store, url):
    write(journal, "a")
    write(journal, "a", "b", recovery_id="r2")

    tamper(store, url, "update events set recovery_id = 'r1' where recovery_id = 'r2' and seq = 2")

    assert flaws_of(journal)
    assert flaws_of(journal, "r2")


def append_many(url, name, times):
    with contextlib.closing(open_journal(url)) as journal:
        for n in range(times):
            journal.append("r1", Kind.SAW, {"n": n}, step=name)


def test_processes_and_threads_that_write_at_once_never_fork_the_chain(url, journal):
    context = multiprocessing.get_context("forkserver")
    writers = [context.Process(target=append_many, args=(url, f"p{n}", 15)) for n in range(3)]
    threads = [
        threading.Thread(target=lambda: [write(journal, "t") for _ in range(15)]) for _ in range(2)
    ]

    for each in (*writers, *threads):
        each.start()
    for each in (*writers, *threads):
        each.join()

    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    assert len(journal.events("r1")) == 75
    assert flaws_of(journal) == []


def test_any_text_and_size_comes_back_as_it_was(journal):
    body = {"text": "žluťoučký 🐎 \x00 \ud800 \\ ' \" %s", "long": "x" * 3_000_000, "n": 2**70}

    journal.append("r1", Kind.SAW, body, step="größe[🐎]")

    (event,) = journal.events("r1")
    assert event.body == body
    assert event.step == "größe[🐎]"
    assert flaws_of(journal) == []


def test_a_known_secret_is_masked_before_it_is_hashed_and_written(journal, store, url):
    with isolated_registry():
        Secret("correct-horse-battery")
        journal.append("r1", Kind.SAW, {"a": ["x correct-horse-battery y"]})

    assert journal.events("r1")[0].body == {"a": ["x *** y"]}
    assert flaws_of(journal) == []


def test_recoveries_are_found_by_the_beginning_of_their_id_latest_first(journal):
    for recovery_id in ("ab1", "ab2", "a%", "ab1"):
        write(journal, "x", recovery_id=recovery_id)

    assert journal.recovery_ids() == ["ab1", "a%", "ab2"]
    assert journal.recovery_ids("ab") == ["ab1", "ab2"]
    assert journal.recovery_ids("a%") == ["a%"]
    assert journal.recovery_ids(limit=1) == ["ab1"]


def test_recoveries_of_one_flow_are_found_by_how_they_were_opened(journal):
    for recovery_id, flow in (("r1", "drill"), ("r2", "drill-more"), ("r3", 'odd" flow')):
        journal.append(recovery_id, Kind.OPENED, {"flow": flow, "target": "drill"})
    journal.append("r2", Kind.SAW, {"flow": "drill"})

    assert journal.recovery_ids(flow="drill") == ["r1"]
    assert journal.recovery_ids(flow='odd" flow') == ["r3"]
    assert journal.recovery_ids(flow="dril") == []
    assert journal.recovery_ids(flow="drill", starting_with="r2") == []


def test_what_began_acts_or_steps_back_on_a_target_since_is_found_latest_first(journal):
    for recovery_id, target, kind in (
        ("r1", "db", Kind.INTENDED),
        ("r3", "db", Kind.INTENDED),
        ("r2", "db", Kind.UNDO_INTENDED),
        ("r4", 'odd "db" ž', Kind.INTENDED),
        ("r5", "db", Kind.DONE),
    ):
        lease = journal.take_lease(target, recovery_id, "me", 20)
        journal.append(recovery_id, Kind.OPENED, {"flow": "db", "target": target}, lease=lease)
        journal.append(recovery_id, kind, {"target": "db"}, step="s", lease=lease)
        journal.append(recovery_id, Kind.SAW, {}, step="s")  # of no epoch
        journal.release_lease(lease)

    assert journal.acted_since("db", 0) == ["r2", "r3", "r1"]
    assert journal.acted_since("db", 1) == ["r2", "r3"]
    assert journal.acted_since("db", 3) == []
    assert journal.acted_since('odd "db" ž', 0) == ["r4"]
    assert journal.acted_since("d", 0) == []


def test_a_lease_is_held_by_one_and_each_take_over_raises_its_epoch(journal):
    first = taken(journal)
    held = journal.take_lease("db", "r2", "other", 20)
    again = journal.take_lease("db", "r1", "me again", 20)
    forced = taken(journal, "r2", by_force=True)
    journal.release_lease(forced)
    after_release = taken(journal, "r3")

    assert isinstance(held, Holder)
    assert (held.recovery_id, held.owner, held.epoch) == ("r1", "me", 1)
    assert 0 < held.seconds_left <= 20
    assert isinstance(again, Holder)
    assert [lease.epoch for lease in (first, forced, after_release)] == [1, 2, 3]


def test_leases_of_different_targets_have_nothing_to_do_with_each_other(journal):
    assert isinstance(journal.take_lease("db", "r1", "me", 20), Lease)
    assert isinstance(journal.take_lease("host", "r2", "me", 20), Lease)
    assert journal.holder("db").recovery_id == "r1"
    assert journal.holder("nothing") is None


def test_a_lease_runs_out_and_may_then_be_taken_but_not_renewed(journal):
    first = expired(journal)

    with pytest.raises(LeaseLost, match="ran out"):
        journal.renew_lease(first)
    assert taken(journal, "r2").epoch == 2


def test_a_renewed_lease_lives_longer(journal):
    lease = taken(journal, seconds=5)

    renewed = journal.renew_lease(lease)

    assert renewed.epoch == lease.epoch
    assert renewed.deadline > lease.deadline
    assert journal.holder("db").seconds_left > lease.deadline - boot_clock()


def test_what_has_not_acted_loses_its_right_to_and_what_has_keeps_it(journal):
    lease = journal.take_lease("db", "r1", "one", 20)
    other = journal.take_lease("web", "r2", "two", 20)
    for recovery_id, held in (("r1", lease), ("r2", other)):
        journal.append(recovery_id, Kind.OPENED, {}, lease=held)
    journal.append("r2", Kind.INTENDED, {}, step="s", lease=other, needs_live_lease=True)

    withdrawn = [journal.withdraw("db", "r1", 1), journal.withdraw("web", "r2", 1)]

    assert withdrawn == [True, False]
    with pytest.raises(LeaseLost):
        journal.append("r1", Kind.INTENDED, {}, step="s", lease=lease, needs_live_lease=True)
    with pytest.raises(LeaseLost):
        journal.renew_lease(lease)
    journal.append("r2", Kind.DONE, {}, step="s", lease=other)
    assert journal.take_lease("db", "r3", "three", 20).epoch > lease.epoch


def test_an_attempt_that_has_begun_since_keeps_its_right_and_none_is_taken_while_it_lives(journal):
    old = journal.take_lease("db", "r1", "one", 20)
    journal.append("r1", Kind.OPENED, {}, lease=old)
    journal.release_lease(old)
    new = journal.take_lease("db", "r1", "two", 20)

    while_it_lives = journal.withdraw("db", "r1", old.epoch)
    renewed = journal.renew_lease(new)
    journal.release_lease(renewed)

    assert (while_it_lives, journal.withdraw("db", "r1", old.epoch)) == (False, True)


def test_the_holder_of_an_old_epoch_can_neither_write_nor_renew_nor_release(journal):
    old = taken(journal)
    new = taken(journal, "r2", by_force=True)

    for is_intent in (True, False):
        with pytest.raises(LeaseLost, match="epoch 2 of recovery r2 holds it"):
            journal.append("r1", Kind.DONE, {}, lease=old, needs_live_lease=is_intent)
    with pytest.raises(LeaseLost):
        journal.renew_lease(old)
    journal.release_lease(old)

    assert journal.events("r1") == []
    assert journal.holder("db").epoch == new.epoch
    assert journal.append("r2", Kind.DONE, {}, lease=new).epoch == 2


def test_after_expiry_an_outcome_is_still_accepted_but_no_intent(journal):
    lease = expired(journal)

    with pytest.raises(LeaseLost, match="ran out"):
        journal.append("r1", Kind.INTENDED, {}, lease=lease, needs_live_lease=True)
    journal.append("r1", Kind.DONE, {}, lease=lease)

    assert [event.kind for event in journal.events("r1")] == ["done"]


def take_often(url, times, pipe):
    won = []
    with contextlib.closing(open_journal(url)) as journal:
        for _ in range(times):
            answer = journal.take_lease("db", "r1", "me", 20)
            if isinstance(answer, Lease):
                won.append(answer.epoch)
                journal.release_lease(answer)
    pipe.send(won)


def test_no_epoch_is_given_out_twice_however_many_ask_at_once(url, journal):
    context = multiprocessing.get_context("forkserver")
    pipes = [context.Pipe(duplex=False) for _ in range(3)]
    takers = [context.Process(target=take_often, args=(url, 15, theirs)) for _, theirs in pipes]

    for taker in takers:
        taker.start()
    epochs = [epoch for mine, _ in pipes for epoch in mine.recv()]
    for taker in takers:
        taker.join()

    assert epochs
    assert sorted(epochs) == list(range(1, len(epochs) + 1))


def test_a_journal_of_a_newer_format_is_refused_and_not_touched(url, store):
    open_journal(url).close()
    newer = FORMAT + 1
    if store == "sqlite":
        tamper(store, url, f"pragma user_version = {newer}")
    else:
        tamper(store, url, f"update recover_format set format = {newer}")  # noqa: S608

    with pytest.raises(BadInput, match=f"has format {newer}; this release reads up to {FORMAT}"):
        open_journal(url)


def test_a_closed_journal_writes_nothing(url):
    journal = open_journal(url)
    journal.close()

    with pytest.raises(JournalUnavailable):
        journal.append("r1", Kind.SAW, {})


def open_and_append(url, pipe):
    with contextlib.closing(open_journal(url)) as journal:
        write(journal, "x")
    pipe.send("written")


def test_a_journal_made_by_two_processes_at_once_is_one_journal(url, store):
    context = multiprocessing.get_context("forkserver")
    pipes = [context.Pipe(duplex=False) for _ in range(3)]
    makers = [context.Process(target=open_and_append, args=(url, theirs)) for _, theirs in pipes]

    for maker in makers:
        maker.start()
    said = [mine.recv() for mine, _ in pipes]
    for maker in makers:
        maker.join()

    assert said == ["written"] * 3
    with contextlib.closing(open_journal(url)) as journal:
        assert len(journal.events("r1")) == 3
        assert flaws_of(journal) == []


# -- SQLite alone ----------------------------------------------------------------------------------


def test_a_file_that_another_makes_a_journal_of_right_now_is_waited_for(tmp_path):
    path = tmp_path / "journal.sqlite"
    with contextlib.closing(sqlite3.connect(path, check_same_thread=False)) as other:
        other.execute("begin immediate")
        end = threading.Timer(0.3, other.rollback)
        end.start()

        open_journal(str(path)).close()
        end.join()

    assert path.read_bytes()[:6] == b"SQLite"


def test_a_file_that_is_no_journal_is_refused_and_not_touched(tmp_path):
    text, foreign = tmp_path / "text", tmp_path / "foreign.db"
    text.write_bytes(b"not a database at all, but long enough to be read as one" * 20)
    with contextlib.closing(sqlite3.connect(foreign)) as connection, connection:
        connection.execute("create table dashboard (id integer)")

    for path in (text, foreign):
        before = path.read_bytes()
        with pytest.raises(BadInput, match="RECOVER_JOURNAL"):
            open_journal(str(path))
        assert path.read_bytes() == before


def test_a_path_that_cannot_be_a_file_is_named(tmp_path):
    (tmp_path / "file").touch()

    for path in (tmp_path, tmp_path / "file" / "journal.sqlite"):
        with pytest.raises(JournalUnavailable, match=str(path)):
            open_journal(str(path))


def test_the_journal_file_is_for_its_owner_alone(tmp_path):
    path = tmp_path / "new" / "journal.sqlite"

    open_journal(str(path)).close()

    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def write_until_full(path, pipe):
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    journal = open_journal(path)
    resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))
    written = 0
    try:
        for _ in range(1000):
            journal.append("r1", Kind.SAW, {"x": "y" * 5000})
            written += 1
    except JournalUnavailable as error:
        pipe.send((written, str(error)))


def test_on_a_full_disk_the_write_is_refused_and_what_was_written_stays_whole(tmp_path):
    path = str(tmp_path / "journal.sqlite")
    context = multiprocessing.get_context("forkserver")
    mine, theirs = context.Pipe(duplex=False)
    writer = context.Process(target=write_until_full, args=(path, theirs))

    writer.start()
    written, said = mine.recv()
    writer.join()

    assert written > 10
    assert "Nothing is done without it" in said
    with contextlib.closing(open_journal(path)) as journal:
        assert len(journal.events("r1")) == written
        assert flaws_of(journal) == []


def test_a_lease_of_an_earlier_boot_has_run_out(tmp_path):
    path = str(tmp_path / "journal.sqlite")
    with contextlib.closing(open_journal(path)) as journal:
        lease = taken(journal, seconds=1000)
        tamper("sqlite", path, "update leases set boot = 'before the power failed'")

        assert journal.holder("db") is None
        with pytest.raises(LeaseLost):
            journal.append("r1", Kind.INTENDED, {}, lease=lease, needs_live_lease=True)
        assert taken(journal, "r2").epoch == 2


# -- Postgres alone --------------------------------------------------------------------------------


class LosingConnection:
    """Sends a statement and loses its answer: the server ends the session right after it."""

    def __init__(self, connection, server):
        self._connection, self._server = connection, server

    def __getattr__(self, name):
        return getattr(self._connection, name)

    def execute(self, *args):
        self._connection.execute(*args)
        pid = self._connection.info.backend_pid
        self._server.execute(f"select pg_terminate_backend({pid}, 10000)")
        return self._connection.execute("select 1")  # raises: the session is gone


@pytest.fixture
def postgres_journal(postgres_dsn):
    with contextlib.closing(open_journal(postgres_dsn)) as opened:
        yield opened


def test_a_write_whose_answer_was_lost_is_written_once(postgres, postgres_journal):
    write(postgres_journal, "a")
    lease = taken(postgres_journal)
    postgres_journal._connection = LosingConnection(postgres_journal._connection, postgres)

    event = postgres_journal.append(
        "r1", Kind.INTENDED, {}, step="b", lease=lease, needs_live_lease=True
    )
    write(postgres_journal, "c")

    assert [event.step for event in postgres_journal.events("r1")] == ["a", "b", "c"]
    assert event.seq == 2
    assert flaws_of(postgres_journal) == []


def test_a_session_that_ended_between_two_writes_is_opened_again(postgres, postgres_journal):
    write(postgres_journal, "a")
    pid = postgres_journal._connection.info.backend_pid
    postgres.execute(f"select pg_terminate_backend({pid}, 10000)")

    write(postgres_journal, "b")

    assert flaws_of(postgres_journal) == []
    assert len(postgres_journal.events("r1")) == 2


def test_the_address_shows_no_password_and_a_bad_one_is_not_quoted(postgres, postgres_journal):
    assert postgres.password not in postgres_journal.url
    with pytest.raises(BadInput) as raised:
        open_journal("postgresql://me:pass-word@host:port:9/x?what=%zz")
    assert "pass-word" not in str(raised.value)


def test_a_database_that_does_not_answer_is_named_without_its_password():
    with pytest.raises(JournalUnavailable) as raised:
        open_journal("postgresql://me:pass-word@127.0.0.1:1/x")
    assert "pass-word" not in str(raised.value)
    assert "127.0.0.1:1/x" in str(raised.value)


def test_the_password_of_a_journal_may_lie_in_a_file(postgres, tmp_path):
    file = tmp_path / "password"
    write_secret(file, postgres.password)
    server = f"postgresql://{postgres.user}@{postgres.host}:{postgres.port}"
    url = f"{server}/{postgres.user}?password_file={file}&connect_timeout=3"

    with contextlib.closing(open_journal(url)) as opened:
        assert opened.recovery_ids() is not None
        assert "password" not in opened.url

    with pytest.raises(BadInput, match="more than one password"):
        open_journal(f"postgresql://me:word@{postgres.host}:{postgres.port}/x?password_file={file}")
    with pytest.raises(BadInput, match="there is no such file"):
        open_journal(f"{server}/x?password_file={tmp_path / 'none'}")

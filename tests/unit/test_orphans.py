"""Which attempts are orphans, what becomes of them, and how their runs are to be shown."""

from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from prefect.client.schemas.objects import StateType

from operate.alerts.calling_off import Found, call_off
from operate.alerts.prefect_runs import Standing
from operate.orphans.attempts import AttemptReader, KnownAttempt, Orphan, newest_by_run
from operate.orphans.command import exit_code_of
from operate.orphans.mending import Shown, due_state
from operate.orphans.pace import Pace
from operate.orphans.ruling import Case, What, rule
from operate.orphans.runs import SeenRun
from operate.orphans.sightings import Sightings
from operate.orphans.telling import Teller
from operate.orphans.waiting import waiting_since
from operate.orphans.watch import Look, Watch
from operate.orphans.wording import crash_message
from recovery.errors import BadInput
from recovery.journal.events import Kind
from recovery.journal.opening import open_journal
from recovery.journal.store import Holder
from recovery.run import Recovery
from recovery.verdict import Danger

RUN_ID = "01900000-0000-7000-8000-00000000c0de"
NOW = "2026-11-29T19:00:00.000000+00:00"
PACE = Pace()
ORPHAN = Orphan(
    recovery_id="00000000c0de",
    flow="mend",
    target="db",
    n=2,
    flow_run_id=RUN_ID,
    run_state_id="s1",
    worker="host:7",
    last_heard_at=NOW,
    was_in="load",
    in_doubt=("load",),
    goes_back=False,
    is_approved=False,
    found_at=NOW,
    ordered=frozenset(),
    holder=None,
    parameters={},
)
RUN = SeenRun(
    run_id=RUN_ID,
    state_id="s2",
    state_type=StateType.CRASHED,
    state_name="Crashed",
    message="",
    deployment_id="d1",
    is_plan=False,
    is_due=True,
    seconds_by_server=0.0,
)
MEND = Recovery(
    name="mend",
    fn=lambda: None,
    runbook="docs/runbooks/mend.md",
    answers=(),
    danger=Danger.CHANGE,
    target_of=lambda: "db",
    parameters={},
    resumes_itself="each act has a probe",
)
CASE = Case(ORPHAN, MEND, RUN, is_server_known=True, age=10.0, heard_ago=60.0)
ATTEMPT = KnownAttempt(
    recovery_id="00000000c0de",
    n=2,
    flow_run_id=RUN_ID,
    run_state_id="s1",
    ended_as="",
    error="",
    error_type="",
)


def running(**changes):
    return replace(RUN, state_type=StateType.RUNNING, state_name="Running", **changes)


def case(**changes):
    orphan = {name: changes.pop(name) for name in list(changes) if hasattr(ORPHAN, name)}
    return replace(CASE, orphan=replace(ORPHAN, **orphan), **changes)


def test_one_whose_recovery_is_declared_so_is_resumed_after_a_pause():
    assert rule(case(age=9.0), PACE).what is What.WAIT
    assert rule(case(age=9.0), PACE).seconds == 1.0
    assert rule(case(), PACE).what is What.RESUME


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"declared": None}, "this release has no recovery mend"),
        ({"declared": replace(MEND, resumes_itself="")}, "not declared to resume by itself"),
        ({"declared": replace(MEND, danger=Danger.DESTRUCTIVE)}, "no consent to its plan stands"),
        ({"goes_back": True}, "on its way back"),
        ({"ordered": frozenset({1, 2, 3})}, "3 times already"),
        ({"heard_ago": 3601.0}, "too long ago"),
        ({"run": None}, "not run under this Prefect server"),
        ({"run": replace(RUN, deployment_id="")}, "from a command line"),
        ({"run": replace(RUN, state_type=StateType.CANCELLED)}, "a person cancelled"),
        ({"run": replace(RUN, state_type=StateType.CANCELLING)}, "a person cancelled"),
    ],
)
def test_a_person_resumes(changed, why):
    ruling = rule(case(**changed), PACE)

    assert ruling.what is What.PERSON
    assert why in ruling.why


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"is_server_known": False, "run": None}, "does not answer"),
        ({"run": running()}, "running again"),
        ({"holder": Holder("db", "other", 4, "host:8", 3.0)}, "recovery other holds its target"),
        ({"ordered": frozenset({1}), "age": 59.0}, "after a pause"),
    ],
)
def test_it_is_waited_for(changed, why):
    ruling = rule(case(**changed), PACE)

    assert ruling.what is What.WAIT
    assert why in ruling.why


def test_a_destructive_one_goes_on_by_itself_while_a_consent_to_its_plan_stands():
    destructive = replace(MEND, danger=Danger.DESTRUCTIVE)

    assert rule(case(declared=destructive, is_approved=True), PACE).what is What.RESUME


def test_the_crash_names_the_step_what_is_in_doubt_and_how_to_go_on():
    message = crash_message(ORPHAN)

    assert message.startswith("recovery 00000000c0de: the worker of attempt 2 (host:7) is gone")
    assert "It was in load, which is in doubt" in message
    assert "`recover resume 00000000c0de`" in message
    assert "nothing is in doubt" in crash_message(replace(ORPHAN, in_doubt=()))
    undo = "`recover undo 00000000c0de --by NAME --reason TEXT`"
    assert undo in crash_message(replace(ORPHAN, goes_back=True))
    assert "nothing was done" in crash_message(replace(ORPHAN, n=0))


@pytest.mark.parametrize(
    ("run", "attempt", "orphan", "seconds", "due"),
    [
        (running(state_id="s1"), {}, ORPHAN, 0.0, "CRASHED"),
        (running(), {}, ORPHAN, 299.0, None),  # it may be a new process that is about to begin
        (running(), {}, ORPHAN, 300.0, "CRASHED"),
        (replace(running(), state_type=StateType.CANCELLING), {}, ORPHAN, 19.0, None),
        (replace(running(), state_type=StateType.CANCELLING), {}, ORPHAN, 20.0, "CANCELLED"),
        (running(state_id="s1"), {}, None, 500.0, None),  # at work
        (RUN, {}, ORPHAN, 0.0, "CRASHED"),  # the worker's word does not say which step
        (replace(RUN, message=crash_message(ORPHAN)), {}, ORPHAN, 0.0, None),
        (running(state_id="s1"), {"ended_as": "lost"}, None, 0.0, "CRASHED"),
        (RUN, {"ended_as": "lost"}, None, 500.0, None),
        (running(state_id="s1"), {"ended_as": "recovered"}, None, 19.0, None),
        (running(state_id="s1"), {"ended_as": "recovered"}, None, 20.0, "COMPLETED"),
        (running(), {"ended_as": "needs-person"}, None, 299.0, None),  # a retry that begins
        (running(), {"ended_as": "needs-person"}, None, 300.0, "FAILED"),
        (running(state_id="s1"), {"ended_as": "needs-person", "asks": True}, None, 299.0, None),
        (running(state_id="s1"), {"ended_as": "needs-person", "asks": True}, None, 300.0, "FAILED"),
        (RUN, {"ended_as": "recovered"}, None, 0.0, "COMPLETED"),
        (RUN, {"ended_as": "failed"}, None, 0.0, "FAILED"),
        (replace(RUN, state_type=StateType.FAILED), {"ended_as": "failed"}, None, 99.0, None),
        (replace(RUN, state_type=StateType.SCHEDULED), {}, ORPHAN, 99.0, None),  # retried
        (running(state_id="s1"), {"called_off": "resolved"}, None, 19.0, None),
        (running(state_id="s1"), {"called_off": "resolved"}, None, 20.0, "CANCELLED"),
        (running(), {"called_off": "resolved"}, None, 299.0, None),  # a retry that begins
        (RUN, {"called_off": "resolved"}, None, 0.0, "CANCELLED"),
        (replace(RUN, state_type=StateType.CANCELLED), {"called_off": "x"}, None, 99.0, None),
    ],
)
def test_a_run_is_shown_as_the_journal_says(run, attempt, orphan, seconds, due):
    state = due_state(Shown(run, replace(ATTEMPT, **attempt), orphan, seconds), PACE)

    assert (state.type.value if state else None) == due


@pytest.mark.parametrize(
    ("error_type", "ended_as", "name"),
    [
        ("", "recovered", "Recovered"),
        ("", "undone", "Undone"),
        ("UndoFailed", "needs-person", "Half done"),
        ("TargetTaken", "refused", "Refused"),
        ("ErrorOfAnotherRelease", "needs-person", "Needs person"),
    ],
)
def test_a_run_that_could_not_tell_its_end_gets_the_name_it_would_have_had(
    error_type, ended_as, name
):
    attempt = replace(ATTEMPT, ended_as=ended_as, error_type=error_type)

    assert due_state(Shown(RUN, attempt, None, 0.0), PACE).name == name


@pytest.mark.parametrize(
    ("state", "attempt", "seconds", "kind"),
    [
        (StateType.SCHEDULED, None, 59.0, None),
        (StateType.SCHEDULED, None, 60.0, "worker"),
        (StateType.PENDING, None, 299.0, None),
        (StateType.PENDING, None, 300.0, "begin"),
        (StateType.RUNNING, None, 299.0, None),
        (StateType.RUNNING, None, 300.0, "attempt"),
        (StateType.RUNNING, ATTEMPT, 300.0, "attempt"),  # of an earlier start of the same run
        (StateType.RUNNING, replace(ATTEMPT, run_state_id="s2"), 9999.0, None),
        (StateType.CANCELLING, None, 299.0, None),
        (StateType.CANCELLING, None, 300.0, "end"),
        (StateType.CANCELLING, ATTEMPT, 60.0, "end"),
        (StateType.CANCELLING, replace(ATTEMPT, ended_as="lost"), 60.0, None),
    ],
)
def test_a_run_on_which_nobody_works_is_told_of_in_time(state, attempt, seconds, kind):
    waiting = waiting_since(replace(RUN, state_type=state), attempt, seconds, PACE)

    assert (waiting.kind if waiting else None) == kind


def test_a_plan_that_takes_long_is_left_alone():
    plan = running(is_plan=True)

    assert waiting_since(plan, None, 9999.0, PACE) is None


def test_the_latest_attempt_of_a_run_counts():
    attempts = [replace(ATTEMPT, n=3), ATTEMPT]

    assert newest_by_run(attempts) == {RUN_ID: replace(ATTEMPT, n=3)}


@pytest.fixture
def journal(tmp_path, monkeypatch):
    path = tmp_path / "journal.sqlite"
    monkeypatch.setenv("RECOVER_JOURNAL", str(path))
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    opened = open_journal()
    yield opened
    opened.close()


def begin(journal, *, intends="", recovery_id=ORPHAN.recovery_id, target="db"):
    """Write what an attempt writes, under a lease that is then released as if it had run out."""
    opened = {"flow": "mend", "target": target, "parameters": {}, "flow_run_id": RUN_ID}
    lease = journal.take_lease(target, recovery_id, "host:7", 30.0)
    journal.append(recovery_id, Kind.OPENED, opened, lease=lease)
    started = {"flow_run_id": RUN_ID, "run_state_id": "s1", "worker": "host:7", "goes": "forward"}
    journal.append(recovery_id, Kind.ATTEMPT_STARTED, started, attempt=1, lease=lease)
    if intends:
        journal.append(recovery_id, Kind.INTENDED, {}, step=intends, attempt=1, lease=lease)
    return lease


def test_an_attempt_is_an_orphan_once_its_lease_has_run_out_and_only_while_it_has_not_ended(
    journal,
):
    reader = AttemptReader()
    lease = begin(journal, intends="load")
    at_work = reader.read(journal)[1]
    journal.release_lease(lease)
    (orphan,) = reader.read(journal)[1]
    lease = journal.take_lease("db", ORPHAN.recovery_id, "host:8", 30.0)
    resuming = reader.read(journal)[1]
    body = {"as": "recovered"}
    journal.append(ORPHAN.recovery_id, Kind.ATTEMPT_ENDED, body, attempt=1, lease=lease)
    journal.release_lease(lease)

    assert (at_work, resuming, reader.read(journal)[1]) == ([], [], [])
    assert (orphan.n, orphan.in_doubt, orphan.was_in) == (1, ("load",), "load")
    assert (orphan.run_state_id, orphan.worker) == ("s1", "host:7")


def test_one_that_was_opened_and_never_began_is_an_orphan(journal):
    lease = journal.take_lease("db", ORPHAN.recovery_id, "host:7", 30.0)
    body = {"flow": "mend", "target": "db", "flow_run_id": RUN_ID}
    journal.append(ORPHAN.recovery_id, Kind.OPENED, body, lease=lease)
    journal.release_lease(lease)

    (attempt,), (orphan,) = AttemptReader().read(journal)

    assert (orphan.n, orphan.flow_run_id) == (0, RUN_ID)
    assert due_state(Shown(running(), attempt, orphan, 299.0), PACE) is None
    assert due_state(Shown(running(), attempt, orphan, 300.0), PACE).type is StateType.CRASHED


def test_without_a_server_each_orphan_is_told_of_once_with_what_a_person_is_to_type(journal):
    told = []
    journal.release_lease(begin(journal, intends="load"))
    watches = [Watch({"mend": MEND}, notify=lambda text, facts: told.append(text)) for _ in "ab"]

    looks = [watch.look() for watch in [*watches, *watches]]
    for watch in watches:
        watch.close()

    assert [row["what"] for look in looks for row in look.orphans] == ["person"] * 4
    assert len(told) == 1
    assert "`recover resume 00000000c0de`" in told[0]
    kinds = [event.kind for event in journal.events(ORPHAN.recovery_id)]
    assert kinds.count(Kind.ORPHANED) == 1
    assert exit_code_of(looks[0]) == 4


@pytest.mark.parametrize("is_begun", [True, False])
def test_what_was_called_off_while_it_looked_is_neither_lost_nor_resumed(
    journal, monkeypatch, is_begun
):
    """Goal: nothing goes on by itself for an alert that is resolved.

    Method: call off an attempt that is at work, and let a watch look that has the run as crashed.
    """
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:1/api")
    if is_begun:
        begin(journal)
    else:
        lease = journal.take_lease("db", ORPHAN.recovery_id, "host:7", 30.0)
        opened = {"flow": "mend", "target": "db", "flow_run_id": RUN_ID}
        journal.append(ORPHAN.recovery_id, Kind.OPENED, opened, lease=lease)
    kept = SimpleNamespace(parameters={}, flow_run_id=RUN_ID)
    assert call_off(kept, Standing("RUNNING", "Running", is_final=False)) is Found.CALLED_OFF
    server, told = WatchedServer([RUN]), []
    patient = Pace(back_off=(0.0, 0.0, 0.0))
    watch = Watch({"mend": MEND}, patient, lambda text, facts: told.append(text), _server=server)

    look = watch.look()
    watch.close()

    assert (look.orphans, told) == ([], [])
    kinds = {event.kind for event in journal.events(ORPHAN.recovery_id)}
    assert not kinds & {Kind.ORPHANED, Kind.RESUME_ORDERED}
    ((run_id, state),) = server.shown
    assert (run_id, state.type) == (RUN_ID, StateType.CANCELLED)
    assert "it was called off before it changed anything: its alert was resolved" in state.message


def test_a_journal_that_is_away_is_told_of_once_and_asked_again(tmp_path, monkeypatch):
    told = []
    folder = tmp_path / "in the way"
    folder.write_text("a file where the folder of the journal should be")
    monkeypatch.setenv("RECOVER_JOURNAL", str(folder / "journal.sqlite"))
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    watch = Watch({}, notify=lambda text, facts: told.append(text))
    looks = [watch.look(), watch.look()]
    folder.unlink()

    back = watch.look()
    watch.close()

    assert [exit_code_of(look) for look in looks] == [3, 3]
    assert (back.journal_error, exit_code_of(back)) == ("", 0)
    assert len(told) == 2
    assert "does not answer" in told[0]
    assert "answers again" in told[1]


def test_a_way_of_telling_that_fails_does_not_stop_the_watch(caplog):
    def fails(text, facts):
        raise BadInput("webhook", "it is down", "Mend it")

    Teller(fails).tell(("orphan",), "an orphan", {})

    assert "an orphan" in caplog.text


def test_a_look_that_saw_no_orphan_but_not_the_server_either_has_failed():
    assert exit_code_of(Look(server_error="refused")) == 3
    assert exit_code_of(Look()) == 0


class AskedRuns:
    """A server that has these runs, and is told how one is to be shown."""

    def __init__(self, runs):
        self.runs, self.shown, self.crashed, self.error = runs, [], [], None

    def unfinished(self, flows):
        return self.runs

    def of(self, run_ids):
        return {run.run_id: run for run in self.runs if run.run_id in run_ids}

    def show(self, run_id, state):
        self.shown.append((run_id, state))

    def crash_tasks(self, crashed, why):
        if self.error is not None:
            raise self.error
        self.crashed += [(run.run_id, run.state_id) for run in crashed]
        return ["load"]


class WatchedServer(AskedRuns):
    """A server that shows what it is told; a real one besides."""

    @contextmanager
    def asked(self):
        yield self

    def close(self):
        pass


def test_the_watch_does_the_rest_of_its_work_where_task_runs_cannot_be_shown_as_crashed(
    journal, monkeypatch
):
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:1/api")
    journal.release_lease(begin(journal, intends="load"))
    server, told = WatchedServer([RUN]), []
    server.error = TypeError("the server answers in a form of its own")
    watch = Watch({"mend": MEND}, notify=lambda text, facts: told.append(text), _server=server)

    failed = watch.look()
    server.error = None
    watch.look()
    watch.close()

    assert (failed.server_error, [row["what"] for row in failed.orphans]) == ("", ["wait"])
    assert (len(told), server.crashed) == (1, [(RUN_ID, "s2")])


def test_a_process_is_given_time_to_tell_of_its_end_from_the_moment_its_attempt_ended():
    """Goal: how long a recovery took says nothing of how long its end takes to be told."""
    seconds, told = [0.0], []
    watch = Watch(
        {"mend": MEND},
        notify=lambda text, facts: told.append(facts["occasion"]),
        _sightings=Sightings(lambda: seconds[0]),
    )
    asked, look = AskedRuns([running(state_id="s1")]), Look()

    def shown_at(moment, **ended):
        seconds[0] = moment
        watch._project(asked, [replace(ATTEMPT, **ended)], {}, look)
        return [state.name for _, state in asked.shown]

    assert shown_at(0.0) == []
    assert shown_at(60.0, ended_as="recovered") == []
    assert shown_at(79.0, ended_as="recovered") == []
    assert shown_at(80.0, ended_as="recovered") == ["Recovered"]
    assert told == ["alarm"]


def test_a_single_look_takes_from_the_journal_when_an_attempt_ended():
    asked = AskedRuns([running(state_id="s1", seconds_by_server=60.0)])
    watch = Watch({"mend": MEND}, is_single=True)
    just_now = replace(ATTEMPT, ended_as="recovered", ended_at=datetime.now(UTC).isoformat())

    watch._project(asked, [just_now], {}, Look())
    at_first = list(asked.shown)
    watch._project(asked, [replace(just_now, ended_at=NOW)], {}, Look())

    assert at_first == []
    assert [state.name for _, state in asked.shown] == ["Recovered"]


def test_a_resume_that_somebody_has_overtaken_is_called_off():
    made = replace(RUN, state_type=StateType.SCHEDULED, state_name="Scheduled")
    asked = AskedRuns(
        [
            replace(made, run_id="overtaken", resumes=(ATTEMPT.recovery_id, 1)),
            replace(made, run_id="wanted", resumes=(ATTEMPT.recovery_id, 2)),
            replace(made, run_id=ATTEMPT.flow_run_id, resumes=(ATTEMPT.recovery_id, 1)),
            replace(made, run_id="of a person"),
        ]
    )
    look = Look()

    Watch({"mend": MEND})._call_off_overtaken(asked, [ATTEMPT], look)

    ((run_id, state),) = asked.shown
    assert (run_id, state.type) == ("overtaken", StateType.CANCELLED)
    assert [row["run"] for row in look.mended] == ["overtaken"]

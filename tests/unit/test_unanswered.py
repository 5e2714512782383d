"""Questions that nobody answered in time, as the watch tells of them."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from operate.alerts.calling_off import Found, call_off
from operate.alerts.prefect_runs import Standing
from operate.approving import Consent, question_of, say
from operate.orphans.attempts import AttemptReader
from operate.orphans.command import exit_code_of
from operate.orphans.watch import Watch
from recovery.errors import Refused
from recovery.evidence.status import status_of
from recovery.evidence.telling import read_evidence
from recovery.journal.consents import Asked
from recovery.journal.events import Kind
from recovery.journal.history import read_history
from recovery.journal.opening import open_journal
from recovery.journal.sqlite_store import SqliteJournal
from recovery.journal.store import LeaseLost

RECOVERY, RUN_ID = "00000000c0de", "01900000-0000-7000-8000-00000000c0de"


@pytest.fixture
def journal(tmp_path, monkeypatch):
    monkeypatch.setenv("RECOVER_JOURNAL", str(tmp_path / "journal.sqlite"))
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    journal = open_journal()
    yield journal
    journal.close()


def told_by(looks=1):
    """What two watches tell of, and what the last look saw."""
    told = []
    watches = [Watch({}, notify=lambda text, facts: told.append((text, facts))) for _ in "ab"]
    for _ in range(looks):
        seen = [watch.look() for watch in watches]
    for watch in watches:
        watch.close()
    return told, seen


def ask(journal, *, hours, n=1, **more):
    """An attempt that asks, and ends with that."""
    until = (datetime.now(UTC) + timedelta(hours=hours)).isoformat(timespec="seconds")
    asked = Asked(key=f"approval-{n}", plan_hash="ab12", flow_run_id=RUN_ID, until=until, **more)
    lease = journal.take_lease("db", RECOVERY, "host:7", 30.0)
    if n == 1:
        opened = {"flow": "mend", "target": "db", "parameters": {}, "flow_run_id": RUN_ID}
        journal.append(RECOVERY, Kind.OPENED, opened, lease=lease)
    started = {"flow_run_id": RUN_ID, "run_state_id": "s1", "worker": "host:7", "goes": "forward"}
    for kind, body in (
        (Kind.ATTEMPT_STARTED, started),
        (Kind.ASKED, asked.as_plain()),
        (Kind.ATTEMPT_ENDED, {"as": "needs-person", "error": "", "error_type": "NeedsPerson"}),
    ):
        journal.append(RECOVERY, kind, body, attempt=n, lease=lease)
    journal.release_lease(lease)
    return asked


def test_it_is_told_once_by_whichever_watch_with_what_to_type(journal):
    ask(journal, hours=-1)

    told, seen = told_by(looks=3)
    again, _ = told_by()

    ((text, facts),) = told
    assert "nobody answered whether plan ab12 of mend on db may go ahead" in text
    assert f"`recover resume {RECOVERY}`" in text
    assert (facts["occasion"], facts["run"]) == ("failed", RUN_ID)
    assert again == []
    kinds = [event.kind for event in journal.events(RECOVERY)]
    assert kinds.count(Kind.UNANSWERED) == 1
    assert exit_code_of(seen[0]) == 0


def test_one_that_may_still_be_answered_is_not_told(journal):
    ask(journal, hours=1)

    assert told_by()[0] == []


def test_a_run_is_known_to_wait_until_its_question_has_its_answer(journal):
    asked = ask(journal, hours=1)
    (before,), _ = AttemptReader().read(journal)
    given = {"key": asked.key, "hash": "ab12", "by": "Ada", "until": asked.until}
    journal.append(RECOVERY, Kind.APPROVED, {**given, "flow_run_id": RUN_ID})
    (after,), _ = AttemptReader().read(journal)

    assert (before.asks, after.asks) == (True, False)
    assert before.ended_at


def test_one_for_which_no_run_waits_is_not_told(journal):
    asked = Asked(key="approval-1", plan_hash="ab12", flow_run_id=RUN_ID)
    ask(journal, hours=-1)
    journal.append(RECOVERY, Kind.ASKED, asked.as_plain(), attempt=1)

    assert told_by()[0] == []


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (Kind.REJECTED, {"hash": "ab12", "by": "Ada", "reason": "not now"}),
        (Kind.APPROVED, {"key": "approval-1", "hash": "ab12", "by": "Ada", "until": "2099-01-01"}),
        (Kind.ATTEMPT_STARTED, {"flow_run_id": RUN_ID, "worker": "host:8", "goes": "forward"}),
    ],
)
def test_one_that_was_answered_or_taken_up_is_not_told(journal, kind, body):
    ask(journal, hours=-1)
    journal.append(RECOVERY, kind, body, attempt=2)

    assert [text for text, _ in told_by()[0] if "nobody answered" in text] == []


def test_one_that_is_asked_anew_is_told_anew(journal):
    ask(journal, hours=-2)
    first, _ = told_by()
    ask(journal, hours=-1, n=2, goes_back=True)

    second, _ = told_by()

    assert [len(first), len(second)] == [1, 1]
    assert "the way back of mend" in second[0][0]
    order = f"`recover undo {RECOVERY} --by NAME --worker`"
    assert order in second[0][0]
    assert status_of(journal, RECOVERY)["next"] == f"nobody answered in time: {order} asks anew"
    assert question_of(journal, RECOVERY)["next"] == order


def test_what_nobody_answered_is_asked_anew_by_a_resume(journal):
    ask(journal, hours=-1)

    shown = question_of(journal, RECOVERY)

    resume = f"`recover resume {RECOVERY}`"
    assert status_of(journal, RECOVERY)["next"] == f"nobody answered in time: {resume} asks anew"
    assert (shown["why"], shown["next"]) == ("nobody answered in time", resume)


def test_what_is_approved_is_not_asked_for_any_more(journal):
    ask(journal, hours=1)
    before = status_of(journal, RECOVERY)["next"]
    given = {"hash": "ab12", "by": "Ada", "until": "2099-01-01T00:00:00+00:00", "how": "approved"}
    journal.append(RECOVERY, Kind.APPROVED, {**given, "through": "command"})

    shown = question_of(journal, RECOVERY)

    resume = f"`recover resume {RECOVERY}`"
    assert f"`recover approve {RECOVERY} --plan ab12 --by NAME`" in before
    assert "it is approved and goes on by itself" in status_of(journal, RECOVERY)["next"]
    assert (shown["given"], shown["why"]) == (["Ada"], "what was asked is approved")
    assert shown["next"] == resume


def test_the_question_of_a_run_that_was_called_off_is_taken_back(journal):
    ask(journal, hours=1)
    kept = SimpleNamespace(parameters={}, flow_run_id=RUN_ID)

    assert call_off(kept, Standing("PAUSED", "Suspended", is_final=False)) is Found.CALLED_OFF

    told = status_of(journal, RECOVERY)["next"]
    assert told.startswith("nothing: it was called off before it changed anything (its alert was")
    assert "--approve" not in told
    assert status_of(journal, RECOVERY)["state"] == "called-off"
    shown = question_of(journal, RECOVERY)
    assert (shown["is_asked"], shown["until"]) == (False, "")
    assert shown["why"].startswith("it was called off: its alert was resolved")
    with pytest.raises(Refused, match="was called off"):
        say(journal, RECOVERY, Consent("ab12", "Ada"))


def test_one_that_was_called_off_is_to_be_answered_again_after_a_retry(journal):
    ask(journal, hours=1)
    kept = SimpleNamespace(parameters={}, flow_run_id=RUN_ID)
    for _ in range(2):
        assert call_off(kept, Standing("PAUSED", "Suspended", is_final=False)) is Found.CALLED_OFF

    ask(journal, hours=1, n=2)

    assert f"`recover approve {RECOVERY} --plan ab12" in status_of(journal, RECOVERY)["next"]
    kinds = [event.kind for event in journal.events(RECOVERY)]
    assert kinds.count(Kind.DISREGARDED) == 1


def test_one_that_was_called_off_before_it_asked_says_so(journal):
    opened = {"flow": "mend", "target": "db", "parameters": {}, "flow_run_id": RUN_ID}
    lease = journal.take_lease("db", RECOVERY, "host:7", 30.0)
    journal.append(RECOVERY, Kind.OPENED, opened, lease=lease)
    started = {"flow_run_id": RUN_ID, "worker": "host:7", "goes": "forward"}
    journal.append(RECOVERY, Kind.ATTEMPT_STARTED, started, attempt=1, lease=lease)
    kept = SimpleNamespace(parameters={}, flow_run_id=RUN_ID)

    assert call_off(kept, Standing("RUNNING", "Running", is_final=False)) is Found.CALLED_OFF

    assert status_of(journal, RECOVERY)["next"].startswith("nothing: it was called off")
    (said,) = read_evidence(journal, RECOVERY).people
    assert (
        said.note == "by the receiver of alerts: its alert was resolved, and its run is cancelled"
    )


def begins_meanwhile(journal, monkeypatch):
    """A person's resume that begins when the right to act is taken, before that is noted."""
    withdraw, leases = SqliteJournal.withdraw, []

    def then_resume(*asked):
        is_taken = withdraw(*asked)
        leases.append(journal.take_lease("db", RECOVERY, "host:8", 30.0))
        started = {"flow_run_id": "hers", "worker": "host:8", "goes": "forward"}
        journal.append(RECOVERY, Kind.ATTEMPT_STARTED, started, attempt=2, lease=leases[0])
        return is_taken

    monkeypatch.setattr(SqliteJournal, "withdraw", then_resume)
    return leases


def test_a_resume_that_begins_meanwhile_is_not_told_as_called_off(journal, monkeypatch):
    ask(journal, hours=1)
    leases = begins_meanwhile(journal, monkeypatch)
    kept = SimpleNamespace(parameters={}, flow_run_id=RUN_ID)
    until = (datetime.now(UTC) + timedelta(hours=1)).isoformat()

    assert call_off(kept, Standing("PAUSED", "Suspended", is_final=False)) is Found.CALLED_OFF
    said = {"hash": "ab12", "by": "Ada", "until": until, "how": "approved"}
    journal.append(RECOVERY, Kind.APPROVED, said)
    (lease,) = leases
    journal.append(RECOVERY, Kind.INTENDED, {}, step="load", attempt=2, lease=lease)
    journal.append(RECOVERY, Kind.ATTEMPT_ENDED, {"as": "recovered"}, attempt=2, lease=lease)
    journal.release_lease(lease)

    history = read_history(journal.events(RECOVERY))
    assert status_of(journal, RECOVERY)["state"] == "recovered"
    assert [one.by for one in history.consents.standing("ab12")] == ["Ada"]


def test_an_attempt_that_gets_in_just_before_its_right_is_taken_is_called_off(journal, monkeypatch):
    """Goal: what is fenced for a resolved alert is told as called off, and is no orphan.

    Method: the run has opened its journal, and begins its attempt between the look and the taking.
    """
    withdraw = SqliteJournal.withdraw
    lease = journal.take_lease("db", RECOVERY, "host:7", 30.0)
    opened = {"flow": "mend", "target": "db", "parameters": {}, "flow_run_id": RUN_ID}
    journal.append(RECOVERY, Kind.OPENED, opened, lease=lease)

    def begin_first(*asked):
        started = {"flow_run_id": RUN_ID, "worker": "host:7", "goes": "forward"}
        journal.append(RECOVERY, Kind.ATTEMPT_STARTED, started, attempt=1, lease=lease)
        return withdraw(*asked)

    monkeypatch.setattr(SqliteJournal, "withdraw", begin_first)
    kept = SimpleNamespace(parameters={}, flow_run_id=RUN_ID)

    found = call_off(kept, Standing("CANCELLING", "Cancelling", is_final=False))

    assert found is Found.CALLED_OFF
    with pytest.raises(LeaseLost):
        journal.append(RECOVERY, Kind.INTENDED, {}, step="load", attempt=1, lease=lease)
    assert status_of(journal, RECOVERY)["state"] == "called-off"
    assert AttemptReader().read(journal)[1] == []


@pytest.mark.parametrize("kind", [Kind.INTENDED, Kind.UNDO_INTENDED, Kind.ATTEMPT_ENDED])
def test_what_has_acted_or_ended_was_not_called_off_whatever_an_older_release_wrote(journal, kind):
    ask(journal, hours=1)
    said = {"by": "the receiver of alerts", "why": "it was resolved", "called_off": True}
    journal.append(RECOVERY, Kind.DISREGARDED, said)
    before = read_history(journal.events(RECOVERY)).called_off
    journal.append(RECOVERY, kind, {"as": "failed"}, step="load", attempt=1)

    assert (before, read_history(journal.events(RECOVERY)).called_off) == ("it was resolved", "")


def test_the_right_to_act_of_an_attempt_that_is_just_beginning_is_looked_at_again(journal):
    ask(journal, hours=1)
    journal.take_lease("db", RECOVERY, "host:8", 30.0)
    kept = SimpleNamespace(parameters={}, flow_run_id=RUN_ID)

    found = call_off(kept, Standing("PAUSED", "Suspended", is_final=False))

    assert found is Found.UNSETTLED
    assert not read_history(journal.events(RECOVERY)).called_off


@pytest.mark.parametrize("said_first", [True, False])
def test_a_consent_does_not_outlive_that_it_was_called_off(journal, said_first):
    ask(journal, hours=1)
    kept = SimpleNamespace(parameters={}, flow_run_id=RUN_ID)
    until = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    approved = {"hash": "ab12", "by": "Ada", "until": until, "how": "approved"}
    steps = [
        lambda: journal.append(RECOVERY, Kind.APPROVED, approved),
        lambda: call_off(kept, Standing("PAUSED", "Suspended", is_final=False)),
    ]
    for step in steps if said_first else reversed(steps):
        step()

    history = read_history(journal.events(RECOVERY))

    assert history.called_off
    assert history.consents.standing("ab12") == []


def test_one_that_has_come_to_an_end_by_itself_is_told_as_that(journal):
    ask(journal, hours=1)
    started = {"flow_run_id": RUN_ID, "worker": "host:7", "goes": "forward"}
    journal.append(RECOVERY, Kind.ATTEMPT_STARTED, started, attempt=2)
    ended = {"as": "refused", "error": "refused on db: no room"}
    journal.append(RECOVERY, Kind.ATTEMPT_ENDED, ended, attempt=2)
    kept = SimpleNamespace(parameters={}, flow_run_id=RUN_ID)

    assert call_off(kept, Standing("RUNNING", "Running", is_final=False)) is Found.CALLED_OFF

    assert status_of(journal, RECOVERY)["state"] == "refused"

"""What `recover status` and `recover journal verify` say of journals as attempts write them."""

import re

import pytest

from recovery.errors import BadInput
from recovery.evidence.status import all_statuses, status_of, verify_journal
from recovery.journal.events import Kind
from recovery.journal.sqlite_store import SqliteJournal
from tests.unit.journals import (
    RECOVERY,
    TARGET,
    Clock,
    Writer,
    changed,
    killed_and_resumed,
    killed_in_doubt,
)


@pytest.fixture
def journal(tmp_path):
    opened = SqliteJournal(tmp_path / "journal.sqlite")
    opened._connection.execute("pragma synchronous = off")  # hundreds of events, quickly
    yield opened
    opened.close()


@pytest.fixture
def writer(journal, monkeypatch):
    return Writer(journal, Clock(monkeypatch))


def states(status):
    return {step["key"]: step["state"] for step in status["steps"]}


def test_a_status_begins_with_the_fields_that_were_promised(journal, writer):
    killed_and_resumed(writer)

    status = status_of(journal, RECOVERY)

    assert list(status)[:6] == ["id", "flow", "target", "state", "attempts", "steps"]
    assert list(status["attempts"][0])[:6] == [
        "n",
        "flow_run_id",
        "epoch",
        "started_at",
        "ended_at",
        "ended_as",
    ]
    assert list(status["steps"][0])[:8] == [
        "key",
        "kind",
        "target",
        "state",
        "attempt",
        "started_at",
        "ended_at",
        "verdict",
    ]


def test_a_recovery_that_was_killed_and_resumed_is_told_from_its_first_attempt_on(journal, writer):
    killed_and_resumed(writer)

    status = status_of(journal, RECOVERY)

    assert status["state"] == "recovered"
    assert [each["ended_as"] for each in status["attempts"]] == [
        "lost",
        "needs-person",
        "recovered",
    ]
    assert states(status) == {
        "refuse_if_target_is_foreign": "done",
        "tables_due": "done",
        "make_database": "already-so",
        "back_up_target": "done",
        "load[org]": "done",
        "load[dashboard]": "done",
        "load[user]": "done",
        "wait_until_every_cell_is_equal": "done",
    }
    assert status["next"].startswith("nothing")


def test_what_a_recovery_leaves_to_a_person_is_what_to_do_next(journal, writer):
    writer.open().start()
    writer.end("recovered", result={"cells": 60, "left_to_person": ["start Grafana", "look at it"]})

    status = status_of(journal, RECOVERY)

    assert status["state"] == "recovered"
    assert status["next"] == (
        "this is left to a person (docs/runbooks/grafana-to-mysql.md): "
        "start Grafana; then look at it"
    )


def test_a_recovery_that_leaves_nothing_to_a_person_says_so(journal, writer):
    writer.open().start()
    writer.end("recovered", result={"cells": 60, "left_to_person": []})

    assert status_of(journal, RECOVERY)["next"] == "nothing: it is recovered"


def test_an_attempt_at_work_is_running_and_its_step_intended(journal, writer):
    writer.open().start().intend("load[user]")

    status = status_of(journal, RECOVERY)

    assert status["state"] == "running"
    assert states(status) == {"load[user]": "intended"}
    assert status["attempts"][0]["ended_at"] is status["attempts"][0]["ended_as"] is None


def test_what_was_intended_is_in_doubt_once_the_lease_is_gone(journal, writer):
    killed_in_doubt(writer)

    status = status_of(journal, RECOVERY)

    assert status["state"] == "failed"
    assert states(status)["load[user]"] == "in-doubt"
    assert status["attempts"][0]["ended_as"] == "lost"
    assert "recover resume" in status["next"]


def test_an_attempt_is_lost_when_a_newer_one_holds_the_lease(journal, writer):
    killed_in_doubt(writer)
    journal.take_lease(TARGET, RECOVERY, "worker-2:7", 15)

    status = status_of(journal, RECOVERY)

    assert status["state"] == "running"
    assert status["attempts"][0]["ended_as"] == "lost"
    assert states(status)["load[user]"] == "in-doubt"


def test_a_lost_attempt_ended_when_it_was_last_heard_of(journal, writer):
    writer.open().start().act("load[org]", seconds=2)
    heard_at = writer.clock.text
    writer.kill()
    writer.clock.pass_seconds(3600)

    assert status_of(journal, RECOVERY)["attempts"][0]["ended_at"] == heard_at

    writer.start()

    assert status_of(journal, RECOVERY)["attempts"][0]["ended_at"] == heard_at


def test_a_doubt_that_a_person_must_settle_is_next_with_the_command_for_it(journal, writer):
    writer.open().start().intend("load[it's]")
    writer.write(Kind.VERDICT, {"verdict": "unknown", "was": "in-doubt"}, "load[it's]")
    writer.end("needs-person", "in doubt")

    status = status_of(journal, RECOVERY)

    assert status["state"] == "needs-person"
    assert f"""recover resolve {RECOVERY} 'load[it'"'"'s]' --as""" in status["next"]


def test_a_plan_nobody_approved_is_next_with_its_hash(journal, writer):
    writer.open().start()
    writer.write(Kind.PLANNED, {"hash": "cafe", "refusals": [], "steps": []})
    writer.end("needs-person", "nobody has approved it")

    assert f"recover resume {RECOVERY} --approve cafe" in status_of(journal, RECOVERY)["next"]


def test_a_guard_that_refused_is_failed_and_its_verdict_says_why(journal, writer):
    writer.open().start()
    writer.look("refuse_if_target_is_foreign", Kind.REFUSED, reason="it is another installation's")
    writer.end("refused", "refused")

    status = status_of(journal, RECOVERY)

    assert status["state"] == "refused"
    assert status["steps"][0]["state"] == "failed"
    assert status["steps"][0]["verdict"] == "refused"
    assert status["steps"][0]["error"] == "it is another installation's"


@pytest.mark.parametrize(
    ("error", "ended_as", "next_word"),
    [("", "undone", "nothing"), ("no route to host", "needs-person", "recover undo")],
)
def test_a_way_back_is_told_with_what_is_left_of_it(journal, writer, error, ended_as, next_word):
    writer.open().start().act("load[org]")
    writer.end("failed", "no")
    writer.start("back", "Ann").undo("load[org]", error)
    writer.end(ended_as, error)

    status = status_of(journal, RECOVERY)

    assert status["state"] == ended_as
    assert next_word in status["next"]
    assert status["steps"][0]["undo"] == ("failed" if error else "done")


def test_a_way_back_that_was_lost_is_gone_on_with_as_a_way_back(journal, writer):
    writer.open().start().act("load[org]")
    writer.end("failed", "no")
    writer.start("back", "Ann").kill()

    assert f"recover undo {RECOVERY}" in status_of(journal, RECOVERY)["next"]


def test_an_abandoned_recovery_is_not_to_be_resumed(journal, writer):
    killed_in_doubt(writer)
    writer.n = 0
    writer.resolve("load[user]", "abandon")

    status = status_of(journal, RECOVERY)

    assert status["abandoned_by"] == "Ben"
    assert "resume" not in status["next"]


def test_a_target_that_another_recovery_holds_is_waited_for(journal, writer):
    killed_in_doubt(writer)
    Writer(journal, writer.clock, "cccccccccccc").open().start()

    assert "wait for recovery cccccccccccc" in status_of(journal, RECOVERY)["next"]


def test_a_step_that_is_stale_is_told_as_stale(journal, writer):
    writer.open().start().act("load[org]")
    writer.write(Kind.STALE, {"verdict": "half-done"}, "load[org]")
    writer.end("needs-person", "gone")

    status = status_of(journal, RECOVERY)

    assert states(status) == {"load[org]": "stale"}
    assert "recover resolve" in status["next"]


def test_an_unknown_recovery_is_bad_input(journal):
    with pytest.raises(BadInput, match="no recovery nope"):
        status_of(journal, "nope")
    with pytest.raises(BadInput, match="no recovery nope"):
        verify_journal(journal, "nope")


def test_the_list_has_a_row_for_each_recovery_latest_first(journal, writer):
    killed_and_resumed(writer)
    killed_in_doubt(Writer(journal, writer.clock, "cccccccccccc", "other"))

    rows = all_statuses(journal)

    assert [row["id"] for row in rows] == ["cccccccccccc", RECOVERY]
    assert (rows[1]["state"], rows[1]["attempts"]) == ("recovered", 3)
    assert (rows[1]["steps_done"], rows[1]["steps"]) == (8, 8)
    assert (rows[0]["steps_done"], rows[0]["steps"]) == (1, 2)
    assert all_statuses(journal, limit=1) == rows[:1]


def test_an_intact_journal_has_no_flaws(journal, writer):
    killed_and_resumed(writer)

    assert verify_journal(journal) == {RECOVERY: []}
    assert verify_journal(journal, RECOVERY) == {RECOVERY: []}


@pytest.mark.parametrize(
    ("statement", "named"),
    [
        ('update events set body = \'{"as":"recovered"}\' where seq = 5', "event 5 (.*) changed"),
        ("update events set body = 'no json' where seq = 5", "event 5 (.*) changed"),
        ("delete from events where seq = 7", "event 7 is missing"),
        ("delete from events where seq = (select max(seq) from events)", "ends at event"),
        ("delete from events", "ends at event 0"),
    ],
)
def test_a_journal_that_was_changed_is_found(journal, writer, statement, named):
    killed_and_resumed(writer)
    with changed(journal) as store:
        store.execute(statement)

    found = verify_journal(journal)

    assert any(re.search(named, flaw) for flaw in found[RECOVERY]), found


def test_a_status_can_be_told_from_a_body_that_was_made_unreadable(journal, writer):
    killed_and_resumed(writer)
    with changed(journal) as store:
        store.execute("update events set body = '[1' where seq = 8")

    assert status_of(journal, RECOVERY)["state"] == "recovered"

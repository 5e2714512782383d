"""What is done, passed over, asked again or left to a person, on the way forward."""

import pytest

from recovery.commands import changing
from recovery.errors import (
    CommandFailed,
    NeedsPerson,
    NotVerified,
    Refused,
    Unreachable,
)
from recovery.journal.events import Kind
from recovery.journal.store import JournalUnavailable
from recovery.plan import as_markdown
from recovery.steps import probe, verify
from recovery.verdict import Danger, Verdict
from tests.unit.engine_lab import down, fails_once
from tests.unit.engine_lab import lab as lab  # noqa: PLC0414 (the fixture)


def test_a_second_run_of_the_same_flow_changes_nothing(lab):
    one = lab.make("one")

    first, second = lab.run(one), lab.run(one)

    assert (first.state, second.state) == ("recovered", "recovered")
    assert lab.done == ["one"]
    assert lab.history(second.recovery_id).steps["one"].state == "already-so"


def test_what_many_steps_would_be_refused_for_is_told_once_and_counted(lab):
    @probe
    def refuse_if_full() -> None:
        raise Refused("lab", "the disk is full", "Make room")

    def is_short(n=""):
        raise Refused("lab", "a cell is too long", "Mend it")

    load = lab.make("load", refuse_if=[is_short], each="n")

    def flow():
        refuse_if_full()
        for n in "abcd":
            load(n)

    planned = lab.run(flow, plan_only=True).plan
    refused = lab.run(flow, danger=Danger.DESTRUCTIVE)

    assert planned.as_plain()["refusals"] == [
        "refused on lab: the disk is full. Make room.",
        "refused on lab: a cell is too long. Mend it. The same of 3 more steps.",
    ]
    assert as_markdown(planned).count("a cell is too long") == 1
    assert str(refused.error).count("a cell is too long") == 1


def test_done_steps_are_passed_over_and_stale_ones_done_again_before_anything_new(lab):
    one, two, three, check = lab.make("one"), lab.make("two"), lab.make("three"), fails_once(down())

    def flow():
        one(), two(), check(), three()

    first = lab.run(flow)
    lab.there.discard("one")
    second = lab.run(flow, resume=first.recovery_id)

    assert (first.state, second.state) == ("failed", "recovered")
    assert lab.done == ["one", "two", "one", "three"]


def test_a_guard_is_asked_again_where_an_act_before_it_was_stale_and_done_again(lab):
    refusals, late = [Refused("lab", "somebody started it", "Resume")], []
    stop = lab.make("stop")

    @verify
    def is_stopped() -> None:
        if late:
            raise late.pop()

    @probe
    def refuse_if_used() -> None:
        if lab.answers.get("used"):
            raise Refused("lab", "it was used since", "Look who uses it")

    def not_yet():
        if refusals:
            raise refusals.pop()

    erase = lab.make("erase", refuse_if=[not_yet])

    def flow():
        stop(), is_stopped(), refuse_if_used(), erase()

    first = lab.run(flow)
    lab.there.discard("stop")  # somebody started it again, and used it
    lab.answers["used"] = True
    late.append(down())
    second = lab.run(flow, resume=first.recovery_id)
    third = lab.run(flow, resume=first.recovery_id)

    assert [run.state for run in (first, second, third)] == ["refused", "failed", "refused"]
    assert "used since" in str(third.error)
    assert lab.done == ["stop", "stop"]


def test_a_guard_is_not_asked_again_behind_an_act_that_came_after_it(lab):
    asked = []
    one, two, check = lab.make("one"), lab.make("two"), fails_once(down())

    @probe
    def refuse_if_two_is_there() -> None:
        asked.append("two" in lab.there)
        if asked[-1]:
            raise Refused("lab", "two is there", "See")

    def flow():
        one(), refuse_if_two_is_there(), two(), check()

    first = lab.run(flow)
    lab.there.discard("one")
    second = lab.run(flow, resume=first.recovery_id)

    assert second.state == "recovered", second.error
    assert not any(asked)


def test_a_stale_step_that_must_not_be_redone_needs_a_person_each_time_until_one_settles_it(lab):
    one, check = lab.make("one", redo_stale=False), fails_once(down())

    def flow():
        one(), check()

    first = lab.run(flow)
    lab.there.clear()
    for _ in range(2):
        again = lab.run(flow, resume=first.recovery_id)
        assert isinstance(again.error, NeedsPerson)
        assert lab.done == ["one"]
    lab.resolve(first.recovery_id, "one", "redo")
    assert lab.run(flow, resume=first.recovery_id).state == "recovered"
    assert lab.done == ["one", "one"]


def test_a_staleness_probe_that_nobody_answers_is_asked_again_and_never_left_out(lab):
    one, two, check = lab.make("one"), lab.make("two"), fails_once(down())

    def flow():
        one(), check(), two()

    first = lab.run(flow)
    lab.there.clear()
    lab.answers["one"] = Unreachable("lab", "one", "silence")
    second = lab.run(flow, resume=first.recovery_id)
    assert isinstance(second.error, Unreachable)
    assert lab.done == ["one"]

    lab.answers.clear()
    assert lab.run(flow, resume=first.recovery_id).state == "recovered"
    assert lab.done == ["one", "one", "two"]


def test_a_step_that_ends_anothers_effect_ends_its_check_from_its_beginning_on(lab):
    down_, up = lab.make("down", lasts_until="up"), lab.make("up")
    lab.answers["up"] = None

    def fail():
        raise CommandFailed("lab", "up", 1, "half way")

    up.fn = lambda n="": (lab.there.discard("down"), fail())

    def flow():
        down_(), up()

    first = lab.run(flow)
    up.fn = lambda n="": lab.there.add("up")
    second = lab.run(flow, resume=first.recovery_id)

    assert (first.state, second.state) == ("failed", "recovered")
    assert lab.done == ["down"]


def test_a_verification_before_a_step_that_was_redone_is_made_again(lab):
    one, two, seen, check = lab.make("one"), lab.make("two"), [], fails_once(down())

    @verify
    def wait_for_one() -> None:
        seen.append(sorted(lab.there))

    def flow():
        one(), wait_for_one(), two(), check()

    first = lab.run(flow)
    lab.there.discard("one")
    lab.run(flow, resume=first.recovery_id)

    assert seen == [["one"], ["one", "two"]]


@pytest.mark.parametrize("verdict", [Verdict.UNKNOWN, Verdict.HALF_DONE])
def test_a_new_act_found_unclear_needs_a_person_who_can_settle_it(lab, verdict):
    one = lab.make("one")
    lab.answers["one"] = verdict

    first = lab.run(one)
    lab.resolve(first.recovery_id, "one", "done")
    second = lab.run(one, resume=first.recovery_id)

    assert isinstance(first.error, NeedsPerson)
    assert second.state == "recovered"
    assert lab.done == []


def test_an_abandoned_recovery_is_not_resumed(lab):
    check = fails_once(down())
    first = lab.run(check)
    lab.resolve(first.recovery_id, "wait_until_well", "abandon")

    assert isinstance(lab.run(check, resume=first.recovery_id).error, Refused)


def test_an_act_whose_answer_was_lost_is_asked_about_before_it_is_done_again(lab):
    one = lab.make("one")
    do, tries = one.fn, []

    def answer_lost(n=""):
        tries.append(n)
        do(n)
        raise Unreachable("lab", "one", "connection reset")

    one.fn = answer_lost

    ended = lab.run(one)

    assert ended.state == "recovered"
    assert len(tries) == 1
    assert lab.history(ended.recovery_id).steps["one"].state == "done"


def test_an_act_without_effect_is_not_verified_and_is_in_doubt(lab):
    one = lab.make("one")
    one.fn = lambda n="": None

    ended = lab.run(one)

    assert isinstance(ended.error, NotVerified)
    assert lab.history(ended.recovery_id).steps["one"].state == "failed"


def test_an_act_sends_no_command_that_its_plan_does_not_show(lab):
    one = lab.make("one", commands=lambda: ["make something else"])

    ended = lab.run(one)

    assert isinstance(ended.error, Refused)
    assert lab.done == []


def test_a_look_that_changes_something_is_stopped(lab):
    @probe
    def meddle() -> str:
        with changing("rm", "lab"):
            lab.done.append("rm")
        return ""

    assert "only looks" in str(lab.run(meddle).error)
    assert lab.done == []


def test_nothing_is_done_when_the_journal_cannot_be_written(lab, monkeypatch):
    from recovery.journal.sqlite_store import SqliteJournal  # noqa: PLC0415

    one, append = lab.make("one"), SqliteJournal.append

    def full(self, recovery_id, kind, body, **options):
        if kind == Kind.INTENDED:
            raise JournalUnavailable("here", "disk full")
        return append(self, recovery_id, kind, body, **options)

    monkeypatch.setattr(SqliteJournal, "append", full)

    assert isinstance(lab.run(one).error, JournalUnavailable)
    assert lab.done == []

"""Plans, the consent to them, and forks of what was planned otherwise."""

import threading

import pytest

from recovery.commands import changing
from recovery.errors import (
    CommandFailed,
    Fenced,
    NeedsPerson,
    Refused,
    Unreachable,
)
from recovery.steps import act, decision, probe, verify
from recovery.verdict import Danger
from tests.unit.engine_lab import down, fails_once
from tests.unit.engine_lab import lab as lab  # noqa: PLC0414 (the fixture)


def test_a_fork_reuses_up_to_the_first_change_and_keeps_what_is_in_doubt(lab):
    one = lab.make("one", each=("n",))
    blind = lab.make("blind", done_when=None, without_probe="nothing to look at")
    blind.fn = lambda n="": (lab.done.append("blind"), down_now())

    def down_now():
        raise down()

    def flow(n):
        one("a"), one(n), one("z"), blind()

    first = lab.run(flow, parameters={"n": "b"})
    forked = lab.run(flow, parameters={"n": "c"}, resume=first.recovery_id, fork=True)

    assert (first.state, forked.state) == ("failed", "needs-person")
    assert lab.done == ["onea", "oneb", "onez", "blind", "onec"]
    difference = lab.history(forked.recovery_id).forked_from
    assert difference["reused"] == ["one[a]"]
    assert difference["changed"] == {"n": ["b", "c"]}
    assert difference["redone"] == ["one[c]", "one[z]", "blind"]


def test_a_fork_of_a_fork_reuses_what_carries_the_id_of_the_first(lab):
    check, used = [down(), down(), down()], []

    @act(
        commands=lambda: ["dump"],
        done_when=lambda: "dump" in lab.there,
        expected=lambda: f"/backup/{current()}",
    )
    def dump() -> str:
        from recovery.walk import current_fence  # noqa: PLC0415

        with changing("dump", "lab"):
            lab.there.add("dump")
        return f"/backup/{current_fence().recovery_id}"

    def current():
        from recovery.walk import current_fence  # noqa: PLC0415

        return current_fence().recovery_id

    load = lab.make("load", each=("n",), done_when=lambda n: "load" in lab.there)
    load.fn = lambda n: (used.append(n), lab.there.add("load"))

    @verify
    def wait() -> None:
        if check:
            raise check.pop()

    def flow():
        load(dump()), wait()

    first = lab.run(flow)
    second = lab.run(flow, resume=first.recovery_id, fork=True)
    third = lab.run(flow, resume=second.recovery_id, fork=True)
    last = lab.run(flow, resume=third.recovery_id)

    assert last.state == "recovered", last.error
    assert used == [f"/backup/{first.recovery_id}"]
    assert lab.history(third.recovery_id).forked_from["reused"] == [
        "dump",
        f"load[/backup/{first.recovery_id}]",
    ]


def test_mapped_steps_wait_for_the_staleness_of_all_before_any_acts(lab):
    one, many, check = lab.make("one", redo_stale=False), lab.make("many"), fails_once(down())

    def flow():
        one(), check(), many.over(range(1, 6))

    first = lab.run(flow)
    lab.there.clear()
    second = lab.run(flow, resume=first.recovery_id)

    assert isinstance(second.error, NeedsPerson)
    assert lab.done == ["one"]


def test_a_mapped_step_is_one_key_for_each_target_side_by_side(lab):
    together = threading.Barrier(3, timeout=20)
    many = lab.make("many")
    do = many.fn
    many.fn = lambda n="": (together.wait(), do(n))

    ended = lab.run(lambda: many.over(["a", "b", "c"]))

    assert ended.state == "recovered"
    assert set(lab.history(ended.recovery_id).steps) == {"many[a]", "many[b]", "many[c]"}


def test_a_plan_has_the_same_hash_whoever_makes_it_and_changes_nothing(lab):
    many = lab.make("many", danger=Danger.DESTRUCTIVE)

    def flow():
        many.over(["c", "a", "b"])

    plans = [lab.run(flow, plan_only=True, danger=Danger.DESTRUCTIVE).plan for _ in range(5)]

    assert len({plan.hash for plan in plans}) == 1
    assert [step.key for step in plans[0].steps] == ["many[c]", "many[a]", "many[b]"]
    assert lab.done == []


def test_a_plan_tells_what_its_looks_found_and_has_the_hash_of_its_acts_alone(lab):
    seen = iter(["not-running", "stopped"])

    @decision
    def cure_due() -> dict[str, str]:
        return {"finding": next(seen)}

    start = lab.make("start")

    def flow():
        cure_due(), start()

    first, second = (lab.run(flow, plan_only=True).plan for _ in range(2))

    assert first.as_plain()["steps"][0]["found"] == "finding: not-running"
    assert second.as_plain()["steps"][0]["found"] == "finding: stopped"
    assert first.hash == second.hash
    assert "found" not in first.as_plain()["steps"][1]


def test_what_is_asked_again_is_told_shortly(lab, caplog):
    answers = iter([Unreachable("db1", "log in", "no route"), None])

    @probe
    def look() -> int:
        if (error := next(answers)) is not None:
            raise error
        return 5

    ended = lab.run(look)

    assert ended.state == "recovered"
    assert "look: db1: no route; asked again in 0 s" in caplog.text


def test_a_destructive_recovery_waits_for_the_consent_to_its_plan_and_to_no_other(lab):
    many = lab.make("many", each=("n",), danger=Danger.DESTRUCTIVE)
    names = ["a"]

    def flow():
        for name in names:
            many(name)

    def run(**options):
        return lab.run(flow, danger=Danger.DESTRUCTIVE, **options)

    first = run()
    (plan_hash,) = {lab.history(first.recovery_id).plan["hash"]}
    names.append("b")
    changed = run(resume=first.recovery_id, approve=plan_hash)
    names.pop()
    approved = run(resume=first.recovery_id, approve=plan_hash, approved_by="ann")

    assert isinstance(first.error, NeedsPerson)
    assert isinstance(changed.error, NeedsPerson)
    assert "many[b] was None, is now ['make manyb']" in str(changed.error)
    assert approved.state == "recovered", approved.error
    assert lab.history(first.recovery_id).approvals[0].by == "ann"


def test_an_act_whose_command_is_not_the_approved_one_is_refused(lab):
    wording = ["make one"]
    zero = lab.make("zero", danger=Danger.DESTRUCTIVE)
    one = lab.make("one", danger=Danger.DESTRUCTIVE, commands=lambda n="": list(wording))

    @probe
    def reword() -> int:
        if lab.done:
            wording[0] = "make something else"
        return len(lab.done)

    def flow():
        zero(), reword(), one()

    plan_hash = lab.run(flow, plan_only=True, danger=Danger.DESTRUCTIVE).plan.hash
    ended = lab.run(flow, danger=Danger.DESTRUCTIVE, approve=plan_hash)

    assert isinstance(ended.error, Refused)
    assert "differs from the approved plan" in str(ended.error)
    assert lab.done == ["zero"]


@pytest.mark.parametrize("when", ["before the intent", "before the command"])
def test_an_attempt_that_wakes_up_past_its_lease_sends_nothing(lab, monkeypatch, when):
    """A paused process finds by its own clock that its lease ran out; no server tells it."""

    def sleep_long():
        monkeypatch.setattr("recovery.journal.lease.boot_clock", lambda: float("inf"))

    one = lab.make("one")
    if when == "before the intent":
        flow = lambda: (sleep_long(), one())  # noqa: E731 (as short as it is)
    else:
        change = one.fn
        one.fn = lambda n="": (sleep_long(), change(n))
        flow = one

    with pytest.raises(Fenced):
        lab.run(flow)

    assert lab.done == []


def test_consent_runs_out_and_a_retry_of_the_same_run_does_not_renew_it(lab, monkeypatch):
    from datetime import UTC, datetime, timedelta  # noqa: PLC0415

    from recovery.journal import consents  # noqa: PLC0415

    one, check = lab.make("one", danger=Danger.DESTRUCTIVE), fails_once(down())
    two = lab.make("two", danger=Danger.DESTRUCTIVE)

    def flow():
        one(), check(), two()

    run_id = "00000000-0000-7000-8000-00000000abcd"
    plan_hash = lab.run(flow, plan_only=True, danger=Danger.DESTRUCTIVE).plan.hash
    first = lab.run(flow, danger=Danger.DESTRUCTIVE, approve=plan_hash, run_id=run_id)
    monkeypatch.setattr(consents, "now", lambda: datetime.now(UTC) + timedelta(hours=25))
    retried = lab.run(flow, danger=Danger.DESTRUCTIVE, approve=plan_hash, run_id=run_id)

    assert isinstance(first.error, CommandFailed)
    assert isinstance(retried.error, NeedsPerson)

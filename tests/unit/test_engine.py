"""The engine's promises for one process: what it looks at, writes, refuses and passes over."""

import contextlib
import threading
from dataclasses import dataclass

import pytest

from recovery.commands import changing, reading
from recovery.errors import (
    BadInput,
    CommandFailed,
    Fenced,
    NeedsPerson,
    NotVerified,
    Refused,
    UndoFailed,
    Unreachable,
)
from recovery.journal.events import Kind, flaws
from recovery.journal.history import read_history
from recovery.journal.opening import open_journal
from recovery.journal.store import JournalUnavailable
from recovery.launch import launch
from recovery.plan import as_markdown
from recovery.run import Options, Recovery
from recovery.secrecy.redaction import isolated_registry
from recovery.secrecy.secret import Secret
from recovery.stage import PlainStage
from recovery.steps import act, decision, probe, undo, verify
from recovery.verdict import Danger, Verdict

NO_DELAY = PlainStage((0.0, 0.0, 0.0))


class Lab:
    """A world of names that are there or not, a flow made of steps on it, and its runs."""

    def __init__(self, path):
        self.path = path
        self.there = set()
        self.done = []
        self.answers = {}
        self.runs = 0

    def verdict(self, name):
        answer = self.answers.get(name)
        if isinstance(answer, Exception):
            raise answer
        return answer if answer is not None else Verdict.of(name in self.there)

    def make(self, name, **terms):
        """An act that puts a name into the world."""

        def change(n=""):
            key = f"{name}{n}"
            with changing(f"make {key}", "lab"):
                self.done.append(key)
                self.there.add(key)

        change.__name__ = name
        change.__annotations__["return"] = None
        terms.setdefault("done_when", lambda n="": self.verdict(f"{name}{n}"))
        terms.setdefault("commands", lambda n="": [f"make {name}{n}"])
        return act(**terms)(change)

    def run(self, flow, *, danger=Danger.CHANGE, parameters=None, name="lab", **options):
        """Run a flow as a recovery; a run id of its own each time."""
        self.runs += 1
        given = parameters or {}
        declared = Recovery(
            name=name,
            fn=flow,
            runbook="",
            answers=(),
            danger=danger,
            target_of=lambda **_: "lab",
            parameters={name: (type(value), ...) for name, value in given.items()},
        )
        run_id = options.pop("run_id", f"00000000-0000-7000-8000-{self.runs:012x}")
        return launch(declared, given, Options(**options), NO_DELAY, run_id)

    def events(self, recovery_id):
        with contextlib.closing(open_journal(str(self.path))) as journal:
            events = journal.events(recovery_id)
            assert flaws(events, *journal.head(recovery_id)) == []
            return events

    def history(self, recovery_id):
        return read_history(self.events(recovery_id))

    def resolve(self, recovery_id, step, how):
        with contextlib.closing(open_journal(str(self.path))) as journal:
            body = {"as": how, "by": "me", "reason": "looked"}
            journal.append(recovery_id, Kind.RESOLVED, body, step=step)


@pytest.fixture
def lab(tmp_path, monkeypatch):
    monkeypatch.setenv("RECOVER_JOURNAL", str(tmp_path / "journal.sqlite"))
    with isolated_registry():
        yield Lab(tmp_path / "journal.sqlite")


def fails_once(error):
    left = [error]

    @verify
    def wait_until_well() -> None:
        if left:
            raise left.pop()

    return wait_until_well


def down():
    return CommandFailed("lab", "x", 1, "no")


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


def test_a_decision_is_walked_again_on_resume_and_remade_in_a_fork(lab):
    due, check = ["a", "b"], fails_once(down())
    one = lab.make("one", each=("n",))

    @decision
    def nodes_due() -> list[str]:
        return list(due)

    def flow():
        for node in nodes_due():
            one(node)
        check()

    first = lab.run(flow)
    due[:] = ["c"]
    assert lab.run(flow, resume=first.recovery_id).state == "recovered"
    assert lab.done == ["onea", "oneb"]
    forked = lab.run(flow, resume=first.recovery_id, fork=True, from_step="nodes_due")
    assert forked.state == "recovered", forked.error
    assert lab.done == ["onea", "oneb", "onec"]


def test_a_set_that_comes_out_empty_is_refused_unless_none_is_fine(lab):
    one = lab.make("one", each=("n",))

    @decision
    def nodes_due() -> list[str]:
        return []

    @decision(none_is_fine=True)
    def nodes_broken() -> list[str]:
        return []

    assert "came out empty" in str(lab.run(nodes_due).error)
    assert "came out empty" in str(lab.run(nodes_due, plan_only=True).error)
    assert lab.run(nodes_broken).state == "recovered"
    assert "no target at all" in str(lab.run(lambda: one.over(nodes_broken())).error)
    assert lab.run(lambda: one.over(nodes_broken(), none_is_fine=True)).state == "recovered"
    with pytest.raises(TypeError, match="not over a text"):
        one.over("abc")


@dataclass(frozen=True)
class Point:
    x: int


def test_results_come_back_as_what_they_were(lab):
    check, seen = fails_once(down()), []

    @decision
    def place() -> Point:
        return Point(3)

    def flow():
        seen.append(place())
        check()

    first = lab.run(flow)
    lab.run(flow, resume=first.recovery_id)

    assert seen == [Point(3), Point(3)]


def test_a_decision_that_cannot_be_read_back_is_refused_before_it_is_written(lab):
    @decision
    def nodes() -> list[int]:
        return ["a"]

    ended = lab.run(nodes)

    assert "cannot be read back" in str(ended.error)
    assert lab.history(ended.recovery_id).decisions == {}


def test_a_secret_in_a_decision_is_refused_rather_than_masked(lab):
    Secret("hunter-twenty-two")

    @decision
    def token() -> str:
        return "hunter-twenty-two"

    ended = lab.run(token)

    assert "known as a secret" in str(ended.error)
    assert "hunter" not in str([event.body_text for event in lab.events(ended.recovery_id)])


def test_a_parameter_that_holds_a_secret_is_refused(lab):
    Secret("hunter-twenty-two")

    ended = lab.run(lambda name: None, parameters={"name": "x hunter-twenty-two"})

    assert isinstance(ended.error, BadInput)
    assert ended.error.field == "name"


def test_changed_inputs_are_named_and_nothing_is_done(lab):
    one, check = lab.make("one", each=("n",)), fails_once(down())

    def flow(n):
        one(n), check()

    first = lab.run(flow, parameters={"n": "a"})
    second = lab.run(flow, parameters={"n": "b"}, resume=first.recovery_id)

    assert isinstance(second.error, BadInput)
    assert "n was 'a', is now 'b'" in str(second.error)
    assert lab.done == ["onea"]


def test_a_flow_that_changed_underneath_is_refused_also_when_it_just_ends(lab):
    one, two, check = lab.make("one"), lab.make("two"), fails_once(down())
    path = [lambda: (one(), check()), lambda: (two(), check()), lambda: None]

    def flow():
        path[0]()

    first = lab.run(flow)
    for other in path[1:]:
        path[0] = other
        ended = lab.run(flow, resume=first.recovery_id)
        assert isinstance(ended.error, Refused)
        assert "one" in str(ended.error)
    assert lab.done == ["one"]


def test_two_steps_with_one_key_are_an_error_at_once(lab):
    one = lab.make("one")

    ended = lab.run(lambda: (one(), one()))

    assert "stands twice" in str(ended.error)


def test_an_undo_goes_back_last_first_tries_every_step_and_says_what_failed(lab):
    back = []

    def taking_back(name, *, fails=False):
        @undo
        def take() -> None:
            back.append(name)
            if fails:
                raise ValueError("no way back")
            with changing(f"unmake {name}", "lab"):
                lab.there.discard(name)

        take.__name__ = take.name = f"take_{name}"
        return lab.make(name, undo=take)

    one, two, three = (taking_back(name, fails=name == "two") for name in ("one", "two", "three"))

    def flow():
        one(), two(), three()

    first = lab.run(flow)
    ended = lab.run(flow, resume=first.recovery_id, undo_by="me", break_glass="a test")

    assert back == ["three", "two", "one"]
    assert isinstance(ended.error, UndoFailed)
    assert ended.state == "needs-person"
    assert lab.there == {"two"}
    forward = lab.run(flow, resume=first.recovery_id)
    assert "on its way back" in str(forward.error)


def taken_back(lab, name, **terms):
    """An act that is gone back on by a step that may be told to fail."""

    @undo
    def take(n="") -> None:
        if f"take {name}{n}" in lab.answers:
            raise lab.answers[f"take {name}{n}"]
        with changing(f"unmake {name}{n}", "lab"):
            lab.there.discard(f"{name}{n}")

    take.__name__ = take.name = f"take_{name}"
    return lab.make(name, undo=take, **terms)


def test_an_undo_that_does_not_come_to_all_that_was_done_says_what_is_still_there(lab):
    ways = ["left"]
    one, left = taken_back(lab, "one"), taken_back(lab, "left")
    looked = lab.make("looked")  # has no way back, so that nothing of it is missed

    def flow():
        one()
        if ways:
            left(), looked()

    first = lab.run(flow)
    way = ways.pop()

    undo = {"resume": first.recovery_id, "undo_by": "me", "break_glass": "a test"}
    ended = lab.run(flow, **undo)
    ways.append(way)
    again = lab.run(flow, **undo)

    assert (ended.state, again.state) == ("needs-person", "undone")
    assert "the way back of left failed" in str(ended.error)
    assert "still there" in str(ended.error)
    assert lab.there == {"looked"}


def test_what_was_taken_down_stays_down_until_what_was_changed_behind_it_is_put_back(lab):
    stop, change = taken_back(lab, "stop", takes_down=True), taken_back(lab, "change")

    def flow():
        stop(), change()

    first = lab.run(flow)
    lab.answers["take change"] = down()
    undo = {"resume": first.recovery_id, "undo_by": "me", "break_glass": "a test"}

    half = lab.run(flow, **undo)
    assert half.state == "needs-person"
    assert "lab is left as stop has it" in str(half.error)
    assert lab.there == {"stop", "change"}
    del lab.answers["take change"]

    assert lab.run(flow, **undo).state == "undone"
    assert lab.there == set()


def test_the_way_back_asks_no_probe_that_the_half_changed_target_cannot_answer(lab):
    answers = ["11.1"]

    @probe
    def version() -> str:
        with reading("version", "lab"):
            return answers[0]

    @undo
    def take() -> None:
        lab.there.clear()

    one = lab.make("one", each=("n",), undo=take)

    def flow():
        one(version())

    first = lab.run(flow)
    answers.clear()

    undone = lab.run(flow, resume=first.recovery_id, undo_by="me", break_glass="a test")
    assert undone.state == "undone"
    assert lab.there == set()


@pytest.mark.parametrize(("danger", "price"), [
    (Danger.CHANGE, "takes from its users what works now"),
    (Danger.DESTRUCTIVE, "destroys what was written to it since"),
])  # fmt: skip
def test_what_was_recovered_is_undone_only_for_a_reason_whatever_its_danger(lab, danger, price):
    @undo
    def take() -> None:
        lab.there.clear()

    one = lab.make("one", undo=take)
    first = lab.run(one, danger=danger, break_glass="a test")

    unasked = lab.run(one, danger=danger, resume=first.recovery_id, undo_by="me")

    assert isinstance(unasked.error, NeedsPerson)
    assert price in str(unasked.error)
    assert "--break-glass REASON" in str(unasked.error)
    assert lab.there == {"one"}
    terms = {"resume": first.recovery_id, "undo_by": "me", "break_glass": "it was the wrong one"}
    assert lab.run(one, danger=danger, **terms).state == "undone"
    assert lab.there == set()


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


def test_options_that_make_no_sense_together_are_named(lab):
    for options in ({"fork": True}, {"from_step": "x"}, {"undo_by": "me"}):
        assert isinstance(lab.run(lambda: None, **options).error, BadInput)


def test_an_id_that_another_run_has_used_is_not_taken_for_a_retry(lab):
    lab.run(lambda: None, run_id="00000000-0000-7000-8000-00000000abcd")

    other = lab.run(lambda: None, run_id="11111111-0000-7000-8000-00000000abcd")

    assert "which is another one" in str(other.error)

"""The way back: what is undone, in which order, and what is said of the rest."""

from dataclasses import dataclass

import pytest

from recovery.commands import changing, reading
from recovery.errors import (
    NeedsPerson,
    UndoFailed,
)
from recovery.steps import act, decision, probe, undo
from recovery.verdict import Danger
from tests.unit.engine_lab import down, taken_back
from tests.unit.engine_lab import lab as lab  # noqa: PLC0414 (the fixture)


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
    assert "--by NAME --reason TEXT" in str(unasked.error)
    assert lab.there == {"one"}
    terms = {"resume": first.recovery_id, "undo_by": "me", "break_glass": "it was the wrong one"}
    assert lab.run(one, danger=danger, **terms).state == "undone"
    assert lab.there == set()


def grow(lab):
    """An act of two releases: the later one has a parameter more, with a default."""

    def grow_0(n):
        with changing(f"grow {n}", "lab"):
            lab.there.add(f"grown {n}")

    def grow_1(n, size=1):
        grow_0(n)

    @undo
    def shrink(n) -> None:
        with changing(f"shrink {n}", "lab"):
            lab.there.discard(f"grown {n}")

    made = []
    for fn in (grow_0, grow_1):
        fn.__name__, fn.__annotations__["return"] = "grow", None
        made.append(
            act(
                commands=lambda n: [f"grow {n}"],
                done_when=lambda n: f"grown {n}" in lab.there,
                undo=shrink,
                each=("n",),
            )(fn)
        )
    return made


def test_an_act_whose_arguments_another_release_changed_keeps_what_it_was_built_on(lab):
    before, after, releases = taken_back(lab, "before"), taken_back(lab, "after"), grow(lab)

    def flow():
        before(), releases[0]("a"), after()

    first = lab.run(flow)
    releases.pop(0)
    back = {"resume": first.recovery_id, "undo_by": "me", "break_glass": "a test"}

    planned = lab.run(flow, **back, plan_only=True).plan
    ended = lab.run(flow, **back)
    again = lab.run(flow, **back, plan_only=True).plan

    assert [step.key for step in planned.steps] == ["undo after"]
    assert [(one.key, str(one.why)) for one in planned.stays] == [
        ("grow[a]", "not-come-to"), ("before", "stood-on")
    ]  # fmt: skip
    assert (again.hash, again.undone) == (planned.hash, ["after"])
    assert isinstance(ended.error, UndoFailed)
    assert "before: not taken back, since that may stand on it" in str(ended.error)
    assert "the inputs of grow[a] changed since its checkpoint: size was None" in str(ended.error)
    assert "undo it with the release that began it (" in str(ended.error)
    assert "--from" not in str(ended.error)
    assert lab.there == {"before", "grown a"}


def test_acts_that_share_a_step_back_stay_together_with_what_was_begun_between_them(lab):
    releases = grow(lab)

    @undo
    def take() -> None:
        with changing("unmake both", "lab"):
            lab.there.clear()

    first, second = lab.make("first", undo=take), lab.make("second", undo=take)
    between, last = taken_back(lab, "between"), taken_back(lab, "last")

    def flow():
        first(), releases[0]("a"), between(), second(), last()

    done = lab.run(flow)
    releases.pop(0)

    ended = lab.run(flow, resume=done.recovery_id, undo_by="me", break_glass="a test")

    assert ended.state == "needs-person"
    assert lab.there == {"first", "grown a", "between", "second"}


@dataclass(frozen=True)
class Kept:
    path: str


@dataclass(frozen=True)
class KeptWithSize:
    path: str
    size: int


@pytest.mark.parametrize("is_decision", [True, False])
def test_what_another_release_recorded_and_this_one_cannot_read_cuts_the_way_back_short(
    lab, is_decision
):
    @undo
    def put_back(result) -> None:
        with changing("put back", "lab"):
            lab.there.discard("kept")

    def of_release(kept):
        def keep() -> Kept:
            if not is_decision:
                with changing("keep", "lab"):
                    lab.there.add("kept")
            return kept

        keep.__annotations__["return"] = type(kept)
        if is_decision:
            return decision(keep)
        terms = {"commands": lambda: ["keep"], "done_when": lambda: "kept" in lab.there}
        return act(**terms, expected=lambda: kept, undo=put_back)(keep)

    releases = [of_release(Kept("p")), of_release(KeptWithSize("p", 3))]
    one, two = taken_back(lab, "one"), taken_back(lab, "two")

    def flow():
        one(), releases[0](), two()

    first = lab.run(flow)
    releases.pop(0)
    back = {"resume": first.recovery_id, "undo_by": "me", "break_glass": "a test"}

    planned = lab.run(flow, **back, plan_only=True)
    ended = lab.run(flow, **back)

    left = ["two"] if is_decision else ["two", "keep"]
    assert planned.error is None
    assert planned.plan.steps == []
    assert [(one.key, str(one.why)) for one in planned.plan.stays] == [
        *((key, "not-come-to") for key in left), ("one", "stood-on")
    ]  # fmt: skip
    assert "this release cannot read what keep returned (size: Field required)" in str(ended.error)
    assert "undo it with the release that began it (" in str(ended.error)
    assert lab.there == {"one", "two"} | (set() if is_decision else {"kept"})


def test_steps_back_that_only_share_a_name_are_walked_each(lab):
    def made(name):
        @undo
        def put_back(n="") -> None:
            with changing(f"unmake {name}", "lab"):
                lab.there.discard(name)

        return lab.make(name, undo=put_back, done_when=None, without_probe="x", redo_in_doubt=True)

    first, second = made("first"), made("second")

    def flow():
        first()
        second()

    done = lab.run(flow)

    undone = lab.run(flow, resume=done.recovery_id, undo_by="me", break_glass="both")

    assert (undone.state, undone.result, lab.there) == ("undone", ["second", "first"], set())

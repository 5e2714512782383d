"""The way back: what is undone, in which order, and what is said of the rest."""

import pytest

from recovery.commands import changing, reading
from recovery.errors import (
    NeedsPerson,
    UndoFailed,
)
from recovery.steps import probe, undo
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
    assert "--break-glass REASON" in str(unasked.error)
    assert lab.there == {"one"}
    terms = {"resume": first.recovery_id, "undo_by": "me", "break_glass": "it was the wrong one"}
    assert lab.run(one, danger=danger, **terms).state == "undone"
    assert lab.there == set()


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

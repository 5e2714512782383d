"""What a recovery remembers, and what it is given: decisions, results, inputs and options."""

import itertools
from dataclasses import dataclass

import pytest

from recovery.errors import (
    BadInput,
    Refused,
)
from recovery.launch import launch
from recovery.run import Options, Recovery
from recovery.secrecy.secret import Secret
from recovery.steps import decision
from recovery.verdict import Danger
from tests.unit.engine_lab import NO_DELAY, down, fails_once, taken_back
from tests.unit.engine_lab import lab as lab  # noqa: PLC0414 (the fixture)


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


def test_options_that_make_no_sense_together_are_named(lab):
    for options in ({"fork": True}, {"from_step": "x"}, {"undo_by": "me"}):
        assert isinstance(lab.run(lambda: None, **options).error, BadInput)


def test_an_id_that_another_run_has_used_is_not_taken_for_a_retry(lab):
    lab.run(lambda: None, run_id="00000000-0000-7000-8000-00000000abcd")

    other = lab.run(lambda: None, run_id="11111111-0000-7000-8000-00000000abcd")

    assert "which is another one" in str(other.error)


class Released:
    """A recovery whose later release has a parameter more, which names what is leased."""

    def __init__(self, lab):
        self.act, self.check = taken_back(lab, "one"), fails_once(down())
        self.runs = itertools.count(1)
        self.first = self.of(lambda name: self.walk(), {"name": (str, ...)})

    def walk(self):
        self.act(), self.check()

    def of(self, fn, parameters, **terms):
        terms = {"target_of": lambda **_: "lab", **terms}
        return Recovery("lab", fn, "", (), Danger.CHANGE, parameters=parameters, **terms)

    def later(self, default, parts=None, target=None):
        def named(call):
            return lambda **given: call(given["hosts"])

        terms = {} if target is None else {"target_of": named(target)}
        terms |= {} if parts is None else {"parts_of": named(parts)}
        declared = {"name": (str, ...), "hosts": (str, default)}
        return self.of(lambda name, hosts="h": self.walk(), declared, **terms)

    def run(self, recovery, given, run_id="", **options):
        run_id = run_id or f"00000000-0000-7000-8000-{next(self.runs):012x}"
        return launch(recovery, given, Options(**options), NO_DELAY, run_id)


@pytest.mark.parametrize("terms", [
    {"parts": lambda hosts: [f"lab/{hosts}"]},
    {"target": lambda hosts: "lab" if hosts == "h" else "another"},
])  # fmt: skip
@pytest.mark.parametrize("order", [{}, {"undo_by": "me"}, {"undo_by": "me", "plan_only": True}])
def test_a_parameter_that_a_later_release_added_has_its_default_in_what_was_begun_before(
    lab, terms, order
):
    released = Released(lab)
    first = released.run(released.first, {"name": "a"})

    ended = released.run(
        released.later("h", **terms), {"name": "a", "hosts": "h"}, resume=first.recovery_id, **order
    )

    assert ended.error is None
    if not order:
        assert lab.there == {"one"}
        assert lab.history(first.recovery_id).parameters == {"name": "a"}


def test_a_run_that_is_retried_by_a_later_release_goes_on_with_the_default_it_added(lab):
    released, run_id = Released(lab), "00000000-0000-7000-8000-00000000abcd"
    released.run(released.first, {"name": "a"}, run_id)

    other = released.run(released.later("h"), {"name": "a", "hosts": "x"}, run_id)
    same = released.run(released.later("h"), {"name": "a", "hosts": "h"}, run_id)

    assert "hosts was None, is now 'x'" in str(other.error)
    assert same.state == "recovered", same.error


def test_a_parameter_without_a_default_that_a_later_release_added_is_named(lab):
    released = Released(lab)
    first = released.run(released.first, {"name": "a"})

    ended = released.run(released.later(...), {}, resume=first.recovery_id, undo_by="me")

    assert isinstance(ended.error, BadInput)
    assert ended.error.field == "hosts"
    assert "Go on with it by that release" in str(ended.error)
    assert lab.there == {"one"}

"""What a step must declare about itself."""

import pytest

from recovery.errors import Refused
from recovery.steps import act, ask, decision, probe, undo, verify
from recovery.verdict import Danger, Verdict


def nothing():
    return ["x"]


def test_an_act_names_its_probe_or_says_why_there_is_none():
    for terms in ({}, {"done_when": lambda: True, "without_probe": "why"}):
        with pytest.raises(TypeError, match="name the probe of its effect"):

            @act(commands=nothing, **terms)
            def change() -> None: ...


def test_an_act_that_returns_something_says_how_to_foretell_it():
    with pytest.raises(TypeError, match="foretell"):

        @act(commands=nothing, done_when=lambda: True)
        def change() -> str: ...


@pytest.mark.parametrize("term", ["done_when", "commands", "expected", "undo"])
def test_what_an_act_names_takes_only_arguments_the_act_has(term):
    terms = {"done_when": lambda: True, "commands": nothing, term: lambda node: True}

    with pytest.raises(TypeError, match="wants 'node', which the act does not have"):

        @act(**terms)
        def change(host) -> None: ...


def test_only_the_way_back_may_take_the_result():
    act(commands=nothing, done_when=lambda: 1, expected=lambda: "", undo=lambda result: 0)(
        _returning
    )

    with pytest.raises(TypeError, match="wants 'result'"):
        act(commands=nothing, done_when=lambda result: 1, expected=lambda: "")(_returning)


def _returning(host) -> str: ...


def test_each_names_parameters_that_are_there():
    with pytest.raises(TypeError, match="none of its parameters"):

        @act(commands=nothing, done_when=lambda: True, each=("node",))
        def change(host) -> None: ...


def test_a_decision_says_of_what_type_it_is():
    with pytest.raises(TypeError, match="of what type"):

        @decision
        def due(): ...


def test_outside_of_a_recovery_a_step_is_the_function_it_was():
    @probe
    def twice(n: int) -> int:
        return 2 * n

    assert twice(3) == 6
    assert twice.over([1, 2]) == [2, 4]
    assert ask(twice, {"n": 4, "other": 1}) == 8
    with pytest.raises(Refused, match="no target at all"):
        twice.over([])
    assert twice.over([], none_is_fine=True) == []


def test_a_probe_that_returns_nothing_is_a_guard():
    @probe
    def refuse_if_full() -> None: ...

    @undo
    def back() -> None: ...

    assert refuse_if_full.is_guard
    assert not back.is_guard


def test_a_look_that_is_left_out_gives_the_empty_value_of_what_it_declares():
    @verify
    def lines() -> list[str]: ...

    @verify
    def counts() -> dict[str, int]: ...

    @verify
    def pair() -> tuple[str, ...]: ...

    @verify
    def text() -> str: ...

    @verify
    def may_be_none() -> list[str] | None: ...

    left_out = [step.not_asked for step in (lines, counts, pair, text, may_be_none)]

    assert left_out == [[], {}, (), "", None]


def test_yes_and_no_are_verdicts_and_unknown_is_neither():
    assert Verdict.of(True) is Verdict.DONE  # noqa: FBT003
    assert Verdict.of(False) is Verdict.NOT_DONE  # noqa: FBT003
    assert Verdict.of(Verdict.UNKNOWN) is Verdict.UNKNOWN
    assert Danger.READ.rank < Danger.CHANGE.rank < Danger.DESTRUCTIVE.rank

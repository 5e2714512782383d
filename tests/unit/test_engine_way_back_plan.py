"""The plan of the way back: what it shows is what is walked, and making it changes nothing."""

import contextlib

import pytest

from recovery.commands import changing, reading
from recovery.errors import BadInput, NeedsPerson, Refused
from recovery.fan_out import FanOut
from recovery.journal.opening import open_journal
from recovery.plan import as_markdown
from recovery.steps import act, probe, undo
from recovery.way_back_planning import WayBackPlanWalk
from tests.unit.engine_lab import NO_DELAY, down, taken_back
from tests.unit.engine_lab import lab as lab  # noqa: PLC0414 (the fixture)

ORDER = {"undo_by": "me", "break_glass": "a test"}


def plan(lab, flow, recovery_id):
    """The plan of the way back, which must leave world and journal as they were."""
    before, there, ids = lab.events(recovery_id), set(lab.there), lab_ids(lab)
    ended = lab.run(flow, resume=recovery_id, undo_by="me", plan_only=True)
    assert lab.events(recovery_id) == before
    assert lab.there == there
    assert lab_ids(lab) == ids
    return ended


def lab_ids(lab):
    with contextlib.closing(open_journal(str(lab.path))) as journal:
        return journal.recovery_ids()


def keys(planned):
    return [step.key for step in planned.steps]


def stays(planned):
    return {act.key: str(act.why) for act in planned.stays}


def undone_in_order(lab, recovery_id):
    """Keys of the acts in the order in which they were undone."""
    return [event.step for event in lab.events(recovery_id) if event.kind == "undone"]


def test_the_plan_shows_the_very_steps_that_are_walked_then_with_their_arguments(lab):
    one, two = taken_back(lab, "one", each=("n",)), taken_back(lab, "two", each=("n",))

    def flow():
        one("a"), two("b"), one("c")

    first = lab.run(flow)

    planned = plan(lab, flow, first.recovery_id).plan

    assert keys(planned) == ["undo one[c]", "undo two[b]", "undo one[a]"]
    assert [step.commands for step in planned.steps] == [
        ("take_one: n: c",), ("take_two: n: b",), ("take_one: n: a",)
    ]  # fmt: skip
    assert (planned.stays, planned.undone, planned.refusals) == ([], [], [])
    lab.run(flow, resume=first.recovery_id, **ORDER)
    assert [f"undo {key}" for key in undone_in_order(lab, first.recovery_id)] == keys(planned)


def test_acts_that_share_a_step_back_are_one_step_of_the_plan(lab):
    @undo
    def take() -> None:
        with changing("unmake all", "lab"):
            lab.there.clear()

    one, two = lab.make("one", undo=take), lab.make("two", undo=take)

    def flow():
        one(), two()

    first = lab.run(flow)

    assert keys(plan(lab, flow, first.recovery_id).plan) == ["undo two, one"]


def test_an_act_without_a_way_back_is_said_to_stay(lab):
    one, wipe, erase = taken_back(lab, "one"), lab.make("wipe"), lab.make("erase")

    def flow():
        one(), wipe(), erase()

    first = lab.run(flow)

    planned = plan(lab, flow, first.recovery_id).plan

    assert keys(planned) == ["undo one"]
    assert stays(planned) == {"erase": "no-way-back", "wipe": "no-way-back"}
    assert "- stays: erase, wipe on lab (done): no way back" in as_markdown(planned)
    assert "a person is needed" not in as_markdown(planned)


def test_what_the_recovery_found_already_so_is_neither_undone_nor_said_to_stay(lab):
    one, two = taken_back(lab, "one"), taken_back(lab, "two")
    lab.there.add("one")

    def flow():
        one(), two()

    first = lab.run(flow)

    planned = plan(lab, flow, first.recovery_id).plan

    assert keys(planned) == ["undo two"]
    assert planned.stays == []


def test_what_the_walk_does_not_come_to_is_still_there_and_keeps_down_what_was_before_it(lab):
    ways = ["left"]
    stop, left = taken_back(lab, "stop", takes_down=True), taken_back(lab, "left")
    last = taken_back(lab, "last")

    def flow():
        stop()
        if ways:
            left()
        last()

    first = lab.run(flow)
    ways.clear()

    planned = plan(lab, flow, first.recovery_id).plan
    walked = lab.run(flow, resume=first.recovery_id, **ORDER)

    assert keys(planned) == ["undo last"]
    assert stays(planned) == {"left": "not-come-to", "stop": "kept-down"}
    assert "so going back will not end as undone" in as_markdown(planned)
    assert walked.state == "needs-person"
    assert undone_in_order(lab, first.recovery_id) == ["last"]


def test_why_the_walk_was_cut_short_is_told(lab):
    sizes = [1]

    @undo
    def shrink(node: str) -> None:
        lab.there.discard(node)

    @act(
        commands=lambda node, size: [f"grow {node} {size}"],
        done_when=lambda node, size: node in lab.there,
        undo=shrink,
        each=("node",),
    )
    def grow(node: str, size: int) -> None:
        with changing(f"grow {node} {size}", "lab"):
            lab.there.add(node)

    def flow():
        for batch in FanOut(["a", "b"]):
            batch.do(grow, sizes[0])

    first = lab.run(flow)
    sizes[0] = 2

    planned = plan(lab, flow, first.recovery_id).plan

    assert stays(planned) == {"grow[a]": "not-come-to", "grow[b]": "not-come-to"}
    assert "the inputs of grow[a] changed since its checkpoint" in as_markdown(planned)


def test_a_way_back_that_failed_halfway_is_planned_as_what_is_left_under_the_same_hash(lab):
    one, two = taken_back(lab, "one"), taken_back(lab, "two")

    def flow():
        one(), two()

    first = lab.run(flow)
    before = plan(lab, flow, first.recovery_id).plan
    lab.answers["take one"] = down()
    lab.run(flow, resume=first.recovery_id, **ORDER)

    halfway = plan(lab, flow, first.recovery_id).plan
    del lab.answers["take one"]
    lab.run(flow, resume=first.recovery_id, **ORDER)
    after = plan(lab, flow, first.recovery_id).plan

    assert (keys(halfway), halfway.undone) == (["undo one"], ["two"])
    assert (keys(after), after.undone, after.refusals) == ([], ["two", "one"], [])
    assert before.hash == halfway.hash == after.hash
    assert "- undone already: two, one" in as_markdown(after)


def test_the_hash_does_not_depend_on_which_target_of_a_step_the_walk_came_to_first(lab):
    one = taken_back(lab, "one", each=("n",))

    def flow():
        one("a"), one("b")

    first = lab.run(flow)
    walk = WayBackPlanWalk("lab", NO_DELAY, history=lab.history(first.recovery_id))
    walk.collect(lambda walk: [walk.perform(one, (n,), {}) for n in "ba"])

    assert [act.key for act in walk.acts] == ["one[b]", "one[a]"]
    assert [record.key for record in walk.history.begun()] == ["one[a]", "one[b]"]


def test_a_recovery_that_did_nothing_with_a_way_back_is_refused_with_what_stays(lab):
    flow = lab.make("wipe")
    first = lab.run(flow)

    planned = plan(lab, flow, first.recovery_id).plan
    undone = lab.run(flow, resume=first.recovery_id, **ORDER)

    assert isinstance(undone.error, Refused)
    assert planned.refusals == [str(undone.error)]
    assert stays(planned) == {"wipe": "no-way-back"}


def test_a_plan_tells_that_going_back_on_what_was_completed_or_overtaken_wants_a_reason(lab):
    one, two = taken_back(lab, "one"), taken_back(lab, "two")
    first = lab.run(one)
    later = lab.run(two, name="other")

    planned = plan(lab, one, first.recovery_id).plan
    unasked = lab.run(one, resume=first.recovery_id, undo_by="me")
    overtaken = plan(lab, two, later.recovery_id)

    completed, by_later = planned.wants_reason
    assert isinstance(unasked.error, NeedsPerson)
    assert completed in str(unasked.error)
    assert f"recovery {later.recovery_id} (other) has changed it since" in by_later
    assert isinstance(overtaken.error, BadInput)  # of another flow, as the undo says it


def test_a_failed_recovery_wants_no_reason(lab):
    one, two = taken_back(lab, "one"), taken_back(lab, "two")
    lab.answers["two"] = down()

    def flow():
        one(), two()

    first = lab.run(flow)

    planned = plan(lab, flow, first.recovery_id).plan

    assert first.error is not None
    assert keys(planned) == ["undo one"]
    assert planned.wants_reason == []


def test_a_plan_while_an_attempt_is_at_work_says_that_it_may_change(lab):
    seen = []

    def look():
        (recovery_id,) = lab_ids(lab)
        seen.append(lab.run(flow, resume=recovery_id, undo_by="me", plan_only=True))
        return ["make two"]

    one, two = taken_back(lab, "one"), taken_back(lab, "two", commands=look)

    def flow():
        one()
        if not seen:
            two()

    first = lab.run(flow)

    planned = seen[0].plan
    assert first.state == "recovered"
    assert keys(planned) == ["undo one"]
    (refusal,) = planned.refusals
    assert "an attempt of this recovery is at work" in refusal
    assert "this plan may change" in refusal


def test_an_act_that_nobody_knows_the_outcome_of_is_said_to_stay_in_doubt(lab):
    seen = []

    @act(commands=lambda: ["wipe"], done_when=lambda: bool(seen))
    def wipe() -> None:
        (recovery_id,) = lab_ids(lab)
        seen.append(lab.run(wipe, resume=recovery_id, undo_by="me", plan_only=True))

    lab.run(wipe)

    assert [(one.key, one.state) for one in seen[0].plan.stays] == [("wipe", "in-doubt")]


def test_a_plan_says_which_other_recovery_holds_the_target(lab):
    one = taken_back(lab, "one")
    first = lab.run(one)
    seen = []

    def look():
        seen.append(lab.run(one, resume=first.recovery_id, undo_by="me", plan_only=True))
        return ["make two"]

    later = lab.run(taken_back(lab, "two", commands=look))

    (refusal,) = seen[0].plan.refusals
    assert f"recovery {later.recovery_id} holds it" in refusal


def test_a_plan_asks_no_probe_that_was_answered_on_the_way_and_sends_no_change(lab):
    asked = []

    @probe
    def version() -> str:
        asked.append("version")
        with reading("version", "lab"):
            return "11.1"

    one = taken_back(lab, "one", each=("n",))

    def flow():
        one(version())

    first = lab.run(flow)
    asked.clear()

    assert keys(plan(lab, flow, first.recovery_id).plan) == ["undo one[11.1]"]
    assert asked == []


@pytest.mark.parametrize("how", ["unknown", "damaged"])
def test_a_recovery_that_is_unknown_or_damaged_has_no_plan_as_it_has_no_undo(lab, how):
    one = taken_back(lab, "one", each=("n",))

    def flow():
        one("a")

    recovery_id = lab.run(flow).recovery_id if how == "damaged" else "abcd"
    with contextlib.closing(open_journal(str(lab.path))) as journal:
        changed = "update events set body = replace(body, '\"a\"', '\"b\"') where kind = 'intended'"
        journal._connection.execute(changed)

    planned = lab.run(flow, resume=recovery_id, undo_by="me", plan_only=True)
    undone = lab.run(flow, resume=recovery_id, **ORDER)

    assert isinstance(planned.error, BadInput if how == "unknown" else NeedsPerson)
    assert str(planned.error) == str(undone.error)
    assert planned.plan is None
    assert lab.there == ({"onea"} if how == "damaged" else set())

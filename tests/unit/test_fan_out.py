"""Steps done on many targets, batch by batch."""

import pickle

import pytest

from recovery.errors import BadInput, CommandFailed, NeedsPerson, Refused, Unreachable
from recovery.fan_out import FanOut, TargetsFailed
from recovery.steps import verify
from tests.unit.engine_lab import lab as lab  # noqa: PLC0414 (the fixture)
from tests.unit.engine_lab import taken_back


def sizes(count, serial):
    return [len(batch.targets) for batch in FanOut([f"h{n}" for n in range(count)], serial)]


@pytest.mark.parametrize(
    ("count", "serial", "expected"),
    [
        (5, ("100%",), [5]),
        (5, (1,), [1, 1, 1, 1, 1]),
        (20, (1, 5, "25%"), [1, 5, 5, 5, 4]),
        (3, ("1%",), [1, 1, 1]),
        (3, (10,), [3]),
        (7, (2, "50%"), [2, 4, 1]),
    ],
)
def test_batches_are_sized_by_numbers_and_percentages_and_the_last_size_is_repeated(
    count, serial, expected
):
    assert sizes(count, serial) == expected


@pytest.mark.parametrize("serial", [(0,), (), ("ten",), ("-1",), ("101%",), (True,), ("٣",)])
def test_a_size_that_is_none_is_bad_input(serial):
    with pytest.raises(BadInput, match="serial"):
        sizes(3, serial)


def test_no_target_is_refused_and_one_named_twice_is_bad_input():
    with pytest.raises(Refused, match="no target"):
        FanOut([])
    with pytest.raises(BadInput, match="twice"):
        FanOut(["a", "a"])


def test_max_fail_as_a_percentage_is_rounded_down():
    assert FanOut(["a"] , max_fail="99%").fail_max == 0  # fmt: skip
    assert FanOut(list("abcdefghij"), max_fail="25%").fail_max == 2


class Hosts:
    """Hosts of which some say no; the order in which steps reached them is kept."""

    def __init__(self, lab, *broken, error=None):
        self.broken, self.lab = set(broken), lab
        self.error = error or (lambda host: CommandFailed(host, "change", 1, "no"))
        self.first = lab.make("first", each=("n",), done_when=self.first_is_done)
        self.second = lab.make("second", each=("n",))

    def first_is_done(self, n=""):
        if n in self.broken:
            raise self.error(n)
        return f"first{n}" in self.lab.there

    def flow(self, count, **terms):
        def flow():
            for batch in FanOut([f"h{n}" for n in range(count)], **terms):
                batch.do(self.first)
                batch.do(self.second)

        return flow


def test_one_that_failed_takes_no_further_step_and_the_others_go_on(lab):
    hosts = Hosts(lab, "h1")

    ended = lab.run(hosts.flow(4, serial=(2,), max_fail=1))

    assert ended.state == "failed"
    assert set(lab.done) == {"firsth0", "secondh0", "firsth2", "firsth3", "secondh2", "secondh3"}
    assert ended.error.fates == {"h0": "done", "h1": "failed", "h2": "done", "h3": "done"}
    assert "of 4 targets: 3 done, 1 failed" in str(ended.error)
    assert "h1: h1 said no to `change`" in str(ended.error)


def test_when_too_many_have_failed_no_further_batch_is_begun(lab):
    hosts = Hosts(lab, "h0", "h2")

    ended = lab.run(hosts.flow(6, serial=(2,), max_fail=1))

    assert set(lab.done) == {"firsth1", "secondh1", "firsth3"}
    assert ended.error.fates == {
        "h0": "failed", "h1": "done", "h2": "failed", "h3": "left halfway",
        "h4": "not begun", "h5": "not begun",
    }  # fmt: skip


@pytest.mark.parametrize("max_fail", [0, 1, 3])
def test_a_resume_goes_on_with_those_that_failed_and_does_nothing_twice(lab, max_fail):
    hosts = Hosts(lab, "h0", "h1", "h3")
    flow = hosts.flow(5, serial=(1, 2), max_fail=max_fail)
    first = lab.run(flow)
    hosts.broken = {"h3"}

    second = lab.run(flow, resume=first.recovery_id)
    hosts.broken = set()
    third = lab.run(flow, resume=first.recovery_id)

    assert (first.state, second.state, third.state) == ("failed", "failed", "recovered")
    assert sorted(lab.done) == sorted(f"{s}h{n}" for s in ("first", "second") for n in range(5))


@pytest.mark.parametrize("terms", [
    {"max_fail": 1},
    {"max_fail": 2, "serial": (2,)},
    {"max_fail": "100%", "serial": (1,)},
])  # fmt: skip
def test_an_undo_takes_back_also_what_was_done_on_those_that_went_on_without_others(lab, terms):
    first, second, third = (taken_back(lab, name, each=("n",)) for name in ("a", "b", "c"))
    first.fn, works = (lambda n: works(n) if n != "h1" else say_no(n)), first.fn

    def say_no(host):
        raise CommandFailed(host, "a", 1, "no")

    def flow():
        for batch in FanOut([f"h{n}" for n in range(5)], **terms):
            for step in (first, second, third):
                batch.do(step)

    begun = lab.run(flow)
    assert begun.state == "failed"
    assert len(lab.there) == 12
    ended = lab.run(flow, resume=begun.recovery_id, undo_by="me")

    assert ended.state == "undone"
    assert lab.there == set()


def test_where_a_person_is_needed_for_one_the_run_says_so(lab):
    hosts = Hosts(lab, "h1", error=lambda host: NeedsPerson(host, "in doubt", "look"))

    ended = lab.run(hosts.flow(3, max_fail=1))

    assert ended.state == "needs-person"
    assert isinstance(ended.error, TargetsFailed)


def test_an_error_of_the_only_target_is_raised_as_it_is(lab):
    @verify
    def wait_until_well(n) -> None:
        raise Unreachable(n, "x", "gone")

    def flow():
        for batch in FanOut(["only"]):
            batch.do(wait_until_well)

    assert isinstance(lab.run(flow).error, Unreachable)


def test_a_plan_shows_every_batch_in_order(lab):
    hosts = Hosts(lab)

    plan = lab.run(hosts.flow(4, serial=(1, 3)), plan_only=True).plan

    assert [step.key for step in plan.steps] == [
        "first[h0]", "second[h0]",
        "first[h1]", "first[h2]", "first[h3]", "second[h1]", "second[h2]", "second[h3]",
    ]  # fmt: skip


def test_the_error_survives_being_stored():
    error = TargetsFailed({"a": CommandFailed("a", "x", 1, "no")}, {"a": "failed", "b": "done"})

    assert str(pickle.loads(pickle.dumps(error))) == str(error)  # noqa: S301

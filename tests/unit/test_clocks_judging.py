"""Which clocks are wrong, whose fault it is, and what is due: a table of cases."""

from dataclasses import replace

import pytest

from blocks.inventory import hosts_named
from recovery.errors import BadInput, Refused, UnreadableOutput
from recovery.fan_out import FanOut
from tasks.clocks import looking
from tasks.clocks.daemons import Daemon, DaemonKind
from tasks.clocks.judging import Due, Found, Limits, agreeing, due_of, objections, widest
from tasks.clocks.offsets import Offset, Sample, parse_now, quickest
from tasks.clocks.sources import Following, Source

LIMITS = Limits(1.0, 5.0, may_step=True, step_back_max_seconds=5.0)
CHRONYD = Daemon(DaemonKind.CHRONYD, "chrony.service", is_active=True, starts_at_boot=True)
STOPPED = replace(CHRONYD, is_active=False)
TIMESYNCD = Daemon(
    DaemonKind.TIMESYNCD, "systemd-timesyncd.service", is_active=False, starts_at_boot=False
)
REACHED = (Source("ntp1", is_reached=True, is_followed=True),)


def clock(host, offset, *daemons, ahead=None, follows=True, uncertain=0.01):
    """A host's clock; it follows its source and knows its offset unless told otherwise."""
    daemons = daemons or (CHRONYD,)
    following = Following(REACHED, offset if ahead is None else ahead) if follows else Following()
    return Found(host, Offset(offset, uncertain), daemons, following, has_etcd=False)


def reasons(*found, limits=LIMITS):
    return [(each.target, each.name) for each in objections(found, limits)]


def test_hosts_that_are_right_are_left_alone():
    found = [clock("a", 0.0), clock("b", 0.4), clock("c", -0.9)]

    assert reasons(*found) == []
    assert [due_of(each, LIMITS) for each in found] == [None] * 3


@pytest.mark.parametrize(
    ("offsets", "together"),
    [
        ([0.0, 0.1, 30.0], ["a", "b"]),
        ([30.0, 30.1, 0.0], ["a", "b"]),
        ([30.0, 0.0], []),
        ([30.0], []),
        ([0.0, 10.0, 20.0], []),
        ([0.0, 0.1, 30.0, 30.1], []),
        ([0.0, 0.9, 1.8], ["a", "b"]),
        ([], []),
    ],
)
def test_a_majority_is_more_than_half_and_more_than_one(offsets, together):
    found = [clock(name, offset) for name, offset in zip("abcd", offsets, strict=False)]

    assert sorted(each.host for each in agreeing(found, 1.0)) == together


def test_the_worker_that_differs_from_most_hosts_is_the_one_that_is_wrong():
    found = [clock(name, 30.0, ahead=0.0) for name in "abc"]

    (said,) = objections(found, LIMITS)

    assert said.target == "this worker"
    assert "30.000 s behind that of 3 of 3 hosts" in said.reason
    assert "3 of them follow a time source" in said.reason
    assert said.name == "worker-clock"


def test_one_host_that_differs_is_due_and_not_the_worker():
    found = [clock("a", 0.0), clock("b", 0.1), clock("c", -30.0)]

    assert reasons(*found) == []
    assert [due_of(each, LIMITS) is not None for each in found] == [False, False, True]


def test_hosts_that_stood_still_together_are_mended_once_that_is_accepted():
    found = [clock(name, -30.0, follows=False) for name in "ab"]

    assert reasons(*found) == [("this worker", "worker-clock")]
    assert reasons(*found, limits=replace(LIMITS, accept=("worker-clock",))) == []


def test_a_host_that_follows_its_source_faithfully_has_a_source_that_is_wrong():
    found = [clock("a", 0.0), clock("b", 0.1), clock("c", -30.0, ahead=0.002)]

    assert reasons(*found) == [("c", "")]
    assert "follows its source faithfully" in objections(found, LIMITS)[0].reason


def test_of_a_single_host_nobody_can_tell_whether_it_or_the_worker_is_wrong():
    assert reasons(clock("a", -30.0, ahead=0.002)) == [("a", "")]
    assert reasons(clock("a", -30.0)) == []  # its own daemon knows that it is off


@pytest.mark.parametrize(
    ("daemons", "words"),
    [
        ([CHRONYD, replace(TIMESYNCD, is_active=True)], "run at once"),
        ([replace(CHRONYD, is_active=False, is_masked=True)], "is masked"),
    ],
)
def test_daemons_that_cannot_be_used_are_named(daemons, words):
    found = Found("a", Offset(0.0, 0.01), tuple(daemons), Following(), has_etcd=False)

    (said,) = objections([found], LIMITS)

    assert words in said.reason


def test_a_host_without_any_daemon_is_not_one_that_is_due():
    found = Found("a", Offset(0.0, 0.01), (), Following(), has_etcd=False)

    assert "nothing there keeps its clock" in objections([found], LIMITS)[0].reason
    assert due_of(found, LIMITS) is None


@pytest.mark.parametrize(
    ("offset", "daemons", "follows", "may_step", "objected"),
    [
        (30.0, [CHRONYD], True, True, True),  # it would be stepped
        (30.0, [CHRONYD], True, False, False),  # it is slewed
        (30.0, [STOPPED], False, False, True),  # a start may step it
        (30.0, [CHRONYD], False, False, True),  # so may the first answer of a source
        (5.0, [STOPPED], False, True, False),  # not further than the bound
        (-30.0, [STOPPED], False, True, False),  # it goes forward
    ],
)
def test_no_clock_goes_back_over_the_bound_unasked(offset, daemons, follows, may_step, objected):
    found = clock("b", offset, *daemons, follows=follows)
    others = [clock("a", 0.0), clock("c", 0.0)]
    limits = replace(LIMITS, may_step=may_step)

    assert reasons(found, *others, limits=limits) == [("b", "step-back:b")] * objected
    assert reasons(found, *others, limits=replace(limits, accept=("step-back:b",))) == []


def test_what_was_accepted_for_one_host_is_not_for_another():
    found = [clock("a", 0.0), clock("b", 0.0), clock("c", 0.0), clock("d", 30.0)]

    assert reasons(*found, limits=replace(LIMITS, accept=("step-back:a",))) == [
        ("d", "step-back:d")
    ]


def test_a_clock_that_cannot_be_measured_is_not_a_clock_that_is_right():
    found = [clock("a", 0.0), clock("b", 0.0, uncertain=1.5)]

    assert reasons(*found) == [("b", "")]


@pytest.mark.parametrize(
    ("found", "steps"),
    [
        (clock("a", 0.0, STOPPED), False),
        (clock("a", 0.0, replace(CHRONYD, starts_at_boot=False)), False),
        (clock("a", 0.0, follows=False), False),
        (clock("a", -1.5), False),  # over the warning limit: slewed
        (clock("a", -5.5), True),
    ],
)
def test_what_is_due_and_whether_it_is_stepped(found, steps):
    due = due_of(found, LIMITS)

    assert (due.unit, due.kind, due.steps) == ("chrony.service", "chronyd", steps)
    assert not due_of(found, replace(LIMITS, may_step=False)).steps


def test_the_daemon_that_runs_is_used_before_one_that_would_start_at_boot():
    running = replace(TIMESYNCD, is_active=True)

    assert clock("a", 0.0, STOPPED, running).daemon == running
    assert clock("a", 0.0, TIMESYNCD, STOPPED).daemon == STOPPED
    assert (
        clock("a", 0.0, replace(STOPPED, starts_at_boot=False), TIMESYNCD).daemon.kind == "chronyd"
    )


def test_all_reasons_are_told_at_once_each_with_its_host():
    found = [clock("a", 0.0), clock("b", 0.0, uncertain=2.0), clock("c", 30.0), clock("d", 0.1)]

    with pytest.raises(Refused) as refused:
        looking.refuse_unless_clear(found, LIMITS)

    assert refused.value.target == "b, c"
    assert "b: its clock cannot be measured" in refused.value.reason
    assert "c: its clock would go back by 30.000 s" in refused.value.reason
    assert "step-back:c" in refused.value.remedy


@pytest.mark.parametrize(
    ("limits", "accept", "field"),
    [
        ((0.0, 5.0, 5.0), [], "warn_seconds"),
        ((2.0, 1.0, 5.0), [], "warn_seconds"),
        ((1.0, 5.0, -1.0), [], "step_back_max_seconds"),
        ((1.0, 5.0, 5.0), ["everything"], "accept"),
    ],
)
def test_limits_that_make_no_sense_are_bad_input(limits, accept, field):
    warn, fail, back = limits

    with pytest.raises(BadInput) as bad:
        looking.limits_of(warn, fail, accept, may_step=True, step_back_max_seconds=back)

    assert bad.value.field == field


def test_the_quickest_answer_counts_and_half_its_round_trip_is_the_doubt():
    slow = Sample(sent_at=100.0, told=103.0, round_trip_seconds=4.0)
    quick = Sample(sent_at=200.0, told=200.6, round_trip_seconds=0.2)

    assert quickest([slow, quick]) == Offset(pytest.approx(0.5), pytest.approx(0.1))


def test_the_two_clocks_furthest_apart_are_named():
    assert widest({"a": 0.2, "b": -0.4, "c": 0.1}) == ("b", "a", pytest.approx(0.6))
    assert widest({"a": 0.2}) == ("a", "a", 0.0)


@pytest.mark.parametrize("printed", ["", "1795240997", "1795240997.%N", "1795240997.N", "soon"])
def test_a_date_without_fractions_is_no_time(printed):
    with pytest.raises(UnreadableOutput):
        parse_now(printed)


def test_a_time_is_read_to_the_microsecond():
    assert parse_now("1795240997.643985772\n") == pytest.approx(1795240997.643986, abs=1e-6)


def test_members_of_etcd_come_last_one_by_one_and_none_of_them_may_fail():
    inventory = hosts_named("ssh://root@cp1 ssh://root@db1 ssh://root@cp2 ssh://root@db2")
    dues = [
        Due(host.label, "chrony.service", "chronyd", steps=True, has_etcd="cp" in host.label)
        for host in inventory.hosts
    ]

    others, members = looking.in_order(
        inventory, dues, LIMITS, 300.0, looking.Round([], ["50%"], "50%")
    )

    assert [clock.due.host for clock in others.clocks] == [dues[1].host, dues[3].host]
    assert (others.serial, others.max_fail) == (["50%"], "50%")
    assert [clock.due.host for clock in members.clocks] == [dues[0].host, dues[2].host]
    assert FanOut(members.clocks, members.serial, members.max_fail).fail_max == 0
    assert [len(batch.targets) for batch in FanOut(members.clocks, members.serial)] == [1, 1]

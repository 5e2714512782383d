"""Which member of etcd survives, with what of its log, and when it is left alone: tables."""

from dataclasses import replace

import pytest

from blocks.ssh.command import Answer
from recovery.errors import NotVerified, Refused, Unreachable
from tasks.etcd import parts, placing, quorum_loss
from tasks.etcd.judging import Cure, judge
from tasks.etcd.parts import Part
from tasks.etcd.proving import bump_past, refuse_if_older
from tasks.etcd.target import EtcdCluster
from tasks.etcd.terms import Terms
from tasks.etcd.wal import LogEnd
from tests.unit.etcd_seen import (
    AWAY,
    CLUSTER,
    NO_DATA,
    SILENT,
    STOPPED,
    Printing,
    member,
    of_five,
)


@pytest.mark.parametrize(
    ("logs", "survivor"),
    [
        ((LogEnd(10, 10, 2), LogEnd(15, 12, 2)), "h2"),
        ((LogEnd(12, 12, 3), LogEnd(15, 11, 2)), "h1"),  # the others of h2 were never a majority's
        ((LogEnd(15, 10, 2), LogEnd(15, 12, 2)), "h2"),
    ],
)
def test_the_member_that_would_be_elected_survives_with_all_of_its_log(logs, survivor):
    five = [of_five(n, STOPPED, log=log) for n, log in enumerate(logs, 1)]
    five += [of_five(n, NO_DATA) for n in (3, 4, 5)]

    loss = judge("etcd", five, Terms())

    assert (loss.cure, loss.survivor) == (Cure.REBUILD, survivor)
    assert loss.rejoins == tuple(f"h{n}" for n in range(1, 6) if f"h{n}" != survivor)
    assert loss.may_be_lost == max(log.last for log in logs) - loss.of(survivor).log.last


def test_a_member_that_would_be_elected_without_what_is_committed_is_not_chosen():
    five = [of_five(1, STOPPED, log=LogEnd(9, 9, 3)), of_five(2, STOPPED, log=LogEnd(15, 12, 2))]
    five += [of_five(n, NO_DATA) for n in (3, 4, 5)]

    with pytest.raises(Refused, match="h1 would be elected, and h2 knows more"):
        judge("etcd", five, Terms())
    assert judge("etcd", five, Terms(lost=("h1",))).survivor == "h2"


def test_where_it_is_not_known_how_far_a_log_reaches_nothing_is_chosen_unasked():
    lost = [member(2, NO_DATA), member(3, NO_DATA)]
    five = [of_five(1, STOPPED, log=LogEnd(12, 12)), of_five(2, STOPPED, log=LogEnd(15, 11, 2))]
    five += [of_five(n, NO_DATA) for n in (3, 4, 5)]

    with pytest.raises(Refused, match="name the one to use in survivor"):
        judge("etcd", five, Terms())
    with pytest.raises(Refused, match="accept by name to have only what it serves: unread-log:h1"):
        judge("etcd", [member(1, log=None), *lost], Terms())
    accepted = Terms(accept=("unread-log:h1",))
    assert judge("etcd", [member(1, log=None), *lost], accepted).survivor == "h1"
    assert judge("etcd", [member(1, STOPPED), *lost], Terms()).survivor == "h1"  # its copy tells


def test_a_stopped_member_of_another_cluster_is_not_chosen():
    five = [
        of_five(1, STOPPED, log=LogEnd(50, 50, 3, 1)),
        of_five(2, STOPPED, log=LogEnd(900, 900, 7, 2)),
    ]
    five += [of_five(n, NO_DATA) for n in (3, 4, 5)]

    with pytest.raises(Refused, match="of 2 clusters: h1 of 1, h2 of 2"):
        judge("etcd", five, Terms())
    assert judge("etcd", five, Terms(lost=("h2",))).survivor == "h1"


def test_a_member_that_has_caught_up_by_a_snapshot_is_no_contradiction_to_itself():
    three = [member(1, log=LogEnd(6, 6, 2)), member(2, NO_DATA), member(3, NO_DATA)]

    assert judge("etcd", three, Terms()).survivor == "h1"


def test_a_survivor_that_is_named_and_heard_of_no_later_leader_costs_what_that_acknowledged():
    five = [
        of_five(1, STOPPED, log=LogEnd(110, 100, 3)),
        of_five(2, STOPPED, log=LogEnd(105, 103, 4)),
    ]
    five += [of_five(n, NO_DATA) for n in (3, 4, 5)]

    assert judge("etcd", five, Terms(survivor="h1")).may_be_lost == 10
    assert judge("etcd", five, Terms()).survivor == "h2"


def test_what_another_log_holds_beyond_the_survivor_may_be_lost():
    five = [of_five(1, SILENT, log=LogEnd(99, 99, 2)), of_five(2, SILENT, log=LogEnd(100, 99, 2))]
    five += [of_five(n, NO_DATA) for n in (3, 4, 5)]

    loss = judge("etcd", five, Terms(survivor="h1"))

    assert (loss.survivor, loss.may_be_lost) == ("h1", 1)
    assert judge("etcd", five, Terms()).may_be_lost == 0
    let_go = judge("etcd", five, Terms(accept=("uncommitted:1",)))
    assert (let_go.survivor, let_go.may_be_lost, let_go.lets_go_of_tail) == ("h2", 1, True)


@pytest.mark.parametrize(
    ("seen", "accept", "is_read"),
    [
        (member(1, SILENT), (), True),
        (member(1, log=LogEnd(10, 10, 2)), (), False),
        (member(1, log=LogEnd(12, 10, 2)), (), True),
        (member(1, log=LogEnd(12, 10, 2)), ("uncommitted:2",), False),
        (member(1, log=LogEnd(12, 10, 2)), ("uncommitted:1",), True),
    ],
)
def test_what_serves_and_has_more_in_its_log_is_read_from_its_files(
    monkeypatch, seen, accept, is_read
):
    three = [seen, member(2, NO_DATA), member(3, NO_DATA)]
    monkeypatch.setattr(EtcdCluster, "host", lambda _, place: place)

    part = parts.survivor_of(CLUSTER, judge("etcd", three, Terms(accept=accept)))

    assert part.is_read_from_files == is_read


def test_a_person_may_choose_the_survivor_and_give_others_up():
    five = [of_five(1, revision=9), of_five(2), *(of_five(n, NO_DATA) for n in (3, 4, 5))]

    assert judge("etcd", five, Terms(survivor="h1")).survivor == "h1"
    assert judge("etcd", five, Terms(lost=("h2",))).survivor == "h1"


@pytest.mark.parametrize(
    ("before", "now", "why"),
    [
        (member(1, STOPPED, log=LogEnd(15, 12)), member(1, STOPPED, log=LogEnd(16, 12)), "at 16"),
        (member(1, SILENT, log=LogEnd(15, 12)), member(1, STOPPED, log=LogEnd(17, 17)), "at 17"),
        (member(1), member(1, STOPPED, log=LogEnd(14, 14)), "at 14"),
        (member(1), member(1, revision=11), "at 11"),
    ],
)
def test_a_survivor_that_was_written_to_meanwhile_is_not_stopped(monkeypatch, before, now, why):
    found = {"now": now}
    monkeypatch.setattr(
        quorum_loss, "members_now", lambda _: [replace(found["now"], log=None), member(2, NO_DATA)]
    )
    monkeypatch.setattr(
        quorum_loss, "with_log", lambda _, seen: replace(seen, log=found["now"].log)
    )
    part = Part(CLUSTER, None, before, "")

    with pytest.raises(Refused, match=why):
        quorum_loss.refuse_if_quorum_came_back(part)
    found["now"] = before
    quorum_loss.refuse_if_quorum_came_back(part)


class Holding:
    """A host on which this recovery has moved data aside, or has not."""

    def __init__(self, exit_code):
        self.exit_code = exit_code

    def read(self, argv, **_):
        return Answer("test", "h1", self.exit_code, "", "")


@pytest.mark.parametrize(
    ("now", "why"),
    [
        (member(1, AWAY), "gave no answer"),
        (member(1, STOPPED), "log cannot be read"),
        (member(1, NO_DATA), "its data is gone"),
    ],
)
def test_a_survivor_that_tells_nothing_of_itself_is_not_taken_for_unchanged(monkeypatch, now, why):
    monkeypatch.setattr(Part, "aside", "/d/recover-1")
    monkeypatch.setattr(quorum_loss, "members_now", lambda _: [now, member(2, NO_DATA)])
    monkeypatch.setattr(quorum_loss, "with_log", lambda _, seen: seen)
    first = Part(CLUSTER, Holding(1), member(1, STOPPED, log=LogEnd(15, 12)), "")
    other = Part(CLUSTER, None, member(2, NO_DATA), "", first)

    for part in (first, other):
        with pytest.raises((Refused, Unreachable), match=why):
            quorum_loss.refuse_if_quorum_came_back(part)
    if now.is_on_host:  # or moved aside by this recovery, in a step that was cut off
        moved = replace(first, host=Holding(0))
        quorum_loss.refuse_if_quorum_came_back(moved)


def test_a_higher_member_that_is_given_up_is_accepted_by_the_revisions_it_costs(monkeypatch):
    monkeypatch.setattr(EtcdCluster, "folder", "/copies")

    def ask(terms, seen_at=10):
        part = Part(CLUSTER, Printing(), member(1, revision=seen_at), "")
        refuse_if_older.fn(part, terms, 13)

    for terms in (Terms(lost=("h2",)), Terms(survivor="h1"), Terms(snapshot="/s")):
        with pytest.raises(Refused, match="accept it by name: revisions:3"):
            ask(terms)
        ask(replace(terms, accept=("revisions:3",)))
    with pytest.raises(NotVerified, match="revision 11"):
        ask(Terms(accept=("revisions:3",)), seen_at=11)


@pytest.mark.parametrize(
    ("highest", "bump"), [(0, 10**9), (204, 10**9), (10**9, 2 * 10**9), (2 * 10**9 + 5, 3 * 10**9)]
)
def test_a_revision_is_put_past_all_that_were_seen_also_after_an_earlier_recovery(highest, bump):
    assert bump_past(highest) == bump > highest


def test_the_survivor_is_asked_for_immediately_before_it_is_put_back():
    assert quorum_loss.refuse_if_quorum_came_back in placing.put_in_place.terms.refuse_if

"""Which member is replaced, and what is refused before one is taken out: without any etcd."""

from dataclasses import replace

import pytest

from recovery.errors import BadInput, Refused, Unreachable
from tasks.etcd import etcdctl, joining, replacing
from tasks.etcd.etcdctl import Listed
from tasks.etcd.parts import Part
from tasks.etcd.replacing import judge_replacement
from tasks.etcd.target import EtcdCluster
from tests.unit.etcd_seen import (
    AWAY,
    FIVE,
    LEARNER,
    NO_DATA,
    STOPPED,
    TWO_URLS,
    member,
    settings,
    well,
)

CLUSTER = EtcdCluster("etcd", ())


def of_five(number):
    return well(number, listed=FIVE)


def test_nobody_is_taken_out_while_another_is_down_since_etcd_would_let_nobody_in():
    rest = [of_five(1), of_five(2), of_five(3)]

    with pytest.raises(Refused, match=r"h4 \(4\) is down as well") as refused:
        judge_replacement("etcd", [*rest, member(4, AWAY), member(5, NO_DATA)], "h5", "h5", ())

    assert "`etcdctl member remove 4`" in str(refused.value)
    found = judge_replacement("etcd", [*rest, of_five(4), member(5, NO_DATA)], "h5", "h5", ())
    assert found.listed.member_id == 5


def removing(monkeypatch, members, listed):
    """Ask what is asked immediately before the fifth is taken out."""
    monkeypatch.setattr(replacing, "members_now", lambda _: members)
    monkeypatch.setattr(etcdctl, "members", lambda *_: list(listed))
    return Part(CLUSTER, None, of_five(1), "", is_rebuilt=False)


def test_that_another_went_down_is_asked_for_immediately_before(monkeypatch):
    members = [of_five(1), of_five(2), of_five(3), member(4, STOPPED), member(5, NO_DATA)]
    first = removing(monkeypatch, members, FIVE)

    with pytest.raises(Refused, match=r"h4 \(4\) is down as well"):
        replacing.refuse_to_lose_quorum(first, FIVE[4], was_healthy=False)


def test_one_that_came_back_after_it_was_looked_at_is_not_taken_out(monkeypatch):
    first = removing(monkeypatch, [of_five(n) for n in (1, 2, 3, 4, 5)], FIVE)

    with pytest.raises(Refused, match="h5 was down, and is healthy now"):
        replacing.refuse_to_lose_quorum(first, FIVE[4], was_healthy=False)

    replacing.refuse_to_lose_quorum(first, FIVE[4], was_healthy=True)  # accepted, or it differs


def test_who_keeps_etcd_from_letting_one_in_is_named(monkeypatch):
    first = Part(CLUSTER, None, of_five(1), "", is_rebuilt=False)
    new = Part(CLUSTER, None, member(5, NO_DATA), "", first, is_rebuilt=False)
    monkeypatch.setattr(etcdctl, "members", lambda *_: list(FIVE[:4]))
    seen = [of_five(1), of_five(2), of_five(3), member(4, STOPPED)]
    monkeypatch.setattr(joining, "members_now", lambda _: seen)
    monkeypatch.setattr(joining, "JOIN_SECONDS", -1)

    def say_no(*_):
        raise Unreachable("h1", "member add", "etcdserver: unhealthy cluster")

    monkeypatch.setattr(joining, "change_by_etcdctl", say_no)

    with pytest.raises(Unreachable, match=r"not named: h4 \(4\) at https://h4:2380"):
        joining.let_in.fn(new)


def elsewhere(what=NO_DATA, name="h3"):
    there = replace(settings(3), name=name, peer_url="https://10.0.0.33:2380")
    return member(3, what, settings=there)


def test_a_host_with_another_address_than_is_listed_takes_the_place_of_its_own_member():
    found = judge_replacement("etcd", [well(1), well(2), elsewhere()], "h3", "h3", ())

    assert found.listed.member_id == 3
    assert found.others == ("h1=https://h1:2380", "h2=https://h2:2380")


@pytest.mark.parametrize(
    ("old", "accept", "why"),
    [
        (elsewhere(name="new"), (), "nothing tells whether h3 (3) at https://h3:2380 was"),
        (elsewhere(STOPPED), (), "accept unlisted:h3"),
    ],
)
def test_a_member_of_another_address_that_may_be_another_one_is_not_taken_out(old, accept, why):
    with pytest.raises(Refused) as refused:
        judge_replacement("etcd", [well(1), well(2), old], "h3", "h3", accept)

    assert why in str(refused.value)


def test_data_of_a_member_at_another_address_is_set_aside_where_that_is_accepted():
    members = [well(1), well(2), elsewhere(STOPPED)]

    found = judge_replacement("etcd", members, "h3", "h3", ("unlisted:h3",))

    assert found.listed == Listed(3, "h3", "https://h3:2380", "https://h3:2379", is_learner=False)


def test_an_old_host_that_answers_must_be_told_of_its_cluster_by_a_file():
    rest = [well(1), well(2), member(4, NO_DATA)]
    by_flags = member(3, STOPPED, settings=settings(3, flags=("initial-cluster",)))
    by_nothing = member(3, STOPPED, settings=replace(settings(3), file=""))

    for old in (by_flags, by_nothing):
        with pytest.raises(Refused, match="etcd on h3 is told of its cluster by"):
            judge_replacement("etcd", [*rest, old], "h3", "h4", ())

    assert judge_replacement("etcd", [*rest, member(3, AWAY)], "h3", "h4", ()).by == "h4"


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://localhost:2380", "ETCD_INITIAL_ADVERTISE_PEER_URLS is not set on h4"),
        ("https://h2:2380", "h4 is a member already"),
    ],
)
def test_a_new_member_is_told_of_an_address_of_its_own(url, why):
    new = member(4, NO_DATA, settings=replace(settings(4), peer_url=url))

    with pytest.raises(Refused, match=why):
        judge_replacement("etcd", [well(1), well(2), member(3, AWAY), new], "h3", "h4", ())


def test_a_lost_member_is_replaced_on_its_own_host_or_on_another():
    new = member(4, NO_DATA)

    same = judge_replacement("etcd", [well(1), well(2), member(3, NO_DATA)], "h3", "h3", ())
    other = judge_replacement("etcd", [well(1), well(2), member(3, AWAY), new], "h3", "h4", ())

    assert (same.asked, same.listed.member_id, same.is_reachable) == ("h2", 3, True)
    assert other.others == ("h1=https://h1:2380", "h2=https://h2:2380")
    assert (other.listed.member_id, other.is_reachable) == (3, False)


@pytest.mark.parametrize(
    ("members", "lost", "by", "why"),
    [
        ([member(1), member(2, NO_DATA), member(3, NO_DATA)], "h3", "h3", "no quorum"),
        ([well(1), member(2, AWAY), member(3, NO_DATA)], "h3", "h3", "only 1 of 3 members"),
        ([well(1), well(2), well(3)], "h3", "h3", "accept healthy:h3"),
        (
            [*(well(n, listed=FIVE) for n in (1, 2, 3)), member(8, AWAY), member(9, AWAY)],
            "h9",
            "h9",
            "nothing tells which of h4",
        ),
        (  # h5 was taken out by hand, h4 is only off for a while
            [
                *(well(n, listed=FIVE[:4]) for n in (1, 2, 3)),
                member(4, AWAY),
                member(5, AWAY),
                member(6, NO_DATA),
            ],
            "h5",
            "h6",
            "nothing tells which of h4 (4)",
        ),
        (
            [well(1, listed=FIVE[:2]), well(2, listed=FIVE[:2]), member(3)],
            "h3",
            "h3",
            "accept unlisted:h3",
        ),
        (
            [well(1), well(2), well(3), member(4, NO_DATA)],
            "h4",
            "h4",
            "accept unlisted:h4",
        ),
        ([well(1), well(2), member(3, AWAY), member(4, STOPPED)], "h3", "h4", "accept data:h4"),
        (
            [*(well(n, listed=(*FIVE[:3], LEARNER)) for n in (1, 2, 3)), member(4, NO_DATA)],
            "h4",
            "h4",
            "`etcdctl member remove 9`",
        ),
        (
            [*(well(n, listed=(*FIVE[:3], TWO_URLS)) for n in (1, 2, 3)), member(4, NO_DATA)],
            "h4",
            "h4",
            "several peer addresses",
        ),
        ([well(1), well(2), member(3, AWAY)], "h3", "h3", "is to run there"),
        ([well(1), well(2), member(3, NO_DATA)], "h3", "h2", "a member already"),
        (
            [well(1, listed=()), well(2, listed=()), member(3, NO_DATA)],
            "h3",
            "h3",
            "no member lists",
        ),
    ],
)
def test_a_replacement_that_is_not_safe_is_refused(members, lost, by, why):
    with pytest.raises(Refused) as refused:
        judge_replacement("etcd", members, lost, by, ())

    assert why in str(refused.value)


def test_a_member_that_differs_from_the_others_is_replaced_though_it_is_healthy():
    members = [well(1), well(2), well(3, hash=9)]

    assert judge_replacement("etcd", members, "h3", "h3", ()).listed.member_id == 3
    accepted = judge_replacement("etcd", [well(1), well(2), well(3)], "h3", "h3", ("healthy:h3",))
    assert accepted.listed.member_id == 3


def test_a_host_that_was_not_named_is_bad_input():
    with pytest.raises(BadInput, match="h9"):
        judge_replacement("etcd", [well(1), well(2), well(3)], "h9", "h9", ())

"""What is judged from what is known of the members of etcd: tables, without any etcd."""

from dataclasses import replace
from functools import partial

import pytest

from blocks.ssh.command import Answer
from recovery.errors import (
    Refused,
)
from tasks.etcd import etcdctl
from tasks.etcd.defragmenting import judge_space, refuse_unless_room_was_made
from tasks.etcd.evidence import MemberState
from tasks.etcd.judging import Cure, judge
from tasks.etcd.terms import Terms
from tasks.etcd.triage import finding_of
from tests.unit.etcd_seen import (
    AWAY,
    CLUSTER,
    FIVE,
    NO_DATA,
    SILENT,
    STOPPED,
    WELL,
    member,
    of_another_cluster,
    of_five,
    settings,
    well,
)


def test_a_cluster_that_is_well_is_left_alone():
    assert judge("etcd", [member(n, **WELL) for n in (1, 2, 3)], Terms()).cure is Cure.NOTHING


def test_members_that_are_stopped_are_started_where_that_is_enough():
    loss = judge("etcd", [member(1), member(2, STOPPED), member(3, NO_DATA)], Terms())

    assert (loss.cure, loss.starts, loss.survivor) == (Cure.START, ("h2",), "")


def test_two_of_three_with_their_data_are_started_however_many_spares_are_named():
    spares = [member(n, NO_DATA) for n in (3, 4, 5)]

    loss = judge("etcd", [member(1, STOPPED), member(2, STOPPED), *spares], Terms())

    assert (loss.cure, loss.starts) == (Cure.START, ("h1", "h2"))


@pytest.mark.parametrize(
    ("members", "terms", "why"),
    [
        ([member(1, **WELL), member(2, **WELL), member(3, NO_DATA)], Terms(), "has quorum"),
        ([member(n, **WELL) for n in (1, 2, 3)], Terms(snapshot="/s"), "would lose what was"),
        ([member(1), member(2, SILENT), member(3, NO_DATA)], Terms(), "elects no leader"),
        ([member(1), member(2, AWAY), member(3, AWAY)], Terms(), "off:h2 off:h3"),
        ([member(1)], Terms(), "not named: h2 at https://h2:2380, h3"),
        ([member(n, NO_DATA) for n in (1, 2, 3)], Terms(), "no member has data"),
        ([member(1), member(2, NO_DATA), member(3, NO_DATA)], Terms(snapshot="/s"), "with data"),
        ([member(1), member(2, NO_DATA), member(3, NO_DATA)], Terms(survivor="h2"), "can be used"),
        (
            [of_five(1), of_five(2, hash=8), *(of_five(n, NO_DATA) for n in (3, 4, 5))],
            Terms(),
            "disagree about the data: hashes h1 7",
        ),
        (
            [of_five(1), of_five(2, STOPPED), *(of_five(n, NO_DATA) for n in (3, 4, 5))],
            Terms(),
            "how far the log of h2 reaches could not be read",
        ),
        (  # a spare that is named does not make two that are away a minority
            [member(1), member(2, AWAY), member(3, AWAY), member(4, NO_DATA)],
            Terms(),
            "off:h2 off:h3",
        ),
        (
            [member(1), member(2, MemberState.NO_UNIT), member(3, MemberState.NO_UNIT)],
            Terms(),
            "off:h2 off:h3",
        ),
        (
            [member(1), member(2, AWAY), of_another_cluster(3)],
            Terms(),
            "its members are of 2 clusters: h1 of 1, h3 of 9",
        ),
        (
            [
                member(1, errors=("memberID:1 alarm:CORRUPT",)),
                *(member(n, NO_DATA) for n in (2, 3)),
            ],
            Terms(),
            "alarm CORRUPT of h1",
        ),
        (
            [member(1, tool=""), member(2, NO_DATA), member(3, NO_DATA)],
            Terms(),
            "nothing on h1 restores a snapshot",
        ),
        (
            [member(1, version="3.3.8"), member(2, NO_DATA), member(3, NO_DATA)],
            Terms(),
            "this knows 3.4",
        ),
        (
            [
                member(1),
                member(2, NO_DATA, settings=settings(2, flags=("initial-cluster",))),
                member(3, NO_DATA),
            ],
            Terms(),
            "told of its cluster by initial-cluster",
        ),
        (
            [
                member(1),
                member(2, NO_DATA, settings=replace(settings(2), peer_url="http://localhost:2380")),
                member(3, NO_DATA),
            ],
            Terms(),
            "ETCD_INITIAL_ADVERTISE_PEER_URLS is not set on h2",
        ),
        (
            [
                member(1),
                member(2, NO_DATA),
                member(3, NO_DATA, settings=replace(settings(3), peer_url="https://h2:2380")),
            ],
            Terms(),
            "h2 and h3 are set up with one peer address",
        ),
        (  # it began anew by itself, and runs
            [member(1), member(2, NO_DATA), of_another_cluster(3)],
            Terms(lost=("h3",)),
            "Where h3 began a cluster of its own, stop its etcd there first",
        ),
        (
            [member(n, AWAY) for n in (1, 2, 3)],
            Terms(accept=("off:h1", "off:h2", "off:h3"), snapshot="/s"),
            "no host answers",
        ),
    ],
)
def test_what_is_not_safe_is_refused_with_its_reason(members, terms, why):
    with pytest.raises(Refused) as refused:
        judge("etcd", members, terms)

    assert why in str(refused.value)


def test_hashes_are_compared_where_the_same_old_revisions_are_gone():
    five = [of_five(1, hash=7, compacted=3), of_five(2, hash=8, compacted=5, revision=12)]
    five += [of_five(n, NO_DATA) for n in (3, 4, 5)]

    assert judge("etcd", five, Terms()).survivor == "h2"


def test_a_hash_that_could_not_be_taken_is_told_and_is_no_disagreement():
    five = [of_five(1), of_five(2, hash=0, revision=12, failure="context deadline exceeded")]
    five += [of_five(n, NO_DATA) for n in (3, 4, 5)]

    loss = judge("etcd", five, Terms())

    assert loss.survivor == "h2"
    assert "hash not taken, etcdctl: context deadline exceeded" in loss.saw


@pytest.mark.parametrize("ask", [etcdctl.hash_at, partial(etcdctl.ask, within_seconds=300)])
def test_the_host_waits_for_etcdctl_as_long_as_etcdctl_waits_for_etcd(ask):
    asked = {}

    class Waiting:
        def read(self, argv, within_seconds, **_):
            asked.update(argv=argv, seconds=within_seconds)
            return Answer("", "", 0, '[{"HashKV":{}}]', "")

    ask(Waiting(), settings(1), "10")

    assert "--command-timeout=300s" in asked["argv"]
    assert asked["seconds"] > int(asked["argv"][asked["argv"].index("-k") + 2])


def test_hosts_that_are_away_and_fewer_than_a_majority_need_no_word():
    members = [member(1), member(2, NO_DATA), member(3, AWAY)]

    loss = judge("etcd", members, Terms())

    assert (loss.survivor, loss.rejoins, loss.away) == ("h1", ("h2",), ("h3",))


def test_where_no_data_is_left_a_snapshot_begins_the_cluster_on_the_first_host():
    members = [member(1, AWAY), member(2, NO_DATA), member(3, NO_DATA)]

    loss = judge("etcd", members, Terms(snapshot="/s"))

    assert (loss.survivor, loss.rejoins) == ("h2", ("h3",))


@pytest.mark.parametrize(
    ("members", "recovery", "why"),
    [
        ([well(1), well(2), well(3)], "none", "healthy"),
        ([well(1), well(2), member(3, NO_DATA)], "replace-etcd-member", "host=h3"),
        ([well(1), well(2), well(3), member(4, NO_DATA)], "none", "No member: h4"),
        (
            [*(well(n, listed=FIVE[:2]) for n in (1, 2)), member(3, NO_DATA)],
            "replace-etcd-member",
            "host=h3",
        ),
        ([well(1), well(2), member(3, AWAY)], "by hand", "Bring h3 up"),
        ([well(1), well(2), member(3, STOPPED)], "by hand", "start it"),
        ([well(1), well(2), well(3, hash=9)], "replace-etcd-member", "host=h3"),
        ([well(1, errors=("alarm:NOSPACE",)), well(2), well(3)], "defragment-etcd", "grows"),
        ([well(1, errors=("alarm:CORRUPT",)), well(2), well(3)], "by hand", "Compare keys"),
        ([member(1), member(2, STOPPED), member(3, NO_DATA)], "recover-etcd-quorum", "starts h2"),
        (
            [member(1, leader=1), member(2, STOPPED), member(3, STOPPED)],
            "recover-etcd-quorum",
            "h3",
        ),
        ([member(1, leader=1), member(2), member(3, AWAY)], "by hand", "it has quorum"),
        ([member(1), member(2, NO_DATA), member(3, NO_DATA)], "recover-etcd-quorum", "from h1"),
        ([member(1), member(2, AWAY), member(3, AWAY)], "recover-etcd-quorum", "off:h2"),
        ([member(1), member(2, SILENT), member(3, NO_DATA)], "by hand", "network"),
    ],
)
def test_a_triage_names_the_recovery_to_run(members, recovery, why):
    found = finding_of(CLUSTER, "/etc/etcd hosts.yaml", members)

    assert found.recovery == recovery
    assert why in f"{found.finding} {found.why} {found.command}"
    assert ("'hosts=/etc/etcd hosts.yaml'" in found.command) == (
        recovery not in {"none", "by hand"}
    )
    assert len(found.members) == len(members)


def test_members_are_defragmented_with_the_leader_last_or_not_at_all():
    members = [well(1), well(2), well(3)]

    assert judge_space("etcd", members, is_ordered=False).order == ()
    assert judge_space("etcd", members, is_ordered=True).order == ("h2", "h3", "h1")
    with pytest.raises(Refused, match="h3 are down"):
        judge_space("etcd", [well(1), well(2), member(3, STOPPED)], is_ordered=True)


def test_an_alarm_is_not_disarmed_where_next_to_nothing_was_given_back():
    members = [well(n, errors=("alarm:NOSPACE",), db_bytes=100) for n in (1, 2, 3)]
    space = judge_space("etcd", members, is_ordered=False)

    refuse_unless_room_was_made(CLUSTER, space, [50, 50, 50])
    with pytest.raises(Refused, match="etcdctl compact 10"):
        refuse_unless_room_was_made(CLUSTER, space, [95, 99, 120])

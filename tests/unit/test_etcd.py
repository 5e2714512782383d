"""What is judged from what is known of the members of etcd: tables, without any etcd."""

from dataclasses import replace
from functools import partial

import pytest

from blocks.ssh.command import Answer
from recovery.errors import (
    BadInput,
    NotVerified,
    Refused,
    Unreachable,
)
from tasks.etcd import etcdctl, parts, placing, quorum_loss
from tasks.etcd.defragmenting import judge_space, refuse_unless_room_was_made
from tasks.etcd.evidence import MemberState
from tasks.etcd.judging import Cure, judge
from tasks.etcd.parts import Part
from tasks.etcd.proving import bump_past, refuse_if_older
from tasks.etcd.replacing import judge_replacement
from tasks.etcd.target import EtcdCluster
from tasks.etcd.terms import Terms
from tasks.etcd.triage import finding_of
from tasks.etcd.wal import LogEnd
from tests.unit.etcd_seen import (
    AWAY,
    CLUSTER,
    FIVE,
    LEARNER,
    NO_DATA,
    SILENT,
    STOPPED,
    TWO_URLS,
    WELL,
    Printing,
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

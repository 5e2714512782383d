"""Whether etcd can do without a member: members times failures, unknown counted as failed."""

from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from blocks.ssh.command import Answer
from recovery.errors import Refused, Unreachable, UnreadableOutput
from tasks.certificates import quorum
from tasks.certificates.catalogue import EtcdKind
from tasks.certificates.quorum import Etcd, Health, Member
from tasks.reboot import Boot
from tests.unit.certificates_seen import job_of, node_of, seen_host
from tests.unit.test_certificates_look import encoded

BOOT = Boot("earlier", 60.0, datetime(2026, 11, 21, tzinfo=UTC))
UP, DOWN, UNKNOWN = Health.HEALTHY, Health.UNHEALTHY, Health.UNKNOWN


def members(*health):
    return [
        Member(f"cp{n}", f"10.0.0.{n}:2379", f"10.0.0.{n}:2380", one)
        for n, one in enumerate(health, 1)
    ]


@pytest.mark.parametrize(
    ("health", "has_quorum"),
    [
        ([], False),
        ([UP], True),
        ([DOWN], False),
        ([UNKNOWN], False),
        ([UP, UP], True),
        ([UP, DOWN], False),
        ([UP, UP, DOWN], True),
        ([UP, UP, UNKNOWN], True),
        ([UP, DOWN, UNKNOWN], False),
        ([UP, UP, UP, DOWN], True),
        ([UP, UP, DOWN, DOWN], False),
        ([UP, UP, UP, DOWN, UNKNOWN], True),
        ([UP, UP, DOWN, DOWN, UNKNOWN], False),
    ],
)
def test_a_majority_of_all_members_must_be_healthy(health, has_quorum):
    assert quorum.has_quorum(members(*health)) is has_quorum


@pytest.mark.parametrize(
    ("health", "can_spare_first"),
    [
        ([UP], True),  # missed whatever the others do: there are none
        ([UP, UP], True),  # missed as well, and back in seconds
        ([UP, DOWN], False),
        ([UP, UNKNOWN], False),
        ([UP, UP, UP], True),
        ([UP, UP, DOWN], False),
        ([UP, UP, UNKNOWN], False),
        ([DOWN, UP, UP], True),  # it is the one that is down
        ([UP, UP, UP, UP], True),
        ([UP, UP, UP, DOWN], False),
        ([UP, UP, UP, UP, DOWN], True),
        ([UP, UP, UP, DOWN, DOWN], False),
    ],
)
def test_a_member_is_spared_only_where_the_others_are_a_majority(health, can_spare_first):
    assert quorum.can_spare(members(*health), "10.0.0.1:2380") is can_spare_first


@pytest.mark.parametrize(
    ("health", "restarted", "has_ended", "why"),
    [
        ([UP, UP, UP], 3, False, ""),
        ([UP, UP, UP], 3, True, ""),
        ([UP, UP, DOWN], 3, False, "cannot do without 10.0.0.1:2380, 10.0.0.2:2380"),
        ([UP, DOWN, DOWN], 3, False, "its certificates are not the reason"),
        ([DOWN, DOWN, UNKNOWN], 3, True, ""),
        ([DOWN, DOWN, UNKNOWN], 2, True, ""),
        ([DOWN, DOWN, UNKNOWN], 1, True, "1 of 3 members do not win it back"),
        ([UNKNOWN], 1, True, ""),
        ([UNKNOWN], 1, False, "its certificates are not the reason"),
    ],
)
def test_before_anything_is_changed_the_whole_way_is_looked_at(health, restarted, has_ended, why):
    peers = [f"10.0.0.{n}:2380" for n in range(1, restarted + 1)]

    told = quorum.why_not_restarted(members(*health), peers, has_ended=has_ended)

    assert bool(told) == bool(why)
    assert why in told


@pytest.mark.parametrize(
    ("had_quorum", "count", "restarted", "is_waited_for"),
    [
        (True, 3, 1, True),
        (False, 3, 1, False),
        (False, 3, 2, True),
        (False, 1, 1, True),
        (False, 5, 2, False),
    ],
)
def test_without_quorum_health_is_waited_for_only_after_a_majority(
    had_quorum, count, restarted, is_waited_for
):
    etcd = Etcd((Silent("a"),), had_quorum, count)

    assert etcd.is_waited_for(restarted) is is_waited_for
    assert Etcd((), had_quorum=False, members=0).is_waited_for(0)


LIST = (
    '{"header":{"cluster_id":"1"}, "members":[{"ID":"5", "name":"cp1", '
    '"peerURLs":["https://10.0.0.1:2380"], "clientURLs":["https://10.0.0.1:2379"]},'
    '{"ID":"6", "peerURLs":["https://10.0.0.2:2380"]}]}'
)
PEER_LIST = (
    '[{"id":5,"peerURLs":["https://10.0.0.1:2380"],"name":"cp1",'
    '"clientURLs":["https://10.0.0.1:2379"]},{"id":6,"peerURLs":["https://10.0.0.2:2380"]}]'
)


@pytest.mark.parametrize("body", [LIST, PEER_LIST])
def test_members_are_read_from_either_port(body):
    answer = f"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n{body}\n"

    assert quorum.parse_members(answer) == [
        Member("cp1", "10.0.0.1:2379", "10.0.0.1:2380", id="5"),
        Member("", "", "10.0.0.2:2380", id="6"),
    ]


@pytest.mark.parametrize("answer", ["", "HTTP/1.0 404\r\n\r\n404 page not found", "x\n\n{}"])
def test_what_is_no_list_of_members_is_not_understood(answer):
    with pytest.raises(UnreadableOutput):
        quorum.parse_members(answer)


@pytest.mark.parametrize(
    ("answer", "health"),
    [
        ('HTTP/1.0 200 OK\r\n\r\n{"health":"true","reason":""}', UP),
        ('HTTP/1.0 503 Service Unavailable\r\n\r\n{"health":"false","reason":"NO LEADER"}', DOWN),
        ('{"health": true}', UP),
        ("", UNKNOWN),
    ],
)
def test_health_that_is_not_told_is_unknown(answer, health):
    assert quorum.parse_health(answer) is health


class Silent:
    """A host that gives no answer."""

    def __init__(self, label):
        self.label = self.target = label

    def session(self):
        return nullcontext(self)

    def read(self, argv, **options):
        raise Unreachable(self.label, "read", "it is off")


class Member2379(Silent):
    """A host with a member of etcd; it knows of `others` what they would say over the network."""

    def __init__(self, number, listed=None, health="true", others=()):
        super().__init__(f"root@cp{number}")
        self.address, self.listed, self.health = f"10.0.0.{number}", listed, health
        self.others = dict(others)

    def read(self, argv, **options):
        lines = []
        requests = list(argv[4:])
        while requests:
            request = requests.pop(0)
            if request == "members":
                body = "" if self.listed is None else f"HTTP/1.0 200 OK\r\n\r\n{self.listed}"
                own = "" if self.health is None else f'{{"health":"{self.health}"}}'
                lines += [
                    f"health:\t{encoded(own)}",
                    f"members\t{self.address}:2380 {encoded(body)}",
                ]
            elif request == "health":
                of = requests.pop(0)
                lines.append(f"health:{of}\t{encoded(self.others.get(of, ''))}")
        return Answer("look", self.label, 0, "\n".join(lines), "")


def listed(count):
    each = (
        f'{{"ID":"{n}","name":"cp{n}","peerURLs":["https://10.0.0.{n}:2380"],'
        f'"clientURLs":["https://10.0.0.{n}:2379"]}}'
        for n in range(1, count + 1)
    )
    return f'{{"members":[{",".join(each)}]}}'


def test_each_member_is_asked_on_its_own_host():
    hosts = [Member2379(1, listed(3)), Member2379(2, listed(3), "false"), Silent("root@cp3")]

    found = quorum.members_of(hosts)

    assert [(m.name, m.health) for m in found] == [("cp1", UP), ("cp2", DOWN), ("cp3", UNKNOWN)]


def test_a_member_on_a_host_that_was_not_named_is_asked_over_the_network():
    others = {"10.0.0.2:2379": '{"health":"true"}'}

    found = quorum.members_of([Member2379(1, listed(3), others=others)])

    assert [(m.name, m.health) for m in found] == [("cp1", UP), ("cp2", UP), ("cp3", UNKNOWN)]


def test_a_member_elsewhere_is_asked_from_a_host_that_answers():
    others = {"10.0.0.1:2379": '{"health":"true"}'}

    found = quorum.members_of([Silent("root@cp1"), Member2379(2, listed(2), others=others)])

    assert [(m.name, m.health) for m in found] == [("cp1", UP), ("cp2", UP)]


def test_where_nobody_lists_members_each_host_stands_for_one():
    found = quorum.members_of([Member2379(1, health=None), Silent("root@cp2")])

    assert [m.health for m in found] == [UNKNOWN, UNKNOWN]
    assert quorum.members_of([]) == []


def cluster(*hosts, ended=False):
    left = timedelta(days=-3000 if ended else 3)
    nodes = [node_of(seen_host(left=left), host.label) for host in hosts]
    jobs = [
        job_of(node.seen, host=host, label=host.label)
        for node, host in zip(nodes, hosts, strict=True)
    ]
    for node, host in zip(nodes, hosts, strict=True):
        object.__setattr__(node, "host", host)
    for number, job in enumerate(jobs, 1):
        object.__setattr__(job.work, "etcd_peer", f"10.0.0.{number}:2380")
    return jobs, nodes


def test_a_healthy_etcd_stands_a_renewal():
    jobs, nodes = cluster(*(Member2379(n, listed(3)) for n in (1, 2, 3)))

    quorum.refuse_unless_etcd_stands_it(jobs, nodes)


def test_an_etcd_that_misses_a_member_is_refused_with_what_each_says():
    jobs, nodes = cluster(Member2379(1, listed(3)), Member2379(2, listed(3)), Silent("root@cp3"))

    with pytest.raises(Refused, match=r"cannot do without.*cp1 healthy, cp2 healthy, cp3 unknown"):
        quorum.refuse_unless_etcd_stands_it(jobs, nodes)


def test_an_etcd_without_quorum_is_refused_unless_its_certificates_are_the_reason():
    down = [Member2379(n, PEER_LIST, None) for n in (1, 2)]

    with pytest.raises(Refused, match="its certificates are not the reason"):
        quorum.refuse_unless_etcd_stands_it(*cluster(*down))
    quorum.refuse_unless_etcd_stands_it(*cluster(*down, ended=True))


def test_where_no_etcd_is_restarted_none_is_asked():
    seen = seen_host(etcd=EtcdKind.EXTERNAL, each={"apiserver": None})

    quorum.refuse_unless_etcd_stands_it([job_of(seen)], [node_of(seen)])
    assert quorum.etcd_of([node_of(seen)]) == Etcd((), had_quorum=False, members=0)


def test_how_etcd_stands_is_decided_from_its_members():
    _, nodes = cluster(Member2379(1, listed(1)))

    etcd = quorum.etcd_of(nodes)

    assert (etcd.had_quorum, etcd.members, etcd.label) == (True, 1, "etcd of 1 with quorum")


class SlowMember(Member2379):
    """Says nothing of itself the first time it is asked."""

    def read(self, argv, **options):
        said = super().read(argv, **options)
        self.health = "true"
        return said


def test_a_member_that_is_slow_to_answer_does_not_cost_the_care_for_the_quorum(monkeypatch):
    """Without quorum no health is waited for between restarts, for the rest of the recovery."""
    monkeypatch.setattr(quorum, "PAUSE_SECONDS", 0.0)
    slow = [SlowMember(n, listed(3), None) for n in (2, 3)]
    _, nodes = cluster(Member2379(1, listed(3)), *slow)

    assert quorum.etcd_before.fn(nodes).had_quorum


@pytest.mark.parametrize("health", [None, "false"])
def test_an_etcd_that_stays_without_quorum_is_told_so(monkeypatch, health):
    monkeypatch.setattr(quorum, "HEARD_SECONDS", 0.0)
    _, nodes = cluster(*(Member2379(n, PEER_LIST, health) for n in (1, 2)))

    assert not quorum.etcd_before.fn(nodes).had_quorum


def test_a_member_is_not_rebooted_where_the_others_cannot_do_without_it(monkeypatch):
    healthy = [Member2379(n, listed(3)) for n in (1, 2, 3)]
    jobs, _ = cluster(*healthy)
    broken = Etcd((healthy[0], healthy[1], Silent("root@cp3")), had_quorum=True, members=3)

    def asked(etcd, boot=BOOT.boot_id):
        monkeypatch.setattr(quorum, "boot_now", lambda _: replace(BOOT, boot_id=boot))
        return quorum.quorum_meanwhile.fn(jobs[0], etcd, BOOT)

    with pytest.raises(Refused, match="cannot do without its member on this host"):
        asked(broken)
    assert asked(Etcd(tuple(healthy), had_quorum=True, members=3)).startswith("the")
    assert asked(Etcd(broken.hosts, had_quorum=False, members=3)).startswith("none")
    assert asked(broken, "later") == "it has rebooted"


def test_a_host_that_does_not_answer_is_not_taken_for_rebooted(monkeypatch):
    healthy = [Member2379(n, listed(3)) for n in (1, 2, 3)]
    jobs, _ = cluster(*healthy)
    broken = Etcd((healthy[0], healthy[1], Silent("root@cp3")), had_quorum=True, members=3)

    def away(host):
        raise Unreachable(host.label, "cat", "no answer")

    monkeypatch.setattr(quorum, "boot_now", away)

    with pytest.raises(Refused, match="cannot do without its member on this host"):
        quorum.quorum_meanwhile.fn(jobs[0], broken, BOOT)


def test_quorum_is_asked_for_again_when_a_reboot_that_was_not_sent_is_resumed():
    """What a guard has passed before an act began is not asked again; a look is."""
    assert not quorum.quorum_meanwhile.is_guard

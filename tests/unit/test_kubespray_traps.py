"""What the roles of kubespray are known to do wrong, and what is read of tools and events."""

from dataclasses import replace

import pytest

from recovery.errors import UnreadableOutput
from tasks.kubespray import etcd, nodes, reading
from tasks.kubespray.callback import Progress
from tasks.kubespray.etcd import Asked, Etcd, Member
from tasks.kubespray.layout import CONTROL_PLANE, ETCD, Group, Layout
from tasks.kubespray.traps import Meant, traps

MEMBERS = tuple(Member(f"etcd{n}", f"{n}a", f"https://10.0.0.{n}:2380") for n in (1, 2, 3))


def asked(host, *, healthy=True, **more):
    said = {"revision": 7, "version": "3.5.9", "members": MEMBERS if healthy else (), **more}
    return Asked(host, healthy, **said)


def meant(hosts, broken, said, *, others=()):
    variables = {host: {} for host in [*hosts, *broken, *others]}
    groups = {ETCD: Group(tuple(hosts)), CONTROL_PLANE: Group(tuple(hosts))}
    names = {f"node{n}": f"etcd{n}" for n in range(1, 8)}
    return Meant(Layout(variables, groups), tuple(broken), names, Etcd(tuple(said)))


def names_of(case):
    return [trap.name for trap in traps(case)]


def test_one_lost_of_three_with_one_new_is_no_trap():
    case = meant(["node2", "node3", "node4"], ["node1"], [asked("node2"), asked("node3")])

    assert traps(case) == []


def test_a_lost_or_new_host_in_the_first_place_is_one():
    said = [asked("node2"), asked("node3")]

    assert "first-node" in names_of(meant(["node1", "node2", "node3"], ["node1"], said))
    assert "first-node" in names_of(meant(["node4", "node2", "node3"], ["node1"], said))


@pytest.mark.parametrize(
    ("healthy", "size", "has_trap"),
    [(3, 5, False), (2, 3, False), (1, 1, False), (2, 5, True), (1, 3, True), (3, 7, True)],
)
def test_the_quorum_that_the_role_counts_is_not_the_one_of_etcd(healthy, size, has_trap):
    hosts = [f"node{n}" for n in range(1, size + 1)]
    said = [asked(host) for host in hosts[:healthy]]

    assert ("quorum-test" in names_of(meant(hosts, ["lost"], said))) is has_trap


def test_an_etcdctl_that_tells_of_the_healthy_among_its_errors_is_not_heard_by_the_role():
    said = [asked("node2", tells_on_stdout=False, version="3.4.23"), asked("node3")]

    (trap,) = traps(meant(["node2", "node3", "node4"], ["node1"], said))

    assert trap.name == "quorum-test"
    assert "put one of 3.5 in its place" in trap.remedy


def test_members_that_are_unhealthy_and_have_a_leader_have_quorum_and_an_alarm():
    said = [asked(host, healthy=False, has_leader=True) for host in ("node2", "node3")]

    case = meant(["node2", "node3", "node4"], ["node1"], said)

    assert any("has a leader" in trap.seen for trap in traps(case))


def test_without_quorum_etcd_3_6_has_nothing_to_restore_with():
    for version, has_trap in (("3.5.21", False), ("3.6.4", True), ("3.7.1", True), ("", True)):
        said = [asked("node3", healthy=False, version=version)]
        case = meant(["node3"], ["node1", "node2"], said)

        assert ("restore" in names_of(case)) is has_trap, version


def test_without_quorum_several_survivors_are_left_to_the_recovery_of_etcd():
    said = [asked(host, healthy=False) for host in ("node4", "node5")]

    case = meant(["node4", "node5", "node6"], ["node1", "node2", "node3"], said)

    (trap,) = [one for one in traps(case) if one.name == "restore"]
    assert "node4 node5 live" in trap.seen
    assert "recover-etcd-quorum" in trap.remedy


def test_without_quorum_the_survivor_with_less_must_not_be_the_first():
    said = [asked("node2", healthy=False, revision=5), asked("node3", healthy=False, revision=9)]

    assert "first-node" in names_of(meant(["node2", "node3", "node4"], ["node1"], said))
    assert "first-node" not in names_of(meant(["node3", "node2", "node4"], ["node1"], said))


def test_a_member_that_never_started_is_not_removed_by_its_name():
    members = (*MEMBERS, Member("", "4a", "https://10.0.0.9:2380"))
    said = [asked("node2", members=members), asked("node3", members=members)]

    (trap,) = traps(meant(["node2", "node3", "node4"], ["node1"], said))

    assert trap.name == "member-names"
    assert "etcdctl member remove 4a" in trap.remedy


def test_a_name_that_etcd_does_not_know_is_one():
    members = tuple(Member(f"other{n}", f"{n}a", f"https://10.0.0.{n}:2380") for n in (1, 2, 3))
    said = [asked("node2", members=members), asked("node3", members=members)]

    case = meant(["node2", "node3", "node4"], ["node1"], said)

    assert set(names_of(case)) == {"member-names"}


def test_the_certificates_of_node10_would_go_with_those_of_node1():
    said = [asked("node2"), asked("node3")]

    case = meant(["node2", "node3", "node10"], ["node1"], said)

    assert names_of(case) == ["certificate-glob"]


def test_members_that_were_not_asked_count_where_one_says_that_all_are_healthy():
    members = tuple(Member(f"etcd{n}", f"{n}a", f"https://10.0.0.{n}:2380") for n in (3, 4, 5))
    alone, said = asked("node3", members=members[:1]), asked("node3", members=members)
    hosts = ["node3", "node4", "node5"]

    (trap,) = traps(meant(hosts, ["node1", "node2"], [alone]))
    whole = meant(hosts, ["node1", "node2"], [replace(said, are_all_healthy=True)])

    assert trap.name == "quorum-test"
    assert "cluster.yml --limit etcd,kube_control_plane" in trap.remedy
    assert names_of(meant(hosts, ["node1", "node2"], [said])) == ["quorum-test"]
    assert traps(whole) == []


@pytest.mark.parametrize(
    ("before", "now", "snapshot", "has_trap"),
    [
        ("a", "a", "/srv/x.db", False),
        ("a", "b", "/srv/x.db", True),
        ("a", "", "/srv/x.db", True),
        ("", "b", "/srv/x.db", False),
        ("a", "b", "", False),
    ],
)
def test_a_given_snapshot_is_restored_once_only(before, now, snapshot, has_trap):
    said = asked("node3", healthy=False, cluster=now)
    was = Etcd((replace(said, cluster=before),))
    case = replace(meant(["node3"], ["node1", "node2"], [said]), snapshot=snapshot, before=was)

    assert ("given-snapshot" in names_of(case)) is has_trap


def test_a_name_that_is_in_the_name_of_another_file_is_one():
    own = ["admin-ca.pem", "member-ca-key.pem"]
    first = asked("node2", certificates=("ca.pem", "ca-key.pem", *own))
    case = meant(["node2", "node3", "node4"], ["ca"], [first, asked("node3")])
    case.names["ca"] = "etcd9"

    (trap,) = traps(case)

    assert "ca.pem ca-key.pem" in trap.seen


SAID = """recover-section version
etcdctl version: 3.4.23
API version: 3.4
recover-section health
yes
recover-section told
recover-section cluster
recover-section members
{"header":{"cluster_id":1},"members":[{"ID":9372538179322589801,"name":"etcd1",\
"peerURLs":["http://10.0.0.1:2380"]},{"ID":10,"peerURLs":["http://10.0.0.2:2380"]}]}
recover-section status
[{"Endpoint":"http://127.0.0.1:2379","Status":{"header":{"cluster_id":42,"revision":42},"version":"3.4.23"}}]
recover-section certificates
ca.pem admin-node1.pem
"""


def test_what_a_host_says_of_its_etcd_is_read():
    seen = etcd.parse_asked("node1", SAID)

    assert seen.is_healthy
    assert not seen.are_all_healthy
    assert not seen.tells_on_stdout
    assert (seen.revision, seen.version) == (42, "3.4.23")
    assert [member.name for member in seen.members] == ["etcd1", ""]
    assert seen.members[0].id == "8211f1d0f64f3269"
    assert seen.certificates == ("ca.pem", "admin-node1.pem")
    assert not seen.has_leader
    assert seen.cluster == "2a"
    assert etcd.parse_asked("node1", SAID.replace('"version":', '"leader":7,"version":')).has_leader
    assert etcd.address_of("https://[fd00::1]:2380") == "fd00::1"


def test_a_host_that_says_nothing_of_it_counts_as_failed():
    seen = etcd.parse_asked("node1", "".join(f"recover-section {x}\n" for x in ("version", "h")))

    assert (seen.is_healthy, seen.revision, seen.members) == (False, -1, ())
    assert not seen.can_restore
    with pytest.raises(UnreadableOutput):
        etcd.parse_asked("node1", SAID.replace('"header":{"cluster_id":42', '"x":{"cluster_id":42'))


def test_events_tell_play_task_and_what_failed_where():
    progress = Progress()

    progress.take(
        [
            '{"event": "play", "name": "Install etcd"}',
            '{"event": "task", "name": "Start it"}',
            '{"event": "failed", "host": "node1", "task": "Try", "text": "no", "ignored": true}',
            '{"event": "failed", "host": "node2", "task": "Start it", "text": "timed out"}',
            '{"event": "unreachable", "host": "node3", "task": "Start it"}',
        ]
    )

    assert str(progress) == "play 1 'Install etcd', task 1 'Start it'"
    assert [str(failure) for failure in progress.failures] == [
        "task 'Start it' failed on node2: timed out",
        "task 'Start it' could not be reached on node3: it said nothing",
    ]
    with pytest.raises(UnreadableOutput):
        progress.take(["half a li"])


def test_nodes_are_read_with_whether_they_are_ready():
    seen = nodes.parse_nodes("a\tTrue\nb\tUnknown\nc\t\n")

    assert [(node.name, node.is_ready) for node in seen] == [
        ("a", True),
        ("b", False),
        ("c", False),
    ]
    for printed in ('{"items":[]}', "a\tReady\n", "a True\n"):
        with pytest.raises(UnreadableOutput):
            nodes.parse_nodes(printed)


def test_what_ansible_lists_is_read_without_what_is_not_needed():
    layout, etcd_type = reading.parse_inventory_list(
        '{"_meta":{"hostvars":{"n1":{"ip":"10.0.0.1","ansible_password":"x","access_ip":'
        '"{{ y }}","etcd_deployment_type":"host"}}},"all":{"children":["etcd"]},'
        '"etcd":{"hosts":["n1","n2"]}}'
    )

    assert layout.variables == {"n1": {"ip": "10.0.0.1"}, "n2": {}}
    assert layout.members(ETCD) == ("n1", "n2")
    assert etcd_type == "host"
    with pytest.raises(UnreadableOutput):
        reading.parse_inventory_list("[]")

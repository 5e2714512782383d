"""Whether a node may be replaced: quorum, hosts, names; and what is sent to whom."""

import json
from dataclasses import replace

import pytest
import yaml

from recovery.errors import BadInput, NotVerified, Refused, Unreachable, UnreadableOutput
from recovery.secrecy.redaction import isolated_registry, redact
from recovery.secrecy.secret import Secret
from recovery.values import to_plain
from recovery.verdict import Verdict
from tasks.certificates.api import FORBIDDEN, NOT_FOUND, OK, ApiAnswer
from tasks.certificates.catalogue import EtcdKind
from tasks.certificates.kubeadm import Kubeadm
from tasks.certificates.quorum import Health, Member
from tasks.certificates.seen import ApiState, Runtime, RuntimeKind
from tasks.kubeadm_nodes import cluster, joining, lost, membership, newcomer, removal
from tasks.kubeadm_nodes.cluster import (
    Cluster,
    NodeObject,
    Taint,
    cluster_seen,
    node_now,
    parse_info,
    parse_node,
)
from tasks.kubeadm_nodes.joining import invitation_of, joining_of
from tasks.kubeadm_nodes.lost import Lost
from tasks.kubeadm_nodes.membership import why_no_join, why_not_removed
from tasks.kubeadm_nodes.newcomer import (
    MARK,
    Newcomer,
    reasons_against,
    reasons_of_acting,
    reasons_of_etcd,
    reasons_of_nodes,
    reasons_of_survivors,
)
from tasks.kubeadm_nodes.order import Replacement, replacement_of
from tasks.kubeadm_nodes.removal import missing_in, patch_of
from tests.unit.certificates_seen import CRI, NoHost, node_of, seen_host
from tests.unit.certificates_told import Told
from tests.unit.test_certificates_look import encoded

UP, DOWN, UNKNOWN = Health.HEALTHY, Health.UNHEALTHY, Health.UNKNOWN
GPU = Taint("gpu", "yes", "NoExecute")
LOST = Lost("cp3", "uid-3", "3", {"team": "a"}, (GPU,), "root@cp1", "https://lb:6443", "ab" * 32)
WANTED = Replacement((), "cp3", NoHost("root@h3"), "cp3", True, 60)  # noqa: FBT003 (a field)
NODE = NodeObject("cp3", "uid-3", {"team": "a"}, (GPU,), False, True, ("10.0.0.3",))  # noqa: FBT003
GONE = ApiAnswer(NOT_FOUND, "")
API = {"node cp3": GONE, **dict.fromkeys(("info", "config"), ApiAnswer(OK, "{}"))}
CLUSTER = Cluster(node_of(), (NODE,), "https://lb:6443", "ab" * 32, "")
READY = Newcomer(
    "root@h3",
    dict.fromkeys(("kubeadm", "openssl", "systemctl"), "/bin/it"),
    Kubeadm("/bin/kubeadm", "v1.36.2"),
    CRI,
    (),
    has_swap=False,
    has_kubelet=True,
    clock_off_seconds=0.2,
)


def members(*health, learner=None):
    return [
        Member(f"cp{n}", "c", f"p{n}", one, str(n), is_learner=n == learner)
        for n, one in enumerate(health, 1)
    ]


@pytest.mark.parametrize(
    ("health", "gone", "why"),
    [
        ((UP, UP, DOWN), "3", ""),
        ((UP, UP, UNKNOWN), "3", ""),
        ((UP, DOWN, DOWN), "3", "no quorum: 1 of 3"),
        ((UP, UNKNOWN, DOWN), "3", "no quorum: 1 of 3"),
        ((UP, UP, UP), "3", "it is healthy"),
        ((UP, DOWN), "2", "no quorum: 1 of 2"),
        ((DOWN,), "1", "no quorum: 0 of 1"),
        ((UP, UP, UP, DOWN, DOWN), "5", ""),
        ((UP, UP, DOWN, DOWN, DOWN), "5", "no quorum: 2 of 5"),
        ((UP, UP, UP, DOWN), "4", ""),
        ((UP, UP, DOWN, DOWN), "4", "no quorum: 2 of 4"),
        ((UP, UP), "", ""),
    ],
)
def test_a_member_is_removed_only_where_a_quorum_stands_before_and_after(health, gone, why):
    found = why_not_removed(members(*health), gone)

    assert (why in found) if why else found == ""


def test_a_learner_has_no_vote_to_be_counted():
    assert why_not_removed(members(UP, UP, DOWN, DOWN, learner=4), "3") == ""


def test_no_member_joins_while_another_one_is_missing():
    assert "cp2" in why_no_join(members(UP, DOWN), "cp3")
    assert why_no_join([*members(UP, UP), Member("", "", "p3")], "cp3") == ""
    assert why_no_join(members(UP, UP, DOWN), "cp3") == ""


@pytest.mark.parametrize(
    ("name", "why"),
    [("cp9", "a member cp9 already"), ("", "a member p4 that was added and never started")],
)
def test_a_member_that_is_in_the_way_is_told_before_anything_is_changed(name, why):
    """Else it would be the join that fails, once the lost one is removed."""
    *others, last = members(UP, UP, DOWN, UP)
    known = [*others, replace(last, name=name, id="255")]

    (reason,) = reasons_of_etcd(replace(WANTED, new_name="cp9"), known)

    assert why in reason.why
    assert "etcdctl member remove ff" in reason.remedy


def test_of_five_with_two_lost_one_is_not_replaced_before_the_other_is_removed():
    wanted = replace(WANTED, node="cp5", new_name="cp5")

    reasons = reasons_of_etcd(wanted, members(UP, UP, UP, DOWN, DOWN))

    assert "another member of etcd is missing: cp4" in reasons[0].why


HOST = {
    "no kubeadm": ({"tools": {}}, "there is no kubeadm"),
    "no kubelet": ({"has_kubelet": False}, "no kubelet"),
    "no runtime": ({"runtime": Runtime(RuntimeKind.NONE)}, "no container runtime"),
    "in use": ({"left": ("/var/lib/etcd/member",)}, "/var/lib/etcd/member"),
    "swap": ({"has_swap": True}, "swapoff"),
    "clock": ({"clock_off_seconds": -70.0}, "-70 s off"),
    "old": ({"kubeadm": Kubeadm("k", "v1.21.3")}, "before 1.22"),
    "other": ({"kubeadm": Kubeadm("k", "v1.35.1")}, "the control plane v1.36.2"),
}


@pytest.mark.parametrize("name", HOST)
def test_a_host_that_cannot_join_is_told_why(name):
    fields, said = HOST[name]

    reasons = reasons_against(replace(READY, **fields), "v1.36.2")

    assert any(said in f"{one.why}. {one.remedy}" for one in reasons)


def test_a_host_that_is_ready_is_taken():
    assert reasons_against(READY, "v1.36.2") == []
    assert reasons_of_nodes(WANTED, CLUSTER) == []


@pytest.mark.parametrize(
    ("node", "more", "said"),
    [
        ({"is_ready": True}, {}, "it is not lost"),
        ({"is_control_plane": False}, {}, "replace-worker-node-kubeadm"),
        ({"addresses": ("lb",)}, {}, "cluster-info leads"),
        ({}, {"new_name": "cp9"}, "there is a node cp9 already"),
    ],
)
def test_a_node_that_is_not_to_be_replaced_like_this_is_told_why(node, more, said):
    other = replace(NODE, name="cp9", uid="uid-9")
    known = replace(CLUSTER, nodes=(replace(NODE, **node), other))

    reasons = reasons_of_nodes(replace(WANTED, **more), known)

    assert any(said in f"{one.why}. {one.remedy}" for one in reasons)


def test_without_kubectl_or_with_an_etcd_of_others_nothing_is_begun():
    odd = node_of(seen_host(tools={}, etcd=EtcdKind.KUBESPRAY))

    whys = [one.why for one in reasons_of_survivors(WANTED, [odd])]

    assert whys == ["etcd is not kubeadm's on root@cp1"]
    assert reasons_of_survivors(WANTED, [node_of()]) == []


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ("", Unreachable),
        ("HTTP/1.0 503 No\r\n\r\netcd", Unreachable),
        ("HTTP/1.0 403 No\r\n\r\nforbidden", Refused),
    ],
)
def test_an_api_that_does_not_say_whether_a_node_is_there_says_not_that_it_is_gone(answer, error):
    host = Told({"look": f"clock\t1.0\napi:node\thttp {encoded(answer)}\nclock\t1.1\n"})

    with pytest.raises(error):
        node_now(host, "cp3")


def test_a_node_that_the_api_does_not_know_is_gone():
    answer = encoded("HTTP/1.0 404 No\r\n\r\n{}")

    assert node_now(Told({"look": f"clock\t1\napi:node\thttp {answer}\nclock\t1\n"}), "x") is None


def test_of_labels_and_taints_only_those_that_somebody_gave_are_kept():
    node = parse_node(
        {
            "metadata": {
                "name": "cp3",
                "uid": "u",
                "labels": {
                    "kubernetes.io/hostname": "cp3",
                    "node-role.kubernetes.io/control-plane": "",
                    "topology.kubernetes.io/zone": "a",
                    "team": "a",
                },
            },
            "spec": {
                "taints": [
                    {"key": "node.kubernetes.io/unreachable", "effect": "NoExecute"},
                    {"key": "gpu", "value": "yes", "effect": "NoExecute"},
                ]
            },
            "status": {"conditions": [{"type": "Ready", "status": "Unknown"}]},
        }
    )

    assert node == replace(NODE, uid="u", addresses=())


def test_what_the_new_node_lacks_is_named():
    assert missing_in(NODE, LOST) == ""
    assert missing_in(replace(NODE, labels={}, taints=()), LOST) == "team, gpu"
    assert json.loads(patch_of(LOST)) == {"metadata": {"labels": {"team": "a"}}}


def test_token_and_key_are_masked_wherever_the_configurations_would_show():
    with isolated_registry():
        token, key = Secret("abcdef.0123456789abcdef"), Secret("12" * 32)
        configuration = "apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\n"
        init = invitation_of(READY.kubeadm, token, key, configuration)
        joined = joining_of(WANTED, LOST, READY, token, key)

        shown = [redact(one.reveal()) for one in (init, joined)]

    assert not any("0123456789abcdef" in one or "1212" in one for one in shown)
    kinds = [one["kind"] for one in yaml.safe_load_all(init.reveal())]
    assert kinds == ["ClusterConfiguration", "InitConfiguration"]
    read = yaml.safe_load(joined.reveal())
    assert read["nodeRegistration"]["taints"] == [GPU.as_object()]
    assert read["controlPlane"] == {"certificateKey": "12" * 32}


def test_a_worker_gets_no_certificate_key():
    with isolated_registry():
        token, key = Secret("abcdef.0123456789abcdef"), Secret("12" * 32)
        worker = replace(WANTED, is_control_plane=False)

        read = yaml.safe_load(joining_of(worker, LOST, READY, token, key).reveal())

    assert "controlPlane" not in read


def test_a_cluster_info_that_cannot_be_read_is_told():
    with pytest.raises(UnreadableOutput):
        parse_info(ApiAnswer(OK, '{"data": {}}'))


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"node": "CP 3"}, "node"),
        ({"new_name": "-x"}, "new_name"),
        ({"within_seconds": 0}, "within_seconds"),
        ({"new_host": "ssh://root@cp1"}, "new_host"),
    ],
)
def test_bad_input_is_named(changes, field):
    given = {
        "hosts": "ssh://root@cp1",
        "node": "cp3",
        "new_host": "ssh://root@cp3",
        "new_name": "",
        "within_seconds": 60,
    }

    with pytest.raises(BadInput) as wrong:
        replacement_of(**{**given, **changes}, is_control_plane=True)

    assert field in wrong.value.field


LIVING = replace(WANTED, survivors=(NoHost("root@cp1"),), within_seconds=0.0)


@pytest.mark.parametrize("now", [None, NODE, replace(NODE, uid="new")])
def test_a_node_that_does_not_become_ready_is_told(monkeypatch, now):
    monkeypatch.setattr(joining, "node_now", lambda *_: now)

    with pytest.raises(NotVerified, match="the node cp3 to be Ready"):
        joining.node_is_ready.fn(LIVING, LOST)


@pytest.mark.parametrize("seen", [members(UP, DOWN), members(UP, UP, learner=2)])
def test_an_etcd_that_is_not_whole_is_told(monkeypatch, seen):
    monkeypatch.setattr(membership, "members_seen", lambda _: seen)

    with pytest.raises(NotVerified, match="every member of etcd to be healthy and to vote"):
        membership.etcd_is_whole.fn(LIVING)


def test_the_quorum_is_asked_for_again_immediately_before(monkeypatch):
    monkeypatch.setattr(membership, "members_seen", lambda _: members(UP, DOWN, DOWN))
    monkeypatch.setattr(newcomer, "members_of", lambda _: members(UP, DOWN, DOWN))

    with pytest.raises(Refused, match="no quorum"):
        membership.refuse_to_lose_quorum(LIVING, LOST)
    with pytest.raises(Refused, match="another member of etcd is missing: cp2"):
        newcomer.refuse_to_join_beside_another_loss(LIVING)
    monkeypatch.setattr(newcomer, "members_of", lambda _: [])
    with pytest.raises(Refused, match="no member of etcd answers"):
        newcomer.refuse_to_join_beside_another_loss(LIVING)


@pytest.mark.parametrize(
    ("seen", "verdict"),
    [
        (members(UP, UP), Verdict.DONE),
        (members(UP, UP, DOWN), Verdict.NOT_DONE),
        ([Member("root@cp1", "", "p1")], Verdict.UNKNOWN),
    ],
)
def test_a_member_is_gone_only_by_a_list_of_members(monkeypatch, seen, verdict):
    monkeypatch.setattr(membership, "members_seen", lambda _: seen)

    assert membership.is_removed(LIVING, LOST) is verdict


def test_a_node_that_has_come_back_is_not_deleted(monkeypatch):
    monkeypatch.setattr(removal, "node_now", lambda *_: replace(NODE, is_ready=True))

    with pytest.raises(Refused, match="is Ready again"):
        removal.refuse_if_it_lives(LIVING, LOST)


def test_a_node_that_nobody_knows_is_refused(monkeypatch):
    monkeypatch.setattr(lost, "members_of", lambda _: members(UP, UP))

    with pytest.raises(Refused, match="neither a node nor a member of etcd has that name"):
        lost.lost_node.fn(replace(CLUSTER, nodes=()), LIVING)


def test_a_list_of_members_that_nobody_gives_just_then_is_asked_for_again(monkeypatch):
    monkeypatch.setattr(lost, "members_of", lambda _: [Member("root@cp1", "", "")])

    with pytest.raises(Unreachable, match="no survivor lists them"):
        lost.lost_node.fn(CLUSTER, LIVING)


def test_without_an_api_server_nothing_is_asked():
    silent = node_of(seen_host(api=ApiState.SILENT))

    with pytest.raises(Refused, match="no API server of the hosts that were named answers"):
        cluster.cluster_seen.fn([silent], LIVING)


def test_of_a_cluster_of_many_nodes_only_those_two_are_asked_for(monkeypatch):
    """A list of a hundred is more than one command may print."""
    asked = {}
    seen = {"metadata": {"name": "cp3", "uid": "uid-3"}}
    answers = {**API, "node cp3": ApiAnswer(OK, json.dumps(seen)), "node cp9": GONE}
    monkeypatch.setattr(cluster, "ask_api", lambda _, paths: asked.update(paths) or (answers, ""))
    monkeypatch.setattr(cluster, "parse_info", lambda _: ("https://lb:6443", "ab" * 32))

    found = cluster_seen.fn([node_of()], replace(WANTED, new_name="cp9"))

    assert [path for path in asked.values() if "/nodes" in path] == [
        "/api/v1/nodes/cp3",
        "/api/v1/nodes/cp9",
    ]
    assert [one.uid for one in found.nodes] == ["uid-3"]


def test_an_api_that_does_not_tell_of_a_node_does_not_say_that_there_is_none(monkeypatch):
    answers = {**API, "node cp3": ApiAnswer(FORBIDDEN, "nodes is forbidden")}
    monkeypatch.setattr(cluster, "ask_api", lambda *_: (answers, ""))

    with pytest.raises(Refused, match="the API does not give its node cp3: nodes is forbidden"):
        cluster_seen.fn([node_of()], WANTED)


def test_a_resume_that_asks_another_survivor_is_of_the_same_cluster():
    """Else a decision would be refused for its inputs, and could not be made again: all is gone."""
    other = replace(CLUSTER, acting=node_of(label="root@cp2"), nodes=(), server="https://cp2:6443")

    assert to_plain(other) == to_plain(CLUSTER)


@pytest.mark.parametrize("missing", ["kubectl", "kubeadm", "openssl"])
def test_things_are_done_where_their_tools_are(monkeypatch, missing):
    whole = seen_host()
    bare = replace(whole, tools={**whole.tools, missing: ""})
    hosts = [node_of(bare, "root@cp1"), node_of(whole, "root@cp2"), node_of(whole, "root@cp3")]
    monkeypatch.setattr(cluster, "ask_api", lambda *_: (API, ""))
    monkeypatch.setattr(cluster, "parse_info", lambda _: ("https://lb:6443", "ab" * 32))

    chosen = cluster_seen.fn(hosts, WANTED).acting
    only = cluster_seen.fn(hosts[:1], WANTED).acting

    assert chosen is hosts[1]
    assert reasons_of_acting(chosen) == []
    assert [one.why for one in reasons_of_acting(only)] == [f"there is no {missing} on root@cp1"]


def test_the_mark_of_another_recovery_is_told_with_what_to_do_about_it():
    (reason,) = reasons_against(replace(READY, left=(MARK,)), "v1.36.2")

    assert f"{MARK} is of another recovery's join: remove it" in reason.remedy

"""What a join of a node that came halfway leaves, and what is done and not done about it."""

import subprocess
from dataclasses import replace
from types import SimpleNamespace

import pytest

from blocks.ssh.command import Answer
from recovery.errors import NotVerified, Refused
from recovery.secrecy.redaction import isolated_registry
from recovery.verdict import Verdict
from tasks.certificates.api import OK, ApiAnswer
from tasks.kubeadm_nodes import halfway, joining, removal
from tasks.kubeadm_nodes.halfway import CLEAR, STATE, HostState
from tasks.kubeadm_nodes.joining import INVITE, JOIN, LEAVE, is_joined
from tasks.kubeadm_nodes.newcomer import LEFT, MARK
from tests.unit.certificates_seen import NoHost
from tests.unit.test_kubeadm_nodes import DOWN, LIVING, LOST, NODE, READY, UP, WANTED, members

MINE, OTHER = "a1b2c3d4", "e5f6a7b8"
DELETED = [*removal.KUBECTL, "delete", "node", "cp3", "--ignore-not-found"]


@pytest.fixture
def host(tmp_path):
    """Runs a script on a host of a file system of its own, whose kubeadm notes what it is told."""
    (tmp_path / "etc/kubernetes").mkdir(parents=True)
    (tmp_path / "bin").mkdir()
    kubeadm = tmp_path / "bin/kubeadm"
    kubeadm.write_text(f'#!/bin/sh\necho "$1" >>{tmp_path}/told\n')
    kubeadm.chmod(0o755)
    path = f"{tmp_path}/bin:/usr/bin:/bin"

    def run(script, *words):
        here = script.replace("/etc/", f"{tmp_path}/etc/").replace("/var/lib/etcd", "/nowhere")
        here = here.replace("/run/", f"{tmp_path}/")
        argv = ["sh", "-c", here, "test", str(tmp_path / "mark"), MINE, *words]
        return subprocess.run(argv, capture_output=True, text=True, check=False, env={"PATH": path})

    run.folder = tmp_path
    run.told = lambda: (
        (tmp_path / "told").read_text().split() if (tmp_path / "told").exists() else []
    )
    return run


@pytest.mark.parametrize("script", [CLEAR, JOIN, LEAVE], ids=["clear", "join", "leave"])
def test_a_node_that_another_recovery_has_joined_is_never_reset(host, script):
    (host.folder / "mark").write_text(f"{OTHER}\n")
    (host.folder / "etc/kubernetes/kubelet.conf").touch()

    seen = host(LEFT)
    ended = host(script, "unix:///cri", "joined")

    assert "ours" not in seen.stdout
    assert "kubelet.conf" in seen.stdout
    assert ended.returncode == 8
    assert f"a join of recovery {OTHER} was here" in ended.stderr
    assert host.told() == []


def test_what_the_own_join_has_left_is_reset_and_its_mark_goes_with_its_end(host):
    (host.folder / "mark").write_text(f"{MINE}\n")
    (host.folder / "etc/kubernetes/kubelet.conf").touch()

    seen = host(LEFT)
    cleared = host(CLEAR, "unix:///cri")
    is_marked = (host.folder / "mark").exists()
    joined = host(JOIN)

    assert "ours" in seen.stdout
    assert is_marked
    assert (cleared.returncode, joined.returncode) == (0, 0), (cleared, joined)
    assert host.told() == ["reset", "join"]
    assert not (host.folder / "mark").exists()


@pytest.mark.parametrize("script", [CLEAR, JOIN], ids=["clear", "join"])
def test_a_host_that_has_become_a_node_since_it_was_looked_at_is_left_as_it_is(host, script):
    """No mark is set on it either, by which the next attempt would take it for its own."""
    (host.folder / "etc/kubernetes/kubelet.conf").touch()

    ended = host(script, "unix:///cri")
    left = host(LEAVE, "unix:///cri", "")

    assert ended.returncode == 8
    assert "it has files of a cluster" in ended.stderr
    assert left.returncode == 0
    assert host.told() == []
    assert not (host.folder / "mark").exists()


def test_a_host_that_is_of_no_cluster_is_not_reset(host):
    cleared = host(CLEAR, "unix:///cri")

    assert cleared.returncode == 0, cleared
    assert host.told() == []


@pytest.mark.parametrize(("marked", "has_node"), [(True, ""), (False, "joined")])
def test_the_way_back_resets_the_host_and_leaves_a_mark_until_its_node_is_deleted(
    host, marked, has_node
):
    if marked:
        (host.folder / "mark").write_text(f"{MINE}\n")

    left = host(LEAVE, "unix:///cri", has_node)

    assert left.returncode == 0, left
    assert host.told() == ["reset"]
    assert (host.folder / "mark").read_text().strip() == MINE


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("worker", ["token", "token", "delete"]),
        ("control-plane", ["token", "token", "delete", "init"]),
    ],
)
def test_the_node_of_a_join_that_came_halfway_is_deleted_of_a_worker_too(host, kind, told):
    """A worker that joins beside its own Node is refused while that is still Ready."""
    (host.folder / "bin/kubectl").write_text(f'#!/bin/sh\necho "$3" >>{host.folder}/told\n')
    (host.folder / "bin/kubectl").chmod(0o755)

    invited = host(INVITE.replace("$3", "$4").replace("$2", "$3"), kind, "cp3")

    assert invited.returncode == 0, invited
    assert host.told() == told


class Step(NoHost):
    """A host that has come so far with its join; notes what changes it, by name."""

    def __init__(self, log, state=HostState.OUT, label="root@h3"):
        super().__init__(label)
        self.log, self.state = log, state

    def command_line(self, argv, *, as_root):
        return f"{self.label} {argv[3]}"

    def read(self, argv, *, as_root):
        assert argv[3] == "how-far"
        return Answer("sh", self.label, 0, f"{self.state}\n", "")

    def change(self, argv, **options):
        self.log.append(argv[3] if argv[0] == "sh" else " ".join(argv))


@pytest.fixture
def joined_again(monkeypatch):
    """A control-plane node whose join is done again; `seen` says who is in etcd after the reset."""
    log, seen, nodes = [], {"members": members(UP, UP)}, {"now": None}
    fence = SimpleNamespace(recovery_id=MINE)
    for module in (joining, halfway):
        monkeypatch.setattr(module, "current_fence", lambda: fence)
        monkeypatch.setattr(module, "node_now", lambda *_: nodes["now"])
        monkeypatch.setattr(module, "members_seen", lambda _: seen["members"])
    monkeypatch.setattr(joining, "REGISTERED_SECONDS", 0.0)
    monkeypatch.setattr(halfway, "HEARD_SECONDS", 0.0)
    answer = {"config": ApiAnswer(OK, '{"data": {"ClusterConfiguration": "a: b"}}')}
    monkeypatch.setattr(joining, "ask_api", lambda *_: (answer, ""))
    new = Step(log, HostState.HALFWAY)
    wanted = replace(WANTED, survivors=(Step(log, label="root@cp1"),), new_host=new)
    return SimpleNamespace(log=log, seen=seen, nodes=nodes, new=new, wanted=wanted)


def test_a_join_done_again_is_reset_before_its_node_is_deleted(joined_again):
    """Without its Node kubeadm's reset empties the member of etcd and leaves it in the list."""
    with isolated_registry():
        joining.join.fn(joined_again.wanted, LOST, READY)

    planned = list(joining.join_commands(joined_again.wanted, LOST, READY))
    assert joined_again.log == ["clear-newcomer", "invite-node", "join-node"]
    assert planned == [
        "root@h3 clear-newcomer",
        "root@cp1 invite-node",
        "root@h3 join-node",
    ]


def test_nobody_joins_beside_a_member_that_a_reset_has_left(joined_again):
    """kubeadm would not add it anew: it would start with no data as one that knows its votes."""
    left = replace(members(UP, UP, DOWN)[-1], id="255")
    joined_again.seen["members"] = [*members(UP, UP), left]

    with isolated_registry(), pytest.raises(Refused, match="member remove ff"):
        joining.join.fn(joined_again.wanted, LOST, READY)

    assert joined_again.log == ["clear-newcomer"]


@pytest.mark.parametrize(
    ("state", "node", "health", "why"),
    [
        (HostState.HALFWAY, None, (UP, UP), ""),
        (HostState.OUT, None, (UP, UP), ""),
        (HostState.HALFWAY, "new", (UP, UP, DOWN), ""),
        (HostState.HALFWAY, None, (UP, UP, UP), "of which no Node tells"),
        (HostState.OUT, "new", (UP, UP), "has not joined as it"),
        (HostState.JOINED, "new", (UP, UP, DOWN), "its member of etcd is not healthy"),
    ],
)
def test_only_what_the_own_join_has_left_is_reset(joined_again, state, node, health, why):
    joined_again.new.state = state
    joined_again.nodes["now"] = replace(NODE, uid=node) if node else None
    joined_again.seen["members"] = members(*health)
    lost = replace(LOST, member_id="9")

    if why:
        with pytest.raises(Refused, match=why):
            halfway.refuse_to_take_a_name(joined_again.wanted, lost)
    else:
        halfway.refuse_to_take_a_name(joined_again.wanted, lost)


def test_a_worker_is_not_asked_for_a_member(joined_again):
    joined_again.seen["members"] = members(UP, UP, UP)
    worker = replace(joined_again.wanted, is_control_plane=False)

    halfway.refuse_to_take_a_name(worker, replace(LOST, member_id=""))


def test_going_back_deletes_the_node_after_the_reset_and_takes_the_mark_off_last(joined_again):
    joined_again.nodes["now"] = replace(NODE, uid="new")

    joining.leave.fn(joined_again.wanted, LOST, READY)

    assert joined_again.log == ["leave-cluster", " ".join(DELETED), f"rm -f {MARK}"]


def test_going_back_leaves_the_node_of_another_host_of_that_name(joined_again):
    joined_again.nodes["now"] = replace(NODE, uid="new", is_ready=True)
    joined_again.new.state = HostState.OUT

    joining.leave.fn(joined_again.wanted, LOST, READY)

    assert joined_again.log == ["leave-cluster"]


def test_going_back_tells_of_a_member_that_the_reset_has_left(joined_again):
    joined_again.nodes["now"] = replace(NODE, uid="new")
    joined_again.seen["members"] = members(UP, UP, DOWN)

    with pytest.raises(NotVerified, match="etcdctl member remove 3"):
        joining.leave.fn(joined_again.wanted, replace(LOST, member_id="9"), READY)


class MarkedHost(NoHost):
    """A host that is asked how far its join has come, and for nothing else."""

    def __init__(self, state):
        super().__init__("root@h3")
        self.state = state

    def read(self, argv, *, as_root):
        assert MARK in argv
        assert as_root
        return Answer("sh", self.label, 0, f"{self.state}\n" if self.state else "", "")


@pytest.mark.parametrize("is_control_plane", [True, False])
@pytest.mark.parametrize(
    ("state", "verdict"),
    [
        (HostState.HALFWAY, Verdict.HALF_DONE),
        (HostState.JOINED, Verdict.DONE),
        (HostState.OUT, Verdict.NOT_DONE),
    ],
)
def test_a_join_has_ended_when_its_host_says_so_whatever_the_cluster_shows(
    monkeypatch, state, verdict, is_control_plane
):
    """A Node that comes while this host has joined nothing is that of the lost one."""
    new = replace(NODE, uid="uid-new", is_ready=True)
    monkeypatch.setattr(joining, "node_now", lambda *_: new)
    monkeypatch.setattr(joining, "members_seen", lambda _: members(UP, UP, UP))
    wanted = replace(
        WANTED,
        survivors=(NoHost("root@cp1"),),
        new_host=MarkedHost(state),
        is_control_plane=is_control_plane,
    )

    assert is_joined(wanted, LOST) is verdict


@pytest.mark.parametrize(
    ("marked", "has_conf", "state"),
    [
        (False, False, HostState.OUT),
        (False, True, HostState.JOINED),
        (True, True, HostState.HALFWAY),
        (True, False, HostState.HALFWAY),
    ],
)
def test_how_far_a_host_has_come_is_read_from_its_files(tmp_path, marked, has_conf, state):
    mark, conf = tmp_path / "mark", tmp_path / "kubelet.conf"
    for file, is_there in ((mark, marked), (conf, has_conf)):
        if is_there:
            file.touch()

    told = subprocess.run(
        ["sh", "-c", STATE, "how-far", mark, conf], capture_output=True, text=True, check=True
    )

    assert HostState(told.stdout.strip()) is state


@pytest.mark.parametrize(
    ("now", "own", "verdict"),
    [
        (None, [], Verdict.NOT_DONE),
        (NODE, [], Verdict.NOT_DONE),
        (replace(NODE, uid="new"), members(UP, UP), Verdict.HALF_DONE),
        (replace(NODE, uid="new"), members(UP, UP, UP, learner=3), Verdict.HALF_DONE),
        (replace(NODE, uid="new"), members(UP, UP, DOWN), Verdict.HALF_DONE),
        (replace(NODE, uid="new"), members(UP, UP, UP), Verdict.DONE),
    ],
)
def test_a_control_plane_node_has_joined_when_its_member_votes(monkeypatch, now, own, verdict):
    monkeypatch.setattr(joining, "node_now", lambda *_: now)
    monkeypatch.setattr(joining, "members_seen", lambda _: own)

    living = replace(LIVING, new_host=MarkedHost(HostState.JOINED))
    assert joining.is_joined(living, LOST) is verdict

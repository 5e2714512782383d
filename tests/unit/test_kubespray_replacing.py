"""What is due to replace a host, and what a person may ask for."""

import contextlib
from dataclasses import dataclass

import pytest

from recovery.errors import BadInput, Refused
from tasks.kubespray import edits, judging, orders, replacing, target
from tasks.kubespray.layout import CONTROL_PLANE, ETCD, WORKERS
from tasks.kubespray.reading import Found
from tasks.kubespray.recovering import Finding
from tasks.kubespray.target import Kubespray
from tests.unit.kubespray_inventory import PATH, inventory

NEW = "node9 ansible_host=10.0.0.9"
TEXT = inventory(3, 4)


@dataclass
class OneFile:
    """A machine with one file."""

    text: str
    label: str = "here"

    def text_of(self, argv, *, within_seconds=60):
        assert argv[:2] == ["cat", "--"]
        return self.text

    def session(self):
        return contextlib.nullcontext()


def due(step, old, *, new=NEW, is_gone=False, text=TEXT):
    order = Kubespray(OneFile(text), "/srv/kubespray", PATH)
    layout = judging.document_of(text, PATH).layout()
    wish = orders.replacement_wish(old, new, is_gone=is_gone)
    return step.fn(order, Found(edits.sha256(text), layout, "host", "here", "v2.28.0"), wish)


def between_and_after(found):
    between = edits.applied(TEXT, PATH, found.first.edit)
    after = edits.applied(between, PATH, found.second.edit)
    assert edits.sha256(between) == found.first.after == found.second.before
    assert edits.sha256(after) == found.second.after
    return judging.document_of(between, PATH).layout(), judging.document_of(after, PATH).layout()


def test_a_worker_is_joined_by_the_new_one_and_then_taken_out():
    found = due(replacing.worker_due, "node4")

    between, after = between_and_after(found)

    assert between.members(WORKERS) == ("node3", "node4", "node9")
    assert after.members(WORKERS) == ("node3", "node9")
    assert "node4" not in after.hosts
    assert between.of("node1", "etcd_member_name") == ""
    assert (found.members, found.nodes, found.is_even_meanwhile) == ((), ("node9",), False)


def test_the_first_host_of_the_control_plane_is_moved_behind_the_others_with_names_pinned():
    found = due(replacing.control_plane_due, "node1")

    between, after = between_and_after(found)

    for group in (CONTROL_PLANE, ETCD):
        assert between.members(group) == ("node2", "node3", "node1", "node9")
        assert after.members(group) == ("node2", "node3", "node9")
    assert [between.of(f"node{n}", "etcd_member_name") for n in (1, 2, 3, 9)] == [
        "etcd1", "etcd2", "etcd3", "etcd4",
    ]  # fmt: skip
    assert found.is_even_meanwhile
    assert found.members == ("etcd2", "etcd3", "etcd4")
    assert found.members_with("node1") == ("etcd2", "etcd3", "etcd4", "etcd1")


def test_one_that_is_gone_leaves_before_the_new_one_comes():
    found = due(replacing.control_plane_due, "node2", is_gone=True)

    between, after = between_and_after(found)

    assert between.members(ETCD) == ("node1", "node2", "node3")
    assert "node9" not in between.hosts
    assert after.members(ETCD) == ("node1", "node3", "node9")
    assert not found.is_even_meanwhile


def test_one_that_is_gone_and_the_first_is_left_to_the_other_recovery():
    with pytest.raises(Refused, match="recover-control-plane"):
        due(replacing.control_plane_due, "node1", is_gone=True)


def test_etcd_as_a_static_pod_is_refused_before_anything_is_changed():
    order = Kubespray(OneFile(TEXT), "/srv/kubespray", PATH)
    found = Found("", judging.document_of(TEXT, PATH).layout(), "kubeadm", "here", "v2.28.0")
    wish = orders.replacement_wish("node1", NEW, is_gone=False)

    with pytest.raises(BadInput, match="etcd_deployment_type"):
        replacing.control_plane_due.fn(order, found, wish)


@pytest.mark.parametrize(
    ("step", "old", "new", "field"),
    [
        (replacing.worker_due, "node3", NEW, "old"),
        (replacing.worker_due, "node8", NEW, "old"),
        (replacing.worker_due, "node4", "node1 ansible_host=10.0.0.1", "new"),
        (replacing.control_plane_due, "node4", NEW, "old"),
        (replacing.control_plane_due, "node2", "node4", "new"),
        (replacing.worker_due, "node4", "node4", "new"),
        (replacing.worker_due, "node4", "", "new"),
    ],
)
def test_names_that_do_not_fit_are_refused_with_the_field(step, old, new, field):
    with pytest.raises(BadInput) as refused:
        due(step, old, new=new)

    assert refused.value.field.startswith(field)
    assert refused.value.remedy


def test_a_second_run_finds_nothing_to_do():
    found = due(replacing.worker_due, "node4")
    between, _ = edits.applied(TEXT, PATH, found.first.edit), None
    after = edits.applied(between, PATH, found.second.edit)

    again = due(replacing.worker_due, "node4", text=after)

    assert again.finding is Finding.WELL
    assert again.first.is_none
    assert again.second.is_none


def test_playbooks_get_typed_variables_and_never_ask():
    wish = orders.replacement_wish("node1", NEW, is_gone=True)
    found = due(replacing.control_plane_due, "node2", is_gone=True)

    variables = dict(orders.remove_playbook(wish, found, 60).variables)

    assert variables == {
        "node": "node1",
        "skip_confirmation": True,
        "reset_nodes": False,
        "allow_ungraceful_removal": True,
    }
    assert orders.facts_playbook(wish, "facts.yml", 60).limit == "all:!node1"
    assert orders.scale_playbook(wish, 60).limit == "node9"


@pytest.mark.parametrize(
    ("ask", "field"),
    [
        (lambda: orders.recovery_wish([], None, "", comes_back=False), "broken"),
        (lambda: orders.recovery_wish(["a", "a"], None, "", comes_back=False), "broken"),
        (lambda: orders.recovery_wish(["a; rm"], None, "", comes_back=False), "broken"),
        (lambda: orders.recovery_wish(["a"], ["b"], "", comes_back=True), "new"),
        (lambda: orders.recovery_wish(["a"], ["b", "b"], "", comes_back=False), "new"),
        (lambda: orders.recovery_wish(["a"], ["b 'x"], "", comes_back=False), "new"),
        (lambda: orders.recovery_wish(["a"], None, "x.db", comes_back=False), "etcd_snapshot"),
        (lambda: orders.settling_playbook(0, 60), "etcd_retries"),
        (lambda: orders.settling_playbook(10, 0), "within_minutes"),
        (lambda: target.kubespray("k", "/i", "", "", "ansible-playbook"), "project"),
        (lambda: target.kubespray("/k", "/i/../x", "", "", "ansible-playbook"), "inventory"),
        (lambda: target.kubespray("/k", "/i", "", "", "ansible"), "ansible_playbook"),
    ],
)
def test_bad_input_is_refused_with_its_field_and_a_remedy(ask, field):
    with pytest.raises(BadInput) as refused:
        ask()

    assert refused.value.field.startswith(field)
    assert refused.value.remedy


def test_a_secret_of_a_new_host_is_refused_without_being_repeated():
    for variable in ("ansible_become_pass", "kubeadm_certificate_key", "x_token"):
        with pytest.raises(BadInput) as refused:
            target.new_hosts([f"node9 {variable}=hunter2"])

        assert variable in refused.value.seen
        assert "hunter2" not in str(refused.value)
    assert target.new_hosts(["node9 ansible_private_key_file=/k"])[0].name == "node9"

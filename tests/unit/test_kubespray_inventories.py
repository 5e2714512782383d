"""Inventories of kubespray: read, judged and changed without touching what is not meant."""

import os
from pathlib import Path

import pytest
import yaml

from recovery.errors import BadInput
from tasks.kubespray import edits, judging
from tasks.kubespray.layout import (
    BROKEN_CONTROL_PLANE,
    BROKEN_ETCD,
    CONTROL_PLANE,
    ETCD,
    WORKERS,
    NewHost,
)

SHARED = Path(
    os.environ.get("RECOVER_TEST_DATA", Path(__file__).resolve().parents[3] / "shared" / "data")
)
INI = """\
# The cluster of the first floor
[kube_control_plane]
node1 ansible_host=10.0.0.1  # rack 4; "old" disk
; a remark on the next
node2 ansible_host=10.0.0.2 ansible_password='a b#c'
node3\tansible_host=10.0.0.3

[etcd:children]
kube_control_plane

[kube_node]
node4 ansible_host=10.0.0.4

[all:vars]
ansible_user=ops
"""
YAML = """\
---
# The cluster of the first floor
all:
  hosts:
    node1:
      ansible_host: 10.0.0.1  # rack 4
      ip: "10.0.0.1"
    node2: {ansible_host: 10.0.0.2}
    node3:
      ansible_host: 10.0.0.3
    node4:
      ansible_host: 10.0.0.4
  children:
    kube_control_plane:
      hosts:
        node1:
        node2:  # the spare one
        node3:
    # members of etcd
    etcd:
      hosts:
        node1:
        node2:
        node3:
    kube_node:
      hosts:
        node4:
    k8s_cluster:
      children:
        kube_control_plane:
        kube_node:
"""
NEW = NewHost.of("node5", [("ansible_host", "10.0.0.5")])
FORMS = [(INI, "inventory.ini"), (YAML, "hosts.yaml")]
each_form = pytest.mark.parametrize(("text", "path"), FORMS, ids=["ini", "yaml"])


def layout_of(text, path):
    return judging.document_of(text, path).layout()


def judged(text, path="inventory.ini"):
    layout = layout_of(text, path)
    judging.refuse_malformed(layout)
    return layout


def edit_for(text, path, survivors, broken, new=()):
    comes_back = not new
    layout = judged(text, path)
    return edits.recovery_edit(layout, survivors, broken, new, comes_back=comes_back)


@each_form
def test_what_is_not_changed_stays_to_the_byte(text, path):
    assert judging.document_of(text, path).text() == text
    assert edits.change_of(text, path, edits.Edit()).is_none


@each_form
def test_survivors_come_first_and_every_member_keeps_its_name(text, path):
    edit = edit_for(text, path, ["node3", "node2"], ["node1"], [NEW])

    after = layout_of(edits.applied(text, path, edit), path)

    assert after.members(ETCD) == ("node3", "node2", "node5")
    assert after.members(CONTROL_PLANE) == ("node3", "node2", "node5")
    assert after.members(BROKEN_ETCD) == after.members(BROKEN_CONTROL_PLANE) == ("node1",)
    assert after.members(WORKERS) == ("node4",)
    names = {host: after.of(host, "etcd_member_name") for host in after.hosts}
    assert names == {
        "node1": "etcd1",
        "node2": "etcd2",
        "node3": "etcd3",
        "node4": "",
        "node5": "etcd4",
    }
    assert after.of("node1", "ansible_host") == "10.0.0.1"


@each_form
def test_comments_outlive_a_change_and_its_end_leaves_no_trace_of_the_lost(text, path):
    edit = edit_for(text, path, ["node2", "node3"], ["node1"], [NEW])
    between = edits.applied(text, path, edit)

    ended = edits.applied(between, path, edits.closing_edit(["node1"], comes_back=False))

    assert "The cluster of the first floor" in ended
    assert "node1" not in ended
    assert layout_of(ended, path).members(BROKEN_ETCD) == ()
    judged(ended, path)


@each_form
def test_one_that_comes_back_stays_behind_the_survivors_and_is_broken_as_well(text, path):
    edit = edit_for(text, path, ["node2", "node3"], ["node1"])

    after = layout_of(edits.applied(text, path, edit), path)

    assert after.members(ETCD) == ("node2", "node3", "node1")
    assert after.members(BROKEN_ETCD) == ("node1",)
    assert after.of("node1", "etcd_member_name") == "etcd1"


@each_form
def test_a_change_made_twice_changes_nothing_the_second_time(text, path):
    edit = edit_for(text, path, ["node2", "node3"], ["node1"], [NEW])

    once = edits.applied(text, path, edit)
    only_groups = edits.Edit(edit.pins, (), edit.groups)

    assert edits.applied(once, path, only_groups) == once


def test_a_password_in_a_line_that_changes_is_masked_in_the_diff():
    edit = edit_for(INI, "inventory.ini", ["node2", "node3"], ["node1"])

    diff = str(edits.change_of(INI, "inventory.ini", edit))

    assert "ansible_password=•••" in diff
    assert "a b#c" not in diff
    assert "node2" in diff
    for name in ("kubeadm_certificate_key", "vault_key", "db_password"):
        assert edits.masked(f"  {name}: hunter2") == f"  {name}: •••"
        assert edits.masked(f'  "{name}": hunter2') == f'  "{name}": •••'
    assert edits.masked("ansible_private_key_file=/k") == "ansible_private_key_file=/k"


@pytest.mark.parametrize("start", ["|", ">-", "!vault |", "|2  # a key"])
def test_a_secret_of_several_lines_is_in_no_diff(start):
    text = (
        f"all:\n  vars:\n    vault_key: {start}\n      hunter2\n\n      hunter3\n    ip: 10.0.0.1\n"
    )

    lines = edits.masked_lines(text)

    assert "hunter" not in "\n".join(lines)
    assert lines[2:] == [
        f"    vault_key: {start}",
        "      •••",
        "",
        "      •••",
        "    ip: 10.0.0.1",
    ]


ALIASED = YAML.replace("    node2: {ansible_host: 10.0.0.2}", "    node2: &same {x: 1}").replace(
    "    node3:\n      ansible_host: 10.0.0.3", "    node3: *same"
)


def test_members_that_share_their_variables_by_an_alias_get_a_name_each():
    edit = edit_for(ALIASED, "hosts.yaml", ["node3", "node2"], ["node1"], [NEW])

    after = layout_of(edits.applied(ALIASED, "hosts.yaml", edit), "hosts.yaml")

    names = [after.of(f"node{n}", "etcd_member_name") for n in (1, 2, 3, 5)]
    assert names == ["etcd1", "etcd2", "etcd3", "etcd4"]
    assert [after.of(f"node{n}", "x") for n in (2, 3)] == ["1", "1"]


def test_an_inventory_in_which_a_change_reaches_another_group_is_refused_with_its_name():
    text = """\
all:
  children:
    etcd: {hosts: &three {node1: {}, node2: {}, node3: {}}}
    calico_rr: {hosts: *three}
"""
    edit = edits.Edit(groups=((ETCD, ("node2", "node3", "node1")),))

    with pytest.raises(BadInput) as refused:
        edits.applied(text, "hosts.yaml", edit)

    assert refused.value.field == "inventory, calico_rr"
    assert "without & and *" in refused.value.remedy


def test_a_group_inside_another_that_is_written_anew_keeps_its_hosts_and_their_variables():
    text = """\
all:
  children:
    etcd:
      hosts: {node9: {ip: 10.0.0.9}}
      children:
        kube_control_plane: {hosts: {node1: {ip: 10.0.0.1}, node2: {ip: 10.0.0.2}}}
"""
    edit = edits.Edit(groups=((ETCD, ("node2", "node9")),))

    after = layout_of(edits.applied(text, "hosts.yaml", edit), "hosts.yaml")

    assert after.members(ETCD) == ("node2", "node9")
    assert after.members(CONTROL_PLANE) == ("node1", "node2")
    assert after.of("node1", "ip") == "10.0.0.1"


MALFORMED = {
    "a-quote-left-open": (INI.replace("'a b#c'", "'a b"), "line 5", "Close the quotation mark"),
    "a-heading-left-open": (INI.replace("[kube_node]", "[kube_node"), "line 11", "[group]"),
    "an-unknown-kind-of-section": (INI.replace(":vars", ":variables"), "line 14", ":vars"),
    "a-variable-with-blanks": (INI.replace("=10.0.0.4", " = 10.0.0.4"), "line 12", "no blanks"),
    "a-range-of-hosts": (INI.replace("node4", "node[4:6]"), "line 12", "a line of its own"),
    "a-host-twice-in-a-group": (INI + "[kube_node]\nnode4\n", "line 17", "one of the two"),
    "a-child-that-is-no-group": (INI + "[k8s:children]\nkube_nodes\n", "k8s", "[kube_nodes]"),
    "old-names-of-groups": (INI.replace("kube_control_plane", "kube-master"), "kube-master", "Re"),
    "an-even-number-of-etcd": (INI.replace("node3\tansible_host=10.0.0.3\n", ""), "etcd", "odd"),
    "no-control-plane": ("node1\n[etcd]\nnode1\n", "kube_control_plane", "List the hosts"),
    "one-name-for-two-members": (
        INI.replace("=10.0.0.1 ", "=10.0.0.1 etcd_member_name=etcd2 "),
        "etcd",
        "etcd_member_name of every host",
    ),
    "one-address-for-two": (INI.replace("10.0.0.3", "10.0.0.1"), "node3", "Correct one"),
    "what-an-earlier-run-has-left": (INI + "[broken_etcd]\nnode1\n", "broken_etcd", "Empty"),
    "an-encrypted-file": ("$ANSIBLE_VAULT;1.1;AES256\n6162\n", "inventory", "group_vars"),
    "a-program": ("#!/bin/sh\necho {}\n", "inventory", "in a file"),
    "an-empty-file": (" \n", "inventory", "built with"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_one_is_refused_with_its_place_and_a_remedy(name):
    text, place, remedy = MALFORMED[name]

    with pytest.raises(BadInput) as refused:
        judged(text)

    assert place in refused.value.field
    assert remedy in f"{refused.value.seen} {refused.value.remedy}"
    assert "a b" not in str(refused.value)


MALFORMED_YAML = {
    "no-yaml": (YAML.replace("all:", "all: ["), "inventory", "Correct that place"),
    "a-tab": (YAML.replace("    node3:", "\tnode3:"), "inventory", "Correct"),
    "hosts-as-a-list": ("all:\n  hosts:\n    - node1\n", "all.hosts", "a colon"),
    "a-key-that-no-group-has": (YAML.replace("children:", "groups:", 1), "all.groups", "hosts:"),
    "a-host-as-a-text": (YAML.replace("{ansible_host: 10.0.0.2}", "x"), "hosts.node2", "name: v"),
    "a-key-twice": (YAML.replace("    node4:\n", "    node3:\n", 1), "inventory", "Correct"),
    "a-list": ("- node1\n", "inventory", "children:"),
    "a-range": (YAML.replace("node4:", '"node[4:5]":'), "hosts", "by itself"),
}


@pytest.mark.parametrize("name", MALFORMED_YAML)
def test_a_malformed_one_in_yaml_is_refused_with_its_place_and_a_remedy(name):
    text, place, remedy = MALFORMED_YAML[name]

    with pytest.raises(BadInput) as refused:
        judged(text, "hosts.yaml")

    assert place in refused.value.field
    assert remedy in f"{refused.value.seen} {refused.value.remedy}"


# Who is in which group, one text a host, as kubespray's own tests lay out their clusters.
SCENARIOS = {
    "separate": ["kube_control_plane", "kube_node", "etcd"],
    "all-in-one": ["kube_control_plane etcd kube_node"],
    "default": ["kube_control_plane etcd", "kube_node"],
    "ha": ["kube_control_plane etcd", "kube_control_plane etcd", "kube_node etcd"],
    "node-etcd-client": [
        "kube_node kube_control_plane etcd",
        "kube_node etcd",
        "kube_node etcd",
        "kube_node",
    ],
}


def inventory_of(scenario, form):
    hosts = {f"instance-{n}": groups.split() for n, groups in enumerate(scenario, 1)}
    groups = {
        group: [host for host, own in hosts.items() if group in own]
        for group in ("kube_control_plane", "etcd", "kube_node")
    }
    if form == "yaml":
        return yaml.safe_dump(
            {
                "all": {
                    "hosts": {host: {"ansible_host": f"10.0.0.{host[-1]}"} for host in hosts},
                    "children": {
                        group: {"hosts": dict.fromkeys(names)} for group, names in groups.items()
                    },
                }
            },
            sort_keys=False,
        )
    lines = [f"{host} ansible_host=10.0.0.{host[-1]}" for host in hosts]
    for group, names in groups.items():
        lines += ["", f"[{group}]", *names]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("form", ["ini", "yaml"])
@pytest.mark.parametrize("name", SCENARIOS)
def test_every_layout_of_a_cluster_loses_its_last_member_and_gets_another(name, form):
    text, path = inventory_of(SCENARIOS[name], form), f"hosts.{form}"
    layout = judged(text, path)
    *survivors, lost = dict.fromkeys([*layout.members(CONTROL_PLANE), *layout.members(ETCD)])
    edit = edit_for(text, path, survivors, [lost], [NEW])

    after = layout_of(edits.applied(text, path, edit), path)

    assert len(after.members(ETCD)) == len(layout.members(ETCD))
    assert lost not in after.members(ETCD)
    assert lost in {*after.members(BROKEN_ETCD), *after.members(BROKEN_CONTROL_PLANE)}
    assert after.of("node5", "ansible_host") == "10.0.0.5"
    if survivors and set(survivors) & set(layout.members(ETCD)):
        assert after.members(ETCD)[0] in survivors


def real(name):
    file = SHARED / "kubespray" / name
    if not file.exists():
        pytest.skip("RECOVER_TEST_DATA names no inventories")
    return file.read_text()


def test_the_local_inventory_that_kubespray_brings_is_taken():
    layout = judged(real("inventory__local__hosts.ini"))

    assert layout.members(ETCD) == layout.members(CONTROL_PLANE) == ("node1",)


def test_its_sample_has_no_host_yet_and_is_refused_for_that_until_it_has():
    text = real("inventory__sample__inventory.ini")
    with pytest.raises(BadInput, match="kube_control_plane"):
        judged(text)

    filled = text.replace("# node", "node")
    layout = judged(filled)
    edit = edit_for(filled, "inventory.ini", ["node2", "node3"], ["node1"], [NEW])
    after = layout_of(edits.applied(filled, "inventory.ini", edit), "inventory.ini")

    assert layout.members(ETCD) == ("node1", "node2", "node3")
    assert after.members(ETCD) == ("node2", "node3", "node5")


@pytest.mark.parametrize(
    "name",
    [
        "inventory__sample__group_vars__all__etcd.yml",
        "tests__cloud_playbooks__roles__packet-ci__vars__main.yml",
    ],
)
def test_a_file_of_variables_is_no_inventory(name):
    with pytest.raises(BadInput) as refused:
        judged(real(name), name)

    assert refused.value.remedy


def test_a_password_of_several_words_and_one_in_a_url_are_masked_whole():
    assert edits.masked("ansible_become_password: correct horse battery # of h1") == (
        "ansible_become_password: ••• # of h1"
    )
    assert edits.masked("h1 ansible_password=a b ansible_host=10.0.0.1") == (
        "h1 ansible_password=••• ansible_host=10.0.0.1"
    )
    assert edits.masked('http_proxy: "http://ada:s3cret@proxy:3128"') == (
        'http_proxy: "http://•••@proxy:3128"'
    )


@pytest.mark.parametrize(
    "host", [NEW, NewHost.of("node5", [("ansible_host", "10.0.0.5"), ("etcd_member_name", "mine")])]
)
def test_every_new_host_of_etcd_has_a_name_also_one_that_brings_its_own(host):
    names = dict(edits.pins(layout_of(INI, "inventory.ini"), (host,)))

    assert names[host.name] == dict(host.variables).get("etcd_member_name", names[host.name])
    assert len({*names.values()}) == len(names)

"""Whether an inventory is one that the playbooks can be trusted with. Pure; no host is asked."""

from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

from recovery.errors import BadInput
from tasks.kubespray.ini_inventory import IniInventory
from tasks.kubespray.layout import (
    BROKEN_CONTROL_PLANE,
    BROKEN_ETCD,
    CONTROL_PLANE,
    ETCD,
    MEMBER_NAME,
    Document,
    Layout,
)
from tasks.kubespray.yaml_inventory import YamlInventory

OLD_NAMES = {"kube-master": CONTROL_PLANE, "kube-node": "kube_node"}
YAML_ENDS = (".yaml", ".yml", ".json")
VAULT = "$ANSIBLE_VAULT"
ANY_COUNT = "ignore_assert_errors"


def document_of(text: str, path: str, field: str = "inventory") -> Document:
    """Read an inventory in the form that its name says, as Ansible does.

    Raises:
        BadInput: it cannot be read; names the line or place, and what to write instead.
    """
    if text.startswith(VAULT):
        raise BadInput(
            field, f"{path} is encrypted", "Keep secrets in group_vars; hosts and groups in clear"
        )
    if text.startswith("#!"):
        raise BadInput(field, f"{path} is a program", "Give an inventory in a file")
    if not text.strip():
        raise BadInput(field, f"{path} is empty", "Give the inventory the cluster was built with")
    if PurePosixPath(path).suffix in YAML_ENDS:
        return YamlInventory(text, field)
    return IniInventory(text, field)


def refuse_malformed(layout: Layout, field: str = "inventory") -> None:
    """Refuse an inventory that no cluster was built with, or that an earlier recovery has left.

    Raises:
        BadInput: names the group or host, and what to write.
    """
    for wrong in _wrongs(layout):
        group, seen, remedy = wrong
        raise BadInput(f"{field}, {group}", seen, remedy)


def member_names(layout: Layout) -> dict[str, str]:
    """The name in etcd of each of its hosts: as set, else by its place in the group."""
    return {
        host: layout.of(host, MEMBER_NAME) or f"etcd{place}"
        for place, host in enumerate(layout.members(ETCD), 1)
    }


def _wrongs(layout: Layout) -> Iterable[tuple[str, str, str]]:
    for old, new in OLD_NAMES.items():
        if old in layout.groups:
            yield old, "this name of a group is no longer known", f"Rename it to {new}"
    yield from _undefined(layout)
    control_plane, etcd = layout.members(CONTROL_PLANE), layout.members(ETCD)
    for group, hosts in ((CONTROL_PLANE, control_plane), (ETCD, etcd)):
        if not hosts:
            yield group, "it has no host", f"List the hosts of the cluster under {group}"
    if len(etcd) % 2 == 0:
        yield (
            ETCD,
            f"{len(etcd)} hosts, and the playbooks take an odd number only",
            "List the members that the cluster has or is to have: 1, 3 or 5",
        )
    names = list(member_names(layout).values())
    if twice := [name for name in names if names.count(name) > 1]:
        yield (
            ETCD,
            f"{twice[0]} is the {MEMBER_NAME} of several hosts, as set or by their place",
            f"Set {MEMBER_NAME} of every host of etcd to its name in `etcdctl member list`",
        )
    for group, whole in ((BROKEN_ETCD, etcd), (BROKEN_CONTROL_PLANE, control_plane)):
        left = [host for host in layout.members(group) if host not in whole]
        if left or layout.members(group):
            yield (
                group,
                f"it has {(left or layout.members(group))[0]} already",
                "Empty the group: the hosts that are broken now are given by name",
            )
    yield from _one_place_twice(layout, [*control_plane, *etcd])


def _undefined(layout: Layout) -> Iterable[tuple[str, str, str]]:
    for name, group in layout.groups.items():
        for child in group.children:
            if child not in layout.groups:
                yield name, f"its child {child} is no group", f"Write [{child}], or remove it"


def _one_place_twice(layout: Layout, hosts: Sequence[str]) -> Iterable[tuple[str, str, str]]:
    seen: dict[str, str] = {}
    for host in dict.fromkeys(hosts):
        for address in filter(None, (layout.of(host, "ansible_host"), layout.of(host, "ip"))):
            other = seen.setdefault(address, host)
            if other != host:
                yield host, f"it has the address {address} of {other}", "Correct one of the two"

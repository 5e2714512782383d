"""What an Ansible inventory says: its hosts with their variables, and its groups in their order."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, Self

MEMBER_NAME = "etcd_member_name"
CONTROL_PLANE, ETCD, WORKERS = "kube_control_plane", "etcd", "kube_node"
BROKEN_ETCD, BROKEN_CONTROL_PLANE = "broken_etcd", "broken_kube_control_plane"
ADDRESSES = ("ansible_host", "ip", "access_ip")


@dataclass(frozen=True)
class Group:
    """A group: the hosts listed in it, and the groups whose hosts are in it as well."""

    hosts: tuple[str, ...] = ()
    children: tuple[str, ...] = ()


@dataclass(frozen=True)
class Layout:
    """An inventory as read. Variables are those of the file itself, as text."""

    variables: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    groups: Mapping[str, Group] = field(default_factory=dict)

    @property
    def hosts(self) -> tuple[str, ...]:
        """All hosts, in the order in which they are first named."""
        return tuple(self.variables)

    def members(self, group: str) -> tuple[str, ...]:
        """The hosts of a group as Ansible orders them: its own, then those of its children."""
        found: dict[str, None] = {}
        self._gather(group, found, set())
        return tuple(found)

    def of(self, host: str, name: str) -> str:
        """A variable of a host; empty where the file does not set it."""
        return self.variables.get(host, {}).get(name, "")

    def addresses(self, host: str) -> tuple[str, ...]:
        """By what a host is reached: its addresses, and its name."""
        named = [self.of(host, name) for name in ADDRESSES]
        return tuple(dict.fromkeys([*filter(None, named), host]))

    def _gather(self, name: str, found: dict[str, None], seen: set[str]) -> None:
        group = self.groups.get(name)
        if group is None or name in seen:
            return
        seen.add(name)
        found.update(dict.fromkeys(group.hosts))
        for child in group.children:
            self._gather(child, found, seen)


class Document(Protocol):
    """A file that can be changed in place: what is not changed stays as it is, to the byte."""

    def layout(self) -> Layout:
        """What it says now."""

    def set_group(self, name: str, hosts: Sequence[str]) -> None:
        """Let a group have these hosts in this order; one that is not there is made."""

    def set_variable(self, host: str, name: str, value: str) -> None:
        """Set a variable of a host that is there."""

    def add_host(self, name: str, variables: Mapping[str, str]) -> None:
        """Name a new host with its variables."""

    def remove_host(self, name: str) -> None:
        """Take a host out of all groups, with its variables."""

    def text(self) -> str:
        """The file."""


@dataclass(frozen=True)
class NewHost:
    """A host that is to come in: as a line of an inventory, `node4 ansible_host=10.0.0.4`."""

    name: str
    variables: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, name: str, variables: Iterable[tuple[str, str]]) -> Self:
        """Make one."""
        return cls(name, tuple(variables))

    @property
    def addresses(self) -> tuple[str, ...]:
        """By what it is reached: its addresses, and its name."""
        return Layout({self.name: dict(self.variables)}).addresses(self.name)

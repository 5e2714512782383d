"""The etcd that is recovered: the hosts of its members, and what runs it on each."""

import re
from dataclasses import dataclass
from pathlib import Path

from blocks.inventory import hosts_named, leased_places, place_of
from blocks.ssh.host import SshHost
from recovery.errors import BadInput
from recovery.walk import current_fence
from tasks.services import checked_name

COPIES = "/var/lib/recover/copies"
UNIT = "etcd"


@dataclass(frozen=True)
class EtcdCluster:
    """An etcd. The label is what a recovery of it leases.

    Attributes:
        name: of the inventory.
        hosts: of all its members, also of those that are gone.
        unit: the systemd unit that runs it on each; its static pod is found without.
        copies: folder on the hosts that snapshots are kept in.
    """

    name: str
    hosts: tuple[SshHost, ...]
    unit: str = UNIT
    copies: str = COPIES

    @property
    def label(self) -> str:
        """Its name in messages and as a target."""
        return f"etcd:{self.name}"

    @property
    def folder(self) -> str:
        """Where this recovery keeps what it needs on a host."""
        return f"{self.copies}/etcd-{current_fence().recovery_id}"

    def host(self, place: str) -> SshHost:
        """The host of this name."""
        return next(host for host in self.hosts if place_of(host) == place)


def etcd_cluster(hosts: str, unit: str = UNIT, copies: str = COPIES) -> EtcdCluster:
    """Read the parameters that name an etcd.

    Raises:
        BadInput: one of them is malformed.
    """
    if not re.fullmatch(r"/[A-Za-z0-9._/-]+", copies) or ".." in copies:
        raise BadInput("copies_in", f"{copies!r} is no plain absolute path", "Start it with /")
    inventory = hosts_named(hosts)
    return EtcdCluster(inventory.label, inventory.hosts, checked_name(unit), copies.rstrip("/"))


def absolute_path(field: str, path: str) -> str:
    """Return the path of a file on the worker; empty stays empty.

    Raises:
        BadInput: it is relative, and a worker stands in another folder.
    """
    if path and not Path(path).is_absolute():
        raise BadInput(field, f"{path!r} is no absolute path", "Start it with /")
    return path


def etcd_target(hosts: str) -> str:
    """The label of the etcd that the parameters name."""
    return f"etcd:{hosts_named(hosts).label}"


def etcd_hosts(hosts: str) -> list[str]:
    """What is leased along with it: its hosts, so that nobody reboots them meanwhile."""
    return leased_places(hosts_named(hosts).hosts)


def triage_target(hosts: str) -> str:
    """What a look at it leases: not the etcd itself, which may be in repair."""
    return f"triage of {etcd_target(hosts)}"

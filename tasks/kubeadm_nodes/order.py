"""What is to be replaced by what: read from the parameters before anything is touched."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from blocks.inventory import Inventory, host_named, hosts_named, leased_places
from blocks.ssh.host import SshHost
from recovery.errors import BadInput

NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")


@dataclass(frozen=True)
class Replacement:
    """A node that is lost, the host that takes its place, and the control plane it belongs to.

    Attributes:
        survivors: control-plane hosts that live, from which everything else is asked.
        node: name of the lost node.
        new_host: the host to join.
        new_name: the name of its node.
        is_control_plane: whether a control-plane node is replaced, or a worker.
        within_seconds: how long the join, and then the node, may take.
    """

    survivors: tuple[SshHost, ...]
    node: str
    new_host: SshHost
    new_name: str
    is_control_plane: bool
    within_seconds: float

    @property
    def label(self) -> str:
        """The node that is replaced."""
        return self.node


def replacement_of(  # noqa: PLR0913 (each is a field of the form)
    hosts: str,
    node: str,
    new_host: str,
    new_name: str,
    within_seconds: float,
    *,
    is_control_plane: bool,
) -> Replacement:
    """Read the parameters.

    Raises:
        BadInput: one of them is malformed, or the new host is one of the control plane.
    """
    for field, name in (("node", node), ("new_name", new_name or node)):
        if not NAME.fullmatch(name):
            raise BadInput(field, f"{name!r} is no name of a node", "See `kubectl get nodes`")
    if within_seconds < 1:
        raise BadInput("within_seconds", f"{within_seconds} is no time", "Give 1 or more")
    leased(hosts, new_host)
    return Replacement(
        hosts_named(hosts).hosts,
        node,
        host_named(new_host, "new_host"),
        new_name or node,
        is_control_plane,
        float(within_seconds),
    )


def leased(hosts: str, new_host: str) -> Sequence[str]:
    """What a replacement leases beside its target: every host, by every name known of it.

    Raises:
        BadInput: the new host is one of those that live, or a host is given twice.
    """
    survivors, joining = hosts_named(hosts).hosts, host_named(new_host, "new_host")
    return leased_places([*survivors, joining], "new_host")


def hosts_label(hosts: str) -> str:
    """What the control plane is called."""
    return hosts_named(hosts).label


def inventory_of(replacement: Replacement) -> Inventory:
    """The control-plane hosts that live."""
    return Inventory(replacement.label, replacement.survivors)

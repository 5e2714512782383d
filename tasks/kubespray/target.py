"""The kubespray checkout and the inventory of a cluster, and the machine they lie on."""

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from blocks.deploy_machine import DeployMachine, deploy_machine
from blocks.inventory import Inventory, hosts_named, leased_places
from blocks.ssh.host import SshHost
from recovery.errors import BadInput
from recovery.secrecy.secret import Secret
from recovery.walk import current_fence
from tasks.kubespray.edits import SECRET_NAME
from tasks.kubespray.ini_inventory import IniInventory
from tasks.kubespray.layout import Layout, NewHost

PLAIN_PATH = re.compile(r"/[A-Za-z0-9._/+@-]+")
PROGRAM = re.compile(r"(/[A-Za-z0-9._/+@-]*/)?ansible-playbook")
KEPT = ".local/state/recover/kubespray"


@dataclass(frozen=True)
class Kubespray:
    """A checkout with an inventory. The label is what a recovery of the cluster leases.

    Attributes:
        machine: where both lie, and where playbooks are run.
        project: folder of the checkout.
        inventory: file of the inventory.
        hosts: hosts of etcd and the control plane that live, over SSH.
        program: ansible-playbook.
    """

    machine: DeployMachine
    project: str
    inventory: str
    hosts: Inventory | None = None
    program: str = "ansible-playbook"

    @property
    def label(self) -> str:
        """The inventory and the machine."""
        return f"kubespray:{self.inventory}@{self.machine.label}"

    @cached_property
    def home(self) -> str:
        """The home of the account that runs the playbooks."""
        return self.machine.home()

    @property
    def kept(self) -> str:
        """The folder of this recovery on the machine: saved inventories, events and logs."""
        return f"{self.home}/{KEPT}/{current_fence().recovery_id}"

    @cached_property
    def tools(self) -> str:
        """The folder of Ansible's programs with a slash at its end; empty: found by PATH."""
        return self.program.removesuffix("ansible-playbook")

    def host_of(self, name: str, layout: Layout) -> SshHost | None:
        """The host over SSH that a name in the inventory stands for, by its addresses."""
        wanted = set(layout.addresses(name))
        for host in self.hosts.hosts if self.hosts else ():
            if wanted & {host.address, *host.places}:
                return host
        return None


def kubespray(
    project: str,
    inventory: str,
    hosts: str,
    deploy_host: str,
    ansible_playbook: str,
) -> Kubespray:
    """Read the parameters that name a cluster's checkout and inventory.

    Raises:
        BadInput: one of them is malformed.
    """
    for name, path in (("project", project), ("inventory", inventory)):
        if not PLAIN_PATH.fullmatch(path) or ".." in path:
            raise BadInput(name, f"{path!r} is no plain absolute path", "Start it with /")
    if not PROGRAM.fullmatch(ansible_playbook):
        raise BadInput(
            "ansible_playbook",
            f"{ansible_playbook!r} is not ansible-playbook",
            "Give ansible-playbook, or its absolute path in an environment",
        )
    return Kubespray(
        deploy_machine(deploy_host),
        project.rstrip("/"),
        inventory,
        hosts_named(hosts) if hosts.strip() else None,
        ansible_playbook,
    )


def kubespray_target(project: str, inventory: str, deploy_host: str) -> str:
    """The label of the inventory that the parameters name."""
    return kubespray(project, inventory, "", deploy_host, "ansible-playbook").label


def kubespray_parts(hosts: str, deploy_host: str) -> list[str]:
    """What is leased along with it: the deploy host and the hosts named, under all their names."""
    named = leased_places(hosts_named(hosts).hosts) if hosts.strip() else []
    return list(dict.fromkeys([*deploy_machine(deploy_host).places, *named]))


def names_given(given: Sequence[str], field_name: str) -> tuple[str, ...]:
    """Names of hosts in the inventory, each once.

    Raises:
        BadInput: none is given, or one twice, or one is no name.
    """
    names = tuple(name.strip() for name in given)
    if not names:
        raise BadInput(field_name, "it is empty: empty means none, never all", "Name the hosts")
    for name in names:
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name):
            raise BadInput(field_name, f"{name!r} is no name of a host", "Name one host an entry")
    if len(set(names)) != len(names):
        raise BadInput(field_name, "a host is named twice", "Name each host once")
    return names


def new_hosts(given: Sequence[str], field_name: str = "new") -> tuple[NewHost, ...]:
    """Hosts that are to come in, each as a line of an inventory: `node4 ansible_host=10.0.0.4`.

    Raises:
        BadInput: a line is none.
    """
    found = []
    for line in given:
        layout = IniInventory(line.strip(), field_name).layout()
        if len(layout.hosts) != 1:
            raise BadInput(field_name, f"{line!r} names no host", "Write name ansible_host=ADDRESS")
        (name,) = layout.hosts
        for variable in layout.variables[name]:
            if SECRET_NAME.search(variable) and not variable.endswith("_file"):
                raise BadInput(
                    f"{field_name}, {name}",
                    f"it sets {variable}, and parameters are kept in clear",
                    f"Put it into host_vars/{name} of the inventory, with ansible-vault",
                )
        found.append(NewHost.of(name, layout.variables[name].items()))
    names_given([host.name for host in found], field_name) if found else ()
    return tuple(found)


def encoded(text: str) -> Secret:
    """A text on its way to a file: it may hold passwords; its lines are none by themselves."""
    return Secret(base64.b64encode(text.encode()).decode())

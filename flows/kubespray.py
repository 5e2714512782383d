"""Recover and replace hosts of a cluster that kubespray has built, through its own playbooks."""

from dataclasses import dataclass

from blocks.inventory import HostsParameter
from recovery.declare import recovery
from recovery.verdict import Danger
from tasks.kubespray import (
    by_role,
    editing,
    nodes,
    orders,
    playbooks,
    reading,
    recovering,
    removing,
    replacing,
    snapshots,
)
from tasks.kubespray.nodes import Whole
from tasks.kubespray.reading import Found
from tasks.kubespray.recovering import Finding
from tasks.kubespray.replacing import ReplacementDue, ReplacementWish
from tasks.kubespray.target import Kubespray, kubespray, kubespray_parts, kubespray_target

RUNBOOK = "docs/runbooks/kubespray.md"


@dataclass(frozen=True)
class Recovered:
    """What was found and what now holds. `inventory` is where the former one is kept."""

    finding: str
    now: Whole
    inventory: str = ""
    snapshot: str = ""


@recovery(
    runbook=RUNBOOK,
    target=kubespray_target,
    parts=kubespray_parts,
    answers=["etcdInsufficientMembers"],
    danger=Danger.DESTRUCTIVE,
)
def recover_control_plane(  # noqa: PLR0913, PLR0917 (each is a field of the form)
    project: str,
    inventory: str,
    hosts: HostsParameter,
    broken: list[str],
    new: list[str] | None = None,
    comes_back: bool = False,  # noqa: FBT001, FBT002 (a field of the form)
    etcd_retries: int = 10,
    etcd_snapshot: str = "",
    deploy_host: HostsParameter = "",
    ansible_playbook: str = "ansible-playbook",
    version: str = "",
    within_minutes: int = 240,
) -> Recovered:
    """Recover a control plane that has lost hosts, by kubespray's playbook of the same name.

    The inventory is changed before (survivors first, names in etcd pinned, the lost hosts in the
    broken groups) and cleaned up after. What the roles are known to do wrong is refused.

    Args:
        project: Folder of the kubespray checkout, on the machine that runs the playbooks.
        inventory: Path of the inventory file there, ini or YAML.
        hosts: Inventory block, file, or ssh:// URLs of the hosts that live.
        broken: Names of the lost hosts in the inventory.
        new: Hosts that take their places, each as a line: node4 ansible_host=10.0.0.4.
        comes_back: The lost hosts were installed anew and take their own places.
        etcd_retries: How often a role asks etcd before it gives up.
        etcd_snapshot: Path there of a snapshot for a lost quorum; empty: one is taken.
        deploy_host: Where the checkout is, over SSH; empty: on the worker itself.
        ansible_playbook: The program, or its absolute path.
        version: Tag that the cluster was built with; empty: not compared.
        within_minutes: How long the playbook may take.

    Runbook: docs/runbooks/kubespray.md, steps 1 to 10.
    """
    order = kubespray(project, inventory, hosts, deploy_host, ansible_playbook)
    wish = orders.recovery_wish(broken, new, etcd_snapshot, comes_back=comes_back)
    playbook = orders.recover_playbook(wish, etcd_retries, within_minutes)
    with order.machine.session():
        found = reading.inventory_found(order, version)
        due = recovering.recovery_due(order, found, wish)
        if due.finding is Finding.WELL:
            now = nodes.is_whole(order, found.layout, due.members, due.nodes, (), 300)
            return Recovered(due.finding, now)
        facts = reading.facts_file(order)
        by_role.refuse_traps(order, found, due, wish)
        snapshots.refuse_unless_given_is_there(order, etcd_snapshot)
        snapshots.keep_snapshot(order, found, due)
        editing.save_inventory(order, due.change, "before the playbook")
        editing.edit_inventory(order, due.change, "before the playbook", due.closing.after)
        playbooks.run_playbook(order, orders.control_plane_facts_playbook(facts, within_minutes))
        by_role.recover_by_role(order, playbook, found, due, wish)
        now = nodes.is_whole(order, found.layout, due.members, due.nodes, due.gone, 600)
        editing.save_inventory(order, due.closing, "after the playbook")
        editing.edit_inventory(order, due.closing, "after the playbook")
        return Recovered(
            due.finding, now, editing.copy_of(order, due.change), snapshots.snapshot_path()
        )


@dataclass(frozen=True)
class Replaced:
    """What was found and what now holds. `inventory` is where the former one is kept."""

    finding: str
    now: Whole
    inventory: str = ""


@recovery(
    runbook=RUNBOOK,
    target=kubespray_target,
    parts=kubespray_parts,
    answers=(),
    danger=Danger.DESTRUCTIVE,
)
def replace_worker_node(  # noqa: PLR0913, PLR0917 (each is a field of the form)
    project: str,
    inventory: str,
    hosts: HostsParameter,
    old: str,
    new: str,
    old_is_gone: bool = False,  # noqa: FBT001, FBT002 (a field of the form)
    deploy_host: HostsParameter = "",
    ansible_playbook: str = "ansible-playbook",
    version: str = "",
    within_minutes: int = 240,
) -> Replaced:
    """Replace a worker: the new one joins and is Ready before the old one is drained and removed.

    Args:
        project: Folder of the kubespray checkout, on the machine that runs the playbooks.
        inventory: Path of the inventory file there, ini or YAML.
        hosts: Inventory block, file, or ssh:// URLs of hosts of the control plane.
        old: Name in the inventory of the worker that leaves.
        new: The host that takes its place, as a line: node9 ansible_host=10.0.0.9.
        old_is_gone: Switched on where it answers no more: it is neither drained nor reset.
        deploy_host: Where the checkout is, over SSH; empty: on the worker itself.
        ansible_playbook: The program, or its absolute path.
        version: Tag that the cluster was built with; empty: not compared.
        within_minutes: How long each playbook may take.

    Runbook: docs/runbooks/kubespray.md, steps 1 and 11 to 16.
    """
    order = kubespray(project, inventory, hosts, deploy_host, ansible_playbook)
    wish = orders.replacement_wish(old, new, is_gone=old_is_gone)
    with order.machine.session():
        found = reading.inventory_found(order, version)
        due = replacing.worker_due(order, found, wish)
        if due.finding is Finding.BROKEN:
            facts = reading.facts_file(order)
            _begin(order, found, due, wish, "with both")
            playbooks.run_playbook(order, orders.facts_playbook(wish, facts, within_minutes))
            playbooks.run_playbook(order, orders.scale_playbook(wish, within_minutes))
            nodes.is_whole(order, found.layout, (), due.nodes, (), 600)
            leaving = orders.remove_playbook(wish, due, within_minutes)
            removing.remove_node(order, leaving, found, due, wish)
            nodes.is_whole(order, found.layout, (), due.nodes, (wish.old,), 600)
            _leave_out_old(order, due)
        now = nodes.is_whole(order, found.layout, (), due.nodes, (wish.old,), 60)
        return Replaced(due.finding, now, editing.copy_of(order, due.first))


@recovery(
    runbook=RUNBOOK,
    target=kubespray_target,
    parts=kubespray_parts,
    answers=["etcdMembersDown"],
    danger=Danger.DESTRUCTIVE,
)
def replace_control_plane_node(  # noqa: PLR0913, PLR0917 (each is a field of the form)
    project: str,
    inventory: str,
    hosts: HostsParameter,
    old: str,
    new: str,
    old_is_gone: bool = False,  # noqa: FBT001, FBT002 (a field of the form)
    etcd_retries: int = 10,
    deploy_host: HostsParameter = "",
    ansible_playbook: str = "ansible-playbook",
    version: str = "",
    within_minutes: int = 240,
) -> Replaced:
    """Replace a host of the control plane or of etcd while the others keep the quorum.

    One that lives stays until the new one is a healthy member and Ready; one that is gone leaves
    first. The first of its group is moved back before.

    Args:
        project: Folder of the kubespray checkout, on the machine that runs the playbooks.
        inventory: Path of the inventory file there, ini or YAML.
        hosts: All other hosts of etcd: name of an inventory, its file, or ssh://user@host URLs with
            blanks between them.
        old: Name in the inventory of the host that leaves.
        new: The host that takes its place, as a line: node9 ansible_host=10.0.0.9.
        old_is_gone: Switched on where it answers no more: it is neither drained nor reset.
        etcd_retries: How often a role asks etcd before it gives up.
        deploy_host: Where the checkout is, over SSH; empty: on the worker itself.
        ansible_playbook: The program, or its absolute path.
        version: Tag that the cluster was built with; empty: not compared.
        within_minutes: How long each playbook may take.

    Runbook: docs/runbooks/kubespray.md, steps 1 and 11 to 16.
    """
    order = kubespray(project, inventory, hosts, deploy_host, ansible_playbook)
    wish = orders.replacement_wish(old, new, is_gone=old_is_gone)
    with order.machine.session():
        found = reading.inventory_found(order, version)
        due = replacing.control_plane_due(order, found, wish)
        if due.finding is Finding.BROKEN:
            _begin(order, found, due, wish, "names pinned")
            if not wish.is_gone:
                joining = orders.joining_playbook(due, etcd_retries, within_minutes)
                playbooks.run_playbook(order, joining)
                meanwhile = due.members_with(wish.old)
                nodes.is_whole(order, found.layout, meanwhile, due.nodes, (), 600)
            leaving = orders.remove_playbook(wish, due, within_minutes)
            removing.remove_node(order, leaving, found, due, wish)
            _leave_out_old(order, due)
            ending = orders.settling_playbook(etcd_retries, within_minutes)
            playbooks.run_playbook(order, ending)
        now = nodes.is_whole(order, found.layout, due.members, due.nodes, (wish.old,), 600)
        return Replaced(due.finding, now, editing.copy_of(order, due.first))


def _begin(
    order: Kubespray, found: Found, due: ReplacementDue, wish: ReplacementWish, what: str
) -> None:
    """Let the inventory be as the playbooks need it while the old host is there."""
    removing.refuse_unless_as_said(order, found, wish)
    editing.save_inventory(order, due.first, "before")
    editing.edit_inventory(order, due.first, what, due.second.after)


def _leave_out_old(order: Kubespray, due: ReplacementDue) -> None:
    """Let the inventory be without the old host, now that it is out of the cluster."""
    editing.save_inventory(order, due.second, "without the old")
    editing.edit_inventory(order, due.second, "without the old")

"""The inventory as it lies there, and as Ansible itself understands it."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from recovery.errors import BadInput, CommandFailed, Refused, UnreadableOutput
from recovery.secrecy.redaction import redacted_head, redacted_tail
from recovery.steps import decision, probe
from tasks.kubespray import edits, judging
from tasks.kubespray.layout import (
    ADDRESSES,
    CONTROL_PLANE,
    ETCD,
    MEMBER_NAME,
    WORKERS,
    Group,
    Layout,
)
from tasks.kubespray.target import Kubespray

KEPT_VARIABLES = (*ADDRESSES, MEMBER_NAME)
ETCD_TYPE = "etcd_deployment_type"
FACTS = ("playbooks/facts.yml", "facts.yml")  # from v2.22 on, and up to v2.21
FIRST_OF = """cd "$1"
shift
for file; do
  [ ! -f "$file" ] || exec echo "$file"
done
"""


@dataclass(frozen=True)
class Found:
    """An inventory, and what it is used with.

    Attributes:
        sha256: of the file.
        layout: hosts and groups as Ansible reads them, with host_vars and group_vars.
        etcd_type: how etcd is deployed: host, docker or kubeadm; empty where nothing says so.
        machine: where it lies: playbooks are run nowhere else.
        version: `git describe` of the checkout.
    """

    sha256: str
    layout: Layout
    etcd_type: str
    machine: str
    version: str

    def __str__(self) -> str:
        """What matters of it."""
        groups = ", ".join(
            f"{group}: {' '.join(self.layout.members(group)) or 'none'}"
            for group in (CONTROL_PLANE, ETCD, WORKERS)
        )
        return f"{groups}; checkout {self.version}"


def text_of(order: Kubespray) -> str:
    """The inventory as it lies there now; what it says is kept as evidence nowhere.

    Raises:
        BadInput: it cannot be read.
    """
    try:
        return order.machine.text_of(["cat", "--", order.inventory])
    except CommandFailed as error:
        raise BadInput(
            "inventory",
            f"{order.inventory} on {order.machine.label}: {error.tail.strip()}",
            "Name the file of the inventory, readable by the account that runs the playbooks",
        ) from error


@decision
def inventory_found(order: Kubespray, version: str = "") -> Found:
    """The inventory and the checkout, once both are such that a playbook may be run with them.

    Args:
        order: names them.
        version: the tag that the cluster was built with; empty: not compared.

    Raises:
        BadInput: the inventory is malformed: names the line or group, and what to write; or the
            checkout is none.
        Refused: Ansible reads it otherwise than it is written, or the checkout is of another tag.

    Runbook: docs/runbooks/kubespray.md, step 1.
    """
    text = text_of(order)
    written = judging.document_of(text, order.inventory).layout()
    seen, etcd_type = effective(order)
    layout = _merged(written, seen)
    judging.refuse_malformed(layout)
    for group in (CONTROL_PLANE, ETCD, WORKERS):
        if layout.members(group) != seen.members(group):
            raise Refused(
                order.label,
                f"Ansible reads {group} as {' '.join(seen.members(group)) or 'empty'}, and the "
                f"file says {' '.join(layout.members(group)) or 'nothing'}",
                "Something else defines hosts or groups: name the one file that does",
            )
    described = version_of(order)
    if version and described != version:
        raise Refused(
            order.label,
            f"the checkout is at {described}, and the cluster was built with {version}",
            f"`git checkout {version}` there: another tag upgrades Kubernetes in the same run",
        )
    return Found(edits.sha256(text), layout, etcd_type, order.machine.label, described)


@probe
def facts_file(order: Kubespray) -> str:
    """The playbook of the checkout that gathers facts, which is not in the same place in all tags.

    Raises:
        BadInput: it has none.

    Runbook: docs/runbooks/kubespray.md, step 1.
    """
    argv = ["sh", "-c", FIRST_OF, "facts", order.project, *FACTS]
    if file := order.machine.read(argv).whole().strip():
        return file
    raise BadInput(
        "project",
        f"{order.project} has neither {' nor '.join(FACTS)}",
        "Name a whole checkout of kubespray, at the tag that the cluster was built with",
    )


def effective(order: Kubespray) -> tuple[Layout, str]:
    """Hosts and groups as Ansible reads them, with the few variables that are needed.

    Returns:
        The inventory, and how etcd is deployed; empty where nothing says so.

    Raises:
        BadInput: Ansible cannot read the inventory, or is not there.
        UnreadableOutput: it printed something else.
    """
    return parse_inventory_list(_listed(order))


def parse_inventory_list(printed: str) -> tuple[Layout, str]:
    """Read what `ansible-inventory --list` prints (2.9 to 2.19).

        {"_meta": {"hostvars": {"node1": {"ip": "10.0.0.1"}}}, "all": {"children": ["etcd"]},
         "etcd": {"hosts": ["node1"]}}

    Raises:
        UnreadableOutput: it is something else.
    """
    try:
        read = json.loads(printed)
        said = read.pop("_meta")["hostvars"]
        groups = {
            str(name): Group(tuple(group.get("hosts", ())), tuple(group.get("children", ())))
            for name, group in read.items()
            if name not in {"all", "ungrouped"}
        }
        named = [host for group in read.values() for host in group.get("hosts", ())]
        variables = {
            str(host): {
                name: str(value)
                for name, value in said.get(host, {}).items()
                if name in KEPT_VARIABLES and "{{" not in str(value)
            }
            for host in dict.fromkeys([*said, *named])
        }
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        # What it printed may hold passwords: only its beginning is told, which is the first group.
        raise UnreadableOutput("ansible-inventory --list", redacted_head(printed, 40)) from error
    types = {str(own[ETCD_TYPE]) for own in said.values() if ETCD_TYPE in own}
    return Layout(variables, groups), types.pop() if len(types) == 1 else ""


def version_of(order: Kubespray) -> str:
    """What `git describe --tags` says of the checkout; `unknown` where it is no clone.

    Raises:
        BadInput: there is no such folder.
    """
    script = 'cd "$1" && { git -c safe.directory="*" describe --tags 2>/dev/null || echo unknown; }'
    try:
        return order.machine.read(["sh", "-c", script, "describe", order.project]).whole().strip()
    except CommandFailed as error:
        raise BadInput(
            "project", f"{order.project}: {error.tail.strip()}", "Name the checkout of kubespray"
        ) from error


def _listed(order: Kubespray) -> str:
    script = 'cd "$1" && LC_ALL=C.UTF-8 exec "$2" -i "$3" --list'
    program = f"{order.tools}ansible-inventory"
    argv = ["sh", "-c", script, "list", order.project, program, order.inventory]
    try:
        return order.machine.text_of(argv, within_seconds=120)
    except CommandFailed as error:
        is_missing = error.code == 127  # noqa: PLR2004 (the shell's "not found")
        raise BadInput(
            "ansible_playbook" if is_missing else "inventory",
            f"ansible-inventory on {order.machine.label}: {redacted_tail(error.tail.strip(), 600)}",
            "Install ansible-core there, or name the path of its ansible-playbook"
            if is_missing
            else "Correct what Ansible does not understand",
        ) from error


def _merged(written: Layout, seen: Layout) -> Layout:
    """Groups as written, with the variables that count, wherever they are set."""
    return Layout(
        {
            host: {**_kept(own), **seen.variables.get(host, {})}
            for host, own in written.variables.items()
        },
        written.groups,
    )


def _kept(own: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value
        for name, value in own.items()
        if name in KEPT_VARIABLES and not re.search(r"\{\{", value)
    }

"""What the users of a cluster see: its nodes are Ready, and etcd has the members meant for it."""

import time
from dataclasses import dataclass

from blocks.ssh.host import SshHost
from recovery.errors import CommandFailed, NotVerified, Unreachable, UnreadableOutput
from recovery.steps import verify
from tasks.kubespray import etcd
from tasks.kubespray.layout import CONTROL_PLANE, ETCD, Layout
from tasks.kubespray.target import Kubespray

PAUSE_SECONDS = 2.0
STATES = {"True", "False", "Unknown", ""}
# No more of each node than is read: some fifty whole ones are more than a command may print.
READY = (
    '{range .items[*]}{.metadata.name}{"\\t"}'
    '{.status.conditions[?(@.type=="Ready")].status}{"\\n"}{end}'
)
NODES = f"""PATH=/usr/local/bin:$PATH
export KUBECONFIG=/etc/kubernetes/admin.conf
exec timeout 30 kubectl get nodes -o jsonpath='{READY}' --request-timeout=20s
"""


@dataclass(frozen=True)
class NodeSeen:
    """A node as the API has it."""

    name: str
    is_ready: bool


@dataclass(frozen=True)
class Whole:
    """What was seen in the end."""

    members: tuple[str, ...]
    nodes: tuple[str, ...]

    def __str__(self) -> str:
        """Members and nodes."""
        return f"etcd: {' '.join(self.members)}, all healthy; Ready: {' '.join(self.nodes)}"


def parse_nodes(printed: str) -> list[NodeSeen]:
    """Read what NODES prints (kubectl 1.20 to 1.36): names with the status of their Ready.

        node1   True
        node2   Unknown

    A node whose kubelet has never spoken has no status.

    Raises:
        UnreadableOutput: it is something else.
    """
    seen = []
    for line in printed.splitlines():
        name, tab, status = line.partition("\t")
        if not name or not tab or status not in STATES:
            raise UnreadableOutput("kubectl get nodes", line)
        seen.append(NodeSeen(name, status == "True"))
    return seen


def nodes_of(host: SshHost) -> list[NodeSeen]:
    """The nodes of the cluster, asked on a host of its control plane.

    Raises:
        CommandFailed: the API does not answer.
        UnreadableOutput: kubectl printed something else.
        Unreachable: no answer from the host.
    """
    answer = host.read(["sh", "-c", NODES], within_seconds=60, as_root=True)
    return parse_nodes(answer.whole())


@verify
def is_whole(  # noqa: PLR0913, PLR0917 (what is to be so)
    order: Kubespray,
    layout: Layout,
    members: tuple[str, ...],
    ready: tuple[str, ...],
    gone: tuple[str, ...],
    within_seconds: float,
) -> Whole:
    """What holds now, once etcd has exactly these members, healthy, and these nodes are Ready.

    Args:
        order: names the cluster.
        layout: of the inventory, for the addresses of the hosts that are asked.
        members: names in etcd; empty: etcd is not asked.
        ready: nodes that are to be Ready.
        gone: nodes that are to be gone.
        within_seconds: how long it may take.

    Raises:
        NotVerified: it did not come to that in time; says what is missing.

    Runbook: docs/runbooks/kubespray.md, step 9.
    """
    until = time.monotonic() + within_seconds
    while True:
        try:
            missing = why_not_whole(order, layout, members, ready, gone)
        except (Unreachable, CommandFailed, UnreadableOutput) as error:
            missing = str(error)
        if not missing:
            return Whole(members, ready)
        if time.monotonic() > until:
            raise NotVerified(
                order.label,
                f"etcd of {' '.join(members) or 'any members'}, and {' '.join(ready)} Ready",
                missing,
                "The playbook has ended; what is missing is told by the logs of that host",
            )
        time.sleep(PAUSE_SECONDS)


def why_not_whole(
    order: Kubespray,
    layout: Layout,
    members: tuple[str, ...],
    ready: tuple[str, ...],
    gone: tuple[str, ...],
) -> str:
    """What is missing; empty: nothing.

    Raises:
        CommandFailed: the API does not answer.
        Unreachable: a host does not answer.
    """
    hosts = {name: order.host_of(name, layout) for name in layout.hosts if name not in gone}
    are_nodes_asked = False
    for name, host in hosts.items():
        if host is None:
            continue
        if members and name in layout.members(ETCD):
            why = _etcd_missing(etcd.ask(host, name), members)
            if why:
                return why
        if name in layout.members(CONTROL_PLANE) and not are_nodes_asked:
            if why := _nodes_missing(nodes_of(host), ready, gone):
                return why
            are_nodes_asked = True
    return "" if are_nodes_asked else "no host of the control plane was named in hosts"


def _etcd_missing(asked: etcd.Asked, members: tuple[str, ...]) -> str:
    if not asked.is_healthy:
        return f"etcd on {asked.host} is not healthy"
    if not asked.are_all_healthy:
        return f"a member is not healthy, asked on {asked.host}"
    names = sorted(member.name or "(never started)" for member in asked.members)
    if names != sorted(members):
        return f"etcd has the members {' '.join(names)}"
    return ""


def _nodes_missing(nodes: list[NodeSeen], ready: tuple[str, ...], gone: tuple[str, ...]) -> str:
    seen = {node.name: node.is_ready for node in nodes}
    not_ready = [name for name in ready if not seen.get(name, False)]
    if not_ready:
        return f"{not_ready[0]} is {'not Ready' if not_ready[0] in seen else 'no node'}"
    if left := [name for name in gone if name in seen]:
        return f"the node {left[0]} is still there"
    return ""

"""Which controller managers or schedulers are to be restarted: looked at once, then remembered."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from blocks.ssh.host import SshHost
from recovery.errors import BadInput, Refused
from recovery.steps import decision, probe
from tasks.certificates.catalogue import Component
from tasks.certificates.seen import Runtime
from tasks.certificates.work import Node
from tasks.leaders import instance as looking
from tasks.leaders.instance import Instance, Leader, leader_seen
from tasks.leaders.judging import reasons_against, told


@dataclass(frozen=True)
class Due:
    """A process to restart.

    Attributes:
        host: label of its host.
        node_name, runtime: what its pod is found by.
        pods: ids of the pods to remove; those made since are left alone.
        was_well: it looked well, and is restarted because nobody leads.
        why: in words, for the plan and the report.
    """

    host: str
    node_name: str
    runtime: Runtime
    pods: tuple[str, ...]
    was_well: bool
    why: str


@dataclass(frozen=True)
class Restart:
    """A process to restart, and the host it runs on. Seconds: how long it may take to come back."""

    host: SshHost
    due: Due
    component: Component
    within_seconds: float

    @property
    def label(self) -> str:
        """The host."""
        return self.host.label

    def look(self) -> Instance:
        """Look at the process now.

        Raises:
            Unreachable: no answer.
            CommandFailed: it does not let us read as root.
        """
        return looking.look_at_instance(
            self.host, self.component, self.due.runtime, self.due.node_name
        )


def within_of(within_seconds: float) -> float:
    """How long one process may take to come back.

    Raises:
        BadInput: no time at all.
    """
    if within_seconds < 1:
        raise BadInput("within_seconds", f"{within_seconds} is no time", "Give 1 or more")
    return float(within_seconds)


@probe(each=("node",))
def instance_found(node: Node, component: Component) -> Instance:
    """One process: whether it runs, what it answers, its kubeconfig, what is said of it.

    Raises:
        Unreachable: no answer.
        CommandFailed: it does not let us read as root.

    Runbook: docs/runbooks/control-plane-leaders.md, step 1.
    """
    seen = node.seen
    return looking.look_at_instance(node.host, component, seen.runtime, seen.node_name)


@probe
def who_leads(nodes: Sequence[Node], component: Component) -> Leader:
    """Who leads, by the lease, and whether it was renewed just now.

    Raises:
        Unreachable: a host gave no answer.

    Runbook: docs/runbooks/control-plane-leaders.md, step 1.
    """
    return leader_seen([node.host for node in nodes], component)


@decision(none_is_fine=True)
def instances_due(nodes: Sequence[Node], found: Sequence[Instance], leader: Leader) -> list[Due]:
    """Those that are unwell and that a restart mends; all of them where nobody leads, though well.

    A cause that no restart mends is not remembered: once it is mended, a resume looks again.

    Raises:
        Refused: something is wrong, and no restart mends any of it; names every cause.

    Runbook: docs/runbooks/control-plane-leaders.md, steps 2 and 3.
    """
    now = datetime.now(UTC)
    unwell = [bool(one.why_unwell) for one in found]
    if not any(unwell) and leader.is_fresh:
        return []
    due, reasons = [], {}
    for node, one in zip(nodes, found, strict=True):
        if any(unwell) and not one.why_unwell:
            continue
        against = reasons_against(one, node.seen, max(now, node.seen.seen_at))
        if against:
            reasons[node.label] = against
            continue
        why = one.why_unwell or f"it looks well, and nobody leads: {leader.seen}"
        seen = node.seen
        due.append(Due(node.label, seen.node_name, seen.runtime, one.pods, not one.why_unwell, why))
    if due:
        return due
    remedies = dict.fromkeys(reason.remedy for each in reasons.values() for reason in each)
    raise Refused(
        ", ".join(reasons),
        "; ".join(f"{label}: {told(each)}" for label, each in reasons.items()),
        ". ".join(remedies),
    )


def restarts_of(
    nodes: Sequence[Node], due: Sequence[Due], component: Component, within_seconds: float
) -> list[Restart]:
    """What is to be restarted beside its host, in the order of the hosts."""
    by_label = {one.host: one for one in due}
    return [
        Restart(node.host, by_label[node.label], component, within_seconds)
        for node in nodes
        if node.label in by_label
    ]

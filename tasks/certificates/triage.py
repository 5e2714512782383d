"""What is wrong with the certificates of a control plane, and which recovery mends it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from blocks.ssh.host import SshHost
from recovery.errors import (
    BadInput,
    CommandFailed,
    Refused,
    Unreachable,
    UnreadableOutput,
)
from recovery.steps import probe
from tasks.certificates import preflight, quorum
from tasks.certificates.catalogue import Component
from tasks.certificates.judging import Method
from tasks.certificates.look import look_at
from tasks.certificates.seen import ApiState, Seen
from tasks.certificates.work import Job, Node, work_on

DAYS_LEFT_MIN = 30  # what the recovery takes unless it is told
RENEW = "renew-control-plane-certificates"
BY_LEADER = {
    Component.CONTROLLER_MANAGER: "recover-controller-manager",
    Component.SCHEDULER: "recover-scheduler",
}
GUARDS: tuple[Callable[[Job], None], ...] = (
    preflight.refuse_unless_equipped.fn,
    preflight.refuse_unless_pods_come_back.fn,
    preflight.refuse_if_disk_is_full.fn,
    preflight.refuse_if_others_are_renewing.fn,
    preflight.refuse_if_foreign_etcd_ended.fn,
)


@dataclass(frozen=True)
class Looked:
    """A host, and what was seen of it, or why nothing was."""

    host: SshHost
    seen: Seen | None
    why_not: str = ""

    @property
    def label(self) -> str:
        """The host."""
        return self.host.label


@dataclass(frozen=True)
class Hindrance:
    """What stands against the recovery, where, and what to do about it first."""

    where: str
    why: str
    remedy: str

    def __str__(self) -> str:
        """Where, what, and the remedy."""
        return f"{self.where}: {self.why}. {self.remedy}"


@dataclass(frozen=True)
class CertificatesTriaged:
    """What is due or wrong, what stands against mending it, and what to run.

    Attributes:
        found: host by host; nothing is nothing due.
        notes: what is worth knowing, and no reason for anything.
        against: what is to be mended by hand first.
        recover: the recovery to run; empty where certificates are not what is wrong.
        command: how it is planned.
    """

    found: list[str]
    notes: list[str]
    against: list[str]
    recover: str
    command: str


def days_of(days_left_min: int) -> int:
    """How many days a certificate must have left.

    Raises:
        BadInput: the number is negative.
    """
    if days_left_min < 0:
        raise BadInput("days_left_min", f"{days_left_min} is negative", "Give 0 or more days")
    return days_left_min


@probe(each=("host",))
def host_looked_at(host: SshHost) -> Looked:
    """What is to be seen of a host. One that cannot be read is a finding here, and ends nothing.

    Runbook: docs/runbooks/kubeadm-certificates.md, step 1.
    """
    try:
        return Looked(host, look_at(host))
    except (Unreachable, CommandFailed, UnreadableOutput) as error:
        return Looked(host, None, str(error))


def nodes_in(looked: Sequence[Looked]) -> list[Node]:
    """The hosts that could be read."""
    return [Node(one.host, one.seen) for one in looked if one.seen is not None]


def jobs_in(nodes: Sequence[Node], days_left_min: int, method: Method) -> list[Job]:
    """What a recovery would do, host by host."""
    now = datetime.now(UTC)
    found = [(node, work_on(node.label, node.seen, days_left_min, method, now)) for node in nodes]
    return [Job(node.host, work, node.seen) for node, work in found if work is not None]


@probe(each=("method",))
def what_stands_against(
    nodes: Sequence[Node], jobs: Sequence[Job], days_left_min: int, method: Method
) -> list[Hindrance]:
    """Every reason for which the recovery would refuse, and not only the first.

    Raises:
        Unreachable: a host gave no answer any more.

    Runbook: docs/runbooks/kubeadm-certificates.md, step 2.
    """
    if not jobs:
        return []
    asked: list[Callable[[], None]] = [
        lambda: preflight.refuse_unless_hosts_agree.fn(nodes),
        lambda: preflight.refuse_if_clocks_differ.fn(nodes),
        lambda: quorum.refuse_unless_etcd_stands_it.fn(jobs, nodes),
    ]
    sign = preflight.refuse_unless_authorities_can_sign.fn
    for job in jobs:
        asked.append(lambda job=job: sign(job, method, days_left_min))  # type: ignore[misc]
        asked += [lambda job=job, guard=guard: guard(job) for guard in GUARDS]  # type: ignore[misc]
    found = [_refused(ask) for ask in asked]
    return [one for one in found if one is not None]


def _refused(ask: Callable[[], None]) -> Hindrance | None:
    try:
        ask()
    except Refused as refused:
        return Hindrance(refused.target, refused.reason, refused.remedy)
    except UnreadableOutput as error:
        return Hindrance("etcd", str(error), "Hand this over with the bundle")
    return None


def conclusion(
    looked: Sequence[Looked],
    jobs: Sequence[Job],
    against: dict[Method, list[Hindrance]],
    days_left_min: int,
    hosts: str,
) -> CertificatesTriaged:
    """What is to be run, from what was seen.

    Args:
        looked: every host.
        jobs: what a recovery would do.
        against: what stands against each way to do it.
        days_left_min: what ends earlier is due.
        hosts: the hosts as they were given.
    """
    nodes = nodes_in(looked)
    found = [f"{job.label}: {why}" for job in jobs for why in job.work.why]
    unseen = [f"{one.label} cannot be read: {one.why_not}" for one in looked if one.seen is None]
    notes = preflight.notes_on(nodes, days_left_min)
    if not jobs:
        recover, others = other_causes(nodes)
        return CertificatesTriaged(
            found + unseen, notes + others, [], recover, _command(recover, hosts)
        )
    ways = [method for method in Method if not against.get(method, [])]
    method = ways[0] if ways else Method.RENEW
    more = "" if method is Method.RENEW else f" --set method={method}"
    if days_left_min != DAYS_LEFT_MIN:
        more += f" --set days_left_min={days_left_min}"
    left = [str(one) for one in against.get(method, [])]
    return CertificatesTriaged(
        found + unseen, notes, left, RENEW, f"{_command(RENEW, hosts)}{more}"
    )


def other_causes(nodes: Sequence[Node]) -> tuple[str, list[str]]:
    """What is wrong where no certificate is: the recovery for it, if there is one, and notes."""
    notes, recover = [], ""
    for node in nodes:
        for component, name in BY_LEADER.items():
            if component in node.seen.manifests and component not in node.seen.started_at:
                recover = recover or name
                notes.append(f"{node.label}: {component} does not run, and no certificate is why")
        if node.seen.api not in {ApiState.READY, ApiState.CLOSED}:
            notes.append(
                f"{node.label}: the API server is {node.seen.api}, and no certificate is why: see "
                "/var/log/pods/kube-system_kube-apiserver* and kube-system_etcd* there"
            )
        if not node.seen.kubelet.is_active:
            notes.append(
                f"{node.label}: the kubelet is not active, and its certificate is not why: see "
                "`journalctl -u kubelet`"
            )
    return recover, notes


def _command(recover: str, hosts: str) -> str:
    return f"recover plan {recover} --set 'hosts={hosts}'" if recover else ""

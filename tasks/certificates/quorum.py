"""Members of etcd, and whether the cluster can do without one of them."""

import contextvars
import json
import re
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum

from blocks.ssh.host import SshHost
from recovery.errors import Refused, Unreachable, UnreadableOutput
from recovery.steps import decision, probe
from tasks.certificates.catalogue import BY_NAME, Component, EtcdKind
from tasks.certificates.look import Host
from tasks.certificates.look_lines import Lines, decoded
from tasks.certificates.look_script import look_argv
from tasks.certificates.work import Job, Node
from tasks.reboot import Boot, boot_now

WITHIN_SECONDS = 60.0
HEARD_SECONDS, PAUSE_SECONDS = 10.0, 1.0
PAIR = 2
HEALTH_CLIENT = "etcd-healthcheck-client"


class Health(StrEnum):
    """What a member says of itself; one that says nothing counts as failed."""

    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Member:
    """A member of etcd.

    Attributes:
        name: its name in the cluster; with kubeadm, that of the node.
        client: the address on which it serves, `10.0.0.10:2379`; empty before it ever started.
        peer: the address on which the others reach it.
        health: what it says of itself.
        id: its number in the cluster; empty where only its address is known.
        is_learner: it has no vote yet.
    """

    name: str
    client: str
    peer: str
    health: Health = Health.UNKNOWN
    id: str = ""
    is_learner: bool = False

    @property
    def id_in_hex(self) -> str:
        """Its number as `etcdctl member remove` takes it."""
        return f"{int(self.id or 0):x}"


@dataclass(frozen=True)
class Etcd:
    """The etcd of the cluster, and how it stood before the first restart.

    Attributes:
        hosts: those of the control plane that were named.
        had_quorum: whether a majority was healthy then.
        members: how many there are, also on other hosts.
    """

    hosts: tuple[Host, ...]
    had_quorum: bool
    members: int

    @property
    def label(self) -> str:
        """How it stood."""
        return f"etcd of {self.members} {'with' if self.had_quorum else 'without'} quorum"

    def is_waited_for(self, restarted: int) -> bool:
        """Whether health can be waited for once so many members were restarted."""
        is_won_back = restarted >= majority_of(self.members)
        return not self.hosts or self.had_quorum or is_won_back


@dataclass(frozen=True)
class EtcdBefore:
    """How etcd stood before the first restart."""

    had_quorum: bool
    members: int


def has_quorum(members: Sequence[Member], without: str = "") -> bool:
    """Whether a majority of all members is healthy, not counting the one of this peer address."""
    healthy = [m for m in members if m.health is Health.HEALTHY and m.peer != without]
    return len(healthy) >= majority_of(len(members))


def majority_of(count: int) -> int:
    """How many of so many members decide."""
    return count // 2 + 1


def can_spare(members: Sequence[Member], peer: str) -> bool:
    """Whether the cluster can do without a member for the time of its restart.

    One of one and one of two are missed whatever the others do: they may be restarted if all others
    are healthy. Of more, the others must be a majority by themselves.
    """
    if len(members) <= PAIR:
        return all(m.health is Health.HEALTHY for m in members if m.peer != peer)
    return has_quorum(members, without=peer)


def parse_members(answer: str) -> list[Member]:
    """Read what etcd 3.3 to 3.6 answers when it is asked for its members.

        {"header":{…},"members":[{"ID":"266128723897562333","name":"cp1",
        "peerURLs":["https://10.0.0.10:2380"],"clientURLs":["https://10.0.0.10:2379"]}]}

    That is its client port; on its peer port, the list alone, with `id`. A member that was never
    started has no name and no clientURLs.

    Raises:
        UnreadableOutput: it answered something else.
    """
    try:
        _, _, body = answer.replace("\r\n", "\n").partition("\n\n")
        read = json.loads(body)
        return [
            Member(
                str(entry.get("name") or ""),
                _first_address(entry.get("clientURLs")),
                _first_address(entry["peerURLs"]),
                id=str(entry.get("ID") or entry.get("id") or ""),
                is_learner=bool(entry.get("isLearner")),
            )
            for entry in (read if isinstance(read, list) else read["members"])
        ]
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise UnreadableOutput("etcd, its members", answer) from error


def _first_address(urls: list[str] | None) -> str:
    return re.sub(r"^https?://", "", urls[0]) if urls else ""


def parse_health(answer: str) -> Health:
    """Read what `GET /health` on the client port answers.

    With quorum `{"health":"true"}`, else 503 and `"false"`; without a certificate, nothing.
    """
    said = re.search(r'"health": *"?(true|false)', answer)
    if not said:
        return Health.UNKNOWN
    return Health.HEALTHY if said[1] == "true" else Health.UNHEALTHY


def members_of(hosts: Sequence[Host]) -> list[Member]:
    """All members of the etcd that is stacked on these hosts, each with its health.

    Members on hosts that are not among these are asked over the network, from the first of these
    that answers. A member that nobody could ask is `UNKNOWN`; a host whose etcd does not even list
    its members stands for one.

    Raises:
        UnreadableOutput: a list of members cannot be read.
    """
    known: dict[str, Member] = {}
    silent: list[Member] = []
    asked: dict[str, Health] = {}
    answering: list[Host] = []
    for host, lines in zip(hosts, ask_all(hosts, "members"), strict=True):
        peer, _, encoded = lines.one("members").partition(" ")
        answering += [host] if peer else []
        asked[peer] = parse_health(lines.text("health:"))
        if encoded:
            listed = parse_members(decoded(encoded).decode(errors="replace"))
            known |= {member.peer: member for member in listed}
        else:
            silent.append(Member(host.label, "", peer))
    members = list(known.values()) or silent
    rest = [m for m in members if m.peer not in asked and m.client]
    if rest:
        words = [word for member in rest for word in ("health", member.client)]
        (lines,) = ask_all((answering or hosts)[:1], *words)
        asked |= {m.peer: parse_health(lines.text(f"health:{m.client}")) for m in rest}
    return [replace(m, health=asked.get(m.peer, Health.UNKNOWN)) for m in members]


@probe
def refuse_unless_etcd_stands_it(jobs: Sequence[Job], nodes: Sequence[Node]) -> None:
    """Refuse where restarting member by member would cost etcd its quorum, or not win it back.

    Raises:
        Refused: a member is missing already; there is no quorum for another reason than ended
            certificates; or too few of the members' hosts were named to win it back.
        UnreadableOutput: a list of members cannot be read.

    Runbook: docs/runbooks/kubeadm-certificates.md, step 2.
    """
    restarted = [job for job in jobs if job.restarts(Component.ETCD)]
    if not restarted:
        return
    members = members_of(stacked(nodes))
    now = datetime.now(UTC)
    has_ended = any(
        leaf.certificate is not None and leaf.certificate.not_after <= now
        for node in nodes
        for leaf in node.seen.leaves
        if BY_NAME[leaf.name].held_by is Component.ETCD or leaf.name == HEALTH_CLIENT
    )
    peers = [job.work.etcd_peer for job in restarted]
    if why := why_not_restarted(members, peers, has_ended=has_ended):
        raise Refused(
            restarted[0].label,
            f"{why}: {told(members)}",
            "Bring the members back first, or name the hosts of all control planes",
        )


def why_not_restarted(members: Sequence[Member], peers: Sequence[str], *, has_ended: bool) -> str:
    """Why these members must not be restarted one after the other; empty where they may.

    Args:
        members: all members, as they are.
        peers: addresses of those that are restarted.
        has_ended: certificates of etcd have, which explains that there is no quorum.
    """
    if has_quorum(members):
        missed = [peer for peer in peers if not can_spare(members, peer)]
        return f"etcd cannot do without {', '.join(missed)}" if missed else ""
    if not has_ended:
        return "etcd has no quorum, and its certificates are not the reason"
    if len(peers) < majority_of(len(members)):
        return f"etcd has no quorum, and {len(peers)} of {len(members)} members do not win it back"
    return ""


@decision
def etcd_before(nodes: Sequence[Node]) -> EtcdBefore:
    """How etcd stands, asked with the new client certificates: the old ones may have ended.

    Without quorum nothing is spared any more, so a member that says nothing is asked for a while.

    Raises:
        UnreadableOutput: a list of members cannot be read.

    Runbook: docs/runbooks/kubeadm-certificates.md, step 10.
    """
    ends = time.monotonic() + HEARD_SECONDS
    while True:
        members = members_of(stacked(nodes))
        is_known = all(one.health is not Health.UNKNOWN for one in members)
        if has_quorum(members) or is_known or time.monotonic() >= ends:
            return EtcdBefore(has_quorum(members), len(members))
        time.sleep(PAUSE_SECONDS)


def stacked(nodes: Sequence[Node]) -> list[SshHost]:
    """The hosts with an etcd of kubeadm's."""
    return [node.host for node in nodes if node.seen.etcd is EtcdKind.STACKED]


def etcd_of(nodes: Sequence[Node]) -> Etcd:
    """The etcd of the cluster, and how it stands before the first restart."""
    if not stacked(nodes):
        return Etcd((), had_quorum=False, members=0)
    before = etcd_before(nodes)
    return Etcd(tuple(stacked(nodes)), before.had_quorum, before.members)


@probe(each=("job",))
def quorum_meanwhile(job: Job, etcd: Etcd, before: Boot) -> str:
    """How etcd keeps its quorum while this host reboots.

    It is asked in every attempt until the host has rebooted, unlike what a guard has passed once: a
    reboot that was not sent may be sent hours later. Where there was no quorum before the first
    reboot there is none to keep.

    Raises:
        Refused: it cannot do without the member of this host; an unknown member counts as failed.

    Runbook: docs/runbooks/kubeadm-certificates.md, step 10.
    """
    if not etcd.had_quorum or not job.restarts(Component.ETCD):
        return "none is to be kept"
    if _has_rebooted(job, before):
        return "it has rebooted"
    refuse_to_break_quorum(job, etcd)
    return "the others hold it"


def _has_rebooted(job: Job, before: Boot) -> bool:
    """Whether it answers from a later boot; one that does not answer may still be on its way."""
    try:
        return boot_now(job.host).boot_id != before.boot_id
    except Unreachable:
        return False


def refuse_to_break_quorum(job: Job, etcd: Etcd) -> None:
    """Refuse to restart the member on a host where the others cannot do without it.

    Raises:
        Refused: they cannot; an unknown member counts as failed.
    """
    members = members_of(etcd.hosts)
    if not can_spare(members, job.work.etcd_peer):
        raise Refused(
            job.label,
            f"etcd cannot do without its member on this host: {told(members)}",
            "Bring the other members back first, then resume",
        )


def told(members: Sequence[Member]) -> str:
    """Members and what they say of themselves, for people."""
    return ", ".join(f"{m.name or m.peer} {m.health}" for m in members) or "no member answers"


def ask_all(hosts: Sequence[Host], *requests: str) -> list[Lines]:
    """Ask hosts side by side; no lines from one that gave no answer."""
    if not hosts:
        return []
    contexts = [contextvars.copy_context() for _ in hosts]
    with ThreadPoolExecutor(len(hosts)) as pool:
        futures = [
            pool.submit(context.run, _ask, host, requests)
            for context, host in zip(contexts, hosts, strict=True)
        ]
        return [future.result() for future in futures]


def _ask(host: Host, requests: Sequence[str]) -> Lines:
    try:
        answer = host.read(look_argv(*requests), within_seconds=WITHIN_SECONDS, as_root=True)
    except Unreachable:
        return Lines("")
    return Lines(answer.whole())

"""Which proxies are to be restarted, and what no restart mends."""

from collections.abc import Sequence
from dataclasses import dataclass

from blocks.inventory import Inventory
from blocks.ssh.host import SshHost
from recovery.errors import BadInput, Refused
from recovery.steps import decision, probe
from tasks.api_proxy.proxy import CONF, NAME, Proxy, looked_at
from tasks.certificates.judging import Reason
from tasks.certificates.seen import Runtime, RuntimeKind


@dataclass(frozen=True)
class DueProxy:
    """A proxy to restart.

    Attributes:
        host: label of its host.
        runtime: what its pod is restarted with.
        pods: ids of the pods to remove; those made since are left alone.
        was_well: it serves, and is restarted on order.
        why: in words, for the plan and the report.
    """

    host: str
    runtime: Runtime
    pods: tuple[str, ...]
    was_well: bool
    why: str


@dataclass(frozen=True)
class ProxyRestart:
    """A proxy to restart, on its host. Seconds: how long it may take to serve again."""

    host: SshHost
    due: DueProxy
    within_seconds: float

    @property
    def label(self) -> str:
        """The host."""
        return self.host.label


def within_of(within_seconds: float) -> float:
    """How long one proxy may take to serve again.

    Raises:
        BadInput: no time at all.
    """
    if within_seconds < 1:
        raise BadInput("within_seconds", f"{within_seconds} is no time", "Give 1 or more")
    return float(within_seconds)


@probe(each=("host",))
def proxy_found(host: SshHost) -> Proxy:
    """The proxy of one host: what runs, what it leads to, what answers. One unread is told so.

    Runbook: docs/runbooks/nginx-proxy.md, step 1.
    """
    return looked_at(host)


@probe
def refuse_unless_restarts_help(found: Sequence[Proxy], fail_max: int) -> None:
    """Refuse where no restart mends the proxies of more hosts than may fail.

    Raises:
        Refused: names each host, the cause and the remedy.

    Runbook: docs/runbooks/nginx-proxy.md, step 2.
    """
    hindered = {one.host: against for one in found if (against := reasons_against(one))}
    if len(hindered) <= min(fail_max, len(found) - 1):
        return
    told = [f"{host}: {reason.why}" for host, each in hindered.items() for reason in each]
    remedies = dict.fromkeys(reason.remedy for each in hindered.values() for reason in each)
    raise Refused(", ".join(hindered), "; ".join(told), ". ".join(remedies))


def reasons_against(proxy: Proxy) -> list[Reason]:
    """Why a restart would not have this proxy serve."""
    if proxy.unseen:
        remedy = "Bring the host back, leave it out, or allow for it with max_fail"
        return [Reason(f"it cannot be read: {proxy.unseen}", remedy)]
    if not proxy.manifest:
        remedy = (
            "Leave it out where it has no such proxy (control planes, haproxy, kube-vip); else run "
            "`cluster.yml --limit HOST` of kubespray"
        )
        return [Reason(f"there is no manifest of {NAME}", remedy)]
    reasons = []
    if not proxy.is_kubelet_active:
        remedy = "See `journalctl -u kubelet`, then `systemctl start kubelet`"
        reasons.append(Reason("the kubelet is not active: nobody would start it again", remedy))
    if proxy.runtime.kind is RuntimeKind.NONE:
        why = "neither crictl with a runtime's socket nor docker is found"
        reasons.append(Reason(why, "Install crictl (cri-tools) on the host"))
    if not proxy.has_openssl:
        reasons.append(Reason("there is no openssl to ask the API with", "Install openssl there"))
    elif not proxy.living:
        named = ", ".join(proxy.servers) or "none"
        remedy = (
            f"Have kubespray write {CONF} anew: `cluster.yml` without --limit, or with --limit of "
            "the workers after `facts.yml`. Where it names the right ones, bring the API back first"
        )
        why = f"no API server answers that its configuration names ({named})"
        reasons.append(Reason(why, remedy))
    return reasons


@decision(none_is_fine=True)
def proxies_due(found: Sequence[Proxy], *, is_ordered: bool) -> list[DueProxy]:
    """Those that do not serve what their configuration says; all of them where that was ordered.

    Those that no restart mends are left alone.

    Runbook: docs/runbooks/nginx-proxy.md, step 3.
    """
    return [
        DueProxy(
            one.host,
            one.runtime,
            one.pods,
            was_well=not one.why_unwell,
            why=one.why_unwell or "it serves, and its restart was ordered",
        )
        for one in found
        if not reasons_against(one) and (one.why_unwell or is_ordered)
    ]


def restarts_of(
    inventory: Inventory, due: Sequence[DueProxy], within_seconds: float
) -> list[ProxyRestart]:
    """What is to be restarted beside its host, in the order of the inventory."""
    by_label = {one.host: one for one in due}
    hosts = inventory.named(list(by_label))
    return [ProxyRestart(host, by_label[host.label], within_seconds) for host in hosts]


def notes_on(found: Sequence[Proxy]) -> list[str]:
    """API servers that a proxy still names and that do not answer: no restart mends that."""
    return [
        f"{one.host}: {CONF} still names {', '.join(one.dead)}, which does not answer"
        for one in found
        if one.dead and one.living
    ]

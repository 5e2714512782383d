"""What must hold in the end: what is served, what holds what, and what the API answers."""

import json
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from recovery.errors import NotVerified
from recovery.secrecy.redaction import redacted_head
from recovery.steps import verify
from tasks.certificates.api import FORBIDDEN, NOT_FOUND, OK, ApiAnswer, ask_api
from tasks.certificates.catalogue import CONTROL_PLANE, Component, EtcdKind
from tasks.certificates.files import leaf_requests, leaves_of
from tasks.certificates.in_use import PAUSE_SECONDS, difference, in_use
from tasks.certificates.kubelet_files import look_at_kubelet
from tasks.certificates.look_lines import Lines, served_in
from tasks.certificates.look_script import look_argv
from tasks.certificates.reading import Presence
from tasks.certificates.work import Job, Node

WITHIN_SECONDS = 120.0
LEASE_AGE_MAX_SECONDS = 30.0
NODES = "/api/v1/nodes"
A_NODE = f"{NODES}?limit=1"  # each is some 10 KB, and there may be hundreds
LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases"
ENDPOINTS = "/api/v1/namespaces/kube-system/endpoints"  # what was held before there were leases
LEADERS = (Component.CONTROLLER_MANAGER, Component.SCHEDULER)
LEADER = "control-plane.alpha.kubernetes.io/leader"
BIND_ADMINS = (
    "kubectl --kubeconfig /etc/kubernetes/super-admin.conf create clusterrolebinding "
    "kubeadm:cluster-admins --clusterrole=cluster-admin --group=kubeadm:cluster-admins"
)


@verify(each=("node",))
def everything_uses_its_files(node: Node, within_seconds: float = WITHIN_SECONDS) -> list[str]:
    """Serial numbers presented on each port of the host: those of the files, and no others.

    Controller manager and scheduler present nothing of theirs; they are younger than their files.

    Raises:
        NotVerified: a process holds or presents another certificate; all such are named.

    Runbook: docs/runbooks/kubeadm-certificates.md, step 14.
    """
    ends = time.monotonic() + within_seconds
    while True:
        stale, served = _compared(node)
        if not stale:
            return served
        if time.monotonic() >= ends:
            raise NotVerified(
                node.label,
                "every process to use the certificates on disk",
                "; ".join(stale),
                "Restart what is named (`crictl rmp -f` its pod, or the kubelet), then resume",
            )
        time.sleep(PAUSE_SECONDS)


def _compared(node: Node) -> tuple[list[str], list[str]]:
    """Why which process is stale, and what is presented where."""
    pods = [
        component
        for component in CONTROL_PLANE
        if component in node.seen.manifests
        and (component is not Component.ETCD or node.seen.etcd is EtcdKind.STACKED)
    ]
    with node.host.session():
        found = in_use(node.host, pods)
        kubelet, serving, _ = look_at_kubelet(node.host)
        stale = [one.why_stale for one in found if one.why_stale]
        presented = [served for one in found for served in one.served]
        if Component.ETCD in pods:
            requests = [*leaf_requests(["etcd-server"]), "served", "etcd"]
            answer = node.host.read(look_argv(*requests), as_root=True)
            lines = Lines(answer.whole())
            (file,) = leaves_of(lines, ["etcd-server"])
            presented.append(served_in(lines, "etcd"))
            stale += filter(None, [difference(presented[-1], file)])
    if kubelet.serving.presence is Presence.READABLE:
        presented.append(serving)
        stale += filter(None, [difference(serving, kubelet.serving)])
    told = [f"{one.name} {one.certificate.serial}" for one in presented if one.certificate]
    return stale, told


@verify
def leaders_are_at_work(job: Job, within_seconds: float = WITHIN_SECONDS) -> list[str]:
    """Who leads controller manager and scheduler; each renewed its lease just now.

    Raises:
        NotVerified: a lease is old, or cannot be read with the new admin.conf.

    Runbook: docs/runbooks/kubeadm-certificates.md, step 14.
    """
    paths = {str(name): f"{LEASES}/{name}" for name in LEADERS}
    paths |= {f"old {name}": f"{ENDPOINTS}/{name}" for name in LEADERS}
    ends = time.monotonic() + within_seconds
    while True:
        answers, lines = ask_api(job.host, paths)
        now = datetime.fromtimestamp(float(lines.all("clock")[-1]), UTC)
        found = [leader_of(answers[name], answers[f"old {name}"], now) for name in LEADERS]
        late = [
            f"{name}: {seen}"
            for name, (seen, is_fresh) in zip(LEADERS, found, strict=True)
            if not is_fresh
        ]
        if not late:
            return [seen for seen, _ in found]
        if time.monotonic() >= ends:
            raise NotVerified(
                job.label,
                f"leases younger than {LEASE_AGE_MAX_SECONDS:g} s",
                "; ".join(late),
                "See /var/log/pods/kube-system_kube-controller-manager* and -scheduler* on every "
                "control-plane host, then resume",
            )
        time.sleep(PAUSE_SECONDS)


def leader_of(lease: ApiAnswer, endpoints: ApiAnswer, now: datetime) -> tuple[str, bool]:
    """Who holds a lease, or why that is not known, and whether it was renewed just now.

    Args:
        lease: the Lease of that name.
        endpoints: the Endpoints of that name, which releases before 1.20 annotate.
        now: by the host's clock.
    """
    if lease.status == OK:
        spec: dict[str, Any] = lease.parsed().get("spec") or {}
        return _held(spec, now)
    if lease.status == NOT_FOUND and endpoints.status == OK:
        annotations = endpoints.parsed().get("metadata", {}).get("annotations") or {}
        return _held(json.loads(annotations.get(LEADER, "{}")), now)
    return f"{lease.status or 'no answer'} {redacted_head(lease.text.strip(), 200)}", False


def _held(spec: dict[str, Any], now: datetime) -> tuple[str, bool]:
    renewed = str(spec.get("renewTime") or "")
    holder = str(spec.get("holderIdentity") or "nobody").partition("_")[0]
    if not renewed:
        return f"held by {holder}, never renewed", False
    age = (now - datetime.fromisoformat(renewed)).total_seconds()
    return f"{holder} ({age:.0f} s ago)", age <= LEASE_AGE_MAX_SECONDS


@verify(each=("job",))
def admin_can_read(job: Job, within_seconds: float = WITHIN_SECONDS) -> int:
    """The number of nodes the API lists to who comes with the admin.conf of this host.

    Raises:
        NotVerified: it does not; says what it answers, and what helps where a binding is missing.

    Runbook: docs/runbooks/kubeadm-certificates.md, step 14.
    """
    ends = time.monotonic() + within_seconds
    while True:
        answer = ask_api(job.host, {"nodes": A_NODE})[0]["nodes"]
        if answer.status == OK:
            return count_of(answer.parsed())
        if answer.status == FORBIDDEN or time.monotonic() >= ends:
            raise NotVerified(
                job.label,
                "the API to list nodes to the new admin.conf",
                f"{answer.status or 'no answer'}: {redacted_head(answer.text.strip(), 300)}",
                f"The group kubeadm:cluster-admins has no rights: `{BIND_ADMINS}`, then resume"
                if answer.status == FORBIDDEN
                else "Check the address in admin.conf (the load balancer?), then resume",
            )
        time.sleep(PAUSE_SECONDS)


def count_of(listed: dict[str, Any]) -> int:
    """How many there are, by the answer to a list that was asked for with a limit."""
    items: Sequence[Any] = listed.get("items") or ()
    return len(items) + int((listed.get("metadata") or {}).get("remainingItemCount") or 0)

"""Reasons not to begin, each with what to do about it. What was seen is judged; nothing is read."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from recovery.errors import Refused
from recovery.secrecy.redaction import redacted_head
from recovery.steps import probe
from tasks.certificates.catalogue import CONTROL_PLANE, Component, EtcdKind
from tasks.certificates.judging import Method, Reason, names_due, reasons_against
from tasks.certificates.kubeadm import OLDEST, minor_of
from tasks.certificates.reading import Presence
from tasks.certificates.seen import RuntimeKind, Seen
from tasks.certificates.work import Job, KubeletWork, Node

CLOCK_DIFFERENCE_MAX_SECONDS = 60.0
SPARE_KIB = 64 * 1024  # on top of what the backup and its proof take
TOOLS = ("kubeadm", "openssl", "tar", "sha256sum", "systemctl")
DATES_DIFFER_MAX = timedelta(minutes=1)  # text output has no seconds


def _refuse(label: str, reasons: Sequence[Reason]) -> None:
    if reasons:
        remedies = list(dict.fromkeys(reason.remedy for reason in reasons))
        raise Refused(label, "; ".join(one.why for one in reasons), ". ".join(remedies))


@probe(each=("job",))
def refuse_unless_equipped(job: Job) -> None:
    """Refuse where a tool is missing, or kubeadm is too old or of another release.

    Raises:
        Refused: names the tool, or both releases.

    Runbook: docs/runbooks/kubeadm-certificates.md, step 2.
    """
    _refuse(job.label, [*reasons_of_tools(job.seen), *reasons_of_versions(job.seen)])


def reasons_of_tools(seen: Seen) -> list[Reason]:
    """Tools that are not there, and a container runtime that is not known."""
    reasons = [
        Reason(
            f"there is no {tool} on the host",
            f"Install {tool} where root finds it (/usr/local/bin and /opt/bin are looked at too)",
        )
        for tool in TOOLS
        if not seen.tools.get(tool)
    ]
    if seen.runtime.kind is RuntimeKind.NONE:
        reasons.append(
            Reason(
                "nothing is found to restart static pods with: no crictl with a runtime's socket, "
                "and no docker",
                "Install crictl (cri-tools) on the host",
            )
        )
    return reasons


def reasons_of_versions(seen: Seen) -> list[Reason]:
    """A kubeadm that cannot do it, or is not the one this control plane was made with."""
    if not seen.kubeadm_version:
        return []
    ours = minor_of(seen.kubeadm_version)
    if ours < OLDEST:
        return [
            Reason(
                f"kubeadm is {seen.kubeadm_version}, older than 1.{OLDEST[1]}",
                "Renew by the procedure of that release; its commands are other ones",
            )
        ]
    if not seen.control_plane_version:
        return []  # an image pinned by its digest tells no version
    theirs = minor_of(seen.control_plane_version)
    if ours[0] == theirs[0] and ours[1] - theirs[1] in {0, 1}:  # one ahead: in mid-upgrade
        return []
    return [
        Reason(
            f"kubeadm is {seen.kubeadm_version}, the control plane {seen.control_plane_version}",
            "Install the kubeadm of the release that runs",
        )
    ]


@probe(each=("job",))
def refuse_unless_authorities_can_sign(job: Job, method: Method, days_left_min: int) -> None:
    """Refuse where kubeadm would say that it renewed, and did not, or not for long.

    Raises:
        Refused: an authority is missing, ends too soon or has no key here; a certificate is missing
            or cannot be read; kubeadm would not even list them.

    Runbook: docs/runbooks/kubeadm-certificates.md, step 2.
    """
    seen, now = job.seen, datetime.now(UTC)
    reasons = []
    if job.work.names or names_due(seen.report, seen.etcd, now, days_left_min):
        due = names_due(seen.report, seen.etcd, now, days_left_min)
        reasons = reasons_against(seen.report, seen.etcd, due, now, method)
        reasons += reasons_of_pairs(seen)
    if method is Method.RENEW and not reasons:
        reasons += reasons_of_kubeadm(seen)
    _refuse(job.label, reasons)


def reasons_of_pairs(seen: Seen) -> list[Reason]:
    """Certificates that none of the authorities on the host has signed."""
    foreign = [
        leaf.name
        for leaf in seen.leaves
        if leaf.certificate is not None
        and not leaf.is_signed
        and (seen.etcd is EtcdKind.STACKED or "etcd" not in leaf.name)
    ]
    if not foreign:
        return []
    return [
        Reason(
            f"{', '.join(foreign)} not signed by the authority on this host: somebody has "
            "replaced it, and what would be issued now nobody else would trust",
            "Find the authority that has signed them and bring it back, on every host",
        )
    ]


def reasons_of_kubeadm(seen: Seen) -> list[Reason]:
    """What kubeadm itself says against it, where our own reading found nothing."""
    if seen.kubeadm_failed:
        first = next(
            (line for line in seen.kubeadm_failed.splitlines() if line.startswith("error")),
            seen.kubeadm_failed,
        )
        return [
            Reason(
                f"kubeadm cannot list the certificates: {redacted_head(first, 400)}",
                "Mend what it names; files that are damaged are made anew by method=regenerate",
            )
        ]
    if seen.kubeadm_said is None:
        return []
    own = {leaf.name: leaf.not_after for leaf in seen.report.leaves}
    other = [
        leaf.name
        for leaf in seen.kubeadm_said.leaves
        if leaf.not_after is not None
        and (mine := own.get(leaf.name)) is not None
        and abs(mine - leaf.not_after) > DATES_DIFFER_MAX
    ]
    if not other:
        return []
    return [
        Reason(
            f"kubeadm reads other files than {seen.pki}: its dates of {', '.join(other)} differ",
            "See certificatesDir of its configuration (`kubectl -n kube-system get cm "
            "kubeadm-config`) and tls-cert-file of the API server: they must be one folder",
        )
    ]


@probe(each=("job",))
def refuse_unless_pods_come_back(job: Job) -> None:
    """Refuse where a static pod would not be started again.

    Raises:
        Refused: a manifest is not where the kubelet looks, or the kubelet does not run and it is
            not its certificate that keeps it from running.

    Runbook: docs/runbooks/kubeadm-certificates.md, step 2.
    """
    _refuse(job.label, [*reasons_of_manifests(job.seen), *reasons_of_kubelet(job)])


def reasons_of_manifests(seen: Seen) -> list[Reason]:
    """Manifests that are not there: parked by somebody, or lost."""
    wanted = set(CONTROL_PLANE)
    if seen.etcd is not EtcdKind.STACKED:
        wanted.discard(Component.ETCD)
    if lost := sorted(wanted - seen.manifests):
        return [
            Reason(
                f"no manifest of {', '.join(lost)} in /etc/kubernetes/manifests",
                "Move it back in there (somebody may have parked it), or leave this host out",
            )
        ]
    return []


def reasons_of_kubelet(job: Job) -> list[Reason]:
    """A kubelet that is down for another reason than its certificate."""
    if job.seen.kubelet.is_active or job.work.kubelet is not KubeletWork.NOTHING:
        return []
    return [
        Reason(
            "the kubelet is not active, and its certificate is not the reason",
            "See `journalctl -u kubelet` there and start it: it has to start the static pods",
        )
    ]


@probe(each=("job",))
def refuse_if_disk_is_full(job: Job) -> None:
    """Refuse where the backup, its proof and the new files have not the space.

    Raises:
        Refused: names the folder and how much is missing.

    Runbook: docs/runbooks/kubeadm-certificates.md, step 2.
    """
    _refuse(job.label, reasons_of_space(job.seen))


def reasons_of_space(seen: Seen) -> list[Reason]:
    """Folders with too little space: twice what is backed up under /var, and some to spare."""
    wanted = dict.fromkeys(seen.free_kib, SPARE_KIB)
    wanted["/var"] = 2 * seen.size_kib + SPARE_KIB
    return [
        Reason(
            f"{name} has {seen.free_kib.get(name, 0) // 1024} MiB free, {need // 1024} are needed",
            f"Make room under {name}",
        )
        for name, need in wanted.items()
        if seen.free_kib.get(name, 0) < need
    ]


@probe(each=("job",))
def refuse_if_others_are_renewing(job: Job) -> None:
    """Refuse while kubespray's own timer renews on the host.

    Raises:
        Refused: its service runs at this moment.

    Runbook: docs/runbooks/kubeadm-certificates.md, step 2.
    """
    if job.seen.is_renewing:
        raise Refused(
            job.label,
            "k8s-certs-renew.service of kubespray is renewing at this moment",
            "Wait until it is over (`systemctl status k8s-certs-renew`), then look again",
        )


@probe(each=("job",))
def refuse_if_foreign_etcd_ended(job: Job) -> None:
    """Refuse where etcd is not kubeadm's and the certificate for it has ended.

    Raises:
        Refused: the API server could not come back, whatever is renewed here.

    Runbook: docs/runbooks/kubeadm-certificates.md, step 2.
    """
    foreign = job.seen.foreign
    if job.seen.etcd is EtcdKind.STACKED or foreign.certificate is None:
        return
    if foreign.certificate.not_after <= datetime.now(UTC):
        whose = "kubespray" if job.seen.etcd is EtcdKind.KUBESPRAY else "an external etcd"
        raise Refused(
            job.label,
            f"the API server's certificate for etcd ended {foreign.certificate.not_after:%Y-%m-%d}"
            f", and kubeadm does not keep it: it is one of {whose}",
            "Renew it where it comes from first (kubespray: `cluster.yml --tags etcd`)",
        )


@probe
def refuse_unless_hosts_agree(nodes: Sequence[Node]) -> None:
    """Refuse where the hosts are not of one cluster any more.

    Raises:
        Refused: authorities or service account keys differ; says where.

    Runbook: docs/runbooks/kubeadm-certificates.md, step 2.
    """
    for name, by_host in _what_must_be_equal(nodes).items():
        if len(set(by_host.values())) > 1:
            told = ", ".join(f"{host} {value[:12]}" for host, value in by_host.items())
            raise Refused(
                nodes[0].label,
                f"{name} differs between the hosts: {told}",
                "Find out which host was initialised anew, and copy authorities and sa.* from one "
                "that is right; a client that one host issues the others would not trust",
            )


def _what_must_be_equal(nodes: Sequence[Node]) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for node in nodes:
        for authority in node.seen.authorities:
            if authority.certificate is not None:
                by_host = found.setdefault(f"{authority.name} certificate", {})
                by_host[node.label] = authority.certificate.sha256
        keys = found.setdefault("the service account key", {})
        keys[node.label] = node.seen.service_key
        keys[f"{node.label} sa.pub"] = node.seen.service_public_key
    return found


@probe
def refuse_if_clocks_differ(nodes: Sequence[Node]) -> None:
    """Refuse where clocks differ: what is issued on a fast host is not valid yet on the others.

    Raises:
        Refused: a host differs from the worker, or from another host, by more than a minute.

    Runbook: docs/runbooks/kubeadm-certificates.md, step 2.
    """
    limit = CLOCK_DIFFERENCE_MAX_SECONDS
    clocks = sorted((node.seen.clock.middle, node.label) for node in nodes)
    off = [f"{label} by {seconds:+.0f} s" for seconds, label in clocks if abs(seconds) > limit]
    unclear = [n.label for n in nodes if n.seen.clock.width > limit]
    apart = [f"{label} and {other}" for (a, label), (b, other) in pairwise(clocks) if b - a > limit]
    if unclear:
        raise Refused(
            unclear[0],
            f"it answers so slowly that its clock cannot be compared ({', '.join(unclear)})",
            "Look at its load and the network, then look again",
        )
    if off or apart:
        raise Refused(
            nodes[0].label,
            f"clocks differ from the worker's: {', '.join(off) or ', '.join(apart)}",
            "Set the clocks right (`chronyc tracking`, `timedatectl`); if all hosts agree, it is "
            "the worker that is wrong",
        )


@probe
def refuse_unless_accounts_fit(nodes: Sequence[Node]) -> None:
    """Refuse to replace a kubeconfig that is more than a copy of admin.conf.

    Raises:
        Refused: it has several entries, asks another address, or is none; or there is no such
            account anywhere.

    Runbook: docs/runbooks/kubeadm-certificates.md, step 2.
    """
    names = dict.fromkeys(a.name for node in nodes for a in node.seen.accounts)
    for name in names:
        found = [(n, a) for n in nodes for a in n.seen.accounts if a.name == name]
        if all(account.presence is Presence.MISSING for _, account in found):
            raise Refused(
                nodes[0].label,
                f"{name} has no ~/.kube/config on any of the hosts",
                "Leave the name out, or mend it",
            )
        for node, account in found:
            why = ""
            if account.presence is Presence.UNREADABLE:
                why = "is no kubeconfig of the form that kubeadm writes"
            elif account.presence is Presence.READABLE and account.entries != 1:
                why = f"has {account.entries} entries"
            elif account.has_other_credentials:
                why = "holds another kind of credential"
            elif account.server and account.server != node.seen.server:
                why = f"asks {account.server}, admin.conf {node.seen.server}"
            if why:
                raise Refused(
                    node.label,
                    f"{account.path} {why}: replacing it would lose more than a certificate",
                    f"Leave {name} out, and merge admin.conf into it by hand afterwards",
                )


def notes_on(nodes: Sequence[Node], days_left_min: float) -> list[str]:
    """What an operator should know, and is no reason to refuse, host by host."""
    now = datetime.now(UTC)
    return [
        f"{node.label}: {note}"
        for node in nodes
        for note in notes_of(node.seen, now, days_left_min)
    ]


def notes_of(seen: Seen, now: datetime, days_left_min: float) -> list[str]:
    """What an operator should know of one host."""
    limit = now + timedelta(days=days_left_min)
    notes = []
    if seen.has_renewal_timer:
        notes.append("kubespray's k8s-certs-renew.timer is active: it renews by itself as well")
    foreign = seen.foreign.certificate
    if foreign is not None and seen.etcd is not EtcdKind.STACKED and foreign.not_after < limit:
        notes.append(f"the certificate for etcd, not kubeadm's, ends {foreign.not_after:%Y-%m-%d}")
    serving = seen.kubelet.serving.certificate
    if serving is not None and serving.not_after < limit and seen.kubelet.has_server_bootstrap:
        notes.append(
            "the kubelet's serving certificate ends: approve its request "
            "(`kubectl get csr`, kubernetes.io/kubelet-serving)"
        )
    return notes

"""What is to be done on each control-plane host: decided once, from what was seen."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from blocks.ssh.host import SshHost
from recovery.errors import BadInput
from recovery.steps import decision
from tasks.certificates.catalogue import (
    ADMIN,
    CONTROL_PLANE,
    KUBELET_CONF,
    KUBELET_CURRENT,
    KUBELET_PKI,
    LEAVES,
    Component,
    EtcdKind,
    held,
)
from tasks.certificates.judging import (
    Method,
    names_due,
    regenerated_names,
    renewable_names,
)
from tasks.certificates.kubeadm import Kubeadm
from tasks.certificates.reading import Certificate, KeyState, Presence
from tasks.certificates.seen import Account, FileSeen, KubeletForm, Runtime, Seen

ROTATION_FAILED_BELOW = 0.05  # of its lifetime: the kubelet renews between 30 and 10 per cent


class KubeletWork(StrEnum):
    """What is to be done about the client certificate of the kubelet."""

    NOTHING = "nothing"
    LINK = "link"  # kubelet.conf is to name the file that rotates; that file is good
    REISSUE = "reissue"  # a new certificate, into the file that rotates
    REISSUE_AND_LINK = "reissue-and-link"
    REBUILD = "rebuild"  # the same, and kubelet.conf is made anew


REISSUING = frozenset({KubeletWork.REISSUE, KubeletWork.REISSUE_AND_LINK, KubeletWork.REBUILD})


@dataclass(frozen=True)
class Node:
    """A control-plane host, and what was seen of it in this walk."""

    host: SshHost
    seen: Seen

    @property
    def label(self) -> str:
        """The host."""
        return self.host.label


@dataclass(frozen=True)
class Before:
    """A certificate as it was before. Only its name where it could not be read."""

    name: str
    serial: str = ""
    common_name: str = ""
    names: tuple[str, ...] = ()
    not_after: datetime | None = None


@dataclass(frozen=True)
class Work:
    """What is to be done on one host, and with what.

    Attributes:
        host: its label.
        etcd_peer: address on which the other members reach the one of this host.
        server: what admin.conf asks.
        address, api_port: what the API server advertises.
        names: certificates to make anew, by kubeadm's names; none where only processes are stale.
        before: those that kubeadm keeps there, as they were.
        kubelet_before: serial of the kubelet's client certificate.
        replaces_serving: the kubelet is to make another serving certificate.
        serving_before: serial of that one.
        restarts: components to restart.
        accounts: accounts whose kubeconfig is replaced.
        why: in words, for the plan and the report.
    """

    host: str
    node_name: str
    kubeadm: Kubeadm
    pki: str
    is_standard_pki: bool
    etcd: EtcdKind
    etcd_peer: str
    runtime: Runtime
    server: str
    address: str
    api_port: int
    names: tuple[str, ...]
    before: tuple[Before, ...]
    kubelet: KubeletWork
    kubelet_before: str
    replaces_serving: bool
    serving_before: str
    restarts: tuple[Component, ...]
    accounts: tuple[Account, ...]
    why: tuple[str, ...]

    @property
    def changes_files(self) -> bool:
        """Whether anything but processes changes."""
        return bool(self.names or self.touches_kubelet or self.accounts)

    @property
    def touches_kubelet(self) -> bool:
        """Whether a file of the kubelet changes."""
        return self.kubelet is not KubeletWork.NOTHING or self.replaces_serving

    def serial_before(self, name: str) -> str:
        """The serial number a certificate had; empty where it had none."""
        return next((one.serial for one in self.before if one.name == name), "")


@dataclass(frozen=True)
class Job:
    """The work on one host, and what was seen of it in this walk.

    In keys and in the journal it stands by its host; what acts are made of is the decided work.
    """

    host: SshHost
    work: Work
    seen: Seen
    backup_key_file: str = ""

    @property
    def label(self) -> str:
        """The host."""
        return self.host.label

    @property
    def mends_kubelet_client(self) -> bool:
        """Whether the kubelet's client certificate is mended there."""
        return self.work.kubelet is not KubeletWork.NOTHING

    def restarts(self, component: Component) -> bool:
        """Whether this component is restarted there."""
        return component in self.work.restarts


def jobs_of(nodes: Sequence[Node], work: Sequence[Work], backup_key_file: str) -> list[Job]:
    """The work beside the host it is done on, in the order of the hosts."""
    by_label = {one.host: one for one in work}
    return [
        Job(node.host, by_label[node.label], node.seen, backup_key_file)
        for node in nodes
        if node.label in by_label
    ]


@decision(none_is_fine=True)
def work_due(nodes: Sequence[Node], days_left_min: int, method: Method) -> list[Work]:
    """What is to be done, on the hosts where anything is; nothing due is nothing to do.

    Raises:
        BadInput: the number of days is negative.

    Runbook: docs/runbooks/kubeadm-certificates.md, step 1.
    """
    if days_left_min < 0:
        raise BadInput("days_left_min", f"{days_left_min} is negative", "Give 0 or more days")
    now = datetime.now(UTC)
    found = [work_on(node.label, node.seen, days_left_min, method, now) for node in nodes]
    return [work for work in found if work is not None]


def work_on(
    label: str, seen: Seen, days_left_min: float, method: Method, now: datetime
) -> Work | None:
    """What is to be done on one host.

    Args:
        label: of the host.
        seen: what was seen of it.
        days_left_min: what ends earlier is due.
        method: how certificates are made.
        now: by the worker's clock; the later one of it and the host's counts, so that a clock
            that is behind hides nothing.
    """
    now = max(now, seen.seen_at)
    limit = now + timedelta(days=days_left_min)
    due = names_due(seen.report, seen.etcd, now, days_left_min)
    stale = stale_components(seen)
    serving_ends = _serving_due(seen, limit)
    kubelet = _kubelet_work(seen, now, limit if not due else None)
    accounts = tuple(a for a in seen.accounts if _is_replaced(a, seen, is_renewed=bool(due)))
    why = (
        *(_why_due(seen, name, now) for name in due),
        *(f"{component} holds what is no longer on disk" for component in stale if not due),
        *([f"kubelet client certificate: {kubelet}"] if kubelet is not KubeletWork.NOTHING else ()),
        *(["the kubelet's own serving certificate runs out"] if serving_ends else ()),
        *(f"the kubeconfig of {a.name} is not the one on this host" for a in accounts if not due),
    )
    if not why:
        return None
    names: tuple[str, ...] = ()
    if due:
        by_method = {Method.RENEW: renewable_names, Method.REGENERATE: regenerated_names}
        names = by_method[method](seen.report, seen.etcd)
    return Work(
        host=label,
        node_name=seen.node_name,
        kubeadm=Kubeadm(seen.tools.get("kubeadm", ""), seen.kubeadm_version),
        pki=seen.pki,
        is_standard_pki=seen.is_standard_pki,
        etcd=seen.etcd,
        etcd_peer=seen.on_port("etcd-peer").address,
        runtime=seen.runtime,
        server=seen.server,
        address=seen.address,
        api_port=seen.api_port,
        names=names,
        before=tuple(_before(leaf) for leaf in seen.leaves),
        kubelet=kubelet,
        kubelet_before=seen.kubelet.client.serial,
        replaces_serving=serving_ends,
        serving_before=seen.kubelet.serving.serial,
        restarts=_all_components(seen) if due else stale,
        accounts=accounts,
        why=why,
    )


def stale_components(seen: Seen) -> tuple[Component, ...]:
    """Processes that present, or must be assumed to hold, another certificate than their files.

    One that presents its file may still hold an older client certificate: it was started before
    that was written. The kubelet rotates its own, so only what it presents counts.
    """
    stale = [component for component in _all_components(seen) if _is_stale(seen, component)]
    serving, served = seen.kubelet.serving.certificate, seen.on_port("kubelet").certificate
    if serving and served and serving.serial != served.serial:
        stale.append(Component.KUBELET)
    return tuple(stale)


def _all_components(seen: Seen) -> tuple[Component, ...]:
    return tuple(
        component
        for component in CONTROL_PLANE
        if component in seen.manifests
        and (component is not Component.ETCD or seen.etcd is EtcdKind.STACKED)
    )


def _is_stale(seen: Seen, component: Component) -> bool:
    started_at = seen.started_at.get(component)
    if started_at is None:
        return False  # what does not run holds nothing; why it does not is another question
    files = [seen.leaf(leaf.name) for leaf in held(component)]
    if any(file.changed_at > started_at for file in files):
        return True
    ports = {
        Component.APISERVER: (("kube-apiserver", "apiserver"),),
        Component.ETCD: (("etcd", "etcd-server"), ("etcd-peer", "etcd-peer")),
    }
    for port, name in ports.get(component, ()):
        served, file = seen.on_port(port).certificate, seen.leaf(name).certificate
        if served and file and served.serial != file.serial:
            return True
    return False


def _kubelet_work(seen: Seen, now: datetime, limit: datetime | None) -> KubeletWork:
    """What is to be done about the kubelet's client certificate.

    Args:
        seen: the host.
        now: the moment.
        limit: an embedded certificate that ends later is left for when there is other work; `None`
            where there is.
    """
    kubelet = seen.kubelet
    if kubelet.form is KubeletForm.OTHER:
        return KubeletWork.NOTHING
    if kubelet.form in {KubeletForm.MISSING, KubeletForm.UNREADABLE}:
        return KubeletWork.REBUILD
    is_good = _is_good_client(kubelet.client, seen.node_name, now)
    if kubelet.form is KubeletForm.LINKED:
        return KubeletWork.NOTHING if is_good else KubeletWork.REISSUE
    embedded = kubelet.embedded.certificate
    if limit is not None and embedded is not None and embedded.not_after >= limit:
        return KubeletWork.NOTHING
    return KubeletWork.LINK if is_good else KubeletWork.REISSUE_AND_LINK


def _is_good_client(file: FileSeen, node_name: str, now: datetime) -> bool:
    """Whether the kubelet can live with it: its own, and not past the time of its rotation."""
    certificate = file.certificate
    return (
        certificate is not None
        and file.key is KeyState.FITS
        and file.is_signed
        and certificate.common_name == f"system:node:{node_name}"
        and certificate.not_after > now
        and (certificate.not_after - now) / (certificate.not_after - certificate.not_before)
        > ROTATION_FAILED_BELOW
    )


def _serving_due(seen: Seen, limit: datetime) -> bool:
    """Whether the kubelet made its serving certificate itself, and it ends before the limit."""
    kubelet = seen.kubelet
    serving = kubelet.serving
    if kubelet.has_server_bootstrap or kubelet.has_own_serving_file or serving.is_signed:
        return False
    if serving.presence is Presence.UNREADABLE:
        return True
    return serving.certificate is not None and (
        serving.certificate.not_after < limit or serving.key is not KeyState.FITS
    )


def _is_replaced(account: Account, seen: Seen, *, is_renewed: bool) -> bool:
    if account.presence is Presence.MISSING or account.path == f"/etc/kubernetes/{ADMIN}":
        return False
    admin = seen.leaf(ADMIN).certificate
    return is_renewed or admin is None or account.serial != admin.serial


def _why_due(seen: Seen, name: str, now: datetime) -> str:
    leaf = seen.leaf(name)
    if leaf.certificate is None:
        return f"{name} {leaf.presence}"
    left = leaf.certificate.not_after - now
    verb = "ended" if left < timedelta() else "ends"
    return f"{name} {verb} {leaf.certificate.not_after:%Y-%m-%d %H:%M} UTC"


def _before(leaf: FileSeen) -> Before:
    certificate: Certificate | None = leaf.certificate
    if certificate is None:
        return Before(leaf.name)
    return Before(
        leaf.name,
        certificate.serial,
        certificate.common_name,
        certificate.names,
        certificate.not_after,
    )


def leaf_paths(work: Work) -> tuple[str, ...]:
    """The files of the certificates that are made anew."""
    return tuple(
        path for leaf in LEAVES if leaf.name in work.names for path in leaf.paths(work.pki)
    )


def kubelet_paths(work: Work) -> tuple[str, ...]:
    """The files of the kubelet that change."""
    paths = [] if work.kubelet in {KubeletWork.NOTHING, KubeletWork.REISSUE} else [KUBELET_CONF]
    if work.kubelet in REISSUING:
        paths.append(KUBELET_CURRENT)
    if work.replaces_serving:
        paths += [f"{KUBELET_PKI}/kubelet.crt", f"{KUBELET_PKI}/kubelet.key"]
    return tuple(paths)


def changed_paths(work: Work) -> tuple[str, ...]:
    """Every file the work changes, but for those of people."""
    return (*leaf_paths(work), *kubelet_paths(work))

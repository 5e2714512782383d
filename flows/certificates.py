"""Renew the certificates of a kubeadm control plane."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from blocks.inventory import HostsParameter, hosts_named, leased_places
from recovery.declare import recovery
from recovery.verdict import Danger
from tasks import reboot as rebooting
from tasks.certificates import (
    accounts,
    backup,
    files,
    kubelet,
    off_host,
    preflight,
    proof,
    quorum,
    regeneration,
    renewal,
    restart,
    survey,
    triage,
)
from tasks.certificates.catalogue import Component
from tasks.certificates.cluster_config import cluster_names, refuse_if_names_would_be_lost
from tasks.certificates.judging import Method
from tasks.certificates.off_host import BackupKey
from tasks.certificates.quorum import Etcd
from tasks.certificates.triage import CertificatesTriaged
from tasks.certificates.work import Job, Node, jobs_of, work_due


@dataclass(frozen=True)
class Renewed:
    """What a renewal did. Nothing due is no host and no certificate.

    What is left to a person are the kubeconfigs of people, where no account was named.
    """

    hosts: tuple[str, ...] = ()
    certificates: int = 0
    notes: tuple[str, ...] = ()
    left_to_person: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Order:
    """How it is to be done."""

    days_left_min: int
    method: Method
    reboot: bool
    kubeadm_config: str


@recovery(
    runbook="docs/runbooks/kubeadm-certificates.md",
    target=lambda hosts: hosts_named(hosts).label,
    parts=lambda hosts: leased_places(hosts_named(hosts).hosts),
    answers=["KubeClientCertificateExpiration", "KubeletClientCertificateExpiration"],
    danger=Danger.DESTRUCTIVE,
)
def renew_control_plane_certificates(  # noqa: PLR0913, PLR0917 (each is a field of the form)
    hosts: HostsParameter,
    days_left_min: int = 30,
    method: Literal["renew", "regenerate"] = "renew",
    reboot: bool = False,  # noqa: FBT001, FBT002 (a field of the form)
    users: str = "",
    backup_key_file: str = "",
    off_host_backup: bool = True,  # noqa: FBT001, FBT002 (a field of the form)
    kubeadm_config: str = "",
) -> Renewed:
    """Renew what kubeadm manages on every control-plane host, restart what holds it, prove it.

    Works with the API down and everything expired. Authorities are never touched. Nothing is
    changed before a backup lies on the host and, encrypted, on the worker; undo puts it back.

    Args:
        hosts: All control-plane hosts: name of an inventory, its file, or ssh://user@host URLs
            with blanks between them.
        days_left_min: A certificate with fewer days left is renewed.
        method: renew takes names from the certificates there; regenerate from kubeadm's
            configuration.
        reboot: Reboot the hosts one by one, instead of restarting the static pods.
        users: Accounts on the hosts whose ~/.kube/config is replaced, such as: root ops.
        backup_key_file: File on the worker with 64 hex digits, to encrypt its backup with.
        off_host_backup: Wants the key file. Switched off, the backup lies on the hosts alone.
        kubeadm_config: Path on the worker of the cluster's configuration; empty asks the API.

    Runbook: docs/runbooks/kubeadm-certificates.md.
    """
    order = Order(days_left_min, Method(method), reboot, kubeadm_config)
    nodes = survey.nodes_of(hosts_named(hosts), accounts.names_in(users))
    work = work_due(nodes, days_left_min, order.method)
    notes = tuple(preflight.notes_on(nodes, days_left_min))
    if not work:
        return Renewed(notes=notes)
    key = BackupKey(backup_key_file) if off_host_backup else None
    jobs = jobs_of(nodes, work, backup_key_file)
    _refuse_unless_fit(jobs, nodes, order)
    _back_up([job for job in jobs if job.work.changes_files], key)
    certificates = _make_anew([job for job in jobs if job.work.names], nodes, order)
    _mend_kubelets(jobs)
    _use(jobs, nodes, order)
    for job, account in accounts.accounts_of(jobs):
        accounts.replace_kubeconfig(job, account)
    _prove(jobs, nodes)
    left = accounts.left_to_person(accounts.names_in(users)) if certificates else []
    return Renewed(tuple(job.label for job in jobs), certificates, notes, left)


@recovery(
    runbook="docs/runbooks/kubeadm-certificates.md",
    target=lambda hosts: f"triage of {hosts_named(hosts).label}",
    answers=["KubeletClientCertificateRenewalErrors", "KubeletServerCertificateExpiration"],
    danger=Danger.READ,
)
def triage_certificates_kubeadm(
    hosts: HostsParameter, days_left_min: int = triage.DAYS_LEFT_MIN
) -> CertificatesTriaged:
    """Look at every certificate of a kubeadm control plane, and name the recovery to run.

    Changes nothing. Tells all that is due and all that stands against mending it, at once.

    Args:
        hosts: All control-plane hosts: name of an inventory, its file, or ssh:// URLs.
        days_left_min: A certificate that ends earlier is due.

    Runbook: docs/runbooks/kubeadm-certificates.md, steps 1 and 2.
    """
    days = triage.days_of(days_left_min)
    looked = triage.host_looked_at.over(hosts_named(hosts).hosts)
    nodes = triage.nodes_in(looked)
    jobs = triage.jobs_in(nodes, days, Method.RENEW)
    against = {Method.RENEW: triage.what_stands_against(nodes, jobs, days, Method.RENEW)}
    if against[Method.RENEW]:
        against[Method.REGENERATE] = triage.what_stands_against(
            nodes, jobs, days, Method.REGENERATE
        )
    return triage.conclusion(looked, jobs, against, days, hosts)


def _refuse_unless_fit(jobs: Sequence[Job], nodes: Sequence[Node], order: Order) -> None:
    """Step 2: every reason not to begin, before anything is changed."""
    preflight.refuse_unless_hosts_agree(nodes)
    preflight.refuse_if_clocks_differ(nodes)
    preflight.refuse_unless_accounts_fit(nodes)
    preflight.refuse_unless_equipped.over(jobs)
    preflight.refuse_unless_authorities_can_sign.over(jobs, order.method, order.days_left_min)
    preflight.refuse_unless_pods_come_back.over(jobs)
    preflight.refuse_if_disk_is_full.over(jobs)
    preflight.refuse_if_others_are_renewing.over(jobs)
    preflight.refuse_if_foreign_etcd_ended.over(jobs)
    quorum.refuse_unless_etcd_stands_it(jobs, nodes)


def _back_up(jobs: Sequence[Job], key: BackupKey | None) -> None:
    """Steps 3 and 4: on the host and, where a key is wanted, encrypted on the worker."""
    if not jobs:
        return
    if key:
        off_host.refuse_unless_key_is_named(key)
    backup.back_up.over(jobs)
    if key:
        off_host.copy_off_host.over(jobs, key)


def _make_anew(jobs: Sequence[Job], nodes: Sequence[Node], order: Order) -> int:
    """Steps 5 and 6: the files on every host; nothing that runs changes yet."""
    if not jobs:
        return 0
    if order.method is Method.RENEW:
        renewal.renew.over(jobs)
    else:
        config = cluster_names(nodes, order.kubeadm_config)
        refuse_if_names_would_be_lost.over(jobs, config)
        regeneration.make_beside.over(jobs, config)
        regeneration.put_in_place.over(jobs, order.days_left_min)
    return sum(files.files_are_sound.over(jobs, order.days_left_min))


def _mend_kubelets(jobs: Sequence[Job]) -> None:
    """Steps 7 to 9: before the static pods, because a kubelet that is down starts none."""
    for job in jobs:
        if job.mends_kubelet_client:
            kubelet.mend_kubelet_client(job)
        if job.work.replaces_serving:
            kubelet.drop_kubelet_serving(job)
        if job.work.touches_kubelet or job.restarts(Component.KUBELET):
            kubelet.restart_kubelet(job)


def _use(jobs: Sequence[Job], nodes: Sequence[Node], order: Order) -> None:
    """Steps 10 to 12: host after host; without quorum, a majority first."""
    etcd = quorum.etcd_of(nodes)
    if order.reboot:
        _reboot([job for job in jobs if job.work.names], etcd)
        jobs = [job for job in jobs if not job.work.names]
    for count, job in enumerate([job for job in jobs if job.restarts(Component.ETCD)], 1):
        restart.restart(job, Component.ETCD, etcd)
        if etcd.is_waited_for(count):
            restart.etcd_is_healthy(job)
    for job in jobs:
        if job.restarts(Component.APISERVER):
            restart.restart(job, Component.APISERVER, etcd)
            restart.apiserver_is_ready(job)
    for component in (Component.CONTROLLER_MANAGER, Component.SCHEDULER):
        for job in jobs:
            if job.restarts(component):
                restart.restart(job, component, etcd)


def _reboot(jobs: Sequence[Job], etcd: Etcd) -> None:
    """The runbook's own way: a host is left only when what it serves is new."""
    for count, job in enumerate(jobs, 1):
        before = rebooting.boot_id_before(job.host)
        quorum.quorum_meanwhile(job, etcd, before)
        rebooting.reboot(job.host, before)
        rebooting.came_back(job.host, before, ("kubelet",))
        if not etcd.is_waited_for(count):
            continue
        if job.restarts(Component.ETCD):
            restart.etcd_is_healthy(job)
        restart.apiserver_is_ready(job)


def _prove(jobs: Sequence[Job], nodes: Sequence[Node]) -> None:
    """Step 14: what is served, what holds what, and what the API answers."""
    proof.everything_uses_its_files.over(nodes)
    proof.admin_can_read.over(jobs)
    proof.leaders_are_at_work(jobs[0])

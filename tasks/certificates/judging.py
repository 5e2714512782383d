"""Which certificates are due, and what speaks against renewing them: pure, from what was seen."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from tasks.certificates.catalogue import (
    AUTHORITIES,
    BY_NAME,
    LEAVES,
    SUPER_ADMIN,
    EtcdKind,
)
from tasks.certificates.kubeadm import Known, Report
from tasks.certificates.reading import Presence

AUTHORITY_LASTS_MIN = timedelta(days=400)  # kubeadm issues for a year, whatever the authority says


class Method(StrEnum):
    """How certificates are made anew."""

    RENEW = "renew"  # from the certificates that are there
    REGENERATE = "regenerate"  # from the configuration of the cluster


@dataclass(frozen=True)
class Reason:
    """Why not, and what to do about it."""

    why: str
    remedy: str


def is_kubeadms(name: str, etcd: EtcdKind) -> bool:
    """Whether kubeadm keeps this certificate or authority on a host with such an etcd."""
    is_etcds = (
        BY_NAME[name].is_etcds
        if name in BY_NAME
        else any(a.is_etcds for a in AUTHORITIES if a.name == name)
    )
    return etcd is EtcdKind.STACKED or not is_etcds


def kept_leaves(report: Report, etcd: EtcdKind) -> list[Known]:
    """The certificates that kubeadm keeps on this host, missing ones included."""
    return [leaf for leaf in report.leaves if leaf.name in BY_NAME and is_kubeadms(leaf.name, etcd)]


def names_due(
    report: Report, etcd: EtcdKind, now: datetime, days_left_min: float
) -> tuple[str, ...]:
    """Names of the certificates that end within so many days, by kubeadm's names.

    A certificate is worth no more than its authority. One that is missing or cannot be read is due
    as well, unless it may be missing.
    """
    limit = now + timedelta(days=days_left_min)
    ends = {authority.name: authority.not_after for authority in report.authorities}
    due = []
    for leaf in kept_leaves(report, etcd):
        if leaf.presence is Presence.MISSING and leaf.name == SUPER_ADMIN:
            continue
        authority_ends = ends.get(BY_NAME[leaf.name].ca)
        moments = [moment for moment in (leaf.not_after, authority_ends) if moment is not None]
        if leaf.not_after is None or min(moments) < limit:
            due.append(leaf.name)
    return tuple(due)


def renewable_names(report: Report, etcd: EtcdKind) -> tuple[str, ...]:
    """Names of the certificates that `kubeadm certs renew all` makes anew on this host."""
    return tuple(
        leaf.name
        for leaf in kept_leaves(report, etcd)
        if leaf.presence is Presence.READABLE and not leaf.is_external
    )


def regenerated_names(report: Report, etcd: EtcdKind) -> tuple[str, ...]:
    """Names of the certificates that are made from the configuration: all that belong there."""
    return tuple(
        leaf.name
        for leaf in kept_leaves(report, etcd)
        if not (leaf.presence is Presence.MISSING and leaf.name == SUPER_ADMIN)
    )


def reasons_against(
    report: Report, etcd: EtcdKind, due: Sequence[str], now: datetime, method: Method
) -> list[Reason]:
    """What speaks against making these certificates anew on this host.

    Args:
        report: what is there, by kubeadm or by our own reading.
        etcd: who keeps the certificates of etcd.
        due: names of those that are due.
        now: the moment.
        method: how they would be made.
    """
    authorities = {authority.name: authority for authority in report.authorities}
    kept = [
        authorities.get(authority.name, Known(authority.name, Presence.MISSING))
        for authority in AUTHORITIES
        if is_kubeadms(authority.name, etcd)
    ]
    if not report.authorities:  # releases before 1.18 list none; our own reading always does
        kept = []
    return [
        *_against_authorities(kept, now),
        *_against_keys(report, due, kept),
        *(_against_files(report, etcd) if method is Method.RENEW else ()),
    ]


def _against_authorities(authorities: Iterable[Known], now: datetime) -> list[Reason]:
    reasons = []
    for authority in authorities:
        name = _file_of(authority.name)
        if authority.presence is Presence.MISSING:
            reasons.append(
                Reason(
                    f"the authority {name}.crt is missing",
                    "Bring it back from a backup or from another control-plane host; never make "
                    "a new one. A host that has none at all is no control plane of kubeadm",
                )
            )
        elif authority.presence is Presence.UNREADABLE:
            reasons.append(
                Reason(
                    f"the authority {name}.crt cannot be read: {authority.why}",
                    "Bring it back from a backup or from another control-plane host",
                )
            )
        elif authority.not_after is not None and authority.not_after < now + AUTHORITY_LASTS_MIN:
            has_ended = authority.not_after < now
            reasons.append(
                Reason(
                    f"the authority {name}.crt {'ended' if has_ended else 'ends'} "
                    f"{authority.not_after:%Y-%m-%d %H:%M} UTC, before what it would sign",
                    "Rotate the authority first, by the procedure of the Kubernetes "
                    "documentation (manual rotation of CA certificates); this recovery never does",
                )
            )
    return reasons


def _against_keys(report: Report, due: Sequence[str], authorities: Iterable[Known]) -> list[Reason]:
    external = {leaf.name for leaf in report.leaves if leaf.is_external}
    unsigned = [
        authority.name
        for authority in authorities
        if authority.is_external
        and any(BY_NAME[name].ca == authority.name for name in due if name in BY_NAME)
    ]
    stuck = [name for name in due if name in external]
    if not unsigned and not stuck:
        return []
    keys = ", ".join(f"{_file_of(name)}.key" for name in unsigned) or "the key of an authority"
    return [
        Reason(
            f"{keys} is not on this host or does not fit, so nobody here can sign "
            f"{', '.join(stuck or due)} (external authority)",
            "Bring the key here for the time of the renewal, or have requests signed where it is: "
            "`kubeadm certs generate-csr`",
        )
    ]


def _against_files(report: Report, etcd: EtcdKind) -> list[Reason]:
    remedy = "Start it with method=regenerate, which makes files anew from the configuration"
    leaves = {leaf.name: leaf for leaf in kept_leaves(report, etcd)}
    missing = [
        _file_of(leaf.name)
        for leaf in LEAVES
        if is_kubeadms(leaf.name, etcd)
        and leaf.name != SUPER_ADMIN
        and leaves.get(leaf.name, Known(leaf.name, Presence.MISSING)).presence is Presence.MISSING
    ]
    unreadable = [leaf for leaf in leaves.values() if leaf.presence is Presence.UNREADABLE]
    reasons = [
        Reason(f"{_file_of(leaf.name)} cannot be read: {leaf.why}", remedy) for leaf in unreadable
    ]
    if missing:
        reasons.append(
            Reason(f"{', '.join(missing)} missing: kubeadm would leave it out silently", remedy)
        )
    return reasons


def _file_of(name: str) -> str:
    """The file an operator looks for."""
    if name in BY_NAME:
        leaf = BY_NAME[name]
        return leaf.file if leaf.is_kubeconfig else f"{leaf.file}.crt"
    return next((a.file for a in AUTHORITIES if a.name == name), name)

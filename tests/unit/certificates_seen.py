"""Control-plane hosts as they may be seen, for judging them without one."""

import hashlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from tasks.certificates.catalogue import AUTHORITIES, CONTROL_PLANE, LEAVES, Component, EtcdKind
from tasks.certificates.reading import Certificate, KeyState, Presence
from tasks.certificates.seen import (
    Account,
    ApiState,
    Clock,
    FileSeen,
    KubeletForm,
    KubeletSeen,
    Runtime,
    RuntimeKind,
    Seen,
    Served,
)
from tasks.certificates.work import Job, Method, Node, work_on

NOW = datetime.now(UTC).replace(microsecond=0)  # code under test may read the clock itself
WRITTEN_AT, STARTED_AT = 1_000_000.0, 1_000_100.0
CRI = Runtime(RuntimeKind.CRI, "/usr/bin/crictl", "unix:///run/containerd/containerd.sock")
NODE_NAME = "cp1"


class NoHost:
    """A host that is never asked."""

    def __init__(self, label="root@cp1"):
        self.label = self.target = label


def certificate(name, left=timedelta(days=200), *, lifetime=timedelta(days=365), **fields):
    right = {
        "serial": hashlib.sha256(name.encode()).hexdigest()[:16].upper(),
        "subject": f"CN={name}",
        "common_name": name,
        "issuer": "CN=kubernetes",
        "names": (),
        "not_before": NOW + left - lifetime,
        "not_after": NOW + left,
        "sha256": hashlib.sha256(name.encode()).hexdigest(),
    }
    return Certificate(**{**right, **fields})


def file_seen(name, left=timedelta(days=200), **fields):
    """A certificate in a file, in order unless said otherwise; `left` of `None`: it is missing."""
    if left is None:
        return FileSeen(name, Presence.MISSING)
    more = {n: fields.pop(n) for n in tuple(fields) if n in Certificate.__dataclass_fields__}
    return replace(
        FileSeen(
            name,
            Presence.READABLE,
            certificate(name, left, **more),
            KeyState.FITS,
            is_signed=True,
            changed_at=WRITTEN_AT,
        ),
        **fields,
    )


def broken_file(name, why="no certificate"):
    return FileSeen(name, Presence.UNREADABLE, changed_at=WRITTEN_AT, why=why)


def kubelet_seen(**fields):
    node = f"system:node:{NODE_NAME}"
    right = {
        "form": KubeletForm.LINKED,
        "client": file_seen("kubelet-client", common_name=node),
        "embedded": broken_file("kubelet.conf"),
        "serving": file_seen("kubelet-serving", is_signed=False),
        "is_active": True,
        "has_server_bootstrap": False,
        "has_own_serving_file": False,
    }
    return KubeletSeen(**{**right, **fields})


def seen_host(*, left=timedelta(days=200), each=None, **fields):
    """A control-plane host in order; `each` says how long single certificates have."""
    each = each or {}
    leaves = tuple(file_seen(leaf.name, each.get(leaf.name, left)) for leaf in LEAVES)
    by_name = {leaf.name: leaf.certificate for leaf in leaves}
    kubelet = fields.get("kubelet") or kubelet_seen()
    right = {
        "seen_at": NOW,
        "clock": Clock(-0.01, 0.01),
        "node_name": NODE_NAME,
        "tools": dict.fromkeys(
            ("kubeadm", "kubectl", "crictl", "openssl", "tar", "sha256sum", "systemctl"), "/bin/it"
        ),
        "kubeadm_version": "v1.36.2",
        "control_plane_version": "v1.36.2",
        "pki": "/etc/kubernetes/pki",
        "is_standard_pki": True,
        "etcd": EtcdKind.STACKED,
        "manifests": frozenset(CONTROL_PLANE),
        "leaves": leaves,
        "authorities": tuple(file_seen(a.name, timedelta(days=3000)) for a in AUTHORITIES),
        "foreign": FileSeen("foreign", Presence.MISSING),
        "service_key": "5a" * 32,
        "service_public_key": "5a" * 32,
        "kubelet": kubelet,
        "served": (
            Served("kube-apiserver", "127.0.0.1:6443", by_name["apiserver"]),
            Served("etcd", "127.0.0.1:2379", by_name["etcd-server"]),
            Served("etcd-peer", "10.0.0.10:2380", by_name["etcd-peer"]),
            Served("kubelet", "127.0.0.1:10250", kubelet.serving.certificate),
        ),
        "started_at": {str(c): STARTED_AT for c in (*CONTROL_PLANE, Component.KUBELET)},
        "runtime": CRI,
        "api": ApiState.READY,
        "server": "https://lb:6443",
        "address": "10.0.0.10",
        "api_port": 6443,
        "size_kib": 400,
        "free_kib": dict.fromkeys(("/var", "/etc/kubernetes", "/var/lib/kubelet"), 1 << 20),
        "is_renewing": False,
        "has_renewal_timer": False,
    }
    return Seen(**{**right, **fields})


def account(**fields):
    right = {
        "name": "ops",
        "ids": "1000:1000",
        "path": "/home/ops/.kube/config",
        "presence": Presence.READABLE,
        "mode": "600",
        "server": "https://lb:6443",
        "entries": 1,
        "serial": "0DD",
    }
    return Account(**{**right, **fields})


def work_of(seen, *, days=30, method=Method.RENEW, label="root@cp1"):
    return work_on(label, seen, days, method, NOW)


def node_of(seen=None, label="root@cp1"):
    return Node(NoHost(label), seen or seen_host())


def job_of(seen=None, *, host=None, label="root@cp1", **options):
    """The work on a host whose certificates end soon, unless another one is given."""
    seen = seen or seen_host(left=timedelta(days=3))
    work = work_of(seen, label=label, **options)
    assert work is not None
    return Job(host or NoHost(label), work, seen)

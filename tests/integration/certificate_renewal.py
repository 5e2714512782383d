"""Renewals of a lab control plane, and what the cluster itself shows of them."""

import hashlib
import os
import re
import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import flows.certificates  # noqa: F401 (declares the recovery)
from recovery.declare import RECOVERIES, run_plainly
from recovery.evidence.status import verify_journal
from recovery.journal.sqlite_store import SqliteJournal
from recovery.run import Options
from tests.lab.pki import ends_at, load_certificates

NAME = "renew-control-plane-certificates"
PKI = "/etc/kubernetes/pki"
BACKUPS = "/var/backups/kubernetes-certificates"
KEPT = tuple(
    f"{PKI}/{name}"
    for name in (
        *("ca.crt", "ca.key", "front-proxy-ca.crt", "front-proxy-ca.key"),
        *("etcd/ca.crt", "etcd/ca.key", "sa.key", "sa.pub"),
    )
)
PAIRS = {
    "apiserver": ("kube-apiserver", "6443"),
    "etcd/server": ("etcd", "2379"),
    "etcd/peer": ("etcd", "2380"),
}
KUBELET_SERVING = "/var/lib/kubelet/pki/kubelet.crt"
LEAVES = (
    *("apiserver", "apiserver-kubelet-client", "apiserver-etcd-client", "front-proxy-client"),
    *("etcd/server", "etcd/peer", "etcd/healthcheck-client"),
)
CONFIGS = ("admin.conf", "super-admin.conf", "controller-manager.conf", "scheduler.conf")


@dataclass
class Renewal:
    """A renewal of a cluster, with a journal, a key and a work folder of its own."""

    cluster: object
    folder: Path
    given: dict = field(default_factory=dict)

    def __post_init__(self):
        self.key = self.folder / "backup.key"
        self.key.write_text(secrets.token_hex(32))
        self.key.chmod(0o600)
        os.environ["RECOVER_JOURNAL"] = str(self.folder / "journal.sqlite")
        os.environ["RECOVER_WORK_DIR"] = str(self.folder / "work")

    @property
    def hosts(self):
        return self.cluster.hosts

    def parameters(self, **changes):
        declared = RECOVERIES[NAME]
        own = {
            "hosts": " ".join(host.url() for host in self.hosts),
            "backup_key_file": str(self.key),
        }
        defaults = {name: default for name, (_, default) in declared.parameters.items()}
        return {**defaults, **own, **self.given, **changes}

    def plan(self, **changes):
        return self._run(Options(plan_only=True), changes)

    def run(self, *, approve="", **changes):
        """Carry it out; with `approve`, as the plan of that hash."""
        consent = Options(approve=approve, approved_by="test")
        return self._run(consent if approve else Options(break_glass="test"), changes)

    def resume(self, ended, **changes):
        return self._run(Options(resume=ended.recovery_id), changes)

    def undo(self, ended):
        options = Options(resume=ended.recovery_id, undo_by="test", break_glass="test")
        return self._run(options, {})

    def triage(self, hosts):
        triage = RECOVERIES["triage-certificates-kubeadm"]
        return run_plainly(triage, {"hosts": hosts, "days_left_min": 30}, Options())

    def _run(self, options, changes):
        return run_plainly(RECOVERIES[NAME], self.parameters(**changes), options)

    def journal_bytes(self):
        files = [path for path in self.folder.rglob("*") if path.is_file() and path != self.key]
        return b"".join(path.read_bytes() for path in files)

    def commands(self, ended):
        """What was sent that changes something, in order: step and command."""
        journal = SqliteJournal(self.folder / "journal.sqlite")
        try:
            events = journal.events(ended.recovery_id)
            assert not [flaw for flaws in verify_journal(journal, None).values() for flaw in flaws]
        finally:
            journal.close()
        return [
            (event.step, event.body["command"])
            for event in events
            if event.kind == "command" and event.body["is_change"]
        ]


# -- what a host shows of itself, read without any of our own code -------------------------------


def sha256_of(host, paths):
    return {path: hashlib.sha256(host.read_file(path)).hexdigest() for path in paths}


def files_of(host):
    """The hash of every file of the cluster on a host."""
    listed = host.run(
        "find /etc/kubernetes /var/lib/kubelet/pki /root/.kube /home/ops/.kube -type f "
        "-exec sha256sum {} + | sort -k 2"
    )
    return dict(reversed(line.split(maxsplit=1)) for line in listed.splitlines())


def on_disk(host, leaf):
    """The certificate of a file, or the one embedded in a kubeconfig."""
    if leaf.endswith(".conf"):
        pem = host.run(
            f"sed -n 's/^ *client-certificate-data: //p' /etc/kubernetes/{leaf} | base64 -d"
        ).encode()
    else:
        path = leaf if leaf.startswith("/") else f"{PKI}/{leaf}.crt"
        pem = host.read_file(path)
    return load_certificates(pem)[0]


def presented(host, port):
    """The certificate presented on a port of a host, asked by the host itself."""
    address = host.address if port == "2380" else "127.0.0.1"
    pem = host.run(
        f"timeout 5 openssl s_client -connect {address}:{port} </dev/null 2>/dev/null || :"
    )
    return load_certificates(pem.encode())[0]


def days_left(certificate):
    return (ends_at(certificate) - datetime.now(UTC)).total_seconds() / 86400


def processes(host):
    """The process of each component."""
    listed = host.run("ps -eo pid=,comm= --sort pid")
    names = {"etcd", "kube-apiserver", "kube-controller", "kube-scheduler", "kubelet"}
    found = (line.split() for line in listed.splitlines())
    return {comm: int(pid) for pid, comm in found if comm in names}


def started_at(host, pid):
    """When a process was started, in seconds of the host's clock."""
    now, since = host.run(f"date +%s.%N; ps -o etimes= -p {pid}").split()
    return float(now) - float(since)


def assert_renewed(host, before, *, leaves=(*LEAVES, *CONFIGS), is_etcd_ours=True):
    """Every certificate is another one that lasts, and it is what every process uses.

    Args:
        host: a host of the lab.
        before: serial numbers from before, by leaf; see `serials`.
        leaves: what had to be renewed.
        is_etcd_ours: etcd is kubeadm's.
    """
    for leaf in leaves:
        certificate = on_disk(host, leaf)
        assert certificate.serial_number != before[leaf], leaf
        assert days_left(certificate) > 300, leaf
    for leaf, (_, port) in PAIRS.items():
        if is_etcd_ours or not leaf.startswith("etcd"):
            assert presented(host, port).serial_number == on_disk(host, leaf).serial_number, leaf
    serving = load_certificates(host.read_file(KUBELET_SERVING))[0]
    assert presented(host, "10250").serial_number == serving.serial_number
    assert days_left(serving) > 300
    running = processes(host)
    for name, conf in (
        ("kube-controller", "controller-manager.conf"),
        ("kube-scheduler", "scheduler.conf"),
    ):
        written = float(host.run(f"date -r /etc/kubernetes/{conf} +%s.%N"))
        assert started_at(host, running[name]) >= written - 1, name


def serials(host, leaves=(*LEAVES, *CONFIGS)):
    return {leaf: on_disk(host, leaf).serial_number for leaf in leaves}


def names_of(host, leaf):
    """The names and addresses of a certificate, as openssl prints them."""
    text = host.run(f"openssl x509 -noout -ext subjectAltName -in {PKI}/{leaf}.crt 2>&1 || :")
    return set(re.findall(r"(?:DNS|IP Address):[^,\s]+", text))


def changed(before, after):
    """Paths that are another file than before, or are there no more or newly."""
    return {path for path in {*before, *after} if before.get(path) != after.get(path)}

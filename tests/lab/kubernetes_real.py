"""A private etcd, kube-apiserver and kube-controller-manager: the real API, without containers.

The programs are found by the envtest convention (KUBEBUILDER_ASSETS); etcd may be Debian's 3.4.
"""

import contextlib
import ipaddress
import json
import os
import ssl
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from urllib.request import urlopen

from tests.lab.control_plane_host import BINARIES
from tests.lab.kubernetes_client import LabClient
from tests.lab.kubernetes_roles import ARE_RECORDED, REVIEW, REVIEWS
from tests.lab.pki import (
    CLIENT,
    SERVER,
    Validity,
    Wanted,
    authority,
    key_pem,
    new_key,
    public_key_pem,
)
from tests.lab.ports import LOOPBACK, free_port
from tests.lab.processes import Server, find_binary, write_secret

DAY = timedelta(days=1)
WEEK = timedelta(days=7)
AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        {"level": "Request", "resources": [{"group": REVIEWS, "resources": [REVIEW]}]},
        {"level": "Metadata"},
    ],
}
CONTROLLERS = (
    "deployment-controller", "replicaset-controller", "statefulset-controller",
    "daemonset-controller", "job-controller", "cronjob-controller", "disruption-controller",
    "garbage-collector-controller", "namespace-controller", "persistentvolume-binder-controller",
    "endpointslice-controller", "persistentvolumeclaim-protection-controller",
    "persistentvolume-protection-controller", "clusterrole-aggregation-controller",
)  # fmt: skip


def find_kubernetes(name: str) -> str:
    """Find a program of Kubernetes, beside the others or on PATH.

    Raises:
        ServerMissing: it is in neither.
    """
    return find_binary(name, Path(os.environ.get("KUBEBUILDER_ASSETS", BINARIES)))


class Etcd(Server):
    """The store of the API, which may lose what it has with the machine."""

    name = "etcd"

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.port, self._peers = free_port(), free_port()

    def command(self) -> list[str]:
        """See Server."""
        clients, peers = (f"http://{LOOPBACK}:{port}" for port in (self.port, self._peers))
        return [
            find_kubernetes("etcd"),
            f"--data-dir={self.directory / 'etcd'}",
            f"--listen-client-urls={clients}",
            f"--advertise-client-urls={clients}",
            f"--listen-peer-urls={peers}",
            f"--initial-advertise-peer-urls={peers}",
            f"--initial-cluster=default={peers}",
            "--unsafe-no-fsync",
        ]

    def answers(self) -> object:
        """See Server."""
        with urlopen(f"http://{LOOPBACK}:{self.port}/health", timeout=2) as answer:
            return b"true" in answer.read()


class ApiServer(Server):
    """kube-apiserver with RBAC, client certificates and no aggregation."""

    name = "kube-apiserver"
    start_within_seconds = 60

    def __init__(self, directory: Path, etcd: Etcd) -> None:
        super().__init__(directory)
        self.port, self.etcd = free_port(), etcd
        self._make_keys()

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"https://{LOOPBACK}:{self.port}"

    def client(self) -> LabClient:
        """A client of the tests' own, as administrator."""
        tls = ssl.create_default_context(cafile=str(self.directory / "ca.crt"))
        tls.load_cert_chain(self.directory / "admin.crt", self.directory / "admin.key")
        return LabClient(self.url, tls=tls)

    def command(self) -> list[str]:
        """See Server."""
        at = self.directory
        return [
            find_kubernetes(self.name),
            f"--etcd-servers=http://{LOOPBACK}:{self.etcd.port}",
            f"--bind-address={LOOPBACK}",
            f"--advertise-address={LOOPBACK}",
            f"--secure-port={self.port}",
            f"--client-ca-file={at / 'ca.crt'}",
            f"--tls-cert-file={at / 'server.crt'}",
            f"--tls-private-key-file={at / 'server.key'}",
            f"--kubelet-client-certificate={at / 'admin.crt'}",
            f"--kubelet-client-key={at / 'admin.key'}",
            "--kubelet-preferred-address-types=InternalIP",
            f"--service-account-key-file={at / 'accounts.pub'}",
            f"--service-account-signing-key-file={at / 'accounts.key'}",
            "--service-account-issuer=https://kubernetes.default.svc",
            "--service-cluster-ip-range=10.0.0.0/24",
            "--authorization-mode=RBAC",
            "--disable-admission-plugins=ServiceAccount,TaintNodesByCondition",
            "--allow-privileged=true",
            "--endpoint-reconciler-type=none",
            "--feature-gates=WatchList=false",  # wants progress from a newer etcd
            *self._audited(),
        ]

    def _audited(self) -> list[str]:
        if not ARE_RECORDED:
            return []
        policy = self.directory / "audit.json"
        policy.write_text(json.dumps(AUDIT_POLICY))
        return [f"--audit-policy-file={policy}", f"--audit-log-path={self.audit_log}"]

    @property
    def audit_log(self) -> Path:
        """Who asked for what, where rights are recorded."""
        return self.directory / "audit.log"

    def answers(self) -> object:
        """See Server."""
        return self.client().is_ready() and self.client().get("/api/v1/namespaces/default")

    def _make_keys(self) -> None:
        at = self.directory
        good = Validity.with_left(DAY, WEEK)
        root = authority("lab", good, new_key())
        here = ipaddress.ip_address(LOOPBACK)
        people = {
            "server": Wanted("kube-apiserver", (), (SERVER,), ("localhost",), (here,)),
            "admin": Wanted("admin", ("system:masters",), (CLIENT,)),
        }
        (at / "ca.crt").write_bytes(root.certificate_pem)
        for name, wanted in people.items():
            pair = root.issue(wanted, good, new_key())
            (at / f"{name}.crt").write_bytes(pair.certificate_pem)
            write_secret(at / f"{name}.key", pair.key_pem.decode())
        accounts = new_key()
        write_secret(at / "accounts.key", key_pem(accounts).decode())
        (at / "accounts.pub").write_bytes(public_key_pem(accounts))


class ControllerManager(Server):
    """The controllers that tests look at the work of."""

    name = "kube-controller-manager"
    start_within_seconds = 60

    def __init__(self, directory: Path, kubeconfig: Path) -> None:
        super().__init__(directory)
        self.port, self._kubeconfig = free_port(), kubeconfig

    def command(self) -> list[str]:
        """See Server."""
        return [
            find_kubernetes(self.name),
            f"--kubeconfig={self._kubeconfig}",
            f"--bind-address={LOOPBACK}",
            f"--secure-port={self.port}",
            f"--authentication-kubeconfig={self._kubeconfig}",
            f"--authorization-kubeconfig={self._kubeconfig}",
            "--leader-elect=false",
            f"--controllers={','.join(CONTROLLERS)}",
        ]

    def answers(self) -> object:
        """See Server."""
        loose = ssl._create_unverified_context()  # noqa: S323 (its own certificate, on loopback)
        address = f"https://{LOOPBACK}:{self.port}/healthz"
        with urlopen(address, timeout=2, context=loose) as answer:
            return answer.read() == b"ok"


@contextlib.contextmanager
def real_api(directory: Path) -> Iterator[ApiServer]:
    """Run a real API until the end of the block.

    Raises:
        ServerMissing: a program is absent; says which.
    """
    for name in ("kube-apiserver", "kube-controller-manager", "etcd"):
        find_kubernetes(name)
    with contextlib.ExitStack() as stack:
        etcd = Etcd(directory)
        stack.callback(etcd.close)
        etcd.start()
        api = ApiServer(directory, etcd)
        stack.callback(api.close)
        api.start()
        kubeconfig = directory / "controllers.conf"
        kubeconfig.write_text(kubeconfig_text(api.url, directory))
        controllers = ControllerManager(directory, kubeconfig)
        stack.callback(controllers.close)
        controllers.start()
        yield api


def kubeconfig_text(url: str, directory: Path) -> str:
    """A kubeconfig of the administrator, with its files by path."""
    return f"""apiVersion: v1
kind: Config
current-context: lab
clusters: [{{name: lab, cluster: {{server: "{url}", certificate-authority: {directory}/ca.crt}}}}]
users:
- name: admin
  user: {{client-certificate: {directory}/admin.crt, client-key: {directory}/admin.key}}
contexts: [{{name: lab, context: {{cluster: lab, user: admin, namespace: divoc}}}}]
"""

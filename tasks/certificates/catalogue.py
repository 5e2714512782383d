"""The certificates that kubeadm keeps on a control-plane host, and who holds each in memory."""

from dataclasses import dataclass
from enum import StrEnum

KUBERNETES = "/etc/kubernetes"
PKI = f"{KUBERNETES}/pki"
SCRATCH = "/etc/kubernetes/tmp"  # where kubeadm keeps copies of etcd from upgrades
KUBELET_PKI = "/var/lib/kubelet/pki"
KUBELET_CONF = f"{KUBERNETES}/kubelet.conf"
KUBELET_CURRENT = f"{KUBELET_PKI}/kubelet-client-current.pem"
ADMIN = "admin.conf"
SUPER_ADMIN = "super-admin.conf"


class Component(StrEnum):
    """A process of the control plane, by the name of its container."""

    ETCD = "etcd"
    APISERVER = "kube-apiserver"
    CONTROLLER_MANAGER = "kube-controller-manager"
    SCHEDULER = "kube-scheduler"
    KUBELET = "kubelet"

    @property
    def label(self) -> str:
        """Its name in the keys of steps."""
        return str(self.value)


class EtcdKind(StrEnum):
    """Who keeps the certificates of etcd."""

    STACKED = "stacked"  # a static pod of kubeadm's, on this host
    EXTERNAL = "external"  # elsewhere; only the client certificate is here, and it is not kubeadm's
    KUBESPRAY = "kubespray"  # a service of this host, with certificates in /etc/ssl/etcd/ssl


@dataclass(frozen=True)
class Leaf:
    """A certificate that kubeadm renews.

    Attributes:
        name: what kubeadm calls it.
        file: under the folder of certificates without its ending; of kubeconfigs, the file itself.
        ca: the authority that signs it, as kubeadm names it.
        phase: what `kubeadm init phase certs` or `… kubeconfig` calls it.
        held_by: the process that has it in memory; `None` where it is read each time.
    """

    name: str
    file: str
    ca: str
    phase: str
    held_by: Component | None = None

    @property
    def is_kubeconfig(self) -> bool:
        """Whether it is embedded in a kubeconfig."""
        return self.file.endswith(".conf")

    @property
    def is_etcds(self) -> bool:
        """Whether it is there only where kubeadm keeps etcd."""
        return self.ca == "etcd-ca"

    def paths(self, pki: str) -> tuple[str, ...]:
        """The files that hold it and its key."""
        if self.is_kubeconfig:
            return (f"{KUBERNETES}/{self.file}",)
        return (f"{pki}/{self.file}.crt", f"{pki}/{self.file}.key")


@dataclass(frozen=True)
class Authority:
    """A certificate authority of kubeadm; `file` as of `Leaf`."""

    name: str
    file: str

    @property
    def is_etcds(self) -> bool:
        """Whether it is there only where kubeadm keeps etcd."""
        return self.name == "etcd-ca"


AUTHORITIES = (
    Authority("ca", "ca"),
    Authority("etcd-ca", "etcd/ca"),
    Authority("front-proxy-ca", "front-proxy-ca"),
)
LEAVES = (
    Leaf("apiserver", "apiserver", "ca", "apiserver", Component.APISERVER),
    Leaf(
        "apiserver-kubelet-client",
        "apiserver-kubelet-client",
        "ca",
        "apiserver-kubelet-client",
        Component.APISERVER,
    ),
    Leaf(
        "front-proxy-client",
        "front-proxy-client",
        "front-proxy-ca",
        "front-proxy-client",
        Component.APISERVER,
    ),
    Leaf(
        "apiserver-etcd-client",
        "apiserver-etcd-client",
        "etcd-ca",
        "apiserver-etcd-client",
        Component.APISERVER,
    ),
    Leaf("etcd-server", "etcd/server", "etcd-ca", "etcd-server", Component.ETCD),
    Leaf("etcd-peer", "etcd/peer", "etcd-ca", "etcd-peer", Component.ETCD),
    Leaf(
        "etcd-healthcheck-client", "etcd/healthcheck-client", "etcd-ca", "etcd-healthcheck-client"
    ),
    Leaf(ADMIN, ADMIN, "ca", "admin"),
    Leaf(SUPER_ADMIN, SUPER_ADMIN, "ca", "super-admin"),
    Leaf(
        "controller-manager.conf",
        "controller-manager.conf",
        "ca",
        "controller-manager",
        Component.CONTROLLER_MANAGER,
    ),
    Leaf("scheduler.conf", "scheduler.conf", "ca", "scheduler", Component.SCHEDULER),
)
BY_NAME = {leaf.name: leaf for leaf in LEAVES}
CONTROL_PLANE = (
    Component.ETCD,
    Component.APISERVER,
    Component.CONTROLLER_MANAGER,
    Component.SCHEDULER,
)


def held(component: Component) -> tuple[Leaf, ...]:
    """The certificates that a process has in memory."""
    return tuple(leaf for leaf in LEAVES if leaf.held_by is component)

"""What a test may choose of a control plane: its shape, and how old its certificates are."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Literal

from tests.lab.pki import Validity
from tests.lab.pki_kubeadm import Cluster, minor_of

BALANCER = "lb-apiserver.kubernetes.local"
EXTERNAL_ETCD = "/etc/ssl/etcd/ssl"  # where kubespray keeps the certificates of an etcd of its own


@dataclass(frozen=True)
class Age:
    """How long the certificates have to live still; negative is expired since.

    Names in `each` are kubeadm's (`apiserver`, `admin.conf`, `ca`, `etcd-ca`, `front-proxy-ca`),
    and `kubelet-client`, `kubelet-serving` and `etcd-external`, of which kubeadm knows nothing.
    """

    left: timedelta = timedelta(days=20)
    each: Mapping[str, timedelta] = field(default_factory=dict)
    authorities_left: timedelta = timedelta(days=3000)
    lifetime: timedelta = timedelta(days=365)

    def of(self, name: str) -> Validity:
        """The dates of a leaf."""
        left = self.left
        if name == "kubelet-client":  # a kubelet that runs has its own renewed in time
            left = timedelta(days=200)
        if name == "etcd-external":
            left = timedelta(days=3000)
        left = self.each.get(name, left)
        return Validity.with_left(left, max(self.lifetime, left))

    def of_authority(self, name: str) -> Validity:
        """The dates of an authority."""
        left = self.each.get(name, self.authorities_left)
        return Validity.with_left(left, timedelta(days=3650))


FRESH = Age(left=timedelta(days=364))
EXPIRING = Age(left=timedelta(days=20))
EXPIRED = Age(left=timedelta(days=-1))
EXPIRED_WITH_KUBELETS = Age(left=timedelta(days=-1), each={"kubelet-client": timedelta(hours=-20)})
EXPIRED_WITH_AUTHORITIES = Age(left=timedelta(days=-2), authorities_left=timedelta(days=-1))


@dataclass(frozen=True)
class Node:
    """A control-plane node: its name in the cluster, the name of its system, its address."""

    name: str
    host_name: str
    address: str


@dataclass(frozen=True)
class Design:
    """The shape of a control plane."""

    nodes: tuple[Node, ...]
    version: str = "1.36.2"
    etcd: Literal["stacked", "external"] = "stacked"
    runtime: Literal["containerd", "docker"] = "containerd"
    kubelet_conf: Literal["rotated", "embedded"] = "rotated"
    has_admin_binding: bool = True
    apiserver_reloads: bool = False
    users: tuple[str, ...] = ("root", "ops")
    service_subnet: str = "10.233.0.0/18"
    dns_domain: str = "k8s.example.net"
    extra_names: tuple[str, ...] = (BALANCER, "api.example.net", "192.0.2.10")

    @property
    def minor(self) -> tuple[int, int]:
        """The release without its patch level."""
        return minor_of(self.version)

    @property
    def runtime_endpoint(self) -> str:
        """Where the kubelet and crictl find the container runtime."""
        docker = "/var/run/dockershim.sock"
        return f"unix://{docker if self.runtime == 'docker' else '/run/containerd/containerd.sock'}"

    def cluster(self, node: Node) -> Cluster:
        """What kubeadm's configuration says on this node."""
        return Cluster(
            version=self.version,
            name="production",
            node_name=node.name,
            address=node.address,
            endpoint=f"{BALANCER}:6443",
            service_subnet=self.service_subnet,
            dns_domain=self.dns_domain,
            extra_names=self.extra_names,
            has_external_etcd=self.etcd == "external",
        )

    def initial_cluster(self) -> str:
        """What etcd is told of its peers."""
        return ",".join(f"{node.name}=https://{node.address}:2380" for node in self.nodes)

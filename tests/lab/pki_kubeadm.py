"""Which certificates kubeadm keeps, what each says of its holder, and for which cluster.

Read off kubeadm 1.36.2 by running it; what older releases did is kubeadm's own history.
"""

import base64
import ipaddress
from dataclasses import dataclass, field
from typing import Any

import yaml

from tests.lab.pki import CLIENT, SERVER, Address, Wanted

KUBERNETES = "/etc/kubernetes"
CERTIFICATES = f"{KUBERNETES}/pki"
ADMINS = "kubeadm:cluster-admins"  # a group bound by RBAC, which can be taken away again
MASTERS = "system:masters"  # a group that is let through before RBAC is asked
Version = tuple[int, int]


@dataclass(frozen=True)
class Cluster:
    """What a kubeadm configuration says, as far as certificates and kubeconfigs go."""

    version: str = "1.36.2"
    name: str = "kubernetes"
    node_name: str = ""
    address: str = ""
    port: int = 6443
    endpoint: str = ""  # host:port of the load balancer
    service_subnet: str = "10.96.0.0/12"
    dns_domain: str = "cluster.local"
    extra_names: tuple[str, ...] = ()
    etcd_server_names: tuple[str, ...] = ()
    etcd_peer_names: tuple[str, ...] = ()
    has_external_etcd: bool = False
    certificates_directory: str = CERTIFICATES
    certificate_seconds: float = 365 * 86400
    authority_seconds: float = 3650 * 86400

    @property
    def minor(self) -> Version:
        """The release without its patch level, to compare with."""
        return minor_of(self.version)

    @property
    def local_url(self) -> str:
        """Where the API server of this node is."""
        return f"https://{self.address}:{self.port}"

    @property
    def url(self) -> str:
        """Where the API of the cluster is."""
        return f"https://{self.endpoint}" if self.endpoint else self.local_url


@dataclass(frozen=True)
class Kept:
    """One certificate that kubeadm keeps in a file of its own."""

    name: str
    long_name: str
    base_name: str
    authority: str = ""  # empty: it is one
    common_name: str = ""  # empty: the name of the node
    usages: tuple[Any, ...] = (CLIENT,)
    kind_of_names: str = ""
    groups: dict[Version, str] = field(default_factory=dict, hash=False)  # from this release on


@dataclass(frozen=True)
class KeptConfig:
    """One kubeconfig that kubeadm writes."""

    name: str
    long_name: str
    common_name: str
    groups: dict[Version, str] = field(default_factory=dict, hash=False)
    is_local: bool = False  # asks the API server of its own node (since 1.19)


BOTH = (SERVER, CLIENT)
WAS_MASTERS = {(0, 0): MASTERS, (1, 29): ""}

AUTHORITIES = (
    Kept(
        "ca",
        "self-signed Kubernetes CA to provision identities for other Kubernetes components",
        "ca",
        common_name="kubernetes",
    ),
    Kept(
        "front-proxy-ca",
        "self-signed CA to provision identities for front proxy",
        "front-proxy-ca",
        common_name="front-proxy-ca",
    ),
    Kept(
        "etcd-ca",
        "self-signed CA to provision identities for etcd",
        "etcd/ca",
        common_name="etcd-ca",
    ),
)
LEAVES = (
    Kept(
        "apiserver",
        "certificate for serving the Kubernetes API",
        "apiserver",
        "ca",
        "kube-apiserver",
        (SERVER,),
        "apiserver",
    ),
    Kept(
        "apiserver-kubelet-client",
        "certificate for the API server to connect to kubelet",
        "apiserver-kubelet-client",
        "ca",
        "kube-apiserver-kubelet-client",
        groups={(0, 0): MASTERS, (1, 29): ADMINS, (1, 36): ""},
    ),
    Kept(
        "front-proxy-client",
        "certificate for the front proxy client",
        "front-proxy-client",
        "front-proxy-ca",
        "front-proxy-client",
    ),
    Kept("etcd-server", "certificate for serving etcd", "etcd/server", "etcd-ca", "", BOTH, "etcd"),
    Kept(
        "etcd-peer",
        "certificate for etcd nodes to communicate with each other",
        "etcd/peer",
        "etcd-ca",
        "",
        BOTH,
        "etcd",
    ),
    Kept(
        "etcd-healthcheck-client",
        "certificate for liveness probes to healthcheck etcd",
        "etcd/healthcheck-client",
        "etcd-ca",
        "kube-etcd-healthcheck-client",
        groups=WAS_MASTERS,
    ),
    Kept(
        "apiserver-etcd-client",
        "certificate the apiserver uses to access etcd",
        "apiserver-etcd-client",
        "etcd-ca",
        "kube-apiserver-etcd-client",
        groups=WAS_MASTERS,
    ),
)
CONFIGS = (
    KeptConfig(
        "admin.conf",
        "certificate embedded in the kubeconfig file for the admin to use and for kubeadm itself",
        "kubernetes-admin",
        {(0, 0): MASTERS, (1, 29): ADMINS},
    ),
    KeptConfig(
        "super-admin.conf",
        "certificate embedded in the kubeconfig file for the super-admin",
        "kubernetes-super-admin",
        {(0, 0): MASTERS},
    ),
    KeptConfig(
        "controller-manager.conf",
        "certificate embedded in the kubeconfig file for the controller manager to use",
        "system:kube-controller-manager",
        is_local=True,
    ),
    KeptConfig(
        "scheduler.conf",
        "certificate embedded in the kubeconfig file for the scheduler manager to use",
        "system:kube-scheduler",
        is_local=True,
    ),
)
KUBELET_CONFIG = KeptConfig("kubelet.conf", "", "system:node:", {(0, 0): "system:nodes"})


def minor_of(version: str) -> Version:
    """Return (1, 36) for v1.36.2."""
    major, minor, *_ = version.removeprefix("v").split(".")
    return int(major), int(minor)


def authorities(cluster: Cluster) -> tuple[Kept, ...]:
    """The authorities kubeadm knows of in such a cluster, in its own order."""
    return tuple(a for a in AUTHORITIES if not (cluster.has_external_etcd and a.name == "etcd-ca"))


def leaves(cluster: Cluster) -> tuple[Kept, ...]:
    """The certificates kubeadm keeps in such a cluster, in the order in which it makes them."""
    return tuple(
        leaf for leaf in LEAVES if not (cluster.has_external_etcd and leaf.authority == "etcd-ca")
    )


def configs(cluster: Cluster) -> tuple[KeptConfig, ...]:
    """The kubeconfigs kubeadm renews; kubelet.conf is the kubelet's own."""
    has_super = cluster.minor >= (1, 29)
    return tuple(c for c in CONFIGS if has_super or c.name != "super-admin.conf")


def wanted(kept: Kept, cluster: Cluster) -> Wanted:
    """What the certificate says in this cluster."""
    names, addresses = _alternatives(kept, cluster)
    return Wanted(
        kept.common_name or cluster.node_name,
        _groups(kept.groups, cluster),
        kept.usages,
        names,
        addresses,
    )


def wanted_client(config: KeptConfig, cluster: Cluster) -> Wanted:
    """What the certificate in a kubeconfig says in this cluster."""
    called = config.common_name
    called += cluster.node_name if called.endswith(":") else ""
    return Wanted(called, _groups(config.groups, cluster))


def server_of(config: KeptConfig, cluster: Cluster) -> str:
    """The URL a kubeconfig holds."""
    is_local = config.is_local and cluster.minor >= (1, 19)
    is_local |= config is KUBELET_CONFIG and cluster.minor >= (1, 33)
    return cluster.local_url if is_local else cluster.url


def kubeconfig(cluster_name: str, server: str, user: str, **parts: bytes | str) -> bytes:
    """Return a kubeconfig as clientcmd writes it.

    Args:
        cluster_name: of the cluster entry.
        server: its URL.
        user: of the user entry, and part of the context's name.
        parts: `authority` is a PEM; `certificate` and `key` are PEMs to embed or paths to name;
            `context` is its name, where it is not the usual one.
    """
    context = parts.get("context") or f"{user}@{cluster_name}"
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "clusters": [
                {
                    "cluster": {
                        "certificate-authority-data": _embedded(parts["authority"]),
                        "server": server,
                    },
                    "name": cluster_name,
                }
            ],
            "contexts": [{"context": {"cluster": cluster_name, "user": user}, "name": context}],
            "current-context": context,
            "kind": "Config",
            "users": [
                {
                    "name": user,
                    "user": {
                        **_credential("client-certificate", parts["certificate"]),
                        **_credential("client-key", parts["key"]),
                    },
                }
            ],
        },
        width=1_000_000,
    ).encode()


def _credential(name: str, value: bytes | str) -> dict[str, str]:
    return {name: value} if isinstance(value, str) else {f"{name}-data": _embedded(value)}


def _embedded(pem: bytes | str) -> str:
    return base64.b64encode(pem if isinstance(pem, bytes) else pem.encode()).decode()


def _groups(since: dict[Version, str], cluster: Cluster) -> tuple[str, ...]:
    reached = [release for release in since if release <= cluster.minor]
    group = since[max(reached)] if reached else ""
    return (group,) if group else ()


def _alternatives(kept: Kept, cluster: Cluster) -> tuple[tuple[str, ...], tuple[Address, ...]]:
    if not kept.kind_of_names:
        return (), ()
    own = [cluster.node_name] if cluster.node_name else []
    if kept.kind_of_names == "etcd":
        extra = cluster.etcd_server_names if kept.name == "etcd-server" else cluster.etcd_peer_names
        said = [*own, "localhost", cluster.address, "127.0.0.1", "::1", *extra]
    else:
        service = ["kubernetes", "kubernetes.default", "kubernetes.default.svc"]
        domain = [f"kubernetes.default.svc.{cluster.dns_domain}"] if cluster.dns_domain else []
        first = str(ipaddress.ip_network(cluster.service_subnet.partition(",")[0])[1])
        balancer = [cluster.endpoint.rpartition(":")[0]] if cluster.endpoint else []
        said = [*own, *service, *domain, first, cluster.address, *balancer, *cluster.extra_names]
    names: list[str] = []
    addresses: list[Address] = []
    for one in said:
        try:
            addresses.append(ipaddress.ip_address(one))
        except ValueError:
            names.append(one)
    return tuple(names), tuple(addresses)

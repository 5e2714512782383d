"""The configuration that certificates are made from, and the names each of them must get.

Only what shows in certificates is taken from it. Node names and addresses are those of the host.
"""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from recovery.errors import BadInput, Refused, Unreachable
from recovery.steps import decision, probe
from tasks.certificates.api import OK, ask_api
from tasks.certificates.files import lost_names
from tasks.certificates.work import Job, Node, Work

CONFIG_MAP = "/api/v1/namespaces/kube-system/configmaps/kubeadm-config"
SERVICE = ("kubernetes", "kubernetes.default", "kubernetes.default.svc")
LOCAL = ("localhost", "127.0.0.1", "::1")
GROUP = "kubeadm.k8s.io/"
WHERE_FROM = (
    "Give the path of the configuration the cluster was made with; it is also in `kubectl -n "
    "kube-system get cm kubeadm-config -o jsonpath='{.data.ClusterConfiguration}'` or in a backup"
)


@dataclass(frozen=True)
class ClusterNames:
    """What of a ClusterConfiguration shows in certificates and kubeconfigs.

    Attributes:
        source: where it was read, for people.
        cluster_name: as kubeconfigs name the cluster.
        endpoint: host and port that clients ask; empty where there is no load balancer.
        service_subnet: its first address is that of the API inside the cluster.
        dns_domain: of the cluster.
        api_names: further names and addresses of the API server.
        etcd_server_names, etcd_peer_names: further ones of etcd.
        validity: how long certificates last, as Go writes durations; empty for a year.
        algorithm: of the keys; empty for what kubeadm takes by itself.
    """

    source: str
    cluster_name: str = "kubernetes"
    endpoint: str = ""
    service_subnet: str = "10.96.0.0/12"
    dns_domain: str = "cluster.local"
    api_names: tuple[str, ...] = ()
    etcd_server_names: tuple[str, ...] = ()
    etcd_peer_names: tuple[str, ...] = ()
    validity: str = ""
    algorithm: str = ""
    etcd_is_external: bool = False


def parse_config(text: str, source: str) -> ClusterNames:
    """Read a kubeadm configuration of v1beta1 to v1beta4; other documents in it are left out.

    Raises:
        BadInput: it is none, or has no ClusterConfiguration.
    """
    try:
        documents = [read for read in yaml.safe_load_all(text) if isinstance(read, dict)]
    except yaml.YAMLError as error:
        raise BadInput("kubeadm_config", f"{source} is no YAML: {error}", WHERE_FROM) from error
    for read in documents:
        if read.get("kind") == "ClusterConfiguration" and str(
            read.get("apiVersion", "")
        ).startswith(GROUP):
            try:
                return _names_of(read, source)
            except (AttributeError, TypeError, ValueError) as error:
                raise BadInput(
                    "kubeadm_config", f"{source} is malformed: {error}", WHERE_FROM
                ) from error
    raise BadInput(
        "kubeadm_config", f"there is no ClusterConfiguration of kubeadm in {source}", WHERE_FROM
    )


def _names_of(read: dict[str, Any], source: str) -> ClusterNames:
    networking, local = read.get("networking") or {}, (read.get("etcd") or {}).get("local") or {}
    subnet = str(networking.get("serviceSubnet") or "10.96.0.0/12").partition(",")[0]
    ipaddress.ip_network(subnet)
    return ClusterNames(
        source=source,
        cluster_name=str(read.get("clusterName") or "kubernetes"),
        endpoint=str(read.get("controlPlaneEndpoint") or ""),
        service_subnet=subnet,
        dns_domain=str(networking.get("dnsDomain") or "cluster.local"),
        api_names=_texts((read.get("apiServer") or {}).get("certSANs")),
        etcd_server_names=_texts(local.get("serverCertSANs")),
        etcd_peer_names=_texts(local.get("peerCertSANs")),
        validity=str(read.get("certificateValidityPeriod") or ""),
        algorithm=str(read.get("encryptionAlgorithm") or ""),
        etcd_is_external=bool((read.get("etcd") or {}).get("external")),
    )


def _texts(values: Sequence[object] | None) -> tuple[str, ...]:
    return tuple(str(value) for value in values or ())


def names_in(config: ClusterNames, leaf: str, node_name: str, address: str) -> list[str]:
    """The names and addresses a certificate gets from a configuration, as openssl spells them.

    Args:
        config: the configuration.
        leaf: kubeadm's name of the certificate.
        node_name: of the host.
        address: that its API server and etcd advertise.
    """
    first = str(ipaddress.ip_network(config.service_subnet)[1])
    endpoint = [_host_in(config.endpoint)] if config.endpoint else []
    said = {
        "apiserver": [
            *(node_name, *SERVICE, f"kubernetes.default.svc.{config.dns_domain}", first, address),
            *(*endpoint, *config.api_names),
        ],
        "etcd-server": [node_name, address, *LOCAL, *config.etcd_server_names],
        "etcd-peer": [node_name, address, *LOCAL, *config.etcd_peer_names],
    }.get(leaf, [])
    return sorted({_spelt(name) for name in said})


def _host_in(endpoint: str) -> str:
    host, _, port = endpoint.rpartition(":")
    return (host if host and port.isdigit() else endpoint).strip("[]")


def _spelt(name: str) -> str:
    try:
        return f"IP Address:{ipaddress.ip_address(name)}"
    except ValueError:
        return f"DNS:{name}"


def render(config: ClusterNames, work: Work, pki: str) -> str:
    """Write the configuration for one host, for the kubeadm that is there.

    Args:
        config: what the cluster says.
        work: on the host.
        pki: where the certificates go, and the authorities are.
    """
    kubeadm, is_v1beta4 = work.kubeadm, work.kubeadm.minor >= (1, 31)
    cluster: dict[str, Any] = {
        "apiVersion": kubeadm.config_version,
        "kind": "ClusterConfiguration",
        "kubernetesVersion": kubeadm.version,  # or it asks the internet for one
        "certificatesDir": pki,
        "clusterName": config.cluster_name,
        "networking": {"serviceSubnet": config.service_subnet, "dnsDomain": config.dns_domain},
        "apiServer": {"certSANs": list(config.api_names)},
        "etcd": {
            "local": {
                "serverCertSANs": list(config.etcd_server_names),
                "peerCertSANs": list(config.etcd_peer_names),
            }
        },
    }
    if config.endpoint:
        cluster["controlPlaneEndpoint"] = config.endpoint
    if config.validity and is_v1beta4:
        cluster["certificateValidityPeriod"] = config.validity
    if config.algorithm and is_v1beta4:
        cluster["encryptionAlgorithm"] = config.algorithm
    host = {
        "apiVersion": kubeadm.config_version,
        "kind": "InitConfiguration",
        "localAPIEndpoint": {"advertiseAddress": work.address, "bindPort": work.api_port},
        "nodeRegistration": {
            "name": work.node_name,
            "criSocket": work.runtime.endpoint or "unix:///var/run/dockershim.sock",
        },
    }
    return yaml.safe_dump_all([cluster, host], sort_keys=False)


@decision
def cluster_names(nodes: Sequence[Node], kubeadm_config: str) -> ClusterNames:
    """The configuration of the cluster: from the file that was named, else from the API.

    Raises:
        Refused: no file is named and no API answers: there is no true configuration.
        BadInput: the file cannot be read, or holds none.

    Runbook: docs/runbooks/kubeadm-certificates.md, step 5.
    """
    if kubeadm_config:
        path = Path(kubeadm_config)
        if not path.is_absolute():
            raise BadInput(
                "kubeadm_config",
                f"{kubeadm_config!r} is a relative path, and a worker stands in another folder",
                "Give the absolute path on the worker",
            )
        try:
            return parse_config(path.read_text(), str(path))
        except (OSError, UnicodeError) as error:
            raise BadInput(
                "kubeadm_config", f"{path} cannot be read: {error}", WHERE_FROM
            ) from error
    for node in nodes:
        try:
            answer = ask_api(node.host, {"config": CONFIG_MAP})[0]["config"]
        except Unreachable:
            continue
        if answer.status == OK:
            text = str((answer.parsed().get("data") or {}).get("ClusterConfiguration") or "")
            return parse_config(text, f"kubeadm-config, by {node.label}")
    raise Refused(
        nodes[0].label,
        "the API does not answer, and no configuration is named: what kubeadm makes without one "
        "loses names and addresses",
        WHERE_FROM,
    )


@probe(each=("job",))
def refuse_if_names_would_be_lost(job: Job, config: ClusterNames) -> None:
    """Refuse where certificates of this configuration would not say what those there say.

    Of a certificate that cannot be read, what is served stands for it.

    Raises:
        Refused: names the certificate, and the names it would lose.

    Runbook: docs/runbooks/kubeadm-certificates.md, step 2.
    """
    lost = {
        before.name: lost_names(
            before.names or names_served(job, before.name),
            names_in(config, before.name, job.work.node_name, job.work.address),
        )
        for before in job.work.before
        if before.name in job.work.names
    }
    if told := [f"{name} would lose {', '.join(names)}" for name, names in lost.items() if names]:
        raise Refused(
            job.label,
            f"{'; '.join(told)} (by {config.source})",
            "Correct the configuration (apiServer.certSANs, controlPlaneEndpoint, networking), or "
            "find the true one",
        )


def names_served(job: Job, leaf: str) -> tuple[str, ...]:
    """The names in what a port presents, where that is this certificate."""
    port = {"apiserver": "kube-apiserver", "etcd-server": "etcd", "etcd-peer": "etcd-peer"}
    served = job.seen.on_port(port.get(leaf, "")).certificate
    return served.names if served else ()

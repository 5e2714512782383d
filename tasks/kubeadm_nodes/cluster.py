"""What the API says of the nodes of a cluster and of how one joins it, asked on a survivor."""

import base64
import binascii
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from blocks.ssh.host import SshHost
from recovery.errors import Refused, Unreachable, UnreadableOutput
from recovery.secrecy.redaction import redacted_head
from recovery.steps import probe
from tasks.certificates.api import NOT_FOUND, OK, ApiAnswer, ask_api
from tasks.certificates.cluster_config import CONFIG_MAP
from tasks.certificates.proof import NODES
from tasks.certificates.seen import ApiState
from tasks.certificates.work import Node
from tasks.kubeadm_nodes.order import Replacement

SERVER_ERROR = 500
INFO = "/api/v1/namespaces/kube-public/configmaps/cluster-info"
OWN_LABELS = (  # of the kubelet, of kubeadm, of the cloud: they are made anew by themselves
    "kubernetes.io/hostname",
    "kubernetes.io/arch",
    "kubernetes.io/os",
    "beta.kubernetes.io/",
    "node.kubernetes.io/instance-type",
    "node.kubernetes.io/exclude-from-external-load-balancers",
    "node-role.kubernetes.io/control-plane",
    "node-role.kubernetes.io/master",
    "topology.kubernetes.io/",
    "failure-domain.beta.kubernetes.io/",
)
ACTING_TOOLS = ("kubectl", "kubeadm", "openssl")
OWN_TAINTS = ("node.kubernetes.io/", "node.cloudprovider.kubernetes.io/")


@dataclass(frozen=True)
class Taint:
    """A taint of a node."""

    key: str
    value: str
    effect: str

    def as_object(self) -> dict[str, str]:
        """As the API takes it."""
        return {
            "key": self.key,
            "effect": self.effect,
            **({"value": self.value} if self.value else {}),
        }


@dataclass(frozen=True)
class NodeObject:
    """A node as the API has it.

    Attributes:
        name, uid: which one.
        labels: those that somebody gave it.
        taints: those that somebody gave it.
        is_ready: by its own word, heard lately.
        is_control_plane: by its label.
        addresses: of its host.
    """

    name: str
    uid: str
    labels: dict[str, str]
    taints: tuple[Taint, ...]
    is_ready: bool
    is_control_plane: bool
    addresses: tuple[str, ...]


@dataclass(frozen=True)
class Cluster:
    """What there is to join.

    Attributes:
        acting: the survivor on which everything is asked and done.
        nodes: those of the name of the lost and of the new one; a large cluster has too many to
            list them all.
        server: the address that `cluster-info` gives to whoever joins.
        ca_sha256: of the public key of the cluster's authority.
        configuration: what kubeadm keeps of the cluster.
    """

    acting: Node
    nodes: tuple[NodeObject, ...]
    server: str
    ca_sha256: str
    configuration: str

    @property
    def label(self) -> str:
        """The same at each look: a resume may ask another survivor, which says other things."""
        return "cluster"

    def named(self, name: str) -> NodeObject | None:
        """The node of this name, if there is one."""
        return next((one for one in self.nodes if one.name == name), None)


@probe
def cluster_seen(survivors: Sequence[Node], replacement: Replacement) -> Cluster:
    """What the API says of the cluster, asked on a survivor whose own API server answers.

    It is the first that has every tool that things are done with there, else the first.

    Raises:
        Refused: no API server answers, or what is needed to join is not there.
        UnreadableOutput: it answered something else.
        Unreachable: the host gave no answer.

    Runbook: docs/runbooks/kubeadm-nodes.md, step 1.
    """
    ready = [one for one in survivors if one.seen.api in {ApiState.READY, ApiState.CLOSED}]
    if not ready:
        told = ", ".join(f"{one.label} {one.seen.api}" for one in survivors)
        raise Refused(
            replacement.label,
            f"no API server of the hosts that were named answers: {told}",
            "Bring the API back first; where etcd has lost its quorum, by `recover-etcd-quorum`",
        )
    first = min(ready, key=lambda one: bool(tools_missing(one)))
    names = dict.fromkeys((replacement.node, replacement.new_name))
    paths = {"info": INFO, "config": CONFIG_MAP}
    answers, _ = ask_api(first.host, paths | {f"node {one}": f"{NODES}/{one}" for one in names})
    for name, what, remedy in (
        *((f"node {one}", f"its node {one}", "See what admin.conf may do there") for one in names),
        ("info", "cluster-info", "Make it: `kubeadm init phase bootstrap-token`"),
        ("config", "kubeadm-config", "This cluster was not made by kubeadm, or it was removed"),
    ):
        is_told = answers[name].status == NOT_FOUND and name.startswith("node ")
        if answers[name].status != OK and not is_told:
            said = redacted_head(answers[name].text.strip(), 200) or "no answer"
            raise Refused(first.label, f"the API does not give {what}: {said}", remedy)
    server, ca_sha256 = parse_info(answers["info"])
    configuration = answers["config"].parsed().get("data", {}).get("ClusterConfiguration", "")
    known = [answers[f"node {one}"] for one in names]
    nodes = tuple(parse_node(one.parsed()) for one in known if one.status == OK)
    return Cluster(first, nodes, server, ca_sha256, configuration)


def tools_missing(survivor: Node) -> list[str]:
    """What it takes to remove a member and invite a node from this host, and is not there."""
    return [tool for tool in ACTING_TOOLS if not survivor.seen.tools.get(tool)]


def parse_info(answer: ApiAnswer) -> tuple[str, str]:
    """The server and the hash of the authority's public key in the ConfigMap cluster-info.

    Raises:
        UnreadableOutput: it is something else.
    """
    try:
        config = yaml.safe_load(answer.parsed()["data"]["kubeconfig"])
        cluster = config["clusters"][0]["cluster"]
        pem = base64.b64decode(cluster["certificate-authority-data"])
        key = x509.load_pem_x509_certificate(pem).public_key()
        der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return str(cluster["server"]), hashlib.sha256(der).hexdigest()
    except (LookupError, TypeError, ValueError, binascii.Error, yaml.YAMLError) as error:
        raise UnreadableOutput("cluster-info", answer.text) from error


def parse_node(item: Mapping[str, Any]) -> NodeObject:
    """Read a Node; of labels and taints only those that somebody gave it."""
    meta, status = item["metadata"], item.get("status") or {}
    labels = {str(k): str(v) for k, v in (meta.get("labels") or {}).items()}
    taints = [
        Taint(str(one["key"]), str(one.get("value") or ""), str(one["effect"]))
        for one in (item.get("spec") or {}).get("taints") or ()
    ]
    ready = [one["status"] for one in status.get("conditions") or () if one["type"] == "Ready"]
    return NodeObject(
        str(meta["name"]),
        str(meta.get("uid") or ""),
        {k: v for k, v in labels.items() if not k.startswith(OWN_LABELS)},
        tuple(one for one in taints if not one.key.startswith(OWN_TAINTS)),
        ready == ["True"],
        "node-role.kubernetes.io/control-plane" in labels,
        tuple(str(one["address"]) for one in status.get("addresses") or ()),
    )


def node_now(host: SshHost, name: str) -> NodeObject | None:
    """The node of this name as it is now; none where there is none.

    Raises:
        Refused: the API answers something else.
        Unreachable: the host or its API gave no answer; asked again, it may.
    """
    answer = ask_api(host, {"node": f"{NODES}/{name}"})[0]["node"]
    if answer.status == NOT_FOUND:
        return None
    said = redacted_head(answer.text.strip(), 200) or "no answer"
    if not answer.status or answer.status >= SERVER_ERROR:
        raise Unreachable(host.label, f"{NODES}/{name}", said)
    if answer.status != OK:
        raise Refused(
            host.label,
            f"the API does not say whether there is a node {name}: {said}",
            "Bring the API back, then resume",
        )
    return parse_node(answer.parsed())

"""The files of a kubeadm control-plane node: its PKI, kubeconfigs, manifests and the kubelet's."""

import io
import tarfile
import time
from dataclasses import dataclass

import yaml

from tests.lab.control_plane_design import EXTERNAL_ETCD, Age, Design, Node
from tests.lab.control_plane_manifests import etcd_arguments, manifests
from tests.lab.pki import (
    CLIENT,
    SERVER,
    Authority,
    Pair,
    PrivateKey,
    Wanted,
    authority,
    key_pem,
    new_key,
    public_key_pem,
    self_signed,
    starts_at,
)
from tests.lab.pki_keys import Keys
from tests.lab.pki_kubeadm import (
    AUTHORITIES,
    CERTIFICATES,
    KUBELET_CONFIG,
    KUBERNETES,
    LEAVES,
    Kept,
    KeptConfig,
    configs,
    kubeconfig,
    server_of,
    wanted,
    wanted_client,
)

KUBELET = "/var/lib/kubelet"
CURRENT = f"{KUBELET}/pki/kubelet-client-current.pem"
HOMES = {"root": ("/root", 0, 0o600), "ops": ("/home/ops", 2000, 0o640)}


@dataclass(frozen=True)
class File:
    """A file or, where it links somewhere, a symbolic link."""

    content: bytes
    mode: int = 0o600
    owner: int = 0
    link: str = ""


Tree = dict[str, File]


@dataclass(frozen=True)
class Authorities:
    """What every control-plane node of a cluster has in common."""

    pairs: dict[str, Authority]
    service_account: PrivateKey

    @classmethod
    def made(cls, age: Age, keys: Keys) -> "Authorities":
        """Make new ones."""
        *own, service_account = keys.take(len(AUTHORITIES) + 1)
        pairs = {
            kept.name: authority(kept.common_name, age.of_authority(kept.name), key)
            for kept, key in zip(AUTHORITIES, own, strict=True)
        }
        return cls(pairs, service_account)

    def aged(self, age: Age) -> "Authorities":
        """Return the same ones, keys and names, with other dates."""
        pairs = {
            kept.name: authority(
                kept.common_name, age.of_authority(kept.name), self.pairs[kept.name].key
            )
            for kept in AUTHORITIES
        }
        return Authorities(pairs, self.service_account)


def node_files(design: Design, node: Node, authorities: Authorities, age: Age, keys: Keys) -> Tree:
    """Return all that kubeadm and the kubelet left on a node, by absolute path."""
    tree = {path: File(content) for path, content in manifests(design, node).items()}
    tree |= _authority_files(design, authorities)
    tree |= _leaf_files(design, node, authorities, age, keys)
    tree |= _config_files(design, node, authorities, age, keys)
    tree |= _kubelet_files(design, node, authorities, age, keys)
    if design.etcd == "external":
        tree |= _external_etcd_files(design, node, authorities, age, keys)
    return tree


def cluster_configuration(design: Design) -> str:
    """Return what kubeadm put into the ConfigMap kubeadm-config."""
    etcd: dict[str, object] = {"local": {"dataDir": "/var/lib/etcd"}}
    if design.etcd == "external":
        first = design.nodes[0].name
        etcd = {
            "external": {
                "endpoints": [f"https://{node.address}:2379" for node in design.nodes],
                "caFile": f"{EXTERNAL_ETCD}/ca.pem",
                "certFile": f"{EXTERNAL_ETCD}/node-{first}.pem",
                "keyFile": f"{EXTERNAL_ETCD}/node-{first}-key.pem",
            }
        }
    api = (
        "v1beta4"
        if design.minor >= (1, 31)
        else "v1beta3"
        if design.minor >= (1, 22)
        else "v1beta2"
    )
    cluster = design.cluster(design.nodes[0])
    return yaml.safe_dump(
        {
            "apiServer": {"certSANs": list(design.extra_names)},
            "apiVersion": f"kubeadm.k8s.io/{api}",
            "certificatesDir": CERTIFICATES,
            "clusterName": cluster.name,
            "controlPlaneEndpoint": cluster.endpoint,
            "etcd": etcd,
            "imageRepository": "registry.example.net",
            "kind": "ClusterConfiguration",
            "kubernetesVersion": f"v{design.version}",
            "networking": {
                "dnsDomain": design.dns_domain,
                "podSubnet": "10.244.0.0/16",
                "serviceSubnet": design.service_subnet,
            },
        }
    )


def archive(tree: Tree) -> bytes:
    """Return a tar of the files, with the folders they need."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for path, file in sorted(tree.items()):
            member = tarfile.TarInfo(path.lstrip("/"))
            member.mode, member.uid, member.gid = file.mode, file.owner, file.owner
            member.mtime = int(time.time())
            if file.link:
                member.type, member.linkname = tarfile.SYMTYPE, file.link
            else:
                member.size = len(file.content)
            if file.owner:
                tar.addfile(_folder_of(member))
            tar.addfile(member, None if file.link else io.BytesIO(file.content))
    return buffer.getvalue()


def _folder_of(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """The folder a user's own file lies in, which is the user's as well."""
    folder = tarfile.TarInfo(member.name.rpartition("/")[0])
    folder.type, folder.mode = tarfile.DIRTYPE, 0o750
    folder.uid, folder.gid, folder.mtime = member.uid, member.gid, member.mtime
    return folder


def _authority_files(design: Design, authorities: Authorities) -> Tree:
    tree = {
        f"{CERTIFICATES}/sa.key": File(key_pem(authorities.service_account)),
        f"{CERTIFICATES}/sa.pub": File(public_key_pem(authorities.service_account)),
    }
    for kept in AUTHORITIES:
        if design.etcd == "external" and kept.name == "etcd-ca":
            continue
        tree |= _pair_files(kept, authorities.pairs[kept.name])
    return tree


def _leaf_files(design: Design, node: Node, authorities: Authorities, age: Age, keys: Keys) -> Tree:
    cluster = design.cluster(node)
    leaves = [x for x in LEAVES if not (cluster.has_external_etcd and x.authority == "etcd-ca")]
    tree: Tree = {}
    for kept, key in zip(leaves, keys.take(len(leaves)), strict=True):
        issuer = authorities.pairs[kept.authority]
        tree |= _pair_files(kept, issuer.issue(wanted(kept, cluster), age.of(kept.name), key))
    return tree


def _pair_files(kept: Kept, pair: Pair) -> Tree:
    return {
        f"{CERTIFICATES}/{kept.base_name}.crt": File(pair.certificate_pem, 0o644),
        f"{CERTIFICATES}/{kept.base_name}.key": File(pair.key_pem),
    }


def _config_files(
    design: Design, node: Node, authorities: Authorities, age: Age, keys: Keys
) -> Tree:
    is_first = node == design.nodes[0]
    wanted_here = [
        config
        for config in configs(design.cluster(node))
        if is_first or config.name != "super-admin.conf"
    ]
    tree = {
        f"{KUBERNETES}/{config.name}": File(_config(design, node, config, authorities, age, key))
        for config, key in zip(wanted_here, keys.take(len(wanted_here)), strict=True)
    }
    admin = tree[f"{KUBERNETES}/admin.conf"].content
    for user in design.users:
        home, owner, mode = HOMES[user]
        tree[f"{home}/.kube/config"] = File(admin, mode, owner)
    return tree


def _config(  # noqa: PLR0913, PLR0917 - what a kubeconfig is made of
    design: Design,
    node: Node,
    config: KeptConfig,
    authorities: Authorities,
    age: Age,
    key: PrivateKey,
) -> bytes:
    cluster, ca = design.cluster(node), authorities.pairs["ca"]
    says = wanted_client(config, cluster)
    pair = ca.issue(says, age.of(config.name), key)
    return kubeconfig(
        cluster.name,
        server_of(config, cluster),
        says.common_name,
        authority=ca.certificate_pem,
        certificate=pair.certificate_pem,
        key=pair.key_pem,
    )


def _kubelet_files(
    design: Design, node: Node, authorities: Authorities, age: Age, keys: Keys
) -> Tree:
    cluster, ca = design.cluster(node), authorities.pairs["ca"]
    says = wanted_client(KUBELET_CONFIG, cluster)
    tree = _kubelet_settings(design, node)
    (serving_key,) = keys.take(1)
    serving, chain = self_signed(node.name, age.of("kubelet-serving"), serving_key)
    tree[f"{KUBELET}/pki/kubelet.crt"] = File(chain, 0o644)
    tree[f"{KUBELET}/pki/kubelet.key"] = File(serving.key_pem)
    client = ca.issue(says, age.of("kubelet-client"), new_key())
    parts: dict[str, bytes | str] = {"certificate": client.certificate_pem, "key": client.key_pem}
    if design.kubelet_conf == "rotated":
        stamp = starts_at(client.certificate).strftime("%Y-%m-%d-%H-%M-%S")
        issued = f"{KUBELET}/pki/kubelet-client-{stamp}.pem"
        tree[issued] = File(client.certificate_pem + client.key_pem)
        tree[CURRENT] = File(b"", link=issued)
        parts = {"certificate": CURRENT, "key": CURRENT}
    is_first = node == design.nodes[0]
    config = kubeconfig(
        cluster.name if is_first else "default-cluster",
        server_of(KUBELET_CONFIG, cluster),
        says.common_name if is_first else "default-auth",
        authority=ca.certificate_pem,
        context="" if is_first else "default-context",
        **parts,
    )
    tree[f"{KUBERNETES}/kubelet.conf"] = File(config)
    return tree


def _kubelet_settings(design: Design, node: Node) -> Tree:
    config = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"cacheTTL": "0s", "enabled": True},
            "x509": {"clientCAFile": f"{CERTIFICATES}/ca.crt"},
        },
        "clusterDomain": design.dns_domain,
        "fileCheckFrequency": "1s",
        "kind": "KubeletConfiguration",
        "rotateCertificates": design.kubelet_conf == "rotated",
        "staticPodPath": f"{KUBERNETES}/manifests",
    }
    flags = [f"--hostname-override={node.name}"]
    settings = {f"{KUBELET}/config.yaml": File(yaml.safe_dump(config).encode(), 0o644)}
    if design.minor >= (1, 34):
        instance = {"containerRuntimeEndpoint": design.runtime_endpoint}
        settings[f"{KUBELET}/instance-config.yaml"] = File(yaml.safe_dump(instance).encode())
    elif design.runtime == "docker":
        flags += [
            "--network-plugin=cni",
            "--pod-infra-container-image=registry.example.net/pause:3.2",
        ]
    else:
        flags += [f"--container-runtime-endpoint={design.runtime_endpoint}"]
        if design.minor < (1, 27):
            flags.insert(0, "--container-runtime=remote")
    line = f'KUBELET_KUBEADM_ARGS="{" ".join(flags)}"\n'
    settings[f"{KUBELET}/kubeadm-flags.env"] = File(line.encode(), 0o644)
    return settings


def _external_etcd_files(
    design: Design, node: Node, authorities: Authorities, age: Age, keys: Keys
) -> Tree:
    """Where kubespray keeps them: an authority of etcd's own, and no file kubeadm knows of."""
    issuer = authorities.pairs["etcd-ca"]
    names = [part for one in design.nodes for part in (one.name, one.address)]
    addresses = wanted(LEAVES[3], design.cluster(node)).addresses
    tree = {f"{EXTERNAL_ETCD}/ca.pem": File(issuer.certificate_pem, 0o640)}
    for kind, key in zip(("member", "node", "admin"), keys.take(3), strict=True):
        usages = (SERVER, CLIENT)
        says = Wanted(f"etcd-{kind}-{node.name}", (), usages, (*names[::2], "localhost"), addresses)
        pair = issuer.issue(says, age.of("etcd-external"), key)
        base = f"{EXTERNAL_ETCD}/{kind}-{node.name}"
        tree[f"{base}.pem"] = File(pair.certificate_pem, 0o640)
        tree[f"{base}-key.pem"] = File(pair.key_pem)
    member = f"{EXTERNAL_ETCD}/member-{node.name}"
    arguments = etcd_arguments(design, node) | {
        "cert-file": f"{member}.pem",
        "key-file": f"{member}-key.pem",
        "peer-cert-file": f"{member}.pem",
        "peer-key-file": f"{member}-key.pem",
        "trusted-ca-file": f"{EXTERNAL_ETCD}/ca.pem",
        "peer-trusted-ca-file": f"{EXTERNAL_ETCD}/ca.pem",
    }
    settings = [f"ETCD_{name.upper().replace('-', '_')}={arguments[name]}" for name in arguments]
    tree["/etc/etcd.env"] = File(("\n".join(settings) + "\n").encode())
    return tree

"""Where a stand-in of kubeadm is, and its `kubeadm reset`."""

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from cryptography import x509

from tests.lab.control_plane_design import Design, Node
from tests.lab.control_plane_files import CURRENT
from tests.lab.control_plane_manifests import MANIFESTS
from tests.lab.control_plane_store import Etcd
from tests.lab.control_plane_tls import AnswerNo, ApiClient
from tests.lab.kubeadm_standin_config import KubeadmError
from tests.lab.kubeadm_standin_invite import PKI
from tests.lab.pki import load_certificates
from tests.lab.pki_kubeadm import KUBERNETES

DESIGN = Path("/etc/lab/design.json")


def design_here() -> Design:
    """The cluster this host is meant for."""
    read = json.loads(DESIGN.read_text())
    read["nodes"] = tuple(Node(**one) for one in read["nodes"])
    lists = {key: tuple(value) for key, value in read.items() if isinstance(value, list)}
    return Design(**{**read, **lists})


def own_address(design: Design) -> str:
    """The address of this host in it."""
    host = Path("/etc/hostname").read_text().strip()
    return next(one.address for one in design.nodes if one.host_name == host)


def etcd_of(nodes: Sequence[Node]) -> Etcd:
    """The members of etcd on these nodes, asked with the certificates of this host."""
    own = PKI / "etcd"
    return Etcd(
        [f"https://{one.address}:2379" for one in nodes],
        f"{own}/ca.crt",
        f"{own}/healthcheck-client.crt",
        f"{own}/healthcheck-client.key",
    )


def reset(flags: Mapping[str, str]) -> str:
    """`kubeadm reset --force`: leave etcd, and remove what kubeadm and the kubelet have made.

    As with kubeadm 1.36 it leaves etcd only where its Node can be read; else the member stays in
    the list, its data is removed all the same, and the exit code is 0.
    """
    if "force" not in flags:
        raise KubeadmError("aborted reset operation")
    design = design_here()
    own = own_address(design)
    manifest = Path(MANIFESTS) / "etcd.yaml"
    others = [one for one in design.nodes if one.address != own]
    if manifest.exists() and _has_node(others):
        etcd = etcd_of(others)
        members = etcd.ask("/v3/cluster/member/list", {})["members"]
        for member in members:
            if f"https://{own}:2380" in member["peerURLs"]:
                etcd.ask("/v3/cluster/member/remove", {"ID": member["ID"]})
    wipe()
    return "[reset] Deleting contents of directories"


def _has_node(others: Sequence[Node]) -> bool:
    """Whether the Node of this host can be read from one of the other hosts, as by a balancer."""
    try:
        subject = load_certificates(Path(CURRENT).read_bytes())[0].subject
        admin = ApiClient.of_kubeconfig(f"{KUBERNETES}/admin.conf")
    except OSError:  # of a reset that was cut off
        return False
    (common,) = subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    path = f"/api/v1/nodes/{str(common.value).removeprefix('system:node:')}"
    for other in others:
        try:
            replace(admin, server=f"https://{other.address}:6443").ask("GET", path)
        except (AnswerNo, OSError) as error:
            sys.stderr.write(f"[reset] Unable to fetch the kubeadm-config ConfigMap: {error}\n")
            continue
        return True
    return False


def wipe() -> None:
    """Leave nothing of a cluster on this host."""
    subprocess.run(["systemctl", "stop", "kubelet"], check=True)
    subprocess.run(["lab-reset"], check=True)
    for path in (KUBERNETES, "/var/lib/kubelet", "/var/lib/etcd", "/var/log/pods"):
        shutil.rmtree(path, ignore_errors=True)
    Path("/var/lib/etcd").mkdir(mode=0o700)

"""What a kubeadm cluster of the lab needs for nodes to come and go, beside its control plane."""

import base64
import json

import yaml

from tests.lab.control_plane import ControlPlane
from tests.lab.hosts import LabHost
from tests.lab.pki_kubeadm import CERTIFICATES
from tests.lab.processes import LabError, wait_until

KUBECTL = "kubectl --kubeconfig /etc/kubernetes/admin.conf"


def put_cluster_info(cluster: ControlPlane, host: LabHost) -> None:
    """Say in the cluster how one joins it: by the API server of this host."""
    authority = base64.b64encode(host.read_file(f"{CERTIFICATES}/ca.crt")).decode()
    server = f"https://{host.address}:6443"
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {"name": "", "cluster": {"server": server, "certificate-authority-data": authority}}
        ],
    }
    info = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "cluster-info", "namespace": "kube-public"},
        "data": {"kubeconfig": yaml.safe_dump(config)},
    }
    host.write("root/cluster-info.json", json.dumps(info))
    cluster.hosts[0].run(f"{KUBECTL} create --validate=false -f /root/cluster-info.json")


def wipe(host: LabHost) -> None:
    """Have a host be as newly installed: it was lost, and stands there anew."""
    host.run(
        '/usr/bin/python3 -I -c \'import sys; sys.path.insert(0, "/opt/lab/lib"); '
        "from tests.lab.kubeadm_standin_reset import wipe; wipe()'"
    )


def node_of(host: LabHost, name: str) -> dict[str, object] | None:
    """A Node as the API has it; none where there is none."""
    text = host.run(f"{KUBECTL} get node {name} --ignore-not-found -o json")
    return json.loads(text) if text.strip() else None


def is_ready(node: dict[str, object] | None) -> bool:
    """Whether a Node says that it is."""
    conditions = (node or {}).get("status", {}).get("conditions", [])  # type: ignore[attr-defined]
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def wait_until_lost(host: LabHost, name: str) -> None:
    """Wait until nobody has heard of a node for so long that it is no longer Ready."""
    wait_until(lambda: not is_ready(node_of(host, name)), f"{name} to be lost", within_seconds=60)


def members(host: LabHost) -> dict[str, dict[str, object]]:
    """The members of etcd by name, as one of them lists them.

    Raises:
        LabError: it does not.
    """
    own = "/etc/kubernetes/pki/etcd/healthcheck-client"
    listed = host.run(
        "printf 'POST /v3/cluster/member/list HTTP/1.0\\r\\nContent-Length: 2\\r\\n\\r\\n{}' | "
        "timeout 5 openssl s_client -quiet -connect 127.0.0.1:2379 "
        f"-cert {own}.crt -key {own}.key 2>/dev/null || :"
    )
    body = listed.replace("\r\n", "\n").partition("\n\n")[2]
    if not body:
        raise LabError(f"{host.name}: etcd lists no members: {listed}")
    return {one.get("name", ""): one for one in json.loads(body)["members"]}

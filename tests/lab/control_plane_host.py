"""What a host needs to be a control-plane node: programs, units, names."""

import json
import os
import subprocess
from dataclasses import asdict
from pathlib import Path

import yaml

from tests.lab.control_plane_access import ADMINS
from tests.lab.control_plane_design import BALANCER, EXTERNAL_ETCD, Design, Node
from tests.lab.control_plane_files import File, Tree, cluster_configuration
from tests.lab.processes import ServerMissing
from tests.lab.static_pods_runtime import IMAGES

TESTS = Path(__file__).parents[1]
LIBRARY = "/opt/lab/lib"
BINARIES = Path("/usr/local/kubebuilder/bin")
SCRIPT = """#!/usr/bin/python3 -I
import sys; sys.path.insert(0, "{library}"); from tests.lab.static_pods_program import main
main("{name}")
"""
IN_IMAGES = ("kube-apiserver", "kube-controller-manager", "kube-scheduler")
RUNTIME_UNIT = """[Unit]
Description={name} container runtime
After=network.target

[Service]
ExecStart=/usr/bin/{name}
Restart=always
RestartSec=1
Delegate=yes
KillMode=process

[Install]
WantedBy=multi-user.target
"""
KUBELET_UNIT = """[Unit]
Description=kubelet: The Kubernetes Node Agent
Wants=network-online.target
After=network-online.target

[Service]
ExecStart=/usr/bin/kubelet
Restart=always
StartLimitInterval=0
RestartSec=1

[Install]
WantedBy=multi-user.target
"""
KUBELET_DROP_IN = """[Service]
Environment="KUBELET_KUBECONFIG_ARGS=--bootstrap-kubeconfig=/etc/kubernetes/bootstrap-kubelet.conf --kubeconfig=/etc/kubernetes/kubelet.conf"
Environment="KUBELET_CONFIG_ARGS=--config=/var/lib/kubelet/config.yaml"
EnvironmentFile=-/var/lib/kubelet/kubeadm-flags.env
EnvironmentFile=-/etc/default/kubelet
ExecStart=
ExecStart=/usr/bin/kubelet $KUBELET_KUBECONFIG_ARGS $KUBELET_CONFIG_ARGS $KUBELET_KUBEADM_ARGS $KUBELET_EXTRA_ARGS
"""  # noqa: E501 - as kubeadm's package has it
ETCD_UNIT = """[Unit]
Description=etcd
After=network.target

[Service]
Type=notify
EnvironmentFile=/etc/etcd.env
ExecStart=/usr/bin/etcd
Restart=always
RestartSec=1
LimitNOFILE=40000

[Install]
WantedBy=multi-user.target
"""
RESTORE = r"""set -e
systemctl kill -s KILL kubelet {etcd} 2>/dev/null || :
systemctl stop kubelet {etcd}
lab-reset
rm -rf /etc/kubernetes /var/lib/kubelet /var/log/pods {external} {homes}
tar -C / -xpf /var/lib/lab/aged.tar
systemctl reset-failed kubelet {etcd} 2>/dev/null || :
systemctl start --no-block {etcd} kubelet
"""


def binary(name: str) -> Path | None:
    """Find a real program of Kubernetes; none where it is not to be had."""
    folder = Path(os.environ.get("KUBEBUILDER_ASSETS", BINARIES))
    path = folder / name
    return path if path.is_file() else None


def real_kubeadm(version: str) -> Path | None:
    """Find the real kubeadm, of this minor release."""
    path = binary("kubeadm")
    if path is None:
        return None
    asked = [path, "version", "-o", "short"]
    told = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    return path if told.split(".")[:2] == f"v{version}".split(".")[:2] else None


def required_kubeadm(version: str) -> Path:
    """Find the real kubeadm of this minor release.

    Raises:
        ServerMissing: there is none.
    """
    path = real_kubeadm(version)
    if path is None:
        raise ServerMissing(f"there is no kubeadm {version} in KUBEBUILDER_ASSETS or {BINARIES}")
    return path


def binds(kubeadm: Path | None) -> list[tuple[Path, Path]]:
    """What of this machine a host shows: the tests themselves, and real programs."""
    shown = [(TESTS, Path(LIBRARY) / "tests")]
    if kubeadm:
        shown.append((kubeadm, Path("/usr/bin/kubeadm")))
    kubectl = binary("kubectl")
    if kubectl:
        shown.append((kubectl, Path("/usr/bin/kubectl")))
    return shown


def furniture(design: Design, node: Node, *, has_real_kubeadm: bool) -> Tree:
    """Return what does not age: programs, units, names, and what the cluster holds."""
    runtime = "dockerd" if design.runtime == "docker" else "containerd"
    programs = ["kubelet", "crictl", runtime, "lab-reset", "lab-get"]
    programs += ["docker"] if design.runtime == "docker" else []
    programs += [] if has_real_kubeadm else ["kubeadm"]
    tree = {f"/usr/bin/{name}": _script(name) for name in programs}
    tree |= {f"{IMAGES}/{name}": _script(name) for name in IN_IMAGES}
    unit = "docker" if design.runtime == "docker" else "containerd"
    units = {
        f"{unit}.service": RUNTIME_UNIT.format(name=runtime),
        "kubelet.service": KUBELET_UNIT,
        "kubelet.service.d/10-kubeadm.conf": KUBELET_DROP_IN,
    }
    if design.etcd == "external":
        units["etcd.service"] = ETCD_UNIT
    tree |= {f"/etc/systemd/system/{n}": File(t.encode(), 0o644) for n, t in units.items()}
    names = "".join(f"{one.address} {one.host_name} {one.name}\n" for one in design.nodes)
    hosts = f"127.0.0.1 localhost\n{names}{node.address} {BALANCER}\n"
    tree |= {
        "/etc/hosts": File(hosts.encode(), 0o644),
        "/etc/lab/design.json": File(json.dumps(asdict(design)).encode(), 0o644),
        "/etc/lab/version": File(f"{design.version}\n".encode(), 0o644),
        "/etc/lab/kubeadm-version": File(f"{design.version}\n".encode(), 0o644),
        "/var/lib/lab/seed.yaml": File(seed(design).encode()),
        "/var/lib/lab/restore": File(_restore(design).encode(), 0o700),
        "/var/lib/etcd/.keep": File(b"", 0o600),
    }
    if design.apiserver_reloads:
        tree["/etc/lab/apiserver-reloads"] = File(b"")
    return tree


def services(design: Design) -> list[str]:
    """The units of a node, in the order in which they are started."""
    unit = "docker" if design.runtime == "docker" else "containerd"
    return [unit, *(["etcd"] if design.etcd == "external" else []), "kubelet"]


def seed(design: Design) -> str:
    """Return the objects a cluster made by kubeadm has."""
    namespaces = ["default", "kube-system", "kube-public", "kube-node-lease"]
    objects: list[dict[str, object]] = [
        {"kind": "Namespace", "metadata": {"name": name}} for name in namespaces
    ]
    kubelet = {"apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration"}
    proxy = {"apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration"}
    for name, content in {
        "kubeadm-config": {"ClusterConfiguration": cluster_configuration(design)},
        "kubelet-config": {"kubelet": yaml.safe_dump(kubelet)},
        "kube-proxy": {"config.conf": yaml.safe_dump(proxy)},
    }.items():
        meta = {"name": name, "namespace": "kube-system"}
        objects.append({"kind": "ConfigMap", "metadata": meta, "data": content})
    if design.has_admin_binding:
        objects.append({"kind": "ClusterRoleBinding", "metadata": {"name": ADMINS}})
    return yaml.safe_dump_all(objects)


def _script(name: str) -> File:
    return File(SCRIPT.format(library=LIBRARY, name=name).encode(), 0o755)


def _restore(design: Design) -> str:
    is_external = design.etcd == "external"
    return RESTORE.format(
        etcd="etcd" if is_external else "",
        external=f"{EXTERNAL_ETCD} /etc/etcd.env" if is_external else "",
        homes="/root/.kube /home/ops/.kube",
    )

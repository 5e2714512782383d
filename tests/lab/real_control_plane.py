"""A real control plane: kubeadm, kubelet, containerd, kube-apiserver and the rest, in a lab host.

    with real_control_plane(directory) as cluster:
        cluster.host.run("kubeadm certs check-expiration")

Its images are made of the programs found in KUBEBUILDER_ASSETS when a test asks for them; etcd,
containerd and runc are those of Debian. It is skipped where one of them is absent. One node, and
no workload beside its static pods: it has no network plugin, no proxy and no name service.

What had to be bent, because the host is a container itself: the kubelet makes no control groups
of its own, finds the kernel's settings as it wants them in files laid over /proc/sys, and has no
kernel log. etcd 3.4 lacks two flags and two probes that kubeadm 1.36 gives it.
"""

import contextlib
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import yaml

from tests.lab.control_plane_host import binary
from tests.lab.hosts import NSPAWN, LabHost, lab_hosts
from tests.lab.processes import LabError, ServerMissing, find_binary, scratch_directory, wait_until
from tests.lab.real_control_plane_images import libraries_of, pause_program, write_image
from tests.lab.real_control_plane_runtime import find_crictl, remove_groups

REPOSITORY = "registry.example.net"
COMPONENTS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler")
PROGRAMS = (*COMPONENTS, "kubeadm", "kubelet", "kubectl")
OF_CONTAINERD = ("containerd", "containerd-shim-runc-v2", "ctr", "runc")
IMAGES = "/opt/lab/images"
YEAR_HOURS = 365 * 24
SOCKET = "unix:///run/containerd/containerd.sock"
CONTAINERD = """
version = 2
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "native"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        NoNewKeyring = true
"""
CONTAINERD_UNIT = """[Unit]
Description=containerd container runtime
After=local-fs.target

[Service]
ExecStartPre=/bin/sh /opt/lab/prepare
ExecStart=/usr/bin/containerd
Type=notify
Delegate=yes
KillMode=process
Restart=always
RestartSec=1

[Install]
WantedBy=multi-user.target
"""
PREPARE = """
for hierarchy in cpu cpuacct cpuset memory devices freezer blkio pids; do
    mount -o remount,rw,bind /sys/fs/cgroup/$hierarchy 2>/dev/null || :
done
lay() {
    mountpoint -q /proc/sys/$1 && return
    mkdir -p /run/lab-sysctl
    echo $2 > /run/lab-sysctl/${1##*/}
    mount --bind /run/lab-sysctl/${1##*/} /proc/sys/$1
}
lay vm/overcommit_memory 1
lay vm/panic_on_oom 0
lay kernel/panic 10
lay kernel/panic_on_oops 1
lay kernel/keys/root_maxkeys 1000000
lay kernel/keys/root_maxbytes 25000000
lay net/ipv4/ip_forward 1
ln -sf null /dev/kmsg
:
"""
NETWORK = """{"cniVersion": "0.3.1", "name": "lab", "plugins": [{"type": "loopback"}]}"""
KUBELET_UNIT = """[Unit]
Description=kubelet: The Kubernetes Node Agent
After=containerd.service

[Service]
ExecStart=/usr/bin/kubelet
Restart=always
StartLimitInterval=0
RestartSec=2

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
# Taken out from the end, so that the places still fit.
ETCD_PATCH = [
    {"op": "remove", "path": "/spec/containers/0/command/19"},  # --watch-progress-notify-interval
    {"op": "remove", "path": "/spec/containers/0/command/5"},  # --feature-gates
    *(
        {"op": "replace", "path": f"/spec/containers/0/{probe}/httpGet/path", "value": "/health"}
        for probe in ("livenessProbe", "readinessProbe", "startupProbe")
    ),
]
KUBELET = {
    "apiVersion": "kubelet.config.k8s.io/v1beta1",
    "kind": "KubeletConfiguration",
    "cgroupDriver": "cgroupfs",
    "cgroupsPerQOS": False,
    "enforceNodeAllocatable": ["none"],
    "failCgroupV1": False,
    "failSwapOn": False,
    "fileCheckFrequency": "1s",
    "localStorageCapacityIsolation": False,
    "resolvConf": "/etc/hosts",
}


SAID = f"""
crictl --runtime-endpoint {SOCKET} ps --all 2>&1
tail -n 5 /var/log/pods/*/*/*.log
journalctl -u kubelet --no-pager -o cat | grep -v 'mirror pod' | tail -n 30 | cut -c1-400
:
"""


class RealControlPlane:
    """A host that runs a real control plane."""

    def __init__(self, host: LabHost) -> None:
        self.host = host
        self.hosts = (host,)
        self.node_name = host.name

    def configuration(self, certificate_hours: float) -> str:
        """Return what `kubeadm init` is told."""
        address = self.host.address
        return yaml.safe_dump_all(
            [
                {
                    "apiVersion": "kubeadm.k8s.io/v1beta4",
                    "kind": "ClusterConfiguration",
                    "kubernetesVersion": "v1.36.2",
                    "imageRepository": REPOSITORY,
                    "certificateValidityPeriod": f"{certificate_hours:g}h",
                    "apiServer": {"certSANs": ["api.example.net"]},
                    "networking": {"dnsDomain": "k8s.example.net"},
                },
                {
                    "apiVersion": "kubeadm.k8s.io/v1beta4",
                    "kind": "InitConfiguration",
                    "localAPIEndpoint": {"advertiseAddress": address},
                    "nodeRegistration": {"name": self.node_name, "criSocket": SOCKET},
                    "patches": {"directory": "/opt/lab/patches"},
                },
                KUBELET,
            ]
        )

    def begin(self, certificate_hours: float) -> None:
        """Start containerd, take in the images, and make the cluster.

        Raises:
            LabError: it was not made; shows what kubeadm and the kubelet said.
        """
        host = self.host
        host.write("opt/lab/kubeadm.yaml", self.configuration(certificate_hours))
        host.run("systemctl daemon-reload && systemctl enable --quiet containerd kubelet")
        host.run("systemctl start containerd")
        host.run(
            f"for image in {IMAGES}/*.tar; do "
            "ctr -n k8s.io images import --snapshotter native $image || exit 1; done",
            within_seconds=180,
        )
        init = "kubeadm init --config /opt/lab/kubeadm.yaml --ignore-preflight-errors=all"
        try:
            host.run(f"{init} --skip-phases=addon,show-join-command 2>&1", within_seconds=240)
        except LabError as error:
            raise LabError(f"{error}\n{host.run(SAID)}") from error
        host.write("opt/lab/kubeadm.yaml", self.configuration(YEAR_HOURS))  # for what comes
        host.run("kubeadm init phase upload-config kubeadm --config /opt/lab/kubeadm.yaml 2>&1")
        host.run("mkdir -p /root/.kube && cp /etc/kubernetes/admin.conf /root/.kube/config")

    def age(self, certificate_hours: float) -> None:
        """Give its certificates so long to live still; what runs may not have them yet."""
        self.host.write("root/aged.yaml", self.configuration(certificate_hours))
        self.host.run("kubeadm certs renew all --config /root/aged.yaml")

    def wait_until_ready(self, within_seconds: float = 120) -> None:
        """Wait until the node says that it is ready and every static pod runs.

        Raises:
            LabError: not in time.
        """
        kubectl = "kubectl --kubeconfig /etc/kubernetes/super-admin.conf"

        def is_ready() -> bool:
            (node,) = json.loads(self.host.run(f"{kubectl} get nodes -o json"))["items"]
            told = {one["type"]: one["status"] for one in node["status"]["conditions"]}
            pods = json.loads(self.host.run(f"{kubectl} -n kube-system get pods -o json"))["items"]
            ready = [
                pod["metadata"]["name"]
                for pod in pods
                for one in pod["status"].get("conditions", [])
                if one["type"] == "Ready" and one["status"] == "True"
            ]
            return told.get("Ready") == "True" and len(ready) == len(COMPONENTS) + 1

        wait_until(is_ready, "the control plane", within_seconds=within_seconds)


def programs() -> dict[str, Path]:
    """Find every program that is needed.

    Raises:
        ServerMissing: one of them is absent; says which.
    """
    found = {}
    for name in PROGRAMS:
        path = binary(name)
        if path is None:
            raise ServerMissing(f"there is no {name} in KUBEBUILDER_ASSETS")
        found[name] = path
    found["crictl"] = Path(find_crictl())
    for name in (*OF_CONTAINERD, "etcd"):
        found[name] = Path(find_binary(name)).resolve()
    return found


def make_images(folder: Path, found: dict[str, Path]) -> str:
    """Make the images that kubeadm asks for; return the name of the one for pauses."""
    options = ["--image-repository", REPOSITORY, "--kubernetes-version", "v1.36.2"]
    listed = subprocess.run(
        [found["kubeadm"], "config", "images", "list", *options],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    names = {image.rpartition("/")[2].partition(":")[0]: image for image in listed}
    for name in (*COMPONENTS, "etcd"):
        libraries = libraries_of(found[name])
        write_image(folder / f"{name}.tar", names[name], found[name], libraries=libraries)
    write_image(folder / "pause.tar", names["pause"], pause_program(folder))
    return names["pause"]


@contextlib.contextmanager
def real_control_plane(
    directory: Path, *, certificate_hours: float = 480
) -> Iterator[RealControlPlane]:
    """Run a real control plane of one node until the end of the block.

    Args:
        directory: for keys and logs; made where it is missing.
        certificate_hours: how long its certificates are good; new ones are good for a year.

    Raises:
        ServerMissing: a program is absent, or this machine cannot run hosts; says what it lacks.
        LabError: the cluster was not made.
    """
    found = programs()
    directory.mkdir(parents=True, exist_ok=True)
    with scratch_directory("images") as scratch:
        scratch.chmod(0o755)
        images, state, kubelet = (scratch / name for name in ("images", "state", "kubelet"))
        for folder in (images, state, kubelet):
            folder.mkdir()
        pause = make_images(images, found)
        shown = {name: path for name, path in found.items() if name not in {*COMPONENTS, "etcd"}}
        binds = [
            (images, Path(IMAGES), True),
            (state, Path("/var/lib/containerd"), False),
            (kubelet, Path("/var/lib/kubelet"), False),
            *((path, Path("/usr/bin") / name, True) for name, path in shown.items()),
        ]
        files = {
            "etc/containerd/config.toml": CONTAINERD.format(pause=pause),
            "etc/cni/net.d/10-lab.conflist": NETWORK,
            "etc/resolv.conf": "",
            "opt/lab/prepare": PREPARE,
            "opt/lab/patches/etcd+json.json": json.dumps(ETCD_PATCH),
        }
        units = {
            "containerd.service": CONTAINERD_UNIT,
            "kubelet.service": KUBELET_UNIT,
            "kubelet.service.d/10-kubeadm.conf": KUBELET_DROP_IN,
        }
        # What is bent here is bent for systemd-nspawn; under Docker it would be other things.
        with lab_hosts(directory, 1, binds=binds, files=files, units=units, backend=NSPAWN) as lab:
            cluster = RealControlPlane(lab.hosts[0])
            try:
                cluster.begin(certificate_hours)
                yield cluster
            finally:
                with contextlib.suppress(LabError):
                    cluster.host.run("systemctl stop kubelet containerd")
        shutil.rmtree(state, ignore_errors=True)
        remove_groups("k8s.io")  # which containerd makes at the top, seen from the host as well

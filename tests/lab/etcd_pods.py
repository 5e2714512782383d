"""The etcd of a kubeadm cluster: a member on each control-plane host, run by the kubelet.

The hosts are those of `control_plane`: etcd is real, and so are its certificates; kubelet and
container runtime stand in. The API servers use this etcd, and write to it all the time.
"""

import contextlib
from dataclasses import replace
from pathlib import Path

from tests.lab.control_plane import ControlPlane, control_planes
from tests.lab.control_plane_design import FRESH
from tests.lab.control_plane_files import Tree
from tests.lab.control_plane_manifests import MANIFESTS
from tests.lab.etcd_hosts import COPIES, EtcdLab, LabMember
from tests.lab.pki_kubeadm import CERTIFICATES
from tests.lab.processes import LabError, wait_until
from tests.lab.static_pods_runtime import IMAGES

MANIFEST = f"{MANIFESTS}/etcd.yaml"
PARKED = "/etc/kubernetes/recover-parked/etcd.yaml"
PARKED_IN = str(Path(PARKED).parent)
PARK = f"mkdir -p {PARKED_IN}; [ ! -e {MANIFEST} ] || mv {MANIFEST} {PARKED}"
QUOTA = b"    - --quota-backend-bytes=5000000\n"
TOOLS = ("etcd", "etcdctl", "etcdutl")
ANEW = f"""
systemctl stop kubelet $(systemctl list-units --all --no-legend --plain 'recover-*' | cut -d' ' -f1)
systemctl start containerd
until lab-reset 2>/dev/null; do sleep 0.1; done
systemctl reset-failed 2>/dev/null
rm -rf /var/lib/etcd {COPIES} /run/recover/units /root/acknowledged
for tool in {" ".join(TOOLS)}; do [ ! -e {IMAGES}/$tool ] || mv {IMAGES}/$tool /usr/bin/; done
"""


class PodMember(LabMember):
    """A member of etcd on a control-plane host, run as a static pod."""

    data = "/var/lib/etcd"
    file = MANIFEST
    tls = tuple(f"{CERTIFICATES}/etcd/{name}" for name in ("ca.crt", "server.crt", "server.key"))

    @property
    def etcdctl(self):
        """The program with its certificate; it may lie in the image alone."""
        return f"env PATH=/usr/bin:/bin:{IMAGES} {super().etcdctl}"

    def __init__(self, host, peers):
        super().__init__(host)
        self.peers = peers  # what it is told when it joins as the second: the first, and itself

    def process(self):
        """The id of its process; empty while there is none."""
        return self.host.run("pgrep -x etcd || true").strip()

    def is_at_rest(self):
        is_placed = self.host.run(f"[ ! -e {MANIFEST} ] || echo yes").strip()
        return not (is_placed or self.process())

    def stop(self):
        """Move its manifest to where a recovery would, and wait until the kubelet has ended it."""
        self.host.run(PARK)
        wait_until(self.is_at_rest, f"etcd of {self.host} to end", within_seconds=60)

    def kill(self):
        self.host.run(f"{PARK}; pkill -KILL -x etcd || true")
        wait_until(self.is_at_rest, f"etcd of {self.host} to end", within_seconds=60)

    def start(self):
        self.host.run(f"mv {PARKED} {MANIFEST}")

    def fail_without_data(self):
        """Have its disk be empty, and the kubelet start it over and over.

        As one that kubeadm joined before the last: it is told of fewer members than there are.
        """
        self.lose_data()
        told = f"    - --initial-cluster={self.peers}\\n    - --initial-cluster-state=existing"
        told = f"s|^    - --initial-cluster=.*|{told}|"
        self.host.run(f"sed -i '{told}' {PARKED}")
        self.start()
        logs = "cat /var/log/pods/kube-system_etcd-*/etcd/*.log"
        wait_until(
            lambda: "member count is unequal" in self.host.run(logs),
            f"etcd of {self.host} to fail",
            within_seconds=60,
        )

    def hide_tools(self):
        """Have no tool of etcd on the host, but in its image alone."""
        for tool in TOOLS:
            self.host.run(f"[ ! -e /usr/bin/{tool} ] || mv /usr/bin/{tool} {IMAGES}/{tool}")


class PodLab(EtcdLab):
    """The members of a stacked etcd, and what is done to all of them."""

    has_other_clients = True

    def __init__(self, cluster: ControlPlane):
        self.lab, self.cluster = cluster.lab, cluster
        told = cluster.design.initial_cluster().split(",")
        self.members = [
            PodMember(host, f"{told[0]},{own}" if own != told[0] else own)
            for host, own in zip(cluster.hosts, told, strict=True)
        ]
        self.spares = []

    def begin_anew(self):
        """Let all members run as on the first day, whatever a test has done."""
        self.lab.heal()
        for member in self.members:
            member.host.thaw()
        for member in self.members:
            member.power_on()
            member.host.run(ANEW)
        for member in self.members:  # none while another still runs: that would know it already
            member.host.run("sh /var/lib/lab/restore")
        self.wait_until_healthy()

    def wait_until_ready(self):
        """Wait until the API servers are: they come back by themselves."""
        self.cluster.wait_until_ready()


def with_quota(tree: Tree) -> None:
    """Let a test fill the database."""
    file = tree[MANIFEST]
    named = b"    - --name="
    if named not in file.content:
        raise LabError(f"{MANIFEST} is written in another way: {file.content.decode()}")
    tree[MANIFEST] = replace(file, content=file.content.replace(named, QUOTA + named))


@contextlib.contextmanager
def etcd_pods(directory: Path, count=3):
    """Run the control plane of a kubeadm cluster with that many members of etcd, healthy.

    Raises:
        ServerMissing: this machine cannot run hosts.
    """
    planes = control_planes(directory, count, age=FRESH, kubeadm="standin", change=with_quota)
    with planes as cluster:
        etcd = PodLab(cluster)
        etcd.begin_anew()
        yield etcd

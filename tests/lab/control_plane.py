"""Hosts that look to a flow like the control plane of a kubeadm cluster.

    with control_planes(directory, 3, age=EXPIRING) as cluster:
        cluster.wait_until_ready()
        cluster.hosts[0].run("crictl pods")
        cluster.restore()                      # aged again, in under a second

Each node has a real PKI, a real etcd, real TLS servers on the ports of a control plane, systemd
units for kubelet and container runtime, and kubeadm: the real one where it is found. What stands
in for the rest is told in `control_plane_apiserver`, `control_plane_leaders`,
`static_pods_kubelet`, `static_pods_runtime` and `kubeadm_standin`.
"""

import contextlib
import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

from tests.lab.control_plane_design import EXPIRING, Age, Design, Node
from tests.lab.control_plane_files import Authorities, Tree, archive, node_files
from tests.lab.control_plane_host import (
    binds,
    furniture,
    real_kubeadm,
    required_kubeadm,
    services,
)
from tests.lab.control_plane_situations import SITUATIONS
from tests.lab.hosts import Lab, LabHost, lab_hosts
from tests.lab.pki_keys import Keys
from tests.lab.processes import LabError, wait_until

AGED = "var/lib/lab/aged.tar"
Change = Callable[[Tree], None]


class ControlPlane:
    """The control-plane hosts of one cluster."""

    def __init__(self, lab: Lab, design: Design, age: Age, change: Change | None) -> None:
        self.lab = lab
        self.hosts: tuple[LabHost, ...] = lab.hosts
        self.design = design
        self.age = age
        self._change = change
        self._authorities = Authorities.made(age, Keys())

    def node(self, host: LabHost) -> Node:
        """The node that a host is."""
        return next(node for node in self.design.nodes if node.host_name == host.name)

    def install(self, *, has_real_kubeadm: bool) -> None:
        """Furnish the hosts, lay down the aged files, and start everything."""
        self._write_aged()
        units = " ".join(services(self.design))

        def begin(host: LabHost) -> None:
            tree = furniture(self.design, self.node(host), has_real_kubeadm=has_real_kubeadm)
            host.write("var/lib/lab/furniture.tar", archive(tree))
            host.run(
                "cd / && tar -xpf var/lib/lab/furniture.tar && tar -xpf var/lib/lab/aged.tar "
                f"&& systemctl daemon-reload && systemctl enable --quiet {units} "
                f"&& systemctl start --no-block {units}"
            )

        self._each(begin)

    def restore(self) -> None:
        """Put every host back to the aged state, processes and all; etcd keeps what it holds.

        Hosts that are off, frozen or cut off are brought back first.
        """
        self.lab.heal()
        for host in self.hosts:
            host.thaw()
        off = [host for host in self.hosts if not host.is_up]
        for host in off:
            host.power_on(wait=False)
        for host in off:
            host.wait_until_up()
        self._each(self._restore)

    def become(self, age: Age, change: Change | None = None) -> None:
        """Give all certificates other dates, of the same authorities, and start all of it anew.

        Args:
            age: the dates.
            change: what else is different, on every host: files by path, changed in place.
        """
        self.age = age
        self._change = change
        self._authorities = self._authorities.aged(age)
        self._write_aged()
        self.restore()

    def wait_until_ready(self, within_seconds: float = 60) -> None:
        """Wait until every API server is ready and every node has said so itself.

        Raises:
            LabError: not in time; says what was seen last.
        """
        for host in self.hosts:
            wait_until(
                lambda host=host: is_ready(host.address),
                f"{host.name}:6443/readyz",
                within_seconds=within_seconds,
            )
        command = "KUBECONFIG=/etc/kubernetes/admin.conf lab-get /api/v1/nodes"
        expected = {node.name for node in self.design.nodes}

        def are_nodes_ready() -> bool:
            listed = json.loads(self.hosts[0].run(command))["items"]
            ready = {
                one["metadata"]["name"]
                for one in listed
                for condition in one["status"]["conditions"]
                if condition["type"] == "Ready" and condition["status"] == "True"
            }
            return ready == expected

        wait_until(are_nodes_ready, "all nodes to be Ready", within_seconds=within_seconds)

    def files(self, host: LabHost, age: Age) -> Tree:
        """Return the files a host would have with certificates of that age, by absolute path."""
        return node_files(self.design, self.node(host), self._authorities, age, Keys())

    def _write_aged(self) -> None:
        keys = Keys()

        def write(host: LabHost, tree: Tree) -> None:
            host.write(AGED, archive(tree), 0o600)

        trees = []
        for host in self.hosts:
            node = self.node(host)
            tree = node_files(self.design, node, self._authorities, self.age, keys)
            if self._change:
                self._change(tree)
            trees.append(tree)
        with ThreadPoolExecutor(len(self.hosts)) as pool:
            list(pool.map(write, self.hosts, trees))

    @staticmethod
    def _restore(host: LabHost) -> None:
        host.run("sh /var/lib/lab/restore")

    def _each(self, do: Callable[[LabHost], None]) -> None:
        with ThreadPoolExecutor(len(self.hosts)) as pool:
            list(pool.map(do, self.hosts))


def is_ready(address: str) -> bool:
    """Whether the API server of a host says that it is ready; whose it is does not matter."""
    context = ssl._create_unverified_context()  # noqa: S323 - its certificate may have expired
    url = f"https://{address}:6443/readyz"
    try:
        with urllib.request.urlopen(url, timeout=3, context=context) as answer:
            return bool(answer.read() == b"ok")
    except urllib.error.URLError as error:
        raise LabError(f"{url}: {error}") from error


@contextlib.contextmanager
def control_planes(  # noqa: PLR0913 - the choices a test has
    directory: Path,
    count: Literal[1, 3] = 1,
    *,
    age: Age = EXPIRING,
    kubeadm: Literal["real", "standin", "auto"] = "auto",
    kubeadm_version: str = "1.36.2",
    change: Change | None = None,
    situation: str = "",
    names: Sequence[str] = (),
    **shape: object,
) -> Iterator[ControlPlane]:
    """Run the control plane of a cluster until the end of the block.

    Args:
        directory: for keys and logs; made where it is missing.
        count: how many control-plane hosts.
        age: how long the certificates have to live still.
        kubeadm: which one is on the hosts; `auto` takes the real one if its release fits.
        kubeadm_version: of kubeadm and of the cluster.
        change: what else is different about the files of a host, by path, changed in place.
        situation: one of `SITUATIONS`, instead of `age` and `change`.
        names: the host names; the nodes are always called cp1, cp2 and so on.
        shape: other fields of `Design`.

    Raises:
        ServerMissing: this machine cannot run such hosts, or lacks the kubeadm asked for.
        LabError: a host did not start.
    """
    if situation:
        age, change = SITUATIONS[situation].age, SITUATIONS[situation].change
    real = None
    if kubeadm == "real":
        real = required_kubeadm(kubeadm_version)
    elif kubeadm == "auto":
        real = real_kubeadm(kubeadm_version)
    with lab_hosts(directory, count, names=names, binds=binds(real)) as lab:
        nodes = tuple(
            Node(f"cp{number}", host.name, host.address) for number, host in enumerate(lab.hosts, 1)
        )
        design = Design(nodes, version=kubeadm_version, **shape)  # type: ignore[arg-type]
        cluster = ControlPlane(lab, design, age, change)
        cluster.install(has_real_kubeadm=real is not None)
        yield cluster

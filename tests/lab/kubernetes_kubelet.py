"""A node that really runs pods: kubelet, containerd and kube-scheduler beside a real API.

    with pods_api(directory) as api:
        api.apply(deployment("web", BUSYBOX, ...))

It takes Debian's containerd and runc and a static busybox; the other programs are found by the
envtest convention. Pods share the network of this machine (`hostNetwork`), since no network plugin
is needed then: each takes a port that is free. What had to be bent for a machine that is a
container itself is what `real_control_plane` bends, and the kubelet is told that it runs in a user
namespace, so that it overlooks the settings of the kernel that it may not change.
"""

import contextlib
import json
import os
import random
import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

from tests.lab.kubernetes_api import REAL, KubernetesApi
from tests.lab.kubernetes_client import ApiSaidNo
from tests.lab.kubernetes_real import ApiServer, find_kubernetes, kubeconfig_text, real_api
from tests.lab.ports import LOOPBACK, free_port
from tests.lab.processes import (
    LabError,
    Server,
    ServerMissing,
    find_binary,
    scratch_directory,
    wait_until,
)
from tests.lab.real_control_plane_runtime import (
    Containerd,
    private_containerd,
    remove_groups,
    unmount_below,
)

NODE = "pods-node"
BUSYBOX = "registry.example.net/busybox:1"
NETWORK = '{"cniVersion": "0.3.1", "name": "lab", "plugins": [{"type": "loopback"}]}'
SET_BY_KUBELETS = [
    Path("/proc/sys") / name
    for name in (
        "vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops",
        "kernel/keys/root_maxkeys", "kernel/keys/root_maxbytes",
    )
]  # fmt: skip
APPLETS = (
    "sh", "cat", "head", "mv", "rm", "sha256sum", "sleep", "echo", "nc", "httpd", "touch", "ls",
    "env", "test", "mkdir", "cp", "wc", "grep", "dd", "tail", "true", "false", "id", "yes", "wget",
)  # fmt: skip


class Kubelet(Server):
    """A kubelet that registers its node, and takes orders from the API alone."""

    name = "kubelet"
    start_within_seconds = 60

    def __init__(
        self, directory: Path, scratch: Path, address: str, api: ApiServer, runtime: Containerd
    ) -> None:
        super().__init__(directory, scratch=scratch)
        self.address = address
        self.port, self._health = free_port(), free_port()
        self.root = scratch / "kubelet"
        self._api, self._runtime = api, runtime

    def configuration(self) -> dict[str, object]:
        """What its file holds."""
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": self.address,
            "port": self.port,
            "healthzBindAddress": LOOPBACK,
            "healthzPort": self._health,
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": False},
                "x509": {"clientCAFile": str(self._api.directory / "ca.crt")},
            },
            "authorization": {"mode": "AlwaysAllow"},
            "containerRuntimeEndpoint": self._runtime.endpoint,
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": self._runtime.cgroup_parent,
            "cgroupsPerQOS": False,
            "enforceNodeAllocatable": ["none"],
            "failCgroupV1": False,
            "failSwapOn": False,
            "featureGates": {"KubeletInUserNamespace": True},
            "localStorageCapacityIsolation": False,
            "evictionHard": {"memory.available": "1Mi"},
            "imageGCHighThresholdPercent": 100,
            "resolvConf": "",
            "podLogsDir": str(self.root / "logs"),
            "syncFrequency": "2s",
            "nodeStatusUpdateFrequency": "2s",
            "registerNode": True,
        }

    def command(self) -> list[str]:
        """See Server."""
        self.root.mkdir(exist_ok=True)
        file = self.root / "config.json"
        file.write_text(json.dumps(self.configuration()))
        kubeconfig = self.root / "kubeconfig"
        kubeconfig.write_text(kubeconfig_text(self._api.url, self._api.directory))
        return [
            find_kubernetes(self.name),
            f"--config={file}",
            f"--kubeconfig={kubeconfig}",
            f"--hostname-override={NODE}",
            f"--node-ip={self.address}",
            f"--root-dir={self.root / 'root'}",
            f"--cert-dir={self.root / 'pki'}",
        ]

    def answers(self) -> object:
        """See Server."""
        with urlopen(f"http://{LOOPBACK}:{self._health}/healthz", timeout=2) as answer:
            return answer.read() == b"ok"


class Scheduler(Server):
    """kube-scheduler as it comes."""

    name = "kube-scheduler"
    start_within_seconds = 60

    def __init__(self, directory: Path, kubeconfig: Path) -> None:
        super().__init__(directory)
        self.port, self._kubeconfig = free_port(), kubeconfig

    def command(self) -> list[str]:
        """See Server."""
        return [
            find_kubernetes(self.name),
            f"--kubeconfig={self._kubeconfig}",
            f"--authentication-kubeconfig={self._kubeconfig}",
            f"--authorization-kubeconfig={self._kubeconfig}",
            f"--bind-address={LOOPBACK}",
            f"--secure-port={self.port}",
            "--leader-elect=false",
        ]

    def answers(self) -> object:
        """See Server."""
        loose = ssl._create_unverified_context()  # noqa: S323 (its own certificate, on loopback)
        address = f"https://{LOOPBACK}:{self.port}/healthz"
        with urlopen(address, timeout=2, context=loose) as answer:
            return answer.read() == b"ok"


@dataclass
class PodsApi(KubernetesApi):
    """A real API whose pods run."""

    runtime: Containerd | None = None

    def exec(self, pod: dict[str, object], *argv: str) -> str:
        """Run a command in a pod's container by the runtime, past the API.

        Raises:
            LabError: it failed.
        """
        status = pod["status"]["containerStatuses"][0]  # type: ignore[index]
        container = status["containerID"].rpartition("/")[2]
        assert self.runtime is not None
        return self.runtime.ctr("tasks", "exec", "--exec-id", f"lab{os.urandom(4).hex()}",
                                container, *argv)  # fmt: skip


@contextlib.contextmanager
def kernel_settings_kept() -> Iterator[None]:
    """Put back what a kubelet sets in the kernel of its machine, as how memory is given away."""
    before = {file: file.read_text() for file in SET_BY_KUBELETS if file.exists()}
    try:
        yield
    finally:
        for file, text in before.items():
            file.write_text(text)


@contextlib.contextmanager
def own_address() -> Iterator[str]:
    """Give this machine one more address that only itself reaches: a node's may not be loopback.

    Raises:
        LabError: it was not given.
    """
    ip, said = find_binary("ip"), ""
    for number in random.sample(range(1, 255), 20):
        address = f"192.0.2.{number}"  # of a network that is for documentation
        done = subprocess.run([ip, "address", "add", f"{address}/32", "dev", "lo"],
                              capture_output=True, text=True, check=False)  # fmt: skip
        if done.returncode == 0:
            break
        said = done.stderr
    else:
        raise LabError(f"no address for a node: {said}")
    try:
        yield address
    finally:
        subprocess.run([ip, "address", "del", f"{address}/32", "dev", "lo"], check=False)


@contextlib.contextmanager
def pods_api(directory: Path) -> Iterator[PodsApi]:
    """Run a real API with a node that runs pods, until the end of the block.

    Raises:
        ServerMissing: a program is absent, or this is not root; says which.
        LabError: the node did not become ready.
    """
    for name in ("kubelet", "kube-scheduler"):
        find_kubernetes(name)
    busybox = Path(find_binary("busybox"))
    listed = subprocess.run(["ldd", busybox], capture_output=True, text=True, check=False)
    if listed.returncode == 0:
        raise ServerMissing("busybox is there, but not the static one (package busybox-static)")
    directory.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(real_api(stack.enter_context(scratch_directory("kube"))))
        runtime = stack.enter_context(private_containerd(directory))
        (runtime.scratch / "cni").mkdir(exist_ok=True)
        (runtime.scratch / "cni" / "10-lab.conflist").write_text(NETWORK)
        links = {f"bin/{name}": "/usr/local/bin/busybox" for name in APPLETS}
        runtime.import_image(BUSYBOX, busybox, links=links)
        kubeconfig = directory / "kubeconfig"
        kubeconfig.write_text(kubeconfig_text(server.url, server.directory))
        scheduler = Scheduler(directory, kubeconfig)
        stack.callback(scheduler.close)
        scheduler.start()
        scratch = stack.enter_context(scratch_directory("kubelet"))
        address = stack.enter_context(own_address())
        kubelet = Kubelet(directory, scratch, address, server, runtime)
        stack.callback(unmount_below, scratch)
        stack.enter_context(kernel_settings_kept())
        stack.callback(kubelet.close)
        kubelet.start()
        client = server.client()
        with contextlib.suppress(ApiSaidNo):
            client.post("/api/v1/namespaces", {"metadata": {"name": "divoc"}})

        def is_ready() -> bool:
            node = client.get(f"/api/v1/nodes/{NODE}")
            told = {one["type"]: one["status"] for one in node["status"]["conditions"]}
            return told.get("Ready") == "True"

        wait_until(is_ready, "the node that runs pods", within_seconds=90)
        api = PodsApi(REAL, client, None, kubeconfig, None, server, runtime=runtime)  # type: ignore[arg-type]
        yield api
        with contextlib.suppress(LabError):
            runtime.end_containers()
        remove_groups(runtime.scratch.name)

"""The programs of a control-plane host of the lab: whichever it is called as.

Each of them is a script of two lines on the host, which imports this from the tests' own folder.
"""

import json
import os
import sys
from pathlib import Path

from tests.lab import static_pods_runtime as runtime

STATE = "/var/lib/containerd/lab.json"
SOCKETS = {
    "containerd": ("/run/containerd/containerd.sock",),
    "dockerd": ("/run/dockershim.sock", "/run/docker.sock"),
}


def main(name: str) -> None:
    """Run as this program, with the arguments of the process."""
    words = sys.argv[1:]
    if name in SOCKETS:
        return runtime.main([STATE, *SOCKETS[name]])
    if name == "lab-reset":
        (endpoint,) = [paths[0] for paths in SOCKETS.values() if Path(paths[0]).exists()]
        runtime.ask(endpoint, "reset")
        return None
    if name == "lab-get":
        from tests.lab.control_plane_tls import ApiClient  # noqa: PLC0415

        client = ApiClient.of_kubeconfig(os.environ["KUBECONFIG"])
        sys.stdout.write(json.dumps(client.ask("GET", words[0])))
        return None
    # Imported only by whom it concerns: a command is to answer quickly.
    if name == "kubelet":
        from tests.lab import static_pods_kubelet as kubelet  # noqa: PLC0415

        return kubelet.main(words)
    if name == "kube-apiserver":
        from tests.lab import control_plane_apiserver as apiserver  # noqa: PLC0415

        return apiserver.main(words)
    if name in {"kube-controller-manager", "kube-scheduler"}:
        from tests.lab import control_plane_leaders as leaders  # noqa: PLC0415

        return leaders.main(name, words)
    if name == "crictl":
        from tests.lab import static_pods_crictl as crictl  # noqa: PLC0415

        sys.exit(crictl.main(words))
    if name == "docker":
        from tests.lab import static_pods_docker as docker  # noqa: PLC0415

        sys.exit(docker.main(words))
    from tests.lab import kubeadm_standin_join as nodes  # noqa: PLC0415

    if nodes.knows(words):
        sys.exit(nodes.main(words))
    from tests.lab import kubeadm_standin as kubeadm  # noqa: PLC0415

    sys.exit(kubeadm.main(words))

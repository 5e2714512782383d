"""A cluster on lab hosts, as kubespray leaves one: Debian's etcd, and nodes that etcd keeps.

The playbooks beside this file keep the contract of the real ones (groups, variables, order, what is
deleted when) and are run by the real ansible-playbook. Nodes of the API are keys in etcd: so they
are there only while etcd has its quorum, and only as whoever recovers it has left them.
"""

import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.lab.host_identity import File
from tests.lab.hosts import Lab, LabHost
from tests.lab.processes import wait_until

PLAYBOOKS = Path(__file__).parent / "kubespray"
ANSIBLE = Path(sys.executable).with_name("ansible-playbook")
KEYS = 100  # as many as one transaction takes
UNITS = {
    "etcd.service": """[Unit]
Description=etcd as kubespray installs it
[Service]
Type=simple
User=etcd
EnvironmentFile=/etc/etcd.env
ExecStart=/usr/bin/etcd --heartbeat-interval=50 --election-timeout=500
Restart=always
RestartSec=1
TimeoutStartSec=0
[Install]
WantedBy=multi-user.target
"""
}
KUBECTL = """#!/usr/bin/python3 -I
import os, subprocess, sys

words = sys.argv[1:]
if words[0] == "--kubeconfig":
    del words[:2]
words = [word for word in words if not word.startswith("-")]
os.environ["ETCDCTL_API"] = "3"

def etcdctl(*argv):
    command = ["etcdctl", "--command-timeout=5s", *argv]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit("The connection to the server was refused: " + done.stderr)
    return done.stdout

if words[:2] == ["get", "nodes"]:
    kept = etcdctl("get", "/nodes/", "--prefix").split()
    for key, is_ready in zip(kept[::2], kept[1::2]):
        print(key.rpartition("/")[2], is_ready, sep="\\t")
elif words[0] == "lost":
    etcdctl("put", "/nodes/" + words[1], "Unknown")
elif words[0] == "register":
    etcdctl("put", "/nodes/" + words[1], "True")
elif words[:2] == ["delete", "node"]:
    if etcdctl("del", "/nodes/" + words[2]).split() == ["0"]:
        sys.exit("Error from server (NotFound): nodes not found")
elif words[0] == "drain":
    print("drained")
"""
ETCDCTL = """#!/bin/sh
# Says that one is healthy on standard output, as etcdctl does from 3.5 on; Debian's is older.
case " $* " in
*" endpoint health "*) ;;
*) exec /usr/bin/etcdctl "$@" ;;
esac
errors=$(mktemp)
/usr/bin/etcdctl "$@" 2>"$errors"
code=$?
grep "is healthy" "$errors"
grep -v "is healthy" "$errors" >&2
rm "$errors"
exit $code
"""
FILES = {
    "usr/local/bin/kubectl": File(KUBECTL, 0o755),
    "usr/local/bin/etcdctl": File(ETCDCTL, 0o755),
}


@dataclass
class KubesprayCluster:
    """Hosts of a lab as a cluster, with a checkout and an inventory in a folder of this machine."""

    lab: Lab
    folder: Path
    etcd: int = 3
    worker: int = 0
    form: str = "ini"
    deploy: LabHost | None = None  # where the checkout is; None: on this machine
    hosts: Sequence[LabHost] = field(default_factory=tuple)

    def __post_init__(self) -> None:
        self.hosts = self.hosts or self.lab.hosts
        shutil.copytree(PLAYBOOKS, self.project)

    @property
    def project(self) -> Path:
        """The folder of the checkout."""
        return self.folder / "kubespray"

    @property
    def inventory(self) -> Path:
        """The file of the inventory."""
        name = "hosts.yaml" if self.form == "yaml" else "inventory.ini"
        return self.project / "inventory" / "lab" / name

    @property
    def members(self) -> list[LabHost]:
        """The hosts that the cluster is built of."""
        return list(self.hosts[: self.etcd])

    @property
    def workers(self) -> list[LabHost]:
        """Hosts that are workers only."""
        return list(self.hosts[self.etcd : self.etcd + self.worker])

    def line(self, host: LabHost) -> str:
        """A host as a line of the inventory."""
        return " ".join([host.name, *(f"{key}={value}" for key, value in self._of(host).items())])

    def build(self) -> None:
        """Write the inventory, and make the cluster anew, with keys in it."""
        (self.project / "runs").unlink(missing_ok=True)
        self.inventory.parent.mkdir(parents=True, exist_ok=True)
        self.inventory.write_text(self._ini() if self.form == "ini" else self._yaml())
        cluster = ",".join(
            f"etcd{n}=http://{h.address}:2380" for n, h in enumerate(self.members, 1)
        )
        for host in self.hosts:
            host.power_on()
            host.run(
                "systemctl disable --now -q etcd; systemctl reset-failed; "
                "rm -rf /var/lib/etcd /etc/etcd.env /etc/kubelet"
            )
        self.put_on_deploy_host()
        for number, host in enumerate(self.members, 1):
            host.write("etc/etcd.env", _environment(f"etcd{number}", host.address, cluster), 0o600)
            host.run(
                "install -d -o etcd -g etcd -m 0700 /var/lib/etcd; systemctl enable -q --now etcd"
            )
        for host in self.members:
            wait_until(
                lambda at=host: self.is_healthy(at), f"etcd of {host.name}", within_seconds=60
            )
        nodes = "".join(
            f"put /nodes/{host.name} True\\n" for host in [*self.members, *self.workers]
        )
        self.members[0].run(
            f"{{ echo; for n in $(seq {KEYS}); do echo put key/$n value$n; done; "
            f"printf '{nodes}\\n\\n'; }} | ETCDCTL_API=3 etcdctl txn >/dev/null"
        )

    def is_healthy(self, host: LabHost) -> bool:
        """Whether a member answers a read that needs a quorum."""
        return (
            host.run(
                "ETCDCTL_API=3 etcdctl --command-timeout=2s endpoint health >/dev/null 2>&1 "
                "&& echo yes || echo no"
            ).strip()
            == "yes"
        )

    def put_on_deploy_host(self) -> None:
        """Copy the checkout and the key to the deploy host, under the same paths."""
        if self.deploy is None:
            return
        for file in (file for file in self.project.rglob("*") if file.is_file()):
            self.deploy.write(str(file).lstrip("/"), file.read_bytes())
        key = self.deploy.keys.client_key
        self.deploy.write(str(key).lstrip("/"), key.read_bytes(), 0o600)

    def text(self, path: Path) -> str:
        """A file of the checkout; empty where there is none."""
        if self.deploy is not None:
            return self.deploy.run(f"cat {path} 2>/dev/null || :")
        return path.read_text() if path.exists() else ""

    def member_names(self, host: LabHost) -> list[str]:
        """All members, as one lists them; not counted are the addresses."""
        listed = host.run("ETCDCTL_API=3 etcdctl member list -w json")
        return sorted(str(member.get("name", "")) for member in json.loads(listed)["members"])

    def keys(self, host: LabHost) -> int:
        """How many of the keys that were written are there with their values."""
        printed = host.run("ETCDCTL_API=3 etcdctl get key/ --prefix").split()
        pairs = dict(zip(printed[::2], printed[1::2], strict=True))
        return sum(pairs.get(f"key/{n}") == f"value{n}" for n in range(1, KEYS + 1))

    def nodes(self, host: LabHost) -> list[str]:
        """The nodes of the API."""
        listed = host.run("/usr/local/bin/kubectl get nodes")
        return sorted(line.split()[0] for line in listed.splitlines())

    def runs(self) -> list[str]:
        """The playbooks that were run, in order."""
        return [line.split()[1] for line in self.text(self.project / "runs").splitlines()]

    def parameters(self, **more: object) -> dict[str, object]:
        """What a recovery of it is given."""
        return {
            "project": str(self.project),
            "inventory": str(self.inventory),
            "ansible_playbook": str(ANSIBLE),
            **({"deploy_host": self.deploy.url()} if self.deploy else {}),
            **more,
        }

    def _of(self, host: LabHost) -> dict[str, str]:
        return {
            "ansible_host": host.address,
            "ip": host.address,
            "ansible_user": "root",
            "ansible_ssh_private_key_file": str(host.keys.client_key),
            "ansible_python_interpreter": "/usr/bin/python3",
        }

    def _ini(self) -> str:
        lines = ["# The hosts of the lab", *map(self.line, [*self.members, *self.workers]), ""]
        names = [host.name for host in self.members]
        for group, hosts in (
            ("kube_control_plane", names),
            ("etcd", names),
            ("kube_node", [host.name for host in self.workers]),
        ):
            lines += [f"[{group}]", f"# of {group}", *hosts, ""]
        return "\n".join(lines)

    def _yaml(self) -> str:
        lines = ["---", "# The hosts of the lab", "all:", "  hosts:"]
        for host in [*self.members, *self.workers]:
            lines += [f"    {host.name}:"]
            lines += [f"      {key}: {value}" for key, value in self._of(host).items()]
        lines += ["  children:"]
        names = [host.name for host in self.members]
        for group, hosts in (
            ("kube_control_plane", names),
            ("etcd", names),
            ("kube_node", [host.name for host in self.workers]),
        ):
            lines += [f"    {group}:  # {group}", "      hosts:", *(f"        {h}:" for h in hosts)]
        return "\n".join([*lines, ""])


def _environment(name: str, address: str, cluster: str) -> str:
    said = {
        "ETCD_NAME": name,
        "ETCD_DATA_DIR": "/var/lib/etcd",
        "ETCD_LISTEN_PEER_URLS": f"http://{address}:2380",
        "ETCD_LISTEN_CLIENT_URLS": f"http://{address}:2379,http://127.0.0.1:2379",
        "ETCD_ADVERTISE_CLIENT_URLS": f"http://{address}:2379",
        "ETCD_INITIAL_ADVERTISE_PEER_URLS": f"http://{address}:2380",
        "ETCD_INITIAL_CLUSTER": cluster,
        "ETCD_INITIAL_CLUSTER_STATE": "new",
        "ETCD_INITIAL_CLUSTER_TOKEN": "k8s_etcd",
        "ETCDCTL_ENDPOINTS": "http://127.0.0.1:2379",
    }
    return "".join(f"{key}={value}\n" for key, value in said.items())

"""Replacements of nodes of a kubeadm cluster, and what the cluster shows of itself."""

import json
from dataclasses import dataclass
from pathlib import Path

import flows.kubeadm_nodes  # noqa: F401 (declares the recoveries)
from recovery.declare import RECOVERIES, run_plainly
from recovery.journal.sqlite_store import SqliteJournal
from recovery.run import Options
from tests.lab.kubeadm_cluster import KUBECTL, members, node_of, wait_until_lost, wipe

CONTROL_PLANE = "replace-control-plane-node-kubeadm"
WORKER = "replace-worker-node-kubeadm"
ROLE = "node-role.kubernetes.io/control-plane"
LABELS = {"team": "payments", "disk": "ssd"}
TAINTS = [
    {"key": ROLE, "effect": "NoSchedule"},
    {"key": "gpu", "value": "yes", "effect": "NoExecute"},
]


def parameters(hosts, node):
    """The first hosts live; the last one is to take the place of the lost node."""
    *living, new = hosts
    return {
        "hosts": " ".join(host.url() for host in living),
        "node": node,
        "new_host": new.url(),
        "new_name": "",
        "within_seconds": 120.0,
    }


def lose(hosts, name="cp3"):
    """Lose the last host, which somebody had given labels and taints, and install it anew."""
    first, lost = hosts[0], hosts[-1]
    patch = {"metadata": {"labels": LABELS}, "spec": {"taints": TAINTS}}
    first.write("root/patch.json", json.dumps(patch))
    first.run(f"{KUBECTL} patch node {name} --type merge --patch-file /root/patch.json")
    wipe(lost)
    wait_until_lost(first, name)


def given_to(host):
    """The configuration that a host was joined with: its token and its certificate key."""
    return json.loads(host.read_file("/var/lib/lab/joined.json"))


def secrets_in(config):
    """What of such a configuration must show nowhere."""
    token = config["discovery"]["bootstrapToken"]["token"]
    return [
        token.partition(".")[2],
        *([config["controlPlane"]["certificateKey"]] if "controlPlane" in config else []),
    ]


def assert_replaced(hosts, before):
    """The node is there anew with its labels and taints, and every member of etcd votes."""
    node = node_of(hosts[0], "cp3")
    assert node is not None
    assert node["metadata"]["uid"] != before["uid"]
    assert LABELS.items() <= node["metadata"]["labels"].items()
    assert ROLE in node["metadata"]["labels"]
    assert node["spec"]["taints"] == TAINTS
    known = members(hosts[0])
    assert sorted(known) == ["cp1", "cp2", "cp3"]
    assert known["cp3"]["ID"] != before["member"]
    assert not any(one.get("isLearner") for one in known.values())
    assert not tokens_of(hosts[0])


def tokens_of(host):
    """The tokens with which others could join."""
    named = host.run(f"{KUBECTL} -n kube-system get secrets -o name").split()
    return [name for name in named if "bootstrap-token" in name]


def standing(hosts):
    """What the node and the member of the lost host are called before."""
    node = node_of(hosts[0], "cp3")
    return {"uid": node["metadata"]["uid"], "member": members(hosts[0])["cp3"]["ID"]}


@dataclass
class NodeRuns:
    """Runs of either recovery, with a journal of their own."""

    hosts: tuple
    folder: Path

    def run(self, name, node, **options):
        given = options or {"break_glass": "test"}
        return run_plainly(RECOVERIES[name], parameters(self.hosts, node), Options(**given))

    def journal_bytes(self):
        return b"".join(path.read_bytes() for path in self.folder.rglob("*") if path.is_file())

    def changes(self, ended):
        journal = SqliteJournal(self.folder / "journal.sqlite")
        try:
            return [
                event.step
                for event in journal.events(ended.recovery_id)
                if event.kind == "command" and event.body["is_change"]
            ]
        finally:
            journal.close()

"""Recoveries of controller managers and schedulers, and what their hosts show of themselves."""

import json
from dataclasses import dataclass
from pathlib import Path

import flows.leaders  # noqa: F401 (declares the recoveries)
from recovery.declare import RECOVERIES, run_plainly
from recovery.journal.sqlite_store import SqliteJournal
from recovery.run import Options
from tests.lab.processes import LabError, wait_until

MANIFESTS = "/etc/kubernetes/manifests"
PORTS = {"kube-controller-manager": 10257, "kube-scheduler": 10259}


@dataclass
class LeaderRuns:
    """Runs of the recovery of one component, with a journal of their own."""

    hosts: tuple
    folder: Path

    def run(self, name, *, within_seconds=60.0, **options):
        parameters = {
            "hosts": " ".join(host.url() for host in self.hosts),
            "within_seconds": within_seconds,
        }
        return run_plainly(RECOVERIES[name], parameters, Options(**options))

    def changes(self, ended):
        """What was sent that changes something: host and command."""
        journal = SqliteJournal(self.folder / "journal.sqlite")
        try:
            return [
                (event.body["target"], event.body["command"])
                for event in journal.events(ended.recovery_id)
                if event.kind == "command" and event.body["is_change"]
            ]
        finally:
            journal.close()


def pid_of(host, component):
    """The process of a component; none where it does not run."""
    listed = host.run(f"pgrep -f '^/usr/bin/python3 .*/{component} ' || :").split()
    return int(listed[0]) if listed else None


def freeze(host, component):
    """Have it stand still: it listens, and answers nobody."""
    host.run(f"kill -STOP {pid_of(host, component)}")


def starts(host, component):
    """How often its container was started since its manifest is the one that it is."""
    names = host.run(f"ls /var/log/pods/kube-system_{component}-*/{component}").split()
    return max(int(name.partition(".")[0]) for name in names)


def answers(host, component):
    """Whether it says that it is healthy."""
    asked = "GET /healthz HTTP/1.0\\r\\n\\r\\n"
    command = (
        f"printf '{asked}' | timeout 5 openssl s_client -quiet -connect "
        f"127.0.0.1:{PORTS[component]} 2>/dev/null | head -n 1"
    )
    return " 200 " in host.run(f"{command} || :")


def leads(host, component):
    """Who leads by the lease."""
    path = f"/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/{component}"
    command = f"KUBECONFIG=/etc/kubernetes/admin.conf lab-get {path}"
    try:
        return json.loads(host.run(command))["spec"]["holderIdentity"].partition("_")[0]
    except LabError:
        return ""


def wait_until_well(hosts, component):
    for host in hosts:
        wait_until(
            lambda host=host: answers(host, component),
            f"{component} of {host.name}",
            within_seconds=60,
        )

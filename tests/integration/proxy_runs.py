"""Restarts of nginx-proxy, and what its hosts show of themselves."""

from dataclasses import dataclass
from pathlib import Path

import flows.api_proxy  # noqa: F401 (declares the recovery)
from recovery.declare import RECOVERIES, run_plainly
from recovery.journal.sqlite_store import SqliteJournal
from recovery.run import Options
from tests.lab.api_proxy import PORT
from tests.lab.processes import wait_until

NAME = "restart-nginx-proxy"


@dataclass
class ProxyRuns:
    """Runs of the recovery, with a journal of their own."""

    hosts: tuple
    folder: Path

    def parameters(self, **changes):
        own = {
            "hosts": " ".join(host.url() for host in self.hosts),
            "within_seconds": 60.0,
        }
        defaults = {key: default for key, (_, default) in RECOVERIES[NAME].parameters.items()}
        return {**defaults, **own, **changes}

    def run(self, **changes):
        return run_plainly(RECOVERIES[NAME], self.parameters(**changes), Options())

    def changed_on(self, ended):
        """The hosts to which something was sent that changes them, in order."""
        journal = SqliteJournal(self.folder / "journal.sqlite")
        try:
            return [
                event.body["target"]
                for event in journal.events(ended.recovery_id)
                if event.kind == "command" and event.body["is_change"]
            ]
        finally:
            journal.close()


def pid_of(host):
    """The process of the proxy; none where it does not run."""
    listed = host.run("pgrep -f 'images/ngin[x] ' || :").split()
    return int(listed[0]) if listed else None


def serves(host):
    """Whether the API answers through the proxy."""
    command = (
        r"printf 'GET /livez HTTP/1.0\r\n\r\n' | timeout 5 openssl s_client -quiet -connect "
        f"127.0.0.1:{PORT} 2>/dev/null | head -n 1"
    )
    return " 200 " in host.run(f"{command} || :")


def starts(host):
    """How often its container was started."""
    names = host.run("ls /var/log/pods/kube-system_nginx-proxy-*/nginx-proxy").split()
    return max(int(name.partition(".")[0]) for name in names)


def wait_until_serving(hosts):
    for host in hosts:
        wait_until(lambda host=host: serves(host), f"nginx-proxy of {host.name}", within_seconds=60)

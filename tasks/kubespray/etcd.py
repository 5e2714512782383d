"""What is so in etcd, asked at the hosts that live: members, health, versions, certificates."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from blocks.ssh.host import SshHost
from recovery.errors import BadInput, CommandFailed, UnreadableOutput
from recovery.secrecy.redaction import redacted_tail

ENVIRONMENT = "/etc/etcd.env"  # where kubespray keeps how to reach etcd on a host
WITHIN_SECONDS = 60.0
VERSION = re.compile(r"etcdctl version: (\d+)\.(\d+)\.(\d+)")
SECTION = "recover-section "
NO_RESTORE_FROM = (3, 6)  # etcdctl has no `snapshot restore` any more
# Values are taken as they stand, without a shell that would read them. Each command is bounded: an
# endpoint that takes connections and does not answer holds etcdctl for ever.
ETCDCTL = f"""set -u
[ -r {ENVIRONMENT} ] || {{ echo "no {ENVIRONMENT}" >&2; exit 3; }}
export ETCDCTL_API=3
PATH=/usr/local/bin:$PATH
while IFS= read -r line; do
  case $line in ETCDCTL_*=*) export "${{line?}}" ;; esac
done <{ENVIRONMENT}
"""
LOOK = f"""{ETCDCTL}
ask() {{
  echo "{SECTION}$1"
  shift
  timeout 20 "$@" 2>/dev/null || :
}}
ask version etcdctl version
ask health sh -c 'etcdctl --command-timeout=5s endpoint health >&2 && echo yes'
ask told sh -c 'etcdctl --command-timeout=5s endpoint health'
ask cluster sh -c 'etcdctl --command-timeout=5s endpoint health --cluster >&2 && echo yes'
ask members etcdctl --command-timeout=5s member list -w json
ask status etcdctl --command-timeout=5s endpoint status -w json
ask certificates sh -c 'ls "$(dirname "${{ETCDCTL_CERT:-/nowhere/x}}")"'
"""


@dataclass(frozen=True)
class Member:
    """A member as the others know it. `name` is empty before it ever started."""

    name: str
    id: str
    peer: str


@dataclass(frozen=True)
class Asked:
    """What a host that lives said of its etcd.

    Attributes:
        host: its name in the inventory.
        is_healthy: it answers a read that needs a quorum.
        are_all_healthy: every member does, asked from there.
        tells_on_stdout: its etcdctl says that one is healthy where the role looks for it; up to 3.4
            it says so among the errors.
        revision: of what it holds; -1 where it did not say.
        members: all members, where it could list them.
        version: of etcdctl there, as `3.5.9`; empty where it is not there.
        certificates: names of files beside its own certificate.
        has_leader: its member follows a leader, whatever its health says: while an alarm is raised
            (no space, corrupt), none counts as healthy.
        cluster: the id of the cluster that it is of; another one once a snapshot was restored.
    """

    host: str
    is_healthy: bool = False
    revision: int = -1
    members: tuple[Member, ...] = ()
    version: str = ""
    certificates: tuple[str, ...] = ()
    are_all_healthy: bool = False
    tells_on_stdout: bool = True
    has_leader: bool = False
    cluster: str = ""

    @property
    def can_restore(self) -> bool:
        """Whether its etcdctl still restores snapshots, as the role has it do."""
        numbers = tuple(int(part) for part in self.version.split(".")[:2]) if self.version else ()
        return bool(numbers) and numbers < NO_RESTORE_FROM


@dataclass(frozen=True)
class Etcd:
    """The etcd of the cluster, by the hosts that were asked."""

    asked: tuple[Asked, ...]

    @property
    def members(self) -> tuple[Member, ...]:
        """All members, as the healthiest host lists them; empty where none could."""
        best = sorted(self.asked, key=lambda one: (one.is_healthy, one.revision), reverse=True)
        return next((one.members for one in best if one.members), ())

    @property
    def has_quorum(self) -> bool:
        """Whether a majority of the members decides: one of them has read with it."""
        return any(one.is_healthy for one in self.asked)

    @property
    def healthy(self) -> tuple[str, ...]:
        """Hosts whose member is healthy."""
        return tuple(one.host for one in self.asked if one.is_healthy)

    def of(self, host: str) -> Asked | None:
        """What a host said."""
        return next((one for one in self.asked if one.host == host), None)

    def __str__(self) -> str:
        """What matters of it."""
        names = " ".join(member.name or "(unnamed)" for member in self.members) or "not listed"
        quorum = "has quorum" if self.has_quorum else "has no quorum"
        healthy = " ".join(self.healthy) or "none"
        return f"etcd {quorum}; members {names}; healthy of those asked: {healthy}"


def ask(host: SshHost, name: str) -> Asked:
    """Ask a host that lives about its etcd.

    Raises:
        BadInput: kubespray has put no etcd there.
        UnreadableOutput: a tool printed something else.
        Unreachable: no answer from the host.
    """
    try:
        answer = host.read(["sh", "-c", LOOK], within_seconds=WITHIN_SECONDS * 2, as_root=True)
    except CommandFailed as error:
        raise BadInput(
            "hosts",
            f"{name} has no {ENVIRONMENT}: {redacted_tail(error.tail.strip(), 200)}",
            "Name hosts on which kubespray runs etcd as a service (etcd_deployment_type: host); "
            "etcd as a static pod is left to the recoveries of kubeadm clusters",
        ) from error
    return parse_asked(name, answer.whole())


def parse_asked(host: str, printed: str) -> Asked:
    """Read the sections that LOOK prints.

        recover-section version
        etcdctl version: 3.5.9
        recover-section health
        yes
        recover-section members
        {"header":{…},"members":[{"ID":9372538179322589801,"name":"etcd1","peerURLs":["https://…"]}]}
        recover-section status
        [{"Endpoint":"https://127.0.0.1:2379","Status":{"header":{"revision":7,…},…}}]

    Raises:
        UnreadableOutput: a section is something else.
    """
    said: dict[str, str] = {}
    for part in printed.split(SECTION)[1:]:
        title, _, text = part.partition("\n")
        said[title.strip()] = text.strip()
    version = VERSION.search(said.get("version", ""))
    try:
        members = json.loads(said["members"])["members"] if said.get("members") else []
        status = json.loads(said["status"]) if said.get("status") else []
        return Asked(
            host,
            said.get("health") == "yes",
            int(status[0]["Status"]["header"]["revision"]) if status else -1,
            tuple(
                Member(
                    str(member.get("name", "")),
                    f"{int(member['ID']):x}",
                    str((member.get("peerURLs") or [""])[0]),
                )
                for member in members
            ),
            ".".join(version.groups()) if version else "",
            tuple(said.get("certificates", "").split()),
            said.get("cluster") == "yes",
            "is healthy" in said.get("told", "") or said.get("health") != "yes",
            bool(status) and int(status[0]["Status"].get("leader", 0)) != 0,
            f"{int(status[0]['Status']['header'].get('cluster_id', 0)):x}" if status else "",
        )
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise UnreadableOutput("etcdctl", printed) from error


def address_of(url: str) -> str:
    """The address in a URL of a member: `https://10.0.0.1:2380`."""
    return re.sub(r"^https?://", "", url).rpartition(":")[0].strip("[]")


def best_first(asked: Sequence[Asked]) -> list[str]:
    """Hosts by what they hold: the one to go on from comes first, of equals in the given order."""
    return [one.host for one in sorted(asked, key=lambda one: -one.revision)]

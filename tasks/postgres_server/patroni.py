"""Patroni on a host: whether it supervises a cluster, what it says of its members."""

import json
import posixpath
import re
from collections.abc import Sequence
from dataclasses import dataclass

from blocks.ssh.host import SshHost
from recovery.errors import UnreadableOutput
from tasks.postgres_server.clusters import NOT_FOUND, Cluster

CONFIG = re.compile(r"/\S+\.ya?ml")
PROGRAM = re.compile(r"(^|/)patroni(\s|$)")
FOLDERS = ("/etc/patroni", "/etc/patroni.yml", "/etc/patroni.yaml", "/opt/app/patroni/etc")
PAUSED = "Maintenance mode: on"
LEADERS = ("Leader", "Standby Leader")
WITHIN_SECONDS = 60


@dataclass(frozen=True)
class Patroni:
    """The supervisor of a cluster.

    Attributes:
        config: its configuration file, which holds passwords and is never read as a whole.
        scope: the name of the cluster in Patroni's words.
        name: the name of this member.
        unit: the unit that runs it; empty where none is known.
        is_running: whether its process is there.
    """

    config: str
    scope: str
    name: str
    unit: str
    is_running: bool

    def argv(self, *words: str) -> list[str]:
        """A command of `patronictl`."""
        return ["patronictl", "-c", self.config, *words]

    @property
    def restart_argv(self) -> list[str]:
        """What restarts the server of this member, without asking back."""
        return self.argv("restart", "--force", self.scope, self.name)


@dataclass(frozen=True)
class Member:
    """A member as `patronictl list` has it."""

    name: str
    host: str
    role: str
    state: str

    @property
    def is_leader(self) -> bool:
        """Whether it is the one that takes writes."""
        return self.role in LEADERS

    def __str__(self) -> str:
        """In one line."""
        return f"{self.name} ({self.host}) {self.role}, {self.state}"


@dataclass(frozen=True)
class Members:
    """What `patronictl list` says. `refusal` is why it says nothing; empty where it does."""

    members: tuple[Member, ...]
    is_paused: bool
    refusal: str
    has_program: bool = True

    @property
    def leader(self) -> Member | None:
        """The member that takes writes, where there is one."""
        return next((member for member in self.members if member.is_leader), None)

    def is_led_by_another(self, patroni: Patroni) -> bool:
        """Whether another member than this one leads; one that is to lead may not be promoted."""
        return self.leader is not None and self.leader.name != patroni.name

    def named(self, name: str) -> Member | None:
        """The member of this name, where there is one."""
        return next((member for member in self.members if member.name == name), None)


def patroni_of(host: SshHost, cluster: Cluster) -> Patroni | None:
    """The supervisor of the cluster; `None` where nothing says that there is one.

    A configuration file counts that names the data folder of the cluster, and a process whose
    configuration it is. An installed package alone does not.

    Raises:
        Unreachable: the host gave no answer.
    """
    running = _running_config(host)
    found = host.read(
        [
            "grep",
            "-rlF",
            "--include=*.yml",
            "--include=*.yaml",
            "--",
            cluster.data_folder,
            *FOLDERS,
        ],
        accept=(0, 1, 2),
        as_root=True,
    ).stdout.split()
    candidates = [*([running] if running else []), *found]
    config = next((one for one in candidates if one in found), running)
    if not config:
        return None
    told = host.read(["grep", "-hE", "^(scope|name):", "--", config], accept=(0, 1), as_root=True)
    said = dict(parse_names(told.whole()))
    return Patroni(
        config,
        said.get("scope", ""),
        said.get("name", ""),
        _unit_of(host, config),
        is_running=running == config,
    )


def parse_names(printed: str) -> list[tuple[str, str]]:
    """Read the lines `scope: …` and `name: …` of a configuration, and no other."""
    found = re.findall(
        r"^(scope|name):\s*[\"']?([^\"'#\n]+?)[\"']?\s*(?:#.*)?$", printed, re.MULTILINE
    )
    return [(str(key), str(value).strip()) for key, value in found]


def parse_list(printed: str) -> tuple[Member, ...]:
    """Read what `patronictl list -f json` prints (Patroni 1.6 to 4.0).

        [{"Cluster": "registry", "Member": "h1", "Host": "10.0.0.1", "Role": "Leader",
          "State": "running", "TL": 1}]

    Raises:
        UnreadableOutput: it is no such list.
    """
    try:
        rows = json.loads(printed)
        return tuple(
            Member(
                str(row["Member"]),
                str(row.get("Host", "")),
                str(row.get("Role", "")),
                str(row.get("State", "")),
            )
            for row in rows
        )
    except (ValueError, TypeError, KeyError) as error:
        raise UnreadableOutput("patronictl list -f json", printed) from error


def members_of(host: SshHost, patroni: Patroni) -> Members:
    """What Patroni says of the members, through the store it keeps that in.

    Raises:
        UnreadableOutput: patronictl printed something else than it does.
        Unreachable: the host gave no answer.
    """
    accept = (0, 1, 2, 124, NOT_FOUND)
    limit = ["timeout", str(WITHIN_SECONDS // 2)]
    listed = host.read(
        [*limit, *patroni.argv("list", "-f", "json")],
        accept=accept,
        as_root=True,
        within_seconds=WITHIN_SECONDS,
    )
    if listed.exit_code == NOT_FOUND:
        return Members((), is_paused=False, refusal="", has_program=False)
    if listed.exit_code != 0:
        told = (listed.stderr + listed.stdout).strip().splitlines() or ["it gave no answer in time"]
        return Members((), is_paused=False, refusal=told[-1])
    members = parse_list(listed.whole())
    shown = host.read(
        [*limit, *patroni.argv("list")], accept=accept, as_root=True, within_seconds=WITHIN_SECONDS
    )
    return Members(members, PAUSED in shown.stdout, refusal="" if members else "it lists nobody")


def _running_config(host: SshHost) -> str:
    printed = host.read(["ps", "-eo", "args=", "-ww"], within_seconds=30).whole()
    for line in printed.splitlines():
        if PROGRAM.search(line) and (found := CONFIG.search(line)):
            return found[0]
    return ""


def _unit_of(host: SshHost, config: str) -> str:
    """The unit that runs Patroni with this configuration: an instance of a template, or plain."""
    argv = ["systemctl", "list-units", "--all", "--plain", "--no-legend", "--no-pager"]
    listed = host.read([*argv, "--type=service", "patroni*"], accept=(0, 1)).whole()
    files = host.read(
        ["systemctl", "list-unit-files", "--no-legend", "--no-pager", "patroni*"], accept=(0, 1)
    ).whole()
    names = [line.split()[0] for line in (listed + files).splitlines() if line.strip()]
    return choose_unit(names, config)


def choose_unit(names: Sequence[str], config: str) -> str:
    """The instance named after the configuration, else the plain unit; empty where neither is."""
    stem = posixpath.splitext(posixpath.basename(config))[0]
    if any(name.startswith("patroni@") for name in names) and stem != "config":
        return f"patroni@{stem}.service"
    plain = [name for name in names if "@" not in name and name.endswith(".service")]
    return plain[0] if plain else ""

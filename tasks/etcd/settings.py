"""How a member of etcd is set up: put together of its flags and its environment, also while down.

Those of a unit are read here, from systemd and its environment files.

etcd takes a flag of its command line over its environment, and nothing of either once it has data,
but for addresses and certificates. No content of a file is read here but lines of etcd's own names.
"""

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace

from blocks.ssh.host import SshHost
from recovery.errors import Refused, UnreadableOutput
from tasks.services import UnitState, UnitStatus, parse_unit

WITHIN_SECONDS = 20.0
SHOW = (
    "Id,LoadState,ActiveState,SubState,UnitFileState,Result,MainPID,NRestarts,"
    "Environment,EnvironmentFiles,ExecStart"
)
ENVIRONMENT_FILE = re.compile(r"(?P<path>/.*) \(ignore_errors=(?:yes|no)\)")
PROGRAM = re.compile(r"^ExecStart=\{ path=(?P<path>\S+) ;", re.MULTILINE)
ARGUMENTS = re.compile(r"argv\[\]=(?P<argv>.*?) ;")
# Passwords and tokens that somebody keeps beside them stay where they are.
LINES = (
    'for file in "$@"; do [ ! -r "$file" ] || { echo "file $file"; '
    "grep -E '^[[:space:]]*(export )?(ETCD_|ETCDCTL_|DAEMON_ARGS)[A-Z_]*=' \"$file\" | "
    "grep -vE '^[^=]*(PASSWORD|TOKEN|SECRET|_USER)[A-Z_]*='; }; done; :"
)
BY_DEFAULT = {
    "ETCD_NAME": "default",
    "ETCD_INITIAL_ADVERTISE_PEER_URLS": "http://localhost:2380",
    "ETCD_ADVERTISE_CLIENT_URLS": "http://localhost:2379",
}
FORCE = "force-new-cluster"  # each start with it drops the other members again
DEFAULT_PEER_URL = BY_DEFAULT["ETCD_INITIAL_ADVERTISE_PEER_URLS"]


@dataclass(frozen=True)
class Settings:
    """What a member is started with.

    Attributes:
        name: its name in the cluster.
        data: its data directory; what counts is in `member` below it.
        peer_url: where the others reach it.
        client_url: where clients reach it, also those on its own host.
        authority: file of the CA of its clients' port; empty without TLS.
        certificate: file by which etcdctl shows who it is.
        key: its key.
        peers: the peer addresses of its initial cluster, by name.
        file: the environment file that is read last, where what it says counts; or its manifest.
        flags: names of the flags on its command line.
        program: path of etcd.
        is_forced: whether each start makes a new cluster of it alone (`--force-new-cluster`).
        is_static_pod: whether the kubelet runs it.
        obstacle: why it could not be stopped or told of another cluster; mostly empty.
        remedy: what to do about that.
    """

    name: str = ""
    data: str = ""
    peer_url: str = ""
    client_url: str = ""
    authority: str = ""
    certificate: str = ""
    key: str = ""
    peers: tuple[tuple[str, str], ...] = ()
    file: str = ""
    flags: tuple[str, ...] = ()
    program: str = "etcd"
    is_forced: bool = False
    is_static_pod: bool = False
    obstacle: str = ""
    remedy: str = ""


@dataclass(frozen=True)
class Found:
    """A member as its host runs it, before it is asked anything.

    Attributes:
        told: what runs it and how that is, for people.
        is_running: whether its process is there.
        is_starting: whether it is known to serve nobody yet.
        settings: what it is started with.
    """

    told: str
    is_running: bool
    is_starting: bool
    settings: Settings


def unit_and_settings(host: SshHost, unit: str) -> tuple[UnitStatus, Settings]:
    """The state of the unit, and what it is started with; empty where there is no such unit.

    Raises:
        Unreachable: the host gave no answer.
        CommandFailed: it has no systemd.
        UnreadableOutput: what systemd printed is not understood.
        Refused: the unit has a configuration file, or keeps its log apart from its data.
    """
    argv = ["systemctl", "show", "--no-pager", "-p", SHOW, "--", unit]
    printed = host.read(argv, within_seconds=WITHIN_SECONDS).whole()
    status = parse_unit(unit, printed)
    if status.state is UnitState.NOT_FOUND:
        return status, Settings()
    files = environment_files(printed)
    lines = host.read(
        ["sh", "-c", LINES, "lines", *files], within_seconds=WITHIN_SECONDS, as_root=True
    ).whole()
    return status, settings_of(host.target, printed, lines)


def environment_files(printed: str) -> list[str]:
    """Read which environment files `systemctl show` names, in their order.

    EnvironmentFiles=/etc/default/etcd (ignore_errors=yes)
    """
    given = [line.partition("=")[2] for line in _lines_of(printed, "EnvironmentFiles")]
    return [found["path"] for text in given if (found := ENVIRONMENT_FILE.fullmatch(text))]


def settings_of(target: str, printed: str, lines: str) -> Settings:
    """Put together what a unit is started with.

    Args:
        target: the host, for messages.
        printed: what `systemctl show` printed.
        lines: the lines of its environment files, each file after a line `file PATH`.

    Raises:
        UnreadableOutput: a line is not understood.
        Refused: it is set up in a way that is not known here.
    """
    try:
        values, file = _environment(printed, lines)
        flags = _flags(printed, values)
    except ValueError as error:
        raise UnreadableOutput("systemctl show and the environment files", printed) from error
    found = settings_from(target, flags, values)
    return replace(found, file=file, program=program_of(printed))


def settings_from(target: str, flags: Mapping[str, str], values: Mapping[str, str]) -> Settings:
    """Put together what a member is started with.

    Args:
        target: the host, for messages.
        flags: of its command line, which count before all else.
        values: of its environment, by etcd's own names.

    Raises:
        Refused: it is set up in a way that is not known here.
    """
    if "config-file" in flags or values.get("ETCD_CONFIG_FILE"):
        raise Refused(
            target,
            "its etcd reads a configuration file, and then nothing else",
            "Write the same settings into an environment file of the unit, as ETCD_NAME=…, or "
            "into the manifest as flags",
        )
    if flags.get("wal-dir") or values.get("ETCD_WAL_DIR"):
        raise Refused(
            target,
            "its etcd keeps its log in a directory apart from its data (wal-dir)",
            "Recover it by hand, as the steps of docs/runbooks/etcd.md say",
        )

    def said(name: str) -> str:
        flag = name.removeprefix("ETCD_").lower().replace("_", "-")
        return flags.get(flag) or values.get(name, "") or BY_DEFAULT.get(name, "")

    name = said("ETCD_NAME")
    client_url = _first(said("ETCD_ADVERTISE_CLIENT_URLS"))
    has_tls = client_url.startswith("https:")
    authority = values.get("ETCDCTL_CACERT") or values.get("ETCDCTL_CA_FILE") or ""
    certificate = values.get("ETCDCTL_CERT") or values.get("ETCDCTL_CERT_FILE") or ""
    key = values.get("ETCDCTL_KEY") or values.get("ETCDCTL_KEY_FILE") or ""
    return Settings(
        name,
        said("ETCD_DATA_DIR") or f"/{name}.etcd",
        _first(said("ETCD_INITIAL_ADVERTISE_PEER_URLS")),
        client_url,
        (authority or said("ETCD_TRUSTED_CA_FILE")) if has_tls else "",
        (certificate or said("ETCD_CERT_FILE")) if has_tls else "",
        (key or said("ETCD_KEY_FILE")) if has_tls else "",
        tuple(_peers(said("ETCD_INITIAL_CLUSTER"))),
        flags=tuple(flags),
        is_forced=_is_on(flags.get(FORCE, values.get("ETCD_FORCE_NEW_CLUSTER", "false"))),
    )


def _is_on(value: str) -> bool:
    """Whether a switch of etcd is on, as Go reads it; one without a value is."""
    return value.lower() not in {"false", "f", "0"}


def _environment(printed: str, lines: str) -> tuple[dict[str, str], str]:
    values: dict[str, str] = {}
    for text in _lines_of(printed, "Environment"):
        for word in shlex.split(text.partition("=")[2]):
            name, _, value = word.partition("=")
            values[name] = value
    file = ""
    for line in lines.splitlines():
        if line.startswith("file "):
            file = line.removeprefix("file ")
            continue
        name, _, value = line.strip().removeprefix("export ").partition("=")
        values[name] = " ".join(shlex.split(value))
    return values, file


def program_of(printed: str) -> str:
    """Read which program a unit runs.

    ExecStart={ path=/usr/bin/etcd ; argv[]=/usr/bin/etcd $DAEMON_ARGS ; ignore_errors=no ; … }
    """
    found = PROGRAM.search(printed)
    return found["path"] if found else "etcd"


def _flags(printed: str, values: dict[str, str]) -> dict[str, str]:
    flags: dict[str, str] = {}
    for text in _lines_of(printed, "ExecStart"):
        found = ARGUMENTS.search(text)
        words: list[str] = []
        for word in (found["argv"] if found else "").split():
            bare = word.strip("${}")
            words += shlex.split(values.get(bare, "")) if word.startswith("$") else [word]
        for at, word in enumerate(words):
            if word.startswith("-"):
                name, mark, value = word.lstrip("-").partition("=")
                following = words[at + 1] if at + 1 < len(words) else ""
                flags[name] = value if mark or following.startswith("-") else following
    return flags


def _lines_of(printed: str, name: str) -> list[str]:
    return [line for line in printed.splitlines() if line.startswith(f"{name}=")]


def _first(urls: str) -> str:
    return urls.split(",", maxsplit=1)[0].strip().rstrip("/")


def _peers(initial_cluster: str) -> list[tuple[str, str]]:
    pairs = [pair.partition("=") for pair in initial_cluster.split(",") if "=" in pair]
    return [(name.strip(), url.strip().rstrip("/")) for name, _, url in pairs]


def refuse_one_address_of_two(target: str, by_host: Mapping[str, Settings]) -> None:
    """Refuse members of a cluster that would be listed at one peer address.

    One that is told of none is at that of its own host, where nobody else reaches it.

    Raises:
        Refused: two are at one address; or one is not told of any, and there are others.
    """
    untold = [host for host, said in by_host.items() if said.peer_url == DEFAULT_PEER_URL]
    if untold and len(by_host) > 1:
        raise Refused(
            target,
            f"ETCD_INITIAL_ADVERTISE_PEER_URLS is not set on {', '.join(untold)}: etcd would be "
            f"listed at {DEFAULT_PEER_URL}, and no other member reaches it there",
            "Set it in the environment file of the unit there; or leave a host that is to be no "
            "member out of hosts",
        )
    at: dict[str, str] = {}
    for host, said in by_host.items():
        other = at.setdefault(said.peer_url, host)
        if other != host:
            raise Refused(
                target,
                f"{other} and {host} are set up with one peer address, {said.peer_url}",
                "Give each its own in ETCD_INITIAL_ADVERTISE_PEER_URLS",
            )

"""Which PostgreSQL clusters a host has: found by data folder and port, never by a unit's name."""

import posixpath
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from blocks.ssh.host import SshHost
from recovery.errors import Refused, UnreadableOutput

NOT_FOUND = 127  # the shell has no such program
UNITS = ("postgres*", "pgsql*")
SHOWN = "Id,LoadState,Environment,ExecStart,User"
SERVERS = ("postgres", "postmaster", "pg_ctl")
NO_OWNERS = ("root", "<unknown>")  # of a folder that belongs to the wrong account, or is not there
PATRONI_FILES = ("/etc/patroni", "/etc/patroni.yml", "/etc/patroni.yaml")
PATRONI_UNIT = "patroni.service"


@dataclass(frozen=True)
class Cluster:
    """One data folder, the port of its server and the unit that runs it.

    Attributes:
        unit: the systemd unit that would start it.
        log: its log file; empty where the log is in the journal of the unit or not known.
        binaries: the folder of `postgres` and `pg_controldata` of its version.
        config: its configuration file; empty where it lies in the data folder.
    """

    unit: str
    port: int
    data_folder: str
    owner: str
    log: str
    binaries: str
    config: str = ""

    def __str__(self) -> str:
        """As an operator would tell it from others."""
        return f"{self.unit} on port {self.port}, data in {self.data_folder}"


def parse_lsclusters(printed: str) -> list[Cluster]:
    """Read what `pg_lsclusters -h` prints (postgresql-common 140 to 280).

        15  main    5432 online,recovery postgres /var/lib/postgresql/15/main /var/log/…-15-main.log

    Raises:
        UnreadableOutput: a line has not seven fields, or no number for its port.
    """
    found = []
    for line in printed.splitlines():
        fields = line.split()
        if not fields:
            continue
        try:
            version, name, port, _, owner, folder, *log = fields
            found.append(
                Cluster(
                    unit=f"postgresql@{version}-{name}.service",
                    port=int(port),
                    data_folder=folder,
                    owner=owner if owner not in NO_OWNERS else "postgres",
                    log=log[0] if log and log[0].startswith("/") else "",
                    binaries=f"/usr/lib/postgresql/{version}/bin",
                    config=f"/etc/postgresql/{version}/{name}/postgresql.conf",
                )
            )
        except ValueError as error:
            raise UnreadableOutput("pg_lsclusters -h", printed) from error
    return found


@dataclass(frozen=True)
class ServiceUnit:
    """A unit that runs a server of its own: where its program and its data lie."""

    unit: str
    binaries: str
    data_folder: str


def parse_units(printed: str) -> list[ServiceUnit]:
    """Read what `systemctl show -p Id,LoadState,Environment,ExecStart,User` prints of some units.

    One block a unit, parted by an empty line. Left out are units that run no server: the umbrella
    of Debian (`/bin/true`) and the instances that `pg_lsclusters` knows better.

        Id=postgresql-15.service
        LoadState=loaded
        Environment=PGDATA=/var/lib/pgsql/15/data/ PG_OOM_ADJUST_FILE=/proc/self/oom_score_adj
        ExecStart={ path=/usr/pgsql-15/bin/postgres ; argv[]=/usr/pgsql-15/bin/postgres -D ${PGDATA} ; … }
    """  # noqa: E501 (as it is printed)
    found = []
    for block in printed.strip().split("\n\n"):
        said = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        path = re.search(r"path=(\S+)", said.get("ExecStart", ""))
        if path is None or posixpath.basename(path[1]) not in SERVERS:
            continue
        argv = re.search(r"argv\[\]=(.*?) ;", said["ExecStart"])
        words = argv[1].split() if argv else []
        environment = dict(
            pair.split("=", 1) for pair in shlex.split(said.get("Environment", "")) if "=" in pair
        )
        folder = environment.get("PGDATA", "")
        if "-D" in words[:-1]:
            given = words[words.index("-D") + 1]
            folder = folder if "PGDATA" in given else given
        if folder:
            found.append(
                ServiceUnit(said["Id"], posixpath.dirname(path[1]), posixpath.normpath(folder))
            )
    return found


def clusters_on(host: SshHost) -> list[Cluster]:
    """Every cluster that the host could run.

    Raises:
        UnreadableOutput: a tool printed something else than it does.
        Unreachable: the host gave no answer.
    """
    listed = host.read(["pg_lsclusters", "-h"], accept=(0, NOT_FOUND), within_seconds=30)
    found = [] if listed.exit_code == NOT_FOUND else parse_lsclusters(listed.whole())
    units = host.read(
        ["systemctl", "list-unit-files", "--no-legend", "--no-pager", "--type=service", *UNITS],
        accept=(0, 1),
        within_seconds=30,
    ).whole()
    names = [line.split()[0] for line in units.splitlines() if line.strip()]
    plain = [name for name in names if not name.endswith("@.service")]
    if plain:
        argv = ["systemctl", "show", "--no-pager", "-p", SHOWN, "--", *plain]
        known = {cluster.data_folder for cluster in found}
        for unit in parse_units(host.read(argv, within_seconds=30).whole()):
            if unit.data_folder not in known:
                found.append(_cluster_of(host, unit))
    known = {cluster.data_folder for cluster in found}
    found += [
        _cluster_of(host, unit) for unit in _units_of_patroni(host) if unit.data_folder not in known
    ]
    return found


def _units_of_patroni(host: SshHost) -> list[ServiceUnit]:
    """What only the configuration of Patroni knows; the lines asked for hold no password."""
    argv = ["grep", "-rhE", "--include=*.yml", "--include=*.yaml"]
    argv += [r"^\s+(data_dir|bin_dir):", "--", *PATRONI_FILES]
    printed = host.read(argv, accept=(0, 1, 2), as_root=True).whole()
    folders = dict(
        re.findall(r"^\s+(data_dir|bin_dir):\s*[\"']?([^\"'\s#]+)", printed, re.MULTILINE)
    )
    if "data_dir" not in folders:
        return []
    return [ServiceUnit(PATRONI_UNIT, folders.get("bin_dir", ""), folders["data_dir"])]


def _cluster_of(host: SshHost, unit: ServiceUnit) -> Cluster:
    """What the unit does not say, its data folder does."""
    folder = unit.data_folder
    stat = host.read(["stat", "-c", "%U", "--", folder], accept=(0, 1), as_root=True)
    owner = stat.stdout.strip() or "postgres"
    owner = owner if owner not in NO_OWNERS else "postgres"
    asked = [posixpath.join(unit.binaries, "postgres"), "-C", "port", "-D", folder]
    printed = host.read(as_owner(owner, asked), accept=(0, 1, 2, NOT_FOUND), as_root=True)
    port = printed.stdout.strip()
    current = host.read(["cat", "--", f"{folder}/current_logfiles"], accept=(0, 1), as_root=True)
    log = current.stdout.split()[1] if len(current.stdout.split()) > 1 else ""
    return Cluster(
        unit=unit.unit,
        port=int(port) if port.isdigit() else 5432,
        data_folder=folder,
        owner=owner,
        log=posixpath.join(folder, log) if log else "",
        binaries=unit.binaries,
    )


def as_owner(owner: str, argv: Sequence[str]) -> list[str]:
    """A command as the account of the server runs it, from a login that is root.

    In a folder that this account may enter: the home of root is none, and programs complain.
    """
    return ["runuser", "-u", owner, "--", "sh", "-c", 'cd / && exec "$@"', "sh", *argv]


def choose(host: SshHost, found: Sequence[Cluster], port: int, unit: str = "") -> Cluster:
    """The cluster that is meant: by its unit where one is named, else by its port.

    A host with one cluster has that one, whatever the port: a proxy may listen on another. Of two
    on one port, the one of Patroni is meant: the other is what the package once made.

    Raises:
        Refused: there is none, or it is not clear which.
    """
    meant = [one for one in found if unit.removesuffix(".service") == one.unit[:-8]]
    if unit and not meant:
        raise Refused(
            host.target,
            f"it has no cluster that {unit} runs",
            _told(found) + ": give the unit of one of these",
        )
    meant = meant or [one for one in found if one.port == port] or list(found)
    if len(meant) > 1 and len({one.port for one in meant}) == 1:
        meant = [one for one in meant if one.unit == PATRONI_UNIT] or meant
    if len(meant) != 1:
        raise Refused(
            host.target,
            f"it is not clear which cluster is on port {port}" if found else "it has no cluster",
            _told(found) + ": give unit=NAME",
        )
    return meant[0]


def _told(found: Sequence[Cluster]) -> str:
    return "; ".join(map(str, found)) or "neither pg_lsclusters nor a unit with PGDATA shows one"


def cluster_on_port(host: SshHost, port: int, unit: str = "") -> Cluster:
    """The cluster of the host that is meant; errors are those of `clusters_on` and `choose`."""
    return choose(host, clusters_on(host), port, unit)

"""What kubeadm is called with, in each of its releases, and what it prints."""

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime

from recovery.errors import UnreadableOutput
from tasks.certificates.reading import Presence

Minor = tuple[int, int]
OLDEST: Minor = (1, 15)
CERTS_SINCE: Minor = (1, 20)  # before, `kubeadm alpha certs`
KUBECONFIG_SINCE: Minor = (1, 21)  # before, `kubeadm alpha kubeconfig`
JSON_SINCE: Minor = (1, 30)
SUPER_ADMIN_SINCE: Minor = (1, 29)
CONFIG_VERSIONS: dict[Minor, str] = {
    (1, 15): "kubeadm.k8s.io/v1beta2",
    (1, 22): "kubeadm.k8s.io/v1beta3",
    (1, 31): "kubeadm.k8s.io/v1beta4",
}
VERSION = re.compile(r"v?(\d+)\.(\d+)\.\d+\S*")
MISSING = "!MISSING!"
LINE = re.compile(
    r"(?P<name>\S+)\s+(?P<date>[A-Z][a-z]{2} \d{2}, \d{4} \d{2}:\d{2} UTC)\s+\S+\s+"
    r"(?:(?P<ca>\S*ca)\s+)?(?P<external>yes|no|true|false)"
)
EXTERNAL_LINE = re.compile(r"Detected external (\S+), (.*) can't be renewed")
LONG_NAMES = {
    "certificate embedded in the kubeconfig file for the admin to use and for kubeadm itself": (
        "admin.conf"
    ),
    "certificate for serving the Kubernetes API": "apiserver",
    "certificate the apiserver uses to access etcd": "apiserver-etcd-client",
    "certificate for the API server to connect to kubelet": "apiserver-kubelet-client",
    "certificate embedded in the kubeconfig file for the controller manager to use": (
        "controller-manager.conf"
    ),
    "certificate for liveness probes to healthcheck etcd": "etcd-healthcheck-client",
    "certificate for etcd nodes to communicate with each other": "etcd-peer",
    "certificate for serving etcd": "etcd-server",
    "certificate for the front proxy client": "front-proxy-client",
    "certificate embedded in the kubeconfig file for the scheduler manager to use": (
        "scheduler.conf"
    ),
    "certificate embedded in the kubeconfig file for the super-admin": "super-admin.conf",
}


@dataclass(frozen=True)
class Kubeadm:
    """A kubeadm on a host: its path and what `kubeadm version -o short` printed."""

    path: str
    version: str

    @property
    def minor(self) -> Minor:
        """The release, to compare with."""
        return minor_of(self.version)

    def certs(self, *words: str) -> list[str]:
        """A command of the group `certs`."""
        group = ["certs"] if self.minor >= CERTS_SINCE else ["alpha", "certs"]
        return [self.path, *group, *words]

    def kubeconfig(self, *words: str) -> list[str]:
        """A command of the group `kubeconfig`."""
        group = ["kubeconfig"] if self.minor >= KUBECONFIG_SINCE else ["alpha", "kubeconfig"]
        return [self.path, *group, *words]

    def check_expiration(self) -> list[str]:
        """What lists the certificates: as JSON where it can."""
        return self.certs("check-expiration", *(["-o", "json"] if self.prints_json else []))

    @property
    def prints_json(self) -> bool:
        """Whether `check-expiration` has `-o json`."""
        return self.minor >= JSON_SINCE

    @property
    def config_version(self) -> str:
        """The `apiVersion` of the configuration that it reads."""
        return CONFIG_VERSIONS[max(since for since in CONFIG_VERSIONS if since <= self.minor)]


@dataclass(frozen=True)
class Known:
    """What is known of one certificate.

    Attributes:
        name: what kubeadm calls it.
        presence: whether it is there and can be read.
        not_after: when it ends; `None` unless it can be read.
        is_external: the key of its authority (of an authority: its own) is not on the host, so
            that nothing can be signed there.
        why: of an unreadable one, what is wrong with it.
    """

    name: str
    presence: Presence
    not_after: datetime | None = None
    is_external: bool = False
    why: str = ""


@dataclass(frozen=True)
class Report:
    """What is known of a host's certificates and authorities."""

    leaves: tuple[Known, ...]
    authorities: tuple[Known, ...]


@dataclass(frozen=True)
class Renewal:
    """What `kubeadm certs renew` said it did, by kubeadm's names. Its exit code says nothing."""

    renewed: tuple[str, ...]
    missing: tuple[str, ...]
    external: tuple[str, ...]


def minor_of(version: str) -> Minor:
    """Read `v1.36.2` as (1, 36).

    Raises:
        UnreadableOutput: it is no version.
    """
    found = VERSION.fullmatch(version.strip())
    if not found:
        raise UnreadableOutput("kubeadm version -o short", version)
    return int(found[1]), int(found[2])


def parse_json(printed: str) -> Report:
    """Read what `kubeadm certs check-expiration -o json` prints (1.30 to 1.36).

        {"kind": "CertificateExpirationInfo", "certificates": [{"name": "admin.conf",
        "expirationDate": "2026-11-21T02:09:19Z", "residualTime": 3599, "externallyManaged": false,
        "caName": "ca", "missing": false}, …], "certificateAuthorities": [{"name": "ca", …}, …]}

    Raises:
        UnreadableOutput: it is something else.
    """
    try:
        read = json.loads(printed)
        return Report(
            tuple(map(_known, read["certificates"])),
            tuple(map(_known, read["certificateAuthorities"])),
        )
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise UnreadableOutput("kubeadm certs check-expiration -o json", printed) from error


def _known(entry: dict[str, object]) -> Known:
    name, is_external = str(entry["name"]), entry["externallyManaged"] is True
    if entry["missing"]:
        return Known(name, Presence.MISSING, is_external=is_external)
    not_after = datetime.fromisoformat(str(entry["expirationDate"]))
    return Known(name, Presence.READABLE, not_after, is_external)


def parse_text(printed: str) -> Report:
    """Read what `kubeadm certs check-expiration` prints (1.15 to 1.36), blank lines left out.

        CERTIFICATE                EXPIRES                  RESIDUAL TIME   CERTIFICATE AUTHORITY
        admin.conf                 Nov 21, 2026 02:09 UTC   59m             ca              no
        !MISSING! apiserver-etcd-client
        CERTIFICATE AUTHORITY   EXPIRES                  RESIDUAL TIME   EXTERNALLY MANAGED
        ca                      Nov 18, 2036 01:09 UTC   9y              no

    Releases before 1.18 list no authorities, and say true and false.

    Raises:
        UnreadableOutput: there is no such table, or a line of it is of another form.
    """
    tables: list[list[Known]] = []
    for line in map(str.strip, printed.splitlines()):
        if line.startswith("CERTIFICATE "):
            tables.append([])
        elif line and tables:
            tables[-1].append(_known_of_line(line, printed))
    if not tables or not tables[0]:
        raise UnreadableOutput("kubeadm certs check-expiration", printed)
    return Report(tuple(tables[0]), tuple(tables[1]) if len(tables) > 1 else ())


def _known_of_line(line: str, printed: str) -> Known:
    if line.startswith(MISSING):
        return Known(line.removeprefix(MISSING).strip(), Presence.MISSING)
    found = LINE.fullmatch(line)
    if not found:
        raise UnreadableOutput("kubeadm certs check-expiration", printed)
    not_after = datetime.strptime(found["date"], "%b %d, %Y %H:%M UTC").replace(tzinfo=UTC)
    is_external = found["external"] in {"yes", "true"}
    return Known(found["name"], Presence.READABLE, not_after, is_external)


def parse_renewal(printed: str) -> Renewal:
    """Read what `kubeadm certs renew` prints.

        certificate for serving the Kubernetes API renewed
        MISSING! certificate for serving etcd
        Detected external ca, certificate for the front proxy client can't be renewed

    Its exit code is 0 for all three.
    """
    renewed, missing, external = [], [], []
    for line in map(str.strip, printed.splitlines()):
        if found := EXTERNAL_LINE.fullmatch(line):
            external.append(_short_name(found[2]))
        elif line.startswith("MISSING!"):
            missing.append(_short_name(line.removeprefix("MISSING!").strip()))
        elif line.startswith("certificate ") and line.endswith(" renewed"):
            renewed.append(_short_name(line.removesuffix(" renewed")))
    return Renewal(tuple(renewed), tuple(missing), tuple(external))


def _short_name(long_name: str) -> str:
    return LONG_NAMES.get(long_name, long_name)

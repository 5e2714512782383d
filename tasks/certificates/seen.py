"""What was seen of a control-plane host: values only, so that judging it needs no host."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from tasks.certificates.catalogue import BY_NAME, Component, EtcdKind
from tasks.certificates.kubeadm import Known, Report
from tasks.certificates.reading import Certificate, KeyState, Presence


class RuntimeKind(StrEnum):
    """What the containers of the control plane are restarted with."""

    CRI = "cri"
    DOCKER = "docker"
    NONE = "none"


class ApiState(StrEnum):
    """What the API server of the host itself answers to `/readyz`."""

    READY = "ready"
    NOT_READY = "not-ready"
    CLOSED = "closed"  # it answers, and lets nobody ask without a certificate
    SILENT = "silent"


class KubeletForm(StrEnum):
    """What `kubelet.conf` says of the kubelet's client certificate."""

    LINKED = "linked"  # names the file that the kubelet rotates
    EMBEDDED = "embedded"  # holds it, so that it never rotates
    OTHER = "other"  # names another file, or holds another kind of credential
    MISSING = "missing"
    UNREADABLE = "unreadable"


@dataclass(frozen=True)
class Clock:
    """How far the clock of the host is ahead of the worker's: somewhere between the two."""

    low_seconds: float
    high_seconds: float

    @property
    def middle(self) -> float:
        """The best guess."""
        return (self.low_seconds + self.high_seconds) / 2

    @property
    def width(self) -> float:
        """How much it may be off by."""
        return self.high_seconds - self.low_seconds


@dataclass(frozen=True)
class FileSeen:
    """A certificate in a file, or embedded in one.

    Attributes:
        name: what kubeadm calls it.
        presence: whether it is there and can be read.
        certificate: what it says; `None` unless it can be read.
        key: whether its key is its own.
        is_signed: whether the authority on the host has signed it.
        changed_at: when the file was last written, in seconds of the host's clock.
        why: of an unreadable one, what is wrong.
    """

    name: str
    presence: Presence
    certificate: Certificate | None = None
    key: KeyState = KeyState.MISSING
    is_signed: bool = False
    changed_at: float = 0.0
    why: str = ""

    @property
    def serial(self) -> str:
        """Its serial number; empty where it cannot be read."""
        return self.certificate.serial if self.certificate else ""

    @property
    def is_whole(self) -> bool:
        """Whether it can be read, its key fits, and its authority has signed it."""
        is_readable = self.presence is Presence.READABLE
        return is_readable and self.key is KeyState.FITS and self.is_signed


@dataclass(frozen=True)
class Served:
    """What is presented on a port; no certificate where nothing answers."""

    name: str
    address: str
    certificate: Certificate | None = None


@dataclass(frozen=True)
class KubeletSeen:
    """The kubelet: its client certificate, its serving certificate, how it is configured."""

    form: KubeletForm
    client: FileSeen
    embedded: FileSeen
    serving: FileSeen
    is_active: bool
    has_server_bootstrap: bool
    has_own_serving_file: bool  # tlsCertFile names one, which is not the kubelet's to make


@dataclass(frozen=True)
class Runtime:
    """How static pods are restarted: the client's path, and the socket it talks to."""

    kind: RuntimeKind
    client: str = ""
    endpoint: str = ""


@dataclass(frozen=True)
class Account:
    """An account whose kubeconfig is to be replaced.

    Attributes:
        name: of the account.
        ids: uid and gid.
        path: where its `~/.kube/config` really is, symbolic links followed.
        presence, mode, server: of that file.
        entries: users, clusters and contexts in it; 1 where it is a copy of `admin.conf`.
        serial: of the certificate in it.
    """

    name: str
    ids: str = ""
    path: str = ""
    presence: Presence = Presence.MISSING
    mode: str = ""
    server: str = ""
    entries: int = 0
    serial: str = ""
    has_other_credentials: bool = False


@dataclass(frozen=True)
class Seen:
    """One control-plane host. Moments without a zone are seconds of its own clock."""

    seen_at: datetime
    clock: Clock
    node_name: str
    tools: dict[str, str]
    kubeadm_version: str
    control_plane_version: str
    pki: str
    is_standard_pki: bool
    etcd: EtcdKind
    manifests: frozenset[Component]
    leaves: tuple[FileSeen, ...]
    authorities: tuple[FileSeen, ...]
    foreign: FileSeen
    service_key: str
    service_public_key: str
    kubelet: KubeletSeen
    served: tuple[Served, ...]
    started_at: dict[str, float]  # of each process; of several of one name, the oldest
    runtime: Runtime
    api: ApiState
    server: str  # what admin.conf asks
    address: str  # what the API server advertises
    api_port: int
    size_kib: int
    free_kib: dict[str, int]
    is_renewing: bool
    has_renewal_timer: bool
    kubeadm_said: Report | None = None
    kubeadm_failed: str = ""
    accounts: tuple[Account, ...] = ()

    @property
    def report(self) -> Report:
        """The same in the form in which kubeadm reports it."""
        external = {
            authority.name for authority in self.authorities if authority.key is not KeyState.FITS
        }
        return Report(
            tuple(_known(leaf, BY_NAME[leaf.name].ca in external) for leaf in self.leaves),
            tuple(_known(authority, authority.name in external) for authority in self.authorities),
        )

    def leaf(self, name: str) -> FileSeen:
        """One certificate, by kubeadm's name."""
        return next(leaf for leaf in self.leaves if leaf.name == name)

    def on_port(self, name: str) -> Served:
        """What is served under this name; nothing, where it was not looked at."""
        found = (served for served in self.served if served.name == name)
        return next(found, Served(name, ""))


def _known(seen: FileSeen, is_external: bool) -> Known:  # noqa: FBT001 (a field of what is made)
    not_after = seen.certificate.not_after if seen.certificate else None
    return Known(seen.name, seen.presence, not_after, is_external, seen.why)

"""Which container is to have which probes or resources, and what is accepted."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from blocks.kube.cluster import KubernetesCluster
from recovery.errors import BadInput
from tasks.containers.quantities import amount, cpu, memory
from tasks.workloads.target import (
    WorkloadKind,
    WorkloadOrder,
    workload_order,
    workload_target,
)

NO_LIMIT = "none"
SECONDS_MAX = 24 * 60 * 60
QUIET_SECONDS_MAX = 3600


class Accepted(StrEnum):
    """What is refused unless it is accepted by this name."""

    ARGO_CD = "argo-cd"
    FLUX = "flux"
    HELM = "helm"
    OPERATOR = "operator"
    CAUSE_NOT_KNOWN = "cause-not-known"
    ROOM_NOT_KNOWN = "room-not-known"


class ProbeKind(StrEnum):
    """Which probe of a container, as a person says it."""

    LIVENESS = "liveness"
    READINESS = "readiness"
    STARTUP = "startup"

    @property
    def field(self) -> str:
        """Its name in a container."""
        return f"{self}Probe"


@dataclass(frozen=True)
class ProbeWish:
    """How much laxer the probes are to be; 0 leaves a value as it is.

    `startup_seconds` is how long the container may take to start: it is a startup probe's.
    """

    startup_seconds: int = 0
    probe: ProbeKind = ProbeKind.LIVENESS
    timeout_seconds: int = 0
    period_seconds: int = 0
    failure_threshold: int = 0

    @property
    def fields(self) -> dict[str, int]:
        """What is wanted of the named probe, by the API's names."""
        wanted = {
            "timeoutSeconds": self.timeout_seconds,
            "periodSeconds": self.period_seconds,
            "failureThreshold": self.failure_threshold,
        }
        return {name: value for name, value in wanted.items() if value}


@dataclass(frozen=True)
class ResourceWish:
    """What the container is to have, as the API writes it; empty leaves a value as it is."""

    memory_limit: str = ""
    memory_request: str = ""
    cpu_limit: str = ""
    cpu_request: str = ""

    @property
    def is_memory(self) -> bool:
        """Whether memory is asked for."""
        return bool(self.memory_limit or self.memory_request)

    @property
    def is_cpu(self) -> bool:
        """Whether CPU is asked for."""
        return bool(self.cpu_limit or self.cpu_request)

    def of(self, kind: str) -> dict[str, str]:
        """What is wanted of `limits` or of `requests`."""
        given = (self.memory_limit, self.cpu_limit)
        if kind == "requests":
            given = (self.memory_request, self.cpu_request)
        return {name: one for name, one in zip(("memory", "cpu"), given, strict=True) if one}


@dataclass(frozen=True)
class ContainerOrder:
    """What was asked for. The label is what is leased: the workload."""

    cluster: KubernetesCluster
    namespace: str
    kind: WorkloadKind | None
    name: str
    container: str
    probes: ProbeWish = field(default_factory=ProbeWish)
    resources: ResourceWish = field(default_factory=ResourceWish)
    accept: tuple[Accepted, ...] = ()
    within_seconds: int = 600
    quiet_seconds: int = 0

    @property
    def label(self) -> str:
        """The workload, by whichever kind it was named."""
        return self.workload_order.label

    @property
    def workload_order(self) -> WorkloadOrder:
        """The order that steps of the workload take."""
        return WorkloadOrder(
            self.cluster, self.namespace, self.kind, self.name, self.within_seconds
        )


@dataclass(frozen=True)
class Limits:
    """How long is waited, and what is accepted; the defaults are those of the forms."""

    accept: Sequence[str] = ()
    within_seconds: int = 600
    quiet_seconds: int = 0


def probe_order(
    place: tuple[str, str, str], container: str, wish: ProbeWish, limits: Limits
) -> ContainerOrder:
    """Read the parameters of relax-probes.

    Args:
        place: the cluster, the namespace, and the workload.
        container: empty: the only one it has.
        wish: how the probes are to be.
        limits: the rest.

    Raises:
        BadInput: one is malformed, or nothing is asked for.
    """
    refuse_bad_probes(wish)
    return _order(place, container, limits, probes=wish)


def refuse_bad_probes(wish: ProbeWish) -> None:
    """Refuse probes that cannot be wished for, before anything is opened.

    Raises:
        BadInput: a value is malformed, or nothing is asked for.
    """
    for name in ("startup_seconds", "timeout_seconds", "period_seconds", "failure_threshold"):
        value = getattr(wish, name)
        if not 0 <= value <= SECONDS_MAX:
            raise BadInput(name, f"{value}", f"Give 1 to {SECONDS_MAX}, or 0 to leave it")
    if not wish.startup_seconds and not wish.fields:
        remedy = "Give startup_seconds, or timeout_seconds, period_seconds or failure_threshold"
        raise BadInput("startup_seconds", "nothing is asked for", remedy)
    if wish.startup_seconds and wish.probe is ProbeKind.STARTUP and wish.fields:
        remedy = "Give startup_seconds alone: the rest of that probe follows from it"
        raise BadInput("probe", "the startup probe is asked for twice", remedy)


def resource_order(
    place: tuple[str, str, str], container: str, wish: ResourceWish, limits: Limits
) -> ContainerOrder:
    """Read the parameters of raise-resources; `place`, `container`, `limits` as of `probe_order`.

    Raises:
        BadInput: one is malformed, or nothing is asked for.
    """
    return _order(place, container, limits, resources=read_resources(wish))


def read_resources(wish: ResourceWish) -> ResourceWish:
    """The sizes as the API writes them, read before anything is opened.

    Raises:
        BadInput: one is malformed, a request is above its limit, or nothing is asked for.
    """
    if not wish.is_memory and not wish.is_cpu:
        raise BadInput("memory_limit", "nothing is asked for", "Give a limit or a request")
    readers = {"memory_limit": memory, "memory_request": memory, "cpu_limit": cpu}
    readers["cpu_request"] = cpu
    read = {}
    for name, reader in readers.items():
        given = getattr(wish, name).strip()
        is_removed = name == "cpu_limit" and given.lower() == NO_LIMIT
        read[name] = NO_LIMIT if is_removed else reader(name, given) if given else ""
    for kind in ("memory", "cpu"):
        request, limit = read[f"{kind}_request"], read[f"{kind}_limit"]
        if request and limit not in {"", NO_LIMIT} and amount(request) > amount(limit):
            raise BadInput(f"{kind}_request", f"{request} is above the limit {limit}", "Lower it")
    return ResourceWish(**read)


def resource_target(  # noqa: PLR0913, PLR0917 (fields of the form)
    cluster: str,
    workload: str,
    namespace: str,
    memory_limit: str,
    memory_request: str,
    cpu_limit: str,
    cpu_request: str,
) -> str:
    """What raise-resources leases. The sizes come first: a bad one is told without a cluster.

    Raises:
        BadInput: a size or a name is malformed.
    """
    read_resources(ResourceWish(memory_limit, memory_request, cpu_limit, cpu_request))
    return workload_target(cluster, workload, namespace)


def probe_target(  # noqa: PLR0913, PLR0917 (fields of the form)
    cluster: str,
    workload: str,
    namespace: str,
    startup_seconds: int,
    probe: str,
    timeout_seconds: int,
    period_seconds: int,
    failure_threshold: int,
) -> str:
    """What relax-probes leases; its fields come first as well.

    Raises:
        BadInput: a field or a name is malformed.
    """
    refuse_bad_probes(
        ProbeWish(
            startup_seconds, probe_named(probe), timeout_seconds, period_seconds, failure_threshold
        )
    )
    return workload_target(cluster, workload, namespace)


def probe_named(given: str) -> ProbeKind:
    """Read which probe is meant.

    Raises:
        BadInput: there is no such kind.
    """
    known = {str(one): one for one in ProbeKind}
    if given.lower() not in known:
        raise BadInput("probe", f"{given!r} is not known", f"Known: {', '.join(known)}")
    return known[given.lower()]


def _order(
    place: tuple[str, str, str],
    container: str,
    limits: Limits,
    *,
    probes: ProbeWish | None = None,
    resources: ResourceWish | None = None,
) -> ContainerOrder:
    cluster, namespace, workload = place
    base = workload_order(cluster, workload, namespace, limits.within_seconds)
    known = {str(one): one for one in Accepted}
    for one in limits.accept:
        if one not in known:
            raise BadInput("accept", f"{one!r} is not known", f"Known: {', '.join(known)}")
    if not 0 <= limits.quiet_seconds <= QUIET_SECONDS_MAX:
        remedy = f"Give 1 to {QUIET_SECONDS_MAX}, or 0 for what follows from the restarts seen"
        raise BadInput("quiet_seconds", f"{limits.quiet_seconds}", remedy)
    return ContainerOrder(
        base.cluster,
        base.namespace,
        base.kind,
        base.name,
        container.strip(),
        probes or ProbeWish(),
        resources or ResourceWish(),
        tuple(known[one] for one in limits.accept),
        limits.within_seconds,
        limits.quiet_seconds,
    )

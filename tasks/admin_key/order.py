"""What is asked for when an installation whose admin key is lost is to be made anew."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from blocks.keycloak.api import KeycloakApi
from blocks.kube.cluster import KubernetesCluster
from recovery.errors import BadInput
from tasks.mongodb.order import mongo_target
from tasks.workloads.target import WorkloadKind, WorkloadOrder, workload_order

SHARED = "shared"
DATABASES = ("statefulset/mongodb",)
NO_REALM, NO_ROLE = "missing-realm", "missing-role"
WINDOW_MAX = timedelta(hours=24)
WINDOW = "Give BEGIN/END with time zones, as 2026-11-20T22:00Z/2026-11-21T02:00Z"
COUNT = re.compile(r"([\w.$-]+\.[\w.$-]+)=(\d+)")


@dataclass(frozen=True)
class Login:
    """How the database is asked; without a user it asks nobody. `password_file` is the worker's."""

    user: str = ""
    password_file: str = ""


@dataclass(frozen=True)
class KeyWish:
    """Where the key of the new installation shows, and where it is to lie on the worker."""

    pattern: str
    file: str


@dataclass(frozen=True)
class Consent:
    """Who says that nothing is lost, what is typed for it, and when it may be done."""

    confirm: str
    declared_by: str
    begins_at: datetime
    ends_at: datetime

    def is_open(self, now: datetime) -> bool:
        """Whether it may be done now."""
        return self.begins_at <= now < self.ends_at


@dataclass(frozen=True)
class AdminKeyOrder:
    """The parameters. The label is what is leased: the database of the namespace.

    Attributes:
        cluster: where.
        namespace: where in it.
        client: the workload that makes the key when it first starts.
        databases: the StatefulSets whose claims are removed.
        keycloak: who logs administrators in.
        realm: of which realm.
        role: which an administrator has.
        baseline: how many documents a fresh installation has, by database and collection.
        login: how the databases are asked.
        key: where the new key shows and is kept.
        consent: see there.
        within_seconds: for the pods of each workload to go, and to come up.
        accept: names of what is accepted, as refusals print them.
    """

    cluster: KubernetesCluster
    namespace: str
    client: WorkloadOrder
    databases: tuple[WorkloadOrder, ...]
    keycloak: KeycloakApi
    realm: str
    role: str
    baseline: dict[str, int]
    login: Login
    key: KeyWish
    consent: Consent
    within_seconds: int = 600
    accept: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """The database of one namespace, as a restore leases it."""
        return f"{self.cluster.label}/{self.namespace}/mongodb"

    @property
    def sentence(self) -> str:
        """What a person types: it names the cluster and the namespace."""
        return sentence_for(self.cluster, self.namespace)


@dataclass(frozen=True)
class AdminKeyForm:
    """The parameters as they are typed."""

    cluster: str
    namespace: str
    client: str
    databases: Sequence[str] | None
    keycloak: str
    realm: str
    role: str
    baseline: Sequence[str]
    login: Login
    key: KeyWish
    confirm: str
    declared_by: str
    window: str
    within_seconds: int = field(default=600)
    accept: Sequence[str] = ()


def sentence_for(cluster: KubernetesCluster, namespace: str) -> str:
    """What is typed to confirm."""
    return f"erase {namespace} of {cluster.label.removeprefix('kubernetes://')}"


def admin_key_order(form: AdminKeyForm) -> AdminKeyOrder:
    """Read the parameters.

    Raises:
        BadInput: one is malformed or missing, the namespace is shared with other installations, or
            what was typed to confirm does not name this cluster and namespace.
    """
    meant = DATABASES if form.databases is None else form.databases
    if not meant:
        raise BadInput("databases", "it is empty: empty means none, never all", "Name each")
    client = workload_order(form.cluster, form.client, form.namespace, form.within_seconds)
    databases = [
        workload_order(form.cluster, one, form.namespace, form.within_seconds) for one in meant
    ]
    for one in databases:
        if one.kind is not WorkloadKind.STATEFULSET or one.name == client.name:
            raise BadInput("databases", one.name, "Name StatefulSets, as statefulset/mongodb")
    if client.namespace == SHARED:
        remedy = "Its volumes are those of Grafana and InfluxDB, for all installations"
        raise BadInput("namespace", "shared is no installation", remedy)
    for name in ("realm", "role", "declared_by"):
        if not getattr(form, name).strip():
            raise BadInput(name, "it is empty", "Give it")
    sentence = sentence_for(client.cluster, client.namespace)
    if " ".join(form.confirm.split()) != sentence:
        raise BadInput(
            "confirm", f"{form.confirm!r} does not say what is erased", f"Type {sentence}"
        )
    if bool(form.login.user) != bool(form.login.password_file):
        raise BadInput("database_user", "it and its password belong together", "Give both or none")
    if unknown := sorted({*form.accept} - {NO_REALM, NO_ROLE}):
        raise BadInput("accept", repr(unknown), f"It takes {NO_REALM} and {NO_ROLE}")
    _refuse_bad_key(form.key)
    begins_at, ends_at = _window(form.window)
    return AdminKeyOrder(
        client.cluster,
        client.namespace,
        client,
        tuple(databases),
        KeycloakApi.named(form.keycloak),
        form.realm.strip(),
        form.role.strip(),
        dict(_count(one) for one in form.baseline),
        form.login,
        form.key,
        Consent(sentence, form.declared_by.strip(), begins_at, ends_at),
        form.within_seconds,
        tuple(form.accept),
    )


def admin_key_target(cluster: str, namespace: str = "") -> str:
    """What is leased: the database of one namespace."""
    return mongo_target(cluster, namespace)


def admin_key_parts(
    cluster: str, client: str, databases: list[str] | None = None, namespace: str = ""
) -> list[str]:
    """What is leased as well: each workload, so that nobody restarts one meanwhile."""
    meant = DATABASES if databases is None else databases
    return [workload_order(cluster, one, namespace).label for one in (client, *meant)]


def more_than_fresh(counts: Mapping[str, int], baseline: Mapping[str, int]) -> list[str]:
    """Which collections hold another number of documents than those of a fresh installation."""
    names = sorted({*counts, *baseline})
    return [
        f"{name} has {counts.get(name, 0)} documents, {baseline.get(name, 0)} when fresh"
        for name in names
        if counts.get(name, 0) != baseline.get(name, 0)
    ]


def _count(given: str) -> tuple[str, int]:
    found = COUNT.fullmatch(given.strip())
    if found is None:
        raise BadInput("baseline", repr(given), "Write database.collection=NUMBER")
    return found[1], int(found[2])


def _window(given: str) -> tuple[datetime, datetime]:
    try:
        begins, ends = (datetime.fromisoformat(one) for one in given.strip().split("/"))
    except ValueError:
        raise BadInput("window", repr(given), WINDOW) from None
    if begins.tzinfo is None or ends.tzinfo is None or not begins < ends <= begins + WINDOW_MAX:
        raise BadInput("window", f"{given!r} is no time of at most 24 hours", WINDOW)
    return begins.astimezone(UTC), ends.astimezone(UTC)


def _refuse_bad_key(key: KeyWish) -> None:
    try:
        groups = re.compile(key.pattern).groups
    except re.error as error:
        raise BadInput("key_pattern", str(error), "Give a regular expression") from None
    if groups != 1:
        remedy = r"Put the key alone in brackets, as one-time key: (\S+)"
        raise BadInput("key_pattern", f"it has {groups} groups", remedy)
    if not Path(key.file).is_absolute():
        raise BadInput("key_file", repr(key.file), "Give an absolute path on the worker")

"""Whether an installation may be made anew: every guard, and exactly which claims would go."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from blocks.kube.path import Asked, path_of
from blocks.kube.session import KubernetesSession
from recovery.errors import BadInput, Refused
from recovery.steps import decision, probe
from recovery.walk import current_consent, current_fence
from tasks.admin_key.asking import (
    counts_of,
    refuse_if_somebody_can_log_in,
)
from tasks.admin_key.key_file import is_there
from tasks.admin_key.key_log import refuse_if_the_key_may_be_good
from tasks.admin_key.order import AdminKeyOrder, more_than_fresh
from tasks.volumes.target import CLAIMS, volume_path
from tasks.volumes.volume import BOUND, VolumeSeen, read_claim, read_volume
from tasks.workloads.interference import Interferer, interference_with
from tasks.workloads.rights import Rule, refuse_missing
from tasks.workloads.target import Workload, find_workload

AGE_MAX = timedelta(days=7)
TAKE_BACK = {Interferer.HPA, Interferer.KEDA, Interferer.ARGO_CD, Interferer.FLUX,
             Interferer.OPERATOR}  # fmt: skip
SHOWN_MAX = 8
ROLE = "recover-admin-key"
RULES: tuple[Rule, ...] = (
    ("apps", "statefulsets", ("get", "list", "watch", "patch")),
    ("", CLAIMS, ("get", "list", "watch", "create", "delete")),
    ("", "pods", ("get", "list", "watch")),
    ("", "pods/log", ("get",)),
    ("", "pods/exec", ("create", "get")),
)


@dataclass(frozen=True)
class OldClaim:
    """A claim that is removed and made anew by its StatefulSet; its volume is kept."""

    name: str
    uid: str
    spec: dict[str, Any]
    labels: dict[str, str]
    volume: str
    volume_uid: str
    policy: str
    size: str

    def __str__(self) -> str:
        """Which it is: it names the steps about it."""
        return self.name


@dataclass(frozen=True)
class LostKeyFound:
    """An installation that was never used, as it was found, and what would go."""

    client: Workload
    databases: list[Workload]
    claims: list[OldClaim]
    told: list[str]

    @property
    def seen(self) -> str:
        """What goes, in a line."""
        volumes = ", ".join(f"{one.name} on {one.volume} ({one.size})" for one in self.claims)
        return f"never used; claims: {volumes}"


@decision
def lost_key_found(order: AdminKeyOrder) -> LostKeyFound:
    """The workloads, the claims and volumes by name and uid, and what was proven of them.

    Raises:
        Refused: a guard speaks against it; says which, and what to do instead.
        BadInput: the file for the key cannot be made.
        ClusterForbidden, ClusterLoginRefused, Unreachable and what Keycloak says: see there.

    Runbook: docs/runbooks/lost-admin-key.md, steps 1 to 4.
    """
    refuse_other_file(order)
    with order.cluster.session() as session:
        client = find_workload(session, order.client)
        databases = [find_workload(session, one) for one in order.databases]
        _refuse_missing_rights(session, order)
        told = [_refuse_unless_lost(session, order)]
        claims = [claim for one in databases for claim in _claims_of(session, order, one)]
        for one in (client, *databases):
            _refuse_interference(session, order, one)
        told += _free_volumes(session, claims)
    told.append(f"{order.consent.declared_by} declares that {order.namespace} holds no data")
    return LostKeyFound(client, databases, claims, told)


@probe
def refuse_unless_still_lost(order: AdminKeyOrder) -> None:
    """Refuse where it was used, or somebody can log in, since it was looked at.

    Raises:
        Refused: see `lost_key_found`.

    Runbook: docs/runbooks/lost-admin-key.md, steps 1 to 3.
    """
    with order.cluster.session() as session:
        _refuse_unless_lost(session, order)


@probe
def refuse_unless_still_empty(order: AdminKeyOrder) -> None:
    """Refuse where the database holds anything once nobody can write to it any more.

    Raises:
        Refused: it does; the client was only stopped, and is started by the way back.

    Runbook: docs/runbooks/lost-admin-key.md, step 6.
    """
    with order.cluster.session() as session:
        _refuse_data(session, order)


def refuse_unless_agreed(order: AdminKeyOrder) -> None:
    """Refuse outside of the window, or where one person alone wants it; no flag overrides that.

    Raises:
        Refused: the time is not that, or nobody but who declared it empty consented to the plan.
    """
    fence = current_fence()
    if fence.epoch == 0:  # it is a plan: consent is given to that
        return
    consent = order.consent
    if not consent.is_open(datetime.now(UTC)):
        span = f"{consent.begins_at:%Y-%m-%d %H:%M} to {consent.ends_at:%Y-%m-%d %H:%M} UTC"
        remedy = f"Take back what was done, if anything was, by `recover undo {fence.recovery_id}`"
        remedy += ", then begin anew in a window"
        raise Refused(order.label, f"it may be done from {span} only", remedy)
    given = current_consent()
    if given is None or given.how != "approved" or _is_same(given.by, consent.declared_by):
        raise Refused(
            order.label,
            f"two persons are needed: {consent.declared_by} declares that it is empty, and nobody "
            "else has approved the plan",
            "Have somebody else approve its hash; a reason to do without (break-glass) is not "
            "taken here",
        )


def _refuse_missing_rights(session: KubernetesSession, order: AdminKeyOrder) -> None:
    refuse_missing(session, order, ROLE, RULES)
    for verb in ("get", "list", "watch", "patch"):
        asked = Asked(verb, "", "persistentvolumes")
        if not session.may(asked):
            remedy = f"Have this granted and bound to it, then resume:\n{asked.rule}\n"
            raise Refused(order.label, f"the account may not {asked}", remedy)


def _is_same(one: str, other: str) -> bool:
    return one.strip().casefold() == other.strip().casefold()


def refuse_other_file(order: AdminKeyOrder) -> None:
    """Refuse a file for the key that could not be made, before anything is done.

    Raises:
        BadInput: it is there already, or its folder is not.
    """
    file = Path(order.key.file)
    if is_there(file):
        raise BadInput("key_file", f"{file} is there already", "Name a file that is not")
    if not file.parent.is_dir():
        raise BadInput("key_file", f"there is no folder {file.parent}", "Make it on the worker")


def _refuse_unless_lost(session: KubernetesSession, order: AdminKeyOrder) -> str:
    refuse_if_the_key_may_be_good(session, order)
    told = refuse_if_somebody_can_log_in(order)
    _refuse_data(session, order)
    return told


def _refuse_data(session: KubernetesSession, order: AdminKeyOrder) -> None:
    if found := more_than_fresh(counts_of(session, order), order.baseline):
        more = f" and {len(found) - SHOWN_MAX} more" if len(found) > SHOWN_MAX else ""
        raise Refused(
            order.label,
            f"it is not as it was installed: {'; '.join(found[:SHOWN_MAX])}{more}",
            "It may have been used: escalate to the vendor. Where a fresh installation of this "
            "version has exactly that, give its numbers as baseline=[database.collection=NUMBER]",
        )


def _claims_of(
    session: KubernetesSession, order: AdminKeyOrder, database: Workload
) -> list[OldClaim]:
    """The claims that follow from the StatefulSet's own templates, and no other."""
    read = session.get(database.path)
    templates = [one["metadata"]["name"] for one in read["spec"].get("volumeClaimTemplates") or []]
    if not templates:
        reason = f"{database} makes no claims of its own"
        raise Refused(order.label, reason, "Its data is elsewhere: do this with the vendor")
    replicas = int(read["spec"].get("replicas", 1))
    names = [f"{one}-{database.name}-{n}" for one in templates for n in range(replicas)]
    listed = session.objects(path_of("v1", CLAIMS, namespace=order.namespace))
    there = {one["metadata"]["name"]: one for one in listed}
    shape = "|".join(re.escape(f"{one}-{database.name}-") + r"\d+" for one in templates)
    left_over = [name for name in there if re.fullmatch(shape, name) and name not in names]
    if left_over or not names or not set(names) <= set(there):
        missing = sorted(set(names) - set(there))
        reason = f"the claims of {database} do not follow from it: missing {missing or 'none'}, "
        reason += f"beyond its {replicas} replicas {sorted(left_over) or 'none'}"
        raise Refused(order.label, reason, "Bring it to the replicas it was installed with")
    return [_claim(session, order, there[name]) for name in names]


def _claim(session: KubernetesSession, order: AdminKeyOrder, read: Mapping[str, Any]) -> OldClaim:
    claim = read_claim(read)
    made_at = datetime.fromisoformat(str(read["metadata"]["creationTimestamp"]))
    if datetime.now(UTC) - made_at > AGE_MAX:
        reason = f"claim {claim.name} was made at {made_at:%Y-%m-%d}, more than 7 days ago"
        raise Refused(
            order.label, reason, "An installation as old was used: escalate to the vendor"
        )
    volume = _volume(session, claim.volume)
    if volume is None or volume.reference.get("uid") != claim.uid or volume.phase != BOUND:
        reason = f"claim {claim.name} is not bound to a volume of its own"
        raise Refused(order.label, reason, "Mend that first, as by reuse-released-volume")
    return OldClaim(
        claim.name,
        claim.uid,
        claim.spec,
        claim.labels,
        volume.name,
        volume.uid,
        volume.policy,
        volume.size,
    )


def _volume(session: KubernetesSession, name: str) -> VolumeSeen | None:
    read = session.find(volume_path(name)) if name else None
    return None if read is None else read_volume(read)


def _free_volumes(session: KubernetesSession, claims: Sequence[OldClaim]) -> list[str]:
    """Available volumes that a new claim may take: it grabs any that fits, whatever is on it."""
    classes = {str(one.spec.get("storageClassName", "")) for one in claims}
    listed = [read_volume(one) for one in session.objects(path_of("v1", "persistentvolumes"))]
    return [
        f"volume {one.name} is free, and a new claim may take it with what is on it"
        for one in listed
        if one.phase == "Available" and one.storage_class in classes
    ]


def _refuse_interference(
    session: KubernetesSession, order: AdminKeyOrder, workload: Workload
) -> None:
    against = [
        one
        for one in interference_with(session, workload, session.get(workload.path))
        if one.who in TAKE_BACK
    ]
    if against:
        reason = f"{workload} may be scaled up meanwhile: {'; '.join(map(str, against))}"
        raise Refused(order.label, reason, "Have each held, and begin anew")

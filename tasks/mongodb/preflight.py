"""What speaks against a restore of MongoDB, found before any client is stopped."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from blocks.kube.session import KubernetesSession
from recovery.errors import Refused
from recovery.steps import decision
from tasks.jobs.needs import missing_and_unseen
from tasks.jobs.template import (
    JobSource,
    containers_of_template,
    digest_of,
    find_cronjob,
    pod_spec_of,
)
from tasks.mongodb.order import MongoOrder
from tasks.mongodb.rights import refuse_missing_rights, rules_for
from tasks.workloads.interference import Interference, Interferer, interference_with
from tasks.workloads.target import Workload, WorkloadKind, find_workload

TAKES_BACK = {Interferer.KEDA, Interferer.ARGO_CD, Interferer.FLUX, Interferer.OPERATOR}
HARMLESS_LOOK = "budgets"  # a disruption budget is asked about evictions, not about scaling
FROM_ZERO = re.compile(r"^0 to ")
NOT_THE_NEWEST = "not-the-newest"


@dataclass(frozen=True)
class RestoreFound:
    """What a restore works on, as it was found. `told` is what an operator should know."""

    clients: list[Workload]
    backup: JobSource | None
    restores: list[JobSource]
    told: list[str]


@decision
def restore_found(order: MongoOrder) -> RestoreFound:
    """The clients and CronJobs of a restore, and what an operator should know of them.

    Raises:
        Refused: one is not there, or is not fit for it; somebody would take the scaling back; a
            right is missing; nobody said that the restore leaves a fresh backup alone.
        ClusterForbidden, ClusterLoginRefused, Unreachable: see there.

    Runbook: docs/runbooks/mongodb-restore.md, step 1.
    """
    with order.cluster.session() as session:
        clients = [find_workload(session, one) for one in order.clients]
        for client in clients:
            refuse_daemons(order, client)
        refuse_missing_rights(session, order, rules_for(clients))
        told: list[Interference] = []
        against: list[Interference] = []
        for client in clients:
            for one in interference_with(session, client, session.get(client.path)):
                (against if is_against(one) else told).append(one)
        refuse_interference(order, against)
        restores = [_source(session, order, name) for name in order.restores]
        backup = _source(session, order, order.backup) if order.backup else None
    if backup is not None:
        refuse_newest(order, backup, restores[0])
    sources = [*([backup] if backup else []), *restores]
    known = [*map(str, told), *(f"{one} (accepted)" for one in against)]
    return RestoreFound(
        clients, backup, restores, [*known, *(line for one in sources for line in one.told)]
    )


def is_against(one: Interference) -> bool:
    """Whether it would scale a client up again while the data is restored.

    At 0 replicas an autoscaler is disabled by itself, unless it may scale to 0.
    """
    if one.who is Interferer.HPA:
        return bool(FROM_ZERO.match(one.seen))
    if one.who is Interferer.NOT_KNOWN:
        return one.name != HARMLESS_LOOK
    return one.who in TAKES_BACK


def refuse_interference(order: MongoOrder, against: Sequence[Interference]) -> None:
    """Refuse what may scale a client up in the middle of a restore and nobody accepted by name.

    Raises:
        Refused: somebody may.
    """
    open_ones = [one for one in against if f"{one.who}:{one.name}" not in order.accept]
    if not open_ones:
        return
    names = ", ".join(f"{one.who}:{one.name}" for one in open_ones)
    raise Refused(
        order.label,
        f"a client may be scaled up while the data is restored: {'; '.join(map(str, open_ones))}",
        "Hold each (Argo CD: switch automated sync off; Flux: suspend it; KEDA: the annotation "
        f"autoscaling.keda.sh/paused), then say so by name in accept: {names}",
    )


def refuse_daemons(order: MongoOrder, client: Workload) -> None:
    """Refuse a client that cannot be scaled.

    Raises:
        Refused: it is a DaemonSet.
    """
    if client.kind is WorkloadKind.DAEMONSET:
        remedy = "Give it a node selector that fits no node meanwhile, and leave it out of clients"
        raise Refused(order.label, f"{client} cannot be scaled", remedy)


def refuse_newest(order: MongoOrder, backup: JobSource, restore: JobSource) -> None:
    """Refuse to back up first where the restore might then restore that very backup.

    Raises:
        Refused: nobody said that it does not.
    """
    name = f"{NOT_THE_NEWEST}:{restore.name}"
    if name in order.accept:
        return
    raise Refused(
        order.label,
        f"a fresh backup by {backup.name} may be the one that {restore.name} then restores, which "
        "brings back the data as it is now",
        f"See which archive its template names. Where it is a fixed one, accept {name}; where it "
        "takes the newest, set take_backup_first=false",
    )


def _source(session: KubernetesSession, order: MongoOrder, name: str) -> JobSource:
    cronjob = find_cronjob(session, order.label, order.namespace, name)
    refuse_unfit(order, name, cronjob)
    missing, unseen = missing_and_unseen(session, order.namespace, cronjob)
    if missing:
        reason = f"pods of CronJob {name} cannot start: there is no {', no '.join(missing)}"
        raise Refused(order.label, reason, "Put it there, or correct the CronJob, then resume")
    told = told_of(name, cronjob)
    if unseen:
        told.append(f"{name}: the account may not look whether there is {', '.join(unseen)}")
    return JobSource(name, order.namespace, digest_of(cronjob), told)


def refuse_unfit(order: MongoOrder, name: str, cronjob: Mapping[str, Any]) -> None:
    """Refuse a template that does not run one pod to its end.

    Raises:
        Refused: it does not.
    """
    spec = cronjob["spec"]["jobTemplate"]["spec"]
    sizes = {field: spec.get(field) or 1 for field in ("parallelism", "completions")}
    if several := [f"{field} {size}" for field, size in sizes.items() if size != 1]:
        reason = f"CronJob {name} runs several pods ({', '.join(several)})"
        raise Refused(order.label, reason, "Two restores at once spoil each other: set both to 1")
    if nameless := [one["name"] for one in containers_of_template(cronjob) if not one.get("image")]:
        reason = f"CronJob {name} has no image for {', '.join(nameless)}"
        raise Refused(order.label, reason, "Deploy it anew with its image")


def told_of(name: str, cronjob: Mapping[str, Any]) -> list[str]:
    """What an operator should know of a CronJob: its image, its last success, what it drops."""
    containers = containers_of_template(cronjob)
    told = [f"{name}: image {', '.join(one['image'] for one in containers)}"]
    policy = pod_spec_of(cronjob).get("restartPolicy")
    if policy != "Never":
        told.append(f"{name}: restartPolicy {policy}; it runs with Never, without a second try")
    if last := (cronjob.get("status") or {}).get("lastSuccessfulTime"):
        told.append(f"{name}: last successful run {last}")
    limit = cronjob["spec"]["jobTemplate"]["spec"].get("activeDeadlineSeconds")
    if limit:
        told.append(f"{name}: it is ended after {limit} s by its own activeDeadlineSeconds")
    words = " ".join(
        str(word) for one in containers for word in [*one.get("command", []), *one.get("args", [])]
    )
    if "mongorestore" in words:
        drops = "--drop is given: collections of the archive are replaced"
        keeps = "no --drop: documents that exist stay as they are, and count as failed"
        told.append(f"{name}: {drops if '--drop' in words else keeps}")
    return told

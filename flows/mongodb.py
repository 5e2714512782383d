"""Restore the MongoDB of an installation on Kubernetes, and have it backed up."""

from dataclasses import dataclass

from blocks.kube.cluster import ClusterParameter
from recovery.declare import recovery
from recovery.verdict import Danger
from tasks.mongodb import credentials, outcome, preflight, running, schedule
from tasks.mongodb.backup_order import BackupWish, backup_order
from tasks.mongodb.credentials import SecretFound
from tasks.mongodb.order import RestoreWish, mongo_order, mongo_parts, mongo_target
from tasks.mongodb.outcome import JobRan
from tasks.workloads import scaling, waiting


@dataclass(frozen=True)
class MongodbRestored:
    """What was run and what now holds.

    Attributes:
        backup: how the backup of before went; `None` where none was wanted.
        restores: how each restore went.
        clients: how each client stands, by kind and name.
        told: what was found and should be known.
        left_to_person: what the recovery cannot see, since it has no log-in to the database.
    """

    backup: JobRan | None
    restores: list[JobRan]
    clients: dict[str, str]
    told: list[str]
    left_to_person: list[str]


@recovery(
    runbook="docs/runbooks/mongodb-restore.md",
    target=mongo_target,
    parts=mongo_parts,
    danger=Danger.DESTRUCTIVE,
)
def restore_mongodb(  # noqa: PLR0913, PLR0917 (each is a field of the form)
    cluster: ClusterParameter,
    namespace: str = "",
    clients: list[str] | None = None,
    restore_cronjob: str = "mongorestore",
    userdb_cronjob: str = "",
    backup_cronjob: str = "mongobackup",
    take_backup_first: bool = True,  # noqa: FBT001, FBT002 (a field of the form)
    accept: list[str] | None = None,
    accept_failed_documents: int = 0,
    within_seconds: int = 600,
    restore_within_seconds: int = 14400,
) -> MongodbRestored:
    """Stop the clients, restore by the installation's own Jobs, and start as many as there were.

    After a restore that failed the clients stay stopped. The way back starts them and brings no
    backup back: that is for a person to decide.

    Args:
        cluster: kubeconfig:///path?context=NAME, in-cluster:, or the name of a saved block.
        namespace: Empty: the one of the block or the context.
        clients: What writes to the database, as statefulset/vantiq; with =3 behind it, how many
            replicas it had, where it is at 0 already. Default: statefulset/vantiq.
        restore_cronjob: CronJob whose template restores.
        userdb_cronjob: CronJob that restores the user database after it; empty: none.
        backup_cronjob: CronJob whose template backs up.
        take_backup_first: Back up before anything is stopped.
        accept: Names to accept, as refusals print them: not-the-newest:NAME, argo-cd:NAME.
        accept_failed_documents: How many documents may fail in each restore.
        within_seconds: How long the pods of a client may take to go, and to come up.
        restore_within_seconds: How long one Job may take.

    Runbook: docs/runbooks/mongodb-restore.md, steps 1 to 9.
    """
    wish = RestoreWish(
        (restore_cronjob, *([userdb_cronjob] if userdb_cronjob else [])),
        backup_cronjob if take_backup_first else "",
        tuple(accept or ()),
        restore_within_seconds,
    )
    order = mongo_order(cluster, namespace, clients, wish, within_seconds)
    found = preflight.restore_found(order)
    had = [scaling.original_replicas(order.of(c), c, order.given_of(c)) for c in found.clients]
    backup = None
    if found.backup is not None:
        job = running.job_for(order, found.backup)
        running.take_backup(order, job)
        backup = outcome.is_backed_up(order, job)
    for client, replicas in zip(found.clients, had, strict=True):
        scaling.scale_down(order.of(client), client, replicas)
    for client in found.clients:
        waiting.no_pods_left(order.of(client), client)
    restores = []
    for source in found.restores:
        job = running.job_for(order, source)
        running.restore(order, job, found.clients)
        restores.append(outcome.is_restored(order, job, accept_failed_documents))
    for client, replicas in zip(found.clients, had, strict=True):
        scaling.scale_back(order.of(client), client, replicas)
    holds = {
        str(client): waiting.is_out(order.of(client), client, within_seconds)
        for client in found.clients
    }
    return MongodbRestored(backup, restores, holds, found.told, [outcome.TO_BE_COMPARED])


@dataclass(frozen=True)
class BackupEnabled:
    """What was proven and what now holds.

    Attributes:
        proof: how the one backup went that was run now.
        schedule: when it runs from now on.
        was: when it ran before; `suspended` behind it where it did not.
        told: what was found and should be known.
        left_to_person: what the recovery cannot see, since it has no log-in to the store.
    """

    proof: JobRan | None
    schedule: str
    was: str
    told: list[str]
    left_to_person: list[str]


@recovery(
    runbook="docs/runbooks/mongodb-backup.md",
    target=mongo_target,
    resumes_itself="the one Job is known by its name, and what it backs up is only read",
)
def enable_mongodb_backup(  # noqa: PLR0913, PLR0917 (each is a field of the form)
    cluster: ClusterParameter,
    namespace: str = "",
    backup_cronjob: str = "mongobackup",
    credentials_file: str = "",
    credentials_secret: str = "dbbackup-creds",  # noqa: S107 (its name)
    credentials_key: str = "credentials",
    backup_schedule: str = "",
    backup_within_seconds: int = 14400,
) -> BackupEnabled:
    """Give the backup its credentials, prove it by one run, and switch its schedule on.

    The bucket, and whether the backup can be restored from it, is for a person to look at.

    Args:
        cluster: kubeconfig:///path?context=NAME, in-cluster:, or the name of a saved block.
        namespace: Empty: the one of the block or the context.
        backup_cronjob: CronJob whose template backs up.
        credentials_file: Path on the worker of the lines export NAME=value; empty: they are there.
        credentials_secret: Secret that holds them.
        credentials_key: Key of it.
        backup_schedule: Five fields as of cron, or @daily; empty: as the CronJob has it.
        backup_within_seconds: How long the one run may take.

    Runbook: docs/runbooks/mongodb-backup.md, steps 1 to 4.
    """
    wish = BackupWish(
        backup_cronjob,
        credentials_file,
        credentials_secret,
        credentials_key,
        backup_schedule,
        backup_within_seconds,
    )
    order = backup_order(cluster, namespace, wish)
    found = schedule.backup_found(order)
    if found.credentials.found is not SecretFound.NOT_MEANT:
        credentials.put_credentials(order, found.credentials)
    job = running.job_for(order, found.source)
    running.take_backup(order, job)
    proof = outcome.is_backed_up(order, job)
    schedule.switch_on(order, found.schedule)
    was = found.schedule.found + (", suspended" if found.schedule.was_suspended else "")
    return BackupEnabled(
        proof, found.schedule.wanted, was, found.source.told, [schedule.TO_BE_SEEN]
    )

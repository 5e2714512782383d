"""What enabling the backup of a MongoDB was asked for."""

from dataclasses import dataclass

from blocks.kube.cluster import KubernetesCluster
from recovery.errors import BadInput
from tasks.mongodb.order import MongoOrder

FIELDS = 5
MACROS = ("@hourly", "@daily", "@midnight", "@weekly", "@monthly")


@dataclass(frozen=True)
class BackupOrder(MongoOrder):
    """The parameters of a backup that is to be enabled; the label is that of a restore.

    Attributes:
        credentials_file: path on the worker; empty: the credentials are there.
        secret: name of the Secret that holds them.
        key: its key.
        schedule: when it is to run; empty: as the CronJob has it.
    """

    credentials_file: str = ""
    secret: str = ""
    key: str = ""
    schedule: str = ""


@dataclass(frozen=True)
class BackupWish:
    """How the backup is to be."""

    cronjob: str
    credentials_file: str
    secret: str
    key: str
    schedule: str
    within_seconds: int


def backup_order(cluster: str, namespace: str, wish: BackupWish) -> BackupOrder:
    """Read the parameters.

    Raises:
        BadInput: one is empty or malformed.
    """
    for field, value in (
        ("backup_cronjob", wish.cronjob),
        ("credentials_secret", wish.secret),
        ("credentials_key", wish.key),
    ):
        if not value.strip():
            raise BadInput(field, "it is empty", "Give its name")
    if wish.within_seconds < 1:
        raise BadInput("backup_within_seconds", str(wish.within_seconds), "Give at least 1")
    if wish.schedule and not (
        wish.schedule in MACROS or len(wish.schedule.split()) == FIELDS
    ):  # the API has the last word on each field
        remedy = f"Give five fields as of cron, or one of {', '.join(MACROS)}"
        raise BadInput("backup_schedule", repr(wish.schedule), remedy)
    block = KubernetesCluster.named(cluster)
    return BackupOrder(
        cluster=block,
        namespace=block.namespace_of(namespace),
        clients=(),
        given=(),
        restores=(),
        backup=wish.cronjob,
        accept=(),
        job_within_seconds=wish.within_seconds,
        credentials_file=wish.credentials_file,
        secret=wish.secret,
        key=wish.key,
        schedule=wish.schedule,
    )

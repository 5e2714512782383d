"""Which backups are surplus, and removing them once the newest one is proven to be whole."""

from collections.abc import Iterable

from recovery.errors import Refused
from recovery.steps import act, decision
from recovery.verdict import Verdict
from tasks.postgres_backup.dumping import is_dumped, remove_files
from tasks.postgres_backup.manifest import manifests
from tasks.postgres_backup.order import BackupOrder


@decision(none_is_fine=True)
def surplus(order: BackupOrder) -> list[str]:
    """Ids of the backups of this database beyond the newest `keep`, this one included.

    What is not whole does not count as a backup, and is not removed either.

    Runbook: docs/runbooks/postgres-backup.md, step 5.
    """
    earlier = [
        manifest.run_id
        for manifest in manifests(order.folder, order.database.label)
        if manifest.run_id != order.own_id
    ]
    return earlier[order.keep - 1 :]


def remove_commands(order: BackupOrder, backup: str) -> Iterable[str]:
    """What removes a backup."""
    return [
        f"rm {order.folder.manifest_of(backup)}",
        f"rm {order.folder.dump_of(backup)}",
    ]


def is_removed(order: BackupOrder, backup: str) -> Verdict:
    """Whether neither the dump nor its manifest is there."""
    paths = (order.folder.manifest_of(backup), order.folder.dump_of(backup))
    return Verdict.of(not any(path.exists() for path in paths))


def refuse_without_own(order: BackupOrder) -> None:
    """Refuse to remove anything unless the backup that was just taken is whole.

    Raises:
        Refused: it is not there as it was written.
    """
    if is_dumped(order) is not Verdict.DONE:
        raise Refused(
            order.folder.label,
            f"the new backup {order.own_id} is not there as it was written",
            "Find out who changed it; nothing was removed",
        )


@act(
    commands=remove_commands,
    done_when=is_removed,
    each=("backup",),
    refuse_if=(refuse_without_own,),
)
def remove_backup(order: BackupOrder, backup: str) -> None:
    """Remove a backup that is surplus by the number that was given; it cannot be taken back.

    Done twice, the second does nothing.

    Raises:
        Refused: the new backup is not whole.

    Runbook: docs/runbooks/postgres-backup.md, step 5.
    """
    remove_files(order, backup)

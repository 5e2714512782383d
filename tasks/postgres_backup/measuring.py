"""What a drill came to: proven or not, in which time, with which loss, and how that compares."""

from dataclasses import dataclass
from datetime import UTC, datetime

from recovery.drill import Drill, own_and_earlier, slower_than_usual
from recovery.errors import NotVerified
from recovery.steps import verify
from tasks.postgres_backup.order import DrillOrder
from tasks.postgres_backup.proving import Restored
from tasks.postgres_backup.restoring import left_behind

PHASES = Drill(
    of="back-up-postgres",
    phases={
        "chosen_backup": "decide",
        "refuse_unless_restorable": "fetch",
        "restore_backup": "restore",
        "compare_with_manifest": "verify",
    },
)


@dataclass(frozen=True)
class RestoreProven:
    """A backup that was restored and found to be what was dumped.

    Attributes:
        rto_seconds: from the beginning of the drill to the last comparison.
        phases: the same, split.
        rpo_seconds: from the newest canary that was restored to the incident.
        slower: phases that took more than half as long again as they usually do.
        left_behind: databases of other drills that were not destroyed.
    """

    backup: str
    tables: int
    rows: int
    newest_canary_at: datetime
    incident_at: datetime
    rpo_seconds: float
    rto_seconds: float
    phases: dict[str, float]
    slower: tuple[str, ...]
    left_behind: tuple[str, ...]


@verify
def restore_is_proven(drill: DrillOrder, found: Restored) -> RestoreProven:
    """Tell what the drill measured, unless the restored copy was another than what was dumped.

    Raises:
        NotVerified: it was; every difference is named.

    Runbook: docs/runbooks/postgres-backup.md, step 10.
    """
    if found.differences or found.newest_canary_at is None:
        raise NotVerified(
            drill.label,
            f"what was dumped as backup {found.backup}",
            "; ".join(found.differences),
            "Do not rely on this backup: take another one, and find out what changed it. The "
            "scratch database was destroyed",
        )
    own, earlier = own_and_earlier()
    incident_at = drill.incident_at or datetime.fromisoformat(own.began_at)
    lost = incident_at - found.newest_canary_at
    return RestoreProven(
        found.backup,
        found.tables,
        found.rows,
        found.newest_canary_at,
        incident_at.astimezone(UTC),
        round(max(0.0, lost.total_seconds()), 3),
        own.rto_seconds or round(sum(own.phases.values()), 3),
        dict(own.phases),
        tuple(slower_than_usual(own, earlier)),
        tuple(left_behind(drill)),
    )

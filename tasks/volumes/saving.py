"""What is kept of the volume, the claims and the workload before the first write."""

import json
import os
from pathlib import Path

from recovery.journal.opening import journal_folder
from recovery.steps import act
from recovery.verdict import Verdict
from recovery.walk import current_fence
from tasks.volumes.target import VolumeOrder, volume_path
from tasks.volumes.triage import Found

NAME = "before.json"


def saved_file() -> Path:
    """Where the objects are kept: in the folder of the recovery, beside the journal."""
    base = os.environ.get("RECOVER_WORK_DIR") or str(journal_folder() / "work")
    return Path(base) / current_fence().recovery_id / NAME


def paths_to_save(order: VolumeOrder, found: Found) -> list[str]:
    """The objects that are changed, or removed."""
    replaced = found.replaced
    claims = [order.claim_path(replaced.name)] if replaced else []
    volumes = [volume_path(replaced.volume)] if replaced and replaced.volume else []
    return [order.path, *claims, *volumes, found.workload.path]


def are_saved() -> Verdict:
    """Whether the file is there, whole."""
    return Verdict.of(saved_file().is_file())


@act(
    commands=lambda order, found: [f"save {path}" for path in paths_to_save(order, found)],
    done_when=are_saved,
    lasts_until="scale_down",
)
def save_objects(order: VolumeOrder, found: Found) -> None:
    """Keep the objects as they are, in a file of this worker that only its user may read.

    It may hold passwords, as templates do. Done twice, the first one stays.

    Raises:
        Unreachable: no answer.
        ClusterNotFound: one went meanwhile.

    Runbook: docs/runbooks/released-volume.md, step 3.
    """
    with order.cluster.session() as session:
        kept = {path: session.get(path) for path in paths_to_save(order, found)}
    target = saved_file()
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    partial = target.with_suffix(".partial")
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump(kept, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    partial.rename(target)

"""The fence at a Kubernetes object: an annotation that says which attempt changed it last.

It is written in the same request as the change. Before a change the object is read, and an attempt
that finds a later epoch of its own lease there refuses itself; should the later one come in
between, the version that was read no longer fits, and the API refuses. Epochs are compared per
lease target and journal, so each target has an annotation of its own, named by its hash.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

from recovery.errors import Fenced
from recovery.walk import Fence

PREFIX = "fence.recovery-pipelines.io/"
HASH_DIGITS = 12


def fence_annotation(fence: Fence) -> tuple[str, str] | None:
    """Name and value of the annotation; `None` outside of a recovery."""
    if not fence.target or not fence.epoch:
        return None
    name = hashlib.sha256(fence.target.encode()).hexdigest()[:HASH_DIGITS]
    return f"{PREFIX}{name}", f"{fence.recovery_id}:{fence.epoch}:{fence.journal}"


def refuse_later(read: Mapping[str, Any], fence: Fence, place: str) -> None:
    """Refuse to change an object that a later attempt of the same lease has changed.

    Raises:
        Fenced: one has.
    """
    mine = fence_annotation(fence)
    if mine is None:
        return
    standing = (read["metadata"].get("annotations") or {}).get(mine[0], "")
    recovery_id, _, rest = standing.partition(":")
    epoch, _, journal = rest.partition(":")
    if epoch.isdigit() and journal == fence.journal and int(epoch) > fence.epoch:
        why = f"{place} was since changed by epoch {epoch} of recovery {recovery_id}"
        raise Fenced(fence.target, fence.epoch, why)

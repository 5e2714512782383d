"""What tells that the installation is a new one, and the key of it, kept on the worker."""

import os
from pathlib import Path

from blocks.kubernetes_path import path_of
from recovery.errors import NotVerified
from recovery.steps import act, verify
from recovery.verdict import Verdict
from tasks.admin_key.asking import counts_of
from tasks.admin_key.finding import LostKeyFound
from tasks.admin_key.key_log import first_pod_of_client, key_in_log
from tasks.admin_key.order import AdminKeyOrder
from tasks.volumes.target import CLAIMS


@verify
def is_anew(order: AdminKeyOrder, found: LostKeyFound) -> dict[str, str]:
    """Which volume each claim has now; none of them one of before, and no document too many.

    Raises:
        NotVerified: an old volume is back, or the new one is not empty.
        Unreachable, CommandFailed: the database did not say.

    Runbook: docs/runbooks/lost-admin-key.md, step 8.
    """
    old = {one.volume for one in found.claims}
    volumes = {}
    with order.cluster.session() as session:
        for claim in found.claims:
            path = path_of("v1", CLAIMS, claim.name, namespace=order.namespace)
            read = session.get(path)
            volumes[claim.name] = str(read["spec"].get("volumeName", ""))
        counts = counts_of(session, order)
    again = sorted(old & set(volumes.values()))
    much = sorted(name for name, count in counts.items() if count > order.baseline.get(name, 0))
    if again or much or not all(volumes.values()):
        raise NotVerified(
            order.label,
            "an empty database on volumes of its own",
            f"volumes {volumes}, of before {again or 'none'}, documents in {much or 'none'}",
            "The client stays stopped: find out whose volume the claim took, then resume",
        )
    return volumes


def key_commands(order: AdminKeyOrder) -> list[str]:
    """What keeps the key: nothing is sent but the question for the log."""
    return [f"write {order.key.file} (mode 0600) from the log of {order.client.name}-0"]


def is_saved(order: AdminKeyOrder) -> Verdict:
    """Whether the file is there, with something in it."""
    file = Path(order.key.file)
    return Verdict.of(file.is_file() and file.stat().st_size > 0)


@act(commands=key_commands, done_when=is_saved, redo_stale=False)
def save_key(order: AdminKeyOrder) -> None:
    """Write the key from the log of the first pod into a file of mode 0600 on the worker.

    It is good for 48 hours, and until that pod restarts. Done twice, the second does nothing.

    Raises:
        NotVerified: the log has none.
        Unreachable: no answer.

    Runbook: docs/runbooks/lost-admin-key.md, step 9.
    """
    with order.cluster.session() as session:
        pod = first_pod_of_client(session, order)
        key = key_in_log(session, order, pod).key if pod is not None else None
    if key is None:
        raise NotVerified(
            order.label,
            f"a key in the log of {order.client.name}-0",
            f"none that {order.key.pattern!r} finds",
            "Restart nothing: read its log; where the pattern is wrong, fork with another",
        )
    handle = os.open(order.key.file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w") as written:
        written.write(f"{key.reveal()}\n")
        written.flush()
        os.fsync(written.fileno())

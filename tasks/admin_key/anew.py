"""What tells that the installation is a new one, and the key of it, kept on the worker."""

from pathlib import Path

from blocks.kube.path import path_of
from recovery.errors import NotVerified
from recovery.secrecy.secret import Secret
from recovery.steps import act, verify
from recovery.verdict import Verdict
from tasks.admin_key import key_file
from tasks.admin_key.asking import counts_of
from tasks.admin_key.finding import LostKeyFound
from tasks.admin_key.key_log import first_pod_of_client, key_in_log
from tasks.admin_key.order import AdminKeyOrder
from tasks.volumes.target import CLAIMS


def left_to_person(order: AdminKeyOrder, kept: list[str]) -> list[str]:
    """What of step 9 and after it is left to a person."""
    return [
        f"log in at once with the key in {order.key.file} (step 9)",
        f"once nobody will go back, remove the volumes {', '.join(kept)} and their disks",
    ]


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
    """Whether the file has the key of the log; not known where that has no key any more.

    Half done: a second copy of it lies beside the file. Without a file the log is not asked.
    """
    file = Path(order.key.file)
    if not key_file.is_there(file):
        return Verdict.NOT_DONE
    key = _key(order)
    if key is None:
        return Verdict.UNKNOWN
    is_half = key_file.holds(file, key) and key_file.beside(file).exists()
    return Verdict.HALF_DONE if is_half else Verdict.of(key_file.holds(file, key))


@act(commands=key_commands, done_when=is_saved, redo_stale=False, redo_half_done=True)
def save_key(order: AdminKeyOrder) -> None:
    """Write the key from the log of the first pod into a file of mode 0600 on the worker.

    It is good for 48 hours, and until that pod restarts. Done twice, the second does nothing.

    Raises:
        NotVerified: the log has none.
        Refused: another file has the name, or it cannot be written.
        Unreachable: no answer.

    Runbook: docs/runbooks/lost-admin-key.md, step 9.
    """
    key = _key(order)
    if key is None:
        raise NotVerified(
            order.label,
            f"a key in the log of {order.client.name}-0",
            f"none that {order.key.pattern!r} finds",
            "Restart nothing: read its log; where the pattern is wrong, fork with another",
        )
    key_file.put(order.label, Path(order.key.file), key)


def _key(order: AdminKeyOrder) -> Secret | None:
    with order.cluster.session() as session:
        pod = first_pod_of_client(session, order)
        return key_in_log(session, order, pod).key if pod is not None else None

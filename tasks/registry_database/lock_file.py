"""Setting aside a lock file that lies, once that is proven."""

from collections.abc import Iterable

from recovery.errors import Refused
from recovery.steps import act, undo
from recovery.walk import current_fence
from tasks.postgres_server.clusters import Cluster
from tasks.postgres_server.process import LOCK_FILE, holders_of
from tasks.registry_database.causes import Finding
from tasks.registry_database.order import DatabaseOrder
from tasks.registry_database.starting import place_of

# The file must still name that process, and that must still be no server of the folder.
RENAME = (
    'test "$(head -n 1 -- "$1" | tr -d -)" = "$2" && '
    'test "$(readlink -f -- "/proc/$2/cwd")" != "$(readlink -f -- "$4")" && mv -n -- "$1" "$3"'
)


def aside_of(cluster: Cluster) -> str:
    """Where the lock file is set aside: beside itself, named after the recovery."""
    return f"{cluster.data_folder}/{LOCK_FILE}.{current_fence().recovery_id}"


def rename_argv(cluster: Cluster, pid: int) -> list[str]:
    """What sets the lock file aside, if it still names this process and that is not the server."""
    lock = f"{cluster.data_folder}/{LOCK_FILE}"
    return ["sh", "-c", RENAME, "sh", lock, str(pid), aside_of(cluster), cluster.data_folder]


def rename_commands(order: DatabaseOrder, finding: Finding) -> Iterable[str]:
    """What sets it aside."""
    host, cluster = place_of(order, finding)
    lock = holders_of(host, cluster).lock
    return [host.command_line(rename_argv(cluster, lock.pid), as_root=True)] if lock else []


def is_unlocked(order: DatabaseOrder, finding: Finding) -> bool:
    """Whether no lock file names a process that is not the server."""
    host, cluster = place_of(order, finding)
    held = holders_of(host, cluster)
    return held.lock is None or held.imposter is None


def refuse_live_lock(order: DatabaseOrder, finding: Finding) -> None:
    """Refuse to touch a lock file that is not proven stale."""
    host, cluster = place_of(order, finding)
    held = holders_of(host, cluster)
    if held.lock is not None and (held.postmaster or held.others or held.imposter is None):
        pids = [one.pid for one in (held.postmaster, *held.others) if one is not None]
        raise Refused(
            order.label,
            f"{LOCK_FILE} is not proven stale: it names process {held.lock.pid}, and processes "
            f"{pids} hold {cluster.data_folder}",
            "Look again: start a new recovery",
        )


@undo
def put_lock_file_back(order: DatabaseOrder, finding: Finding) -> None:
    """Give the lock file its name again, unless a server has written another one."""
    host, cluster = place_of(order, finding)
    lock = f"{cluster.data_folder}/{LOCK_FILE}"
    argv = ["mv", "-n", "--", aside_of(cluster), lock]
    there = ["test", "-e", aside_of(cluster)]
    has_server = holders_of(host, cluster).lock is not None
    if not has_server and host.read(there, accept=(0, 1), as_root=True).exit_code == 0:
        host.change(argv, as_root=True)


@act(
    commands=rename_commands,
    done_when=is_unlocked,
    refuse_if=(refuse_live_lock,),
    undo=put_lock_file_back,
    lasts_until="start_server",
)
def set_lock_file_aside(order: DatabaseOrder, finding: Finding) -> None:
    """Rename a lock file that keeps the server from starting and is proven stale.

    It is stale where no process has the data folder as working directory and what runs under its
    number is another program. Never removed. Done twice, the second does nothing.

    Raises:
        Refused: it is not proven stale.
        CommandFailed: it changed in between, and was left alone.
        Unreachable: no answer.

    Runbook: docs/runbooks/registry-database.md, step 5.
    """
    host, cluster = place_of(order, finding)
    lock = holders_of(host, cluster).lock
    if lock is not None:
        host.change(rename_argv(cluster, lock.pid), as_root=True)

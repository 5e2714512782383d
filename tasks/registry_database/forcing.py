"""The last resort: an immediate shutdown of a server whose fast one does not end."""

import time
from collections.abc import Iterable
from dataclasses import dataclass

from blocks.postgres.answer import ConnectionAnswer
from blocks.ssh.host import SshHost
from recovery.errors import NotVerified, Refused
from recovery.steps import act, decision
from recovery.verdict import Danger
from tasks import services
from tasks.postgres_server.clusters import Cluster, cluster_on_port
from tasks.postgres_server.inside import ACTIVITY, ask_inside
from tasks.postgres_server.patroni import patroni_of
from tasks.postgres_server.process import Holders, holders_of, identity_of, titles_of
from tasks.registry_database.causes import STARTING
from tasks.registry_database.order import DatabaseOrder
from tasks.services import UnitState

GONE_WITHIN_SECONDS = 60.0
PAUSE_SECONDS = 0.5
QUIT = 'test "$(sed "s/.*) //" "/proc/$1/stat" | cut -d " " -f 20)" = "$2" && kill -QUIT "$1"'


@dataclass(frozen=True)
class DoomedServer:
    """The one process that is ended."""

    cluster: Cluster
    pid: int
    identity: str
    processes: list[str]


@decision
def server_to_end(order: DatabaseOrder) -> DoomedServer:
    """Which process is the server, told by its data folder.

    Raises:
        Refused: no server runs, it is not shutting down, or Patroni supervises it.
        Unreachable: the host gave no answer.

    Runbook: docs/runbooks/registry-database.md, step 7.
    """
    if order.host is None:
        raise Refused(order.label, "no host was given", "Give host=ssh://…, where the server runs")
    with order.host.session():
        cluster = cluster_on_port(order.host, order.database.port, order.unit)
        patroni = patroni_of(order.host, cluster)
        if patroni is not None:
            pause = " ".join(patroni.argv("pause", patroni.scope))
            raise Refused(
                order.label,
                "Patroni supervises the server and would start or fail it over behind this",
                f"`{pause}` first and decide by hand, together with L3",
            )
        held = holders_of(order.host, cluster)
        if held.postmaster is None:
            raise Refused(
                order.label, f"no server runs on {cluster.data_folder}", "There is nothing to end"
            )
        refuse_if_up(order, order.host, cluster, held)
        identity = identity_of(order.host, held.postmaster)
        titles = titles_of(order.host, held)
    return DoomedServer(cluster, held.postmaster.pid, identity, titles)


def refuse_if_up(order: DatabaseOrder, host: SshHost, cluster: Cluster, held: Holders) -> None:
    """Refuse to end a server that works, recovers from a crash, or was not told to shut down."""
    inside = ask_inside(host, cluster, ACTIVITY, held.lock.socket_folder if held.lock else "")
    if inside.answer is ConnectionAnswer.SHUTTING_DOWN:
        return
    if inside.answer in STARTING:
        raise Refused(
            order.label,
            f"the server is on its way up, which a shutdown would begin anew: {inside.text}",
            "Wait for it: `recover run recover-registry-database` shows how far it is",
        )
    unit = services.unit_status(host, cluster.unit)
    is_told = held.is_going_down or unit.state is UnitState.DEACTIVATING
    if inside.is_accepted or not is_told:
        seen = "it takes connections" if inside.is_accepted else f"{inside.text}; {unit}"
        raise Refused(
            order.label,
            f"the server is not shutting down: {seen}",
            "Run recover-registry-database, which restarts one that hangs by a fast shutdown; only "
            "where that does not end, this is the last resort",
        )


def refuse_unless_shutting_down(order: DatabaseOrder, server: DoomedServer) -> None:
    """Refuse it once more at the moment of the act."""
    if order.host is None:
        raise TypeError("a server is ended on its host only")
    with order.host.session():
        held = holders_of(order.host, server.cluster)
        refuse_if_up(order, order.host, server.cluster, held)


def quit_commands(order: DatabaseOrder, server: DoomedServer) -> Iterable[str]:
    """What ends it: the signal of an immediate shutdown, to the postmaster alone."""
    if order.host is None:
        raise TypeError("a server is ended on its host only")
    return [order.host.command_line(_quit(server), as_root=True)]


def is_ended(order: DatabaseOrder, server: DoomedServer) -> bool:
    """Whether that process is gone; another server may run by then."""
    if order.host is None:
        raise TypeError("a server is ended on its host only")
    held = holders_of(order.host, server.cluster)
    return identity_of(order.host, held.postmaster) != server.identity


@act(
    commands=quit_commands,
    done_when=is_ended,
    refuse_if=(refuse_unless_shutting_down,),
    danger=Danger.DESTRUCTIVE,
)
def shut_down_immediately(order: DatabaseOrder, server: DoomedServer) -> None:
    """End the server without a checkpoint: its next start is a crash recovery.

    What is committed stays, but with synchronous_commit = off the last moments may not; unlogged
    tables are emptied. Done twice, the second does nothing. It cannot be taken back.

    Raises:
        Refused: it is not shutting down.
        NotVerified: it is not gone in time; it may hang in the kernel.
        CommandFailed: the host said no.
        Unreachable: no answer; it may have been done.

    Runbook: docs/runbooks/registry-database.md, step 7.
    """
    if order.host is None:
        raise TypeError("a server is ended on its host only")
    order.host.change(_quit(server), as_root=True)
    ends = time.monotonic() + GONE_WITHIN_SECONDS
    while not is_ended(order, server):
        if time.monotonic() >= ends:
            held = holders_of(order.host, server.cluster)
            raise NotVerified(
                order.label,
                f"process {server.pid} to be gone within {GONE_WITHIN_SECONDS:g} s",
                "; ".join(titles_of(order.host, held)),
                "A process in state D waits for the disk: mend that, or reboot the host",
            )
        time.sleep(PAUSE_SECONDS)


def _quit(server: DoomedServer) -> list[str]:
    """Signal that very process: its number may be another's by now, its start cannot."""
    started = server.identity.rpartition("/")[2]
    return ["sh", "-c", QUIT, "sh", str(server.pid), started]

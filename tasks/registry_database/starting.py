"""Starting a server that does not run, once nothing is against it."""

import time
from collections.abc import Iterable

from blocks.ssh.host import SshHost
from recovery.errors import CommandFailed, NotVerified, Refused
from recovery.steps import act, verify
from recovery.verdict import Verdict
from tasks import services
from tasks.postgres_server.clusters import Cluster
from tasks.postgres_server.condition import condition_of
from tasks.postgres_server.patroni import patroni_of
from tasks.postgres_server.process import holders_of, titles_of
from tasks.postgres_server.server_log import read_journal, read_log
from tasks.registry_database.causes import Cause, Finding, Remedy
from tasks.registry_database.order import DatabaseOrder
from tasks.registry_database.stopped import judge_stopped
from tasks.services import UnitState

APPEARS_WITHIN_SECONDS = 90.0
DOWN_WITHIN_SECONDS = 600.0
PAUSE_SECONDS = 0.5
FAILED = {Cause.CRASHED, Cause.START_LIMIT}  # systemd counts failures, and gives up after some


def place_of(order: DatabaseOrder, finding: Finding) -> tuple[SshHost, Cluster]:
    """The host and the cluster that were found on it."""
    if order.host is None or finding.cluster is None:
        raise TypeError("a server is started and stopped on its host only")
    return order.host, finding.cluster


def systemctl(verb: str, unit: str) -> list[str]:
    """What tells systemd to do something, without waiting for the end of it."""
    return ["systemctl", "--no-ask-password", "--no-block", verb, "--", unit]


def start_commands(order: DatabaseOrder, finding: Finding) -> Iterable[str]:
    """What starts it."""
    host, _ = place_of(order, finding)
    verbs = ["reset-failed", "start"] if finding.cause in FAILED else ["start"]
    return [host.command_line(systemctl(verb, finding.unit), as_root=True) for verb in verbs]


def is_started(order: DatabaseOrder, finding: Finding) -> Verdict:
    """Whether the server runs; it need not let anybody in yet."""
    host, cluster = place_of(order, finding)
    if holders_of(host, cluster).postmaster is not None:
        return Verdict.DONE
    state = services.unit_state(host, finding.unit)
    coming = {UnitState.ACTIVATING, UnitState.RELOADING}
    return Verdict.HALF_DONE if state in coming else Verdict.NOT_DONE


def refuse_unstartable(order: DatabaseOrder, finding: Finding) -> None:
    """Refuse a start that would fail, by its cause: it may be another one than before."""
    host, cluster = place_of(order, finding)
    condition = condition_of(host, cluster)
    if condition.held.postmaster is not None:
        return
    now = judge_stopped(host, cluster, patroni_of(host, cluster), condition)
    if now.remedy is Remedy.REFUSE:
        raise Refused(order.label, str(now), now.advice)
    if now.cause is Cause.STALE_LOCK_FILE:
        raise Refused(order.label, str(now), "Start a new recovery, which sets it aside first")


@act(
    commands=start_commands,
    done_when=is_started,
    refuse_if=(refuse_unstartable,),
    redo_half_done=True,
)
def start_server(order: DatabaseOrder, finding: Finding) -> None:
    """Start the unit of the server, or of its supervisor, and wait until the server runs.

    It may replay its log for long after that. What enables it at boot stays as it is. Done twice,
    the second does nothing. It has no way back: what was down was down.

    Raises:
        Refused: it would not start; the cause is named.
        CommandFailed: it failed to start; carries what its log says.
        NotVerified: no server appeared in time.
        Unreachable: no answer; systemd goes on starting it.

    Runbook: docs/runbooks/registry-database.md, step 6.
    """
    host, _ = place_of(order, finding)
    if is_settled_as_started(order, finding):
        return
    if finding.cause in FAILED:
        host.change(systemctl("reset-failed", finding.unit), accept=(0, 1), as_root=True)
    host.change(systemctl("start", finding.unit), as_root=True)
    wait_for_server(order, finding)


def is_settled_as_started(order: DatabaseOrder, finding: Finding) -> bool:
    """Whether the server runs once its unit has ended what it is at.

    A unit that is starting takes no second order to start: it would share the fate of the first.
    """
    host, _ = place_of(order, finding)
    ends = time.monotonic() + APPEARS_WITHIN_SECONDS
    going = {UnitState.ACTIVATING, UnitState.DEACTIVATING}
    while (state := is_started(order, finding)) is not Verdict.DONE:
        is_going = services.unit_state(host, finding.unit) in going
        if not is_going or time.monotonic() >= ends:
            break
        time.sleep(PAUSE_SECONDS)
    return state is Verdict.DONE


def wait_for_server(order: DatabaseOrder, finding: Finding) -> None:
    """Wait until the server runs.

    Raises:
        CommandFailed: its unit has failed.
        NotVerified: it does not run in time.
    """
    host, cluster = place_of(order, finding)
    ends = time.monotonic() + APPEARS_WITHIN_SECONDS
    while True:
        if holders_of(host, cluster).postmaster is not None:
            return
        status = services.unit_status(host, finding.unit)
        if status.state is UnitState.FAILED or time.monotonic() >= ends:
            break
        time.sleep(PAUSE_SECONDS)
    log = read_log(host, cluster)
    told = log.last_severe or read_journal(host, finding.unit, 15).tail()
    if status.state is UnitState.FAILED:
        command = next(iter(start_commands(order, finding)))
        raise CommandFailed(
            order.label,
            command,
            status.result or "failed",
            told,
            "Mend what its log says, then resume",
        )
    raise NotVerified(
        order.label,
        f"a server on {cluster.data_folder} within {APPEARS_WITHIN_SECONDS:g} s",
        f"{status}; {told}",
        f"See `journalctl -u {finding.unit}`, then resume",
    )


@verify
def goes_down(order: DatabaseOrder, finding: Finding) -> str:
    """Wait until a server that shuts down is gone; it is never hurried.

    Raises:
        NotVerified: it is not gone in time; carries the processes it waits for.
        Unreachable: the host gave no answer.

    Runbook: docs/runbooks/registry-database.md, step 4.
    """
    host, cluster = place_of(order, finding)
    began = time.monotonic()
    while (held := holders_of(host, cluster)).postmaster is not None or held.others:
        if time.monotonic() - began >= DOWN_WITHIN_SECONDS:
            raise still_going_down(order, "; ".join(titles_of(host, held)))
        time.sleep(PAUSE_SECONDS)
    return f"gone after {time.monotonic() - began:.0f} s"


def still_going_down(order: DatabaseOrder, titles: str) -> NotVerified:
    """Say what a shutdown waits for, and what may be done."""
    return NotVerified(
        order.label,
        "the server to be gone: it was told to shut down",
        f"these processes still there: {titles}",
        "Wait, or end the client or standby it waits for, then resume; as the last resort "
        "`recover run force-registry-database-shutdown` with the same parameters, which needs an "
        "approval",
    )

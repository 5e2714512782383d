"""Restarting a server that runs and takes nobody in, once, after a look at what that would end."""

import time
from collections.abc import Iterable
from dataclasses import dataclass

from blocks.postgres.answer import ConnectionAnswer
from recovery.errors import NotVerified, Refused
from recovery.steps import act, decision, probe
from recovery.verdict import Verdict
from tasks import services
from tasks.postgres_server.condition import condition_of
from tasks.postgres_server.inside import (
    ACTIVITY,
    PREPARED,
    SLOTS,
    STANDBYS,
    ask_inside,
    told_sessions,
)
from tasks.postgres_server.patroni import members_of
from tasks.postgres_server.process import (
    OTHER_PROCESS,
    Holders,
    bound,
    holders_of,
    identity_of,
    titles_of,
)
from tasks.registry_database.causes import Finding, Remedy
from tasks.registry_database.order import Acceptable, DatabaseOrder
from tasks.registry_database.starting import (
    place_of,
    refuse_unstartable,
    still_going_down,
    systemctl,
)
from tasks.registry_database.triage import diagnose
from tasks.services import UnitState

SHUTDOWN_WITHIN_SECONDS = 300.0
PAUSE_SECONDS = 0.5
IDLE = (" idle", "idle")
OWN_PROCESSES = (
    "checkpointer", "background writer", "walwriter", "autovacuum launcher", "archiver",
    "logical replication launcher", "startup", "walreceiver", "walsender", "logger",
    "stats collector", "autovacuum worker", "io worker", "slotsync worker",
)  # fmt: skip


@dataclass(frozen=True)
class Standing:
    """A server before it is restarted.

    Attributes:
        identity: what names its process for ever.
        open_sessions: sessions whose transaction would be rolled back.
        prepared: prepared transactions, which stay.
        slots: replication slots, which stay.
        standbys: names of the standbys that were attached.
        is_known: whether it was asked from inside; else its processes were looked at.
    """

    identity: str
    open_sessions: list[str]
    prepared: list[str]
    slots: list[str]
    standbys: list[str]
    is_known: bool


@decision
def standing(order: DatabaseOrder, finding: Finding) -> Standing:
    """The server as it stands: which process it is, and what a restart of it would end.

    Raises:
        Unreachable: the host gave no answer.

    Runbook: docs/runbooks/registry-database.md, step 7.
    """
    host, cluster = place_of(order, finding)
    with host.session():
        held = holders_of(host, cluster)
        identity = identity_of(host, held.postmaster)
        socket = held.lock.socket_folder if held.lock else ""
        activity = ask_inside(host, cluster, ACTIVITY, socket)
        if not activity.is_accepted:
            titles = titles_of(host, held)
            open_ones, senders = open_titles(titles), standby_titles(titles)
            return Standing(identity, open_ones, [], [], senders, is_known=False)
        working = [row for row in activity.rows if row["since"]]
        prepared = ask_inside(host, cluster, PREPARED, socket).rows
        slots = ask_inside(host, cluster, SLOTS, socket).rows
        standbys = ask_inside(host, cluster, STANDBYS, socket).rows
        return Standing(
            identity,
            told_sessions(working),
            [f"{row['gid']} of {row['user']} since {row['since']}" for row in prepared],
            [f"{row['slot']} ({row['kind']}), holds {row['held_bytes']} bytes" for row in slots],
            sorted(f"{row['name']} {row['client']}" for row in standbys),
            is_known=True,
        )


def open_titles(titles: list[str]) -> list[str]:
    """Sessions that do not say that they are idle, from the titles of their processes.

    `postgres: 15/main: registry registry 10.0.0.9(40112) idle in transaction`
    """
    clients = [title for title in titles if title.startswith("postgres: ")]
    own = [title for title in clients if any(name in title for name in OWN_PROCESSES)]
    return [title for title in clients if title not in own and not title.endswith(IDLE)]


def standby_titles(titles: list[str]) -> list[str]:
    """Standbys by the titles of the processes that send to them."""
    return [title for title in titles if "walsender" in title]


def refuse_open_transactions(order: DatabaseOrder, finding: Finding) -> None:
    """Refuse a restart that would roll transactions back, unless that is accepted."""
    if Acceptable.OPEN_TRANSACTIONS in order.accept:
        return
    now = standing.fn(order, finding)
    if now.open_sessions:
        raise Refused(
            order.label,
            "a restart would roll back what these sessions have begun: "
            + "; ".join(now.open_sessions[:20]),
            f"Let them end, or accept it with accept=['{Acceptable.OPEN_TRANSACTIONS}']",
        )


def refuse_unless_restart_mends(order: DatabaseOrder, finding: Finding, before: Standing) -> None:
    """Refuse a restart whose cause went by or became another one since it was found."""
    if is_restarted(order, finding, before) is not Verdict.NOT_DONE:
        if not is_under_way(order, finding, before):
            refuse_unstartable(order, finding)
        return
    now = diagnose(order)
    if now.remedy is Remedy.RESTART:
        return
    advice = {
        Remedy.NOTHING: "Resume: it ends without a restart while the server answers",
        Remedy.REFUSE: now.advice,
    }.get(now.remedy, "Start a new recovery: it does what this cause wants, and restarts nothing")
    raise Refused(order.label, f"no restart mends what is found now, {now}", advice)


def refuse_without_program(order: DatabaseOrder, finding: Finding) -> None:
    """Refuse to restart behind the back of Patroni, where it cannot be asked to."""
    host, _ = place_of(order, finding)
    patroni = finding.patroni
    if patroni is None:
        return
    members = members_of(host, patroni)
    by_hand = " ".join(patroni.restart_argv)
    if not members.has_program:
        raise Refused(
            order.label,
            "Patroni supervises the server, and patronictl is not on its host: a restart by "
            "systemd would fight it",
            f"Where patronictl is, run `{by_hand}`",
        )
    if members.refusal or members.named(patroni.name) is None:
        raise Refused(
            order.label,
            f"Patroni cannot be asked to restart {patroni.name!r}: "
            f"{members.refusal or 'it knows no such member'}",
            f"Recover the store it keeps the leader in, then resume, or run `{by_hand}`",
        )


def restart_commands(order: DatabaseOrder, finding: Finding, before: Standing) -> Iterable[str]:
    """What restarts that process, by systemd or its Patroni; what starts it where it is gone."""
    host, _ = place_of(order, finding)
    argvs = [_restart_argv(finding, before)]
    if finding.patroni is None:
        argvs.append(systemctl("start", finding.unit))
    return [host.command_line(argv, as_root=True) for argv in argvs]


def is_restarted(order: DatabaseOrder, finding: Finding, before: Standing) -> Verdict:
    """Whether another process than before is the server; half done while one goes or comes."""
    host, cluster = place_of(order, finding)
    now = identity_of(host, holders_of(host, cluster).postmaster)
    if now and now != before.identity:
        return Verdict.DONE
    if not now or is_under_way(order, finding, before):
        return Verdict.HALF_DONE
    return Verdict.NOT_DONE


def is_mended(order: DatabaseOrder, finding: Finding, before: Standing) -> Verdict:
    """Whether it was restarted, or needs no restart any more: it lets the registry in."""
    state = is_restarted(order, finding, before)
    if state is Verdict.NOT_DONE and order.database.knock().answer is ConnectionAnswer.ACCEPTED:
        return Verdict.DONE
    return state


def is_under_way(order: DatabaseOrder, finding: Finding, before: Standing) -> bool:
    """Whether its supervisor was told to restart it, and has not ended that.

    Where the server of before is said to start, it was told to start, or recovers from a crash.
    """
    host, cluster = place_of(order, finding)
    if finding.patroni is not None:
        member = members_of(host, finding.patroni).named(finding.patroni.name)
        state = member.state if member is not None else ""
        is_starting, is_going = state == "starting", state in {"stopping", "restarting"}
    else:
        found = condition_of(host, cluster)
        is_starting = found.unit.state is UnitState.ACTIVATING
        is_going = found.is_job_queued or found.unit.state is UnitState.DEACTIVATING
    if not is_starting:
        return is_going
    return identity_of(host, holders_of(host, cluster).postmaster) != before.identity


@act(
    commands=restart_commands,
    done_when=is_mended,
    refuse_if=(refuse_without_program, refuse_unless_restart_mends, refuse_open_transactions),
    redo_half_done=True,
)
def restart_server(order: DatabaseOrder, finding: Finding, before: Standing) -> None:
    """Restart the server by a fast shutdown, and wait until it runs as another process.

    Every session is ended and every open transaction rolled back; what is committed or prepared
    stays. Done twice, or late, the second does nothing: the host compares the process itself. One
    that lets the registry in again by itself is left alone.

    Raises:
        Refused: no restart mends it any more, transactions are open, or Patroni cannot be asked.
        NotVerified: the fast shutdown does not end; carries what it waits for.
        CommandFailed: systemd or Patroni said no.
        Unreachable: no answer; it may go on.

    Runbook: docs/runbooks/registry-database.md, step 7.
    """
    host, cluster = place_of(order, finding)
    state = is_restarted(order, finding, before)
    is_gone = state is Verdict.HALF_DONE and not is_under_way(order, finding, before)
    if state is Verdict.NOT_DONE or is_gone:
        within = SHUTDOWN_WITHIN_SECONDS + 60
        argv = _restart_argv(finding, before)
        if is_gone and finding.patroni is None:
            argv = systemctl("start", finding.unit)  # one that starts by now stays as it is
        host.change(argv, within_seconds=within, accept=(0, OTHER_PROCESS), as_root=True)
    ends = time.monotonic() + SHUTDOWN_WITHIN_SECONDS
    while is_restarted(order, finding, before) is not Verdict.DONE:
        if time.monotonic() >= ends:
            raise _not_restarted(order, finding, before, holders_of(host, cluster))
        time.sleep(PAUSE_SECONDS)


def _restart_argv(finding: Finding, before: Standing) -> list[str]:
    if finding.cluster is None:
        raise TypeError("a server is restarted on its host only")
    patroni = finding.patroni
    argv = systemctl("restart", finding.unit) if patroni is None else patroni.restart_argv
    return bound(finding.cluster, before.identity, argv)


def _not_restarted(
    order: DatabaseOrder, finding: Finding, before: Standing, held: Holders
) -> NotVerified:
    host, _ = place_of(order, finding)
    unit = str(services.unit_status(host, finding.unit)) if finding.unit else "no unit"
    titles = "; ".join(titles_of(host, held))
    if identity_of(host, held.postmaster) != before.identity:
        return NotVerified(
            order.label,
            "a new server after the old one was gone",
            unit,
            f"See `journalctl -u {finding.unit}` on its host, then resume",
        )
    if held.is_going_down:
        return still_going_down(order, titles)
    return NotVerified(
        order.label,
        "the server to be gone after it was to be restarted",
        f"it runs on and does not shut down; {unit}; {titles}",
        "See `systemctl list-jobs` and the log on its host: what holds the restart up; then resume",
    )


@probe
def was_restarted(order: DatabaseOrder, finding: Finding, before: Standing) -> str:
    """What came of it: a restart, or nothing where the server answered again by itself.

    Raises:
        Unreachable: the host gave no answer.
    """
    if is_restarted(order, finding, before) is Verdict.DONE:
        return Remedy.RESTART
    return f"{Remedy.NOTHING}: it lets the registry in again without a restart"

"""Why the registry cannot use its database: asked at the door, from inside, then on the host."""

from blocks.postgres.answer import ConnectionAnswer
from blocks.postgres.server import Knock
from blocks.postgres.session import PostgresSession
from recovery.errors import CommandFailed, Refused
from recovery.steps import decision
from tasks.postgres_server.clusters import cluster_on_port
from tasks.postgres_server.condition import condition_of
from tasks.postgres_server.inside import ask_inside
from tasks.postgres_server.patroni import members_of, patroni_of
from tasks.postgres_server.primary import (
    NOT_SHOWN,
    PRIMARY,
    Role,
    primary_of,
    role_of,
    write_scratch,
)
from tasks.registry_database.causes import (
    AT_THE_DOOR,
    BY_CODE,
    STARTING,
    Cause,
    Finding,
    Reason,
    Remedy,
)
from tasks.registry_database.order import DatabaseOrder
from tasks.registry_database.running import judge_running
from tasks.registry_database.stopped import judge_stopped

DAMAGED_CLASS = "XX"


@decision
def find_cause(order: DatabaseOrder) -> Finding:
    """Why the database is not there, where this recovery can do something about it.

    A cause that it can do nothing about is not remembered: once it is mended, a resume looks again.

    Raises:
        Refused: no restart mends the cause; it is named, with its remedy.
        Unreachable: the host gave no answer.

    Runbook: docs/runbooks/registry-database.md, steps 1 to 3.
    """
    finding = diagnose(order)
    if finding.remedy is Remedy.REFUSE:
        raise Refused(order.label, str(finding), finding.advice)
    return finding


def diagnose(order: DatabaseOrder) -> Finding:
    """Why the database is not there.

    Raises:
        Refused: it is not clear which cluster of the host is meant.
        Unreachable: the host gave no answer.
    """
    knock = order.database.knock()
    if knock.answer is ConnectionAnswer.ACCEPTED:
        return Finding.of(judge_connectable(order))
    if knock.answer in AT_THE_DOOR:
        return Finding.of(Reason(AT_THE_DOOR[knock.answer], knock.text))
    if order.host is None:
        return Finding.of(judge_without_host(knock))
    with order.host.session():
        cluster = cluster_on_port(order.host, order.database.port, order.unit)
        patroni = patroni_of(order.host, cluster)
        condition = condition_of(order.host, cluster)
        if condition.held.postmaster is None:
            return judge_stopped(order.host, cluster, patroni, condition)
        reason = judge_running(order, order.host, knock, cluster, condition)
        if reason.cause is Cause.HUNG and answers(order):  # it was slow, and is not restarted
            return Finding.of(judge_connectable(order))
        return Finding.of(reason, cluster, patroni)


def answers(order: DatabaseOrder) -> bool:
    """Whether the server lets the registry in now."""
    return order.database.knock().answer is ConnectionAnswer.ACCEPTED


def judge_without_host(knock: Knock) -> Reason:
    """What can be said where nobody may look at the host."""
    if knock.answer in STARTING:
        return Reason(STARTING[knock.answer], knock.text)
    if knock.answer is ConnectionAnswer.TOO_MANY_CLIENTS:
        advice = "Give host=ssh://… to see whose sessions they are"
        return Reason(Cause.TOO_MANY_CLIENTS, knock.text, advice)
    return Reason(
        Cause.NO_HOST_GIVEN,
        f"{knock.answer}, {knock.text}",
        "Give host=ssh://…, where the server runs: only there the cause can be told",
    )


def judge_connectable(order: DatabaseOrder) -> Reason:
    """What a server that lets the registry in says of itself."""
    try:
        with order.database.connect() as session:
            role = role_of(session)
            if order.is_standby:
                return judge_standby(role, session)
            if role.is_in_recovery:
                return judge_not_primary(order, primary_of(session))
            write_scratch(session)
    except CommandFailed as failed:
        return judge_refused_write(failed)
    return Reason(Cause.CONNECTABLE, f"PostgreSQL {role.version} takes reads and writes")


def judge_standby(role: Role, session: PostgresSession) -> Reason:
    """Whether a server that is meant to be a standby is one."""
    if role.is_in_recovery:
        seen = f"a standby of {primary_of(session)}, as it is meant to be"
        return Reason(Cause.CONNECTABLE, seen)
    return Reason(
        Cause.NOT_A_STANDBY,
        "this server is meant to be a standby, and is a primary that takes writes",
        "Two primaries diverge: find out who promoted it, and keep writers away from one of the "
        "two before anything else",
    )


def judge_refused_write(failed: CommandFailed) -> Reason:
    """What a server means that lets the registry in and takes no writes."""
    code = str(failed.code)
    if code in BY_CODE:
        return Reason(BY_CODE[code], failed.tail)
    if code.startswith(DAMAGED_CLASS):
        advice = "L3: stop writers, copy the data folder, then look for a backup"
        return Reason(Cause.DAMAGED, failed.tail, advice)
    advice = "L3, with this text and the log of the server"
    return Reason(Cause.UNKNOWN, f"{failed.tail} ({code})", advice)


def judge_not_primary(order: DatabaseOrder, source: str) -> Reason:
    """Why a server that is meant to be a primary is in recovery."""
    if order.host is not None:
        cluster = cluster_on_port(order.host, order.database.port, order.unit)
        patroni = patroni_of(order.host, cluster)
        members = members_of(order.host, patroni) if patroni else None
        if patroni and members and members.refusal:
            return Reason(
                Cause.PATRONI_NO_STORE,
                "Patroni has made it read-only, because the store it keeps the leader in does not "
                f"answer: {members.refusal}",
                "Recover the store (etcd): Patroni promotes by itself then",
            )
        if patroni and members and members.has_program and not members.is_led_by_another(patroni):
            told = "; ".join(map(str, members.members))
            return Reason(
                Cause.PATRONI_NO_LEADER,
                f"no member of {patroni.scope} leads yet: {told}",
                f"See `{' '.join(patroni.argv('list'))}` and the log of Patroni; L3 decides on a "
                "failover",
            )
        if members and members.leader:
            source = str(members.leader)
        elif source == NOT_SHOWN:
            inside = ask_inside(order.host, cluster, PRIMARY)
            source = inside.rows[0]["source"] if inside.is_accepted else source
    return Reason(
        Cause.NOT_A_PRIMARY,
        f"this server is a standby and takes no writes; its primary is {source}",
        "Point the registry at the primary; where the primary is lost, L3 decides on a promotion. "
        "Give standby=true where a standby is meant",
    )

"""Why a server that runs does not let the registry in."""

from blocks.postgres.answer import ConnectionAnswer
from blocks.postgres.server import Knock
from blocks.ssh.host import SshHost
from tasks.postgres_server.clusters import Cluster
from tasks.postgres_server.condition import Condition, listeners
from tasks.postgres_server.inside import ACTIVITY, InsideAnswer, ask_inside, told_sessions
from tasks.postgres_server.process import titles_of
from tasks.registry_database.causes import SHORT_OF, STARTING, Cause, Reason
from tasks.registry_database.order import DatabaseOrder

LOOPBACK = ("127.0.0.1", "::1", "localhost")
TOLD_SESSIONS = 12
LISTENING = """
SELECT current_setting('listen_addresses') AS running, current_setting('port') AS port,
       (SELECT f.setting FROM pg_file_settings f WHERE f.name = 'listen_addresses'
        ORDER BY f.seqno DESC LIMIT 1) AS configured
"""
DEAD_TO_ALL = {ConnectionAnswer.SILENT, ConnectionAnswer.CLOSED}


def judge_running(
    order: DatabaseOrder, host: SshHost, knock: Knock, cluster: Cluster, found: Condition
) -> Reason:
    """Why it runs and the registry is not let in."""
    server = found.held.postmaster
    if server is not None and server.is_paused:
        return Reason(
            Cause.PAUSED,
            f"process {server.pid} was stopped by a signal or a debugger",
            f"Find out by whom; then `kill -CONT {server.pid}` and resume",
        )
    socket = found.held.lock.socket_folder if found.held.lock else ""
    inside = ask_inside(host, cluster, LISTENING, socket)
    if (coming := judge_coming(inside, found)) is not None:
        return coming
    if ConnectionAnswer.TOO_MANY_CLIENTS in {knock.answer, inside.answer}:
        return Reason(
            Cause.TOO_MANY_CLIENTS,
            f"{knock.text or inside.text}: {sessions_told(host, cluster, found, socket)}",
            "End idle ones with pg_terminate_backend(PID), and find which pool leaks; a restart "
            "ends all of them, and they come back",
        )
    for answer, text in ((knock.answer, knock.text), (inside.answer, inside.text)):
        if answer in SHORT_OF:
            return Reason(SHORT_OF[answer], text)
    if inside.answer in DEAD_TO_ALL:
        pid = server.pid if server else 0
        seen = f"process {pid} runs and answers nobody: {inside.text}; from here {knock.answer}"
        return Reason(Cause.HUNG, seen)
    return judge_way(order, host, knock, cluster, inside)


def judge_coming(inside: InsideAnswer, found: Condition) -> Reason | None:
    """Whether it is on its way up or down."""
    redo = found.log.last_redo or "no redo is logged"
    if inside.answer is ConnectionAnswer.SHUTTING_DOWN:
        return Reason(Cause.SHUTTING_DOWN, inside.text)
    if inside.answer in STARTING:
        return Reason(STARTING[inside.answer], f"{inside.text}; {redo}")
    if inside.answer is not ConnectionAnswer.STANDBY_CLOSED:
        return None
    return Reason(
        Cause.STANDBY_NOT_OPEN,
        inside.text,
        "It is a standby with hot_standby = off: point the registry at the primary",
    )


def judge_way(
    order: DatabaseOrder, host: SshHost, knock: Knock, cluster: Cluster, inside: InsideAnswer
) -> Reason:
    """What is wrong on the way to a server that works, as far as its host shows."""
    is_local = bool(order.database.via) and order.database.host in LOOPBACK
    at = [address for address, port, _ in listeners(host) if port == cluster.port]
    shown = ", ".join(at) or "no address"
    outside = f"from here port {order.database.port} is {knock.answer} ({knock.text})"
    if any(is_local or address not in LOOPBACK for address in at):
        if cluster.port != order.database.port:
            return Reason(
                Cause.LISTENS_ELSEWHERE,
                f"the server works and listens on port {cluster.port}; {outside}",
                "Correct the port, or mend the proxy that listens on the other",
            )
        return Reason(
            Cause.NETWORK_BLOCKED,
            f"the server works and listens on {shown}; {outside}",
            "Look at firewalls, security groups and proxies in between; the server is not touched",
        )
    if not inside.is_accepted:
        return Reason(
            Cause.UNKNOWN,
            f"it listens on {shown}, and cannot be asked from inside: {inside.text}; {outside}",
            "Let the account of the server in by `local all postgres peer` in pg_hba.conf, then "
            "resume",
        )
    row = inside.rows[0]
    configured = row["configured"] if row["configured"] is not None else row["running"]
    wants = [part.strip() for part in str(configured).split(",")]
    if any(part and part not in LOOPBACK for part in wants):
        return Reason(
            Cause.NOT_LISTENING,
            f"it is configured to listen on {configured!r} and listens on {shown}: the address was "
            "not there when it started, or the configuration changed since",
        )
    return Reason(
        Cause.LISTENS_ELSEWHERE,
        f"it listens on {shown}, as listen_addresses = {configured!r} says; {outside}",
        f"Set listen_addresses in {cluster.config or 'postgresql.conf'}, then resume: it is then "
        "restarted",
    )


def sessions_told(host: SshHost, cluster: Cluster, found: Condition, socket: str) -> str:
    """The sessions, oldest transaction first; by their processes where nobody gets in."""
    inside = ask_inside(host, cluster, ACTIVITY, socket)
    told = told_sessions(inside.rows) if inside.is_accepted else titles_of(host, found.held)
    more = f" and {len(told) - TOLD_SESSIONS} more" if len(told) > TOLD_SESSIONS else ""
    return "; ".join(told[:TOLD_SESSIONS]) + more

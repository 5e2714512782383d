"""Waiting for a server that comes up; a crash recovery is never interrupted."""

import re
import time

from blocks.postgres.answer import ConnectionAnswer
from blocks.postgres.server import Knock
from recovery.errors import NotVerified
from recovery.steps import verify
from recovery.walk import step_logger
from tasks.postgres_server.clusters import Cluster, cluster_on_port
from tasks.postgres_server.process import Holders, holders_of, titles_of
from tasks.postgres_server.server_log import read_log
from tasks.registry_database.order import DatabaseOrder

FIRST_PAUSE_SECONDS, LAST_PAUSE_SECONDS = 0.5, 10.0
GONE_WITHIN_SECONDS = 60.0
MINUTE_SECONDS = 60.0
RECOVERING = re.compile(r"startup +(recovering|waiting for) +(\S+)")
COMING = {
    ConnectionAnswer.STARTING_UP,
    ConnectionAnswer.CRASH_RECOVERY,
    ConnectionAnswer.NOT_ACCEPTING,
    ConnectionAnswer.STANDBY_CLOSED,
    ConnectionAnswer.SHUTTING_DOWN,
}
# What a server also says, or a proxy before it, in the moment in which it comes up.
NOT_THERE = {
    ConnectionAnswer.REFUSED,
    ConnectionAnswer.CLOSED,
    ConnectionAnswer.SILENT,
    ConnectionAnswer.TIMED_OUT,
    ConnectionAnswer.OTHER,
}


@verify
def comes_up(order: DatabaseOrder) -> str:
    """How long it took until the server let the registry in.

    Raises:
        NotVerified: it is not up in time, is gone again, or lets the registry not in.
        Unreachable: the host gave no answer.

    Runbook: docs/runbooks/registry-database.md, step 4.
    """
    began = time.monotonic()
    pause, told, missing_since = FIRST_PAUSE_SECONDS, "", began
    while True:
        knock = order.database.knock()
        now = time.monotonic()
        if knock.answer is ConnectionAnswer.ACCEPTED:
            return f"it let the registry in after {now - began:.0f} s"
        if knock.answer in COMING:
            missing_since = now
        elif knock.answer not in NOT_THERE:
            raise not_let_in(order, knock)
        progress, has_server = progress_of(order)
        if has_server:
            missing_since = now
        if progress != told:
            step_logger().info("%s: %s; %s", order.label, knock.text or knock.answer, progress)
            told = progress
        if now - missing_since >= GONE_WITHIN_SECONDS:
            raise not_up(
                order, knock, progress, "Nothing runs: mend what its log says, then resume"
            )
        if now - began >= order.within_minutes * MINUTE_SECONDS:
            advice = "It goes on: never restart it now, it would begin anew. Resume, which waits"
            raise not_up(order, knock, progress, advice)
        time.sleep(pause)
        pause = min(pause * 1.5, LAST_PAUSE_SECONDS)


def progress_of(order: DatabaseOrder) -> tuple[str, bool]:
    """How far the server is, and whether it runs at all; from outside nothing is known of that."""
    if order.host is None:
        return "how far it is shows on its host only", False
    with order.host.session():
        cluster = cluster_on_port(order.host, order.database.port, order.unit)
        held = holders_of(order.host, cluster)
        return told_progress(order, cluster, held), held.postmaster is not None


def told_progress(order: DatabaseOrder, cluster: Cluster, held: Holders) -> str:
    """Where the replay of its log is: the segment from its title, the rest from its log."""
    if order.host is None:
        raise TypeError("progress is read on the host")
    log = read_log(order.host, cluster)
    if held.postmaster is None:
        return f"no server runs; {log.last_severe or 'its log tells no reason'}"
    found = next(filter(None, map(RECOVERING.search, titles_of(order.host, held))), None)
    segment = f"replaying segment {found[2]}" if found else "no replay shown"
    return "; ".join(filter(None, [segment, log.last_redo]))


def not_let_in(order: DatabaseOrder, knock: Knock) -> NotVerified:
    """It is up, and something else keeps the registry out."""
    return NotVerified(
        order.label,
        "the server to let the registry in",
        f"it is up and says {knock.answer}: {knock.text}",
        "Start a new recovery: it tells this cause and its remedy",
    )


def not_up(order: DatabaseOrder, knock: Knock, progress: str, advice: str) -> NotVerified:
    """It is not there, and how far it is."""
    return NotVerified(
        order.label,
        f"the server to let the registry in within {order.within_minutes} minutes",
        f"{knock.answer} ({knock.text}); {progress}",
        advice,
    )

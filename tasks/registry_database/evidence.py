"""What L3 is handed: the log, the transactions, and what a person should know besides."""

from dataclasses import dataclass

from recovery.steps import probe
from tasks.postgres_server.clusters import cluster_on_port
from tasks.postgres_server.disk import megabytes, read_df
from tasks.postgres_server.inside import ACTIVITY, PREPARED, SLOTS, ask_inside, told_sessions
from tasks.postgres_server.server_log import read_log, severe_in
from tasks.registry_database.order import DatabaseOrder

LONG = """
SELECT pid, coalesce(usename, '') AS "user", coalesce(application_name, '') AS application,
       coalesce(host(client_addr), 'local') AS client, coalesce(state, '') AS state,
       '' AS wait, xact_start::timestamp(0)::text AS since, left(query, 120) AS query
FROM pg_stat_activity
WHERE xact_start < clock_timestamp() - interval '5 minutes'
  AND pid <> pg_backend_pid()
ORDER BY xact_start
"""
FIELDS = ("pid", "user", "application", "client", "state", "wait", "since", "query")


@dataclass(frozen=True)
class ForL3:
    """What is known of the server. Empty lists of `notes` and `transactions` are good news."""

    log: list[str]
    transactions: list[str]
    notes: list[str]


@probe
def for_l3(order: DatabaseOrder) -> ForL3:
    """The log, the long transactions, prepared ones, replication slots and the disk.

    Raises:
        Unreachable: the server or its host gave no answer.

    Runbook: docs/runbooks/registry-database.md, step 1.
    """
    if order.host is None:
        with order.database.connect() as session:
            rows = [dict(zip(FIELDS, row, strict=True)) for row in session.rows(LONG)]
        return ForL3([], told_sessions(rows), ["the log shows on its host only: give host=ssh://…"])
    with order.host.session():
        cluster = cluster_on_port(order.host, order.database.port, order.unit)
        log = read_log(order.host, cluster)
        long = ask_inside(order.host, cluster, LONG)
        prepared = ask_inside(order.host, cluster, PREPARED)
        slots = ask_inside(order.host, cluster, SLOTS)
        disk = read_df(order.host, [cluster.data_folder])[0]
        sessions = ask_inside(order.host, cluster, ACTIVITY)
    notes = [
        f"{megabytes(disk.free_bytes)} are left on {disk.mount}",
        f"{len(sessions.rows)} sessions",
        *([] if long.is_accepted else [f"it was not asked from inside: {long.text}"]),
        *(f"prepared transaction {row['gid']} since {row['since']}" for row in prepared.rows),
        *(
            f"replication slot {row['slot']} is not in use and holds {row['held_bytes']} bytes"
            for row in slots.rows
            if not row["active"]
        ),
    ]
    lines = [*severe_in(log.lines), *log.lines[-15:]]
    return ForL3(list(dict.fromkeys(lines)), told_sessions(long.rows), notes)

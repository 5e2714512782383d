"""Asking a server from its own host, as its own superuser, where nobody else gets in any more."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from blocks.postgres.answer import ConnectionAnswer, answer_in
from blocks.ssh.host import SshHost
from recovery.errors import UnreadableOutput
from tasks.postgres_server.clusters import Cluster, as_owner

CONNECT_WITHIN_SECONDS = 5
ANSWER_WITHIN_SECONDS = 20
TIMED_OUT = 124  # what `timeout` ends with
NO_CONNECTION = 2  # what psql ends with

ACTIVITY = """
SELECT pid, coalesce(usename, '') AS "user", coalesce(application_name, '') AS application,
       coalesce(host(client_addr), 'local') AS client, coalesce(state, '') AS state,
       coalesce(wait_event_type, '') AS wait, coalesce(to_char(xact_start AT TIME ZONE 'UTC',
       'YYYY-MM-DD HH24:MI:SS'), '') AS since, left(query, 120) AS query
FROM pg_stat_activity
WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()
ORDER BY xact_start NULLS LAST, pid LIMIT 200
"""
PREPARED = 'SELECT gid, owner AS "user", database, prepared::text AS since FROM pg_prepared_xacts'
SLOTS = """
SELECT slot_name AS slot, slot_type AS kind, active,
       coalesce(pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_receive_lsn()
         ELSE pg_current_wal_lsn() END, restart_lsn), 0)::bigint AS held_bytes
FROM pg_replication_slots
"""
STANDBYS = """
SELECT application_name AS name, coalesce(host(client_addr), 'local') AS client, state
FROM pg_stat_replication
"""
LISTENING = """
SELECT current_setting('listen_addresses') AS listen, current_setting('port') AS port,
       pg_is_in_recovery() AS in_recovery, EXISTS (SELECT 1 FROM pg_file_settings f
         JOIN pg_settings s USING (name) WHERE f.name = 'listen_addresses' AND s.pending_restart)
       AS is_pending
"""


@dataclass(frozen=True)
class InsideAnswer:
    """How asking from the host ended. `rows` are empty unless it was accepted."""

    answer: ConnectionAnswer
    text: str
    rows: tuple[dict[str, Any], ...] = ()

    @property
    def is_accepted(self) -> bool:
        """Whether it answered the question."""
        return self.answer is ConnectionAnswer.ACCEPTED


def ask_inside(host: SshHost, cluster: Cluster, sql: str, socket_folder: str = "") -> InsideAnswer:
    """Ask a server through its local socket as the account that runs it.

    Superusers have connections in reserve, so that this works where others are told that there are
    too many clients. What a server says no to is an answer.

    Raises:
        UnreadableOutput: psql printed no JSON.
        Unreachable: the host gave no answer.
    """
    question = f"SELECT coalesce(json_agg(t), '[]') FROM ({sql.strip()}) AS t"  # noqa: S608 (ours)
    settings = [
        "LC_ALL=C",
        f"PGCONNECT_TIMEOUT={CONNECT_WITHIN_SECONDS}",
        f"PGPORT={cluster.port}",
        "PGDATABASE=postgres",
        "PGAPPNAME=recover",
        *([f"PGHOST={socket_folder}"] if socket_folder else []),
    ]
    psql = ["timeout", str(ANSWER_WITHIN_SECONDS), "env", *settings]
    psql += ["psql", "-X", "-A", "-t", "-q", "-w", "-v", "ON_ERROR_STOP=1", "-c", question]
    printed = host.read(
        as_owner(cluster.owner, psql),
        accept=(0, 1, NO_CONNECTION, 3, TIMED_OUT),
        within_seconds=ANSWER_WITHIN_SECONDS + 20,
        as_root=True,
    )
    text = " ".join(printed.stderr.split())
    if printed.exit_code == TIMED_OUT:
        return InsideAnswer(ConnectionAnswer.SILENT, "it took the connection and did not answer")
    if printed.exit_code != 0:
        answer = answer_in(text)
        if answer is ConnectionAnswer.TIMED_OUT:  # a local socket takes everybody in
            answer = ConnectionAnswer.SILENT
        return InsideAnswer(answer, text)
    try:
        return InsideAnswer(ConnectionAnswer.ACCEPTED, "", tuple(json.loads(printed.whole())))
    except (ValueError, TypeError) as error:
        raise UnreadableOutput("psql", printed.stdout) from error


def told_sessions(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The sessions in one line each, oldest transaction first."""
    return [
        f"process {row['pid']} of {row['user']} from {row['client']}"
        + (f" ({row['application']})" if row["application"] else "")
        + f", {row['state'] or 'state unknown'}"
        + (f", transaction since {row['since']} UTC" if row["since"] else "")
        + f", last statement {' '.join(row['query'].split())!r}"
        for row in rows
    ]

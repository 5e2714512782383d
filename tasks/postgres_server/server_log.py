"""The log of a server: where it is, its end, and what in it says why the server is not there."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from blocks.ssh.host import SshHost
from tasks.postgres_server.clusters import Cluster

LINES = 200
TOLD_LINES = 15
SEVERE = re.compile(r"\b(FATAL|PANIC):\s+(.*)")
# What clients are told is FATAL too, and says nothing of why a server is not there.
TO_CLIENTS = re.compile(
    r"the database system is|authentication failed|no pg_hba|terminating (connection|walreceiver)"
    r"|too many clients|remaining connection slots|does not exist|unsupported frontend|pg_hba.conf"
    r"|could not (receive|send) data|canceling authentication|expected SASL|connection to client"
)
BEGINS = re.compile(r"starting PostgreSQL|systemd\[1\]: Starting ")  # in its log, or the journal
REDO = re.compile(r"redo (starts|in progress|done).*")


@dataclass(frozen=True)
class ServerLog:
    """The end of a log. `written_at` is when its last line was, in seconds of the epoch."""

    source: str
    lines: tuple[str, ...]
    written_at: float = 0.0

    @property
    def last_run(self) -> tuple[str, ...]:
        """The lines since the server was last started, or tried to be."""
        begins = [n for n, line in enumerate(self.lines) if BEGINS.search(line)]
        return self.lines[begins[-1] :] if begins else self.lines

    @property
    def last_severe(self) -> str:
        """The last thing that ended a server, or kept it from starting; empty for none."""
        for line in reversed(self.lines):
            found = SEVERE.search(line)
            if found and not TO_CLIENTS.search(line):
                return f"{found[1]}: {found[2]}"
        return ""

    @property
    def last_redo(self) -> str:
        """How far the replay of the write-ahead log was when it was last told."""
        return next((m[0] for line in reversed(self.last_run) if (m := REDO.search(line))), "")

    def with_word(self, pattern: str) -> str:
        """The last line in which this is found; empty for none."""
        return next((line for line in reversed(self.lines) if re.search(pattern, line)), "")

    def tail(self, count: int = TOLD_LINES) -> str:
        """The last lines, for a person."""
        return "\n".join(self.lines[-count:])


def read_log(host: SshHost, cluster: Cluster, lines: int = LINES) -> ServerLog:
    """The end of the log of a cluster, from its file or else from the journal of its unit.

    Raises:
        Unreachable: the host gave no answer.
    """
    if cluster.log:
        printed = host.read(
            ["tail", "-n", str(lines), "--", cluster.log], accept=(0, 1), as_root=True
        )
        if printed.exit_code == 0 and printed.stdout.strip():
            stat = host.read(["stat", "-c", "%Y", "--", cluster.log], accept=(0, 1), as_root=True)
            written_at = float(stat.stdout.strip() or 0)
            return ServerLog(cluster.log, tuple(printed.stdout.splitlines()), written_at)
    return read_journal(host, cluster.unit, lines)


def read_journal(host: SshHost, unit: str, lines: int = LINES) -> ServerLog:
    """The end of what a unit wrote to the journal of its host."""
    argv = ["journalctl", "--no-pager", "-q", "-o", "short-unix", "-n", str(lines), "-u", unit]
    printed = host.read(argv, accept=(0, 1), as_root=True, within_seconds=30)
    return parse_journal(f"journal of {unit}", printed.stdout)


def parse_journal(source: str, printed: str) -> ServerLog:
    """Read what `journalctl -o short-unix` prints (systemd 219 to 257).

    1795241238.123456 db1 postgresql@15-main[139]: pg_ctl: could not start server
    """
    lines = printed.splitlines()
    last = lines[-1].partition(" ")[0] if lines else ""
    written_at = float(last) if re.fullmatch(r"\d+(\.\d+)?", last) else 0.0
    return ServerLog(source, tuple(line.partition(" ")[2] for line in lines), written_at)


def severe_in(lines: Sequence[str]) -> list[str]:
    """What in these lines ended a server or kept it from starting."""
    return [line for line in lines if SEVERE.search(line) and not TO_CLIENTS.search(line)]

"""Why the registry's database is not there: every cause by name, and what may be done about it."""

from dataclasses import dataclass
from enum import StrEnum

from blocks.postgres.answer import ConnectionAnswer
from tasks.postgres_server.clusters import Cluster
from tasks.postgres_server.patroni import Patroni


class Remedy(StrEnum):
    """What a recovery does about a cause."""

    NOTHING = "nothing"
    WAIT = "wait"
    START = "start"
    RESTART = "restart"
    REFUSE = "refuse"


class Cause(StrEnum):
    """What was found. The words are those of the runbook."""

    CONNECTABLE = "connectable"
    NAME_NOT_RESOLVED = "name-not-resolved"
    NO_ROUTE = "no-route"
    NETWORK_BLOCKED = "network-blocked"
    LISTENS_ELSEWHERE = "listens-elsewhere"
    NOT_POSTGRES = "not-postgres"
    CLOSED = "closed-without-an-answer"
    TLS_NOT_OFFERED = "tls-not-offered"
    TLS_FAILED = "tls-failed"
    NO_HBA_ENTRY = "no-pg-hba-entry"
    PASSWORD_REFUSED = "password-refused"  # noqa: S105 (no password)
    LOGIN_REFUSED = "login-refused"
    DATABASE_MISSING = "database-missing"
    TOO_MANY_CLIENTS = "too-many-clients"
    DISK_FULL = "disk-full"
    WAL_DISK_FULL = "wal-disk-full"
    OUT_OF_MEMORY = "out-of-memory"
    READ_ONLY = "read-only"
    DAMAGED = "damaged"
    NOT_A_PRIMARY = "not-a-primary"
    NOT_A_STANDBY = "not-a-standby"
    STANDBY_NOT_OPEN = "standby-not-open"
    STARTING_UP = "starting-up"
    CRASH_RECOVERY = "crash-recovery"
    SHUTTING_DOWN = "shutting-down"
    NOT_LISTENING = "not-listening"
    HUNG = "hung"
    PAUSED = "paused"
    STOPPED = "stopped"
    CRASHED = "crashed"
    START_LIMIT = "start-limit-hit"
    STALE_LOCK_FILE = "stale-lock-file"
    UNIT_MASKED = "unit-masked"
    START_TIMES_OUT = "start-times-out"
    DATA_FOLDER_MISSING = "data-folder-missing"
    DATA_FOLDER_PERMISSION = "data-folder-permission"
    DATA_FOLDER_READ_ONLY = "data-folder-read-only"
    ORPHANED_PROCESSES = "orphaned-processes"
    CONTROL_FILE_DAMAGED = "control-file-damaged"
    WILL_NOT_START = "will-not-start"
    CONFIGURATION_WRONG = "configuration-wrong"
    PORT_TAKEN = "port-taken"
    PATRONI_STOPPED = "patroni-stopped"
    PATRONI_STARTS_IT = "patroni-starts-it"
    PATRONI_NO_STORE = "patroni-no-dcs"
    PATRONI_PAUSED = "patroni-paused"
    PATRONI_NO_LEADER = "patroni-no-leader"
    PATRONI_MEMBER_MISSING = "patroni-member-missing"
    NO_HOST_GIVEN = "no-host-given"
    UNKNOWN = "unknown"


MENDED = {
    Cause.CONNECTABLE: Remedy.NOTHING,
    Cause.STARTING_UP: Remedy.WAIT,
    Cause.CRASH_RECOVERY: Remedy.WAIT,
    Cause.PATRONI_STARTS_IT: Remedy.WAIT,
    Cause.STOPPED: Remedy.START,
    Cause.CRASHED: Remedy.START,
    Cause.START_LIMIT: Remedy.START,
    Cause.STALE_LOCK_FILE: Remedy.START,
    Cause.SHUTTING_DOWN: Remedy.START,
    Cause.PATRONI_STOPPED: Remedy.START,
    Cause.HUNG: Remedy.RESTART,
    Cause.NOT_LISTENING: Remedy.RESTART,
}

# What the server says at the door that needs no look at its host.
AT_THE_DOOR = {
    ConnectionAnswer.NAME_NOT_RESOLVED: Cause.NAME_NOT_RESOLVED,
    ConnectionAnswer.NO_ROUTE: Cause.NO_ROUTE,
    ConnectionAnswer.NOT_POSTGRES: Cause.NOT_POSTGRES,
    ConnectionAnswer.TLS_NOT_OFFERED: Cause.TLS_NOT_OFFERED,
    ConnectionAnswer.TLS_FAILED: Cause.TLS_FAILED,
    ConnectionAnswer.NO_HBA_ENTRY: Cause.NO_HBA_ENTRY,
    ConnectionAnswer.PASSWORD_REFUSED: Cause.PASSWORD_REFUSED,
    ConnectionAnswer.LOGIN_REFUSED: Cause.LOGIN_REFUSED,
    ConnectionAnswer.DATABASE_MISSING: Cause.DATABASE_MISSING,
}
STARTING = {
    ConnectionAnswer.STARTING_UP: Cause.STARTING_UP,
    ConnectionAnswer.CRASH_RECOVERY: Cause.CRASH_RECOVERY,
    ConnectionAnswer.NOT_ACCEPTING: Cause.STARTING_UP,
}
SHORT_OF = {
    ConnectionAnswer.DISK_FULL: Cause.DISK_FULL,
    ConnectionAnswer.OUT_OF_MEMORY: Cause.OUT_OF_MEMORY,
}
BY_CODE = {  # of a server that lets the registry in and takes no writes
    "25006": Cause.READ_ONLY,
    "53100": Cause.DISK_FULL,
    "53200": Cause.OUT_OF_MEMORY,
}
ADVICE = {
    Cause.NAME_NOT_RESOLVED: "Mend DNS or /etc/hosts on the worker, and for the registry, or give "
    "the address",
    Cause.NO_ROUTE: "Mend the route from here to the host; the server was not asked",
    Cause.NOT_POSTGRES: "Something else answers on this port: correct the port, or find out what "
    "took it",
    Cause.TLS_NOT_OFFERED: "Set ssl = on with a certificate on the server, or correct sslmode here",
    Cause.TLS_FAILED: "Correct the CA (tls_ca_file), the name, or the certificate of the server, "
    "which may have run out",
    Cause.NO_HBA_ENTRY: "Add to pg_hba.conf a line `host DATABASE USER ADDRESS/32 scram-sha-256` "
    "for what is told above, then `SELECT pg_reload_conf()`",
    Cause.PASSWORD_REFUSED: "Correct the password that the worker holds and that of the registry, "
    "or set it with `ALTER ROLE ... PASSWORD`",
    Cause.LOGIN_REFUSED: "Correct the account, or let it in: `CREATE ROLE`, `ALTER ROLE ... LOGIN`,"
    " `GRANT CONNECT ON DATABASE`",
    Cause.DATABASE_MISSING: "Correct the name; where the database was dropped, L3 must restore it",
    Cause.READ_ONLY: "Find out who made it read-only, and why, before that is taken back",
    Cause.DISK_FULL: "Make room where the message says; never delete in pg_wal",
    Cause.OUT_OF_MEMORY: "See what takes the memory of the host: `ps aux --sort -rss`",
}


@dataclass(frozen=True)
class Reason:
    """A cause, what told so, and what to do about it where nothing is done."""

    cause: Cause
    seen: str
    advice: str = ""


@dataclass(frozen=True)
class Finding:
    """What was found, and on which cluster.

    Attributes:
        cause: its name.
        seen: what told so.
        advice: what to do about it where nothing is done.
        cluster: the cluster on the host; `None` where the host was not looked at.
        patroni: its supervisor, where it has one.
    """

    cause: Cause
    seen: str
    advice: str = ""
    cluster: Cluster | None = None
    patroni: Patroni | None = None

    @classmethod
    def of(
        cls, reason: Reason, cluster: Cluster | None = None, patroni: Patroni | None = None
    ) -> "Finding":
        """What was found on this cluster."""
        advice = reason.advice or ADVICE.get(reason.cause, "")
        return cls(reason.cause, reason.seen, advice, cluster, patroni)

    @property
    def remedy(self) -> Remedy:
        """What is done about it."""
        return MENDED.get(self.cause, Remedy.REFUSE)

    @property
    def unit(self) -> str:
        """The unit that is started: Patroni's where Patroni supervises the server."""
        if self.patroni is not None:
            return self.patroni.unit
        return self.cluster.unit if self.cluster else ""

    def __str__(self) -> str:
        """Cause and what told so."""
        return f"{self.cause}: {self.seen}"

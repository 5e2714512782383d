"""Why a Redis does not do its work, and which cure is due; what no cure is known for is refused."""

from dataclasses import dataclass
from enum import StrEnum

from blocks.redis_session import HungUp, RedisSaidNo, Silent
from recovery.errors import Unreachable
from recovery.steps import decision
from tasks.redis_server import logs, starting, units
from tasks.redis_server.causes import Cause
from tasks.redis_server.settings import running_settings
from tasks.redis_server.status import Info, parse_info
from tasks.redis_server.storage import ROOM_BYTES, storage_of
from tasks.redis_server.target import Listener, RedisServer, refusal
from tasks.redis_server.units import Process, RedisUnit
from tasks.services import UnitState

PONG = "PONG"
SILENT = "SILENT"
STOPPED = "T"
HUNG_UP = "HUNG-UP"
REPLICAS_WANTED = "min-replicas-to-write"
REPLICAS_WANTED_BEFORE = "min-slaves-to-write"  # up to Redis 4
TIMES_ASKED = 3  # a command may take long, and that is not frozen
GONE_BY_THEMSELVES = {UnitState.DEACTIVATING, UnitState.ACTIVATING, UnitState.RELOADING}
NOTHING_CHANGED = "Then start this recovery again"


class Finding(StrEnum):
    """What is the matter, where one of the cures of the runbook is due."""

    WELL = "well"
    LOADING = "loading"
    STOPPED_BY_SIGNAL = "stopped-by-signal"
    SCRIPT_RUNS = "script-runs"
    NOT_SAVED = "not-saved"
    NOT_RUNNING = "not-running"
    RESTART_ORDERED = "restart-ordered"
    FROZEN = "frozen"


@dataclass(frozen=True)
class Due:
    """The finding that a recovery acts on, and what it was found at."""

    finding: Finding
    unit: str
    process: Process
    saw: str


@dataclass(frozen=True)
class Spoken:
    """What came back from `PING`: PONG, the word an error begins with, or how it stayed away."""

    word: str
    text: str = ""


@decision
def cure_due(server: RedisServer, *, restart: bool, accept: tuple[str, ...] = ()) -> Due:
    """What is the matter and which cure is due; nothing is remembered of what is refused.

    Raises:
        Refused: no cure of the runbook helps; names the cause and the remedy.
        Unreachable: the host gives no answer, or systemd is in the middle of something.

    Runbook: docs/runbooks/redis.md, step 1.
    """
    unit = units.find_unit(server)
    if unit.is_masked:
        raise refusal(
            server, Cause.MASKED, f"{unit.name} is masked: somebody wants it not to run",
            f"Find out who and why; then `systemctl unmask {unit.name}`",
        )  # fmt: skip
    listeners = server.listeners()
    if not listeners:
        return _not_listening(server, unit, accept)
    refuse_stranger(server, unit, listeners)
    spoken = ask(server, listeners[0].address)
    if spoken.word == SILENT:
        return _silent(server, unit)
    _refuse_word(server, spoken, listeners[0])
    return _answering(server, unit, spoken, restart=restart)


def ask(server: RedisServer, address: str, times: int = TIMES_ASKED) -> Spoken:
    """Ask `PING` until something comes back, some times at most.

    Raises:
        Unreachable: the host gives no answer.
    """
    spoken = Spoken(SILENT)
    for _ in range(times):
        try:
            with server.session(address) as session:
                return Spoken(str(session.read("PING")))
        except Silent as silent:
            spoken = Spoken(SILENT, silent.seen)
        except RedisSaidNo as no:
            return Spoken(no.word, no.tail)
        except HungUp as hung_up:
            return Spoken(HUNG_UP, hung_up.seen)
    return spoken


def refuse_stranger(server: RedisServer, unit: RedisUnit, listeners: list[Listener]) -> None:
    """Refuse where the port belongs to another process than those of the unit.

    Raises:
        Refused: it does.
    """
    pids = {one.pid for one in listeners}
    if not pids - {0} or unit.process.pid in pids:
        return
    owner = units.unit_of_process(server, listeners[0].pid)
    if owner.name == unit.name:
        return
    first = listeners[0]
    raise refusal(
        server, Cause.PORT_TAKEN,
        f"port {server.port} is held by {first.name} (process {first.pid}, {owner.name}), "
        f"not by {unit.name}",
        f"Stop {owner.name} or give one of them another port. {NOTHING_CHANGED}",
    )  # fmt: skip


def _not_listening(server: RedisServer, unit: RedisUnit, accept: tuple[str, ...]) -> Due:
    state = unit.status.state
    if state is UnitState.ACTIVE:
        raise Unreachable(
            server.label,
            f"tcp port {server.port}",
            f"{unit.status} with process {unit.process.pid}, and does not listen there",
            f"See where it listens with `ss -ltnp | grep pid={unit.process.pid}`; its "
            "configuration may have been changed since it started. Name that port",
        )
    if state in GONE_BY_THEMSELVES and unit.status.sub_state != "auto-restart":
        raise Unreachable(
            server.label, unit.name, f"systemd is still at it: {unit.status}", "Wait, then resume"
        )
    starting.refuse_unless_startable(server, unit, accept)
    return Due(Finding.NOT_RUNNING, unit.name, unit.process, str(unit.status))


def _silent(server: RedisServer, unit: RedisUnit) -> Due:
    told = f"process {unit.process.pid} accepts connections and answers none"
    state = refuse_held(server, unit)
    if state == STOPPED:
        return Due(Finding.STOPPED_BY_SIGNAL, unit.name, unit.process, f"{told}: it is stopped")
    raise refusal(
        server, Cause.NO_ANSWER,
        f"{told} within {TIMES_ASKED} times {server.answer_within_seconds:g} s (state {state})",
        "One long command may hold it: give it more time and start again. To end the process, "
        "`recover plan end-frozen-redis` with the same host and port",
    )  # fmt: skip


def refuse_held(server: RedisServer, unit: RedisUnit) -> str:
    """The state of a process that does not answer; refuse where no signal of ours would help.

    Raises:
        Refused: it waits for a disk, a debugger holds it, or its control group is frozen.
    """
    state = starting.process_state(server, unit.process.pid)
    told = f"process {unit.process.pid} accepts connections and answers none"
    if unit.is_frozen:
        raise refusal(
            server, Cause.FREEZER, f"{told}: its control group is frozen",
            f"Find out who froze it; then `systemctl thaw {unit.name}`",
        )  # fmt: skip
    if state == "t":
        raise refusal(server, Cause.TRACED, f"{told}: a debugger holds it", "End the debugger")
    if state == "D":
        raise refusal(
            server, Cause.DISK_HANGS, f"{told}: it waits for a disk that does not answer",
            "Mend the storage; no signal reaches the process before that",
        )  # fmt: skip
    return state


def _refuse_word(server: RedisServer, spoken: Spoken, listener: Listener) -> None:
    """Refuse on answers that say that it runs and why it does not serve us."""
    text, port = spoken.text, server.port
    if spoken.word == "NOAUTH":
        raise refusal(
            server, Cause.NO_PASSWORD, f"it runs and asks for a password ({text})",
            "Name the file with its password in password_file",
        )  # fmt: skip
    if spoken.word == "WRONGPASS" or "invalid password" in text or "without any password" in text:
        raise refusal(
            server, Cause.WRONG_PASSWORD, f"it runs and does not take this password ({text})",
            "Correct the password in password_file; do not restart Redis for it",
        )  # fmt: skip
    if spoken.word == "NOPERM":
        raise refusal(server, Cause.NO_RIGHT, text, "Give this account +ping +info +config|get")
    if spoken.word == "DENIED":
        raise refusal(server, Cause.PROTECTED, text, "Give it a password, or bind it to loopback")
    if spoken.word == "CLIENTS":
        raise refusal(
            server, Cause.CLIENTS, f"it takes no more clients; most connections come from "
            f"{logs.peers(server)}",
            "Find out which of them leaks connections and restart that one; `maxclients` can be "
            "raised, and `timeout` ends idle connections",
        )  # fmt: skip
    if spoken.word == HUNG_UP:
        raise refusal(
            server, Cause.NO_REDIS,
            f"{listener.name} (process {listener.pid}) on port {port} hangs up: {text}",
            "If it speaks TLS, name its CA in tls_ca_file; else correct the port",
        )  # fmt: skip


def _answering(server: RedisServer, unit: RedisUnit, spoken: Spoken, *, restart: bool) -> Due:
    process = unit.process
    if spoken.word == "BUSY":
        return Due(Finding.SCRIPT_RUNS, unit.name, process, spoken.text)
    with server.session() as session:
        info = parse_info(str(session.read("INFO")))
    if info.is_loading:
        return Due(Finding.LOADING, unit.name, process, f"{info.loaded_percent:.0f} % loaded")
    if unit.status.state is UnitState.DEACTIVATING:
        raise Unreachable(
            server.label, unit.name, f"{unit.status}: somebody is stopping it",
            "Wait until it has stopped, then resume. Where it cannot save it does not stop: see "
            "its log",
        )  # fmt: skip
    _refuse_full_memory(server, info)
    if not info.is_link_up:
        raise refusal(
            server, Cause.LINK_DOWN, f"it is a replica and has no link to its master {info.master}",
            "Recover the master; if that is well, see masterauth and the network between them",
        )  # fmt: skip
    _refuse_few_replicas(server, info)
    if spoken.word == "MISCONF" or not (info.last_save_is_ok and info.aof_write_is_ok):
        return _not_saving(server, unit, info)
    finding = Finding.RESTART_ORDERED if restart else Finding.WELL
    return Due(finding, unit.name, process, f"{info.role} with {info.total_keys} keys")


def _refuse_full_memory(server: RedisServer, info: Info) -> None:
    if info.is_memory_full:
        free = logs.available_memory_bytes(server)
        raise refusal(
            server, Cause.MEMORY_FULL,
            f"{info.used_bytes} of {info.maxmemory_bytes} bytes (maxmemory) are used, and policy "
            f"noeviction lets nothing go; the host has {free} bytes available",
            "Delete keys or let them expire, or raise maxmemory where the host has the memory; "
            "a restart loads the same keys again",
        )  # fmt: skip


def _refuse_few_replicas(server: RedisServer, info: Info) -> None:
    """Refuse to call it well where every write gets NOREPLICAS, which no restart cures."""
    if not info.is_master or info.good_replicas < 0:
        return
    with server.session() as session:
        _, said = running_settings(session)
    wanted = int(said.get(REPLICAS_WANTED) or said.get(REPLICAS_WANTED_BEFORE) or 0)
    if info.good_replicas < wanted:
        raise refusal(
            server, Cause.NO_REPLICAS,
            f"it takes no writes (NOREPLICAS): {info.good_replicas} replicas follow it closely, "
            f"and {REPLICAS_WANTED} asks for {wanted}",
            "Recover its replicas; where it may take writes without them, `CONFIG SET "
            f"{REPLICAS_WANTED} {info.good_replicas}`",
        )  # fmt: skip


def _not_saving(server: RedisServer, unit: RedisUnit, info: Info) -> Due:
    """A save is due where the cause is gone; else refuse and name it."""
    with server.session() as session:
        running, _ = running_settings(session)
    storage = storage_of(server.host, running, unit.user)
    largest = storage.snapshot.size_bytes if storage.snapshot else 0
    needed = max(largest, info.used_bytes) + ROOM_BYTES
    if why := storage.why_not_writable(unit.user or "root", needed):
        cause, text, remedy = why
        raise refusal(server, cause, f"it cannot save (MISCONF): {text}", f"{remedy}. Then resume")
    sign = next((sign for sign in reversed(logs.signs(server, unit, running.log))), None)
    if sign and sign.cause is Cause.NO_FORK and not logs.may_fork(server, info.used_bytes):
        raise refusal(
            server, Cause.NO_FORK, f"it cannot save (MISCONF): {sign.text}",
            "`sysctl vm.overcommit_memory=1` (and in /etc/sysctl.conf), or free memory",
        )  # fmt: skip
    if sign and sign.cause is Cause.READ_ONLY:
        raise refusal(
            server, Cause.READ_ONLY, f"it cannot save (MISCONF): {sign.text}",
            f"Its unit forbids it (ProtectSystem): add ReadWritePaths={running.folder} with "
            f"`systemctl edit {unit.name}`, or correct `dir`",
        )  # fmt: skip
    said = sign.text if sign else "its log does not say why"
    return Due(Finding.NOT_SAVED, unit.name, unit.process, said)

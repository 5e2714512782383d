"""Recover a Redis: find the cause, then wait, free, save, start or restart it; repair its AOF."""

from dataclasses import dataclass

from blocks.inventory import HostsParameter
from recovery.declare import recovery
from recovery.verdict import Danger
from tasks.redis_server import (
    aof,
    contents,
    copies,
    failover,
    freeing,
    frozen,
    losses,
    running,
    saving,
    sentinels,
    triage,
    waiting,
)
from tasks.redis_server.target import (
    COPIES,
    RedisServer,
    redis_host,
    redis_server,
    redis_target,
)
from tasks.redis_server.triage import Due, Finding
from tasks.redis_server.waiting import Serving

RUNBOOK = "docs/runbooks/redis.md"


@dataclass(frozen=True)
class Recovered:
    """What was found and what now holds. `copy` is the way back, empty where nothing was copied."""

    finding: str
    saw: str
    unit: str
    now: Serving
    copy: str = ""


@recovery(
    runbook=RUNBOOK,
    target=redis_target,
    parts=redis_host,
    answers=["RedisDown", "RedisMissingMaster"],
    resumes_itself="it puts no data at risk, and each act is settled by asking Redis and systemd",
)
def recover_redis(  # noqa: PLR0913, PLR0917 (each is a field of the form)
    host: HostsParameter,
    port: int = 6379,
    unit: str = "",
    user: str = "",
    password_file: str = "",
    tls_ca_file: str = "",
    restart: bool = False,  # noqa: FBT001, FBT002 (a field of the form)
    accept_loss: list[str] | None = None,
    copies_in: str = COPIES,
) -> Recovered:
    """Find out why a Redis does not do its work and cure that; no data is put at risk.

    Causes that no restart cures (disk, permission, memory, configuration, password) are named and
    refused. A process is never killed, and restarted only on order.

    Args:
        host: Inventory block, file on the worker, or ssh://user@host?host_key=...&key_file=...
        port: Port it listens on; tells several on one host apart.
        unit: Its systemd unit; empty: found by the port.
        user: Account of its ACL; empty is the default user.
        password_file: Path on the worker of a file with its password alone.
        tls_ca_file: Path on the worker of the CA of its certificate, where it speaks TLS.
        restart: Restart it although it answers. A master that Sentinel watches is failed over.
        accept_loss: Names of losses to accept, as the refusal prints them.
        copies_in: Folder on the host for copies of its files.

    Runbook: docs/runbooks/redis.md, steps 1 to 9.
    """
    server = redis_server(host, port, unit, user, password_file, tls_ca_file, copies_in)
    accept = losses.checked_names(accept_loss)
    with server.host.session():
        due = triage.cure_due(server, restart=restart, accept=accept)
        match due.finding:
            case Finding.NOT_RUNNING:
                return _start(server, due, accept)
            case Finding.RESTART_ORDERED:
                return _restart(server, due, accept)
            case Finding.STOPPED_BY_SIGNAL:
                freeing.let_go_on(server, due)
            case Finding.SCRIPT_RUNS:
                freeing.end_script(server)
            case Finding.NOT_SAVED:
                saving.save(server, due, contents.before_restart(server))
        waiting.has_loaded(server, due)
        if due.finding is not Finding.WELL:
            contents.prove_write(server)
        return _recovered(due, waiting.serves(server, due))


def _start(server: RedisServer, due: Due, accept: tuple[str, ...]) -> Recovered:
    """Start one that does not run; its files are copied first, for a start may change them."""
    keys = contents.keys_on_disk(server, due)
    copy = _copy(server, due, accept)
    running.start(server, due, accept)
    waiting.has_loaded(server, due)
    contents.prove_write(server)
    return _recovered(due, waiting.serves(server, due, keys), copy)


def _restart(server: RedisServer, due: Due, accept: tuple[str, ...]) -> Recovered:
    """Restart one that answers, once all it holds is on disk."""
    before = contents.before_restart(server)
    watch = sentinels.watch_over(server)
    is_failed_over = watch.is_kept and before.is_master
    saving.save(server, due, before)
    copy = _copy(server, due, accept)
    copies.copy_can_be_loaded(server, due)
    if is_failed_over:
        failover.fail_over(server, due, watch)
    has_canary = before.is_master and not is_failed_over and losses.MEMORY_ONLY not in accept
    if has_canary:
        contents.leave_canary(server)
    running.restart(server, due, before, accept)
    waiting.has_loaded(server, due)
    if has_canary:
        contents.canary_was_kept(server)
    contents.prove_write(server)
    now = waiting.serves_as_before(server, due, before, was_failed_over=is_failed_over)
    return _recovered(due, now, copy)


def _copy(server: RedisServer, due: Due, accept: tuple[str, ...]) -> str:
    """Copy its files aside, unless a person goes on without a way back; return where they are."""
    if losses.NO_COPY in accept:
        return ""
    copies.copy_aside(server, due)
    return copies.copy_folder(server)


def _recovered(due: Due, now: Serving, copy: str = "") -> Recovered:
    return Recovered(due.finding, due.saw, due.unit, now, copy)


@recovery(runbook=RUNBOOK, target=redis_target, parts=redis_host, danger=Danger.DESTRUCTIVE)
def repair_redis_aof(  # noqa: PLR0913, PLR0917 (each is a field of the form)
    host: HostsParameter,
    port: int = 6379,
    unit: str = "",
    user: str = "",
    password_file: str = "",
    tls_ca_file: str = "",
    accept_loss: list[str] | None = None,
    copies_in: str = COPIES,
) -> Recovered:
    """Cut a damaged AOF down to what can be read, and start Redis on it.

    The AOF is copied aside first and repaired on a copy. What is lost is named in bytes and must be
    accepted by that name.

    Args:
        host: Inventory block, file on the worker, or ssh://user@host?host_key=...&key_file=...
        port: Port it listens on; tells several on one host apart.
        unit: Its systemd unit; empty: found by the port.
        user: Account of its ACL; empty is the default user.
        password_file: Path on the worker of a file with its password alone.
        tls_ca_file: Path on the worker of the CA of its certificate, where it speaks TLS.
        accept_loss: Names of losses to accept, as the refusal prints them: aof-bytes:NUMBER.
        copies_in: Folder on the host for copies of its files.

    Runbook: docs/runbooks/redis.md, steps 10 to 12.
    """
    server = redis_server(host, port, unit, user, password_file, tls_ca_file, copies_in)
    accept = losses.checked_names(accept_loss)
    with server.host.session():
        due = aof.repair_due(server)
        if due.finding is Finding.WELL:
            return _recovered(due, waiting.serves(server, due))
        repair = aof.damage_found(server, due, accept)
        freeing.keep_stopped(server, due)
        copies.copy_aside(server, due)
        aof.repair_aof(server, due, repair)
        aof.start_repaired(server, due)
        waiting.has_loaded(server, due)
        contents.prove_write(server)
        return _recovered(due, waiting.serves(server, due), copies.copy_folder(server))


@recovery(runbook=RUNBOOK, target=redis_target, parts=redis_host, danger=Danger.DESTRUCTIVE)
def end_frozen_redis(  # noqa: PLR0913, PLR0917 (each is a field of the form)
    host: HostsParameter,
    port: int = 6379,
    unit: str = "",
    user: str = "",
    password_file: str = "",
    tls_ca_file: str = "",
    accept_loss: list[str] | None = None,
    copies_in: str = COPIES,
) -> Recovered:
    """End a Redis that accepts connections and answers none: SIGTERM, and SIGKILL only after it.

    What is lost is named and must be accepted by that name; its files are copied aside first.

    Args:
        host: Inventory block, file on the worker, or ssh://user@host?host_key=...&key_file=...
        port: Port it listens on; tells several on one host apart.
        unit: Its systemd unit; empty: found by the port.
        user: Account of its ACL; empty is the default user.
        password_file: Path on the worker of a file with its password alone.
        tls_ca_file: Path on the worker of the CA of its certificate, where it speaks TLS.
        accept_loss: Names of losses to accept, as the refusal prints them.
        copies_in: Folder on the host for copies of its files.

    Runbook: docs/runbooks/redis.md, steps 13 to 15.
    """
    server = redis_server(host, port, unit, user, password_file, tls_ca_file, copies_in)
    accept = losses.checked_names(accept_loss)
    with server.host.session():
        due = frozen.frozen_process(server, accept)
        if due.finding is Finding.WELL:
            return _recovered(due, waiting.serves(server, due))
        copy = _copy(server, due, accept)
        freeing.end_process(server, due)
        waiting.has_loaded(server, due)
        contents.prove_write(server)
        return _recovered(due, waiting.serves(server, due), copy)

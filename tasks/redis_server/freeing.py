"""Letting a Redis go on that is held up, and ending a process that nothing else helps."""

from blocks.redis_session import RedisSaidNo
from recovery.errors import NotVerified, Refused
from recovery.steps import act
from recovery.verdict import Danger
from tasks.redis_server import orders, starting, units
from tasks.redis_server.ending import Ending
from tasks.redis_server.running import is_another
from tasks.redis_server.target import RedisServer
from tasks.redis_server.triage import SILENT, Due, ask
from tasks.redis_server.units import RedisUnit

LOOK_SECONDS = 5.0
KILL_WITHIN_SECONDS = 20.0
STOP_WITHIN_SECONDS = 120.0
HELD = {"T", "t", ""}


def continue_commands(server: RedisServer, due: Due) -> list[str]:
    """What lets it go on."""
    return [orders.bound_line(server, due, orders.signal(due, "CONT"))]


def goes_on(server: RedisServer, due: Due) -> bool:
    """Whether the process is not stopped any more, or another one runs."""
    unit = units.redis_unit(server.host, due.unit)
    if unit.process != due.process:
        return orders.is_up(unit)
    return starting.process_state(server, due.process.pid) not in HELD


@act(commands=continue_commands, done_when=goes_on)
def let_go_on(server: RedisServer, due: Due) -> None:
    """Let a process that a signal stopped go on; nothing is lost by it. Done twice does no harm.

    Raises:
        CommandFailed: sudo said no.
        Unreachable: no answer.

    Runbook: docs/runbooks/redis.md, step 2.
    """
    orders.send_bound(server, due, orders.signal(due, "CONT"))


def script_commands() -> list[str]:
    """What ends a script."""
    return ["SCRIPT KILL"]


def no_script_runs(server: RedisServer) -> bool:
    """Whether it answers something else than that a script runs."""
    listeners = server.listeners()
    return bool(listeners) and ask(server, listeners[0].address).word not in {"BUSY", SILENT}


@act(commands=script_commands, done_when=no_script_runs)
def end_script(server: RedisServer) -> None:
    """End a script that runs too long. Redis refuses once it has written, and then nothing is done.

    Whoever runs it gets an error. Done twice, the second does nothing.

    Raises:
        Refused: the script has written: ending it would leave half of that.
        RedisSaidNo: this account may not.
        Unreachable: no answer.

    Runbook: docs/runbooks/redis.md, step 2.
    """
    try:
        with server.session() as session:
            session.change("SCRIPT", "KILL")
    except RedisSaidNo as no:
        if no.word == "NOTBUSY":
            return
        if no.word != "UNKILLABLE":
            raise
        raise Refused(
            server.label,
            "the script that runs has written already, and ending it would leave half of that",
            "Wait until it ends; nothing but SHUTDOWN NOSAVE ends it before, and that loses data",
        ) from no


def end_commands(server: RedisServer, due: Due) -> list[str]:
    """What asks the process to end, what ends it, and what starts it again."""
    return [
        *(orders.bound_line(server, due, orders.signal(due, name)) for name in ("TERM", "KILL")),
        *orders.begin_lines(server, due),
    ]


@act(commands=end_commands, done_when=is_another, danger=Danger.DESTRUCTIVE, redo_stale=False)
def end_process(server: RedisServer, due: Due) -> None:
    """Ask a frozen process to end, wait, and kill it only then; systemd or we start it again.

    One that wakes, saves or writes after it was asked is waited for, however long that takes. What
    a killed one had in memory only is lost. Bound to the process that was found: done twice, the
    second does nothing.

    Raises:
        NotVerified: it answers again and does not end, not even SIGKILL ended it, or it did not
            start again.
        CommandFailed: sudo said no.
        Unreachable: no answer.

    Runbook: docs/runbooks/redis.md, step 15.
    """
    unit = units.redis_unit(server.host, due.unit)
    if unit.process == due.process:
        unit = _ended_by_itself(server, due)
    if unit.process == due.process:
        orders.send_bound(server, due, orders.signal(due, "KILL"))
        unit = orders.wait_for_another(server, due, KILL_WITHIN_SECONDS)
    if unit.process == due.process:
        state = starting.process_state(server, due.process.pid)
        raise NotVerified(
            server.label,
            f"process {due.process.pid} to end",
            f"it is still there after SIGKILL (state {state})",
            "It waits for the kernel, as for a disk: mend the storage, or reboot the host",
        )
    if not orders.is_up(unit):
        orders.begin(server, due)


def _ended_by_itself(server: RedisServer, due: Due) -> RedisUnit:
    """Ask the process to end and wait while it is at it; return the unit as it then is.

    Raises:
        NotVerified: it answers again, and does not end.
    """
    ending = Ending(server, due)
    orders.send_bound(server, due, orders.signal(due, "TERM"))
    while True:
        unit = orders.wait_for_another(server, due, LOOK_SECONDS)
        if unit.process != due.process:
            return unit
        if not ending.goes_on():
            break
    if ending.is_awake:
        raise NotVerified(
            server.label,
            f"process {due.process.pid} to end",
            "it answers again, and is not killed",
            "Start recover-redis: it names the cause",
        )
    return unit


def stop_commands(server: RedisServer, due: Due) -> list[str]:
    """What stops it."""
    return [server.host.command_line(orders.systemctl("stop", due.unit), as_root=True)]


def is_at_rest(server: RedisServer, due: Due) -> bool:
    """Whether the unit is stopped, and systemd does not try to start it again."""
    return units.redis_unit(server.host, due.unit).status.is_at_rest


@act(commands=stop_commands, done_when=is_at_rest, lasts_until="start_repaired")
def keep_stopped(server: RedisServer, due: Due) -> None:
    """Stop a unit that systemd starts again and again, so that it leaves the files alone.

    Done twice, the second does nothing.

    Raises:
        CommandFailed: systemd or sudo said no.
        Unreachable: no answer.

    Runbook: docs/runbooks/redis.md, step 10.
    """
    argv = orders.systemctl("stop", due.unit)
    server.host.change(argv, within_seconds=STOP_WITHIN_SECONDS, as_root=True)

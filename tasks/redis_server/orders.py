"""Orders to the process of a Redis, each bound to one process, and waiting for what comes of them.

A command that stops or signals is sent together with the process it is meant for, and the host
compares first. So an order that comes late, or twice, finds another process and does nothing.
"""

from collections.abc import Iterable

from recovery.errors import NotVerified
from tasks.redis_server import logs, units
from tasks.redis_server.settings import settings_of
from tasks.redis_server.target import RedisServer
from tasks.redis_server.triage import Due
from tasks.redis_server.units import Process, RedisUnit
from tasks.services import UnitState

OTHER_PROCESS = 75  # EX_TEMPFAIL: what was to be signalled is not there any more
BOUND = (
    'eval "$(systemctl show -p MainPID -p ExecMainStartTimestampMonotonic -- "$1")"; '
    '[ "$MainPID/$ExecMainStartTimestampMonotonic" = "$2/$3" ] || exit 75; shift 3; exec "$@"'
)
# Waits on the host, so that a long wait is one command: until another process runs, or the unit
# has come to rest for good; at most so many seconds.
WAIT = """ends=$(($(date +%s) + $4))
while [ "$(date +%s)" -lt "$ends" ]; do
  eval "$(systemctl show -p MainPID -p ExecMainStartTimestampMonotonic -p Job -- "$1")"
  eval "$(systemctl show -p ActiveState -p SubState -- "$1")"
  if [ "$MainPID" = 0 ]; then
    case $ActiveState/${Job:-0} in failed/0 | inactive/0) break ;; esac
  elif [ "$MainPID/$ExecMainStartTimestampMonotonic" != "$2/$3" ]; then
    [ "$ActiveState" = deactivating ] || break
  fi
  sleep 0.1
done
"""
WAIT_PART_SECONDS = 20.0  # one command at a time, so that a lost connection is noticed
START_WITHIN_SECONDS = 30.0
ORDER_WITHIN_SECONDS = 30.0
UP = {UnitState.ACTIVE, UnitState.ACTIVATING, UnitState.RELOADING}
SIGNS_TOLD = 3


def bound(unit: str, process: Process, argv: Iterable[str]) -> list[str]:
    """A command that is carried out only while the unit's main process is this one."""
    return ["sh", "-c", BOUND, "bound", unit, str(process.pid), str(process.started_us), *argv]


def bound_line(server: RedisServer, due: Due, argv: Iterable[str]) -> str:
    """The exact text of `send_bound`, for the plan."""
    return server.host.command_line(bound(due.unit, due.process, argv), as_root=True)


def send_bound(server: RedisServer, due: Due, argv: Iterable[str]) -> bool:
    """Send a command to the one process; whether that was still there.

    Raises:
        CommandFailed: systemd or sudo said no.
        AnswerLost: not known whether it took effect.
    """
    answer = server.host.change(
        bound(due.unit, due.process, argv),
        within_seconds=ORDER_WITHIN_SECONDS,
        accept=(0, OTHER_PROCESS),
        as_root=True,
    )
    return answer.exit_code == 0


def signal(due: Due, name: str) -> list[str]:
    """What sends a signal to the process."""
    return ["kill", "-s", name, "--", str(due.process.pid)]


def systemctl(verb: str, unit: str, *options: str) -> list[str]:
    """What tells systemd to do something to a unit, without asking for a password."""
    return ["systemctl", "--no-ask-password", *options, verb, "--", unit]


def is_up(unit: RedisUnit) -> bool:
    """Whether it runs or is starting; one that systemd will try again later is not."""
    is_between = unit.status.sub_state == "auto-restart"
    return unit.status.state in UP and unit.process.pid != 0 and not is_between


def wait_for_another(server: RedisServer, due: Due, within_seconds: float) -> RedisUnit:
    """Wait until the process is another one, or gone; return the unit as it then is.

    Raises:
        Unreachable: no answer.
    """
    left = within_seconds
    while True:
        part = min(left, WAIT_PART_SECONDS)
        argv = ["sh", "-c", WAIT, "wait", due.unit]
        argv += [str(due.process.pid), str(due.process.started_us), str(max(1, round(part)))]
        server.host.read(argv, within_seconds=part + ORDER_WITHIN_SECONDS)
        unit = units.redis_unit(server.host, due.unit)
        left -= part
        is_gone = unit.process != due.process and unit.status.state is not UnitState.DEACTIVATING
        if is_gone or left <= 0:
            return unit


def begin_lines(server: RedisServer, due: Due) -> list[str]:
    """The exact texts of `begin`, for the plan."""
    verbs = (systemctl("reset-failed", due.unit), systemctl("start", due.unit, "--no-block"))
    return [server.host.command_line(argv, as_root=True) for argv in verbs]


def begin(server: RedisServer, due: Due) -> None:
    """Start the unit where it is at rest, and wait until it has a process that stays.

    The counter of failed starts is reset first, or systemd would not try. Done twice, the second
    does nothing. Loading goes on when this is over.

    Raises:
        NotVerified: it did not start; carries the error it logged.
        CommandFailed: systemd or sudo said no.
        AnswerLost: not known whether it started; systemd goes on with it.
    """
    if units.redis_unit(server.host, due.unit).status.state is UnitState.FAILED:
        argv = systemctl("reset-failed", due.unit)
        server.host.change(argv, within_seconds=ORDER_WITHIN_SECONDS, as_root=True)
    argv = systemctl("start", due.unit, "--no-block")
    server.host.change(argv, within_seconds=ORDER_WITHIN_SECONDS, as_root=True)
    unit = wait_for_another(server, due, START_WITHIN_SECONDS)
    if not is_up(unit):
        raise NotVerified(
            server.label,
            f"{unit.name} to run",
            f"{unit.status}. {told_by_log(server, unit)}",
            "See the table of docs/runbooks/redis.md for this cause; mend it, then resume",
        )


def told_by_log(server: RedisServer, unit: RedisUnit) -> str:
    """The causes that its log names since the last start, for an error.

    Raises:
        CommandFailed: root may not read the log.
    """
    log = settings_of(server.host, unit.arguments, unit.name).log
    signs = logs.signs(server, unit, log)[-SIGNS_TOLD:]
    return "; ".join(f"{sign.cause}: {sign.text}" for sign in signs) or "Its log names no cause"

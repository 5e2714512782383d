"""Starting and restarting a Redis through its systemd unit. It is never killed here."""

from blocks.redis_session import HungUp, RedisSaidNo, Silent
from recovery.errors import NotVerified, Refused
from recovery.steps import act
from recovery.verdict import Verdict
from tasks.redis_server import losses, orders, starting, units
from tasks.redis_server.contents import Before
from tasks.redis_server.settings import running_settings, settings_of
from tasks.redis_server.status import info_of
from tasks.redis_server.target import RedisServer
from tasks.redis_server.triage import Due

STOP_WITHIN_SECONDS = 60.0
STOP_TIMES_OF_SAVE = 4


def is_running(server: RedisServer, due: Due) -> bool:
    """Whether the unit runs, or is loading."""
    return orders.is_up(units.redis_unit(server.host, due.unit))


def is_another(server: RedisServer, due: Due) -> Verdict:
    """Whether another process runs in the place of the one that was found.

    What an earlier attempt set in motion is waited for: a stop may save for a while.
    """
    unit = units.redis_unit(server.host, due.unit)
    if unit.process == due.process and (unit.has_job or unit.status.state not in orders.UP):
        unit = orders.wait_for_another(server, due, orders.WAIT_PART_SECONDS)
    return Verdict.of(unit.process != due.process and orders.is_up(unit))


def refuse_unless_startable(server: RedisServer, due: Due, accept: tuple[str, ...]) -> None:
    """Refuse a start that cannot succeed, or that would load other files; see `starting`."""
    starting.refuse_unless_startable(server, units.redis_unit(server.host, due.unit), accept)


@act(
    commands=orders.begin_lines,
    done_when=is_running,
    refuse_if=(refuse_unless_startable,),
)
def start(server: RedisServer, due: Due, accept: tuple[str, ...]) -> None:
    """Start the unit. What enables it at boot stays as it is.

    Done twice, the second does nothing. Loading goes on when this is over.

    Raises:
        Refused: it cannot start, or would load other files than hold the data.
        NotVerified: it did not start; carries the error it logged.
        CommandFailed: systemd or sudo said no.
        Unreachable: no answer; systemd goes on starting it.

    Runbook: docs/runbooks/redis.md, step 3.
    """
    del accept  # asked by the guard
    orders.begin(server, due)


def restart_commands(server: RedisServer, due: Due) -> list[str]:
    """What restarts it; what asks the process itself where the stop hangs; what starts it."""
    return [
        orders.bound_line(server, due, _restart(due)),
        orders.bound_line(server, due, orders.signal(due, "TERM")),
        *orders.begin_lines(server, due),
    ]


def refuse_unless_nothing_is_lost(server: RedisServer, due: Due, accept: tuple[str, ...]) -> None:
    """Refuse a restart that would lose what was not accepted by name. Unknown counts as a loss.

    Raises:
        Refused: it would, or Redis does not tell.

    Runbook: docs/runbooks/redis.md, step 4.
    """
    unit = units.redis_unit(server.host, due.unit)
    if unit.process != due.process:  # an earlier attempt has restarted it, or it is down
        if not orders.is_up(unit):
            starting.refuse_unless_startable(server, unit, accept)
        return
    try:
        with server.session() as session:
            info = info_of(session)
            running, _ = running_settings(session)
    except (RedisSaidNo, Silent, HungUp) as error:
        raise Refused(
            server.label,
            f"it is not known what a restart would lose: {error}",
            "Give this account +info +config|get, or look into what keeps it from answering",
        ) from error
    on_file = settings_of(server.host, unit.arguments, unit.name)
    terms = losses.Terms(
        unit.stop_within_seconds,
        unit.start_within_seconds,
        unit.kills_at_the_end,
        unit.stops_otherwise,
    )
    losses.refuse_losses(server.label, losses.losses(info, running, on_file, terms), accept)


@act(
    commands=restart_commands,
    done_when=is_another,
    refuse_if=(refuse_unless_nothing_is_lost,),
    redo_stale=False,
)
def restart(server: RedisServer, due: Due, before: Before, accept: tuple[str, ...]) -> None:
    """Restart the unit: it saves, ends and starts again.

    Bound to the process that was found: done twice, the second does nothing.

    Raises:
        Refused: the restart would lose something that was not accepted.
        NotVerified: it did not stop in time, or did not start; carries the error it logged.
        CommandFailed: systemd or sudo said no.
        Unreachable: no answer; systemd goes on restarting it.

    Runbook: docs/runbooks/redis.md, step 7.
    """
    del accept  # asked by the guard
    unit = units.redis_unit(server.host, due.unit)
    within = max(STOP_WITHIN_SECONDS, STOP_TIMES_OF_SAVE * before.save_seconds)
    for order in (_restart(due), orders.signal(due, "TERM")):
        if unit.process != due.process:
            break
        orders.send_bound(server, due, order)
        unit = orders.wait_for_another(server, due, within)
    if unit.process == due.process:
        raise NotVerified(
            server.label,
            f"process {unit.process.pid} to save and end",
            f"{unit.status}. {orders.told_by_log(server, unit)}",
            "Redis does not end where it cannot save: mend that, then resume. A process that "
            "answers nobody is ended by `end-frozen-redis`",
        )
    if not orders.is_up(unit):
        orders.begin(server, due)


def _restart(due: Due) -> list[str]:
    return orders.systemctl("restart", due.unit, "--no-block")

"""Stopping and starting the Grafana that is moved, where it is a systemd unit."""

from collections.abc import Iterable

from recovery.steps import act, probe, undo, verify
from tasks import services
from tasks.grafana.migration import SystemdUnit

STOP_WITHIN_SECONDS = 120.0
START_WITHIN_SECONDS = 120.0
TO_BE_STARTED = (
    "configure Grafana for MySQL (section [database] of grafana.ini, or GF_DATABASE_*), start one "
    "replica, and wait until `GET /api/health` says `database: ok` (step 10)"
)
TO_BE_SEEN = (
    "see that `GET /api/health` of Grafana says `database: ok` and its log names the dialect "
    "mysql: what it is configured for was not looked at (step 10)"
)


def left_to_person(grafana: str) -> list[str]:
    """What of step 10 is left to a person, by the parameter that says how Grafana is started."""
    return [TO_BE_SEEN if grafana else TO_BE_STARTED]


def _command(verb: str, grafana: SystemdUnit) -> str:
    return services.line_to(grafana.host, verb, grafana.unit)


def stop_commands(grafana: SystemdUnit) -> Iterable[str]:
    """What stops it."""
    return [_command("stop", grafana)]


def start_commands(grafana: SystemdUnit) -> Iterable[str]:
    """What starts it."""
    return [_command("start", grafana)]


def is_at_rest(grafana: SystemdUnit) -> bool:
    """Whether the unit is stopped and its process gone."""
    return services.is_inactive(grafana.host, grafana.unit)


def is_running(grafana: SystemdUnit) -> bool:
    """Whether the unit runs."""
    return services.is_active(grafana.host, grafana.unit)


@probe
def refuse_unless_unit_exists(grafana: SystemdUnit) -> None:
    """Refuse to begin where the unit that would be stopped is not there.

    Raises:
        Refused: there is no such unit on the host.
        Unreachable: the host gave no answer.

    Runbook: docs/runbooks/grafana-sqlite-to-mysql.md, step 1.
    """
    services.refuse_unless_unit_exists(grafana.host, grafana.unit)


@undo
def start_again(grafana: SystemdUnit) -> None:
    """Start the unit that was stopped."""
    services.start_unit(grafana.host, grafana.unit, START_WITHIN_SECONDS)


@act(
    commands=stop_commands,
    done_when=is_at_rest,
    undo=start_again,
    lasts_until="start_grafana",
    takes_down=True,
)
def stop_grafana(grafana: SystemdUnit) -> None:
    """Stop the unit, so that nothing writes to either database while rows are moved.

    What enables it at boot stays as it is. Done twice, the second does nothing.

    Raises:
        Refused: there is no such unit.
        CommandFailed: systemd or sudo said no.
        Unreachable: no answer; systemd goes on stopping it.

    Runbook: docs/runbooks/grafana-sqlite-to-mysql.md, step 2.
    """
    services.stop_unit(grafana.host, grafana.unit, STOP_WITHIN_SECONDS)


@undo
def stop_again(grafana: SystemdUnit) -> None:
    """Stop the unit that was started."""
    services.stop_unit(grafana.host, grafana.unit, STOP_WITHIN_SECONDS)


@act(commands=start_commands, done_when=is_running, undo=stop_again)
def start_grafana(grafana: SystemdUnit) -> None:
    """Start the unit. Its configuration must name the target already; it is not changed.

    Done twice, the second does nothing.

    Raises:
        Refused: there is no such unit.
        CommandFailed: it failed to start, or sudo said no.
        Unreachable: no answer; systemd goes on starting it.

    Runbook: docs/runbooks/grafana-sqlite-to-mysql.md, step 10.
    """
    services.start_unit(grafana.host, grafana.unit, START_WITHIN_SECONDS)


@verify
def grafana_stays_up(grafana: SystemdUnit) -> str:
    """The unit's status, once it has stayed the same process for a while.

    Raises:
        NotVerified: it did not stay up; read its journal.

    Runbook: docs/runbooks/grafana-sqlite-to-mysql.md, step 10.
    """
    return str(services.wait_until_active(grafana.host, grafana.unit))

"""The file of routes, read and held against the recoveries there are, before anything listens."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from operate.alerts.located import Located, read_located
from operate.alerts.matchers import Matcher, read_matcher
from operate.alerts.routes import (
    DAYS,
    Guard,
    Limits,
    Mode,
    Route,
    Routes,
    Target,
    Unrouted,
    Watchdog,
    Window,
)
from operate.catalogue import recovery_named
from operate.parameters import OPTIONS, typed_parameters
from recovery.errors import BadInput
from recovery.inputs import refuse_passwords
from recovery.run import Recovery
from recovery.values import to_plain

FILE = Path(__file__).resolve().parents[2] / "deployments" / "alert-routes.yaml"
SEVERITIES = ("critical", "warning", "info", "none")
GUARD = tuple(one.name for one in fields(Guard))
LIMITS = tuple(one.name for one in fields(Limits))
ROUTE = (
    "name", "match", "flow", "targets", "parameters", "severity", "mode", "deployment", "guard",
)  # fmt: skip
WINDOW = ("name", "match", "from", "until", "days", "at", "lasts_minutes", "timezone")
WEEKLY = ("days", "at", "lasts_minutes")


def default_file() -> Path:
    """Where the routes are: RECOVER_ALERT_ROUTES, else the file that comes with the project."""
    return Path(os.environ.get("RECOVER_ALERT_ROUTES") or FILE)


def read_routes(file: Path | None = None) -> Routes:
    """Read the routes.

    Raises:
        BadInput: a field is wrong; names it, its line and the remedy.
    """
    file = file or default_file()
    top = read_located(file).fields(
        ("version", "limits", "guard", "watchdog", "maintenance", "targets", "routes", "unrouted"),
        ("version", "routes"),
    )
    if top["version"].number() != 1:
        raise top["version"].wrong("this release reads version 1", "Write `version: 1`")
    guard = _guard(top.get("guard"), Guard())
    tables = {
        name: [(_target(one), one) for one in table.items()]
        for name, table in (top["targets"].named() if "targets" in top else {}).items()
    }
    routes = [_route(one, tables, guard) for one in top["routes"].items()]
    _refuse_twins(top["routes"], [route.name for route in routes])
    if "targets" in top:
        _refuse_unused(top["targets"], {route.table for route in routes})
    return Routes(
        file,
        routes,
        [_unrouted(one) for one in (top["unrouted"].items() if "unrouted" in top else [])],
        [_window(one) for one in (top["maintenance"].items() if "maintenance" in top else [])],
        _limits(top.get("limits")),
        _watchdog(top.get("watchdog")),
    )


def _matchers(at: Located) -> list[Matcher]:
    found = [
        read_matcher(one.text(), f"{one.file}:{one.line}: {one.path}")
        for one in ([at] if isinstance(at.value, str) else at.items())
    ]
    if not found:
        raise at.wrong("it is empty, and would fit every alert", "Write ['alertname=\"NAME\"']")
    return found


def _guard(at: Located | None, usual: Guard) -> Guard:
    if at is None:
        return usual
    given = {name: one.number() for name, one in at.fields(GUARD).items()}
    return Guard(**{**vars(usual), **given})


def _limits(at: Located | None) -> Limits:
    if at is None:
        return Limits()
    return Limits(**{name: one.number(at_least=1) for name, one in at.fields(LIMITS).items()})


def _target(at: Located) -> Target:
    given = at.fields(("name", "when", "parameters"), ("name", "parameters"))
    when: dict[str, Sequence[str]] = {}
    for label, one in (given["when"].named() if "when" in given else {}).items():
        values = [one] if isinstance(one.value, str) else one.items()
        when[label] = tuple(value.text() for value in values)
        if not when[label]:
            raise one.wrong("no value of this label names it", "Write a value, or a list of them")
    parameters = {name: _plain(one) for name, one in given["parameters"].named().items()}
    return Target(given["name"].text(), when, parameters)


def _route(at: Located, tables: Mapping[str, list[tuple[Target, Located]]], usual: Guard) -> Route:
    given = at.fields(ROUTE, ("name", "match", "flow", "targets"))
    name, table = given["name"].text(), given["targets"].text()
    if table not in tables:
        known = ", ".join(tables) or "none"
        remedy = f"Add `targets.{table}: []`, or name one of: {known}"
        raise given["targets"].wrong(f"there is no table of targets {table!r}", remedy)
    try:
        recovery = recovery_named(given["flow"].text())
    except BadInput as error:
        raise given["flow"].wrong(error.seen, error.remedy) from None
    route = Route(
        name,
        _matchers(given["match"]),
        recovery.name,
        [target for target, _ in tables[table]],
        table,
        dict(_fixed(recovery, given.get("parameters"))),
        given["severity"].text(SEVERITIES) if "severity" in given else "warning",
        Mode(given["mode"].text(tuple(Mode))) if "mode" in given else Mode.TRIAGE,
        _guard(given.get("guard"), usual),
        given["deployment"].text() if "deployment" in given else "",
    )
    for target, place in tables[table]:
        _refuse_unfit(recovery, route, target, place.children["parameters"])
    return route


def _fixed(recovery: Recovery, at: Located | None) -> Mapping[str, Any]:
    """Parameters that are the same for every target; wrong values show with the targets'."""
    given = at.named() if at is not None else {}
    for name, one in given.items():
        _refuse_unknown(recovery, name, one)
    return {name: _plain(one) for name, one in given.items()}


def _plain(at: Located) -> Any:
    """The value as it is kept and sent: a moment without quotes, which YAML reads, as text."""
    try:
        return to_plain(at.value)
    except TypeError:
        raise at.wrong(f"{type(at.value).__name__} cannot be sent", "Write it as text") from None


def _refuse_unknown(recovery: Recovery, name: str, at: Located) -> None:
    if name in OPTIONS:
        remedy = (
            "Leave it out: an alert consents to nothing, resumes nothing and takes over nothing"
        )
        raise at.wrong(f"{name} is an option of every recovery, not a parameter", remedy)
    if name not in recovery.parameters:
        takes = ", ".join(recovery.parameters) or "no parameters"
        raise at.wrong(f"{recovery.name} has no parameter {name!r}", f"It takes: {takes}")


def _refuse_unfit(recovery: Recovery, route: Route, target: Target, at: Located) -> None:
    """Refuse a target whose parameters, with those of the route, are not what the flow takes."""
    where = at.named()
    for name, one in where.items():
        _refuse_unknown(recovery, name, one)
    try:
        refuse_passwords({**route.parameters, **target.parameters})
        typed_parameters(recovery, recorded={**route.parameters, **target.parameters})
    except BadInput as error:
        place = where.get(error.field, at)
        seen = f"route {route.name}, target {target.name}: {error.field}: {error.seen}"
        raise place.wrong(seen, error.remedy.replace("--set ", "")) from None


def _refuse_twins(at: Located, names: Sequence[str]) -> None:
    for one, name in zip(at.items(), names, strict=True):
        if names.count(name) > 1:
            raise one.wrong(f"there are two routes {name!r}", "Give each a name of its own")


def _refuse_unused(at: Located, used: set[str]) -> None:
    for name, table in at.named().items():
        if name not in used:
            raise table.wrong(
                "no route uses this table", f"Remove it; used are {', '.join(sorted(used))}"
            )
        names = [one.value["name"] for one in table.items()]
        for one in table.items():
            if names.count(one.value["name"]) > 1:
                raise one.wrong("two targets of a table have this name", "Rename one of them")


def _unrouted(at: Located) -> Unrouted:
    given = at.fields(("match", "reason"), ("match", "reason"))
    return Unrouted(_matchers(given["match"]), given["reason"].text())


def _watchdog(at: Located | None) -> Watchdog | None:
    if at is None:
        return None
    given = at.fields(("match", "silent_after_seconds"), ("match", "silent_after_seconds"))
    return Watchdog(_matchers(given["match"]), given["silent_after_seconds"].number(at_least=1))


def _window(at: Located) -> Window:
    given = at.fields(WINDOW, ("name",))
    matchers = _matchers(given["match"]) if "match" in given else []
    name = given["name"].text()
    if "from" in given and "until" in given and not set(WEEKLY) & set(given):
        begins_at, ends_at = _moment(given["from"]), _moment(given["until"])
        if ends_at <= begins_at:
            raise given["until"].wrong("it ends before it begins", "Write a later moment")
        return Window(name, matchers, begins_at, ends_at)
    if not set(WEEKLY) <= set(given) or {"from", "until"} & set(given):
        remedy = "Write either from and until, or days, at and lasts_minutes"
        raise at.wrong(f"it does not say when maintenance {name!r} is", remedy)
    return Window(
        name,
        matchers,
        days=[one.text(DAYS) for one in given["days"].items()],
        begins=_time(given["at"]),
        lasts=timedelta(minutes=given["lasts_minutes"].number(at_least=1)),
        zone=_zone(given["timezone"]) if "timezone" in given else "UTC",
    )


def _moment(at: Located) -> datetime:
    value = at.value
    try:
        moment = value if isinstance(value, datetime) else datetime.fromisoformat(at.text())
    except ValueError:
        raise at.wrong(f"{value!r} is no moment", "Write 2026-03-01T09:30:00Z") from None
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)


def _time(at: Located) -> time:
    try:
        return time.fromisoformat(at.text())
    except ValueError:
        raise at.wrong(f"{at.value!r} is no time of day", 'Write "02:00", in quotes') from None


def _zone(at: Located) -> str:
    try:
        ZoneInfo(at.text())
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise at.wrong(f"there is no timezone {at.value!r}", "Write Europe/Berlin") from None
    return at.text()

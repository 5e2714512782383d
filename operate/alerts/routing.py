"""What the routes make of an alert, and why: a pure function of its labels."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from operate.alerts.matchers import all_fit
from operate.alerts.payload import Alert
from operate.alerts.routes import Guard, Mode, Route, Routes, Target
from recovery.approval.approvers import asked_by_alert
from recovery.values import shortly

REMEMBERED = timedelta(days=90)
REQUESTER = "requested_by"


class Kind(StrEnum):
    """What an alert comes to."""

    RUN = "run"
    WATCHDOG = "watchdog"
    UNROUTED = "unrouted"
    NO_ROUTE = "no-route"
    UNKNOWN_TARGET = "unknown-target"
    TOO_OLD = "too-old"


@dataclass(frozen=True)
class Decision:
    """What an alert comes to, and the reasons, one sentence each, in the order of the looks."""

    kind: Kind
    reasons: list[str]
    route: Route | None = None
    target: Target | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)

    @property
    def reason(self) -> str:
        """The last of the reasons: the one that settled it."""
        return self.reasons[-1]

    @property
    def guard(self) -> Guard:
        """When its route holds back."""
        return self.route.guard if self.route else Guard()

    @property
    def work(self) -> str:
        """What it would work on: alerts of the same work share a run."""
        return f"{self.route.flow}/{self.target.name}" if self.route and self.target else ""


def decide(routes: Routes, alert: Alert, now: datetime) -> Decision:
    """Say what an alert comes to. Nothing of its labels goes further than into comparisons."""
    labels = alert.labels
    if routes.watchdog is not None and all_fit(routes.watchdog.matchers, labels):
        return Decision(Kind.WATCHDOG, ["it is the watchdog: noted, and its silence is an alarm"])
    reasons: list[str] = []
    for route in routes.routes:
        missed = [str(one) for one in route.matchers if not one.fits(labels)]
        if missed:
            reasons.append(f"route {route.name} does not fit: {', '.join(missed)}")
            continue
        reasons = [f"route {route.name} fits: {', '.join(map(str, route.matchers))}"]
        return _on_route(route, alert, reasons, now)
    for one in routes.unrouted:
        if all_fit(one.matchers, labels):
            return Decision(Kind.UNROUTED, [f"unrouted on purpose: {one.reason}"])
    return Decision(Kind.NO_ROUTE, [*reasons, "no route fits, and nothing says that none should"])


def _on_route(route: Route, alert: Alert, reasons: list[str], now: datetime) -> Decision:
    meant = [target for target in route.targets if target.is_meant_by(alert.labels)]
    if len(meant) != 1:
        asked = sorted({label for target in route.targets for label in target.when})
        told = ", ".join(f"{label}={shortly(alert.labels.get(label, ''))}" for label in asked)
        reasons.append(
            f"several of targets.{route.table} are meant: {', '.join(one.name for one in meant)}"
            if meant
            else f"none of targets.{route.table} is meant" + (f" by {told}" if told else "")
        )
        return Decision(Kind.UNKNOWN_TARGET, reasons, route)
    (target,) = meant
    named = ", ".join(f"{label}={shortly(alert.labels.get(label, ''))}" for label in target.when)
    reasons.append(f"target {target.name} is meant" + (f" by {named}" if named else ""))
    if datetime.fromisoformat(alert.starts_at) < now.astimezone(UTC) - REMEMBERED:
        days = f"it began more than {REMEMBERED.days} days ago, which is not remembered"
        return Decision(Kind.TOO_OLD, [*reasons, days], route, target)
    parameters = {**route.parameters, **target.parameters, REQUESTER: requester(route, alert)}
    if route.mode is Mode.TRIAGE:
        parameters["plan_only"] = True
        reasons.append(f"triage: {route.flow} is walked, and changes nothing")
    else:
        reasons.append(f"{route.flow} is started; what it destroys waits for a person's consent")
    return Decision(Kind.RUN, reasons, route, target, parameters)


def requester(route: Route, alert: Alert) -> str:
    """Who asks for the recovery, in words of the file: the label itself goes nowhere."""
    named = [value for one in route.matchers if one.label == "alertname" for value in one.named]
    return asked_by_alert(next((one for one in named if one == alert.name), ""), route.name)


def repairs(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """What a run is given to repair, whoever asks for it: what is alike in it shares a run."""
    return {name: value for name, value in parameters.items() if name != REQUESTER}

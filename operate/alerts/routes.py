"""Routes as values: which alert starts which recovery, on which named target, within which limits.

They come from a file (`routes_file`), and what they make of an alert is in `routing`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from operate.alerts.matchers import Matcher, all_fit

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


class Mode(StrEnum):
    """What a route starts: a walk that changes nothing, or the recovery itself."""

    TRIAGE = "triage"
    RECOVER = "recover"


@dataclass(frozen=True)
class Target:
    """A named target. `when` holds, by label, the values that mean it; parameters are ours."""

    name: str
    when: Mapping[str, Sequence[str]]
    parameters: Mapping[str, Any]

    def is_meant_by(self, labels: Mapping[str, str]) -> bool:
        """Whether the labels name it, by exactly these values."""
        return all(labels.get(label, "") in values for label, values in self.when.items())


@dataclass(frozen=True)
class Guard:
    """When a route holds back.

    Attributes:
        cool_down_seconds: from the start of one run on a target to the next.
        flap_episodes: that many episodes of an alert within `flap_within_seconds` are flapping.
        flap_within_seconds: see there.
        flap_steady_seconds: how long a flapping alert must fire before it starts anything.
        strikes: that many failed runs on a target in a row, and a person is asked.
        strikes_within_seconds: failures older than this are forgotten.
    """

    cool_down_seconds: int = 900
    flap_episodes: int = 4
    flap_within_seconds: int = 3600
    flap_steady_seconds: int = 900
    strikes: int = 3
    strikes_within_seconds: int = 86_400


@dataclass(frozen=True)
class Limits:
    """How far it may reach: recoveries at the same time, and targets within an hour."""

    concurrent_recoveries: int = 2
    targets_per_hour: int = 6


@dataclass(frozen=True)
class Route:
    """One way from an alert to a recovery."""

    name: str
    matchers: Sequence[Matcher]
    flow: str
    targets: Sequence[Target]
    table: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    severity: str = "warning"
    mode: Mode = Mode.TRIAGE
    guard: Guard = field(default_factory=Guard)
    deployment: str = ""


@dataclass(frozen=True)
class Unrouted:
    """Alerts that start nothing on purpose, and why."""

    matchers: Sequence[Matcher]
    reason: str


@dataclass(frozen=True)
class Window:
    """Maintenance: alerts wait until it ends. Either two moments, or hours of some weekdays."""

    name: str
    matchers: Sequence[Matcher] = ()
    begins_at: datetime | None = None
    ends_at: datetime | None = None
    days: Sequence[str] = ()
    begins: time = time()
    lasts: timedelta = timedelta()
    zone: str = "UTC"

    def open_until(self, labels: Mapping[str, str], at: datetime) -> datetime | None:
        """When it ends, where it is open for these labels at that moment."""
        if not all_fit(self.matchers, labels):
            return None
        if self.begins_at is not None and self.ends_at is not None:
            return self.ends_at if self.begins_at <= at < self.ends_at else None
        local = at.astimezone(ZoneInfo(self.zone))
        for days_back in (0, 1):  # one that began yesterday may last past midnight
            day = local.date() - timedelta(days=days_back)
            begins_at = datetime.combine(day, self.begins, local.tzinfo)
            ends_at = begins_at.astimezone(UTC) + self.lasts
            is_day = DAYS[day.weekday()] in self.days
            if is_day and begins_at.astimezone(UTC) <= at < ends_at:
                return ends_at
        return None


@dataclass(frozen=True)
class Watchdog:
    """The alert that always fires: its silence is the alarm."""

    matchers: Sequence[Matcher]
    silent_after_seconds: int


@dataclass(frozen=True)
class Routes:
    """A whole file of routes; the first route that fits counts."""

    file: Path
    routes: Sequence[Route] = ()
    unrouted: Sequence[Unrouted] = ()
    windows: Sequence[Window] = ()
    limits: Limits = field(default_factory=Limits)
    watchdog: Watchdog | None = None

    @property
    def remarks(self) -> list[str]:
        """What is no error and still keeps routes from reaching anything."""
        empty = sorted({route.table for route in self.routes if not route.targets})
        return (
            [f"no targets are named in {', '.join(empty)}: their alerts start nothing"]
            if empty
            else []
        )

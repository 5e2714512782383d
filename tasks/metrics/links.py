"""Which link is broken between what is measured and what a panel shows."""

import time
from dataclasses import dataclass
from enum import StrEnum

from recovery.errors import CommandFailed, NotVerified
from recovery.steps import decision, verify
from tasks.metrics.influx import InfluxThroughGrafana, open_influx, quoted
from tasks.metrics.order import MetricsOrder

SHOWN_MAX = 10
PAUSE_SECONDS = 1.0
FUTURE_SECONDS = 60
ORGANISATION = "resources_requests_percentile"
EXECUTION_TIMES = (
    f"SELECT * FROM \"{ORGANISATION}\" WHERE resource = 'collaborationtypes' "  # noqa: S608
    "ORDER BY time DESC LIMIT 1"
)
SYSTEM = "system"


class Freshness(StrEnum):
    """How a measurement stands."""

    FRESH = "fresh"
    STALE = "stale"
    MISSING = "missing"
    IN_THE_FUTURE = "in-the-future"


@dataclass(frozen=True)
class MeasurementSeen:
    """A measurement, and how old its newest point is, in seconds."""

    name: str
    freshness: Freshness
    age_seconds: int

    def __str__(self) -> str:
        """In a line."""
        if self.freshness is Freshness.MISSING:
            return f"{self.name} is missing"
        return f"{self.name} is {self.freshness}: its newest point is {self.age_seconds} s old"


@dataclass(frozen=True)
class LinksFound:
    """What was seen from the data source down, and what that calls for."""

    database: str
    measurements: list[MeasurementSeen]
    others: list[str]
    recommended: list[str]

    @property
    def is_flowing(self) -> bool:
        """Whether everything that is to be measured is."""
        return all(one.freshness is Freshness.FRESH for one in self.measurements)

    @property
    def seen(self) -> list[str]:
        """Each measurement, in a line."""
        return [str(one) for one in self.measurements]


@decision
def links_found(order: MetricsOrder) -> LinksFound:
    """Which measurements there are, how fresh they are, and who is to be looked at.

    Raises:
        Refused: Grafana does not reach InfluxDB: that comes first.
        CommandFailed: InfluxDB said no.
        Unreachable: Grafana gave no answer.

    Runbook: docs/runbooks/grafana-metrics.md, steps 1 and 2.
    """
    influx = open_influx(order)
    there = measurements_in(influx)
    seen = [_seen(influx, name, there, order.fresh_seconds) for name in order.measurements]
    others = sorted(set(there) - set(order.measurements))[:SHOWN_MAX]
    return LinksFound(influx.database, seen, others, _recommended(seen, influx))


@verify
def is_flowing(order: MetricsOrder, within_seconds: int) -> str:
    """How each measurement stands, once all are fresh.

    Raises:
        NotVerified: not in time; says what was seen last.
        Unreachable: Grafana gave no answer.

    Runbook: docs/runbooks/grafana-metrics.md, step 6.
    """
    ends = time.monotonic() + within_seconds
    while True:
        influx = open_influx(order)
        there = measurements_in(influx)
        seen = [_seen(influx, name, there, order.fresh_seconds) for name in order.measurements]
        if all(one.freshness is Freshness.FRESH for one in seen):
            return "; ".join(map(str, seen))
        if time.monotonic() > ends:
            raise NotVerified(
                order.label,
                "fresh points of every measurement",
                "; ".join(map(str, seen)),
                "Read the log of telegraf for E!, and see the runbook for what it says",
            )
        time.sleep(PAUSE_SECONDS)


def measurements_in(influx: InfluxThroughGrafana) -> list[str]:
    """Every measurement of the database; none where it is empty."""
    series = influx.ask("SHOW MEASUREMENTS")
    return [str(name) for one in series for name in one.column("name")]


def judged(name: str, age_seconds: int, fresh_seconds: int) -> MeasurementSeen:
    """How a measurement stands, by the age of its newest point."""
    freshness = Freshness.FRESH if age_seconds <= fresh_seconds else Freshness.STALE
    if age_seconds < -FUTURE_SECONDS:
        freshness = Freshness.IN_THE_FUTURE
    return MeasurementSeen(name, freshness, age_seconds)


def _seen(
    influx: InfluxThroughGrafana, name: str, there: list[str], fresh_seconds: int
) -> MeasurementSeen:
    if name not in there:
        return MeasurementSeen(name, Freshness.MISSING, 0)
    newest = f"SELECT * FROM {quoted(name)} ORDER BY time DESC LIMIT 1"  # noqa: S608 (quoted)
    times = [int(at) for one in influx.ask(newest) for at in one.column("time")]
    if not times:
        return MeasurementSeen(name, Freshness.MISSING, 0)
    return judged(name, int(time.time()) - times[0], fresh_seconds)


def _recommended(seen: list[MeasurementSeen], influx: InfluxThroughGrafana) -> list[str]:
    told = []
    for one in seen:
        if one.freshness in {Freshness.MISSING, Freshness.STALE}:
            told.append(f"{one}: look at telegraf; cluster= lets its rights and log be looked at")
        elif one.freshness is Freshness.IN_THE_FUTURE:
            told.append(f"{one}: the clocks of its sources are ahead; run synchronise-clocks")
    try:
        has_times = bool(influx.ask(EXECUTION_TIMES, SYSTEM))
    except CommandFailed:  # no Vantiq: there is no such database
        return told
    if not has_times:
        told.append(
            "Organization Activity shows no Execution Time: no collaborationtypes in "
            f"{ORGANISATION}; run restart-service for metrics-collector"
        )
    return told

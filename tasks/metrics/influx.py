"""An InfluxDB 1.x asked the way that panels ask it: through the data source of a Grafana."""

from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import httpx

from blocks.grafana.api import GrafanaApi
from recovery.errors import CommandFailed, Refused, UnreadableOutput
from recovery.secrecy.redaction import redacted_head
from tasks.datasources.health import HealthState, error_in, health_of, proxy_path
from tasks.datasources.order import Kind
from tasks.datasources.stored import Stored, release_of, stored_named
from tasks.metrics.order import MetricsOrder


@dataclass(frozen=True)
class Series:
    """Rows of one measurement, or of one list."""

    name: str
    columns: list[str]
    rows: list[list[Any]]

    def column(self, name: str) -> list[Any]:
        """Every value of a column; none where there is no such column."""
        if name not in self.columns:
            return []
        return [row[self.columns.index(name)] for row in self.rows]


@dataclass(frozen=True)
class InfluxThroughGrafana:
    """The way to ask."""

    grafana: GrafanaApi
    stored: Stored
    release: int

    @property
    def database(self) -> str:
        """The database that the data source names."""
        named = (self.stored.fields.get("jsonData") or {}).get("dbName")
        return str(named or self.stored.fields.get("database") or "")

    def ask(self, query: str, database: str = "") -> list[Series]:
        """Return the rows of a query; no series where there are none.

        Raises:
            CommandFailed: InfluxDB said no: it answers 200 then, and the error inside.
            Unreachable: Grafana gave no answer.
        """
        asked = {"db": database or self.database, "q": query, "epoch": "s"}
        path = proxy_path(self.stored, self.release, f"/query?{urlencode(asked)}")
        answer = self.grafana.answer(path)
        said = answer.read()
        wrong = answer.said if answer.status != httpx.codes.OK else error_in(said)
        if wrong:
            remedy = "See whether the database and the query are right, then resume"
            raise CommandFailed(self.grafana.target, query, answer.status, wrong, remedy)
        return read_series(query, said)


def read_series(query: str, said: Any) -> list[Series]:
    """Read `{"results": [{"series": [{"name", "columns", "values"}]}]}`, as InfluxDB 1.6 says it.

    Raises:
        UnreadableOutput: it is none.
    """
    try:
        return [
            Series(str(one.get("name", "")), list(one["columns"]), list(one.get("values") or []))
            for result in said["results"]
            for one in result.get("series") or []
        ]
    except (AttributeError, KeyError, TypeError) as error:
        raise UnreadableOutput(query, redacted_head(str(said), 500)) from error


def open_influx(order: MetricsOrder) -> InfluxThroughGrafana:
    """The way to ask, once Grafana itself reaches what is behind its data source.

    Raises:
        Refused: there is no such data source, it is none of InfluxDB, or Grafana does not reach it.
        Unreachable: Grafana gave no answer.
    """
    release = release_of(order.grafana.health().version)
    stored = stored_named(order.grafana, order.datasource)
    first = "Run add-grafana-datasource first"
    if stored is None:
        raise Refused(order.label, f"there is no data source {order.datasource!r}", first)
    if stored.kind != Kind.INFLUXDB:
        reason = f"{order.datasource!r} is a {stored.kind} data source"
        raise Refused(order.label, reason, "Name that of InfluxDB")
    health = health_of(order.grafana, stored, release)
    if health.state is HealthState.FAILING:
        reason = f"Grafana does not reach it: {health.told}"
        raise Refused(order.label, reason, f"{health.remedy}. {first}")
    return InfluxThroughGrafana(order.grafana, stored, release)


def quoted(name: str) -> str:
    """A name of InfluxQL in double quotes."""
    escaped = name.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'

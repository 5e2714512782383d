"""Whether Grafana reaches what is behind a data source: by its own word, or through its proxy."""

import time
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from urllib.parse import urlencode

import httpx

from blocks.grafana.answer import GrafanaAnswer
from blocks.grafana.api import GrafanaApi, in_path
from recovery.errors import NotVerified
from recovery.secrecy.redaction import redacted_head
from recovery.steps import verify
from tasks.datasources.order import Accepted, DatasourceOrder, Kind
from tasks.datasources.stored import LISTED, Stored, is_by_uid, release_of, stored_named

PAUSE_SECONDS = 0.5
TOLD_CHARACTERS = 300
NO_HEALTH = {404, 501}
MESSAGES_OF_NO_HEALTH = ("not found", "not implemented", "method not")


class HealthState(StrEnum):
    """What is known of it."""

    OK = "ok"
    FAILING = "failing"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class DatasourceHealth:
    """Whether what is behind a data source answers, and what was said of it."""

    state: HealthState
    told: str

    @property
    def remedy(self) -> str:
        """What to do about it, as far as what was said tells."""
        said = self.told.lower()
        for words, remedy in REMEDIES:
            if any(word in said for word in words):
                return remedy
        return "Read the log of Grafana, and see whether what the URL names runs"


REMEDIES = (
    (
        ("no such host", "lookup", "name or service"),
        "The URL must name the Service, as http://influxdb:8086 (not the pod, not the release)",
    ),
    (
        ("connection refused", "bad gateway", "timeout", "no route"),
        "See whether it runs and listens on that port, and whether a NetworkPolicy is between",
    ),
    (
        ("401", "unauthorized", "authorization failed", "authentication", "access denied"),
        "Give user and password_file: from Vantiq 3.10.1 on InfluxDB asks for them (secrets.yaml)",
    ),
    (("database not found", "unknown database"), "Give the database that is there"),
)


def health_of(grafana: GrafanaApi, stored: Stored, release: int) -> DatasourceHealth:
    """Ask Grafana to ask what is behind a data source.

    Releases before 8, and plugins without a health of their own, are asked through the proxy of
    the data source; where there is no question that fits its type, nothing is known.

    Raises:
        Unreachable: Grafana itself gave no answer.
    """
    answer = grafana.answer(f"{stored.path(release)}/health")
    said = answer.read()
    if is_no_health(answer):
        return _through_the_proxy(grafana, stored, release)
    if isinstance(said, dict) and str(said.get("status", "")).upper() in {"OK", "ERROR"}:
        is_ok = answer.status == httpx.codes.OK and str(said["status"]).upper() == "OK"
        return DatasourceHealth(HealthState.OK if is_ok else HealthState.FAILING, answer.said)
    return DatasourceHealth(HealthState.FAILING, f"{answer.status} {answer.said}")


def is_no_health(answer: GrafanaAnswer) -> bool:
    """Whether this release or this plugin has no health to be asked for."""
    said = answer.said.lower()
    return answer.status in NO_HEALTH and any(words in said for words in MESSAGES_OF_NO_HEALTH)


def proxy_path(stored: Stored, release: int, path: str) -> str:
    """Where Grafana passes a question on to what is behind a data source."""
    by_uid = is_by_uid(stored.uid, release)
    place = f"uid/{in_path(stored.uid)}" if by_uid else str(stored.number)
    return f"{LISTED}/proxy/{place}{path}"


def _through_the_proxy(grafana: GrafanaApi, stored: Stored, release: int) -> DatasourceHealth:
    question = _question_for(stored)
    if not question:
        told = f"this Grafana tells no health of {stored.kind} data sources"
        return DatasourceHealth(HealthState.UNKNOWN, told)
    answer = grafana.answer(proxy_path(stored, release, question))
    told = redacted_head(f"{answer.status} {answer.said}", TOLD_CHARACTERS)
    if answer.status != httpx.codes.OK or (wrong := error_in(answer.read())):
        return DatasourceHealth(HealthState.FAILING, wrong if answer.status == 200 else told)  # noqa: PLR2004
    return DatasourceHealth(HealthState.OK, f"it answered {question.partition('?')[0]}")


def _question_for(stored: Stored) -> str:
    json_data = stored.fields.get("jsonData") or {}
    database = json_data.get("dbName") or stored.fields.get("database") or ""
    return {
        str(Kind.INFLUXDB): "/query?"
        + urlencode({"db": database, "q": "SHOW MEASUREMENTS LIMIT 1"}),
        str(Kind.PROMETHEUS): "/api/v1/query?query=1",
        str(Kind.LOKI): "/loki/api/v1/labels",
    }.get(stored.kind, "")


def error_in(said: Any) -> str:
    """What InfluxDB says is wrong: it answers 200 to a query that failed, and says so inside."""
    if not isinstance(said, dict):
        return "the answer is no JSON"
    results = said.get("results")
    inner = [one for one in results if isinstance(one, dict)] if isinstance(results, list) else []
    return next((str(one["error"]) for one in (said, *inner) if one.get("error")), "")


@verify
def datasource_answers(order: DatasourceOrder, within_seconds: int) -> str:
    """What Grafana says of the data source once it reaches what is behind it.

    Raises:
        NotVerified: not in time; says what was said last.
        Unreachable: Grafana gave no answer.

    Runbook: docs/runbooks/grafana-datasource.md, step 6.
    """
    ends = time.monotonic() + within_seconds
    release = release_of(order.grafana.health().version)
    while True:
        stored = stored_named(order.grafana, order.wish.name)
        if stored is None:
            remedy = "Somebody removed or renamed it: look, then begin a new recovery"
            raise NotVerified(order.label, "a data source of this name", "none", remedy)
        health = health_of(order.grafana, stored, release)
        is_accepted = Accepted.HEALTH_UNKNOWN in order.accept
        if health.state is HealthState.OK or (health.state is HealthState.UNKNOWN and is_accepted):
            return f"{stored.uid or stored.number}: {health.told}"
        if time.monotonic() > ends:
            raise NotVerified(
                order.label,
                "Grafana to reach what is behind it",
                health.told,
                f"{health.remedy}; `recover undo` puts back what was",
            )
        time.sleep(PAUSE_SECONDS)

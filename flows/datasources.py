"""Give Grafana a data source that it reaches: look, refuse, write, ask Grafana for its health."""

from dataclasses import dataclass
from typing import Literal

from recovery.declare import recovery
from tasks.datasources import finding, health, writing
from tasks.datasources.order import PasswordSource, datasource_order, datasource_target


@dataclass(frozen=True)
class DatasourceAdded:
    """What was found, what was done, and what now holds.

    Attributes:
        found: how the data source stood.
        done: nothing, created, or changed.
        holds: what Grafana says of it now.
    """

    found: str
    done: str
    holds: str


@recovery(
    runbook="docs/runbooks/grafana-datasource.md",
    target=datasource_target,
    answers=["GrafanaRequestsFailing"],
    resumes_itself="it writes one data source, and asks Grafana for it before it does",
)
def add_grafana_datasource(  # noqa: PLR0913, PLR0917 (fields of the form)
    grafana_url: str,
    name: str,
    url: str,
    kind: Literal[
        "influxdb", "prometheus", "loki", "graphite", "elasticsearch", "mysql", "postgres"
    ] = "influxdb",
    user: str = "",
    password_file: str = "",
    password_env: str = "",
    database: str = "",
    uid: str = "",
    default: bool = False,  # noqa: FBT001, FBT002 (a field of the form)
    former_password_file: str = "",
    accept: list[str] | None = None,
    within_seconds: int = 30,
) -> DatasourceAdded:
    """Create a data source of Grafana, or correct the one of this name, until Grafana reaches it.

    One that works, is provisioned or is of another type is not touched unasked.

    Args:
        grafana_url: https://host:port/?token_file=PATH of Grafana.
        name: The name of the data source.
        url: Where Grafana reaches it, as http://influxdb:8086; host:port for databases of SQL.
        kind: Its type, as Grafana calls it.
        user: Who logs in; empty: as it is.
        password_file: File of mode 0600 on the worker that holds the password.
        password_env: Environment variable of the worker that holds it.
        database: Which database; empty: as it is.
        uid: Its uid; empty: as it is, or derived from the name.
        default: Make it the one that panels without a data source ask.
        former_password_file: File that holds the password of before, for the way back.
        accept: Names of what is refused otherwise, as works-now or former-password.
        within_seconds: How long Grafana may take to reach it.

    Runbook: docs/runbooks/grafana-datasource.md, steps 1 to 6.
    """
    order = datasource_order(
        grafana_url,
        {"name": name, "kind": kind, "url": url, "user": user, "database": database, "uid": uid,
         "is_default": default},
        PasswordSource(password_file, password_env),
        PasswordSource(former_password_file),
        accept or (),
    )  # fmt: skip
    finding.refuse_unless_ready(order)
    found = finding.datasource_found(order)
    if found.is_so:
        return DatasourceAdded(found.seen, "nothing", found.told)
    writing.set_datasource(order, found)
    holds = health.datasource_answers(order, within_seconds)
    return DatasourceAdded(found.seen, "changed" if found.is_there else "created", holds)

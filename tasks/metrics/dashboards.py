"""Dashboards whose queries are migrated: found, kept, saved anew, asked for rows, and put back."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blocks.grafana.answer import GrafanaNotFound
from blocks.grafana.api import GrafanaApi, in_path
from recovery.errors import BadInput, CommandFailed, NotVerified, Refused, UnreadableOutput
from recovery.secrecy.redaction import redacted_head
from recovery.steps import act, decision, undo, verify
from recovery.verdict import Verdict
from tasks.grafana.migration import work_folder
from tasks.grafana_dashboards import IMPORT_PATH
from tasks.kept_files import write_durably
from tasks.metrics.asking import askable, is_askable, values_of
from tasks.metrics.dashboard_queries import Migrated, QueryChange, migrated_dashboard
from tasks.metrics.influx import InfluxThroughGrafana, open_influx
from tasks.metrics.order import ALL, Accepted, MetricsOrder

SEARCHED_MAX = 5000


@dataclass(frozen=True)
class DashboardFound:
    """A dashboard as it was found, and what becomes of its queries."""

    uid: str
    title: str
    version: int
    folder_uid: str
    changes: list[QueryChange]
    left: list[str]
    empty: list[str]

    @property
    def name(self) -> str:
        """Its uid, by which its steps are told apart."""
        return self.uid


@decision(none_is_fine=True)
def dashboards_found(order: MetricsOrder) -> list[DashboardFound]:
    """The dashboards with queries that only docker's metrics could answer.

    Raises:
        Refused: one is provisioned, has a query without a counterpart, or one whose counterpart
            returns nothing, and nobody accepted that by name.
        BadInput: there is no dashboard of a uid.
        Unreachable: Grafana gave no answer.

    Runbook: docs/runbooks/grafana-metrics.md, step 4.
    """
    found: list[DashboardFound] = []
    provisioned: list[str] = []
    for uid in uids_of(order):
        said = read_dashboard(order.grafana, uid)
        if said is None:
            raise BadInput("dashboards", f"there is no dashboard of uid {uid!r}", "See its URL")
        migrated = migrated_dashboard(said["dashboard"])
        title = str(said["dashboard"].get("title"))
        if not migrated.changes and not migrated.left:
            continue
        if said["meta"].get("provisioned"):
            provisioned.append(f"{title!r} ({uid})")
            continue
        found.append(_found(order, said, migrated))
    _refuse_provisioned(order, provisioned)
    _refuse_what_is_lost(order, found)
    return [one for one in found if one.changes]


def uids_of(order: MetricsOrder) -> list[str]:
    """The dashboards that are meant; every one only where `all` is spelled."""
    if list(order.dashboards) != [ALL]:
        return list(order.dashboards)
    path = f"/api/search?type=dash-db&limit={SEARCHED_MAX}"
    listed = order.grafana.get(path)
    if not isinstance(listed, list) or len(listed) == SEARCHED_MAX:
        raise UnreadableOutput(f"GET {path}", f"{SEARCHED_MAX} or more, or no list")
    return [str(one["uid"]) for one in listed]


def read_dashboard(grafana: GrafanaApi, uid: str) -> dict[str, Any] | None:
    """A dashboard with what Grafana says of it; `None` where there is none.

    Raises:
        UnreadableOutput: the answer is no dashboard.
    """
    path = f"/api/dashboards/uid/{in_path(uid)}"
    try:
        said = grafana.get(path)
    except GrafanaNotFound:
        return None
    if not isinstance(said, dict) or not isinstance(said.get("dashboard"), dict):
        raise UnreadableOutput(f"GET {path}", redacted_head(json.dumps(said), 500))
    return {"meta": said.get("meta") or {}, "dashboard": said["dashboard"]}


def kept_file(uid: str) -> Path:
    """Where a dashboard is kept as it was."""
    return work_folder().path / "dashboards" / f"{uid}.json"


def is_kept(dashboard: DashboardFound) -> Verdict:
    """Whether it is kept as it was looked at."""
    kept = _read_kept(dashboard.uid)
    return Verdict.of(kept is not None and version_of(kept) == dashboard.version)


@act(
    commands=lambda dashboard: [f"keep dashboard {dashboard.uid} in {kept_file(dashboard.uid)}"],
    done_when=is_kept,
    each=("dashboard",),
    lasts_until="migrate_dashboard",  # from then on Grafana has it in its history
    redo_stale=False,
)
def keep_dashboard(order: MetricsOrder, dashboard: DashboardFound) -> None:
    """Keep a dashboard as it is, on the worker. Grafana is only read.

    Raises:
        Refused: somebody saved it since it was looked at.
        Unreachable: Grafana gave no answer.

    Runbook: docs/runbooks/grafana-metrics.md, step 5.
    """
    said = _live(order, dashboard)
    if version_of(said) != dashboard.version:
        raise _saved_since(order, dashboard)
    path = kept_file(dashboard.uid)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_durably(path, json.dumps(said, ensure_ascii=False))


def migrate_commands(order: MetricsOrder, dashboard: DashboardFound) -> Iterable[str]:
    """What saves it, with what becomes of each query."""
    body, note = _migrated_request(order, dashboard)
    return [order.grafana.command("POST", IMPORT_PATH, body, note=note)]


def is_migrated(order: MetricsOrder, dashboard: DashboardFound) -> Verdict:
    """Whether no query is left in it that has a counterpart."""
    return Verdict.of(not migrated_dashboard(_live(order, dashboard)["dashboard"]).changes)


@undo
def dashboard_put_back(order: MetricsOrder, dashboard: DashboardFound) -> None:
    """Save a dashboard as it was kept; where that is not on this worker, as Grafana kept it."""
    said = _live(order, dashboard)
    is_back = bool(migrated_dashboard(said["dashboard"]).changes)
    if version_of(said) == dashboard.version or is_back:
        return
    if version_of(said) != dashboard.version + 1:
        raise _saved_since(order, dashboard)
    kept = _read_kept(dashboard.uid)
    if kept is None:
        path = f"/api/dashboards/uid/{in_path(dashboard.uid)}/restore"
        order.grafana.send("POST", path, {"version": dashboard.version})
        return
    body = {**kept["dashboard"], "version": version_of(said)}
    message = f"put back as it was in version {dashboard.version}"
    note = f"dashboard {dashboard.title!r}, uid {dashboard.uid}, {message}"
    order.grafana.send("POST", IMPORT_PATH, _request(said, body, message), note=note)


@act(
    commands=migrate_commands,
    done_when=is_migrated,
    undo=dashboard_put_back,
    each=("dashboard",),
    redo_stale=False,
)
def migrate_dashboard(order: MetricsOrder, dashboard: DashboardFound) -> None:
    """Save a dashboard with other queries; nothing else in it is changed.

    Sent with the version that was looked at: done twice, the second is refused by Grafana.

    Raises:
        GrafanaConflict: somebody saved it since.
        GrafanaPermissionMissing, CommandFailed: Grafana said no.
        AnswerLost: it may have been saved; its probe tells.

    Runbook: docs/runbooks/grafana-metrics.md, step 5.
    """
    body, note = _migrated_request(order, dashboard)
    order.grafana.send("POST", IMPORT_PATH, body, note=note)


@verify(each=("dashboard",))
def queries_return_rows(order: MetricsOrder, dashboard: DashboardFound) -> str:
    """How many of the new queries of a dashboard return rows.

    Raises:
        NotVerified: one returns none that returned some before.
        Unreachable: Grafana gave no answer.

    Runbook: docs/runbooks/grafana-metrics.md, step 6.
    """
    said = _live(order, dashboard)
    empty = empty_queries(open_influx(order), said["dashboard"], dashboard.changes)
    if more := sorted(set(empty) - set(dashboard.empty)):
        seen = f"nothing from {', '.join(more)}"
        raise NotVerified(order.label, f"rows for every query of {dashboard.title!r}", seen)
    rows = len(dashboard.changes) - len(empty)
    return f"{dashboard.title!r}: {rows} of {len(dashboard.changes)} new queries return rows"


def empty_queries(
    influx: InfluxThroughGrafana, dashboard: dict[str, Any], changes: Iterable[QueryChange]
) -> list[str]:
    """Where the new queries stand that return nothing, or that cannot be asked from outside."""
    values = values_of(dashboard)
    empty = []
    for change in changes:
        query = askable(change.after, values)
        if not is_askable(query):
            empty.append(f"{change.at} (its variables have no value yet)")
            continue
        try:
            if not influx.ask(query):
                empty.append(change.at)
        except CommandFailed as failed:
            empty.append(f"{change.at} ({failed.tail})")
    return empty


def version_of(said: dict[str, Any]) -> int:
    """How often a dashboard was saved."""
    return int(said["dashboard"].get("version") or 0)


def _found(order: MetricsOrder, said: dict[str, Any], migrated: Migrated) -> DashboardFound:
    dashboard = said["dashboard"]
    empty = empty_queries(open_influx(order), dashboard, migrated.changes)
    return DashboardFound(
        str(dashboard["uid"]),
        str(dashboard.get("title")),
        version_of(said),
        str(said["meta"].get("folderUid") or ""),
        migrated.changes,
        [str(one) for one in migrated.left],
        empty,
    )


def _refuse_provisioned(order: MetricsOrder, provisioned: list[str]) -> None:
    if provisioned and Accepted.PROVISIONED not in order.accept:
        raise Refused(
            order.label,
            f"these come from files of Grafana's, which no API saves: {', '.join(provisioned)}",
            f"Change the files (see the runbook for what becomes of each query), and name the "
            f"others; accept={Accepted.PROVISIONED} leaves these as they are",
        )


def _refuse_what_is_lost(order: MetricsOrder, found: list[DashboardFound]) -> None:
    left = [f"{one.title!r}, {at}" for one in found for at in one.left]
    if left and Accepted.NO_COUNTERPART not in order.accept:
        raise Refused(
            order.label,
            f"{len(left)} queries have no counterpart under containerd: {'; '.join(left)}",
            f"Take them out of the dashboard; accept={Accepted.NO_COUNTERPART} leaves them as they "
            "are, showing nothing",
        )
    empty = [f"{one.title!r}, {at}" for one in found for at in one.empty]
    if empty and Accepted.EMPTY_QUERIES not in order.accept:
        raise Refused(
            order.label,
            f"{len(empty)} of the new queries return nothing: {'; '.join(empty)}",
            "See whether telegraf writes kubernetes_pod_container, by cluster=; where a panel may "
            f"be empty, accept={Accepted.EMPTY_QUERIES}",
        )


def _live(order: MetricsOrder, dashboard: DashboardFound) -> dict[str, Any]:
    said = read_dashboard(order.grafana, dashboard.uid)
    if said is None:
        raise NotVerified(
            order.label,
            f"dashboard {dashboard.title!r} of uid {dashboard.uid}",
            "none",
            f"Somebody deleted it; it is kept in {kept_file(dashboard.uid)}",
        )
    return said


def _saved_since(order: MetricsOrder, dashboard: DashboardFound) -> Refused:
    return Refused(
        order.label,
        f"somebody saved {dashboard.title!r} since",
        "Look at its versions in Grafana, and begin a new recovery, or go back there by hand",
    )


def _migrated_request(order: MetricsOrder, dashboard: DashboardFound) -> tuple[dict[str, Any], str]:
    said = _live(order, dashboard)
    new = migrated_dashboard(said["dashboard"])
    diff = "\n".join(map(str, new.changes))
    note = f"dashboard {dashboard.title!r}, uid {dashboard.uid}, version {dashboard.version}:"
    body = {**new.dashboard, "version": dashboard.version}
    message = f"{len(dashboard.changes)} queries from docker to containerd"
    return _request(said, body, message), f"{note}\n{diff}\n"


def _request(said: dict[str, Any], dashboard: dict[str, Any], message: str) -> dict[str, Any]:
    """What saves a dashboard in the folder that it is in."""
    meta = said["meta"]
    folder = {name: meta[name] for name in ("folderId", "folderUid") if meta.get(name)}
    return {"dashboard": dashboard, **folder, "overwrite": False, "message": message}


def _read_kept(uid: str) -> dict[str, Any] | None:
    try:
        kept = json.loads(kept_file(uid).read_text())
    except (FileNotFoundError, ValueError):
        return None
    return dict(kept)

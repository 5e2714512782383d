"""What is told of alerts: what a payload would do, and what became of those that came."""

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from operate.alerts.guards import is_releasable
from operate.alerts.kept import ASKS_PERSON, STANDS, Kept
from operate.alerts.opening import open_alerts
from operate.alerts.payload import Alert, read_payload
from operate.alerts.routes import Routes
from operate.alerts.routes_file import read_routes
from operate.alerts.routing import Kind, decide
from operate.alerts.store import AlertStore
from operate.alerts.watchdog import HEARD
from recovery.errors import BadInput
from recovery.run import recovery_id_of


def rehearsal(file: Path, routes_file: Path | None) -> dict[str, Any]:
    """Say what a payload would do and why.

    Raises:
        BadInput: the file or the routes are wrong.
    """
    routes = read_routes(routes_file)
    try:
        raw = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    except OSError as error:
        seen = f"it cannot be read: {error.strerror}"
        raise BadInput(f"FILE {file}", seen, "Name a payload as it is posted") from None
    now = datetime.now(UTC)
    payload = read_payload(raw, now)
    return {
        "routes": str(routes.file),
        "alerts": [_rehearsed(routes, alert, now) for alert in payload.alerts],
        "set_aside": payload.set_aside,
        "remarks": routes.remarks,
    }


def _rehearsed(routes: Routes, alert: Alert, now: datetime) -> dict[str, Any]:
    decision = decide(routes, alert, now)
    reasons = list(decision.reasons)
    would = str(decision.kind)
    reasons += [
        f"maintenance {window.name}: it waits until {until:%F %R} UTC"
        for window in routes.windows
        if decision.kind is Kind.RUN and (until := window.open_until(alert.labels, now))
    ]
    if not alert.is_firing and decision.kind is Kind.RUN:
        would = "call-off"
        reasons.append("it is resolved: what it started and has not acted is cancelled")
    return {
        "name": alert.name,
        "fingerprint": alert.fingerprint,
        "starts_at": alert.starts_at,
        "status": "firing" if alert.is_firing else "resolved",
        "would": would,
        "route": decision.route.name if decision.route else "",
        "flow": decision.route.flow if decision.route else "",
        "target": decision.target.name if decision.target else "",
        "severity": decision.route.severity if decision.route else "",
        "parameters": dict(decision.parameters),
        "reasons": reasons,
    }


def listed(store: str, state: str, limit: int) -> list[dict[str, Any]]:
    """List alerts, latest first.

    Raises:
        BadInput: there is no such state.
    """
    if state and state not in STANDS:
        raise BadInput("--state", f"there is no {state!r}", f"There are: {', '.join(STANDS)}")
    with _opened(store) as alerts:
        return [_plain(kept, alerts) for kept in alerts.latest(limit, state)]


def status_of(store: str, routes_file: Path | None) -> dict[str, Any]:
    """Count alerts, and say when the watchdog was last heard."""
    routes = read_routes(routes_file)
    with _opened(store) as alerts:
        heard_at = alerts.last_beat(HEARD)
        counts = alerts.counts()
        busy = alerts.busy()
        url = alerts.url
    limit = routes.watchdog.silent_after_seconds if routes.watchdog else 0
    silent = time.time() - heard_at
    return {
        "store": url,
        "routes": str(routes.file),
        "alerts": counts,
        "running": busy,
        "asking": counts.get(ASKS_PERSON, 0),
        "running_max": routes.limits.concurrent_recoveries,
        "watchdog_heard_at": _moment(heard_at),
        "watchdog_is_silent": bool(limit) and silent > limit,
        "remarks": routes.remarks,
    }


def released(store: str, fingerprint: str, by: str) -> list[dict[str, Any]]:
    """Let alerts go on that were left to a person, or that only their own past holds back.

    Raises:
        BadInput: nobody is named, or there is no such alert that a person can let go on.
    """
    if not by.strip():
        raise BadInput("--by", "nobody is named", "Add --by NAME")
    by = " ".join(by.split())
    with _opened(store) as alerts:
        named = alerts.to_release(fingerprint) if fingerprint else []
        let_go = [
            kept for kept in named if is_releasable(kept) and alerts.release(kept, by, time.time())
        ]
        if not let_go:
            raise BadInput("FINGERPRINT", _why_not(fingerprint, named), "See `recover alerts list`")
        found = [alerts.find(kept.fingerprint, kept.starts_at) for kept in let_go]
        return [_plain(kept, alerts) for kept in found if kept is not None]


def _why_not(fingerprint: str, named: Sequence[Kept]) -> str:
    if not named:
        return f"no alert {fingerprint!r} waits or is left to a person"
    told = "; ".join(dict.fromkeys(kept.reason or "its turn has not come" for kept in named))
    return f"nobody can hurry what alert {fingerprint!r} waits for ({told})"


@contextmanager
def _opened(store: str) -> Iterator[AlertStore]:
    alerts = open_alerts(store)
    try:
        yield alerts
    finally:
        alerts.close()


def _recovery_of(kept: Kept, alerts: AlertStore) -> str:
    """The id of the recovery of its run; a walk that only plans is none."""
    is_triage = any(one.parameters.get("plan_only") for one in alerts.alerts_of(kept.flow_run_id))
    return "" if is_triage or not kept.flow_run_id else recovery_id_of(kept.flow_run_id)


def _plain(kept: Kept, alerts: AlertStore) -> dict[str, Any]:
    return {
        "name": kept.alert.name,
        "fingerprint": kept.fingerprint,
        "starts_at": kept.starts_at,
        "status": "firing" if kept.is_firing else "resolved",
        "state": kept.stands,
        "reason": kept.reason,
        "route": kept.route,
        "work": kept.work,
        "severity": kept.severity,
        "recovery_id": _recovery_of(kept, alerts),
        "flow_run_id": kept.flow_run_id,
        "outcome": kept.outcome,
        "repeats": kept.repeats,
        "received_at": _moment(kept.received_at),
        "started_at": _moment(kept.started_at),
        "resolved_at": _moment(kept.resolved_at),
        "ended_at": _moment(kept.ended_at),
        "labels": dict(kept.labels),
    }


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds") if seconds else ""

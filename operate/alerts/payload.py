"""What senders post: Alertmanager's webhook in each of its versions, and a plain form.

Everything in it is somebody else's text. An alert that cannot be read is set aside and told about,
and does not take with it those that came in the same group.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from recovery.errors import BadInput

ALERTS_MAX = 20_000
LABELS_MAX = 128
NAME_CHARACTERS_MAX = 256
VALUE_CHARACTERS_MAX = 4096
FINGERPRINT_CHARACTERS_MAX = 64
AHEAD_MAX = timedelta(days=1)
STATUSES = ("firing", "resolved")
SHAPE = "Post Alertmanager's webhook, or {alerts: [{name, labels, status, startsAt}]}"
FNV_OFFSET, FNV_PRIME, FNV_BITS = 0xCBF29CE484222325, 0x100000001B3, 1 << 64


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert of a payload. Moments are UTC in ISO 8601; `starts_at` names the episode.

    Attributes:
        ends_at: when it ended; empty while it fires.
    """

    fingerprint: str
    starts_at: str
    is_firing: bool
    labels: Mapping[str, str]
    ends_at: str = ""

    @property
    def name(self) -> str:
        """What its rule is called, or nothing."""
        return self.labels.get("alertname", "")


@dataclass(frozen=True)
class Payload:
    """What was posted: alerts in their order, and why others were set aside."""

    alerts: list[Alert] = field(default_factory=list)
    set_aside: list[str] = field(default_factory=list)


class Unreadable(Exception):
    """One alert cannot be read; the text says which field, and why."""


def read_payload(raw: bytes, now: datetime) -> Payload:
    """Read what was posted.

    Args:
        raw: the body of the request.
        now: tells what has ended, and what begins too far ahead.

    Raises:
        BadInput: it is no JSON, of another shape, or no alert of it can be read.
    """
    body = _json(raw)
    listed = [body] if isinstance(body, dict) and "labels" in body else body
    if isinstance(body, dict) and "labels" not in body:
        listed = body.get("alerts", body.get("alert"))
    if not isinstance(listed, list):
        raise BadInput("alerts", "there is no list of alerts", SHAPE)
    if len(listed) > ALERTS_MAX:
        raise BadInput("alerts", f"{len(listed)} of them", f"Send up to {ALERTS_MAX} at once")
    group = body if isinstance(body, dict) else {}
    payload = Payload()
    for n, one in enumerate(listed):
        try:
            payload.alerts.append(_alert(one, group, now))
        except Unreadable as why:
            payload.set_aside.append(f"alerts[{n}].{why}")
    if payload.set_aside and not payload.alerts:
        raise BadInput("alerts", "; ".join(payload.set_aside[:3]), SHAPE)
    return payload


def fingerprint_of(labels: Mapping[str, str]) -> str:
    """Hash labels as Prometheus and Alertmanager do: FNV-1a of names and values in order."""
    found = FNV_OFFSET
    for name in sorted(labels):
        for text in (name, labels[name]):
            for byte in (*text.encode(), 0xFF):
                found = (found ^ byte) * FNV_PRIME % FNV_BITS
    return f"{found:016x}"


def _json(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except (ValueError, RecursionError) as error:
        seen = "it is nested too deeply" if isinstance(error, RecursionError) else "it is no JSON"
        raise BadInput("body", seen, SHAPE) from None


def _alert(one: Any, group: Mapping[str, Any], now: datetime) -> Alert:
    if not isinstance(one, dict):
        raise Unreadable("it is no object")
    labels = dict(_labels(one.get("labels", {})))
    if name := _optional_text(one, "name"):
        labels.setdefault("alertname", _clean(name))
    if not labels:
        raise Unreadable("labels: there are none, so nobody knows what it is about")
    starts_at = _moment(_started(one), "startsAt")
    if starts_at is None:
        raise Unreadable("startsAt: it is missing, and tells one episode from the next")
    if starts_at > now + AHEAD_MAX:
        raise Unreadable("startsAt: it lies more than a day ahead")
    ends_at = _moment(one.get("endsAt"), "endsAt")
    is_firing = _is_firing(one, group, ends_at is not None and ends_at <= now)
    return Alert(
        fingerprint=_fingerprint(one, labels),
        starts_at=written(starts_at),
        is_firing=is_firing,
        labels=labels,
        ends_at="" if is_firing else written(min(ends_at or now, now)),
    )


def written(moment: datetime) -> str:
    """Write a moment so that texts are in the order of the moments."""
    return moment.isoformat(timespec="microseconds")


def _labels(given: Any) -> Iterator[tuple[str, str]]:
    if not isinstance(given, dict):
        raise Unreadable("labels: they are no names with values")
    if len(given) > LABELS_MAX:
        raise Unreadable(f"labels: {len(given)} of them, and {LABELS_MAX} are read")
    for name, value in given.items():
        if not isinstance(value, str):
            raise Unreadable("labels: a value is no text")
        if len(name) > NAME_CHARACTERS_MAX or len(value) > VALUE_CHARACTERS_MAX:
            raise Unreadable(f"labels: a value of {len(value)} characters is too long")
        yield _clean(name), _clean(value)


def _clean(text: str) -> str:
    """What every store and pattern can take: no NUL, no half of a surrogate pair."""
    return text.replace("\0", "\ufffd").encode(errors="replace").decode()


def _optional_text(one: Mapping[str, Any], name: str) -> str:
    value = one.get(name, "")
    if not isinstance(value, str) or len(value) > VALUE_CHARACTERS_MAX:
        raise Unreadable(f"{name}: it is no text, or too long")
    return value


def _started(one: Mapping[str, Any]) -> Any:
    """When it began; version 1 has that in a payload of its own."""
    older = one.get("payload")
    return one.get("startsAt") or (older.get("activeSince") if isinstance(older, dict) else None)


def _moment(text: Any, name: str) -> datetime | None:
    """Read a moment; the zero moment of Go, which stands for none, is `None`."""
    if text is None or text == "":
        return None
    try:
        moment = datetime.fromisoformat(text)
        moment = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        if isinstance(text, str) and text.startswith("0001-01-01T"):
            return None
        raise Unreadable(f"{name}: it is no moment such as 2026-03-01T09:30:00Z") from None
    return moment if moment.year > 1 else None


def _is_firing(one: Mapping[str, Any], group: Mapping[str, Any], has_ended: bool) -> bool:  # noqa: FBT001 (one of three)
    status = one.get("status")
    if status is None:  # up to version 3 only the group has one, and an alert that ended its end
        status = "resolved" if has_ended else group.get("status", "firing")
    if status not in STATUSES:
        raise Unreadable("status: it is neither firing nor resolved")
    return bool(status == "firing")


def _fingerprint(one: Mapping[str, Any], labels: Mapping[str, str]) -> str:
    """The fingerprint of its labels; one that was claimed for others stands for itself only.

    Whoever may post could otherwise claim that of an alert to come, and have it taken as known.
    """
    computed = fingerprint_of(labels)
    claimed = _optional_text(one, "fingerprint")
    if not claimed or claimed == computed:
        return computed
    if len(claimed) > FINGERPRINT_CHARACTERS_MAX or not claimed.isascii() or not claimed.isalnum():
        raise Unreadable("fingerprint: it is not of letters and digits, or too long")
    return f"{claimed}-{computed}"

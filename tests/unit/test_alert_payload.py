"""Reading what senders post: every version of the webhook, and everything that is none."""

import contextlib
import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from operate.alerts.payload import fingerprint_of, read_payload
from recovery.errors import BadInput

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
LABELS = {"alertname": "RedisDown", "instance": "10.0.0.5:9121"}
ALERT = {
    "status": "firing",
    "labels": LABELS,
    "annotations": {"summary": "down"},
    "startsAt": "2026-03-01T09:30:00.123456789Z",
    "endsAt": "0001-01-01T00:00:00Z",
    "generatorURL": "http://prometheus/graph",
    "fingerprint": fingerprint_of(LABELS),
}
VERSION_4 = {
    "version": "4",
    "groupKey": '{}:{alertname="RedisDown"}',
    "truncatedAlerts": 0,
    "status": "firing",
    "receiver": "recoveries",
    "notification_reason": "first",
    "alerts": [ALERT],
}
BARE = {name: ALERT[name] for name in ("labels", "annotations", "startsAt", "endsAt")}
VERSIONS = {
    "4": VERSION_4,
    "3": {"version": "3", "groupKey": 12345678901234567890, "status": "firing", "alerts": [BARE]},
    "2": {"version": "2", "status": "firing", "alert": [BARE]},
    "1": {
        "version": "1",
        "status": "firing",
        "alert": [{"labels": LABELS, "payload": {"activeSince": ALERT["startsAt"]}}],
    },
}
PLAIN = {"name": "RedisDown", "labels": {"instance": "10.0.0.5:9121"}, "startsAt": BARE["startsAt"]}


def read(body):
    return read_payload(json.dumps(body).encode(), NOW)


def only(body):
    (alert,) = read(body).alerts
    return alert


@pytest.mark.parametrize("version", VERSIONS)
def test_every_version_of_the_webhook_names_the_same_episode(version):
    alert = only(VERSIONS[version])

    assert (alert.fingerprint, alert.starts_at) == (
        fingerprint_of(LABELS),
        "2026-03-01T09:30:00.123456+00:00",
    )
    assert alert.is_firing
    assert alert.labels == LABELS


@pytest.mark.parametrize("body", [PLAIN, [PLAIN], {"alerts": [PLAIN]}])
def test_a_plain_alert_is_the_same_episode_too(body):
    alert = only(body)

    assert alert.fingerprint == fingerprint_of(LABELS)
    assert alert.name == "RedisDown"


@pytest.mark.parametrize(
    "moment", ["2026-03-01T10:30:00.123456+01:00", "2026-03-01T09:30:00.1234569Z"]
)
def test_a_moment_names_the_same_episode_however_it_is_written(moment):
    assert only({**PLAIN, "startsAt": moment}).starts_at == "2026-03-01T09:30:00.123456+00:00"


@pytest.mark.parametrize(
    ("change", "group", "is_firing"),
    [
        ({"status": "resolved"}, "firing", False),
        ({"status": "firing"}, "resolved", True),
        ({}, "resolved", False),
        ({"endsAt": "2026-03-01T11:00:00Z"}, "firing", False),
        ({"endsAt": "2026-03-01T13:00:00Z"}, "firing", True),
    ],
)
def test_an_alert_counts_by_its_own_status_then_by_its_end_then_by_its_group(
    change, group, is_firing
):
    body = {"version": "3", "status": group, "alerts": [{**BARE, **change}]}

    assert only(body).is_firing is is_firing


def test_a_fingerprint_claimed_for_other_labels_stands_for_itself_only():
    claimed = only({**VERSION_4, "alerts": [{**ALERT, "labels": {"alertname": "Other"}}]})

    assert claimed.fingerprint != ALERT["fingerprint"]
    assert claimed.fingerprint.startswith(ALERT["fingerprint"])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"labels": "x"}, "labels"),
        ({"labels": {}}, "labels"),
        ({"labels": {"a": 1}}, "labels"),
        ({"labels": {"a": "x" * 5000}}, "labels"),
        ({"labels": {f"l{n}": "" for n in range(200)}}, "labels"),
        ({"startsAt": ""}, "startsAt"),
        ({"startsAt": "soon"}, "startsAt"),
        ({"startsAt": 5}, "startsAt"),
        ({"startsAt": "0001-01-01T00:00:00Z"}, "startsAt"),
        ({"startsAt": "9999-12-31T23:59:59-23:00"}, "startsAt"),
        ({"startsAt": "2026-03-03T00:00:00Z"}, "startsAt"),
        ({"status": "maybe"}, "status"),
        ({"status": ["firing"]}, "status"),
        ({"fingerprint": "../../etc"}, "fingerprint"),
        ({"fingerprint": "a" * 65}, "fingerprint"),
    ],
)
def test_an_alert_that_cannot_be_read_is_set_aside_and_the_others_are_taken(change, told):
    payload = read({**VERSION_4, "alerts": [{**ALERT, **change}, ALERT]})

    assert len(payload.alerts) == 1
    assert payload.set_aside[0].startswith(f"alerts[0].{told}:")


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\xff\xfe",
        b"null",
        b"5",
        b"{}",
        b'{"alerts": {}}',
        b'{"alerts": [5]}',
        b'{"alerts": 1' + b"0" * 5000 + b"}",
        b"[" * 200_000,
        b'{"text": "a template of somebody\'s own"}',
    ],
)
def test_what_is_no_payload_is_refused_by_field_and_remedy(raw):
    with pytest.raises(BadInput) as refused:
        read_payload(raw, NOW)

    assert refused.value.field in {"body", "alerts"}
    assert refused.value.remedy


def test_text_that_no_store_could_keep_is_cleaned():
    alert = only({**PLAIN, "labels": {"a\0b": "\ud800x\0"}})

    assert alert.labels["a\ufffdb"] == "?x\ufffd"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)
fields = st.sampled_from([*ALERT, "name", "payload", "activeSince"])
alerts = st.dictionaries(fields, json_values | st.sampled_from(list(map(str, ALERT.values()))))


@given(st.binary())
def test_no_bytes_end_in_anything_but_a_refusal(raw):
    with contextlib.suppress(BadInput):
        read_payload(raw, NOW)


@given(st.lists(alerts | json_values, max_size=5), json_values)
def test_no_shape_ends_in_anything_but_alerts_or_a_refusal(listed, status):
    with contextlib.suppress(BadInput):
        payload = read({"alerts": listed, "status": status})
        assert len(payload.alerts) + len(payload.set_aside) == len(listed)

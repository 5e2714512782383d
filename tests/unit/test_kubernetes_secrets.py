"""What is secret in a change is in no text of it: not in a plan, a log or an error."""

import base64
import json

import pytest

from blocks.kube import text
from blocks.kube.wire import _revealed
from recovery.secrecy.redaction import redact
from recovery.secrecy.secret import Secret, isolated_registry

PLAIN = "s3cret-of-the-lab"
ENCODED = base64.b64encode(PLAIN.encode()).decode()
PLACE = "/api/v1/namespaces/divoc/secrets/divoc-secrets"
CONFIG_MAP = "/api/v1/namespaces/divoc/configmaps/divoc-config"


@pytest.fixture(autouse=True)
def _no_secret_is_known():
    with isolated_registry():
        yield


@pytest.mark.parametrize("value", [ENCODED, Secret(ENCODED)], ids=["bare", "typed"])
@pytest.mark.parametrize(
    "write",
    [
        lambda v: text.patch_text(PLACE, [text.tested("/data/KEY", v)]),
        lambda v: text.patch_text(PLACE, [{"op": "replace", "path": "/data/KEY", "value": v}]),
        lambda v: text.patch_text(PLACE, [{"op": "add", "path": "/data", "value": {"KEY": v}}]),
        lambda v: text.patch_text(PLACE, [{"op": "add", "path": "", "value": {"data": {"K": v}}}]),
        lambda v: text.merge_text(PLACE, {"data": {"KEY": v}}),
        lambda v: text.merge_text(PLACE, {"stringData": {"KEY": v}}),
        lambda v: text.create_text(PLACE.rpartition("/")[0], {"data": {"KEY": v}}),
    ],
)
def test_no_text_of_a_change_to_a_secret_holds_its_contents(write, value):
    written = write(value)

    assert ENCODED not in written
    assert PLAIN not in written
    assert "***" in written


def test_what_a_change_would_write_into_a_secret_becomes_known_to_redaction():
    text.patch_text(PLACE, [{"op": "replace", "path": "/data/KEY", "value": ENCODED}])

    assert redact(f"webhook said: {PLAIN} or {ENCODED}") == "webhook said: *** or ***"


def test_a_secret_in_a_config_map_is_masked_and_its_other_values_are_not():
    operations = [
        {"op": "replace", "path": "/data/KEY", "value": Secret(PLAIN)},
        {"op": "replace", "path": "/data/LIMIT", "value": "200"},
    ]

    written = text.patch_text(CONFIG_MAP, operations)

    assert PLAIN not in written
    assert '"path":"/data/LIMIT","value":"200"' in written


def test_what_is_not_contents_of_a_secret_stands_in_the_text():
    written = text.patch_text(PLACE, [*text.tests(uid="u1"), {"op": "remove", "path": "/data/K"}])

    assert '"path":"/metadata/uid","value":"u1"' in written
    assert '{"op":"remove","path":"/data/K"}' in written


@pytest.mark.parametrize("value", [ENCODED, Secret(ENCODED)], ids=["bare", "typed"])
def test_a_test_that_does_not_hold_tells_neither_value(value):
    other = base64.b64encode(b"another-s3cret").decode()
    read = {"kind": "Secret", "data": {"KEY": other}}

    why = text.changed_since(read, [text.tested("/data/KEY", value)])

    assert why == "/data/KEY is another value, and not what it was"


def test_a_test_of_a_secret_holds_for_the_value_itself():
    read = {"kind": "ConfigMap", "data": {"KEY": PLAIN}}

    assert text.changed_since(read, [text.tested("/data/KEY", Secret(PLAIN))]) == ""


def test_only_the_wire_writes_a_secret_out():
    body = [{"op": "add", "path": "/data/KEY", "value": Secret(PLAIN)}]

    assert PLAIN not in repr(body)
    assert json.loads(json.dumps(body, default=_revealed))[0]["value"] == PLAIN
    with pytest.raises(TypeError, match="object has no place in a request"):
        json.dumps([object()], default=_revealed)

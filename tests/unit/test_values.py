"""Plain values: what goes into the journal and comes back."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum, StrEnum
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recovery.secrecy.redaction import isolated_registry
from recovery.secrecy.secret import Secret
from recovery.values import canonical, fingerprint, from_plain, to_plain

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


class Colour(StrEnum):
    RED = "red"


class Level(Enum):
    HIGH = 3


@dataclass(frozen=True)
class Node:
    name: str
    level: Level
    parts: tuple[int, ...]


class Host:
    label = "ssh://host-1"


@pytest.mark.parametrize(
    ("value", "annotation"),
    [
        (Colour.RED, Colour),
        (Level.HIGH, Level),
        (Node("a", Level.HIGH, (1, 2)), Node),
        ([Node("a", Level.HIGH, ())], list[Node]),
        ({"a": {1, 2}}, dict[str, set[int]]),
        ({1: "a"}, dict[int, str]),
        (Path("/x/ž"), Path),
        (timedelta(seconds=90), timedelta),
        (datetime(2026, 3, 1, 2, 30, tzinfo=UTC), datetime),
        (2**80, int),
        ("\x00 🐎 \ud800", object),
    ],
)
def test_a_typed_value_comes_back_as_it_was(value, annotation):
    assert from_plain(annotation, to_plain(value)) == value


@given(JSON)
def test_the_fingerprint_of_any_json_is_that_of_what_is_read_back(value):
    assert fingerprint(value) == fingerprint(from_plain(object, value))
    canonical(value).encode()


def test_a_fingerprint_does_not_depend_on_the_order_of_keys_and_sets():
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    assert to_plain({"b", "a", "c"}) == ["a", "b", "c"]


def test_what_opens_a_connection_stands_for_itself_by_its_label():
    assert to_plain([Host()]) == ["ssh://host-1"]


def test_a_secret_is_kept_as_its_mask_alone():
    with isolated_registry():
        assert to_plain({"password": Secret("hunter-twenty-two")}) == {"password": "***"}


def test_what_has_no_plain_form_is_named():
    with pytest.raises(TypeError, match="object has no plain form"):
        to_plain({"client": object()})

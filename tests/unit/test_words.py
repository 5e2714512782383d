"""Plain values in words: what people read instead of JSON or of what Python prints."""

from dataclasses import dataclass
from datetime import UTC, datetime

import pytest

from recovery.secrecy.redaction import isolated_registry, register
from recovery.values import to_plain
from recovery.words import field_lines, in_words, told


@pytest.mark.parametrize(
    ("plain", "words"),
    [
        (None, "none"),
        (True, "yes"),
        (29.5, "29.5"),
        ("two\nlines", "two lines"),
        ("2027-03-01T02:14:00.123456+00:00", "2027-03-01 02:14:00Z"),
        ([], "none"),
        (["id", "org"], "id, org"),
        (["3 sessions", "1 slot"], "3 sessions; 1 slot"),
        ({"unit": "redis", "copy": "", "saw": "dead"}, "saw: dead, unit: redis"),
        ({"keys": [{"db": 0}, {"db": 5}], "at": {"x": 1}}, "keys: (db: 0; db: 5), at: (x: 1)"),
        ({"leaves": [{"name": "x" * 50}] * 10}, "leaves: 10 entries"),
        (
            [{"host": "cp1", "why": "expired"}, {"host": "cp2"}],
            "host: cp1, why: expired; host: cp2",
        ),
        ({"keys": [[0, 500]]}, "keys: (0, 500)"),
        ({}, "none"),
    ],
)
def test_a_value_is_told_in_words(plain, words):
    assert in_words(plain) == words


VALUE = "Sup3rS3cretPassw0rd-0123456789"


@dataclass
class Holding:
    names: list[str]
    why: str


@pytest.mark.parametrize("chars_max", [240, 600])
@pytest.mark.parametrize("before", range(0, 40, 3))
@pytest.mark.parametrize(
    "value",
    [str, lambda text: [text], lambda text: Holding([text], "it is there"), lambda t: {t: "is"}],
    ids=["a text", "a list", "fields", "a name"],
)
def test_a_secret_that_the_end_of_a_line_would_cut_is_masked_as_a_whole(value, before, chars_max):
    """Goal: no piece of a secret is shown that is too short to be known as one."""
    with isolated_registry():
        register(VALUE)
        text = "a" * (chars_max - before) + VALUE

        lines = [told(value(text), chars_max), in_words(to_plain(value(text)), chars_max)]
        lines += field_lines(to_plain(value(text)))

        assert not [line for line in lines if VALUE[:4] in line]
        assert len(lines[0]) <= chars_max


def test_a_long_value_stays_within_its_line_and_says_how_many_more():
    many = in_words(list(range(30)))

    assert many.endswith("18, 19, and 10 more")
    assert len(in_words("x" * 1000)) == 240
    assert in_words("x" * 1000).endswith("…")
    hosts = in_words([{"host": f"cp{n}", "why": "y" * 300} for n in range(3)])
    assert [part.split()[1] for part in hosts.split("; ")] == ["cp0,", "cp1,", "cp2,"]


@dataclass
class Seen:
    seen_at: datetime
    names: tuple[str, ...]


def test_a_value_of_a_type_of_ours_is_told_without_the_type():
    assert told(Seen(datetime(2027, 3, 1, tzinfo=UTC), ("a", "b"))) == (
        "seen_at: 2027-03-01 00:00:00Z, names: a, b"
    )
    assert told(None) == ""


def test_what_is_left_to_a_person_is_told_before_the_end_of_a_line_is_cut_off():
    plain = {"hosts": ["a-host.example"] * 20, "left_to_person": ["start Grafana"]}

    assert in_words(plain, 60).startswith("left_to_person: start Grafana, hosts: a-host")
    assert field_lines(plain)[0] == "left_to_person: start Grafana"


def test_a_result_is_told_field_by_field():
    result = {"built": ["id"], "notes": ["a" * 60, "b" * 60], "copy": ""}

    assert field_lines(result) == [
        "built: id",
        "notes:",
        f"  {'a' * 60}",
        f"  {'b' * 60}",
        "copy: none",
    ]
    assert field_lines({"now": {"role": "master", "id": "x" * 80}}) == [
        "now:", "  role: master", f"  id: {'x' * 80}",
    ]  # fmt: skip
    assert field_lines(30) == ["30"]
    assert field_lines(None) == []

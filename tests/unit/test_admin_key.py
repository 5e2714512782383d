"""Whether a lost admin key is reason enough: what is typed, counted and read."""

from datetime import UTC, datetime

import pytest

from recovery.errors import BadInput, UnreadableOutput
from tasks.admin_key.asking import COUNTS, counting, read_counts
from tasks.admin_key.order import (
    AdminKeyForm,
    KeyWish,
    Login,
    admin_key_order,
    admin_key_parts,
    more_than_fresh,
)

GIVEN = {
    "cluster": "in-cluster:?name=lab",
    "namespace": "vantiq",
    "client": "statefulset/vantiq",
    "databases": None,
    "keycloak": "https://admin@sso.example.net/auth?password_file=/run/keys/sso",
    "realm": "vantiq",
    "role": "system-admin",
    "baseline": ["vantiq.namespaces=1"],
    "login": Login(),
    "key": KeyWish(r"key: (\S+)", "/run/keys/new"),
    "confirm": "erase vantiq of lab",
    "declared_by": "kim",
    "window": "2026-11-20T22:00Z/2026-11-21T02:00+00:00",
}


def an_order(**given):
    return admin_key_order(AdminKeyForm(**{**GIVEN, **given}))


def test_everything_that_is_typed_is_read():
    order = an_order()

    assert order.baseline == {"vantiq.namespaces": 1}
    assert [one.name for one in order.databases] == ["mongodb"]
    assert order.consent.is_open(datetime(2026, 11, 21, 1, tzinfo=UTC))
    assert not order.consent.is_open(datetime(2026, 11, 21, 2, tzinfo=UTC))
    assert order.label == "kubernetes://lab/vantiq/mongodb"
    parts = admin_key_parts("in-cluster:?name=lab", "vantiq", None, "vantiq")
    assert parts == ["kubernetes://lab/vantiq/vantiq", "kubernetes://lab/vantiq/mongodb"]


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"databases": []}, "databases"),
        ({"databases": ["deployment/mongodb"]}, "databases"),
        ({"databases": ["mongodb"]}, "databases"),
        ({"databases": ["statefulset/vantiq"]}, "databases"),
        ({"namespace": "shared", "confirm": "erase shared of lab"}, "namespace"),
        ({"role": " "}, "role"),
        ({"declared_by": ""}, "declared_by"),
        ({"confirm": "erase vantiq"}, "confirm"),
        ({"confirm": "erase vantiq of prod"}, "confirm"),
        ({"login": Login("root")}, "database_user"),
        ({"baseline": ["vantiq=1"]}, "baseline"),
        ({"window": "tonight"}, "window"),
        ({"window": "2026-11-20T22:00/2026-11-21T02:00"}, "window"),
        ({"window": "2026-11-20T22:00Z/2026-11-23T02:00Z"}, "window"),
        ({"key": KeyWish("key: .*", "/run/keys/new")}, "key_pattern"),
        ({"key": KeyWish("key: (", "/run/keys/new")}, "key_pattern"),
        ({"key": KeyWish("key: (.*)", "new")}, "key_file"),
    ],
)
def test_what_is_malformed_or_too_wide_is_bad_input(given, field):
    with pytest.raises(BadInput) as wrong:
        an_order(**given)

    assert wrong.value.field == field


@pytest.mark.parametrize(
    ("counts", "told"),
    [
        ({"vantiq.namespaces": 1}, []),
        ({"vantiq.namespaces": 1, "vantiq.types": 0}, []),
        ({}, ["vantiq.namespaces has 0 documents, 1 when fresh"]),
        (
            {"vantiq.namespaces": 1, "app.orders": 3},
            ["app.orders has 3 documents, 0 when fresh"],
        ),
    ],
)
def test_empty_is_exactly_what_a_fresh_installation_has(counts, told):
    assert more_than_fresh(counts, {"vantiq.namespaces": 1}) == told


def test_counts_are_the_last_line_that_was_printed():
    assert read_counts("c", 'Warning: x\n{"vantiq.types":40}\n') == {"vantiq.types": 40}


@pytest.mark.parametrize("printed", ["", "null", "[]", '{"a.b": "many"}', '{"a.b": true}', "error"])
def test_what_is_no_count_is_not_taken_for_none(printed):
    with pytest.raises(UnreadableOutput):
        read_counts("c", printed)


def test_a_password_reaches_the_shell_by_its_input_alone(tmp_path):
    file = tmp_path / "password"
    file.write_text("pa55-0f-the-lab")
    file.chmod(0o600)

    command = counting(an_order(login=Login("root", str(file))))

    assert command.stdin == b"pa55-0f-the-lab\n"
    assert "pa55" not in " ".join(command.argv)
    assert counting(an_order()).argv[-1] == COUNTS

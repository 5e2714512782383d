"""The wanted indexes, their statements, and what is computed before one is built."""

from datetime import UTC, datetime

import pytest

from blocks.postgres.server import PostgresServer
from recovery.errors import BadInput, Refused
from tasks.registry_indexes import preflight
from tasks.registry_indexes.catalog import FoundIndex, is_leftover
from tasks.registry_indexes.lookups import indexes_in
from tasks.registry_indexes.sessions import Build, Session
from tasks.registry_indexes.sizes import Room, estimated_bytes
from tasks.registry_indexes.wanted import WANTED, IndexRepair, end_older_line, index_repair

URL = "postgresql://u@db/registry"


def repair(**other):
    whole = {
        "database": PostgresServer.from_url(URL), "host": None, "schema": "public",
        "table": "V_VaccinationCertificate", "skip": (), "accept": (), "blocked_within_minutes": 1,
    }  # fmt: skip
    return IndexRepair(**{**whole, **other})


def test_the_five_are_those_of_the_runbook_and_quoted():
    lines = [repair().create_line(index.column) for index in WANTED]

    name, table = "public_V_VaccinationCertificate", '"public"."V_VaccinationCertificate"'
    assert [line.replace(table, "T").replace(name, "N") for line in lines] == [
        'CREATE INDEX CONCURRENTLY "N_preEnrollmentCode_sqlgIdx" ON T ("preEnrollmentCode")',
        'CREATE UNIQUE INDEX CONCURRENTLY "N_certificateId_sqlgIdx" ON T ("certificateId")',
        'CREATE INDEX CONCURRENTLY "N_contact_sqlgIdx" ON T ("contact")',
        'CREATE INDEX CONCURRENTLY "N_mobile_sqlgIdx" ON T ("mobile")',
        'CREATE INDEX CONCURRENTLY "N_osid_sqlgIdx" ON T ("osid")',
    ]
    assert (
        repair()
        .drop_line('a"b')
        .startswith('DROP INDEX CONCURRENTLY IF EXISTS "public"."a""b" /* only while')
    )
    assert "recover none %" in end_older_line()
    assert repair().label == "postgresql://db:5432/registry public.V_VaccinationCertificate"


@pytest.mark.parametrize(
    ("parameters", "field"),
    [
        ({"skip": ["x"]}, "skip"), ({"skip": [i.column for i in WANTED]}, "skip"),
        ({"accept": ["x"]}, "accept"), ({"blocked_within_minutes": 1441}, "blocked_within_minutes"),
        ({"schema": ""}, "table_schema"), ({"table": "t" * 50}, "table"),
        ({"database": "mysql://x"}, "database (scheme)"),
    ],
)  # fmt: skip
def test_a_parameter_that_is_wrong_is_named(parameters, field):
    whole = {"database": URL, "host": None, "schema": "public", "table": "t", "skip": [],
             "accept": [], "blocked_within_minutes": 30}  # fmt: skip
    with pytest.raises(BadInput) as refusal:
        index_repair(**{**whole, **parameters})

    assert refusal.value.field == field


INDEX = FoundIndex(1, "by_hand", "osid", False, True, True, "CREATE INDEX …")  # noqa: FBT003
BY_COLUMN = {index.column: index for index in WANTED}


@pytest.mark.parametrize(
    ("changed", "column", "serves"),
    [
        ({}, "osid", True),
        ({"is_unique": True}, "osid", True),
        ({}, "mobile", False),
        ({"is_usable": False}, "osid", False),
        ({"is_plain": False}, "osid", False),
        ({"column": ""}, "osid", False),
        ({"column": "certificateId"}, "certificateId", False),
        ({"column": "certificateId", "is_unique": True}, "certificateId", True),
    ],
)
def test_an_index_serves_by_definition_whatever_its_name(changed, column, serves):
    index = FoundIndex(**{**vars(INDEX), **changed})

    assert index.serves(BY_COLUMN[column]) is serves


@pytest.mark.parametrize(
    ("name", "left"),
    [
        ("public_V_VaccinationCertificate_osid_sqlgIdx", True), ("whatever_ccnew", True),
        ("whatever_ccold12", True), ("by_hand", False), ("a_ccnewer", False),
    ],
)  # fmt: skip
def test_only_what_broken_builds_leave_is_a_leftover(name, left):
    invalid = FoundIndex(**{**vars(INDEX), "name": name, "is_usable": False})

    assert is_leftover(invalid, repair()) is left
    assert not is_leftover(FoundIndex(**{**vars(INDEX), "name": name}), repair())


def test_a_plan_tells_its_indexes_but_not_those_that_find_the_value():
    plan = {
        "Node Type": "Bitmap Heap Scan",
        "Plans": [
            {"Node Type": "Limit", "Parent Relationship": "InitPlan",
             "Plans": [{"Node Type": "Index Only Scan", "Index Name": "other"}]},
            {"Node Type": "Bitmap Index Scan", "Index Name": "mine",
             "Parent Relationship": "Outer"},
        ],
    }  # fmt: skip
    assert list(indexes_in(plan)) == ["mine"]
    assert list(indexes_in({"Node Type": "Seq Scan"})) == []


def test_room_is_judged_where_indexes_and_where_the_log_go():
    assert Room("/d", 200, 0, is_wal_apart=False).shortfall(100) == ""
    assert "are free under /d" in Room("/d", 199, 10**9, is_wal_apart=True).shortfall(100)
    assert "write-ahead log" in Room("/d", 200, 99, is_wal_apart=True).shortfall(100)
    assert estimated_bytes(0, 0) == 16384
    assert estimated_bytes(1_000_000, 16) > estimated_bytes(1_000_000, 8) > 20_000_000


def test_progress_and_sessions_are_told_in_a_line():
    build = Build(7, 8, "building index: scanning table", 50, 200, 0, 0, is_ours=True)
    assert str(build) == "building index: scanning table: 50 of 200 blocks, 25 %"
    rows = Build(7, 8, "building index: loading tuples in tree", 0, 0, 5, 10, is_ours=True)
    assert str(rows).endswith("5 of 10 rows, 50 %")
    assert str(Build(7, 8, "initializing", 0, 0, 0, 0, is_ours=True)) == "initializing"
    since = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    one = Session(9, "etl", "batch", "idle in transaction", since, "UPDATE\n x")
    assert str(one) == (
        "process 9 of etl (batch), idle in transaction since 2026-01-02 03:04:05 UTC, "
        "last statement 'UPDATE x'"
    )
    assert one.remedy == "SELECT pg_terminate_backend(9)"
    gone = Session(0, "etl", "", "prepared transaction", None, "xa-1")
    assert "prepared transaction 'xa-1' of etl" in str(gone)
    assert "ROLLBACK PREPARED 'xa-1'" in gone.remedy


def test_duplicates_are_told_by_value_and_not_without_end():
    twice = [(f"v{n}", 2) for n in range(preflight.TOLD_MAX + 1)]

    told = preflight.told_duplicates("certificateId", twice)

    assert "v0 (2 times)" in told
    assert told.endswith(" and more")


class OldServer:
    is_pooled, version = False, 110022

    def rows(self, sql, args=()):
        return [(False, False, "11.22")]


class Pooled(OldServer):
    is_pooled = True


@pytest.mark.parametrize(
    ("server", "said"), [(OldServer(), "11.22 does not show"), (Pooled(), "a pooler stands")]
)
def test_a_server_on_which_a_build_cannot_be_followed_is_refused(server, said):
    with pytest.raises(Refused, match=said):
        preflight.refuse_other_server(server, repair())

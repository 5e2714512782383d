"""What two schemas differ in, which tables are moved, and what can be accepted."""

import pytest

from recovery.errors import Refused
from tasks.grafana.acceptance import Grade, Hazard, is_accepted, refuse_unless_accepted, shown_cell
from tasks.grafana.columns import Column
from tasks.grafana.schema import (
    MigrationLog,
    SourceColumn,
    SourceSchema,
    SourceTable,
    TargetSchema,
    TargetTable,
    guessed_version,
)
from tasks.grafana.tables import UNIFIED_LOG, compare_schemas


def mine(name, *columns, rows=1):
    return SourceTable(name, tuple(SourceColumn(c, "TEXT") for c in columns or ("id",)), rows)


def theirs(name, *columns, engine="InnoDB"):
    made = (column(c) if isinstance(c, str) else c for c in columns or ("id",))
    return TargetTable(name, engine, tuple(made), ())


def column(name):
    return Column(name, "text", "text", is_nullable=True, has_default=True)


def log(*applied, name="migration_log", failed=()):
    return MigrationLog(name, applied, failed)


def compare(my_tables=(), their_tables=(), my_logs=(), their_logs=()):
    return compare_schemas(
        SourceSchema(tuple(my_tables), tuple(my_logs)),
        TargetSchema(tuple(their_tables), tuple(their_logs)),
    )


def named(comparison):
    return {hazard.name: hazard.grade for hazard in comparison.hazards}


def test_columns_are_paired_by_name_whatever_their_order_and_case():
    found = compare([mine("tag", "id", "Key", "value")], [theirs("tag", "value", "key", "id")])

    assert [column.name for column in found.copied[0].columns] == ["value", "key", "id"]
    assert not found.hazards


@pytest.mark.parametrize(
    "table",
    ["migration_log", "resource_migration_log", "server_lock", "session", "user_auth_token"],
)
def test_what_belongs_to_one_side_is_skipped_with_the_reason(table):
    found = compare([mine(table)], [theirs(table)])

    assert not found.copied
    assert found.skipped[0].reason


def test_tables_of_both_sides_that_stay_are_named_with_the_reason_whatever_their_case():
    found = compare(
        [mine("cache_data"), mine("Session"), mine("sqlite_sequence"), mine("tag"), mine("gone")],
        [theirs("Cache_data"), theirs("session"), theirs("tag"), theirs("server_lock")],
    )

    assert found.kept == {
        "Session": "log-ins of browsers; people log in again",
        "cache_data": "a cache that is filled anew",
    }


@pytest.mark.parametrize("table", ["kv_store", "data_keys", "secrets", "alert_instance", "api_key"])
def test_what_must_not_be_skipped_is_copied(table):
    assert compare([mine(table)], [theirs(table)]).copied


def test_a_table_with_rows_that_the_target_lacks_is_a_loss():
    assert named(compare([mine("playlist"), mine("tag", rows=0)])) == {
        "no-target-table:playlist": Grade.LOSS
    }


def test_a_column_that_must_have_a_value_and_gets_none_is_an_obstacle():
    needed = Column("uid", "varchar", "varchar(40)", is_nullable=False, has_default=False)
    optional = Column("note", "text", "text", is_nullable=True, has_default=True)
    found = compare([mine("tag", "id")], [theirs("tag", "id", needed, optional)])

    assert named(found) == {
        "no-source-column:tag.uid": Grade.OBSTACLE,
        "default-filled:tag.note": Grade.NOTICE,
    }


def test_an_engine_without_transactions_is_an_obstacle():
    found = compare([mine("tag")], [theirs("tag", engine="MyISAM")])

    assert named(found) == {"not-transactional:tag": Grade.OBSTACLE}


def test_a_newer_source_and_a_newer_target_are_told_apart():
    assert named(compare(my_logs=[log("a", "b")], their_logs=[log("a")])) == {
        "newer-source:migration_log": Grade.LOSS
    }
    assert named(compare(my_logs=[log("a")], their_logs=[log("a", "b")])) == {
        "newer-target:migration_log": Grade.LOSS
    }


def test_a_migration_that_newer_grafanas_dropped_is_a_notice():
    found = compare(my_logs=[log("a", "dropped", "b")], their_logs=[log("a", "b")])

    assert named(found) == {"retired-migration:migration_log": Grade.NOTICE}


def test_a_failed_migration_on_either_side_is_an_obstacle():
    assert named(compare(my_logs=[log("a", failed=("b",))], their_logs=[log("a", "b")])) == {
        "failed-migration:source.migration_log": Grade.OBSTACLE
    }
    assert "failed-migration:target.migration_log" in named(
        compare(my_logs=[log("a")], their_logs=[log("a", failed=("b",))])
    )


def test_tables_of_the_other_edition_are_named():
    assert named(compare([mine("report", rows=0)])) == {"other-edition:source": Grade.LOSS}


def test_unified_storage_on_one_side_only_is_an_obstacle():
    moved = log("folders and dashboards migration", name=UNIFIED_LOG)
    for logs in ({"my_logs": [moved]}, {"their_logs": [moved]}):
        assert named(compare(**logs)) == {f"unified-storage:{UNIFIED_LOG}": Grade.OBSTACLE}


def test_unified_storage_that_is_the_same_on_both_sides_moves_as_one_set():
    moved = [log("folders and dashboards migration", name=UNIFIED_LOG)]
    mine_, theirs_ = mine("resource", "guid", "value"), theirs("resource", "guid", "value")

    same = compare([mine_], [theirs_], moved, moved)
    differs = compare([mine_], [theirs("resource", "guid")], moved, moved)

    assert [pair.name for pair in same.copied] == ["resource"]
    assert not same.hazards
    assert named(differs)["unified-storage:resource"] is Grade.OBSTACLE


def test_the_version_is_guessed_from_landmarks():
    assert guessed_version((log("create kv_store table v1"),)) == "8.1 or later"
    assert guessed_version(()) == "4.x or earlier"


def hazard(grade, kind="too-odd"):
    return Hazard(kind, "tag.key", grade, 2, "id=1", "'x'", "it is odd", "Make it even")


def test_a_loss_is_accepted_by_its_name_or_for_all_places_and_nothing_else():
    loss = hazard(Grade.LOSS)

    assert is_accepted(loss, ["too-odd:tag.key"])
    assert is_accepted(loss, ["too-odd:*"])
    for name in ("too-odd", "*", "too-odd:tag", "tag.key", ""):
        assert not is_accepted(loss, [name])


def test_an_obstacle_is_never_accepted_and_a_notice_always():
    assert not is_accepted(hazard(Grade.OBSTACLE), ["too-odd:tag.key", "too-odd:*"])
    assert is_accepted(hazard(Grade.NOTICE), [])


def test_a_refusal_names_the_row_and_the_acceptance():
    with pytest.raises(Refused) as refusal:
        refuse_unless_accepted("mysql://db", [hazard(Grade.LOSS), hazard(Grade.NOTICE, "fine")])

    assert "2 rows, first id=1: 'x'" in refusal.value.reason
    assert "too-odd:tag.key" in refusal.value.remedy
    assert "fine" not in str(refusal.value)


def test_a_cell_that_can_hold_a_secret_is_not_shown():
    assert "hunter2" not in shown_cell("user", "password", b"hunter2")
    assert "hunter2" not in shown_cell("secrets", "value", b"hunter2")
    assert "hunter2" in shown_cell("tag", "value", b"hunter2")
